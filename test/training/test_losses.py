"""Losses compared with hand-computed values."""

import math

from karmma_ros.training.losses import classification_loss, distillation_loss
import pytest
import torch

HALF = {'verb': torch.zeros(1, 2)}


def test_cross_entropy_sums_the_heads():
    logits = {'verb': torch.zeros(4, 2), 'noun': torch.zeros(4, 8)}
    labels = {'verb': torch.zeros(4, dtype=torch.long), 'noun': torch.zeros(4, dtype=torch.long)}
    assert classification_loss(logits, labels).item() == pytest.approx(math.log(2) + math.log(8))


def test_distillation_by_hand():
    # The teacher gives 0.8 and 0.2, the student 0.5 each: 0.8 ln 1.6 + 0.2 ln 0.4.
    teacher = {'verb': torch.tensor([[0.8, 0.2]]).log()}
    wanted = 0.8 * math.log(1.6) + 0.2 * math.log(0.4)
    assert distillation_loss(HALF, teacher).item() == pytest.approx(wanted)


def test_distillation_is_the_mean_over_the_batch_and_the_sum_over_heads():
    teacher = torch.tensor([[0.8, 0.2]]).log()
    one = distillation_loss(HALF, {'verb': teacher}).item()
    many = distillation_loss(
        {'verb': torch.zeros(3, 2), 'noun': torch.zeros(3, 2)},
        {'verb': teacher.expand(3, 2), 'noun': teacher.expand(3, 2)})
    assert many.item() == pytest.approx(2 * one)


def test_a_student_that_agrees_with_the_teacher_has_no_loss():
    logits = torch.randn(5, 7, generator=torch.Generator().manual_seed(0))
    assert distillation_loss({'verb': logits}, {'verb': logits + 3}).item() == pytest.approx(
        0, abs=1e-6)
