"""
A long recording that was never made: what happens, and what a network would say of it.

True actions follow each other directly or after an idle stretch. A window that spans a border
says something of both sides, neighbouring windows err alike, bursts of windows are sure of a
wrong action, recognitions come irregularly and now and then not at all. Times in integer
nanoseconds.
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
"""Logit of what is seen; the noise of the others has a deviation of 1, and 2 when idle."""
_NOISE_S = 0.5
"""For this long the noise resembles itself."""


@dataclass(frozen=True)
class Course:
    """What a simulated recording shows."""

    seconds: float = 300.0
    window: float = 2.0
    """Length of the sliding window, seconds."""
    rate: float = 5.0
    """Recognitions a second, on average while no sensor fails."""
    wrong: float = 0.15
    """Part of the time in which the network is sure of something else."""
    background: bool = False
    """Whether the network has learnt a class for doing nothing, as verb and as noun."""


@dataclass(frozen=True)
class DetectedAction:
    """One recognition of the window `(start_ns, stamp_ns]`."""

    start_ns: int
    stamp_ns: int
    prediction: Prediction


@dataclass(frozen=True)
class Recording:
    """A simulated stream and its truth; labels are (verb, noun)."""

    vocabulary: Vocabulary
    truth: list[Segment]
    heard: list[DetectedAction]


def simulate(course: Course, seed: int) -> Recording:
    """Make a recording; equal seeds make equal ones."""
    rng = np.random.default_rng(seed)
    extra = (BACKGROUND,) if course.background else ()
    vocabulary = Vocabulary({VERB: VERBS + extra, NOUN: NOUNS + extra})
    truth = _actions(rng, course.seconds)
    shown = [(s.start, s.end, s.label) for s in truth]
    bursts = _bursts(rng, course)
    stamps = _stamps(rng, course)
    heads = {
        head: _head(rng, names, course, stamps,
                    [(s, e, label[i]) for s, e, label in shown],  # type: ignore[index]
                    [(s, e, label[i]) for s, e, label in bursts])
        for i, (head, names) in enumerate(vocabulary.heads.items())}
    heard = [
        DetectedAction(
            _ns(t - course.window),
            _ns(t),
            Prediction({h: p[k] for h, p in heads.items()}, vocabulary),
        )
        for k, t in enumerate(stamps)
    ]
    return Recording(vocabulary, [Segment(_ns(s), _ns(e), x) for s, e, x in truth], heard)


def _actions(rng: np.random.Generator, seconds: float) -> list[Segment]:
    """Draw the truth, in seconds: half of the actions follow the one before directly."""
    found: list[Segment] = []
    now, label = rng.uniform(*_IDLE_S), (VERBS[0], NOUNS[0])
    while True:
        end = now + rng.uniform(*_ACTION_S)
        if end > seconds - _IDLE_S[0]:
            return found
        label = _another(rng, label)
        found.append(Segment(now, end, label))
        now = end + (rng.uniform(*_IDLE_S) if rng.random() < 0.5 else 0.0)


def _another(rng: np.random.Generator, label: tuple[str, str]) -> tuple[str, str]:
    """Draw an action that differs; half of them are done to the same object."""
    verb = str(rng.choice([v for v in VERBS if v != label[0]]))
    return verb, label[1] if rng.random() < 0.5 else str(rng.choice(NOUNS))


def _bursts(
    rng: np.random.Generator, course: Course
) -> list[tuple[float, float, tuple[str, str]]]:
    """Draw when the network is sure of an action that has nothing to do with the scene."""
    pause = np.mean(_BURST_S) * (1 / course.wrong - 1) if course.wrong else np.inf
    found, now = [], rng.exponential(pause)
    while now < course.seconds:
        end = now + rng.uniform(*_BURST_S)
        found.append((now, end, (str(rng.choice(VERBS)), str(rng.choice(NOUNS)))))
        now = end + rng.exponential(pause)
    return found


def _stamps(rng: np.random.Generator, course: Course) -> list[float]:
    """Draw the ends of the windows: jitter, and about once a minute no fresh sensor."""
    found, now = [], course.window
    while now < course.seconds:
        found.append(now)
        now += rng.uniform(0.7, 1.3) / course.rate
        if rng.random() < 1 / (60 * course.rate):
            now += rng.uniform(*_GAP_S)
    return found


def _head(
    rng: np.random.Generator, names: Sequence[str], course: Course, stamps: Sequence[float],
    shown: Sequence[tuple[float, float, str]], bursts: Sequence[tuple[float, float, str]],
) -> NDArray[np.float64]:
    """Return the probabilities of one head for every window, `[windows, classes]`."""
    noise = _noise(rng, stamps, len(names))
    logits = np.zeros_like(noise)
    for k, stamp in enumerate(stamps):
        share = np.zeros(len(names))  # of the window, for each class
        for start, end, name in shown:
            overlap = min(end, stamp) - max(start, stamp - course.window)
            share[names.index(name)] += max(0.0, overlap / course.window)
        idle = max(0.0, 1 - share.sum())
        if course.background:
            share[names.index(BACKGROUND)] = idle
        middle = stamp - course.window / 2
        wrong = next((n for s, e, n in bursts if s <= middle < e), None)
        if wrong is not None:
            share = np.eye(len(names))[names.index(wrong)]
        logits[k] = _CERTAINTY * share + (1 + idle) * noise[k]
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
