"""
A simulated recording: ground-truth actions, and predictions of a network for a sliding window.

Actions follow each other directly or after an idle time. Predictions for a window across a border
mix both sides, errors of neighbouring windows are correlated, bursts of windows are confident of a
wrong action, and predictions are irregular with gaps. Times are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from karmma_ros.clip import NANOSECONDS
from karmma_ros.data.synthetic_kitchen.vocabulary import NOUNS, VERBS
from karmma_ros.evaluation.segmentation import Segment
from karmma_ros.prediction import NOUN, Prediction, softmax, VERB, Vocabulary
import numpy as np
from numpy.typing import NDArray

BACKGROUND = 'nothing'

_ACTION_S, _IDLE_S = (2.5, 10.0), (2.0, 6.0)
_BURST_S, _GAP_S = (0.4, 1.6), (0.6, 3.0)
_CERTAINTY = 5.0
"""Logit of the true class; the noise of the others has a deviation of 1, and 2 when idle."""
_NOISE_S = 0.5
"""Correlation time of the noise."""


@dataclass(frozen=True)
class RecordingSettings:
    """Contents of a simulated recording."""

    seconds: float = 300.0
    window: float = 2.0
    """Length of the sliding window, seconds."""
    rate: float = 5.0
    """Recognitions a second, on average while no sensor fails."""
    wrong: float = 0.15
    """Fraction of the time in which the network is confident of a wrong action."""
    background: bool = False
    """Whether the network has a background class, as verb and as noun."""


@dataclass(frozen=True)
class DetectedAction:
    """The prediction for the window `(start_ns, stamp_ns]`."""

    start_ns: int
    stamp_ns: int
    prediction: Prediction


@dataclass(frozen=True)
class Recording:
    """A simulated stream and its ground truth; labels are (verb, noun)."""

    vocabulary: Vocabulary
    truth: list[Segment]
    recognitions: list[DetectedAction]


def simulate(settings: RecordingSettings, seed: int) -> Recording:
    """Return a recording, the same for equal seeds."""
    rng = np.random.default_rng(seed)
    extra = (BACKGROUND,) if settings.background else ()
    vocabulary = Vocabulary({VERB: VERBS + extra, NOUN: NOUNS + extra})
    truth = _actions(rng, settings.seconds)
    shown = [(s.start, s.end, s.label) for s in truth]
    bursts = _bursts(rng, settings)
    stamps = _stamps(rng, settings)
    heads = {
        head: _head(rng, names, settings, stamps,
                    [(s, e, label[i]) for s, e, label in shown],  # type: ignore[index]
                    [(s, e, label[i]) for s, e, label in bursts])
        for i, (head, names) in enumerate(vocabulary.heads.items())}
    recognitions = [
        DetectedAction(
            _ns(t - settings.window),
            _ns(t),
            Prediction({h: p[k] for h, p in heads.items()}, vocabulary),
        )
        for k, t in enumerate(stamps)
    ]
    return Recording(vocabulary, [Segment(_ns(s), _ns(e), x) for s, e, x in truth], recognitions)


def _actions(rng: np.random.Generator, seconds: float) -> list[Segment]:
    """Draw the ground truth, in seconds: half of the actions directly follow the previous one."""
    segments: list[Segment] = []
    now, label = rng.uniform(*_IDLE_S), (VERBS[0], NOUNS[0])
    while True:
        end = now + rng.uniform(*_ACTION_S)
        if end > seconds - _IDLE_S[0]:
            return segments
        label = _another(rng, label)
        segments.append(Segment(now, end, label))
        now = end + (rng.uniform(*_IDLE_S) if rng.random() < 0.5 else 0.0)


def _another(rng: np.random.Generator, label: tuple[str, str]) -> tuple[str, str]:
    """Draw a different action; half of them with the same object."""
    verb = str(rng.choice([v for v in VERBS if v != label[0]]))
    return verb, label[1] if rng.random() < 0.5 else str(rng.choice(NOUNS))


def _bursts(
    rng: np.random.Generator, settings: RecordingSettings
) -> list[tuple[float, float, tuple[str, str]]]:
    """Draw when the network is confident of a wrong action."""
    pause = np.mean(_BURST_S) * (1 / settings.wrong - 1) if settings.wrong else np.inf
    bursts, now = [], rng.exponential(pause)
    while now < settings.seconds:
        end = now + rng.uniform(*_BURST_S)
        bursts.append((now, end, (str(rng.choice(VERBS)), str(rng.choice(NOUNS)))))
        now = end + rng.exponential(pause)
    return bursts


def _stamps(rng: np.random.Generator, settings: RecordingSettings) -> list[float]:
    """Draw the ends of the windows, with jitter and a gap about once a minute."""
    stamps, now = [], settings.window
    while now < settings.seconds:
        stamps.append(now)
        now += rng.uniform(0.7, 1.3) / settings.rate
        if rng.random() < 1 / (60 * settings.rate):
            now += rng.uniform(*_GAP_S)
    return stamps


def _head(
    rng: np.random.Generator,
    names: Sequence[str],
    settings: RecordingSettings,
    stamps: Sequence[float],
    shown: Sequence[tuple[float, float, str]],
    bursts: Sequence[tuple[float, float, str]],
) -> NDArray[np.float64]:
    """Return the probabilities of one head for every window, `[windows, classes]`."""
    noise = _noise(rng, stamps, len(names))
    logits = np.zeros_like(noise)
    for k, stamp in enumerate(stamps):
        fraction = np.zeros(len(names))  # of the window, for each class
        for start, end, name in shown:
            overlap = min(end, stamp) - max(start, stamp - settings.window)
            fraction[names.index(name)] += max(0.0, overlap / settings.window)
        idle = max(0.0, 1 - fraction.sum())
        if settings.background:
            fraction[names.index(BACKGROUND)] = idle
        middle = stamp - settings.window / 2
        wrong = next((n for s, e, n in bursts if s <= middle < e), None)
        if wrong is not None:
            fraction = np.eye(len(names))[names.index(wrong)]
        logits[k] = _CERTAINTY * fraction + (1 + idle) * noise[k]
    return softmax(logits)


def _noise(
    rng: np.random.Generator, stamps: Sequence[float], classes: int
) -> NDArray[np.float64]:
    """Draw noise of deviation 1 that changes slowly, as the windows overlap."""
    drawn = rng.standard_normal((len(stamps), classes))
    for k in range(1, len(stamps)):
        kept = np.exp(-(stamps[k] - stamps[k - 1]) / _NOISE_S)
        drawn[k] = kept * drawn[k - 1] + np.sqrt(1 - kept ** 2) * drawn[k]
    return drawn


def _ns(seconds: float) -> int:
    return round(seconds * NANOSECONDS)
