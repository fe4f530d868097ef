"""
The summary of a report in a few sentences, and its failure cases.

Failure cases are the true actions that were predicted wrongly with the greatest confidence, in the
bags as recorded; where nothing is wrong there, of the next condition in which something is: faults
first, then subsets, the largest first. Each is shown by frames of its most confident wrong window.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

import cv2
from karmma_ros.bags.bag_run import BagRun
from karmma_ros.bags.report.bag_report import FailureCase, WithoutSensor
from karmma_ros.bags.report.summary import ScoredBag
from karmma_ros.clip import NANOSECONDS
from karmma_ros.evaluation.classification import PredictedActions, windows_of
from karmma_ros.evaluation.ground_truth import UNKNOWN
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality, parse_subset, subset_name
import numpy as np
from numpy.typing import NDArray

Report = Mapping[str, Any]


def percent(fraction: float | None, digits: int = 1) -> str:
    """Return a fraction in percent; a dash where it is unknown."""
    return '–' if fraction is None else f'{100 * fraction:.{digits}f}'


def seconds(value: float | None, digits: int = 1) -> str:
    """Return seconds as text; a dash where they are unknown."""
    return '–' if value is None else f'{value:.{digits}f}'


def clock(value: float) -> str:
    """Return seconds since the start as [h:]mm:ss.s."""
    tenths = round(10 * value)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    before = f'{hours}:{minutes:02}' if hours else f'{minutes}'
    return f'{before}:{rest // 10:02}.{rest % 10}'


def scored_key(report: Mapping[str, Any]) -> str | None:
    """Return the key of the main scores: all heads jointly, or one where no more is labelled."""
    actions = report['conditions'][0]['actions']
    return report['joint_head'] if report['joint_head'] in actions else next(iter(actions), None)


def sentences(report: Mapping[str, Any]) -> Iterator[str]:
    """Yield the results as sentences, the most important first."""
    first, key = report['conditions'][0], scored_key(report)
    if key is None:
        yield (f'{first["windows"]:,} windows were recognised. There is no ground truth to '
               f'compare with; {first["events"]["count"]:,} actions were announced.')
    else:
        yield from _recognised(first, key)
        yield from _announced(first['events'])
        yield from _calibrated(report, key)
    yield from _missing_sensors(report, key)
    if first['unknown']:
        yield (f'{percent(first["unknown"])} % of the windows show an action that the model does '
               'not know, or none.')
    yield _sensors(first['modality_coverage'])


def _recognised(first: Mapping[str, Any], key: str) -> Iterator[str]:
    one = first['actions'][key]
    low, high = one['interval']
    others = ', '.join(f'{name} {percent(each["top1"])} %'
                       for name, each in first['actions'].items() if name != key)
    yield (f'{one["correct"]:,} of {one["count"]:,} true actions are recognised: '
           f'{percent(one["top1"])} % (95 % interval {percent(low)} to {percent(high)})'
           + (f'; {others}.' if others else '.'))


def _announced(events: Mapping[str, Any]) -> Iterator[str]:
    if not events['count'] or not events.get('true'):
        yield 'No action was announced as an event.'
        return
    delay = events['delay_s']
    late = (f', {seconds(delay["p50"])} s after its start in the median '
            f'({seconds(delay["p90"])} s for nine of ten)' if delay['count'] else '')
    yield (f'As a stream: {events["count"]:,} events; {percent(events["recall"])} % of the true '
           f'actions are announced{late}. F1 at an overlap of 0.25: '
           f'{percent(events["f1"]["25"])} %.')


def _calibrated(report: Mapping[str, Any], key: str) -> Iterator[str]:
    bins = report['calibration'][key]['windows']
    known = [(n, c, a) for n, c, a in zip(bins['count'], bins['confidence'], bins['accuracy'])
            if n and c is not None and a is not None]
    total = sum(n for n, _, _ in known)
    if total:
        gap = sum(n * (c - a) for n, c, a in known) / total
        word = 'overconfident' if gap > 0 else 'underconfident'
        yield (f'One window alone is {100 * abs(gap):.1f} percentage points {word} on average '
               f'(calibration error {percent(bins["error"])} %).')


def _missing_sensors(report: Mapping[str, Any], key: str | None) -> Iterator[str]:
    columns = report['segments']['conditions']
    by_subset = {c['parameters']['subset']: columns[c['name']] for c in report['conditions']
             if key is not None and c['parameters'].get('subset')}
    full = max(by_subset, key=lambda name: len(parse_subset(name)), default=None)
    if full is None:
        return
    # Compared on the same actions: those that have all of these sensors.
    indices = [i for i, known in enumerate(known_actions(report, key))
              if known and by_subset[full]['windows'][i]]
    costs = []
    for sensor in parse_subset(full):
        rest = subset_name(m for m in parse_subset(full) if m is not sensor)
        if rest in by_subset and indices:
            costs.append((_accuracy(by_subset[rest], key, indices), modality_type(sensor).label))
    if costs:
        left, sensor_name = min(costs)
        text = (f'With all of {full} {percent(_accuracy(by_subset[full], key, indices))} % of the '
                f'{len(indices):,} actions that have them are right; the costliest single loss is '
                f'{sensor_name}: {percent(left)} % remain.')
        half = (report['robustness'] or {}).get(key)
        yield text + (f' With every sensor missing half of the time: {percent(half[5])} %.'
                      if half else '')


def known_actions(report: Mapping[str, Any], key: str | None) -> list[bool]:
    """Return for each true action whether it counts for a score."""
    truth = report['segments']['truth']
    columns = [truth[key]] if key in truth else list(truth.values())
    return [min(ids) >= 0 for ids in zip(*columns)]


def _accuracy(columns: Mapping[str, Any], key: str | None, indices: Sequence[int]) -> float:
    return sum(columns['correct'][key][i] for i in indices) / len(indices)


def _sensors(fractions: Mapping[str, float]) -> str:
    coverage = ', '.join(f'{modality_type(Modality(name)).label} {percent(fraction, 0)} %'
                         for name, fraction in fractions.items() if fraction)
    return f'Windows that have a sensor: {coverage}.' if coverage else 'No sensor was used.'


MOST = 12
IMAGES = 3
_WIDTH, _QUALITY = 240, 70


def condition_with_errors(report: Report) -> str:
    """Return the condition whose failure cases are shown."""
    key, columns = scored_key(report), report['segments']['conditions']
    conditions = report['conditions']
    ordered = sorted(conditions, key=lambda c: not {'subset', 'without'}.isdisjoint(
        c['parameters']))
    known = known_actions(report, key)
    for condition in [conditions[0], *ordered]:
        each = columns[condition['name']]
        if any(k and n and not correct for k, n, correct in zip(
                known, each['windows'], each['correct'].get(key, ()))):
            return str(condition['name'])
    return str(conditions[0]['name'])


def failure_cases(
    report: Report, runs: Sequence[BagRun], predictions: Sequence[BagPredictions],
    scored: Sequence[ScoredBag], most: int = MOST,
) -> list[FailureCase]:
    """Return the most confident errors, the worst first; empty without ground truth."""
    key = scored_key(report)
    if key is None:
        return []
    wrong: list[tuple[float, int, int]] = []
    for bag, each in enumerate(scored):
        actions = each.actions
        chosen = actions.labelled[key] & actions.predicted & ~actions.hits()[key]
        wrong += [(-float(actions.confidence[key][i]), bag, int(i))
                  for i in np.flatnonzero(chosen)]
    cases = [_failure_case(runs[bag], predictions[bag], scored[bag].actions, bag, i, -confidence)
             for confidence, bag, i in sorted(wrong)[:most]]
    recorded = [next(iter(run.predictions.values())) for run in runs]
    return [replace(case, without=_without(runs[case.bag], case) or None)
            if predictions[case.bag] is recorded[case.bag] else case for case in cases]


def _without(run: BagRun, case: FailureCase) -> list[WithoutSensor]:
    """Return what the window of a failure case would be without each of its sensors."""
    names = run.vocabulary.heads
    classes = {head: names[head].index(name) for head, name in case.predicted.items()}

    def score(table: BagPredictions, row: int) -> float:
        return float(np.prod([table.probabilities[h][row, c] for h, c in classes.items()]))

    tables = {c.without: table for c, table in run.predictions.items() if c.without}
    recorded, end_ns = next(iter(run.predictions.values())), case.window_ns[1]
    score_with = score(recorded, _row_of(recorded, end_ns)[0])
    return [
        WithoutSensor(sensor, score(table, row), score_with, {
            head: names[head][int(table.probabilities[head][row].argmax())] for head in classes})
        for sensor, table in tables.items() for row in _row_of(table, end_ns)]


def _row_of(table: BagPredictions, end_ns: int) -> list[int]:
    """Return the window that ends then, if the table has it."""
    rows: list[int] = np.flatnonzero(table.end_ns == end_ns)[:1].tolist()
    return rows


def _failure_case(
    run: BagRun, predictions: BagPredictions, actions: PredictedActions, bag: int, index: int,
    confidence: float,
) -> FailureCase:
    """Describe a wrong action by the window that is most confident of the wrong classes."""
    assert run.truth is not None, 'an error needs ground truth'
    action = run.truth.actions[index]
    predicted = {head: int(ids[index, 0]) for head, ids in actions.best.items()}
    rows = windows_of(action, predictions)
    joint = np.prod([predictions.probabilities[h][rows, c] for h, c in predicted.items()], axis=0)
    worst = int(rows[int(joint.argmax())])
    start, end = int(predictions.start_ns[worst]), int(predictions.end_ns[worst])
    states = predictions.states
    row = states[np.searchsorted(states[:, 0], end, side='right') - 1] if len(states) \
        else np.zeros(1 + len(predictions.modalities), np.int64)
    present = zip(predictions.modalities, predictions.present[worst])
    return FailureCase(
        bag=bag, start_ns=action.start_ns, end_ns=action.end_ns,
        at_s=(end - run.info.start_ns) / NANOSECONDS, window_ns=(start, end),
        truth=dict(action.names),
        predicted={h: run.vocabulary.heads[h][c] for h, c in predicted.items()},
        confidence=confidence,
        chance_of_truth={h: float(actions.probabilities[h][index, c])
                         for h, c in action.ids.items() if c != UNKNOWN},
        present=[str(modality) for modality, valid in present if valid],
        states=dict(zip(map(str, predictions.modalities), row[1:].tolist())))


def images(
    runs: Sequence[BagRun], windows: Sequence[tuple[int, Sequence[int]]],
) -> list[list[bytes]]:
    """
    Return JPEG files of the first, middle and last frame of windows, as far as available.

    :param windows: index of the bag among the runs, start and end in ns. Each bag is read once.
    """
    times = [[start + (end - start) * i // (IMAGES - 1) for i in range(IMAGES)]
             for _, (start, end) in windows]
    frames: dict[int, Iterator[Any]] = {}
    for bag in {bag for bag, _ in windows}:
        requested = [t for (b, _), three in zip(windows, times) if b == bag for t in three]
        frames[bag] = iter(runs[bag].frames(requested))
    return [[small_jpeg(image) for image in islice(frames[bag], IMAGES) if image is not None]
            for bag, _ in windows]


def small_jpeg(image: NDArray[np.uint8]) -> bytes:
    """Return an RGB frame `[h, w, 3]` as a small JPEG file."""
    height, width = image.shape[:2]
    scale = min(1.0, _WIDTH / width)
    small = cv2.resize(image, (max(1, round(width * scale)), max(1, round(height * scale))),
                       interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
    _, data = cv2.imencode('.jpg', bgr, [cv2.IMWRITE_JPEG_QUALITY, _QUALITY])
    return bytes(data)
