"""Which picture a result is drawn on: by message_filters, and by our own where that is not."""

from __future__ import annotations

from importlib import import_module
import importlib.util
import sys
from threading import Lock
from types import ModuleType, SimpleNamespace

from karmma_ros.node.messages import time_message, time_ns
from karmma_ros.overlay.pairing import FilterPairing, NearestPairing, pairing
import pytest

SECOND = 1_000_000_000


def stamped(stamp_ns, **fields):
    return SimpleNamespace(
        header=SimpleNamespace(stamp=time_message(round(stamp_ns))), **fields)


class SimpleFilter:
    """Of message_filters, as much as its sources of Humble to Rolling have in common."""

    def __init__(self):
        self.callbacks = {}

    def registerCallback(self, cb, *args):
        self.callbacks[len(self.callbacks)] = (cb, args)
        return len(self.callbacks) - 1

    def signalMessage(self, *msg):
        for cb, args in self.callbacks.values():
            cb(*(msg + args))


class ApproximateTimeSynchronizer(SimpleFilter):
    """The signature is Lyrical's; up to Kilted the fourth argument is allow_headerless."""

    def __init__(self, fs, queue_size, slop, *, queue_offset=False, allow_headerless=False):
        super().__init__()
        self.queues, self.queue_size, self.slop = [{} for _ in fs], queue_size, slop * SECOND
        self.lock = Lock()
        for i, f in enumerate(fs):
            f.registerCallback(self.add, self.queues[i], i)

    def add(self, msg, my_queue, my_queue_index=None):
        stamp = time_ns(msg.header.stamp)
        assert self.lock.acquire(timeout=1), 'a callback raised, and the lock is held for ever'
        my_queue[stamp] = msg
        while len(my_queue) > self.queue_size:
            del my_queue[min(my_queue)]
        other = self.queues[1 - my_queue_index]
        near = min((s for s in other if abs(s - stamp) < self.slop),
                   key=lambda s: abs(s - stamp), default=None)
        if near is not None and stamp in my_queue:
            pair = [my_queue[stamp], other[near]]
            self.signalMessage(*(pair if my_queue_index == 0 else reversed(pair)))
            del my_queue[stamp], other[near]
        self.lock.release()


def make_nearest(on_pair, queue_size=10, slop_s=0.2):
    return NearestPairing(on_pair, queue_size, slop_s)


def make_filter(on_pair, queue_size=10, slop_s=0.2):
    filters = ModuleType('message_filters')
    filters.SimpleFilter = SimpleFilter
    filters.ApproximateTimeSynchronizer = ApproximateTimeSynchronizer
    return FilterPairing(filters, on_pair, queue_size, slop_s)


def make_installed(on_pair, queue_size=10, slop_s=0.2):
    return FilterPairing(import_module('message_filters'), on_pair, queue_size, slop_s)


MAKERS = [make_nearest, make_filter]
if importlib.util.find_spec('message_filters'):
    MAKERS.append(make_installed)


@pytest.fixture(params=MAKERS, ids=lambda make: make.__name__[5:])
def make(request):
    return request.param


def pairs_of(make, *steps, **options):
    """Add `('p', ms)` pictures and `('r', ms)` results; give the pairs in ms."""
    pairs = []
    made = make(lambda picture, result: pairs.append((picture.ms, result.ms)), **options)
    for kind, ms in steps:
        add = made.add_picture if kind == 'p' else made.add_result
        add(stamped(ms * 1e6 + SECOND, ms=ms))
    return pairs


def test_a_result_gets_the_nearest_picture(make):
    pictures = [('p', ms) for ms in (0, 33, 67, 100)]
    assert pairs_of(make, *pictures, ('r', 70)) == [(67, 70)]
    assert pairs_of(make, *pictures, ('r', 70), ('r', 71)) == [(67, 70), (100, 71)]


def test_beyond_the_slop_there_is_no_pair(make):
    assert pairs_of(make, ('p', 0), ('r', 199)) == [(0, 199)]
    assert pairs_of(make, ('p', 0), ('r', 200)) == []
    assert pairs_of(make, ('p', 0), ('r', 50), slop_s=0.02) == []


def test_a_result_waits_for_a_picture_that_comes_late(make):
    assert pairs_of(make, ('r', 50), ('p', 40)) == [(40, 50)]


def test_only_so_many_pictures_are_kept(make):
    pictures = [('p', ms) for ms in range(0, 1000, 100)]
    assert pairs_of(make, *pictures, ('r', 100), queue_size=3, slop_s=0.15) == []
    assert pairs_of(make, *pictures, ('r', 700), queue_size=3) == [(700, 700)]


def test_message_filters_is_taken_where_it_is(monkeypatch):
    monkeypatch.setitem(sys.modules, 'message_filters', None)
    assert isinstance(pairing(print, 5, 0.1), NearestPairing)
    filters = ModuleType('message_filters')
    filters.SimpleFilter = SimpleFilter
    filters.ApproximateTimeSynchronizer = ApproximateTimeSynchronizer
    monkeypatch.setitem(sys.modules, 'message_filters', filters)
    assert isinstance(pairing(print, 5, 0.1), FilterPairing)
