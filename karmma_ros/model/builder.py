"""From an architecture as data to a network; configurations stop here."""

from __future__ import annotations

from karmma_ros.clip import ClipSpec
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.encoders import build_encoder, token_shape
from karmma_ros.model.fusion import FusionBlock
from karmma_ros.model.heads import MultiHeadMLP
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.tokens import TokenEmbedding
from karmma_ros.prediction import Vocabulary


def build(config: ModelConfig, spec: ClipSpec, vocabulary: Vocabulary) -> Karmma:
    """
    Build a network with random weights.

    :raises InvalidSettingError: when an encoder does not exist or refuses its options.
    """
    cap = config.token_cap if config.reduction == 'tau_average' else None
    learned = config.missing == 'tokens'
    encoders, embeddings = {}, {}
    for modality in config.modalities:
        encoder = build_encoder(config.encoders[modality], spec, modality)
        tokens, width = token_shape(encoder, spec.input_shape(modality))
        if cap is not None:
            tokens = min(tokens, cap)
        encoders[modality] = encoder
        embeddings[modality] = TokenEmbedding(width, config.dim, tokens if learned else 0)
    return Karmma(
        encoders,
        embeddings,
        FusionBlock(
            config.dim, config.layers, config.heads, config.feedforward,
            config.attention_dropout),
        MultiHeadMLP(config.dim, vocabulary.sizes),
        cap,
        learned,
    )
