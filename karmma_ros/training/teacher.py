"""The frozen teacher of a student's training."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Batch
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality, subset_name
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.karmma import Karmma
from karmma_ros.prediction import Vocabulary
import torch
from torch import Tensor


class Teacher(Protocol):
    """Return the logits of a trained network for a batch."""

    modalities: tuple[Modality, ...]
    """The modalities that the teacher takes."""

    reads: tuple[Modality, ...]
    """The modalities whose inputs it reads from the batch; none if its logits are cached."""

    def __call__(self, batch: Batch, present: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """
        Return the logits of each head, `[b, classes]`.

        :param present: modality → bool `[b]`; one that is not named is used where the clip has it.
        """
        ...


class FrozenTeacher:
    """
    A trained network that is only evaluated (paper, Sec. III-D).

    Not a module, so that no optimiser, checkpoint or switch to training mode reaches it.
    """

    def __init__(self, network: Karmma) -> None:
        self._network = network.eval().requires_grad_(False)
        self.modalities = self.reads = network.modalities

    @torch.no_grad()
    def __call__(self, batch: Batch, present: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Return the logits of each head; the batch has the inputs of all its modalities."""
        columns = torch.stack([present[m] for m in self.modalities], dim=1)
        logits: dict[str, Tensor] = self._network.to(columns.device)(batch.inputs, columns)
        return logits


def check_teacher(
    teacher: Bundle, student: Karmma, spec: ClipSpec, vocabulary: Vocabulary
) -> None:
    """
    Check that a student of these clips and classes can be distilled from a teacher.

    :raises InvalidSettingError: when its modalities, classes or clips differ.
    """
    theirs, ours = teacher.network.modalities, student.modalities
    if not set(ours) <= set(theirs):
        raise InvalidSettingError(
            'teacher', f'one that takes {subset_name(theirs)}',
            f'one that takes {subset_name(ours)} or more, as the student does')
    if teacher.vocabulary != vocabulary:
        raise InvalidSettingError(
            'teacher', f'one of {teacher.vocabulary.sizes} classes',
            f'one of the very classes of the student, {vocabulary.sizes}')
    if teacher.spec != spec:
        raise InvalidSettingError(
            'teacher', f'one of clips of {teacher.spec}',
            "one of the student's clips", 'train it with the same clip specification')
