"""
Files of weights that others published: found in a library's cache, fetched, read as tensors.

None of them is trusted: a checkpoint is read as tensors and plain values, never as code.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
import re

from karmma_ros.errors import first_line, InvalidSettingError, KarmmaError
from karmma_ros.files import open_regular, read_regular
from karmma_ros.model.untrusted_files import load_safetensors
from karmma_ros.storage import write_atomically
from safetensors import SafetensorError
import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors', '.torch', '.ckpt', '.pth.tar')
"""Endings of the names of files of weights."""
_WRAPPERS = ('model', 'state_dict')
"""Keys under which checkpoints nest the weights."""
_WRAPPED_NAMES = ('_orig_mod.', 'module.')
"""What torch.compile and DataParallel put before the names of a network's tensors."""
_DIGEST = re.compile(r'-([0-9a-f]{8,64})\.')
"""The first digits of the SHA-256 that torchvision and timm put into the name of a file."""


LOCAL_FILE = "give a local file's path as the encoder's `weights`"


class MissingWeightsError(KarmmaError):
    """A file of weights is missing and cannot be downloaded; names its source and path."""

    def __init__(
        self, file: str, origin: str, path: Path | str, problem: str,
        otherwise: str = LOCAL_FILE,
    ) -> None:
        self.file, self.origin, self.path, self.problem = file, origin, Path(path), problem
        super().__init__(
            f'weights {file} are not here ({problem}): fetch them from {origin} and put them at '
            f'{path}, or {otherwise}')


def cache_path(url: str) -> Path:
    """Return where torch keeps what it downloads from a URL."""
    return Path(torch.hub.get_dir()) / 'checkpoints' / url.partition('?')[0].rpartition('/')[2]


def download(url: str, otherwise: str = LOCAL_FILE) -> Path:
    """
    Return the file of a URL in torch's cache, downloaded unless it is there.

    :param otherwise: what the user can do instead.
    :raises MissingWeightsError: when it cannot be fetched, or has another digest than its name.
    """
    path = cache_path(url)
    if path.is_file():
        return path
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        torch.hub.download_url_to_file(url, str(path), hash_prefix=named_digest(path) or None)
    except (OSError, RuntimeError) as error:
        raise MissingWeightsError(
            path.name, url, path, first_line(error), otherwise) from error
    return path


def named_digest(path: Path) -> str:
    """Return the first digits of the SHA-256 that are in the name of a file; empty: none."""
    match = _DIGEST.search(path.name)
    return match.group(1) if match else ''


def known_digest(path: Path) -> str:
    """Return the SHA-256 that a file had when it was first used; empty if it never was."""
    try:
        text = read_regular(_digest_file(path), 100).decode('ascii').strip()
    except (OSError, ValueError):
        return ''
    return text if re.fullmatch(r'[0-9a-f]{64}', text) else ''


def remember_digest(path: Path, digest: str) -> None:
    """Write the SHA-256 of a file beside it, if it can be written, for `known_digest`."""
    if known_digest(path) != digest:
        with suppress(OSError):  # a cache may be read-only
            write_atomically(_digest_file(path), digest + '\n')


def _digest_file(path: Path) -> Path:
    return path.with_name(path.name + '.sha256')


def read_weights(path: Path) -> Weights:
    """
    Return the tensors of a file by name.

    Those of a checkpoint may be under the key `model` or `state_dict`, or in several mappings,
    whose keys then begin the names. What torch.compile and DataParallel put before them is left
    out.

    :raises InvalidSettingError: when it cannot be read, is damaged or has something else.
    """
    try:
        if path.suffix == '.safetensors':
            return load_safetensors(path)
        with open_regular(path) as file:
            content = torch.load(file, map_location='cpu', weights_only=True)
    except (SafetensorError, UnpicklingError, OSError, EOFError, RuntimeError, ValueError,
            KeyError) as error:
        raise _unreadable(path, first_line(error)) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise _unreadable(path, f'holds a {type(content).__name__}')
    return {_unwrapped(name): x for name, x in _tensors(content).items()}


def _tensors(content: Mapping[str, object]) -> dict[str, Tensor]:
    """Return the tensors of a mapping, and those of the mappings in it as `key.name`."""
    tensors = {}
    for key, value in content.items():
        if isinstance(value, Tensor):
            tensors[str(key)] = value
        elif isinstance(value, Mapping):
            tensors.update({f'{key}.{name}': x for name, x in value.items()
                            if isinstance(x, Tensor)})
    return tensors


def _unwrapped(name: str) -> str:
    for prefix in _WRAPPED_NAMES:
        name = name.removeprefix(prefix)
    return name


def _unreadable(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError(
        'weights', str(path), 'a safetensors file or a checkpoint of tensors', problem)
