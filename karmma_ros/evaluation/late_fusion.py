"""
Late fusion: the log-probabilities of several networks are summed.

It is the simplest fusion of networks that were trained apart, and what attention must at least
equal.

Shape legend: b batch, m modalities, n tokens, d width, c classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
import hashlib
from typing import cast

from karmma_ros.calibration import Calibration
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality, subset_name
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.karmma import Karmma
import torch
from torch import nn, Tensor


class LateFusion(nn.Module):
    """Networks of different modalities as one `Network`."""

    def __init__(self, networks: Sequence[Karmma]) -> None:
        super().__init__()
        self.networks = tuple(networks)
        self.parts = nn.ModuleList(networks)  # so that they are moved and switched with this one
        self.modalities = in_order(m for each in networks for m in each.modalities)

    def encode_present(
        self, inputs: Mapping[Modality, Tensor], present: Tensor
    ) -> dict[Modality, Tensor]:
        """Encode as `Karmma.encode_present`, each modality by its own network."""
        tokens: dict[Modality, Tensor] = {}
        for network in self.networks:
            own = present[:, [self.modalities.index(m) for m in network.modalities]]
            rows = own.any(1)  # a network takes no sample without any of its modalities
            if not rows.any():
                continue
            some = network.encode_present(
                {m: x[rows] for m, x in inputs.items() if m in network.modalities}, own[rows])
            for modality, encoded in some.items():
                tokens[modality] = encoded.new_zeros(len(present), *encoded.shape[1:])
                tokens[modality][rows] = encoded
        return tokens

    def fuse(self, tokens: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Sum the log-probabilities of the networks that have tokens: head → `[b, c]`."""
        parts = []
        for network in self.networks:
            own = {m: x for m, x in tokens.items() if m in network.modalities}
            if own:
                parts.append(network.fuse(own))
        return {head: torch.stack([each[head].log_softmax(1) for each in parts]).sum(0)
                for head in parts[0]}


def late_fusion(bundles: Sequence[Bundle]) -> Bundle:
    """
    Return several models as one, to be scored.

    :raises InvalidSettingError: when they share a modality, or differ in classes or clips.
    """
    first, *others = bundles
    first.vocabulary.check_softmax('late fusion')
    modalities = [m for each in bundles for m in each.network.modalities]
    if len(set(modalities)) < len(modalities):
        raise InvalidSettingError(
            'late fusion', ', '.join(subset_name(each.network.modalities) for each in bundles),
            'models without a common modality')
    for other in others:
        for what in ('vocabulary', 'spec'):
            if getattr(other, what) != getattr(first, what):
                raise InvalidSettingError(
                    f'{what} of {other.name}', 'another one',
                    f'that of {first.name}', 'train the models on the same data and clips')
    digest = hashlib.sha256(''.join(each.sha256 for each in bundles).encode()).hexdigest()
    return replace(
        first, network=cast(Karmma, LateFusion([each.network for each in bundles]).eval()),
        sha256=digest, name='+'.join(each.name for each in bundles), calibration=Calibration())
