"""
Write the tables of the included model into docs/robustness.md.

`python benchmarks/robustness_page.py SCORES.json …` takes the scores.json of several runs of
`karmma evaluate MODEL --corruptions`, each with another `--seed` of the noise.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from datetime import date
import json
from pathlib import Path
import sys
from typing import Any

from karmma_ros.evaluation.tables import markdown_table
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / 'test' / 'faults'))

from fault_suite.report import machine  # noqa: E402
from utd_mhad_page import BEGIN, END  # noqa: E402

PAGE = ROOT / 'docs' / 'robustness.md'

Scores = Mapping[str, Any]


def written(text: str, runs: Sequence[Scores]) -> str:
    """
    Return the text of the page with the tables of some runs.

    :raises ValueError: when it has no markers.
    """
    before, mark, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise ValueError(f'the page has no text between {BEGIN} and {END}')
    return f'{before}{BEGIN}\n{tables(runs)}\n{END}{after}'


def tables(runs: Sequence[Scores]) -> str:
    """Return the tables: means of the runs, in percent."""
    models = [run['models'][0] for run in runs]
    scores = [model['corruptions'] for model in models]
    first, here = scores[0], machine()
    origin = (
        f'{models[0]["model"]}, {runs[0]["data"]["clips"]} test clips, {len(runs)} seeds of the '
        f'noise; {here["processor"]}, {here["cores"]} cores, torch {here["torch"]}, '
        f'{date.today()}. Action top-1 in percent, at severities '
        f'{", ".join(map(str, first["severities"]))}, without and with content checks.')
    return '\n\n'.join([
        origin, _sensors(scores, first),
        markdown_table(
            ['', *first['sensors'], 'mean'], [
                ['mean accuracy relative to recorded', *_means(scores, 'mean_relative')],
                ['the same with content checks', *_means(scores, 'checked_mean_relative')],
                ['calibration error at severity 3, with content checks', *_errors(scores)],
                ['clips as recorded in which a check leaves it out',
                 *(_mean(scores, lambda s, name=name: s['sensors'][name]['false_alarms'])
                   for name in first['sensors']), '']]),
        markdown_table(
            ['two sensors at once', *_headings(first)],
            [[pair, *_levels(scores, first, lambda s, pair=pair: s['pairs'][pair])]
             for pair in first['pairs']])])


def _sensors(scores: Sequence[Scores], first: Scores) -> str:
    rows = []
    for name, sensor in first['sensors'].items():
        rows.append([f'**{name}** absent: {100 * sensor["absent"]:.1f}, as recorded: '
                     f'{100 * sensor["recorded"]:.1f}', *[''] * len(_headings(first))])
        for corruption in sensor['corruptions']:
            rows.append([corruption, *_levels(
                scores, first,
                lambda s, c=corruption, n=name: s['sensors'][n]['corruptions'][c])])
    return markdown_table(['', *_headings(first)], rows)


def _headings(first: Scores) -> list[str]:
    levels = [str(level) for level in first['severities']]
    return [*levels, *(f'{level}, checked' for level in levels)]


def _levels(
    scores: Sequence[Scores], first: Scores, by_level: Callable[..., Mapping[str, Scores]]
) -> list[str]:
    return [_mean(scores, lambda s, level=level, key=key: by_level(s)[str(level)][key])
            for key in ('accuracy', 'checked_accuracy') for level in first['severities']]


def _means(scores: Sequence[Scores], key: str) -> list[str]:
    return [*(_mean(scores, lambda s, name=name: s['sensors'][name][key])
              for name in scores[0]['sensors']), _mean(scores, lambda s: s[key])]


def _errors(scores: Sequence[Scores]) -> list[str]:
    """Return the mean calibration error over the corruptions of each sensor, and over sensors."""
    def error(run: Scores, name: str) -> float:
        return float(np.mean([
            by_level['3']['checked_calibration_error']
            for by_level in run['sensors'][name]['corruptions'].values()]))
    names = list(scores[0]['sensors'])
    return [*(_mean(scores, lambda s, name=name: error(s, name)) for name in names),
            _mean(scores, lambda s: float(np.mean([error(s, name) for name in names])))]


def _mean(scores: Sequence[Scores], value: Callable[..., float]) -> str:
    return f'{100 * float(np.mean([value(each) for each in scores])):.1f}'


def main() -> None:
    """Write the page."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n\n')[0])
    parser.add_argument('scores', nargs='+', type=Path, help='scores.json of each seed')
    options = parser.parse_args()
    runs = [json.loads(path.read_text(encoding='utf-8')) for path in options.scores]
    PAGE.write_text(written(PAGE.read_text(encoding='utf-8'), runs), encoding='utf-8')
    print(f'wrote {PAGE}')


if __name__ == '__main__':
    main()
