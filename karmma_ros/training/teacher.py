"""The teacher, as the student's training sees it: frozen, and never trained by accident."""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality, subset_name
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.karmma import Karmma
from karmma_ros.prediction import Vocabulary
import torch
from torch import Tensor


class FrozenTeacher:
    """
    A trained network that only answers (paper, Sec. III-D).

    Not a module, so that no optimiser, checkpoint or switch to training mode reaches it.
    """

    def __init__(self, bundle: Bundle) -> None:
        self._bundle = bundle
        self._network = bundle.network.eval().requires_grad_(False)

    def check(self, student: Karmma, spec: ClipSpec, vocabulary: Vocabulary) -> None:
        """
        See that a student of these clips and classes can learn from it.

        :raises InvalidSettingError: when its modalities, classes or clips are others.
        """
        ours, theirs = subset_name(self._network.modalities), subset_name(student.modalities)
        if ours != theirs:
            raise InvalidSettingError(
                'teacher', f'one that takes {ours}', f'one that takes {theirs}, as the student',
                'one draw of modality dropout feeds both')
        if self._bundle.vocabulary != vocabulary:
            raise InvalidSettingError(
                'teacher', f'one of {self._bundle.vocabulary.sizes} classes',
                f'one of the very classes of the student, {vocabulary.sizes}')
        if self._bundle.spec != spec:
            raise InvalidSettingError(
                'teacher', f'one of clips of {self._bundle.spec}',
                "one of the student's clips", 'train it with the same clip specification')

    @torch.no_grad()
    def __call__(
        self, inputs: Mapping[Modality, Tensor], present: Tensor
    ) -> dict[str, Tensor]:
        """Give the logits of each head; the arguments are those of `Karmma.forward`."""
        answer: dict[str, Tensor] = self._network.to(present.device)(inputs, present)
        return answer
