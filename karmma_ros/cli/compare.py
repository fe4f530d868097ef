"""`karmma compare`: two reports on the same bags side by side, with intervals."""

from __future__ import annotations

from collections.abc import Sequence
import json
from pathlib import Path

from karmma_ros.bags.compare import chart, compare, markdown, read_report, RESAMPLES, side
from karmma_ros.cli.options import (
    add_output_option,
    command_parser,
    CommandParser,
    to_path,
    writing,
)
from karmma_ros.storage import write_atomically

JSON, MARKDOWN, CHART = 'comparison.json', 'comparison.md', 'comparison.svg'


def main(arguments: Sequence[str]) -> int:
    """Compare, print the table and write it with its chart."""
    options = _parser().parse_args(list(arguments))
    names = options.names or _names(options.a, options.b)
    a = side(names[0], read_report(options.a), options.condition)
    b = side(names[1], read_report(options.b), options.condition_b or options.condition)
    comparison = compare(a, b, options.resamples, options.seed)
    text = markdown(comparison)
    print(text)
    files = {JSON: json.dumps(comparison, indent=1) + '\n', CHART: chart(comparison),
             MARKDOWN: f'{text}\n![differences with their intervals]({CHART})\n'}
    with writing('--out', options.out):
        options.out.mkdir(parents=True, exist_ok=True)
        for name, content in files.items():
            write_atomically(options.out / name, content)
    print(f'wrote {options.out / MARKDOWN}, {JSON} and {CHART}')
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma compare', 'Compare two reports of `karmma bag evaluate` on the same bags: paired '
        'bootstrap over the ground-truth actions, and over bags where there are five or more.',
        'A.json B.json [OPTION ...]')
    parser.add_argument(
        'a', metavar='A.json', type=to_path, help='a report.json, or its directory'
    )
    parser.add_argument('b', metavar='B.json', type=to_path, help='another of the same bags')
    parser.add_argument('--condition', metavar='NAME', type=str,
                        help='condition of both reports, such as V+A (default: the first)')
    parser.add_argument('--condition-b', metavar='NAME', type=str,
                        help='another condition for B (default: that of --condition)')
    parser.add_argument('--names', nargs=2, type=str, metavar=('A', 'B'),
                        help='names of the reports (default: those of their directories)')
    parser.add_argument('--resamples', type=int, default=RESAMPLES,
                        help='resamples of the bootstrap')
    parser.add_argument('--seed', type=int, default=0, help='seed of the bootstrap')
    add_output_option(parser, 'directory for comparison.md, .json and .svg', 'comparison')
    return parser


def _names(a: Path, b: Path) -> tuple[str, str]:
    """Name the reports by their folders, where these differ."""
    names = [path.resolve().parent.name if path.suffix == '.json' else path.resolve().name
             for path in (a, b)]
    return (names[0], names[1]) if names[0] != names[1] else ('A', 'B')
