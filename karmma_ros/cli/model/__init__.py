"""`karmma model`: the published models, and model directories that are made of them."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from karmma_ros.cli.main import dispatch

COMMANDS = {
    'list': 'the published models that are known, with their cost, accuracy and licence',
    'info': 'everything about a published model, or about a model directory',
    'pull': 'download a published model and make a model directory of it',
    'import': 'make a model directory of published weights',
    'join': 'make one model of models of different sensors',
    'push': 'upload a model directory to the Hugging Face Hub',
}
_FUNCTIONS = {
    'list': 'describe:list_models', 'info': 'describe:info', 'pull': 'import_weights:pull',
    'import': 'import_weights:main', 'push': 'push:main',
    'join': 'join:main'}


def main(arguments: Sequence[str]) -> int:
    """Run a sub-command; its module is imported only then."""
    return dispatch('karmma model', COMMANDS, _run, arguments)


def _run(name: str, arguments: list[str]) -> int:
    module, _, function = _FUNCTIONS[name].partition(':')
    return int(getattr(import_module(f'karmma_ros.cli.model.{module}'), function)(arguments))
