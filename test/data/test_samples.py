"""Samples that lack different modalities stand side by side."""

from karmma_ros.clip import Clip
from karmma_ros.data.samples import collate, Sample
from karmma_ros.modality import Modality
import numpy as np
import torch

V, F, A = Modality.RGB, Modality.FLOW, Modality.AUDIO


def sample(label, **inputs):
    arrays = {Modality.parse(name): np.full(2, value, np.float32)
              for name, value in inputs.items()}
    return Sample(Clip(arrays), {'verb': label})


def test_absent_modalities_are_marked_and_zero():
    batch = collate([sample(0, rgb=1, audio=2), sample(1, audio=3)], (V, F, A))
    assert batch.present.tolist() == [[True, False, True], [False, False, True]]
    assert batch.inputs[V].tolist() == [[1, 1], [0, 0]]
    assert F not in batch.inputs
    assert batch.labels['verb'].tolist() == [0, 1]
    assert len(batch) == 2


def test_a_modality_that_is_not_asked_for_is_left_out():
    assert set(collate([sample(0, rgb=1, audio=2)], (A,)).inputs) == {A}


def test_a_batch_moves_with_all_its_tensors():
    moved = collate([sample(0, rgb=1)], (V,)).to('meta')
    assert moved.inputs[V].device == moved.present.device == torch.device('meta')
    assert moved.labels['verb'].device == torch.device('meta')
