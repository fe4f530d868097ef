"""
Everything that a report says, as one JSON-ready mapping; pages and tables only show it.

Each condition's answers are looked at once and let go, so that many conditions of a long bag
need the memory of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
import math
import re
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation import robustness, scores, segmentation
from karmma_ros.evaluation.bag_predictions import BagPredictions, BagRun, Condition
from karmma_ros.evaluation.classification import Reliability
from karmma_ros.evaluation.ground_truth import Truth
from karmma_ros.evaluation.robustness import average_accuracy, POINTS, relative_drop
from karmma_ros.evaluation.scores import PredictedActions
from karmma_ros.evaluation.segmentation import (
    DetectedAction,
    mean_average_precision,
    OVERLAPS,
    Segment,
    SegmentCounts,
    TIOUS,
)
from karmma_ros.modality import Modality
from karmma_ros.prediction import action_heads, further_heads
from karmma_ros.stream.events import EventSettings
import numpy as np
from numpy.typing import NDArray

FORMAT = 'karmma_ros.bag_report/1'
HISTOGRAM_BINS = 40
Report = dict[str, Any]


@dataclass(frozen=True, eq=False)
class ConditionScores:
    """What one condition says of one bag."""

    asked: PredictedActions
    heard: list[DetectedAction]
    true: list[Segment]
    """What the events are held against."""
    places: list[int]
    """Of these, the actions of the truth."""
    counted: list[int]
    """Those of `heard` that are right or wrong."""
    found: dict[str, SegmentCounts]
    edit: float
    delays_s: dict[int, float]
    """Action of the truth that was found → how late it was announced."""


@dataclass(frozen=True, eq=False)
class ReportFigures:
    """The report, and what a page shows beside it."""

    report: Report
    first: list[ConditionScores]
    """Of each bag, as recorded."""
    latency_s: NDArray[np.float64]
    """Of the windows as recorded; no two runs give the same."""


def describe(
    runs: Sequence[BagRun], model: Mapping[str, Any], settings: EventSettings
) -> ReportFigures:
    """
    Score the runs; `made` is not in it.

    :raises InvalidSettingError: when there is no run, or they differ in conditions or classes.
    """
    _check(runs)
    first = runs[0]
    vocabulary = first.vocabulary
    conditions = list(first.answers)
    report: Report = {
        'format': FORMAT, 'model': dict(model),
        'settings': {'window_s': first.spec.duration, 'events': asdict(settings),
                     'overlaps': list(OVERLAPS), 'tious': list(TIOUS)},
        'heads': list(vocabulary.heads), 'joint': scores.joint_key(tuple(vocabulary.heads)),
        'vocabulary': {head: list(names) for head, names in vocabulary.heads.items()},
        'bags': [_bag(run, i, runs) for i, run in enumerate(runs)],
        'segments': _truth_columns(runs), 'conditions': []}
    by_subset: dict[str, PredictedActions] = {}
    looked_first: list[ConditionScores] = []
    latency: NDArray[np.float64] = np.zeros(0)
    for number, condition in enumerate(conditions):
        answers = [run.answers[condition] for run in runs]
        looked = [look(run, a, settings) for run, a in zip(runs, answers)]
        pooled = scores.pool([each.asked for each in looked])
        entry, columns = _condition(condition, runs, answers, looked, pooled, settings)
        if number == 0:
            looked_first, reference, own = looked, answers, _own(runs, answers)
            report |= _details(runs, answers, pooled)
            latency = np.concatenate([a.latency_s for a in answers]).astype(np.float64)
        else:
            entry['agreement'] = _agreement(reference, answers, report['heads'])
        if condition.subset:
            by_subset[condition.subset] = pooled
        report['conditions'].append(entry)
        report['segments']['conditions'][condition.name] = columns
    report['losing'] = _losing(report, by_subset, own)
    report['warnings'] = list(dict.fromkeys(_warnings(report)))
    return ReportFigures(without_nan(report), looked_first, latency)


def without_nan(value: Any) -> Any:
    """Make it JSON-ready: no NaN, no numpy, floats of six digits."""
    if isinstance(value, Mapping):
        return {str(key): without_nan(x) for key, x in value.items()}
    if isinstance(value, (list, tuple)):
        return [without_nan(x) for x in value]
    if isinstance(value, np.generic):
        return without_nan(value.item())
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value


def histogram(values: NDArray[np.floating]) -> dict[str, Any]:
    """Count values, in seconds, in bins of equal width up to the 99.5 % percentile."""
    if not len(values):
        return {'edges': [], 'counts': [], 'above': 0}
    low, high = min(0.0, float(np.min(values))), float(np.percentile(values, 99.5))
    high = high if high > low else low + 1e-3
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (low, high))
    return {'edges': edges.tolist(), 'counts': counts.tolist(),
            'above': int((values > high).sum())}


def bag_name(path: str) -> str:
    """Return the last part of a path, without the suffix of a bag."""
    last = re.split(r'[\\/]', path.rstrip('\\/'))[-1]
    return re.sub(r'\.(mcap|db3)$', '', last) or path


def _check(runs: Sequence[BagRun]) -> None:
    if not runs:
        raise InvalidSettingError('bags', 'none', 'at least one')
    for run in runs[1:]:
        if run.vocabulary != runs[0].vocabulary or list(run.answers) != list(runs[0].answers):
            raise InvalidSettingError(
                'bags', f'{runs[0].info.path} and {run.info.path}',
                'ones that were evaluated with the same model and the same conditions')


def _bag(run: BagRun, number: int, runs: Sequence[BagRun]) -> dict[str, Any]:
    names = [bag_name(each.info.path) for each in runs]
    name = names[number]
    if names.count(name) > 1:
        name = f'{name} ({names[:number].count(name) + 1})'
    truth = run.truth
    return {
        'name': name, **asdict(run.info), 'seconds': run.info.seconds,
        'truth': None if truth is None else {
            'source': truth.source, 'actions': len(truth.actions),
            'left_out': dict(truth.left_out), 'warnings': list(truth.warnings)},
        'recorded': run.recorded}


def _truth_columns(runs: Sequence[BagRun]) -> dict[str, Any]:
    """Return the true actions of all bags, a column for each fact."""
    rows = [(i, action) for i, run in enumerate(runs) for action in _actions(run)]
    heads = list(runs[0].vocabulary.heads)
    return {
        'bag': [i for i, _ in rows], 'start_ns': [a.start_ns for _, a in rows],
        'stop_ns': [a.stop_ns for _, a in rows],
        'names': {h: [a.names[h] for _, a in rows] for h in heads},
        'truth': {h: [a.ids[h] for _, a in rows] for h in heads}, 'conditions': {}}


def _actions(run: BagRun) -> tuple[Any, ...]:
    return run.truth.actions if run.truth is not None else ()


def look(run: BagRun, answers: BagPredictions, settings: EventSettings) -> ConditionScores:
    """Ask every true action of one bag, and hear its events."""
    heads = segmentation.event_heads(run.vocabulary)
    heard = segmentation.detect_events(answers, run.vocabulary, settings)
    asked = scores.ask(_actions(run), answers)
    truth = run.truth if run.truth is not None else Truth((), '')
    true, places, open_ = segmentation.true_segments(truth, heads, settings.background)
    counted = segmentation.without_open([h.segment for h in heard], open_)
    said = [heard[i].segment for i in counted]
    found = {f'{round(100 * o)}': segmentation.count_matches(true, said, o) for o in OVERLAPS}
    delays = {places[i]: (heard[counted[j]].told_ns - true[i].start) / NANOSECONDS
              for i, j in segmentation.matched(true, said, OVERLAPS[0])}
    edit = segmentation.edit(true, said) if true else float('nan')
    return ConditionScores(asked, heard, true, places, counted, found, edit, delays)


def _condition(
    condition: Condition, runs: Sequence[BagRun], answers: Sequence[BagPredictions],
    looked: Sequence[ConditionScores], pooled: PredictedActions, settings: EventSettings,
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return a condition's figures, and its columns of the true actions."""
    keys = scores.scored_keys(pooled)
    actions: dict[str, dict[str, Any]] = {
        key: dict(each) for key, each in scores.accuracy(pooled).items() if key in keys}
    one, five = pooled.hits(), pooled.hits(scores.TOP)
    for key, each in actions.items():
        known = pooled.scored[key]
        right = int(one[key][known].sum())
        answered = int((known & pooled.answered).sum())
        each['right'], each['interval'] = right, scores.wilson(right, each['count'])
        each['top1_answered'] = right / answered if answered else float('nan')
    windows = scores.pool([scores.ask_windows(_actions(run), a)
                           for run, a in zip(runs, answers)])
    per_window = scores.accuracy(windows)
    entry = {
        'name': condition.name, 'parameters': dict(condition.parameters),
        'windows': sum(map(len, answers)),
        'with_sensor': _with_sensor(answers), 'actions': actions,
        'per_window': {key: {name: per_window[key][name] for name in (
            'count', 'top1', 'top5', 'calibration_error')} for key in keys},
        'events': _events(looked, runs) if keys else {
            'count': sum(len(each.heard) for each in looked)},
        'age_s': segmentation.percentiles(np.concatenate(
            [segmentation.ages_s(a) for a in answers])),
        'by_bag': [_of_bag(each, a) for each, a in zip(looked, answers)]}
    delays = [each.delays_s.get(i) for each in looked for i in range(len(each.asked))]
    columns = {
        'windows': pooled.windows.tolist(),
        'best': {head: np.where(pooled.answered, ids[:, 0], -1).tolist()
                 for head, ids in pooled.best.items()},
        'right': {key: one[key].astype(int).tolist() for key in keys},
        'top5': {key: five[key].astype(int).tolist() for key in keys},
        'confidence': {key: [round(x, 4) for x in pooled.confidence[key].tolist()]
                       for key in keys},
        'delay_s': [None if x is None else round(x, 3) for x in delays]}
    return entry, columns


def _with_sensor(answers: Sequence[BagPredictions]) -> dict[str, float]:
    """Return the share of windows that have each sensor."""
    present = np.concatenate([a.present for a in answers])
    shares = present.mean(0) if len(present) else np.zeros(len(Modality))
    return dict(zip(map(str, Modality), shares.tolist()))


def _events(looked: Sequence[ConditionScores], runs: Sequence[BagRun]) -> dict[str, Any]:
    """Score what was announced, over all bags."""
    vocabulary = runs[0].vocabulary
    found = {o: sum((each.found[o] for each in looked), SegmentCounts(0, 0, 0))
             for o in (looked[0].found if looked else {})}
    delays = np.array([x for each in looked for x in each.delays_s.values()])
    true = sum(len(each.true) for each in looked)
    if not true:
        return {'count': sum(len(each.heard) for each in looked)}
    return {
        'count': sum(len(each.heard) for each in looked), 'true': true,
        'f1': {o: each.f1 for o, each in found.items()},
        'edit': float(np.nanmean([each.edit for each in looked])),
        'found': sum(len(each.delays_s) for each in looked) / true,
        'delay_s': segmentation.percentiles(delays), 'mean_average_precision': _precision(
            looked, segmentation.event_heads(vocabulary),
            segmentation.event_key(tuple(vocabulary.heads)))}


def _precision(
    looked: Sequence[ConditionScores], heads: Sequence[str], key: str
) -> dict[str, list[float]]:
    """Return the mean average precision of each head, and of all together as `key`, at `TIOUS`."""
    counted = [[each.heard[i] for i in each.counted] for each in looked]
    found = {}
    for place, head in enumerate(heads):
        true = [(i, s._replace(label=(s.label[place],)))  # type: ignore[index]
                for i, each in enumerate(looked) for s in each.true]
        found[head] = mean_average_precision(true, [
            d for i, heard in enumerate(counted) for d in segmentation.by_head(heard, place, i)])
    if len(heads) > 1:
        true = [(i, s) for i, each in enumerate(looked) for s in each.true]
        found[key] = mean_average_precision(
            true, [d for i, heard in enumerate(counted) for d in segmentation.whole(heard, i)])
    return found


def _of_bag(looked: ConditionScores, answers: BagPredictions) -> dict[str, Any]:
    hits = looked.asked.hits()
    return {
        'windows': len(answers), 'events': len(looked.heard),
        'top1': {key: [int(hits[key][known].sum()), int(known.sum())]
                 for key, known in looked.asked.scored.items()},
        'found': {o: [f.right, f.wrong, f.missed] for o, f in looked.found.items()},
        'edit': looked.edit}


def _details(
    runs: Sequence[BagRun], answers: Sequence[BagPredictions], pooled: PredictedActions
) -> dict[str, Any]:
    """Return what is told of the bags as recorded only."""
    keys = scores.scored_keys(pooled)
    windows = scores.pool([scores.ask_windows(_actions(run), a)
                           for run, a in zip(runs, answers)])
    return {
        'calibration': {key: {'actions': _bins(scores.calibration(pooled, key)),
                              'windows': _bins(scores.calibration(windows, key))}
                        for key in keys},
        'confusion': {head: [[*pair, n] for pair, n in scores.confusion(pooled, head).items()]
                      for head in pooled.heads if head in keys},
        'age_histogram': histogram(np.concatenate([segmentation.ages_s(a) for a in answers]))}


def _bins(found: Reliability) -> dict[str, Any]:
    return {'count': found.count.tolist(), 'confidence': found.confidence.tolist(),
            'accuracy': found.accuracy.tolist(), 'error': found.error}


def _own(runs: Sequence[BagRun], answers: Sequence[BagPredictions]) -> NDArray[np.bool_]:
    return np.concatenate([robustness.own_sensors(_actions(run), a)
                           for run, a in zip(runs, answers)])


def _agreement(
    reference: Sequence[BagPredictions], answers: Sequence[BagPredictions], heads: Sequence[str]
) -> dict[str, float]:
    parts = [robustness.agreement(r, a, heads) for r, a in zip(reference, answers)]
    weights = np.array([len(r) for r in reference], float)
    compared = np.array([part['compared'] for part in parts]) * weights
    same = np.nan_to_num([part['same'] for part in parts]) * compared
    return {'compared': float(compared.sum() / weights.sum()) if weights.sum() else 0.0,
            'same': float(same.sum() / compared.sum()) if compared.sum() else float('nan')}


def _losing(
    report: Report, by_subset: Mapping[str, PredictedActions], own: NDArray[np.bool_]
) -> dict[str, Any] | None:
    """Return the curve over the chance of losing a sensor, and the measures of robustness."""
    curve = robustness.curve(by_subset, own) if by_subset else None
    if curve is None:
        return None
    joint = report['joint']
    column = {c['parameters']['subset']: c['actions'][joint]['top1_answered']
              for c in report['conditions']
              if c['parameters'].get('subset') and joint in c['actions']}
    full = next(iter(by_subset))
    return {'probability': list(POINTS), **curve, 'average_accuracy': average_accuracy(column),
            'relative_drop': relative_drop(column, full)}


def _warnings(report: Report) -> Iterator[str]:
    many = len(report['bags']) > 1
    for i, bag in enumerate(report['bags']):
        before = f'{bag["name"]}: ' if many else ''
        yield from (before + text for text in bag['warnings'])
        yield from (before + text for text in (bag['truth'] or {}).get('warnings', ()))
        if not report['conditions'][0]['by_bag'][i]['windows']:
            yield before + 'no window could be cut: there is nothing to score'
    first, joint = report['conditions'][0], report['joint']
    scored = first['actions'].get(joint) or next(iter(first['actions'].values()), None)
    if scored and scored['answered'] == 0 and first['windows']:
        yield ('no true action has a window: the times of the truth and the stamps of the '
               'sensors seem to be of different clocks')
    elif scored and scored['answered'] < 0.98:
        yield (f'{100 * (1 - scored["answered"]):.1f} % of the true actions have no answer '
               'and count as wrong: no sensor could be used there')
    if not first['actions'] and any(bag['truth'] for bag in report['bags']):
        yield 'not one true action could be scored'
    others = further_heads(report['heads'])
    if others:
        yield (f'an event names {" and ".join(action_heads(report["heads"]))}: of the head'
               f'{"s" * (len(others) > 1)} {", ".join(others)} only the windows are scored')
