"""
Files of weights that others published: found in a library's cache, fetched, read as tensors.

None of them is trusted: a checkpoint is read as tensors and plain values, never as code.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from pickle import UnpicklingError
import re
import struct
import warnings

from karmma_ros.errors import first_line, InvalidSettingError, KarmmaError
from karmma_ros.files import open_regular, read_regular
from karmma_ros.model.untrusted_files import load_safetensors
from karmma_ros.storage import write_atomically
from safetensors import SafetensorError
import torch
from torch import Tensor

Weights = Mapping[str, Tensor]
SUFFIXES = ('.pth', '.pt', '.bin', '.safetensors', '.torch', '.ckpt', '.pth.tar', '.pyth')
"""Endings of the names of files of weights."""
_WRAPPERS = ('model', 'state_dict', 'model_state_dict', 'model_state', 'module', 'net')
"""Keys under which checkpoints nest the weights."""
_WRAPPED_NAMES = ('_orig_mod.', 'module.')
"""What torch.compile and DataParallel put before the names of a network's tensors."""
_ATTRIBUTE = 'model.'
"""What Lightning puts before all of them."""
_READ_ERRORS = (
    SafetensorError, UnpicklingError, OSError, EOFError, RuntimeError, ValueError, LookupError,
    TypeError, AttributeError, AssertionError, ArithmeticError, struct.error, MemoryError)
"""What reading a damaged file raises."""
_DTYPES = frozenset({
    torch.float16, torch.bfloat16, torch.float32, torch.float64, torch.int8, torch.int16,
    torch.int32, torch.int64, torch.uint8, torch.bool})
_DIGEST = re.compile(r'-([0-9a-f]{8,64})\.')
"""The first digits of the SHA-256 that torchvision and timm put into the name of a file."""


LOCAL_FILE = "give a local file's path as the encoder's `weights`"


class MissingWeightsError(KarmmaError):
    """A file of weights is missing and cannot be downloaded; names its source and path."""

    def __init__(
        self, file: str, origin: str, path: Path | str, problem: str,
        otherwise: str = LOCAL_FILE, folder: bool = False,
    ) -> None:
        """
        Build the text.

        :param folder: the path is a folder that only a copy of one can replace.
        """
        self.file, self.origin, self.path, self.problem = file, origin, Path(path), problem
        super().__init__(
            f'weights {file} are not here ({problem}): ' + (
                f'they are those of {origin}: copy {path} from a machine that has it' if folder
                else f'fetch them from {origin} and put them at {path}') + f', or {otherwise}')


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
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
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

    Those of a checkpoint may be under a key such as `model` or `state_dict`, or in several
    mappings, whose keys then begin the names. What torch.compile, DataParallel and Lightning put
    before them is left out. Options of argparse beside them are read as plain values.

    :raises InvalidSettingError: when it cannot be read, is damaged or has something else.
    """
    try:
        if path.suffix == '.safetensors':
            content: object = load_safetensors(path)
        else:
            content = _load(path)
    except _READ_ERRORS as error:
        raise _unreadable(path, _problem(path, error)) from error
    for key in _WRAPPERS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
    if not isinstance(content, Mapping):
        raise _unreadable(path, f'holds a {type(content).__name__}')
    weights = {_unwrapped(name): x for name, x in _tensors(content).items()}
    if all(name.startswith(_ATTRIBUTE) for name in weights):
        weights = {name.removeprefix(_ATTRIBUTE): x for name, x in weights.items()}
    return _checked(path, weights)


def _load(path: Path) -> object:
    # A Namespace holds attributes and has no code of its own that unpickling would run.
    with open_regular(path) as file, warnings.catch_warnings(), \
            torch.serialization.safe_globals([Namespace]):
        warnings.simplefilter('ignore')  # about the form of the file, which is refused or read
        return torch.load(file, map_location='cpu', weights_only=True)


def _problem(path: Path, error: Exception) -> str:
    """Return why a file cannot be read, in words that a user understands."""
    try:
        with open_regular(path) as file:
            start = file.read(100)
    except OSError:
        return first_line(error)
    if not start:
        return 'it is empty'
    if start.lstrip().startswith(b'<'):
        return 'it is a web page rather than the file: download it in a browser'
    if 'weights_only' in str(error) and not isinstance(error, UnpicklingError):
        return 'it is a program, or an archive of an old form, of which tensors are not read'
    if isinstance(error, RuntimeError):  # of the archive, with advice to PyTorch's developers
        return 'it is damaged, incomplete or no checkpoint'
    return first_line(error)


def _checked(path: Path, weights: Weights) -> Weights:
    """Refuse tensors without values of ordinary numbers: sparse, quantized, eight bits wide."""
    for name, x in weights.items():
        if x.dtype not in _DTYPES or x.layout is not torch.strided or x.is_meta:
            form = 'meta' if x.is_meta else str(x.layout).removeprefix('torch.')
            raise _unreadable(path, f'its {name} is {x.dtype}, {form}')
    return weights


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
    while name.startswith(_WRAPPED_NAMES):
        name = name.partition('.')[2]
    return name


def _unreadable(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError(
        'weights', str(path), 'a safetensors file or a checkpoint of tensors', problem)
