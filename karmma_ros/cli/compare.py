"""`karmma compare`: two reports on the same bags side by side, with intervals."""

from __future__ import annotations

from argparse import ArgumentParser
from collections.abc import Sequence
import json
from pathlib import Path

from karmma_ros.bags.compare import chart, compare, markdown, read_report, RESAMPLES, side
from karmma_ros.cli.options import writing

JSON, MARKDOWN, CHART = 'comparison.json', 'comparison.md', 'comparison.svg'


def main(arguments: Sequence[str]) -> int:
    """Compare, print the table and write it with its chart."""
    options = _parser().parse_args(list(arguments))
    names = options.names or _names(options.a, options.b)
    a = side(names[0], read_report(options.a), options.condition)
    b = side(names[1], read_report(options.b), options.condition_b or options.condition)
    found = compare(a, b, options.resamples, options.seed)
    text = markdown(found)
    print(text)
    files = {JSON: json.dumps(found, indent=1) + '\n', CHART: chart(found),
             MARKDOWN: f'{text}\n![differences with their intervals]({CHART})\n'}
    with writing('--out', options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            (options.out / name).write_text(content, encoding='utf-8')
    print(f'wrote {options.out / MARKDOWN}, {JSON} and {CHART}')
    return 0


def _parser() -> ArgumentParser:
    parser = ArgumentParser(
        prog='karmma compare', description='Hold two reports of `karmma bag evaluate` on the same '
        'bags against each other: paired bootstrap over the true actions, and over whole bags '
        'where there are five or more.')
    parser.add_argument('a', metavar='A.json', type=Path, help='a report.json, or its folder')
    parser.add_argument('b', metavar='B.json', type=Path, help='another of the same bags')
    parser.add_argument('--condition', metavar='NAME', help='condition of both reports, as V+A '
                        '[the first]')
    parser.add_argument('--condition-b', metavar='NAME', help='another condition for B [that of '
                        '--condition]')
    parser.add_argument('--names', nargs=2, metavar=('A', 'B'), help='what to call them')
    parser.add_argument('--resamples', type=int, default=RESAMPLES,
                        help=f'resamples of the bootstrap [{RESAMPLES}]')
    parser.add_argument('--seed', type=int, default=0, help='seed of the bootstrap [0]')
    parser.add_argument('--out', type=Path, default=Path('comparison'), metavar='DIR',
                        help='folder for comparison.md, .json and .svg [comparison]')
    return parser


def _names(a: Path, b: Path) -> tuple[str, str]:
    """Name the reports by their folders, where these differ."""
    names = [path.resolve().parent.name if path.suffix == '.json' else path.resolve().name
             for path in (a, b)]
    return (names[0], names[1]) if names[0] != names[1] else ('A', 'B')
