"""
Two reports on the same bags side by side: what differs, and what may be chance.

The same true actions are drawn again and again with replacement, for both reports alike (paired
bootstrap, Efron and Tibshirani 1993): 95 % of the differences found lie in the interval. Actions
of one recording resemble each other; with five bags or more whole bags are drawn as well, which
is the wider and the safer interval, and then decides.

Shape legend: n true actions, r resamples, c classes, k bags.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
import json
from pathlib import Path
from typing import Any

from karmma_ros.bags.report.markdown import word
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.bootstrap import (
    calibration,
    draw_resamples,
    f1,
    Floats,
    interval_of,
    mean,
    recall,
    Statistic,
)
from karmma_ros.evaluation.segmentation import event_key
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.prediction import action_heads
import numpy as np
from numpy.typing import NDArray

FORMAT = 'karmma_ros.bag_comparison/1'
REPORT_FORMAT = 'karmma_ros.bag_report/2'
RESAMPLES = 10_000
MANY_BAGS = 5
"""From so many bags on, whole bags are drawn."""


@dataclass(frozen=True)
class ReportSide:
    """One condition of one report."""

    name: str
    report: Mapping[str, Any]
    condition: str

    @property
    def columns(self) -> Mapping[str, Any]:
        """Return its results for each true action."""
        columns: Mapping[str, Any] = self.report['segments']['conditions'][self.condition]
        return columns

    @property
    def figures(self) -> Mapping[str, Any]:
        """Return its scores."""
        return next(c for c in self.report['conditions'] if c['name'] == self.condition)


@dataclass(frozen=True)
class Difference:
    """One figure of both sides; shares are from 0 to 1, delays in seconds."""

    name: str
    unit: str
    """`share` or `seconds`."""
    higher_is_better: bool
    count: int
    """What it was computed from: true actions, or bags."""
    a: float | None
    b: float | None
    difference: float | None
    """B less A."""
    interval: tuple[float, float] | None
    """95 %, over true actions; None where that cannot be had."""
    interval_of_bags: tuple[float, float] | None
    verdict: str

    @property
    def deciding(self) -> tuple[float, float] | None:
        """Return the interval that the verdict rests on."""
        return self.interval_of_bags or self.interval


def read_report(path: Path | str) -> dict[str, Any]:
    """
    Read a `report.json`, or the one in a folder.

    :raises InvalidSettingError: when it is none, or of another version.
    """
    path = Path(path)
    path = path / 'report.json' if path.is_dir() else path
    remedy = 'give a report.json that `karmma bag evaluate` wrote'
    try:
        report = json.loads(path.read_text(encoding='utf-8'))
    except (OSError, ValueError) as error:
        raise InvalidSettingError('report', str(path), f'a JSON file ({error})', remedy) from None
    version = report.get('format') if isinstance(report, dict) else None
    if version != REPORT_FORMAT:
        if str(version).startswith('karmma_ros.bag_report/'):
            remedy = 'another version wrote it: run `karmma bag evaluate` again'
        raise InvalidSettingError(f'format of {path}', version, REPORT_FORMAT, remedy)
    return dict(report)


def side(name: str, report: Mapping[str, Any], condition: str | None) -> ReportSide:
    """
    Choose a condition; the first, as recorded, without a word.

    :raises InvalidSettingError: when the report has no such condition, or no truth.
    """
    names = [c['name'] for c in report['conditions']]
    if condition is not None and condition not in names:
        raise InvalidSettingError(f'condition of {name}', condition, ', '.join(names))
    if not any(c['actions'] for c in report['conditions']):
        raise InvalidSettingError(
            f'truth of {name}', 'none', 'true actions that could be scored',
            'evaluate the bags again with --ground-truth')
    return ReportSide(name, report, condition or names[0])


def compare(
    a: ReportSide, b: ReportSide, resamples: int = RESAMPLES, seed: int = 0
) -> dict[str, Any]:
    """
    Compare two sides; equal arguments give equal figures.

    :returns: JSON-ready; `differences` holds a `Difference` each.
    :raises InvalidSettingError: when they are of other bags or of another truth, or share no
        head.
    """
    if resamples < 100:
        raise InvalidSettingError('--resamples', resamples, 'at least 100')
    _check_same(a, b)
    pair = _Pair(a, b)
    differences = list(pair.differences(resamples, seed))
    if not differences:
        raise InvalidSettingError(
            'heads', ', '.join(b.report['heads']), ', '.join(a.report['heads']) + ', as in A',
            'compare models that share a head whose true classes are known')
    return {
        'format': FORMAT, 'resamples': resamples, 'seed': seed,
        **{letter: {'name': s.name, 'model': s.report['model'], 'condition': s.condition}
           for letter, s in (('a', a), ('b', b))},
        'bags': [bag['name'] for bag in a.report['bags']],
        'actions': len(a.report['segments']['bag']),
        'left_out': pair.left_out(),
        'differences': [asdict(each) for each in differences]}


def markdown(comparison: Mapping[str, Any]) -> str:
    """Return a comparison as Markdown."""
    a, b = (comparison[letter] for letter in 'ab')
    differences = [Difference(**each) for each in comparison['differences']]
    bags = len(comparison['bags'])
    lines = [
        f'# {word(b["name"])} against {word(a["name"])}',
        '\n'.join(
            f'- {letter}: {word(str(s["model"].get("id", s["name"])))}, {word(s["condition"])}'
            for letter, s in (('A', a), ('B', b))),
        markdown_table(
            ['', 'A', 'B', 'B less A', '95 % interval',
             *(['over bags'] * (bags >= MANY_BAGS)), 'verdict'],
            [[word(d.name), _figure(d, d.a), _figure(d, d.b), _signed(d, d.difference),
              _range(d, d.interval), *([_range(d, d.interval_of_bags)] * (bags >= MANY_BAGS)),
              d.verdict] for d in differences]),
    ]
    lines.append(
        f'{comparison["actions"]:,} true actions in {bags} bag{"s" * (bags > 1)}; paired '
        f'bootstrap, {comparison["resamples"]:,} resamples, seed {comparison["seed"]}. Scores in '
        'percent, their differences in percentage points. Each line is a test of its own: of '
        'twenty without any difference, one shows one by chance.'
        + ('' if bags >= MANY_BAGS else ' The actions are taken as independent; '
           f'from {MANY_BAGS} bags on, whole bags are drawn instead.'))
    if comparison.get('left_out'):
        lines.append('\n'.join(f'- {word(text)}' for text in comparison['left_out']))
    return '\n\n'.join(lines) + '\n'


def chart(comparison: Mapping[str, Any]) -> str:
    """Draw the differences of fractions with their intervals, as an SVG file."""
    from karmma_ros.bags.report.charts import forest  # imports matplotlib

    rows = []
    for each in comparison['differences']:
        d = Difference(**each)
        if d.unit == 'share' and d.difference is not None and d.deciding is not None:
            sign = 1 if d.higher_is_better else -1
            low, high = d.deciding
            better = min(sign * low, sign * high) > 0
            worse = max(sign * low, sign * high) < 0
            rows.append((d.name, 100 * d.difference, 100 * low, 100 * high, better, worse))
    names = (comparison[side_]['name'] for side_ in 'ba')
    return forest(rows, ' less '.join(names) + ': differences with their 95 % intervals')


class _Pair:
    """Both sides, with the true actions that both can name."""

    def __init__(self, a: ReportSide, b: ReportSide) -> None:
        self._sides = (a, b)
        segments = a.report['segments']
        self._bag = np.array(segments['bag'], np.int64)
        self._bags = len(a.report['bags'])
        self._heads = [h for h in a.report['heads'] if h in b.report['heads']]
        self._truth = {h: self._ids(h) for h in self._heads}
        known = {h: ids >= 0 for h, ids in self._truth.items()}
        joint = a.report['joint_head']
        if joint not in known and set(a.report['heads']) == set(b.report['heads']):
            known[joint] = np.all(list(known.values()), axis=0)
        self._known = {key: mask for key, mask in known.items() if mask.any() and all(
            key in s.columns['correct'] for s in self._sides)}

    def left_out(self) -> list[str]:
        """Describe what is not compared because the models have different heads."""
        heads = [tuple(s.report['heads']) for s in self._sides]
        left_out = [f'{s.name} alone has the head {head}: not compared'
                 for s, mine in zip(self._sides, heads)
                 for head in mine if head not in self._heads]
        if not self._same_events:
            words = [' and '.join(action_heads(each)) for each in heads]
            left_out.append(f'the events of {self._sides[0].name} name {words[0]}, those of '
                            f'{self._sides[1].name} {words[1]}: not compared')
        return left_out

    @property
    def _same_events(self) -> bool:
        first, second = (action_heads(s.report['heads']) for s in self._sides)
        return first == second

    def differences(self, resamples: int, seed: int) -> Iterator[Difference]:
        """Return each figure that both have."""
        if not self._known:
            return
        key_order = sorted(self._known, key=lambda key: key in self._heads)  # the joint one first
        for key in key_order:
            for column, what in (('correct', 'top-1'), ('top5', 'top-5')):
                yield self._over_actions(
                    f'{key} {what}', [mean(self._flags(s, column, key), self._known[key])
                                      for s in self._sides],
                    int(self._known[key].sum()), resamples, seed)
        for head in (key for key in key_order if key in self._heads):
            mask = self._known[head]
            yield self._over_actions(
                f'{head} mean recall', [recall(self._flags(s, 'correct', head), mask,
                                                self._truth[head]) for s in self._sides],
                int(mask.sum()), resamples, seed)
        key = key_order[0]
        predicted = self._known[key] & np.all(
            [np.array(s.columns['windows']) > 0 for s in self._sides], axis=0)
        if predicted.any():
            yield self._over_actions(
                f'{key} calibration error', [calibration(
                    self._flags(s, 'correct', key), self._flags(s, 'confidence', key), predicted)
                    for s in self._sides], int(predicted.sum()), resamples, seed, False)
        if self._same_events:
            yield from self._events(self._known[key], resamples, seed)

    def _events(self, known: NDArray[np.bool_], resamples: int, seed: int) -> Iterator[Difference]:
        delays = [np.array([np.nan if x is None else x for x in s.columns['delay_s']], float)
                  for s in self._sides]
        yield self._over_actions('announced', [mean(np.isfinite(d), known) for d in delays],
                                 int(known.sum()), resamples, seed)
        both = known & np.isfinite(delays[0]) & np.isfinite(delays[1])
        if both.any():
            yield self._over_actions(
                'delay of those that both announce', [mean(np.nan_to_num(d), both)
                                                      for d in delays],
                int(both.sum()), resamples, seed, False, 'seconds')
        by_bag = [s.figures['by_bag'] for s in self._sides]
        for overlap in by_bag[0][0]['matches']:
            yield self._over_bags(f'F1@{overlap}', [f1(np.array(
                [each['matches'][overlap] for each in side_], float)) for side_ in by_bag],
                resamples, seed)
        edits = [np.array([each['edit'] for each in side_], float) for side_ in by_bag]
        yield self._over_bags('edit', [mean(e, np.isfinite(e)) for e in edits],
                              resamples, seed)
        first, second = (_precision(s) for s in self._sides)
        if first is not None and second is not None:
            yield _difference('mean average precision', 'share', True, self._bags,
                              first, second, None, None)

    def _over_actions(
        self, name: str, statistics: Sequence[Statistic], count: int, resamples: int, seed: int,
        higher: bool = True, unit: str = 'share',
    ) -> Difference:
        n = len(self._bag)
        ones = np.ones((1, n))
        a, b = (float(each(ones)[0]) for each in statistics)
        interval = interval_of(statistics, draw_resamples(n, resamples, seed))
        of_bags = None
        if self._bags >= MANY_BAGS:
            of_bags = interval_of(statistics, (
                w[:, self._bag] for w in draw_resamples(self._bags, resamples, seed)))
        return _difference(name, unit, higher, count, a, b, interval, of_bags)

    def _over_bags(
        self, name: str, statistics: Sequence[Statistic], resamples: int, seed: int
    ) -> Difference:
        a, b = (float(each(np.ones((1, self._bags)))[0]) for each in statistics)
        of_bags = interval_of(statistics, draw_resamples(self._bags, resamples, seed)) \
            if self._bags >= MANY_BAGS else None
        return _difference(name, 'share', True, self._bags, a, b, None, of_bags)

    def _ids(self, head: str) -> NDArray[np.int64]:
        """Return the class ids of A, -1 where one of both cannot name it."""
        mine, other = (np.array(s.report['segments']['truth'][head], np.int64)
                       for s in self._sides)
        return np.where(other >= 0, mine, -1)

    def _flags(self, side_: ReportSide, column: str, key: str) -> Floats:
        return np.array([np.nan if x is None else x for x in side_.columns[column][key]],
                        np.float64)


def _precision(side_: ReportSide) -> float | None:
    by_head = side_.figures['events'].get('mean_average_precision', {})
    values = by_head.get(event_key(side_.report['heads']))
    return None if not values or None in values else float(np.mean(values))


def _difference(
    name: str, unit: str, higher: bool, count: int, a: float, b: float,
    interval: tuple[float, float] | None, of_bags: tuple[float, float] | None,
) -> Difference:
    deciding = of_bags or interval
    if deciding is None or not np.isfinite([a, b]).all():
        verdict = 'no interval' if np.isfinite([a, b]).all() else 'unknown'
    elif a == b and deciding == (0.0, 0.0):
        verdict = 'equal'
    elif deciding[0] <= 0 <= deciding[1]:
        verdict = 'no difference shown'
    else:
        verdict = 'B is better' if (deciding[0] > 0) == higher else 'A is better'
    a_, b_ = (float(x) if np.isfinite(x) else None for x in (a, b))
    return Difference(name, unit, higher, count, a_, b_,
                      None if a_ is None or b_ is None else b_ - a_, interval, of_bags, verdict)


def _check_same(a: ReportSide, b: ReportSide) -> None:
    """Refuse reports that cannot be compared."""
    facts = [[(bag['name'], bag['start_ns'], bag['end_ns']) for bag in s.report['bags']]
             for s in (a, b)]
    if facts[0] != facts[1]:
        names = [', '.join(f'{name} from {start}' for name, start, _ in each) for each in facts]
        raise InvalidSettingError(
            f'bags of {b.name}', names[1], f'{names[0]}, as in {a.name}',
            'evaluate the same bags, in the same order, with both')
    truths = [list(zip(s.report['segments']['bag'], s.report['segments']['start_ns'],
                       s.report['segments']['end_ns'],
                       *(s.report['segments']['names'][h] for h in s.report['heads']
                         if h in a.report['heads'] and h in b.report['heads'])))
              for s in (a, b)]
    if truths[0] != truths[1]:
        first = next((i for i, (x, y) in enumerate(zip(*truths)) if x != y),
                     min(map(len, truths)))
        raise InvalidSettingError(
            f'truth of {b.name}',
            f'{len(truths[1])} actions, another from number {first + 1} on',
            f'the {len(truths[0])} actions of {a.name}',
            'evaluate both with the same --ground-truth',
        )


def _figure(d: Difference, value: float | None) -> str:
    if value is None:
        return '–'
    return f'{value:.2f} s' if d.unit == 'seconds' else f'{100 * value:.1f}'


def _signed(d: Difference, value: float | None) -> str:
    if value is None:
        return '–'
    return f'{value:+.2f} s' if d.unit == 'seconds' else f'{100 * value:+.1f}'


def _range(d: Difference, interval: tuple[float, float] | None) -> str:
    return '–' if interval is None else ' to '.join(_signed(d, x) for x in interval)
