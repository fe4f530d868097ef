"""Which image a result is drawn on: by message_filters, and by its replacement."""

from __future__ import annotations

import importlib.util
import sys
from threading import Lock
from types import ModuleType, SimpleNamespace

from karmma_ros.node.messages import time_message, time_ns
from karmma_ros.overlay.camera import NearestPairing, start_pairing
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


def message_filters():
    """Return a module with what the pairing uses of message_filters."""
    filters = ModuleType('message_filters')
    filters.SimpleFilter = SimpleFilter
    filters.ApproximateTimeSynchronizer = ApproximateTimeSynchronizer
    return filters


MODULES = {'absent': None, 'simulated': message_filters()}
if importlib.util.find_spec('message_filters'):
    MODULES['installed'] = importlib.import_module('message_filters')


@pytest.fixture(params=MODULES)
def make(request, monkeypatch):
    monkeypatch.setitem(sys.modules, 'message_filters', MODULES[request.param])
    return lambda on_pair, queue_size=10, slop_s=0.2: start_pairing(on_pair, queue_size, slop_s)


def pairs_of(make, *steps, **options):
    """Add `('i', ms)` images and `('r', ms)` results; return the pairs in ms."""
    pairs = []
    add_image, add_result = make(
        lambda image, result: pairs.append((image.ms, result.ms)), **options)
    for topic, ms in steps:
        add = add_image if topic == 'i' else add_result
        add(stamped(ms * 1e6 + SECOND, ms=ms))
    return pairs


def test_a_result_gets_the_nearest_image(make):
    images = [('i', ms) for ms in (0, 33, 67, 100)]
    assert pairs_of(make, *images, ('r', 70)) == [(67, 70)]
    assert pairs_of(make, *images, ('r', 70), ('r', 71)) == [(67, 70), (100, 71)]


def test_beyond_the_slop_nothing_is_paired(make):
    assert pairs_of(make, ('i', 0), ('r', 199)) == [(0, 199)]
    assert pairs_of(make, ('i', 0), ('r', 200)) == []
    assert pairs_of(make, ('i', 0), ('r', 50), slop_s=0.02) == []


def test_a_result_waits_for_an_image_that_comes_late(make):
    assert pairs_of(make, ('r', 50), ('i', 40)) == [(40, 50)]


def test_only_so_many_images_are_kept(make):
    images = [('i', ms) for ms in range(0, 1000, 100)]
    assert pairs_of(make, *images, ('r', 100), queue_size=3, slop_s=0.15) == []
    assert pairs_of(make, *images, ('r', 700), queue_size=3) == [(700, 700)]


def test_message_filters_is_used_where_it_is_installed(monkeypatch):
    monkeypatch.setitem(sys.modules, 'message_filters', None)
    assert isinstance(start_pairing(print, 5, 0.1)[0].__self__, NearestPairing)
    monkeypatch.setitem(sys.modules, 'message_filters', message_filters())
    assert isinstance(start_pairing(print, 5, 0.1)[0].__self__, SimpleFilter)
