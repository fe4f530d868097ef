"""The scores under corruption as Markdown tables, in percent."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from karmma_ros.evaluation.corruption_scores import ConditionScore, CorruptionScores
from karmma_ros.evaluation.tables import escape_cell, markdown_table, percent

_COLUMNS = ('accuracy', 'of recorded', 'of absent', 'calibration error', 'accuracy, checked',
            'calibration error, checked', 'left out')

NOTE = (
    '"Of recorded" is the accuracy divided by that of the clips as recorded, "of absent" by that '
    'without the sensor: below 100, a corrupted sensor costs more than one that is missing. '
    '"Checked" is without the sensors whose content checks find that they show nothing, as the '
    'node does; "left out" are the clips in which they do. Each sensor is scored on the clips '
    'that have it.')


def corruption_section(title: str, scores: CorruptionScores) -> str:
    """
    Return the tables of one model.

    :param title: system and model.
    """
    parts = [f'## {title} with corrupted sensors', _overview(scores)]
    for sensor, each in scores.sensors.items():
        rows = [*_rows(each.corruptions), *_rows({'late, s': each.delayed})]
        parts.append(f'### {sensor}\n\n' + _table(['corruption', 'severity'], rows))
    if scores.pairs:
        parts.append('### Two sensors at once\n\n' + _table(
            ['sensors', 'severity'], list(_rows(scores.pairs))))
    parts.append('### The first part of a clip alone\n\n' + _table(
        ['', 'fraction received'], list(_rows({'all sensors': scores.observed}))))
    return '\n\n'.join([*parts, NOTE])


def card_table(scores: CorruptionScores) -> str:
    """Return a Markdown table for a model card: accuracy without and with content checks."""
    levels = [str(severity) for severity in scores.severities]
    header = ['sensor, corruption', *levels, *(f'{level}, checked' for level in levels)]
    rows = []
    for sensor, each in scores.sensors.items():
        rows.append([f'**{sensor}**, recorded {percent(each.recorded)}, '
                     f'absent {percent(each.absent)}', *[''] * (2 * len(levels))])
        for name, by_level in each.corruptions.items():
            measured = [by_level[level] for level in levels]
            rows.append([name, *(percent(s.accuracy) for s in measured),
                         *(percent(s.checked_accuracy) for s in measured)])
    return markdown_table(header, [[escape_cell(cell) for cell in row] for row in rows])


def relative_accuracies(scores: CorruptionScores) -> dict[str, tuple[float, float]]:
    """Return sensor, and `all` → mean accuracy relative to recorded, without and with checks."""
    means = {sensor: (each.mean_relative, each.checked_mean_relative)
             for sensor, each in scores.sensors.items()}
    return {**means, 'all': (scores.mean_relative, scores.checked_mean_relative)}


def _overview(scores: CorruptionScores) -> str:
    header = ['sensor', 'clips', 'recorded', 'absent', 'mean of recorded',
              'mean of recorded, checked', 'false alarms']
    rows = [[sensor if [sensor] == list(each.affects) else f'{sensor} ({", ".join(each.affects)})',
             f'{each.count:,}', *map(percent, (
                 each.recorded, each.absent, each.mean_relative, each.checked_mean_relative,
                 each.false_alarms))] for sensor, each in scores.sensors.items()]
    rows.append(['mean', '', '', '', percent(scores.mean_relative),
                 percent(scores.checked_mean_relative), ''])
    return _table(header, rows, ())


def _rows(scores: Mapping[str, Mapping[str, ConditionScore]]) -> Iterator[list[str]]:
    for name, by_level in scores.items():
        for level, each in by_level.items():
            yield [name, level, *map(percent, (
                each.accuracy, each.relative_to_recorded, each.relative_to_absent,
                each.calibration_error, each.checked_accuracy, each.checked_calibration_error,
                each.masked))]


def _table(
    header: Sequence[str], rows: Sequence[Sequence[str]], columns: Sequence[str] = _COLUMNS,
) -> str:
    return markdown_table([*header, *columns],
                          [[escape_cell(cell) for cell in row] for row in rows])
