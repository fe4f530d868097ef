"""`karmma model push`: upload a model directory to the Hugging Face Hub."""

from __future__ import annotations

from collections.abc import Sequence

from karmma_ros.cli.options import command_parser, CommandParser, to_path
from karmma_ros.model.bundle import CALIBRATION, CARD, CONFIG, WEIGHTS
from karmma_ros.model.hub import push_model


def main(arguments: Sequence[str]) -> int:
    """Run `karmma model push DIR hf://ORGANISATION/NAME`."""
    given = _parser().parse_args(list(arguments))
    reference = push_model(given.model, given.reference, private=given.private)
    print(f'uploaded {given.model} as {reference}')
    return 0


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma model push', f'Upload {CONFIG}, {WEIGHTS}, {CALIBRATION} and the model card, '
        f'{CARD}, to the Hugging Face Hub, as the user that `hf auth login` logged in.',
        'DIR hf://ORGANISATION/NAME [OPTION ...]')
    parser.add_argument('model', type=to_path, metavar='DIR', help='model directory to upload')
    parser.add_argument('reference', type=str, metavar='hf://ORGANISATION/NAME',
                        help='repository on the Hub, which is made if there is none')
    parser.add_argument('--private', action='store_true',
                        help='make a new repository a private one')
    return parser
