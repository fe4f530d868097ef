"""The data of a training configuration, for commands that take nothing else from it."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import json
import os
from pathlib import Path
import platform
from typing import Any

from jsonargparse import ArgumentParser, set_parsing_settings
from karmma_ros.errors import InvalidSettingError
import torch
import yaml


def data_of_config(words: Sequence[str]) -> list[str]:
    """
    Return the section `data` of the file that `--config` names, as an option to put first.

    Options after it outrank it; none, when there is no `--config`.

    :raises InvalidSettingError: when the file cannot be read or has no such section.
    """
    finder = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    finder.add_argument('--config')
    path = finder.parse_known_args(list(words))[0].config
    if path is None:
        return []
    try:
        content = yaml.safe_load(Path(path).read_text(encoding='utf-8'))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise InvalidSettingError(
            '--config', path, f'a YAML file that can be read ({error})') from error
    data = content.get('data') if isinstance(content, dict) else None
    if not isinstance(data, dict):
        raise InvalidSettingError('--config', path, 'a file with a section `data`',
                                  'take one of config/train/, or give --data.dataset')
    return ['--data', json.dumps(data)]


def typed_parser(**options: Any) -> ArgumentParser:
    """
    Return a parser that takes the help of an option from the docstring under its field.

    :param options: of `jsonargparse.ArgumentParser`.
    """
    set_parsing_settings(docstring_parse_attribute_docstrings=True)
    return ArgumentParser(**options)


@contextmanager
def writing(setting: str, path: Path) -> Iterator[None]:
    """
    Tell which setting is wrong when a path cannot be written to.

    :raises InvalidSettingError: then.
    """
    try:
        yield
    except OSError as error:
        raise InvalidSettingError(setting, str(path), 'a path that can be written to',
                                  error.strerror or str(error)) from None


def this_machine() -> str:
    """Name processor, cores and torch."""
    processor = platform.processor() or platform.machine()
    return f'{processor}, {os.cpu_count()} cores, torch {torch.__version__}'
