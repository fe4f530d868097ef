"""Light augmentation of a batch on its tensors, as each type of modality does it."""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, Modality
from karmma_ros.training.modality_dropout import Rand
from torch import Tensor


def augment(
    inputs: Mapping[Modality, Tensor], strength: float, rand: Rand
) -> dict[Modality, Tensor]:
    """
    Vary the inputs of each modality at random (`ModalityType.augment`); none is changed in place.

    Of the paper's modalities, light and colour of the frames vary, and bands and times of the
    spectrogram are masked; flow and boxes stay as they are.

    :param strength: 0 (none) to 1 (full range).
    """
    if not strength > 0:
        return dict(inputs)
    return {modality: modality_type(modality).augment(inputs[modality], strength, rand)
            for modality in in_order(inputs)}
