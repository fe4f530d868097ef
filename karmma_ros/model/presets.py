"""
Architectures by name.

The systems of the paper are as for Epic-Kitchens-100; teacher and student exist for
Something-Something V2 as well.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from karmma_ros.clip import AudioSpec, ClipSpec, FlowSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, Modality, PAPER_MODALITIES
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.prediction import NOUN, VERB

KINETICS = 'KINETICS400_V1'
"""What torchvision calls its weights of Kinetics-400."""
RGB, FLOW, AUDIO, DETECTIONS = PAPER_MODALITIES
_TILES = {'size': (224, 224)}
"""Spectrogram tiles become grey video frames of the size that Swin was trained on."""


@dataclass(frozen=True)
class Task:
    """The clips that a network takes and the classes of its heads."""

    clip: ClipSpec
    classes: Mapping[str, int]
    """Head → number of classes."""


EPIC_KITCHENS = Task(ClipSpec(), {VERB: 97, NOUN: 300})
EPIC_KITCHENS_55 = Task(ClipSpec(), {VERB: 125, NOUN: 352})
"""The older release, whose heads the published size of Radevski et al.'s teacher has."""
EPIC_KITCHENS_STREAM = Task(
    ClipSpec(flow=FlowSpec(preset='fast', scale=2), audio=AudioSpec(tiles=1, tile_steps=400)),
    EPIC_KITCHENS.classes)
"""For live use: cheaper flow, and one spectrogram of the window, for tiles would overlap."""
SOMETHING_SOMETHING = Task(ClipSpec(), {'action': 174})


@dataclass(frozen=True)
class Preset:
    """An architecture and, where it is the paper's, the task that its figures are for."""

    config: ModelConfig
    task: Task | None = None


def only(config: ModelConfig, modalities: Iterable[str]) -> ModelConfig:
    """
    Return an architecture with the encoders of some modalities; if none is named, of all it has.

    A modality that it lacks has the encoder of its type, as `rgb_wrist` that of `rgb`, or the one
    that its type has for the preset.

    :raises InvalidSettingError: when there is no encoder of one of them.
    """
    wanted = in_order(Modality.parse(m) for m in modalities) or config.modalities
    return replace(
        config, encoders={m: _encoder(config, m) for m in wanted},
        votes={m: vote for m, vote in config.votes.items() if m in wanted})


def _encoder(config: ModelConfig, modality: Modality) -> EncoderConfig:
    """Return the encoder that an architecture has for a modality, or would have."""
    for each in (modality, Modality(modality.type_name)):
        if each in config.encoders:
            return config.encoders[each]
    encoders = modality_type(modality).encoders
    names = [name for name in encoders if f'{config.preset}_'.startswith(f'{name}_')]
    if not names:
        raise InvalidSettingError(
            'modality', modality.value, f'one that the preset {config.preset} has an encoder for',
            f'set encoders.{modality} to one, or take a preset of {", ".join(encoders) or "none"}')
    name, options = encoders[max(names, key=len)]
    return EncoderConfig(name, options)


def unimodal(config: ModelConfig, modality: Modality) -> ModelConfig:
    """
    Return one encoder of an architecture with a linear classifier on its mean token.

    Encoders are pretrained as this; it is a member of Radevski et al.'s ensemble.

    :raises InvalidSettingError: when the architecture has no encoder of that modality.
    """
    return replace(ensemble(only(config, [modality])), preset=f'{config.preset}_{modality}')


def ensemble(config: ModelConfig) -> ModelConfig:
    """Return an architecture's encoders with a linear classifier each, their logits averaged."""
    return ModelConfig(
        preset=f'{config.preset}_ensemble',
        encoders=config.encoders,
        reduction='tau_average',
        token_cap=1,  # the mean of all tokens
        missing='omit',
        fusion='logit_mean',
    )


def _small(
    name: str, video: Sequence[int], audio: Sequence[int], layout: Sequence[int], dim: int,
    **changes: Any,
) -> ModelConfig:
    """Return a network of small encoders that learn from little data (see their docstrings)."""
    encoders = {
        RGB: EncoderConfig('r2plus1d', {'widths': video}),
        FLOW: EncoderConfig('r2plus1d', {'widths': video}),
        AUDIO: EncoderConfig('mel_cnn', {'widths': audio}),
        DETECTIONS: EncoderConfig('layout_cnn', {'widths': layout}),
    }
    return ModelConfig(name, encoders, dim, feedforward=dim, token_cap=16, **changes)


def _derived(base: ModelConfig, name: str, **changes: Any) -> ModelConfig:
    return replace(base, preset=name, **changes)


def _chunked(base: ModelConfig, name: str, chunk: int) -> ModelConfig:
    """
    Return a variant for live use that encodes RGB and flow in chunks of so many frames.

    Token groups are even: τ-Average would make one token of the newest quarter of each chunk.
    """
    return _derived(base, name, reduction='even', encoders={
        m: replace(encoder, chunk=chunk) if m in (RGB, FLOW) else encoder
        for m, encoder in base.encoders.items()})


def _causal(
    base: ModelConfig, name: str, options: Mapping[Modality, Mapping[str, Any]], weights: str = '',
    encoder: str = 'causal_frames',
) -> ModelConfig:
    """
    Return a variant for live use that encodes each frame, and audio, once, with a state.

    In the fusion queries alone attend to the tokens, so that nothing of old ones is computed anew.
    """
    encoders = {m: EncoderConfig('causal_mel' if m == AUDIO else encoder, own, weights)
                for m, own in options.items()}
    return _derived(base, name, reduction='even', fusion='queries',
                    encoders={**base.encoders, **encoders})


def _with_boxes(base: ModelConfig, name: str, spatial: int, temporal: int) -> ModelConfig:
    """Return a variant of V, F and D for Something-Something: STLT in place of audio."""
    stlt = EncoderConfig('stlt', {'spatial_layers': spatial, 'temporal_layers': temporal})
    return _derived(base, name, encoders={
        RGB: base.encoders[RGB], FLOW: base.encoders[FLOW], DETECTIONS: stlt})


_TINY = _small('tiny', (16, 32, 64, 128), (16, 32, 64, 96), (48, 48, 48), dim=128)
"""The student of V, F, A and D that runs live on one core; its fusion is the paper's."""
_TINY_TEACHER = _small(
    'tiny_teacher', (24, 48, 96, 192), (32, 64, 96, 128), (96, 96, 96), dim=192,
    layers=2, attention_dropout=0.3, missing='omit', freeze_encoders=True)

_SWIN_T = EncoderConfig('torchvision:swin3d_t', weights=KINETICS)
_SWIN_B = EncoderConfig('torchvision:swin3d_b', weights=KINETICS)
_TEACHER = ModelConfig(
    'karmma_teacher', {RGB: _SWIN_B, FLOW: _SWIN_B, AUDIO: replace(_SWIN_B, options=_TILES)},
    dim=768, layers=2, feedforward=768, attention_dropout=0.3, missing='omit',
    freeze_encoders=True)
"""KARMMA_T (Sec. IV): frozen Swin-B for V, F and A, 2 fusion layers of 768."""
_STUDENT = ModelConfig(
    'karmma_student', {RGB: _SWIN_T, FLOW: _SWIN_T, AUDIO: EncoderConfig('ast')})
"""KARMMA_S (Sec. IV): Swin-T for V and F, AST-T for A, 1 fusion layer of 384."""
_RADEVSKI = _derived(
    ensemble(replace(_STUDENT, encoders={
        **_STUDENT.encoders, AUDIO: replace(_SWIN_T, options=_TILES)})), 'radevski')
"""The teacher of Radevski et al. (Table II): three Swin-T, each with Swin's own classifier."""

_RESNET = {'backbone': 'resnet10t', 'channels': (16, 32, 64, 128), 'stem_width': 8, 'grid': 1}
_MOBILENET = {'backbone': 'mobilenetv3_large_100'}
"""Of the students for live use that encode frame by frame."""

_CONFIGS: tuple[tuple[ModelConfig, Task | None], ...] = (
    (_TINY, None),
    (_TINY_TEACHER, None),
    (_derived(_TINY, 'tiny_baseline', missing='omit'), None),  # without learned tokens
    # A kitchen clip has 16 frames: the same fraction of a clip as 8 of the student's 32.
    (_chunked(_TINY, 'tiny_stream', 4), None),
    (_chunked(_TINY, 'tiny_stream_8', 8), None),
    (_causal(_TINY, 'tiny_causal', {
        RGB: _RESNET, FLOW: _RESNET, AUDIO: {**_RESNET, 'channels': (16, 32, 64, 96)}}), None),
    (_causal(_TINY, 'tiny_movinet', dict.fromkeys(
        (RGB, FLOW), {'variant': 'a0', 'grid': 1}), encoder='movinet'), None),
    (_TEACHER, EPIC_KITCHENS),
    (_STUDENT, EPIC_KITCHENS),
    # Not the paper's: the student for live use.
    (_chunked(_STUDENT, 'karmma_student_stream', 8), EPIC_KITCHENS),
    (_chunked(_STUDENT, 'karmma_student_stream_16', 16), EPIC_KITCHENS),
    (_causal(_STUDENT, 'karmma_student_causal', {
        RGB: {**_MOBILENET, 'grid': 2},
        FLOW: {**_MOBILENET, 'grid': (1, 2)},  # what moves left and right
        AUDIO: {**_MOBILENET, 'grid': (2, 1)},  # high and low pitch
    }, 'mobilenetv3_large_100.ra_in1k'), EPIC_KITCHENS_STREAM),
    # Published video encoders in place of Swin-T.
    (_derived(_STUDENT, 'karmma_student_x3d', reduction='even', encoders={
        **_STUDENT.encoders, RGB: EncoderConfig('x3d'), FLOW: EncoderConfig('x3d')}),
     EPIC_KITCHENS),
    (_causal(_STUDENT, 'karmma_student_x3d_continual', dict.fromkeys(
        (RGB, FLOW), {'delayed': False}), encoder='x3d_continual'), EPIC_KITCHENS),
    (_causal(_STUDENT, 'karmma_student_movinet', dict.fromkeys(
        (RGB, FLOW), {'variant': 'a2'}), encoder='movinet'), EPIC_KITCHENS),
    # Table II; with one modality there is nothing to fill in.
    (_derived(only(_STUDENT, [RGB]), 'karmma_student_v', missing='omit'), EPIC_KITCHENS),
    # The student without learned tokens, and the student trained without distillation.
    (_derived(_STUDENT, 'baseline', missing='omit'), EPIC_KITCHENS),
    (_derived(_STUDENT, 'baseline_delta'), EPIC_KITCHENS),
    (_RADEVSKI, EPIC_KITCHENS_55),
    (_derived(only(_RADEVSKI, [RGB]), 'radevski_student'), EPIC_KITCHENS),
    (_with_boxes(_TEACHER, 'karmma_teacher_something_something', 4, 8), SOMETHING_SOMETHING),
    (_with_boxes(_STUDENT, 'karmma_student_something_something', 3, 6), SOMETHING_SOMETHING),
)

PRESETS = {config.preset: Preset(config, task) for config, task in _CONFIGS}


def preset(name: str) -> ModelConfig:
    """
    Return the architecture called `name`.

    :raises InvalidSettingError: when there is none of that name.

    >>> from karmma_ros.model.presets import preset
    >>> [str(modality) for modality in preset('karmma_student').modalities]
    ['rgb', 'flow', 'audio']
    """
    return _find(name).config


def task(name: str) -> Task | None:
    """
    Return the task that the figures of a preset are for; None when it has no task of its own.

    :raises InvalidSettingError: when there is no preset of that name.
    """
    return _find(name).task


def _find(name: str) -> Preset:
    try:
        return PRESETS[name]
    except KeyError:
        raise InvalidSettingError('preset', name, ', '.join(PRESETS)) from None
