"""`karmma data pack`: write the windows of a data set into shards."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
import sys

from karmma_ros.cli.open_data import open_data
from karmma_ros.cli.options import (
    add_data_options,
    add_worker_options,
    command_parser,
    CommandParser,
    cores,
    data_cache,
    workers_of,
)
from karmma_ros.cli.progress import Bars
from karmma_ros.data.datasets import clips_digest
from karmma_ros.data.packs.pack_writer import PackSummary, write_pack
from karmma_ros.data.packs.shard_store import ShardStore
from karmma_ros.errors import InvalidSettingError, printable, SENTENCE_LENGTH

WINDOWS, QUALITY = 4, 90
"""Defaults of `--data.windows` and `--quality`."""


def pack(arguments: Sequence[str]) -> int:
    """
    Run `karmma data pack …`.

    :returns: 0; 130 when it is interrupted.
    """
    parser = _parser()
    given = parser.parse_args(list(arguments))
    if not 0 <= given.quality <= 100:
        raise InvalidSettingError('--quality', given.quality, '1 to 100, or 0 for no loss')
    workers = workers_of(given, cores())
    settings = parser.instantiate(given).data
    if settings.packed:
        raise InvalidSettingError('data.packed', settings.packed, 'none: a pack is not packed')
    settings = replace(settings, windows=settings.windows or WINDOWS)
    store = ShardStore(given.out, settings.pack_timeout)
    try:
        with Bars() as bars:
            splits = open_data(settings, None, data_cache(given, settings), bars)
            digests = {name: clips_digest(getattr(splits, name), settings)
                       for name in ('train', 'validation', 'test')}
            summary = write_pack(
                splits, store, settings.windows, given.quality, digests, workers,
                lambda done, total: bars('packing clips', done, total))
    except KeyboardInterrupt:
        print('karmma data pack: stopped; the same command continues', file=sys.stderr)
        return 130
    _print(store.location, summary)
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma data pack', 'Crop and encode the windows of every segment once. '
        f'Of a training segment there are --data.windows windows (default: {WINDOWS}), which the '
        'epochs take in turn. `karmma train … --data.packed DIR` reads them.',
        '--out DIR [OPTION ...]')
    parser.add_argument('--out', type=str, required=True, metavar='DIR', help='folder, or URL '
                        'of a bucket (s3://bucket/name, gs://, az://), to write to')
    parser.add_argument('--quality', type=int, default=QUALITY, help='JPEG quality of RGB frames '
                        f'and flow, 1 to 100; 0 stores them without loss (default: {QUALITY})')
    add_worker_options(parser, 'shards', 'as many as cores, if Ray is installed')
    add_data_options(parser)
    return parser


def _print(location: str, summary: PackSummary) -> None:
    for text in summary.unreadable.values():
        print(printable(text, SENTENCE_LENGTH), file=sys.stderr)
    name = location if '://' in location else Path(location)
    print(f'wrote {name}: {summary.clips:,} clips in {summary.rows:,} windows and '
          f'{summary.shards:,} shards, {summary.nbytes / 1e9:.3g} GB')
