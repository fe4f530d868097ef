"""`karmma bag`: make rosbag2 bags, and evaluate a model on recorded ones."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib import import_module

MODULES = {
    'synthetic': 'write', 'from-video': 'write', 'from-epic': 'from_epic',
    'record': 'record', 'evaluate': 'evaluate',
}
"""Sub-command → its module here, loaded only when it is asked for."""


def main(arguments: Sequence[str]) -> int:
    """Run the sub-command that the arguments ask for."""
    options = _parser(arguments).parse_args(arguments)
    return int(options.run(options))


def _parser(arguments: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog='karmma bag', description=__doc__)
    kinds = parser.add_subparsers(required=True, metavar=f'{{{",".join(MODULES)}}}')
    asked = MODULES.get(arguments[0]) if arguments else None
    for name in [asked] if asked else dict.fromkeys(MODULES.values()):
        import_module(f'karmma_ros.cli.bag.{name}').add_parser(kinds)
    return parser
