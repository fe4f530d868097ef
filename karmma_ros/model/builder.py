"""From an architecture as data to a network; configurations stop here."""

from __future__ import annotations

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.encoders import build_encoder, parts_of, token_shape
from karmma_ros.model.ensemble import LogitMean, SplitHeads
from karmma_ros.model.fusion import FusionBlock
from karmma_ros.model.heads import MultiHeadMLP
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.tokens import REDUCE, TokenEmbedding
from karmma_ros.prediction import Vocabulary
from torch import nn


def build(config: ModelConfig, spec: ClipSpec, vocabulary: Vocabulary) -> Karmma:
    """
    Build a network with random weights.

    Under `torch.device('meta')` it has shapes only and takes no memory.

    :raises InvalidSettingError: when an encoder does not exist or refuses its options, or the
        cap on the tokens leaves it none.
    """
    reduce = REDUCE.get(config.reduction)
    width = sum(vocabulary.sizes.values()) if config.fusion == 'logit_mean' else config.dim
    encoders, embeddings = {}, {}
    for modality in config.modalities:
        encoder = build_encoder(config.encoders[modality], spec, modality)
        tokens, encoder_width = token_shape(encoder, spec.input_shape(modality))
        # An ensemble's classifiers see the mean of all tokens: there no order is left to tell.
        parts = 1 if config.fusion == 'logit_mean' else parts_of(encoder)
        if reduce is not None:
            tokens = parts * min(tokens // parts, _share(config.token_cap, parts, modality))
        learned = tokens if config.missing == 'tokens' else 0
        encoders[modality] = encoder
        embeddings[modality] = TokenEmbedding(encoder_width, width, learned, parts)
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


def _share(cap: int, parts: int, modality: Modality) -> int:
    if cap < parts:
        raise InvalidSettingError(
            'architecture.token_cap', cap, f'{parts} or more',
            f'the encoder of {modality} keeps so many stretches of time apart')
    return cap // parts


def _fusion_and_heads(
    config: ModelConfig, vocabulary: Vocabulary
) -> tuple[nn.Module, nn.Module]:
    if config.fusion == 'logit_mean':
        votes = {m: config.votes.get(m, 1.0) for m in config.modalities}
        return LogitMean(votes), SplitHeads(vocabulary.sizes)
    fusion = FusionBlock(
        config.dim, config.layers, config.heads, config.feedforward, config.attention_dropout)
    return fusion, MultiHeadMLP(config.dim, vocabulary.sizes)
