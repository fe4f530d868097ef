"""Feature extractors (FEs): one module for each modality, `[b, ...]` → tokens `[b, n, e]`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import first_line, InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.causal import CausalFrames, CausalMel
from karmma_ros.model.encoders.causal_small import CausalDepth, CausalSeries
from karmma_ros.model.encoders.layout import LayoutCNN, STLT
from karmma_ros.model.encoders.library import check_options, TimmFrames, TorchvisionVideo
from karmma_ros.model.encoders.mel import AST, MelCNN
from karmma_ros.model.encoders.movinet import MoViNet
from karmma_ros.model.encoders.small import DepthCNN, SeriesCNN
from karmma_ros.model.encoders.timesformer import TimeSformer
from karmma_ros.model.encoders.video import ChunkedEncoder, R2Plus1D
from karmma_ros.model.encoders.x3d import ContinualX3D, X3D
import torch
from torch import nn

ENCODERS: dict[str, Callable[..., nn.Module]] = {
    'r2plus1d': R2Plus1D,
    'mel_cnn': MelCNN,
    'stlt': STLT,
    'layout_cnn': LayoutCNN,
    'ast': AST,
    'causal_frames': CausalFrames,
    'causal_mel': CausalMel,
    'series_cnn': SeriesCNN,
    'depth_cnn': DepthCNN,
    'causal_series': CausalSeries,
    'causal_depth': CausalDepth,
    'timesformer': TimeSformer,
    'x3d': X3D,
    'x3d_continual': ContinualX3D,
    'movinet': MoViNet,
}
"""Our encoders by the name a configuration gives them; each takes `input_shape` first."""

LIBRARIES: dict[str, Callable[..., nn.Module]] = {
    'torchvision': TorchvisionVideo,
    'timm': TimmFrames,
}
"""`torchvision:NAME` and `timm:NAME`; each takes `input_shape` and NAME first."""


def is_custom(name: str) -> bool:
    """Return whether an encoder's name is that of a user's class, `package.module:Class`."""
    return ':' in name and name.partition(':')[0] not in LIBRARIES


def build_encoder(config: EncoderConfig, spec: ClipSpec, modality: Modality) -> nn.Module:
    """
    Build the encoder of one modality.

    :raises InvalidSettingError: for an unknown name, an option the encoder does not take, or
        an input it cannot take.
    """
    setting = f'architecture.encoders.{modality}'
    factory = _factory(config, modality, setting)
    shape = spec.input_shape(modality)
    if not config.chunk:
        return _build(factory, shape, config, modality, setting)
    parts = _parts(config.chunk, shape, modality, setting)
    inner = _build(factory, (shape[0], config.chunk, *shape[2:]), config, modality, setting)
    skips_first = modality_type(modality).skips_first and config.chunk > 1
    return ChunkedEncoder(inner, parts, skips_first)


def parts_of(encoder: nn.Module) -> int:
    """
    Return the number of chunks that an encoder encodes independently, its attribute `parts`.

    All have equally many tokens. Without the attribute, each token depends on the entire clip.
    """
    parts = getattr(encoder, 'parts', 1)
    return parts if isinstance(parts, int) else 1


def _build(
    factory: Callable[..., nn.Module], shape: Sequence[int], config: EncoderConfig,
    modality: Modality, setting: str,
) -> nn.Module:
    options = dict(config.options)
    check_options(setting, options)
    try:
        return factory(shape, **options)
    except InvalidSettingError:
        raise
    except TypeError as error:
        raise InvalidSettingError(
            f'{setting}.options', options, f'arguments of {config.name}: {error}') from error
    except (ValueError, RuntimeError, AssertionError) as error:
        raise InvalidSettingError(
            setting, config.name, f'an encoder of inputs {list(shape)} of {modality}',
            f'it refused them: {error}') from error


def _parts(chunk: int, shape: Sequence[int], modality: Modality, setting: str) -> int:
    if not modality_type(modality).takes_chunks:
        raise InvalidSettingError(
            f'{setting}.chunk', chunk, '0', 'only frames, as those of RGB and flow, come in chunks'
        )
    if shape[1] % chunk:
        raise InvalidSettingError(
            f'{setting}.chunk', chunk, f"a divisor of the clip's {shape[1]} frames")
    return shape[1] // chunk


def token_shape(encoder: nn.Module, input_shape: Sequence[int]) -> tuple[int, int]:
    """
    Return the number and the width of an encoder's tokens, without computing any.

    :raises InvalidSettingError: when it does not make tokens of this input.
    """
    try:
        shape = _meta_shape(encoder, input_shape)
    except (RuntimeError, TypeError, ValueError, AssertionError) as error:
        raise _not_an_encoder(encoder, input_shape, first_line(error)) from error
    if len(shape) != 3 or shape[0] != 1:
        raise _not_an_encoder(encoder, input_shape, f'gave {list(shape)}')
    return shape[1], shape[2]


def _meta_shape(encoder: nn.Module, input_shape: Sequence[int]) -> tuple[int, ...]:
    shapes = {
        name: torch.empty_like(x, device='meta')
        for name, x in [*encoder.named_parameters(), *encoder.named_buffers()]
    }
    training = encoder.training
    x = torch.empty(1, *input_shape, device='meta')
    try:
        return tuple(torch.func.functional_call(encoder.eval(), shapes, (x,)).shape)
    finally:
        encoder.train(training)


def _not_an_encoder(
    encoder: nn.Module, input_shape: Sequence[int], problem: str
) -> InvalidSettingError:
    return InvalidSettingError(
        'encoder', type(encoder).__name__,
        f'a module from [1, {", ".join(map(str, input_shape))}] to tokens [1, n, e]', problem)


def _factory(
    config: EncoderConfig, modality: Modality, setting: str
) -> Callable[..., nn.Module]:
    library, _, name = config.name.partition(':')
    if config.name in ENCODERS:
        return ENCODERS[config.name]
    if library in LIBRARIES:
        if not modality_type(modality).is_image:
            raise InvalidSettingError(
                f'{setting}.name', config.name, 'an encoder of ours or package.module:Class',
                f'the input of {modality} is no image')
        return _named(LIBRARIES[library], name)
    if is_custom(config.name):
        return _custom(library, name, setting)
    raise InvalidSettingError(
        f'{setting}.name', config.name,
        f'{", ".join(ENCODERS)}, torchvision:NAME, timm:NAME or package.module:Class')


def _named(library: Callable[..., nn.Module], name: str) -> Callable[..., nn.Module]:
    return lambda input_shape, **options: library(input_shape, name, **options)


def _custom(module: str, name: str, setting: str) -> Callable[..., nn.Module]:
    allowed = 'the importable package.module:Class of a torch.nn.Module'
    try:
        encoder = getattr(import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InvalidSettingError(
            f'{setting}.name', f'{module}:{name}', allowed, str(error)) from error
    if not (isinstance(encoder, type) and issubclass(encoder, nn.Module)):
        raise InvalidSettingError(f'{setting}.name', f'{module}:{name}', allowed)
    return encoder
