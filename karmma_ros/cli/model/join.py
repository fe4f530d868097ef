"""`karmma model join`: models of different sensors as one."""

from __future__ import annotations

from collections.abc import Sequence

from karmma_ros.cli.options import (
    add_output_option,
    command_parser,
    CommandParser,
    open_model,
    writing,
)
from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.joined import join_models_of_sensors, UNTRAINED


def main(arguments: Sequence[str]) -> int:
    """Run `karmma model join rgb=DIR audio=DIR`."""
    given = _parser().parse_args(list(arguments))
    parts: dict[Modality, Bundle] = {}
    for word in given.models:
        name, equals, folder = word.partition('=')
        if not equals or not folder:
            raise InvalidSettingError('MODALITY=DIR', word, 'a modality and a model, as rgb=DIR')
        modality = Modality.parse(name)
        if modality in parts:
            raise InvalidSettingError('MODALITY=DIR', word, 'each modality once')
        parts[modality] = open_model(folder, name)
    with writing('--out', given.out):
        bundle = join_models_of_sensors(parts, given.out)
    print('\n'.join(printable(line, 1000) for line in _lines(bundle)))
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma model join', 'Make one model of models of different sensors. With the same '
        'classes it predicts the mean of their logits; otherwise it has their encoders and a '
        'fusion block that is not trained, for `karmma train student --base`.',
        'MODALITY=DIR MODALITY=DIR [...] --out DIR')
    parser.add_argument('models', type=str, nargs='+', metavar='MODALITY=DIR', help='sensor, and '
                        'the model whose encoder of it is taken, such as rgb=models/swin3d_t')
    add_output_option(parser, 'model directory to write')
    return parser


def _lines(bundle: Bundle) -> list[str]:
    lines = [f'wrote {bundle.path}: {bundle.model_id}, {", ".join(bundle.network.modalities)}',
             f'licence: {bundle.licence or "none is stored"}']
    if not bundle.commercial_use:
        lines.append('note: this licence forbids commercial use')
    if UNTRAINED in bundle.source:
        lines.append(f'note: not trained: {bundle.source[UNTRAINED]}; fine-tune it by '
                     f'`karmma train student --base {bundle.path}`')
    return lines
