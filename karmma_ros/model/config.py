"""The architecture of a network as plain data, and its JSON form."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality

REDUCTIONS = ('even', 'tau_average', 'none')
MISSING = ('tokens', 'omit')
FUSIONS = ('transformer', 'queries', 'logit_mean')
POOLINGS = ('mean', 'concatenated')
MOST_LAYERS = 1000
"""Even layers without memory take time to build: a model from elsewhere shall not stop a robot."""


@dataclass(frozen=True)
class EncoderConfig:
    """The feature extractor (FE) of one modality."""

    name: str
    """
    Class of the encoder: `torchvision:NAME`, `timm:NAME`, `package.module:Class`, or one of ours
    (`ENCODERS`).
    """
    options: Mapping[str, Any] = field(default_factory=dict)
    """Keyword arguments of the encoder's class."""
    weights: str = ''
    """
    What `load_pretrained` starts it from: the name that torchvision or timm gives the weights
    (`KINETICS400_V1`), or a file's path. Empty: from scratch.
    """
    chunk: int = 0
    """
    Frames of RGB or flow that are encoded together, knowing nothing of the others, so that a
    live window encodes its newest chunk only; it divides the clip. 0: all of the clip at once.
    """

    def __post_init__(self) -> None:
        if self.chunk < 0:
            raise InvalidSettingError('encoder.chunk', self.chunk, 'an integer from 0 on')

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; no chunk is not named, as before there were any."""
        mapping = asdict(self)
        if not self.chunk:
            del mapping['chunk']
        return mapping


@dataclass(frozen=True)
class ModelConfig:
    """
    Sizes and strategies of a KARMMA network (paper, Sec. III).

    >>> from dataclasses import replace
    >>> from karmma_ros.model.presets import preset
    >>> config = replace(preset('karmma_student'), token_cap=100)
    >>> config.dim, config.missing
    (384, 'tokens')
    """

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
    """Token reduction before fusion: `tau_average` (Sec. III-C), `even` groups, or `none`."""
    token_cap: int = 300
    """At most this many tokens of a modality enter the fusion block (tau)."""
    missing: str = 'tokens'
    """Absent modalities: `tokens` fills in learned ones (Sec. III-D), `omit` leaves them out."""
    freeze_encoders: bool = False
    """The encoders are not trained, as the teacher's (Sec. III-B)."""
    pooling: str = 'mean'
    """What the heads take of the output tokens: their `mean` (Sec. III-B), or all of them
    `concatenated`, which keeps the modalities apart; ours, for heads of few clips."""
    fusion: str = 'transformer'
    """`transformer`; `queries`, which alone attend to the tokens, for streams; or `logit_mean`: an
    ensemble of one classifier a modality."""
    votes: Mapping[Modality, float] = field(default_factory=dict)
    """`logit_mean`: the weight of a modality's logits; 1 for one that is not named."""
    pairs: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """
    `logit_mean` of encoders that classify pairs of classes, such as verb and noun: head → its
    class in each of the pairs. A head's class has the probability of its pairs. Empty: the
    encoders classify the classes of each head.
    """

    def __post_init__(self) -> None:
        for name in ('dim', 'layers', 'heads', 'feedforward', 'token_cap'):
            value = getattr(self, name)
            if value < 1:
                raise InvalidSettingError(f'architecture.{name}', value, 'an integer above 0')
        if self.layers > MOST_LAYERS:
            raise InvalidSettingError('architecture.layers', self.layers, f'{MOST_LAYERS} at most')
        _one_of('reduction', self.reduction, REDUCTIONS)
        _one_of('missing', self.missing, MISSING)
        _one_of('fusion', self.fusion, FUSIONS)
        _one_of('pooling', self.pooling, POOLINGS)
        if self.pooling == 'concatenated' and self.missing != 'tokens':
            raise InvalidSettingError(
                'architecture.pooling', self.pooling, 'mean', 'the number of output tokens varies '
                f'where missing is {self.missing}')
        if self.fusion == 'logit_mean' and self.missing != 'omit':
            raise InvalidSettingError(
                'architecture.missing', self.missing, 'omit', 'an ensemble has no learned tokens')
        for modality, vote in self.votes.items():
            if modality not in self.encoders or not vote > 0:
                raise InvalidSettingError(
                    f'architecture.votes.{modality}', vote, 'a number above 0 for one of '
                    + ', '.join(self.encoders))
        self._check_pairs()
        if self.dim % self.heads:
            raise InvalidSettingError(
                'architecture.dim', self.dim, f'a multiple of heads = {self.heads}')
        if not self.encoders:
            raise InvalidSettingError(
                'architecture.encoders', {}, 'an encoder for at least one modality')

    def _check_pairs(self) -> None:
        if not self.pairs:
            return
        if self.fusion != 'logit_mean':
            raise InvalidSettingError(
                'architecture.pairs', list(self.pairs), 'none', f'the fusion is {self.fusion}')
        counts = {len(classes) for classes in self.pairs.values()}
        if len(counts) > 1 or counts == {0} or not all(
                isinstance(each, int) and each >= 0
                for classes in self.pairs.values() for each in classes):
            raise InvalidSettingError(
                'architecture.pairs', {head: len(classes) for head, classes in self.pairs.items()},
                'for each head a class id of every pair')

    @property
    def modalities(self) -> tuple[Modality, ...]:
        """Return the modalities the network takes, in canonical order."""
        return in_order(self.encoders)

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping; `from_dict` reads it back."""
        mapping = asdict(self)
        mapping['encoders'] = {m.value: self.encoders[m].to_dict() for m in self.modalities}
        mapping['votes'] = {m.value: vote for m, vote in self.votes.items()}
        if not self.pairs:  # as before there were any
            del mapping['pairs']
        if self.pooling == 'mean':
            del mapping['pooling']
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
        values['votes'] = {
            Modality.parse(name): vote for name, vote in mapping.get('votes', {}).items()
        }
        values['pairs'] = {head: tuple(each) for head, each in mapping.get('pairs', {}).items()}
        return cls(**values)


def _one_of(name: str, got: str, allowed: tuple[str, ...]) -> None:
    if got not in allowed:
        raise InvalidSettingError(f'architecture.{name}', got, ' or '.join(allowed))
