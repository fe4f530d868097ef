"""The model that a fine-tuning starts from, changed for the recordings."""

from __future__ import annotations

from dataclasses import replace

from karmma_ros.cli.finetune.labelled_bags import LabelledBags, present_modalities
from karmma_ros.errors import DataError
from karmma_ros.modality import in_order, subset_name
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import only


def without_missing(base: Bundle, labelled: LabelledBags) -> Bundle:
    """
    Return the base without the modalities that no recording has.

    :raises DataError: when that leaves none.
    """
    recorded = present_modalities(labelled, base.network.modalities)
    used = in_order(m for m, recordings in recorded.items() if recordings)
    if not used:
        raise DataError(
            labelled.path, f'the model takes {subset_name(base.network.modalities)}, and no '
            'recording has any of them', 'name their topics with --topics, or take another --from')
    if used == base.network.modalities:
        return base
    config = only(base.config, used)
    network = build(config, base.spec, base.vocabulary)
    load_below_heads(network, base.network)
    return replace(base, network=network.eval(), config=config)


def load_below_heads(network: Karmma, other: Karmma) -> None:
    """Load the weights of another network, of its heads those of the same shape."""
    own, weights = network.state_dict(), other.state_dict()
    network.load_state_dict({**own, **{
        name: weights[name] for name, x in own.items()
        if name in weights and weights[name].shape == x.shape}})


_MOST_WIDTH = 4096
"""Values that heads may take: the covariance of the nearest class mean has their square."""


def with_concatenated_heads(base: Bundle) -> Bundle:
    """
    Return the base with untrained heads of its classes that take all output tokens.

    Unchanged where the number of tokens varies, or is large.
    """
    width = base.config.dim * (len(base.network.modalities) + 1)
    if base.config.missing != 'tokens' or width > _MOST_WIDTH:
        return base
    config = replace(base.config, pooling='concatenated')
    network = build(config, base.spec, base.vocabulary)
    load_below_heads(network, base.network)
    return replace(base, network=network.eval(), config=config)
