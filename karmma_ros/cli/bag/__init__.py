"""`karmma bag`: write rosbag2 bags, and evaluate a model on recorded ones."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from karmma_ros.cli.main import dispatch

COMMANDS = {
    'synthetic': 'write held-out episodes of the synthetic kitchen as a bag',
    'from-video': 'write a video file as a bag',
    'from-epic': 'write a video of EPIC-KITCHENS-100 as a bag, with flow, audio and annotations',
    'record': 'print the `ros2 bag record` command for a bag that can be evaluated',
    'evaluate': 'write a report on how well a model does on recorded bags',
}
_FUNCTIONS = {'synthetic': 'write:synthetic', 'from-video': 'write:from_video',
              'from-epic': 'write:from_epic'}


def main(arguments: Sequence[str]) -> int:
    """Run a sub-command; its module is imported only then."""
    return dispatch('karmma bag', COMMANDS, _run, arguments)


def _run(name: str, arguments: list[str]) -> int:
    module, _, function = _FUNCTIONS.get(name, f'{name}:main').partition(':')
    return int(getattr(import_module(f'karmma_ros.cli.bag.{module}'), function)(arguments))
