"""The `karmma` command: run a sub-command, whose module is imported only then."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
import sys

from karmma_ros.errors import DISK_FULL, KarmmaError, NOT_WRITABLE, printable

COMMANDS = {
    'bag': 'evaluate a model on recorded bags, or write one: synthetic, or from a video file',
    'calibrate': 'make the confidence of a model agree with its accuracy',
    'compare': 'compare two bag reports, with confidence intervals',
    'data': 'check a data set before training on it, or convert labels of other tools',
    'export': 'export a model for OpenVINO or ONNX Runtime: several times faster',
    'evaluate': 'score models on a data set for every subset of sensors',
    'finetune': 'train a model of your own classes from labelled bags, in minutes',
    'label': 'label the actions in recordings with a page in the browser',
    'model': 'list published models, and make model directories of them',
    'predict': 'recognise the action in a video, without ROS',
    'profile': 'operations, parameters and memory of a network, beside the paper',
    'replay': 'publish a bag over DDS in real time, with sensors muted on request',
    'reproduce': "reproduce the paper's tables at tiny size",
    'train': 'train a recogniser',
}
"""Sub-commands and what they do; each is a module here with `main(arguments) -> int`."""

Run = Callable[[str, list[str]], int]
"""From the name of a sub-command and its arguments to the exit status."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run `karmma COMMAND …` and return the exit status."""
    return dispatch('karmma', COMMANDS, _run, sys.argv[1:] if arguments is None else arguments)


def dispatch(program: str, commands: Mapping[str, str], run: Run, arguments: Sequence[str]) -> int:
    """
    Run the sub-command that the first argument names, or print what there is.

    :param commands: sub-command → what it does.
    :returns: its exit status; 2 when none or an unknown one is named.
    """
    name, rest = (arguments[0] if arguments else ''), list(arguments[1:])
    if name in commands:
        return run(name, rest)
    if name in ('', '-h', '--help'):
        width = max(map(len, commands))
        print('\n'.join([
            f'usage: {program} COMMAND [OPTION ...]', '', 'commands:',
            *(f'  {each:<{width}}  {text}' for each, text in commands.items()), '',
            f'`{program} COMMAND --help` lists the options of a command.']))
        return 0 if name else 2
    print(f'{program}: no command {name!r}; there are: {", ".join(commands)}', file=sys.stderr)
    return 2


def _run(command: str, arguments: list[str]) -> int:
    try:
        return int(import_module(f'karmma_ros.cli.{command}').main(arguments) or 0)
    except KarmmaError as error:
        print(f'karmma {command}: {error}', file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in (*DISK_FULL, *NOT_WRITABLE):
            raise
        remedy = ('free some space and give the same command again; what was finished is used'
                  if error.errno in DISK_FULL else 'name another path, or change its permissions')
        name = '' if error.filename is None else f'{printable(error.filename)}: '
        print(f'karmma {command}: {name}{error.strerror}: {remedy}', file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


if __name__ == '__main__':
    sys.exit(main())
