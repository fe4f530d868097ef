"""
Whether weights fit the encoder that starts from them, and the clips that it will see.

Shapes alone show too little: an encoder may stay at random in part, and one of other clips may
have the same shapes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import first_line, InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import CONFIG, FORMAT, WEIGHTS
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.causal import CausalFrames
from karmma_ros.model.untrusted_files import read_json
from torch import nn

ENOUGH = 0.9
"""Fraction of an encoder's tensors that its weights must have, if it is trained."""


@dataclass(frozen=True)
class LoadReport:
    """What was done with every weight of one encoder and every tensor of the file."""

    source: str
    """The file; empty when the encoder starts from scratch."""
    loaded: tuple[str, ...] = ()
    """Weights taken as they were."""
    adapted: Mapping[str, str] = field(default_factory=dict)
    """Weights taken after a change, and which."""
    random: Mapping[str, str] = field(default_factory=dict)
    """Weights left at random, and why."""
    unused: tuple[str, ...] = ()
    """Tensors of the file that the encoder has no parameter for."""

    def __str__(self) -> str:
        lines = [f'{self.source or "from scratch"}: {len(self.loaded)} loaded, '
                 f'{len(self.adapted)} adapted, {len(self.random)} left at random, '
                 f'{len(self.unused)} unused']
        if self.source:
            lines += [f'  adapted {name}: {how}' for name, how in self.adapted.items()]
            lines += [f'  at random {name}: {why}' for name, why in self.random.items()]
            lines += [f'  unused {name}' for name in self.unused]
        return '\n'.join(lines)


def is_frozen(encoder: nn.Module) -> bool:
    """Whether no parameter of an encoder is trained."""
    return not any(parameter.requires_grad for parameter in encoder.parameters())


def check_fit(
    report: LoadReport, encoder: nn.Module, config: EncoderConfig, modality: Modality,
    frozen: bool,
) -> None:
    """
    Refuse weights that leave a frozen encoder, or much of another, at random.

    :raises InvalidSettingError: with how many tensors, and the first of them.
    """
    names = list(encoder.state_dict())
    if not frozen and isinstance(encoder, CausalFrames):
        names = [name for name in names if not name.startswith(_MIXERS)]
    random = [f'{name} ({report.random[name]})' for name in names if name in report.random]
    if not random or (not frozen and len(names) - len(random) >= ENOUGH * len(names)):
        return
    rule = ('no tensor of the frozen encoder' if frozen
            else f'at most {1 - ENOUGH:.0%} of the tensors')
    raise InvalidSettingError(
        f'weights.{modality}', report.source,
        f'weights of {config.name} that leave {rule} at random',
        f'{len(random)} of {len(names)} tensors would be: {", ".join(random[:3])}'
        f'{" …" if len(random) > 3 else ""}; give weights of this encoder, or set '
        'allow_mismatched_weights to true')


_MIXERS = 'mixers.'
"""Names of what no image model has; mixers start as identities and are trained."""


def check_clip(path: Path, spec: ClipSpec, modality: Modality) -> None:
    """Refuse the weights of a model directory that was trained on other clips."""
    theirs = _clip_of(path)
    if theirs is None:
        return
    stored, wanted = (modality_type(modality).clip_fields(each) for each in (theirs, spec))
    other = [f'clip.{name} is {stored[name]} there and {wanted[name]} here'
             for name in wanted if stored[name] != wanted[name]]
    if other:
        raise InvalidSettingError(
            f'weights.{modality}', str(path), 'weights of the same clip specification',
            f'{"; ".join(other)}: pretrain it on these clips, or set allow_mismatched_weights to '
            'true')


def _clip_of(path: Path) -> ClipSpec | None:
    """Return the clip specification of a model directory; None for a file that is not in one."""
    description_path = path.parent / CONFIG
    if path.name != WEIGHTS or not description_path.exists():
        return None
    try:
        description = read_json(description_path)
        if not isinstance(description, dict) or description.get('format') != FORMAT:
            return None
        return ClipSpec.from_dict(description['clip'])
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise InvalidSettingError(
            'weights', str(description_path), 'the configuration of a model of karmma_ros',
            first_line(error)) from error
