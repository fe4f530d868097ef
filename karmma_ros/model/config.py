"""The architecture of a network as plain data, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality

REDUCTIONS = ('tau_average', 'none')
MISSING = ('tokens', 'omit')


@dataclass(frozen=True)
class EncoderConfig:
    """The feature extractor (FE) of one modality."""

    name: str
    """A key of `karmma_ros.model.encoders.ENCODERS`."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the encoder's class."""


@dataclass(frozen=True)
class ModelConfig:
    """Sizes and strategies of a KARMMA network (paper, Sec. III)."""

    preset: str
    """Name of the preset this came from."""
    encoders: Mapping[Modality, EncoderConfig]
    """One feature extractor for each modality the network takes."""
    dim: int = 384
    """Width of the fusion block (d)."""
    layers: int = 1
    """Transformer layers of the fusion block."""
    heads: int = 8
    """Attention heads."""
    feedforward: int = 384
    """Width of the feed-forward part of a fusion layer."""
    attention_dropout: float = 0.0
    """Dropout on the attention weights of the fusion block."""
    reduction: str = 'tau_average'
    """Token reduction before fusion: `tau_average` (Sec. III-C) or `none`."""
    token_cap: int = 300
    """At most this many tokens of a modality enter the fusion block (tau)."""
    missing: str = 'tokens'
    """Absent modalities: `tokens` fills in learned ones (Sec. III-D), `omit` leaves them out."""

    def __post_init__(self) -> None:
        for name in ('dim', 'layers', 'heads', 'feedforward', 'token_cap'):
            value = getattr(self, name)
            if value < 1:
                raise InvalidSettingError(f'architecture.{name}', value, 'an integer above 0')
        _one_of('reduction', self.reduction, REDUCTIONS)
        _one_of('missing', self.missing, MISSING)
        if self.dim % self.heads:
            raise InvalidSettingError(
                'architecture.dim', self.dim, f'a multiple of heads = {self.heads}')
        if not self.encoders:
            raise InvalidSettingError(
                'architecture.encoders', {}, 'an encoder for at least one modality')

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Give the modalities the network takes, in canonical order."""
        return in_order(self.encoders)

    def to_dict(self) -> dict[str, Any]:
        """Give a JSON-ready mapping; `from_dict` reads it back."""
        mapping = asdict(self)
        mapping['encoders'] = {m.value: asdict(self.encoders[m]) for m in self.modalities}
        return mapping

    @classmethod
    def from_dict(cls, mapping: Mapping[str, Any]) -> ModelConfig:
        """
        Build from a mapping as `to_dict` gives it.

        :raises InvalidSettingError: for an unknown field or a value out of range.
        """
        known = {f.name for f in fields(cls)}
        for key in mapping:
            if key not in known:
                raise InvalidSettingError(
                    'architecture field', key, ', '.join(sorted(known)),
                    'it may come from a newer karmma_ros')
        values = dict(mapping)
        values['encoders'] = {
            Modality.parse(name): EncoderConfig(**encoder)
            for name, encoder in mapping['encoders'].items()
        }
        return cls(**values)


def _one_of(name: str, got: str, allowed: tuple[str, ...]) -> None:
    if got not in allowed:
        raise InvalidSettingError(f'architecture.{name}', got, ' or '.join(allowed))
