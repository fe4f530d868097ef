"""The examples in the docstrings of the API reference run."""

from __future__ import annotations

import doctest
import importlib
from pathlib import Path
import re

import pytest

PAGES = sorted((Path(__file__).parents[1] / 'docs' / 'api').glob('*.md'))
MODULES = [name for page in PAGES
           for name in re.findall(r'automodule:: (\S+)', page.read_text(encoding='utf-8'))]
WITHOUT = {
    'karmma_ros.data.datasets', 'karmma_ros.model.backends.interface',
    'karmma_ros.model.backends.selection', 'karmma_ros.stream.availability',
    'karmma_ros.stream.window'}
"""Modules of types that other classes return, and of functions that need data or exports."""


@pytest.mark.parametrize('name', MODULES)
def test_the_examples_of_a_module_run(name):
    results = doctest.testmod(importlib.import_module(name))
    assert results.failed == 0
    assert (results.attempted == 0) is (name in WITHOUT)
