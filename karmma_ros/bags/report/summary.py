"""
The scores of the report: predictions matched with ground truth, bag by bag and condition.

The predictions of one condition are scored and released before the next, so that many
conditions of a long bag need the memory of one.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, astuple, dataclass, replace
import re
from typing import Any

from karmma_ros.bags.bag_run import BagRun, Condition
from karmma_ros.bags.report.bag_report import (
    ActionColumns,
    ActionScores,
    Agreement,
    BagReport,
    BagSummary,
    CalibrationBins,
    ConditionScores,
    EventScores,
    FORMAT,
    GroundTruthSummary,
    Histogram,
    PerBagScores,
    Percentiles,
    ReliabilityDiagrams,
    ReportSettings,
    TrueActions,
    WindowScores,
)
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation import classification, robustness, segmentation
from karmma_ros.evaluation.average_precision import mean_average_precision, TIOUS
from karmma_ros.evaluation.classification import PredictedActions, Reliability
from karmma_ros.evaluation.ground_truth import Truth
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.evaluation.robustness import average_accuracy, POINTS, relative_drop
from karmma_ros.evaluation.segmentation import DetectedAction, OVERLAPS, Segment, SegmentCounts
from karmma_ros.modality import Modality
from karmma_ros.prediction import action_heads, further_heads
from karmma_ros.stream.events import EventSettings
import numpy as np
from numpy.typing import NDArray

HISTOGRAM_BINS = 40


@dataclass(frozen=True, eq=False)
class ScoredBag:
    """One bag under one condition: predictions matched with the ground truth."""

    actions: PredictedActions
    detected: list[DetectedAction]
    true: list[Segment]
    """Ground-truth segments that the events are scored with."""
    counted: list[int]
    """Indices of `detected` outside ignored regions."""
    counts: dict[str, SegmentCounts]
    """Overlap in percent → true positives, false positives, false negatives."""
    edit: float
    delays_s: dict[int, float]
    """Index of a matched true action → delay of its event."""


@dataclass(frozen=True, eq=False)
class ReportFigures:
    """The report, and what a page shows beside it."""

    report: BagReport
    first: list[ScoredBag]
    """Of each bag, as recorded."""
    latency_s: NDArray[np.float64]
    """Of the windows as recorded; no two runs give the same."""


def describe(
    runs: Sequence[BagRun], model: Mapping[str, Any], settings: EventSettings
) -> ReportFigures:
    """
    Score the runs; failure cases and provenance are added by `write`.

    :raises InvalidSettingError: when there is no run, or they differ in conditions or classes.
    """
    _check(runs)
    vocabulary = runs[0].vocabulary
    entries: list[ConditionScores] = []
    columns: dict[str, ActionColumns] = {}
    by_subset: dict[str, PredictedActions] = {}
    reference: list[BagPredictions] = []
    for condition in runs[0].predictions:
        predictions = [run.predictions[condition] for run in runs]
        scored = [score_bag(run, each, settings) for run, each in zip(runs, predictions)]
        pooled = classification.concatenate([each.actions for each in scored])
        if not entries:
            reference, first, first_pooled = predictions, scored, pooled
        entry, columns[condition.name] = evaluate_condition(
            condition, runs, predictions, scored, pooled)
        entries.append(entry if not entries else replace(
            entry, agreement=_agreement(reference, predictions, list(vocabulary.heads))))
        if condition.subset:
            by_subset[condition.subset] = pooled
    joint = classification.joint_key(tuple(vocabulary.heads))
    report = BagReport(
        format=FORMAT, model=dict(model), settings=ReportSettings(
            runs[0].spec.duration, asdict(settings), list(OVERLAPS), list(TIOUS)),
        heads=list(vocabulary.heads), joint_head=joint,
        vocabulary={head: list(names) for head, names in vocabulary.heads.items()},
        bags=[_bag(run, i, runs) for i, run in enumerate(runs)],
        segments=_true_actions(runs, columns), conditions=entries,
        **_recorded_details(runs, reference, first_pooled),
        robustness=_robustness(entries, joint, by_subset, _own(runs, reference),
                               reference[0].modalities),
        warnings=[],
    )
    report = replace(report, warnings=list(dict.fromkeys(_warnings(report))))
    latency = np.concatenate([each.latency_s for each in reference]).astype(np.float64)
    return ReportFigures(report, first, latency)


def histogram(values: NDArray[np.floating]) -> Histogram:
    """Count values, in seconds, in bins of equal width up to the 99.5 % percentile."""
    if not len(values):
        return Histogram([], [], 0)
    low, high = min(0.0, float(np.min(values))), float(np.percentile(values, 99.5))
    high = high if high > low else low + 1e-3
    counts, edges = np.histogram(values, HISTOGRAM_BINS, (low, high))
    return Histogram(edges.tolist(), counts.tolist(), int((values > high).sum()))


def bag_name(path: str) -> str:
    """Return the last part of a path, without the suffix of a bag."""
    last = re.split(r'[\\/]', path.rstrip('\\/'))[-1]
    return re.sub(r'\.(mcap|db3)$', '', last) or path


def _check(runs: Sequence[BagRun]) -> None:
    if not runs:
        raise InvalidSettingError('bags', 'none', 'at least one')
    for run in runs[1:]:
        if run.vocabulary != runs[0].vocabulary or list(run.predictions) != list(
            runs[0].predictions
        ):
            raise InvalidSettingError(
                'bags', f'{runs[0].info.path} and {run.info.path}',
                'ones that were evaluated with the same model and the same conditions')


def _bag(run: BagRun, number: int, runs: Sequence[BagRun]) -> BagSummary:
    names = [bag_name(each.info.path) for each in runs]
    name = names[number]
    if names.count(name) > 1:
        name = f'{name} ({names[:number].count(name) + 1})'
    truth = run.truth
    info = asdict(run.info)
    return BagSummary(
        name=name, **info, seconds=run.info.seconds,
        truth=None if truth is None else GroundTruthSummary(
            truth.source, len(truth.actions), dict(truth.left_out), list(truth.warnings)),
        recorded=run.recorded)


def _true_actions(runs: Sequence[BagRun], conditions: Mapping[str, ActionColumns]) -> TrueActions:
    rows = [(i, action) for i, run in enumerate(runs) for action in _actions(run)]
    heads = list(runs[0].vocabulary.heads)
    return TrueActions(
        bag=[i for i, _ in rows], start_ns=[a.start_ns for _, a in rows],
        end_ns=[a.end_ns for _, a in rows],
        names={h: [a.names[h] for _, a in rows] for h in heads},
        truth={h: [a.ids[h] for _, a in rows] for h in heads}, conditions=conditions)


def _actions(run: BagRun) -> tuple[Any, ...]:
    return run.truth.actions if run.truth is not None else ()


def score_bag(run: BagRun, predictions: BagPredictions, settings: EventSettings) -> ScoredBag:
    """Match the predictions of one bag under one condition with its ground truth."""
    heads, settings = segmentation.event_heads(run.vocabulary), settings.of(run.vocabulary)
    detected = segmentation.detect_events(predictions, run.vocabulary, settings)
    truth = run.truth if run.truth is not None else Truth((), '')
    true, action_index, ignored = segmentation.true_segments(truth, heads, settings.background)
    counted = segmentation.outside_ignored([each.segment for each in detected], ignored)
    predicted = [detected[i].segment for i in counted]
    counts = {f'{round(100 * o)}': segmentation.count_matches(true, predicted, o)
              for o in OVERLAPS}
    delays = {action_index[i]: (detected[counted[j]].announced_ns - true[i].start) / NANOSECONDS
              for i, j in segmentation.match_segments(true, predicted, OVERLAPS[0])}
    edit = segmentation.edit_score(true, predicted) if true else float('nan')
    actions = classification.predict_actions(_actions(run), predictions)
    return ScoredBag(actions, detected, true, counted, counts, edit, delays)


def evaluate_condition(
    condition: Condition, runs: Sequence[BagRun], predictions: Sequence[BagPredictions],
    scored: Sequence[ScoredBag], pooled: PredictedActions,
) -> tuple[ConditionScores, ActionColumns]:
    """Return a condition's scores over all bags, and its results for each true action."""
    keys = classification.labelled_keys(pooled)
    windows = classification.concatenate([
        classification.predict_windows(_actions(run), each)
        for run, each in zip(runs, predictions)])
    per_window = classification.accuracy(windows)
    detected = sum(len(each.detected) for each in scored)
    entry = ConditionScores(
        name=condition.name, parameters=dict(condition.parameters),
        windows=sum(map(len, predictions)), modality_coverage=_modality_coverage(predictions),
        unknown=_mean(np.concatenate([each.is_unknown for each in predictions])),
        actions=_action_scores(pooled, keys),
        per_window={key: WindowScores(**{name: per_window[key][name] for name in (
            'count', 'top1', 'top5', 'calibration_error')}) for key in keys},  # type: ignore
        events=_events(scored, runs) if keys else EventScores(detected),
        age_s=percentiles(np.concatenate([p.age_s for p in predictions])),
        by_bag=[_per_bag(each, p) for each, p in zip(scored, predictions)])
    return entry, _columns(scored, pooled, keys)


def _action_scores(pooled: PredictedActions, keys: Sequence[str]) -> dict[str, ActionScores]:
    accuracy, hits = classification.accuracy(pooled), pooled.hits()
    action_scores = {}
    for key in (key for key in accuracy if key in keys):
        known = pooled.labelled[key]
        correct = int(hits[key][known].sum())
        covered = int((known & pooled.predicted).sum())
        action_scores[key] = ActionScores(
            **accuracy[key], correct=correct,  # type: ignore[arg-type]
            interval=classification.wilson(correct, int(known.sum())),
            top1_covered=correct / covered if covered else float('nan'))
    return action_scores


def _columns(
    scored: Sequence[ScoredBag], pooled: PredictedActions, keys: Sequence[str]
) -> ActionColumns:
    one, five = pooled.hits(), pooled.hits(classification.TOP)
    delays = [each.delays_s.get(i) for each in scored for i in range(len(each.actions))]
    return ActionColumns(
        windows=pooled.windows.tolist(),
        best={head: np.where(pooled.predicted, ids[:, 0], -1).tolist()
              for head, ids in pooled.best.items()},
        correct={key: one[key].astype(int).tolist() for key in keys},
        top5={key: five[key].astype(int).tolist() for key in keys},
        confidence={key: [round(x, 4) for x in pooled.confidence[key].tolist()] for key in keys},
        delay_s=[None if x is None else round(x, 3) for x in delays])


def _mean(values: NDArray[Any]) -> float:
    return float(values.mean()) if len(values) else float('nan')


def _modality_coverage(predictions: Sequence[BagPredictions]) -> dict[str, float]:
    present = np.concatenate([each.present for each in predictions])
    fractions = present.mean(0) if len(present) else np.zeros(present.shape[1])
    return dict(zip(map(str, predictions[0].modalities), fractions.tolist()))


def _events(scored: Sequence[ScoredBag], runs: Sequence[BagRun]) -> EventScores:
    """Score the events of all bags."""
    count = sum(len(each.detected) for each in scored)
    true = sum(len(each.true) for each in scored)
    if not true:
        return EventScores(count)
    counts = {o: sum((each.counts[o] for each in scored), SegmentCounts(0, 0, 0))
              for o in scored[0].counts}
    delays = np.array([x for each in scored for x in each.delays_s.values()])
    vocabulary = runs[0].vocabulary
    return EventScores(
        count, true, f1={o: each.f1 for o, each in counts.items()},
        edit=float(np.nanmean([each.edit for each in scored])),
        recall=sum(len(each.delays_s) for each in scored) / true, delay_s=percentiles(delays),
        mean_average_precision=_precision(
            scored, segmentation.event_heads(vocabulary),
            segmentation.event_key(tuple(vocabulary.heads))))


def percentiles(values: NDArray[np.floating]) -> Percentiles:
    """Return count, mean and percentiles; NaN without a value."""
    if not len(values):
        return Percentiles(0, *[float('nan')] * 6)
    points = np.percentile(values.astype(np.float64), [50, 90, 95, 99, 100])
    return Percentiles(len(values), float(values.mean(dtype=np.float64)), *points.tolist())


def _precision(
    scored: Sequence[ScoredBag], heads: Sequence[str], key: str
) -> dict[str, list[float]]:
    """Return the mean average precision of each head, and of all jointly as `key`, at `TIOUS`."""
    counted = [[each.detected[i] for i in each.counted] for each in scored]
    precision = {}
    for index, head in enumerate(heads):
        true = [(i, s._replace(label=(s.label[index],)))  # type: ignore[index]
                for i, each in enumerate(scored) for s in each.true]
        precision[head] = mean_average_precision(
            true, [d.detection(i, index) for i, each in enumerate(counted) for d in each])
    if len(heads) > 1:
        true = [(i, s) for i, each in enumerate(scored) for s in each.true]
        precision[key] = mean_average_precision(
            true, [d.detection(i) for i, each in enumerate(counted) for d in each])
    return precision


def _per_bag(scored: ScoredBag, predictions: BagPredictions) -> PerBagScores:
    hits = scored.actions.hits()
    return PerBagScores(
        windows=len(predictions), events=len(scored.detected),
        top1={key: (int(hits[key][known].sum()), int(known.sum()))
              for key, known in scored.actions.labelled.items()},
        matches={o: astuple(c) for o, c in scored.counts.items()},
        edit=scored.edit)


def _recorded_details(
    runs: Sequence[BagRun], predictions: Sequence[BagPredictions], pooled: PredictedActions
) -> dict[str, Any]:
    """Return the members of the report that are of the bags as recorded only."""
    keys = classification.labelled_keys(pooled)
    windows = classification.concatenate([
        classification.predict_windows(_actions(run), each)
        for run, each in zip(runs, predictions)])
    return {
        'calibration': {key: ReliabilityDiagrams(_bins(classification.calibration(pooled, key)),
                                         _bins(classification.calibration(windows, key)))
                        for key in keys},
        'confusion': {
            head: [(*pair, n) for pair, n in classification.confusion(pooled, head).items()]
            for head in pooled.heads if head in keys},
        'age_histogram': histogram(np.concatenate(
            [each.age_s for each in predictions]))}


def _bins(bins: Reliability) -> CalibrationBins:
    return CalibrationBins(bins.count.tolist(), bins.confidence.tolist(), bins.accuracy.tolist(),
                           bins.error)


def _own(runs: Sequence[BagRun], predictions: Sequence[BagPredictions]) -> NDArray[np.bool_]:
    return np.concatenate([robustness.majority_modalities(_actions(run), a)
                           for run, a in zip(runs, predictions)])


def _agreement(
    reference: Sequence[BagPredictions], others: Sequence[BagPredictions], heads: Sequence[str]
) -> Agreement:
    parts = [robustness.agreement(r, other, heads) for r, other in zip(reference, others)]
    weights = np.array([len(r) for r in reference], float)
    compared = np.array([part['compared'] for part in parts]) * weights
    same = np.nan_to_num([part['same'] for part in parts]) * compared
    return Agreement(
        float(compared.sum() / weights.sum()) if weights.sum() else 0.0,
        float(same.sum() / compared.sum()) if compared.sum() else float('nan'))


def _robustness(
    conditions: Sequence[ConditionScores], joint: str,
    by_subset: Mapping[str, PredictedActions], own: NDArray[np.bool_],
    modalities: Sequence[Modality],
) -> dict[str, Any] | None:
    """Return accuracy over the probability of a missing sensor, and the summary measures."""
    curve = robustness.dropout_curve_of_actions(
        by_subset, own, columns=modalities) if by_subset else None
    if curve is None:
        return None
    column = {c.parameters['subset']: c.actions[joint].top1_covered for c in conditions
              if c.parameters.get('subset') and joint in c.actions}
    full = next(iter(by_subset))
    return {'probability': list(POINTS), **curve, 'average_accuracy': average_accuracy(column),
            'relative_drop': relative_drop(column, full)}


def _warnings(report: BagReport) -> Iterator[str]:
    many = len(report.bags) > 1
    first = report.conditions[0]
    for i, bag in enumerate(report.bags):
        before = f'{bag.name}: ' if many else ''
        yield from (before + text for text in bag.warnings)
        yield from (before + text for text in (bag.truth.warnings if bag.truth else ()))
        if not first.by_bag[i].windows:
            yield before + 'there is no window: nothing to score'
    scored = first.actions.get(report.joint_head) or next(iter(first.actions.values()), None)
    if scored and scored.coverage == 0 and first.windows:
        yield ('no true action has a window: the times of the ground truth and the stamps of the '
               'sensors seem to be of different clocks')
    elif scored and scored.coverage < 0.98:
        yield (f'{100 * (1 - scored.coverage):.1f} % of the true actions have no prediction '
               'and count as wrong: no sensor could be used there')
    if not first.actions and any(bag.truth for bag in report.bags):
        yield 'not one true action could be scored'
    others = further_heads(report.heads)
    if others:
        yield (f'an event names {" and ".join(action_heads(report.heads))}: of the head'
               f'{"s" * (len(others) > 1)} {", ".join(others)} only the windows are scored')
