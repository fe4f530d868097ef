"""The stats of results by hand-computed examples."""

from math import isnan

from karmma_ros.node.diagnostics import Timings
import pytest


def test_without_results_nothing_is_known():
    stats = Timings().stats(10.0)
    assert stats.rate == 0 and isnan(stats.latency[0]) and isnan(stats.age[1])


def test_rate_latency_and_age_of_the_last_half_minute():
    timings = Timings()
    timings.add(0.0, 9.0, 9.0)  # long ago
    for i in range(11):
        timings.add(100 + i * 0.2, 0.01 * i, 0.1 * i)
    stats = timings.stats(102.0)
    assert stats.rate == pytest.approx(5.0)
    assert stats.latency == pytest.approx((0.05, 0.095))
    assert stats.age == pytest.approx((0.5, 0.95))
    assert timings.results == 12


def test_a_foreign_clock_makes_the_age_unknown_and_nothing_else():
    timings = Timings()
    timings.add(1.0, 0.1, -1.0)
    timings.add(2.0, 0.1, -1.0)
    stats = timings.stats(2.0)
    assert isnan(stats.age[0]) and stats.rate == pytest.approx(1.0)


def test_the_rate_falls_when_results_stop():
    timings = Timings()
    for i in range(10):
        timings.add(i * 0.1, 0.0, 0.0)
    assert timings.stats(0.9).rate == pytest.approx(10.0)
    assert timings.stats(9.0).rate == pytest.approx(1.0)


def test_memory_is_bounded():
    timings = Timings()
    for i in range(10_000):
        timings.add(i * 1e-3, 0.0, 0.0)
    assert len(timings._latest) <= 128 and timings.results == 10_000
