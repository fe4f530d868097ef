"""
The worst moments: true actions that were answered wrongly with the greatest confidence.

They are those of the bags as recorded; where nothing is wrong then, of the next condition
in which something is: faults first, then subsets, the largest first.

Each is shown by pictures of the window that was surest of the wrong answer.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import cv2
from karmma_ros.bags.report.findings import known_actions, scored_key
from karmma_ros.bags.report.summary import Looked, Report
from karmma_ros.clip import NANOSECONDS
from karmma_ros.evaluation.bag_predictions import Answers, BagRun
from karmma_ros.evaluation.ground_truth import UNKNOWN
from karmma_ros.evaluation.scores import windows_of
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

MOST = 12
PICTURES = 3
_WIDTH, _QUALITY = 240, 70


def condition_with_errors(report: Report) -> str:
    """Give the condition whose moments are shown."""
    key, columns = scored_key(report), report['segments']['conditions']
    conditions = report['conditions']
    ordered = sorted(conditions, key=lambda c: bool(c['parameters'].get('subset')))
    known = known_actions(report, key)
    for condition in [conditions[0], *ordered]:
        each = columns[condition['name']]
        if any(k and n and not right for k, n, right in zip(
                known, each['windows'], each['right'].get(key, ()))):
            return str(condition['name'])
    return str(conditions[0]['name'])


def worst_moments(
    report: Report, runs: Sequence[BagRun], answers: Sequence[Answers],
    looked: Sequence[Looked], most: int = MOST,
) -> list[dict[str, Any]]:
    """Give the surest errors, the worst first, JSON-ready; empty without truth."""
    key = scored_key(report)
    if key is None:
        return []
    wrong: list[tuple[float, int, int]] = []
    for bag, each in enumerate(looked):
        confidence, hits = each.asked.confidence[key], each.asked.hits()[key]
        chosen = each.asked.scored[key] & each.asked.answered & ~hits
        wrong += [(-float(confidence[i]), bag, int(i)) for i in np.flatnonzero(chosen)]
    return [_moment(report, runs[bag], answers[bag], looked[bag], bag, i)
            for _, bag, i in sorted(wrong)[:most]]


def _moment(
    report: Report, run: BagRun, answers: Answers, looked: Looked, bag: int, i: int
) -> dict[str, Any]:
    assert run.truth is not None, 'an error needs a truth'
    action, asked = run.truth.actions[i], looked.asked
    said = {head: int(ids[i, 0]) for head, ids in asked.best.items()}
    rows = windows_of(action, answers)
    sure = np.prod([answers.probabilities[h][rows, c] for h, c in said.items()], axis=0)
    worst = int(rows[int(sure.argmax())])
    start, end = int(answers.start_ns[worst]), int(answers.end_ns[worst])
    row = answers.states[np.searchsorted(answers.states[:, 0], end, side='right') - 1] \
        if len(answers.states) else np.zeros(5, np.int64)
    return {
        'bag': bag, 'start_ns': action.start_ns, 'stop_ns': action.stop_ns,
        'at_s': (end - run.info.start_ns) / NANOSECONDS, 'window_ns': [start, end],
        'truth': dict(action.names),
        'said': {h: run.vocabulary.heads[h][c] for h, c in said.items()},
        'confidence': float(asked.confidence[scored_key(report) or ''][i]),
        'chance_of_truth': {h: float(asked.chances[h][i, c]) for h, c in action.ids.items()
                            if c != UNKNOWN},
        'present': [str(m) for m, here in zip(Modality, answers.present[worst]) if here],
        'states': dict(zip(map(str, Modality), row[1:].tolist()))}


def pictures(
    runs: Sequence[BagRun], windows: Sequence[tuple[int, Sequence[int]]],
) -> list[list[bytes]]:
    """
    Give JPEG files of start, middle and end of windows; those that are there.

    :param windows: place of the bag among the runs, start and end in ns. Each bag is asked once.
    """
    times = [[start + (end - start) * i // (PICTURES - 1) for i in range(PICTURES)]
             for _, (start, end) in windows]
    found: dict[int, Iterator[Any]] = {}
    for bag in {bag for bag, _ in windows}:
        asked = [t for (b, _), three in zip(windows, times) if b == bag for t in three]
        found[bag] = iter(runs[bag].frames(asked))
    return [[_jpeg(picture) for picture in islice(found[bag], PICTURES) if picture is not None]
            for bag, _ in windows]


def _jpeg(picture: NDArray[np.uint8]) -> bytes:
    height, width = picture.shape[:2]
    scale = min(1.0, _WIDTH / width)
    small = cv2.resize(picture, (max(1, round(width * scale)), max(1, round(height * scale))),
                       interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)
