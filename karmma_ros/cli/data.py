"""`karmma data`: check a data set before training on it; convert labels."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
import json
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from karmma_ros.cli.labels import labels
from karmma_ros.cli.main import dispatch
from karmma_ros.cli.open_data import open_data
from karmma_ros.cli.options import add_data_options, command_parser, CommandParser, data_cache
from karmma_ros.cli.pack import pack
from karmma_ros.cli.progress import Bars
from karmma_ros.data.check import check_dataset, DatasetReport, SplitReport
from karmma_ros.data.datasets import DataSettings
from karmma_ros.errors import InvalidSettingError, printable, SENTENCE_LENGTH
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.table import Table

COMMANDS = {
    'check': 'check that every recording is present',
    'pack': 'write shards from which training reads many times faster',
    'labels': 'convert labels of actions from and for other tools',
}
COLUMNS = ('present', 'lacking', 'missing', 'decoded', 'damaged')


def main(arguments: Sequence[str]) -> int:
    """
    Run `karmma data check …`.

    :returns: 0 for an intact data set; 1 when a recording is missing or damaged, or, with
        `--complete`, when a segment lacks a sensor that others have.
    """
    runs = {'check': _run_check, 'pack': pack, 'labels': labels}
    return dispatch('karmma data', COMMANDS, lambda name, rest: runs[name](rest), arguments)


def _run_check(arguments: Sequence[str]) -> int:
    parser = _check_parser()
    given = parser.parse_args(list(arguments))
    if given.decode < 0:
        raise InvalidSettingError('--decode', given.decode, 'a whole number from 0 on')
    report = _check(parser.instantiate(given).data, given)
    _print(report)
    if given.json:
        _write_json(Path(given.json), report)
    return 0 if (report.complete if given.complete else report.intact) else 1


def _check_parser() -> CommandParser:
    parser = command_parser(
        'karmma data check', 'Check that the recordings of every segment are present. The first '
        'frame of each video is decoded, and its peculiarities are listed.', '[OPTION ...]')
    parser.add_argument('--decode', type=int, default=0, metavar='N',
                        help='also read N random segments of each split, as training does')
    parser.add_argument('--seed', type=int, default=0, help='seed of that choice')
    parser.add_argument('--complete', action='store_true', help='exit with status 1 also when a '
                        'segment lacks a sensor that others have')
    parser.add_argument('--json', type=str, default='', metavar='FILE',
                        help='also write the result as JSON')
    add_data_options(parser)
    return parser


def _check(settings: DataSettings, given: Namespace) -> DatasetReport:
    with Bars() as bars:
        splits = open_data(settings, None, data_cache(given, settings), bars)
        return check_dataset(splits, given.decode, given.seed, bars)


def _print(report: DatasetReport) -> None:
    console = Console()
    table = Table(title=escape(printable(report.name)), box=SIMPLE_HEAD, pad_edge=False)
    for column in ('split', 'sensor'):
        table.add_column(column, no_wrap=True)
    for column in COLUMNS:
        table.add_column(column, justify='right')
    for name, split in report.splits.items():
        for row in _rows(name, split):
            table.add_row(*map(escape, map(printable, row)))
        table.add_section()
    console.print(table)
    # Paths are no markup, and are copied: they must not be broken at the end of a line.
    for line in _notes(report):
        console.print(printable(line, SENTENCE_LENGTH), markup=False, highlight=False,
                      soft_wrap=True)


def _rows(name: str, split: SplitReport) -> Iterator[list[str]]:
    first = name
    for modality, counts in split.modalities.items():
        yield [first, str(modality), *(f'{getattr(counts, column):,}' for column in COLUMNS)]
        first = ''
    if not split.modalities:
        yield [first, '(none)', *('' for _ in COLUMNS)]


def _notes(report: DatasetReport) -> Iterator[str]:
    for name, split in report.splits.items():
        if split.left_out:
            yield f'{name}: {split.left_out:,} segments have no recording at all and are left out'
        for modality, counts in split.modalities.items():
            if counts.lacking:
                yield (f'{name}: {counts.lacking:,} segments lack {modality}, such as '
                       f'{", ".join(counts.lacking_examples)}; they are trained on without it')
            yield from (f'{name}: {modality} of {example}' for example in counts.examples)
            yield from (f'{name}: {modality} of {counts.remark_counts[remark]:,} segments, such '
                        f'as {", ".join(segments)}: {remark}'
                        for remark, segments in counts.remarks.items())
    if not report.intact:
        yield ('something is missing or damaged: training leaves it out, and stops at a segment '
               'of which nothing is left')


def _write_json(path: Path, report: DatasetReport) -> None:
    content: dict[str, Any] = report.to_dict()
    try:
        path.write_text(json.dumps(content, indent=1) + '\n', encoding='utf-8')
    except OSError as error:
        raise InvalidSettingError('--json', str(path), f'a file that can be written ({error})') \
            from error
