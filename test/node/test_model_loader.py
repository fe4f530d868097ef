"""Models are loaded beside the one in use; the last request wins."""

import gc
import threading
import time
import weakref

from karmma_ros.node.model_loader import load_model, ModelLoader
import pytest


class Models:
    """Simulated models whose loading waits for a gate."""

    def __init__(self):
        self.gates, self.started = {}, []

    def __call__(self, name, device, backend):
        self.started.append(name)
        gate = self.gates.get(name)
        if gate is not None:
            gate.wait(10)
        if name == 'bad':
            raise ValueError('no such model')
        return f'{name} on {device}'


@pytest.fixture
def models():
    return Models()


def outcome(loader):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        got = loader.poll()
        if got is not None:
            return got
        time.sleep(0.001)
    raise AssertionError('nothing was loaded')


def test_a_model_is_given_once(models):
    loader = ModelLoader(models)
    assert loader.poll() is None and loader.loading == ''
    loader.request('a', 'cpu', 'auto')
    assert loader.loading == 'a'
    assert outcome(loader) == 'a on cpu'
    assert loader.poll() is None and loader.loading == ''


def test_why_it_failed_is_given_too(models):
    loader = ModelLoader(models)
    loader.request('bad', 'cpu', 'auto')
    assert isinstance(outcome(loader), ValueError)
    loader.request('a', 'cpu', 'auto')
    assert outcome(loader) == 'a on cpu'


def test_of_those_asked_for_meanwhile_only_the_last_is_loaded(models):
    models.gates['a'] = threading.Event()
    loader = ModelLoader(models)
    for name in 'abc':
        loader.request(name, 'cpu', 'auto')
    assert loader.loading == 'c'
    models.gates['a'].set()
    assert outcome(loader) == 'c on cpu'
    assert models.started == ['a', 'c']


def test_what_is_cancelled_never_comes(models):
    models.gates['a'] = threading.Event()
    loader = ModelLoader(models)
    loader.request('a', 'cpu', 'auto')
    loader.cancel()
    models.gates['a'].set()
    loader.close()
    assert loader.poll() is None and loader.loading == ''


def test_closing_waits_for_the_thread(models):
    models.gates['a'] = threading.Event()
    loader = ModelLoader(models)
    loader.request('a', 'cpu', 'auto')
    threading.Timer(0.05, models.gates['a'].set).start()
    loader.close()
    assert not any(t.name == 'karmma loader' for t in threading.enumerate())


@pytest.mark.parametrize('backend', ['auto', 'eager'])
def test_a_model_is_freed_when_nothing_uses_it_without_the_garbage_collector(backend):
    gc.disable()
    try:
        model = load_model('synthetic_kitchen', 'cpu', backend)
        left = weakref.ref(model.recogniser), weakref.ref(model.bundle.network)
        del model
        assert [each() for each in left] == [None, None]
    finally:
        gc.enable()
