"""The learning rate rises, falls, and ends where it began."""

from karmma_ros.training.module import warmup_cosine
import pytest


def test_by_hand():
    factors = [warmup_cosine(step, 101, 20, floor=0.1) for step in range(101)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[10] == pytest.approx(0.55)
    assert factors[20] == pytest.approx(1.0)
    assert factors[60] == pytest.approx(0.55)
    assert factors[100] == pytest.approx(0.1)
    assert factors[:21] == sorted(factors[:21])
    assert factors[20:] == sorted(factors[20:], reverse=True)


@pytest.mark.parametrize('warmup', [0, 1, 5])
def test_short_runs_stay_in_range(warmup):
    assert all(0 < warmup_cosine(step, 5, warmup) <= 1 for step in range(7))
