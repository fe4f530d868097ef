"""
A simulated evaluated bag, with sensors that fail, to write a report without model and bag.

Predictions and ground truth are those of `simulated_stream`.
"""

from __future__ import annotations

from collections.abc import Sequence

from karmma_ros.bags.bag_run import BagInfo, BagRun, Condition
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.data.synthetic_kitchen.episode import episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.evaluation.ground_truth import TrueAction, Truth
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.modality import Modality, PAPER_MODALITIES, subset_name, subsets
from karmma_ros.prediction import NOUN, softmax, VERB, Vocabulary
import numpy as np
from numpy.typing import NDArray
from simulated_stream import Recording, RecordingSettings, simulate

START_NS = 1_735_689_600 * NANOSECONDS
_WORTH = {Modality.RGB: 1.0, Modality.FLOW: 0.7, Modality.AUDIO: 0.45, Modality.DETECTIONS: 0.6}
"""Weight of the evidence of each sensor."""
_AVAILABLE, _INSUFFICIENT, _STALE = 5, 3, 2


def simulated_run(
    seconds: float, seed: int = 0, *, path: str = '/bags/simulated_kitchen',
    conditions: bool = True, classes: tuple[int, int] | None = None, rate: float = 5.0,
) -> BagRun:
    """
    Return an evaluated bag, the same for equal arguments.

    :param conditions: whether every subset of the sensors was evaluated.
    :param classes: number of verbs and nouns, filled up with artificial names.
    """
    recording = simulate(RecordingSettings(seconds=seconds, rate=rate), seed)
    rng = np.random.default_rng([seed, 1])
    vocabulary = recording.vocabulary if classes is None else _padded(recording, classes)
    outages = _outages(rng, seconds)
    complete = _predictions(recording, vocabulary, outages, rng)
    runs = {Condition(): complete}
    for subset in subsets(PAPER_MODALITIES) if conditions else ():
        runs[Condition.of_subset(subset)] = _with_only(subset, complete, rng)
    end_ns = START_NS + round(seconds * NANOSECONDS)
    info = BagInfo(
        path, START_NS, end_ns, 'mcap, zstd', round(seconds * 72),
        {'rgb': {'topic': '/image', 'type': 'sensor_msgs/msg/Image', 'count': round(seconds * 30)},
         'audio': {'topic': '/audio', 'type': 'audio_common_msgs/msg/AudioDataStamped',
                   'count': round(seconds * 31)},
         'detections': {'topic': '/detections', 'type': 'vision_msgs/msg/Detection2DArray',
                        'count': round(seconds * 10)}},
        {'images of an unknown encoding': 3}, ())
    return BagRun(info, runs, _truth(recording, vocabulary), vocabulary, ClipSpec(),
                  _Frames(seed))


class _Frames:
    """Frames of the synthetic kitchen at any time."""

    def __init__(self, seed: int) -> None:
        self._seed = seed

    def __call__(self, times_ns: Sequence[int]) -> list[NDArray[np.uint8] | None]:
        frames: list[NDArray[np.uint8] | None] = []
        for time_ns in times_ns:
            seconds = (time_ns - START_NS) / NANOSECONDS
            shown = episode(Split.TEST, self._seed, int(seconds // 4))
            frames.append(shown.frame(seconds % 4, 240, 320))
        return frames


def _padded(recording: Recording, classes: tuple[int, int]) -> Vocabulary:
    return Vocabulary({
        head: (*names, *(f'{head} {i}' for i in range(len(names), size)))
        for (head, names), size in zip(recording.vocabulary.heads.items(), classes)})


def _truth(recording: Recording, vocabulary: Vocabulary) -> Truth:
    actions = []
    for start, end, label in recording.truth:
        names = dict(zip((VERB, NOUN), label))  # type: ignore[call-overload]
        ids = {head: vocabulary.heads[head].index(name) for head, name in names.items()}
        actions.append(TrueAction(START_NS + int(start), START_NS + int(end), names, ids))
    return Truth(tuple(actions), 'simulated.csv')


def _outages(rng: np.random.Generator, seconds: float) -> dict[Modality, list[tuple[int, int]]]:
    """Draw when each sensor has no message: about once in two minutes, for some seconds."""
    outages: dict[Modality, list[tuple[int, int]]] = {}
    for modality in PAPER_MODALITIES:
        outages[modality], now = [], rng.exponential(60.0)
        while now < seconds:
            end = now + rng.uniform(2.0, 15.0)
            outages[modality].append((START_NS + round(now * 1e9), START_NS + round(end * 1e9)))
            now = end + rng.exponential(120.0)
    return outages


def _predictions(
    recording: Recording, vocabulary: Vocabulary,
    outages: dict[Modality, list[tuple[int, int]]], rng: np.random.Generator,
) -> BagPredictions:
    ends = np.array([START_NS + each.stamp_ns for each in recording.recognitions], np.int64)
    starts = np.array([START_NS + each.start_ns for each in recording.recognitions], np.int64)
    present = np.ones((len(ends), len(PAPER_MODALITIES)), np.bool_)
    for i, modality in enumerate(PAPER_MODALITIES):
        for start, end in outages[modality]:
            present[(ends > start) & (ends < end), i] = False
    probabilities = {}
    for head, names in vocabulary.heads.items():
        predicted = np.stack(
            [each.prediction.probabilities[head] for each in recording.recognitions]
        )
        wide = np.full((len(ends), len(names)), 1e-5)
        wide[:, :predicted.shape[1]] = predicted
        probabilities[head] = _weakened(wide, _evidence(present), rng)
    inference_ns = ends + (rng.gamma(2.0, 0.015, len(ends)) * NANOSECONDS).astype(np.int64)
    kept = np.flatnonzero(present.any(1))
    return BagPredictions(
        starts, ends, inference_ns, present, probabilities, np.zeros(len(ends), bool),
        rng.gamma(9.0, 0.004, len(ends)).astype(np.float32), _states(outages)).select(kept)


def _with_only(
    subset: tuple[Modality, ...], complete: BagPredictions, rng: np.random.Generator
) -> BagPredictions:
    columns = [list(PAPER_MODALITIES).index(m) for m in subset]
    chosen = complete.select(np.flatnonzero(complete.present[:, columns].all(1)))
    present = np.zeros_like(chosen.present)
    present[:, columns] = True
    fraction = _evidence(present) / np.maximum(_evidence(chosen.present), 1e-9)
    probabilities = {head: _weakened(p, fraction, rng) for head, p in chosen.probabilities.items()}
    return BagPredictions(
        chosen.start_ns,
        chosen.end_ns,
        chosen.inference_ns,
        present,
        probabilities,
        chosen.is_unknown,
        chosen.latency_s * np.float32(len(subset_name(subset)) / 7),
        complete.states,
    )


def _evidence(present: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the fraction of the evidence that is present, `[k]`, 0 to 1."""
    worth = np.array([_WORTH[m] for m in PAPER_MODALITIES])
    return np.minimum(1.0, (present * worth).sum(1) / worth.sum() * 1.3)


def _weakened(
    p: NDArray[np.floating], fraction: NDArray[np.float64], rng: np.random.Generator
) -> NDArray[np.float32]:
    """Flatten probabilities and add noise where evidence is missing; noise lasts a second."""
    noise = np.repeat(rng.standard_normal((len(p) // 5 + 1, p.shape[1])), 5, axis=0)[:len(p)]
    logits = np.log(np.maximum(p, 1e-9)) * fraction[:, None] + noise * 2.2 * (
        1 - fraction[:, None]
    )
    return softmax(logits).astype(np.float32)


def _states(outages: dict[Modality, list[tuple[int, int]]]) -> NDArray[np.int64]:
    times = sorted({START_NS, *(t for spans in outages.values() for span in spans for t in span),
                    *(start + NANOSECONDS for spans in outages.values() for start, _ in spans)})
    rows: list[list[int]] = []
    for time in times:
        row = [time]
        for modality in PAPER_MODALITIES:
            state = _AVAILABLE
            for start, end in outages[modality]:
                if start <= time < end:
                    state = _INSUFFICIENT if time < start + NANOSECONDS else _STALE
            row.append(state)
        if not rows or rows[-1][1:] != row[1:]:
            rows.append(row)
    return np.array(rows, np.int64)
