"""The data of a training configuration, for commands that take nothing else from it."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path

from karmma_ros.errors import InvalidSettingError
import yaml


def data_of_config(words: Sequence[str]) -> list[str]:
    """
    Give the section `data` of the file that `--config` names, as an option to put first.

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
