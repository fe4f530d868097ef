"""Model directories by path, name or Hub id, and the folders of this package's files."""

from __future__ import annotations

from collections.abc import Sequence
import os
from pathlib import Path

import karmma_ros
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.hub import fetch_model, HubReference, is_hub_reference, Report


def find_model(text: str, setting: str = 'model', hub: Report | None = None) -> Path:
    """
    Return the directory that `text` means: a path, or the name of a model that comes along.

    :param setting: what the user set to this text.
    :param hub: allows `hf://ORGANISATION/NAME@REVISION`, too, which may be downloaded, and is
        called with lines about it; None: refuse it.
    :raises InvalidSettingError: when there is neither; it lists the names there are.
    :raises BundleError: as `fetch_model` does.

    >>> from karmma_ros.model.registry import find_model
    >>> find_model('synthetic_kitchen').name
    'synthetic_kitchen'
    """
    if is_hub_reference(text):
        _check_reference(text, setting, hub is not None)
        return fetch_model(text, setting, hub or _ignore)
    folders = [folder / 'models' for folder in package_folders() if (folder / 'models').is_dir()]
    for path in _candidates(text, folders):
        if _is_folder(path):
            return path
    names = sorted({p.name for folder in folders for p in folder.iterdir() if p.is_dir()})
    raise InvalidSettingError(
        setting, text, f'the path of a model directory, or one of: {", ".join(names) or "none"}',
        'check the path, or train a model with `karmma train`')


def check_model(text: str, hub: bool) -> None:
    """
    Check a value of `find_model` without a request to the Hub.

    :param hub: whether models of the Hub are allowed.
    :raises InvalidSettingError: when there is no such model, or it may not be taken.
    """
    if is_hub_reference(text):
        _check_reference(text, 'model', hub)
    else:
        find_model(text)


def _check_reference(text: str, setting: str, allowed: bool) -> None:
    HubReference.parse(text, setting)
    if not allowed:
        raise InvalidSettingError(
            setting, text, 'a model on this machine', 'the node downloads models of the Hub only '
            'with allow_hub:=true')


def _ignore(line: str) -> None:
    pass


def _candidates(text: str, folders: Sequence[Path]) -> list[Path]:
    """Return the paths that a text may stand for, the most literal first."""
    if not text:
        return []
    try:
        given = Path(text).expanduser()
    except RuntimeError:  # `~somebody` without such a user
        given = Path(text)
    return [given, *(folder / text for folder in folders)]


def _is_folder(path: Path) -> bool:
    try:
        return path.is_dir()
    except (OSError, ValueError):  # too long a name, or characters that no name may hold
        return False


def package_folders() -> list[Path]:
    """Return the source tree, then the share folders of what is installed."""
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    installed = [Path(prefix, 'share', 'karmma_ros') for prefix in prefixes if prefix]
    return [Path(karmma_ros.__file__).parents[1], *installed]
