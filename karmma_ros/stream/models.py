"""Models by name, and where the files of this package lie."""

from __future__ import annotations

import os
from pathlib import Path

import karmma_ros
from karmma_ros.errors import InvalidSettingError


def find_model(text: str, setting: str = 'model') -> Path:
    """
    Give the directory that `text` means: a path, or the name of a model that comes along.

    :param setting: what the user set to this text.
    :raises InvalidSettingError: when there is neither; it lists the names there are.
    """
    path = Path(text).expanduser()
    if text and path.is_dir():
        return path
    folders = [folder / 'models' for folder in shares() if (folder / 'models').is_dir()]
    for folder in folders:
        if text and (folder / text).is_dir():
            return folder / text
    names = sorted({p.name for folder in folders for p in folder.iterdir() if p.is_dir()})
    raise InvalidSettingError(
        setting, text, f'the path of a model directory, or one of: {", ".join(names) or "none"}',
        'check the path, or train a model with `karmma train`')


def shares() -> list[Path]:
    """Give the source tree, then the share folders of what is installed."""
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    installed = [Path(prefix, 'share', 'karmma_ros') for prefix in prefixes if prefix]
    return [Path(karmma_ros.__file__).parents[1], *installed]
