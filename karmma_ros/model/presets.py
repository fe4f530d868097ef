"""
Architectures by name.

The systems of the paper are here as Epic-Kitchens-100 has them, and the teacher and the
student for Something-Something V2 besides.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.prediction import NOUN, VERB

KINETICS = 'KINETICS400_V1'
"""What torchvision calls its weights of Kinetics-400."""


FRAMES = (Modality.RGB, Modality.FLOW)
"""What comes as pictures, one for each moment."""


@dataclass(frozen=True)
class Task:
    """What a network is for: the clips it takes and the classes of its heads."""

    clip: ClipSpec
    classes: Mapping[str, int]
    """Head → number of classes."""


EPIC_KITCHENS = Task(ClipSpec(), {VERB: 97, NOUN: 300})
EPIC_KITCHENS_55 = Task(ClipSpec(), {VERB: 125, NOUN: 352})
"""The older release, whose heads the published size of Radevski et al.'s teacher has."""
SOMETHING_SOMETHING = Task(ClipSpec(), {'action': 174})


@dataclass(frozen=True)
class Preset:
    """An architecture and, where it is the paper's, the task that its figures are for."""

    architecture: Callable[[], ModelConfig]
    task: Task | None = None


def tiny() -> ModelConfig:
    """
    Return a student of V, F, A and D that runs live on one core.

    The fusion block and its strategies are the paper's; the encoders are small stand-ins
    that learn from little data (see each one's docstring).
    """
    return _small(
        'tiny', video=(16, 32, 64, 128), audio=(16, 32, 64, 96), layout=(48, 48, 48), dim=128)


def tiny_teacher() -> ModelConfig:
    """Return the teacher of `tiny`: wider encoders, frozen, and two fusion layers."""
    return replace(
        _small('tiny_teacher', video=(24, 48, 96, 192), audio=(32, 64, 96, 128),
               layout=(96, 96, 96), dim=192),
        layers=2,
        attention_dropout=0.3,
        missing='omit',
        freeze_encoders=True,
    )


def _small(
    name: str, video: Sequence[int], audio: Sequence[int], layout: Sequence[int], dim: int
) -> ModelConfig:
    return ModelConfig(
        preset=name,
        encoders={
            Modality.RGB: EncoderConfig('r2plus1d', {'widths': video}),
            Modality.FLOW: EncoderConfig('r2plus1d', {'widths': video}),
            Modality.AUDIO: EncoderConfig('mel_cnn', {'widths': audio}),
            Modality.DETECTIONS: EncoderConfig('layout_cnn', {'widths': layout}),
        },
        dim=dim,
        layers=1,
        heads=8,
        feedforward=dim,
        token_cap=16,
        missing='tokens',
    )


def tiny_stream(chunk: int = 4) -> ModelConfig:
    """
    Return `tiny` for live use: frames come in chunks, and only the newest is encoded.

    The kitchen's clips have 16 frames, so that a chunk is the same share of a clip here as
    the 8 of 32 frames of `karmma_student_stream` are.
    """
    return replace(_in_chunks(tiny(), chunk), preset='tiny_stream')


def tiny_stream_8() -> ModelConfig:
    """Return `tiny_stream` in chunks of 8 frames, half a clip."""
    return replace(tiny_stream(8), preset='tiny_stream_8')


def tiny_causal() -> ModelConfig:
    """Return `tiny` with encoders that see each frame once and remember."""
    frames = EncoderConfig('causal_frames', {
        'backbone': 'resnet10t', 'channels': (16, 32, 64, 128), 'stem_width': 8, 'grid': 1})
    return replace(_watching(tiny(), frames), preset='tiny_causal', reduction='even')


def karmma_teacher() -> ModelConfig:
    """Return KARMMA_T (Sec. IV): frozen Swin-B for V, F and A, 2 fusion layers of 768."""
    return ModelConfig(
        preset='karmma_teacher',
        encoders={
            Modality.RGB: EncoderConfig('torchvision:swin3d_b', weights=KINETICS),
            Modality.FLOW: EncoderConfig('torchvision:swin3d_b', weights=KINETICS),
            # The spectrogram tiles become grey video frames of the size it was trained on.
            Modality.AUDIO: EncoderConfig(
                'torchvision:swin3d_b', {'size': (224, 224)}, weights=KINETICS),
        },
        dim=768,
        layers=2,
        heads=8,
        feedforward=768,
        attention_dropout=0.3,
        token_cap=300,
        missing='omit',
        freeze_encoders=True,
    )


def karmma_teacher_something_something() -> ModelConfig:
    """Return KARMMA_T of V, F and D: a 12-layer STLT reads the boxes."""
    teacher = karmma_teacher()
    return replace(
        teacher,
        preset='karmma_teacher_something_something',
        encoders={
            **_without(teacher, Modality.AUDIO),
            Modality.DETECTIONS: EncoderConfig(
                'stlt', {'spatial_layers': 4, 'temporal_layers': 8}),
        },
    )


def karmma_student() -> ModelConfig:
    """Return KARMMA_S (Sec. IV): Swin-T for V and F, AST-T for A, 1 fusion layer of 384."""
    return ModelConfig(
        preset='karmma_student',
        encoders={
            Modality.RGB: EncoderConfig('torchvision:swin3d_t', weights=KINETICS),
            Modality.FLOW: EncoderConfig('torchvision:swin3d_t', weights=KINETICS),
            Modality.AUDIO: EncoderConfig('ast'),
        },
        dim=384,
        layers=1,
        heads=8,
        feedforward=384,
        token_cap=300,
        missing='tokens',
    )


def karmma_student_something_something() -> ModelConfig:
    """Return KARMMA_S of V, F and D: a 9-layer STLT reads the boxes."""
    student = karmma_student()
    return replace(
        student,
        preset='karmma_student_something_something',
        encoders={
            **_without(student, Modality.AUDIO),
            Modality.DETECTIONS: EncoderConfig(
                'stlt', {'spatial_layers': 3, 'temporal_layers': 6}),
        },
    )


def karmma_student_stream(chunk: int = 8) -> ModelConfig:
    """
    Return the student for live use: 8 frames are encoded at a time, not all 32.

    Not the paper's. Groups of tokens are even: τ-Average would make one token of the newest
    quarter of each chunk.
    """
    return replace(_in_chunks(karmma_student(), chunk), preset='karmma_student_stream')


def karmma_student_stream_16() -> ModelConfig:
    """Return `karmma_student_stream` in chunks of 16 frames."""
    return replace(karmma_student_stream(16), preset='karmma_student_stream_16')


def karmma_student_causal() -> ModelConfig:
    """Return the student with encoders that see each frame once and remember; not the paper's."""
    frames = EncoderConfig(
        'causal_frames', {'backbone': 'mobilenetv3_large_100', 'grid': 3},
        weights='mobilenetv3_large_100.ra_in1k')
    return replace(
        _watching(karmma_student(), frames), preset='karmma_student_causal', reduction='even')


def karmma_student_v() -> ModelConfig:
    """Return the unimodal student of Table II; with one sensor there is nothing to fill in."""
    return replace(
        only(karmma_student(), [Modality.RGB]), preset='karmma_student_v', missing='omit')


def baseline() -> ModelConfig:
    """Return the Baseline: the student without learned tokens, absent modalities left out."""
    return replace(karmma_student(), preset='baseline', missing='omit')


def baseline_delta() -> ModelConfig:
    """Return the Baseline w/ δ: the student itself, trained without distillation."""
    return replace(karmma_student(), preset='baseline_delta')


def radevski() -> ModelConfig:
    """Return the teacher of Radevski et al. (Table II): an ensemble of three Swin-T."""
    swin = karmma_student().encoders[Modality.RGB]
    hearing = replace(swin, options={'size': (224, 224)})
    # The mean of all tokens goes to the classifier, as in Swin's own.
    return replace(ensemble(replace(karmma_student(), encoders={
        Modality.RGB: swin, Modality.FLOW: swin, Modality.AUDIO: hearing})), preset='radevski')


def radevski_student() -> ModelConfig:
    """Return the student of Radevski et al. (Table II): one Swin-T that sees RGB alone."""
    return replace(only(radevski(), [Modality.RGB]), preset='radevski_student')


def only(config: ModelConfig, modalities: Iterable[str]) -> ModelConfig:
    """
    Return an architecture with the encoders of some modalities alone; of none named, with all.

    :raises InvalidSettingError: when it has no encoder of one of them.
    """
    wanted = in_order(Modality.parse(m) for m in modalities) or config.modalities
    for modality in wanted:
        if modality not in config.encoders:
            raise InvalidSettingError('modality', modality.value, ', '.join(config.modalities))
    return replace(
        config, encoders={m: config.encoders[m] for m in wanted},
        votes={m: vote for m, vote in config.votes.items() if m in wanted})


def unimodal(config: ModelConfig, modality: Modality) -> ModelConfig:
    """
    Return one encoder of an architecture with a linear classifier on its mean token.

    What an encoder is pretrained as, and a member of Radevski et al.'s ensemble.

    :raises InvalidSettingError: when the architecture has no encoder of that modality.
    """
    return replace(
        ensemble(only(config, [modality])), preset=f'{config.preset}_{modality}')


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


PRESETS: dict[str, Preset] = {
    'tiny': Preset(tiny),
    'tiny_teacher': Preset(tiny_teacher),
    'tiny_stream': Preset(tiny_stream),
    'tiny_stream_8': Preset(tiny_stream_8),
    'tiny_causal': Preset(tiny_causal),
    'karmma_teacher': Preset(karmma_teacher, EPIC_KITCHENS),
    'karmma_student': Preset(karmma_student, EPIC_KITCHENS),
    'karmma_student_stream': Preset(karmma_student_stream, EPIC_KITCHENS),
    'karmma_student_stream_16': Preset(karmma_student_stream_16, EPIC_KITCHENS),
    'karmma_student_causal': Preset(karmma_student_causal, EPIC_KITCHENS),
    'karmma_student_v': Preset(karmma_student_v, EPIC_KITCHENS),
    'baseline': Preset(baseline, EPIC_KITCHENS),
    'baseline_delta': Preset(baseline_delta, EPIC_KITCHENS),
    'radevski': Preset(radevski, EPIC_KITCHENS_55),
    'radevski_student': Preset(radevski_student, EPIC_KITCHENS),
    'karmma_teacher_something_something': Preset(
        karmma_teacher_something_something, SOMETHING_SOMETHING),
    'karmma_student_something_something': Preset(
        karmma_student_something_something, SOMETHING_SOMETHING),
}


def preset(name: str) -> ModelConfig:
    """
    Return the architecture called `name`.

    :raises InvalidSettingError: when there is none of that name.
    """
    return _find(name).architecture()


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


def _in_chunks(config: ModelConfig, chunk: int) -> ModelConfig:
    """Let RGB and flow be encoded in chunks of so many frames, reduced to even groups."""
    return replace(config, reduction='even', encoders={
        m: replace(encoder, chunk=chunk) if m in FRAMES else encoder
        for m, encoder in config.encoders.items()})


def _watching(config: ModelConfig, encoder: EncoderConfig) -> ModelConfig:
    """Let one kind of encoder see RGB and flow."""
    return replace(
        config, encoders={**config.encoders, **dict.fromkeys(FRAMES, encoder)})


def _without(config: ModelConfig, modality: Modality) -> dict[Modality, EncoderConfig]:
    return {m: encoder for m, encoder in config.encoders.items() if m is not modality}
