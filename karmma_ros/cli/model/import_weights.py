"""`karmma model pull` and `karmma model import`: published weights as model directories."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from jsonargparse import Namespace
from karmma_ros.cli.options import (
    add_output_option,
    command_parser,
    CommandParser,
    to_path,
    writing,
)
from karmma_ros.errors import printable
from karmma_ros.modality import subset_name
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.imports import import_model, ImportSettings
from karmma_ros.model.imports.origin import clip_text
from karmma_ros.model.pull import pull_model


def main(arguments: Sequence[str]) -> int:
    """Run `karmma model import SOURCE`."""
    given = _import_parser().parse_args(list(arguments))
    settings = _settings(given, weights=given.weights, download=given.download)
    return _write(given.out, lambda: import_model(given.source, given.out, settings))


def pull(arguments: Sequence[str]) -> int:
    """Run `karmma model pull NAME`."""
    given = _pull_parser().parse_args(list(arguments))
    return _write(given.out, lambda: pull_model(given.name, given.out, _settings(given)))


def _settings(given: Namespace, weights: str = '', download: bool = False) -> ImportSettings:
    return ImportSettings(
        given.file, weights, tuple(given.classes or ()), given.duration, given.chunk, download,
        given.sha256)


def _write(out: Path, make: Callable[[], Bundle]) -> int:
    with writing('--out', out):
        bundle = make()
    print('\n'.join(printable(line, 1000) for line in _lines(bundle)))
    return 0


def _import_parser() -> CommandParser:
    parser = command_parser(
        'karmma model import', 'Make a model directory of weights that others published: with '
        'their classes, the preprocessing they were trained with, and a card that states source, '
        'licence and published accuracy. docs/models.md lists the sources.',
        'SOURCE --out DIR [OPTION ...]')
    parser.add_argument('source', type=str, metavar='SOURCE',
                        help='what to import, such as torchvision:swin3d_t')
    parser.add_argument('--weights', type=str, default='', metavar='NAME', help='which weights, '
                        'where a model has several, such as KINETICS400_IMAGENET22K_V1')
    parser.add_argument('--download', action='store_true', help='download the file of the weights '
                        "into torch's cache, unless it is there")
    _add_options(parser)
    return parser


def _pull_parser() -> CommandParser:
    parser = command_parser(
        'karmma model pull', 'Download a published model and make a model directory of it. '
        "`karmma model list` has the names. The file is taken from torch's cache if it is there; "
        'its SHA-256 is checked, and stored in the model directory.',
        'NAME --out DIR [OPTION ...]')
    parser.add_argument('name', type=str, metavar='NAME',
                        help='name of a published model, such as swin3d_t')
    _add_options(parser)
    return parser


def _add_options(parser: CommandParser) -> None:
    add_output_option(parser, 'model directory to write')
    parser.add_argument('--file', type=to_path, metavar='FILE', help='file of the weights '
                        "(default: the published one, in torch's cache)")
    parser.add_argument('--classes', type=to_path, nargs='+', metavar='FILE', help='files with '
                        'the names of the classes, for a source that does not know them')
    parser.add_argument('--duration', type=float, default=0.0, metavar='SECONDS', help='length of '
                        'a clip, for a file of weights (default: as docs/models.md states)')
    parser.add_argument('--chunk', type=int, default=0, metavar='FRAMES', help='encode so many '
                        'frames at a time, so that a stream encodes new ones only; what its '
                        'authors measured does not hold then (default: all frames of a clip)')
    parser.add_argument('--sha256', type=str, default='', metavar='HEX', help='digest that the '
                        'file must have, or how it begins')


def _lines(bundle: Bundle) -> list[str]:
    # Of several files each stands with its sensor.
    joined = [each['source'] for each in bundle.source.get('joined', {}).values()]
    parts = joined or [bundle.source]
    classes = ', '.join(f'{size} of {head}' for head, size in bundle.vocabulary.sizes.items())
    lines = [
        f'wrote {bundle.path}: {bundle.model_id}, {subset_name(bundle.network.modalities)}, '
        f'{classes}, {clip_text(bundle.spec, bundle.network.modalities)}',
        *(f'from {part["file"]}, SHA-256 {part["sha256"]}' for part in parts),
        *(f'not used: {name}: {reason}'
          for part in parts for name, reason in part['dropped'].items()),
        f'licence: {bundle.licence}']
    if not bundle.commercial_use:
        lines.append('note: this licence forbids commercial use')
    return lines
