"""
Pretrained weights of encoders, and a report of what was loaded.

Building a network never loads anything; `load_pretrained` does. It reads a file from the cache of
torchvision or timm, downloads it there, or reads any other file of weights. The tensors have the
library's names. Of a `model.safetensors` of this package each encoder takes its own part.

Shape legend: e token width, k channels, n positions, t frames.
"""

from __future__ import annotations

from collections.abc import Callable
import math
from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import first_line, InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.encoders.mel import AST, published_grid, published_stride
from karmma_ros.model.encoders.video import ChunkedEncoder, prepare_torchvision
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.weights_check import check_clip, check_fit, is_frozen, LoadReport
from karmma_ros.model.weights_file import (
    cache_path,
    download,
    LOCAL_FILE,
    MissingWeightsError,
    read_weights,
    SUFFIXES,
    Weights,
)
from torch import nn, Tensor

CHUNKED = 'encoder.'
"""Stands before the names of an encoder that is run on chunks."""
HUB_FILE = 'model.safetensors'


def load_pretrained(
    network: Karmma, config: ModelConfig, spec: ClipSpec | None = None, *,
    frozen: bool = False, allow_mismatch: bool = False,
) -> dict[Modality, LoadReport]:
    """
    Load the weights that a configuration names into the encoders of its network.

    The other parameters are those of `load_encoder`.

    :returns: modality → what was loaded, adapted, left at random and not used.
    :raises MissingWeightsError: when a file is not here and cannot be fetched.
    :raises InvalidSettingError: when a name means no weights, or a file has none that fit.
    """
    return {
        m: load_encoder(
            network.encoders[m.value], config.encoders[m], m, spec, frozen=frozen,
            allow_mismatch=allow_mismatch)
        for m in config.modalities
    }


def load_encoder(
    encoder: nn.Module, config: EncoderConfig, modality: Modality, spec: ClipSpec | None = None,
    *, frozen: bool = False, allow_mismatch: bool = False,
) -> LoadReport:
    """
    Load the weights of one encoder; as `load_pretrained`.

    :param spec: of the clips that it will see; None: they are not compared.
    :param frozen: it will not be trained, though its parameters could be. No tensor of a frozen
        encoder may stay at random.
    :param allow_mismatch: accept tensors left at random in a frozen encoder, more than a tenth of
        them in one that is trained, and weights from clips of another specification.
    :raises InvalidSettingError: for these otherwise, and for weights of which nothing fits.
    """
    frozen = frozen or is_frozen(encoder)
    if not config.weights:
        report = LoadReport('', random=dict.fromkeys(encoder.state_dict(), 'from scratch'))
        if frozen and not allow_mismatch:
            check_fit(report, encoder, config, modality, frozen)
        return report
    path = find_weights(config)
    inner = encoder.encoder if isinstance(encoder, ChunkedEncoder) else encoder
    own = inner.state_dict()
    weights = _as_named(read_weights(path), own, modality)
    new, report = _fitted(encoder, own, weights, path)
    if not new:
        raise InvalidSettingError(
            f'architecture.encoders.{modality}.weights', str(path), f'weights of {config.name}',
            f'none of its {len(weights)} tensors fits; it has {", ".join(list(weights)[:3])} …')
    if not allow_mismatch:
        if spec is not None:
            check_clip(path, spec, modality)
        check_fit(report, inner, config, modality, frozen)
    inner.load_state_dict({**own, **new})
    return report


def _fitted(
    encoder: nn.Module, own: Weights, weights: Weights, path: Path
) -> tuple[dict[str, Tensor], LoadReport]:
    """Return the encoder's new tensors, and what becomes of each."""
    new: dict[str, Tensor] = {}
    adapted: dict[str, str] = {}
    random: dict[str, str] = {}
    for name, ours in own.items():
        theirs = weights.get(name)
        if theirs is None:
            random[name] = 'not in the file'
        elif theirs.shape == ours.shape:
            new[name] = theirs
        elif (how := _adapt(encoder, name, ours, theirs)) is not None:
            new[name], adapted[name] = how
        else:
            random[name] = f'{list(theirs.shape)} in the file, {list(ours.shape)} here'
    loaded = tuple(name for name in new if name not in adapted)
    return new, LoadReport(
        str(path), loaded, adapted, random, tuple(n for n in weights if n not in own))


def find_weights(config: EncoderConfig) -> Path:
    """
    Return the file of an encoder's weights, fetched into the library's cache if need be.

    :raises MissingWeightsError: when it is not here and cannot be fetched.
    :raises InvalidSettingError: when the name means no weights of this encoder.
    """
    weights = config.weights
    if weights.endswith(SUFFIXES):
        path = Path(weights).expanduser()
        if not path.exists():
            raise MissingWeightsError(
                path.name, 'where you have them', path, 'there is no such file')
        return path
    library, _, name = config.name.partition(':')
    if library == 'torchvision':
        return _torchvision_file(name, weights)
    if library in ('timm', 'ast', 'causal_frames', 'causal_mel'):
        return timm_file(weights)
    raise InvalidSettingError(
        'weights', weights,
        f'a model directory that exists, or the path of a file ({", ".join(SUFFIXES)})',
        f'there is no such directory, and {config.name} has no published weights: '
        'karmma train pretrain trains them')


def _torchvision_file(model: str, weights: str) -> Path:
    prepare_torchvision()
    from torchvision import models  # type: ignore[import-untyped]

    try:
        entries = models.get_model_weights(model)
    except ValueError as error:
        raise InvalidSettingError('weights', weights, "a file's path", str(error)) from error
    if weights not in entries.__members__:
        raise InvalidSettingError('weights', weights, ', '.join(entries.__members__))
    return download(entries[weights].url)


def timm_config(name: str) -> Any:
    """Return timm's description of pretrained weights; None where it has none of that name."""
    import timm

    if not timm.is_model(name):
        return None
    try:
        return timm.models.get_pretrained_cfg(name)
    except RuntimeError:  # of an unknown tag
        return None


def timm_file(name: str, online: bool = True, otherwise: str = LOCAL_FILE) -> Path:
    """
    Return the file of weights of timm, from the caches of torch or Hugging Face.

    :param online: download it if it is not there.
    :param otherwise: what the user can do instead.
    :raises MissingWeightsError: when it is not here and cannot be fetched.
    :raises InvalidSettingError: when timm has no such weights.
    """
    prepare_torchvision()
    from huggingface_hub import constants, hf_hub_download

    config = timm_config(name)
    if config is None or not config.has_weights:
        raise InvalidSettingError(
            'weights', name, 'one of timm.list_pretrained(), with its tag, or a file')
    url = str(config.url or '')
    if not config.hf_hub_id or url and cache_path(url).is_file():
        if not online and not cache_path(url).is_file():
            raise MissingWeightsError(
                cache_path(url).name, url, cache_path(url), 'there is no such file', otherwise)
        return download(url, otherwise)
    try:
        return Path(hf_hub_download(config.hf_hub_id, HUB_FILE, local_files_only=not online))
    except (OSError, ValueError) as error:  # offline is both a FileNotFoundError and a ValueError
        path = Path(constants.HF_HUB_CACHE) / f'models--{config.hf_hub_id.replace("/", "--")}'
        raise MissingWeightsError(
            HUB_FILE, f'{constants.ENDPOINT}/{config.hf_hub_id}', path,
            first_line(error) if online else 'they are not in the cache', otherwise, folder=True
        ) from error


def _as_named(weights: Weights, own: Weights, modality: Modality) -> Weights:
    """Call the file's tensors as the encoder does: whichever prefix makes most of them fit."""
    part = f'encoders.{modality}.'
    mine = {n.removeprefix(part): x for n, x in weights.items() if n.startswith(part)}
    bare = {n.removeprefix(CHUNKED): x for n, x in mine.items()}
    forms: list[Weights] = [mine, bare] if mine else [
        weights, {f'model.{name}': x for name, x in weights.items()},
        {f'model.{name.removeprefix("v.")}': x for name, x in weights.items()}]  # AST's own
    return max(forms, key=lambda form: len(form.keys() & own.keys()))


def _adapt(
    encoder: nn.Module, name: str, ours: Tensor, theirs: Tensor
) -> tuple[Tensor, str] | None:
    """Adapt a weight of another shape; None where that has no meaning."""
    for adapter in _ADAPTERS:
        adapted = adapter(encoder, name, ours, theirs)
        if adapted is not None and adapted[0].shape == ours.shape:
            return adapted
    return None


Adapter = Callable[[nn.Module, str, Tensor, Tensor], 'tuple[Tensor, str] | None']


def _channels(
    encoder: nn.Module, name: str, ours: Tensor, theirs: Tensor
) -> tuple[Tensor, str] | None:
    """Distribute the colours' weights evenly over k tiles; equal tiles give the same output."""
    if ours.ndim < 4 or ours.ndim != theirs.ndim or ours.shape[2:] != theirs.shape[2:]:
        return None
    k = ours.shape[1]
    shared = theirs.sum(1, keepdim=True) / k
    return shared.expand(-1, k, *ours.shape[2:]), f'{theirs.shape[1]} channels shared out over {k}'


def _patch_positions(
    encoder: nn.Module, name: str, ours: Tensor, theirs: Tensor
) -> tuple[Tensor, str] | None:
    """Resample an image's position embedding `[1, 2 + n, e]` to the spectrogram's grid."""
    if not isinstance(encoder, AST) or name != 'model.pos_embed':
        return None
    from timm.layers import resample_abs_pos_embed

    rows, columns = _grid_of(theirs)
    grid = encoder.grid
    resized = resample_abs_pos_embed(theirs, list(grid), [rows, columns], num_prefix_tokens=2)
    return resized, f'{rows}×{columns} positions resampled to {grid[0]}×{grid[1]}'


def _grid_of(positions: Tensor) -> tuple[int, int]:
    """
    Return the rows and columns of a position embedding of DeiT or of an AST of AudioSet.

    :raises InvalidSettingError: when its size is of neither.
    """
    count = positions.shape[1] - 2 if positions.ndim == 3 else 0
    stride = published_stride(count)
    side = math.isqrt(max(0, count))
    if side > 0 and side ** 2 == count:
        return side, side
    if stride is None:
        raise InvalidSettingError(
            'weights', f'model.pos_embed {list(positions.shape)}',
            'positions [1, 2 + n, e] of a square of patches, or of 128 mel bands and 1024 columns')
    return published_grid(stride)


def _frame_positions(
    encoder: nn.Module, name: str, ours: Tensor, theirs: Tensor
) -> tuple[Tensor, str] | None:
    """Interpolate STLT's frame embedding `[t, e]` over time."""
    if name != 'frame' or theirs.ndim != 2:
        return None
    resized = nn.functional.interpolate(
        theirs.T.unsqueeze(0), len(ours), mode='linear', align_corners=True)
    return resized.squeeze(0).T.contiguous(), f'{len(theirs)} frames resampled to {len(ours)}'


def _chunk_positions(
    encoder: nn.Module, name: str, ours: Tensor, theirs: Tensor
) -> tuple[Tensor, str] | None:
    """Average the positions of a clip over its chunks, which share one embedding."""
    if not isinstance(encoder, ChunkedEncoder) or name != 'position' or theirs.ndim != 2:
        return None
    if len(theirs) != encoder.parts * len(ours):
        return None
    resized = theirs.unflatten(0, (encoder.parts, -1)).mean(0)
    return resized, f"{len(theirs)} positions averaged over the clip's {encoder.parts} chunks"


_ADAPTERS: tuple[Adapter, ...] = (_channels, _patch_positions, _frame_positions, _chunk_positions)
