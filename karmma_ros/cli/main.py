"""The `karmma` command: hands each sub-command to its own module, loaded only when asked."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
import sys

from karmma_ros.errors import DISK_FULL, KarmmaError

COMMANDS = {
    'bag': 'evaluate a model on recorded bags, or write one: synthetic, or from a video file',
    'compare': 'two reports on the same bags side by side, with intervals',
    'data': 'check a data set before training on it',
    'export': 'write what OpenVINO or ONNX Runtime reads into a model: several times faster',
    'evaluate': 'score models on a data set for every subset of sensors',
    'predict': 'the action in a video, by every subset of its sensors; no ROS',
    'profile': 'operations, parameters and memory of a network, beside the paper',
    'replay': 'publish a bag over DDS in real time, sensors muted at will',
    'reproduce': 'every table of the paper in our numbers, at tiny size',
    'train': 'train a recogniser',
}
"""Sub-commands and what they do; each is a module here with `main(arguments) -> int`."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `karmma COMMAND …` and give the exit status."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    if not words or words[0] in ('-h', '--help'):
        print(_usage())
        return 0 if words else 2
    command, rest = words[0], words[1:]
    if command not in COMMANDS:
        print(f'karmma: no command {command!r}; there are: {", ".join(COMMANDS)}', file=sys.stderr)
        return 2
    return _run(command, rest)


def _run(command: str, arguments: list[str]) -> int:
    try:
        return int(import_module(f'karmma_ros.cli.{command}').main(arguments) or 0)
    except KarmmaError as error:
        print(f'karmma {command}: {error}', file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(f'karmma {command}: {error}: free some space and give the same command again; '
              'what was finished is used', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _usage() -> str:
    lines = [f'  {name:<8} {what}' for name, what in COMMANDS.items()]
    return '\n'.join(['usage: karmma COMMAND [OPTION ...]', '', *lines, '',
                      '`karmma COMMAND --help` lists the options of a command.'])


if __name__ == '__main__':
    sys.exit(main())
