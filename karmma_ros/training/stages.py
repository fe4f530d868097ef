"""The settings of each stage of training: encoders, teacher, student."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from karmma_ros.data.datasets import DataSettings
from karmma_ros.model.config import EncoderConfig
from karmma_ros.training.run import RunSettings


@dataclass(frozen=True)
class Stage:
    """Settings of every stage of training."""

    preset: str = 'tiny'
    """Architecture by name."""
    base: str = ''
    """Model directory or `hf://ORGANISATION/NAME@REVISION` whose architecture is taken in place of
    the preset, with the weights of its encoders; the rest is trained from scratch."""
    modalities: list[str] = field(default_factory=list)
    """Modalities to use, those with data; empty: all of the preset. One that it lacks, such as
    `imu_thigh`, has the small encoder of its type."""
    encoders: dict[str, EncoderConfig] = field(default_factory=dict)
    """Modality → encoder in place of the preset's, as `{rgb: {name: torchvision:mvit_v2_s}}`."""
    weights: dict[str, str] = field(default_factory=dict)
    """Modality → initial weights of its encoder, in place of the preset's: a model directory,
    `hf://ORGANISATION/NAME@REVISION`, a file, or the name that torchvision or timm gives them."""
    allow_mismatched_weights: bool = False
    """Accept weights that leave part of a frozen encoder, or more than a tenth of another one,
    at random, and weights from clips of another specification."""
    data: DataSettings = field(default_factory=DataSettings)
    run: RunSettings = field(default_factory=RunSettings)


@dataclass(frozen=True)
class Pretraining(Stage):
    """The first stage, for encoders without published weights: each alone, with a classifier."""

    modality: str = 'rgb'
    """Modality whose encoder is trained."""


@dataclass(frozen=True)
class TeacherTraining(Stage):
    """The second stage: a fusion block over frozen encoders (paper, Eq. 2)."""

    preset: str = 'tiny_teacher'
    """Architecture by name."""
    cache_features: bool = True
    """Whether the encoders' tokens of every clip are kept on disk: each epoch takes seconds."""


@dataclass(frozen=True)
class StudentTraining(Stage):
    """The third stage: encoders and fusion block, distilled from the teacher (paper, Eq. 4)."""

    teacher: str = ''
    """Model directory to distil from, or `hf://ORGANISATION/NAME@REVISION`; empty: cross-entropy
    alone."""
    fold_teachers: dict[str, str] = field(default_factory=dict)
    """Fold of the training clips → model directory that was trained without it, which gives the
    logits of its clips (cross-fitting), in place of `teacher`."""
    custom_encoders: bool = False
    """Whether the teacher may name encoder classes of its own, whose code is run."""
    cache_teacher: bool = True
    """Whether the teacher's logits of every clip and subset are kept on disk."""

    @property
    def teachers(self) -> Mapping[str, str]:
        """Return fold → model directory; the one teacher of all clips has the fold ''."""
        return self.fold_teachers or ({'': self.teacher} if self.teacher else {})


STAGES: Mapping[str, tuple[type[Stage], str]] = {
    'pretrain': (Pretraining, 'one encoder, alone'),
    'teacher': (TeacherTraining, 'the fusion block over frozen encoders'),
    'student': (StudentTraining, 'the student, distilled from the teacher'),
}
