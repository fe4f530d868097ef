"""
From an architecture as data to a network; configurations stop here.

What the architecture of a foreign model would make is bounded before it takes time or memory, on
the meta device, where tensors have sizes only.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.encoders import build_encoder, parts_of, token_shape
from karmma_ros.model.fusion import (
    ConcatenatedHeads,
    FusionBlock,
    LogitMean,
    MultiHeadMLP,
    PairHeads,
    QueryFusion,
    SplitHeads,
)
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.tokens import REDUCE, TokenEmbedding
from karmma_ros.prediction import Vocabulary
import torch
from torch import nn, Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


def build(config: ModelConfig, spec: ClipSpec, vocabulary: Vocabulary) -> Karmma:
    """
    Build a network with random weights.

    Under `torch.device('meta')` it has shapes only and takes no memory.

    :raises InvalidSettingError: when an encoder does not exist or refuses its options, or the
        cap on the tokens leaves it none.
    """
    reduce = REDUCE.get(config.reduction)
    width = _token_width(config, vocabulary)
    encoders, embeddings = {}, {}
    for modality in config.modalities:
        encoder = build_encoder(config.encoders[modality], spec, modality)
        tokens, encoder_width = token_shape(encoder, spec.input_shape(modality))
        # An ensemble's classifiers get the mean of all tokens, which has no order: of a clip, or
        # of each chunk where the cap lets it have a token.
        ensemble = config.fusion == 'logit_mean'
        parts = parts_of(encoder)
        if ensemble and config.token_cap < parts:
            parts = 1
        if reduce is not None:
            tokens = parts * min(tokens // parts, _cap_of_part(config.token_cap, parts, modality))
        learned = tokens if config.missing == 'tokens' else 0
        encoders[modality] = encoder
        embeddings[modality] = TokenEmbedding(
            encoder_width, width, learned, parts, ordered=not ensemble)
    fusion, heads = _fusion_and_heads(config, vocabulary)
    return Karmma(
        encoders,
        embeddings,
        fusion,
        heads,
        config.token_cap,
        fill_missing=config.missing == 'tokens',
        reduce=reduce,
        freeze_encoders=config.freeze_encoders,
        input_shapes={m: spec.input_shape(m) for m in config.modalities},
    )


def _token_width(config: ModelConfig, vocabulary: Vocabulary) -> int:
    if config.fusion == 'queries':
        return QueryFusion.token_width(config.dim, config.layers)
    return _classifier_width(config, vocabulary) or config.dim


def _classifier_width(config: ModelConfig, vocabulary: Vocabulary) -> int:
    """Return the classes that the encoders of an ensemble classify; 0 for another network."""
    if config.fusion != 'logit_mean':
        return 0
    sizes = vocabulary.sizes
    if not config.pairs:
        return sum(sizes.values())
    width = len(next(iter(config.pairs.values())))
    if config.pairs.keys() != sizes.keys() or width * max(sizes.values()) > LARGEST or any(
            max(classes) >= sizes[head] for head, classes in config.pairs.items()):
        raise InvalidSettingError(
            'architecture.pairs', {head: max(each) for head, each in config.pairs.items()},
            f'for each head a class id below its number of classes, {sizes}, and at most '
            f'{LARGEST} elements in all')
    return width


def _cap_of_part(cap: int, parts: int, modality: Modality) -> int:
    if cap < parts:
        raise InvalidSettingError(
            'architecture.token_cap', cap, f'{parts} or more',
            f'the encoder of {modality} encodes so many chunks')
    return cap // parts


def _fusion_and_heads(
    config: ModelConfig, vocabulary: Vocabulary
) -> tuple[nn.Module, nn.Module]:
    if config.fusion == 'logit_mean':
        votes = {m: config.votes.get(m, 1.0) for m in config.modalities}
        return LogitMean(votes), (
            PairHeads(config.pairs, vocabulary.sizes) if config.pairs
            else SplitHeads(vocabulary.sizes))
    sizes = (config.dim, config.layers, config.heads, config.feedforward, config.attention_dropout)
    fusion = (QueryFusion(config.modalities, *sizes) if config.fusion == 'queries'
              else FusionBlock(*sizes))
    if config.pooling == 'concatenated':
        return fusion, ConcatenatedHeads(
            config.dim * (len(config.modalities) + 1), vocabulary.sizes)
    return fusion, MultiHeadMLP(config.dim, vocabulary.sizes)


_MOST_VALUES, _MOST_NUMBER, _MOST_TEXT = 1000, 2**20, 1000
"""Of the options of an encoder: values in all, the largest number, characters of a text."""
_CALLS_A_TENSOR, _MORE_CALLS = 200, 20_000
"""Calls of torch to build a network; the presets take up to 15 for each of their tensors."""
LARGEST = 2**28
"""Elements of a tensor in a network, for one clip; Swin-B's attention has 79 million."""


def check_options(config: ModelConfig) -> None:
    """
    Refuse options of encoders that are longer or larger than any network's.

    :raises InvalidSettingError: naming the encoder.
    """
    for modality, encoder in config.encoders.items():
        values = list(_values(encoder.options))
        wrong = [value for value in values if _too_large(value)]
        if wrong or len(values) > _MOST_VALUES:
            raise InvalidSettingError(
                f'architecture.encoders.{modality}.options',
                wrong[0] if wrong else f'{len(values)} values',
                f'numbers up to {_MOST_NUMBER}, texts up to {_MOST_TEXT} characters, '
                f'{_MOST_VALUES} values')


def _values(options: Any) -> Iterator[Any]:
    if isinstance(options, Mapping):
        for key, value in options.items():
            yield key
            yield from _values(value)
    elif isinstance(options, list | tuple):
        yield options[:0]
        for value in options:
            yield from _values(value)
    else:
        yield options


def _too_large(value: Any) -> bool:
    if isinstance(value, int | float):
        return not abs(value) <= _MOST_NUMBER
    return isinstance(value, str) and len(value) > _MOST_TEXT


@contextmanager
def bounded_build(tensors: int) -> Iterator[None]:
    """
    Build on the meta device, in as many calls of torch as a network of so many tensors takes.

    :raises InvalidSettingError: when it takes more: it would never fit its weights.
    """
    with torch.device('meta'), _Calls(_CALLS_A_TENSOR * tensors + _MORE_CALLS):
        yield


class _Calls(TorchFunctionMode):
    def __init__(self, most: int) -> None:
        super().__init__()
        self.left = self.most = most

    def __torch_function__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        self.left -= 1
        if self.left < 0:
            raise InvalidSettingError(
                'architecture', f'one of more than {self.most} steps to build',
                'one of as many layers as the weights have')
        return func(*args, **(kwargs or {}))


@torch.no_grad()
def check_tensors(network: Karmma) -> None:
    """
    Refuse a network, on the meta device, whose tensors for one clip are enormous.

    :raises InvalidSettingError: with the size of the first.
    """
    with _Sizes():
        tokens = {m: network.encode(m, torch.empty(1, *shape, device='meta'))
                  for m, shape in network.input_shapes.items()}
        network.fuse(tokens)


class _Sizes(TorchDispatchMode):
    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: Any = None
    ) -> Any:
        result = func(*args, **(kwargs or {}))
        for x in tree_leaves(result):
            if isinstance(x, Tensor) and x.numel() > LARGEST:
                raise InvalidSettingError(
                    'architecture', f'one with a tensor {list(x.shape)} for one clip',
                    f'one whose tensors have at most {LARGEST} elements')
        return result
