"""Compressed images are decoded beside the executor, which continues with the other inputs."""

from threading import enumerate as threads
from threading import Event
import time
from types import SimpleNamespace

import cv2
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities import rgb
from karmma_ros.modality import Modality
from karmma_ros.node.image_decoder import ImageDecoder
from karmma_ros.stream.availability import ModalityState
import pytest
from sensor_data import pixels
from sensor_msgs.msg import CompressedImage
from vision_msgs.msg import Detection2DArray

V, D = Modality.RGB, Modality.DETECTIONS


def jpeg(grey=90):
    data = cv2.imencode('.jpg', pixels(24, 32, shade=grey))[1]
    return CompressedImage(format='jpeg', data=data.tobytes())


@pytest.fixture
def slow(monkeypatch):
    """Let each image be decoded when its event is set."""
    class Slow:
        begun, go, count, failure = Event(), Event(), 0, None

    decode = rgb.read_compressed_image

    def read(*arguments):
        Slow.count += 1
        Slow.begun.set()
        assert Slow.go.wait(20)
        if Slow.failure:
            raise Slow.failure
        return decode(*arguments)
    monkeypatch.setattr(rgb, 'read_compressed_image', read)
    yield Slow
    Slow.go.set()


def decoders():
    return [t for t in threads() if t.name == 'image decoder']


def test_other_inputs_go_on_while_an_image_is_decoded(rig, slow):
    inputs = rig.start(rgb__transport='compressed')
    assert rig.until(slow.begun.is_set, step=lambda: rig.send('image/compressed', jpeg()))

    def send():
        rig.send('detections', Detection2DArray())
        rig.send('image/compressed', jpeg())
    assert rig.until(rig.available(D), step=send)
    assert slow.count == 1 and rig.state(V) is ModalityState.NEVER_RECEIVED
    slow.go.set()
    assert rig.until(rig.available(V), step=send)
    assert inputs._messages._ingest._image_sizes[V] == (32, 24)
    inputs.stop()
    assert not decoders()


@pytest.mark.parametrize('drop', ['cancel', 'stop', 'feed'])
def test_what_is_dropped_while_it_is_decoded_never_arrives(rig, slow, drop):
    inputs = rig.start(rgb__transport='compressed')
    assert rig.until(slow.begun.is_set, step=lambda: rig.send('image/compressed', jpeg()))
    waiting = inputs._messages._threads[V]
    if drop == 'feed':
        rig.feed(rig.modalities)
    elif drop == 'cancel':
        inputs.cancel()
    else:
        slow.go.set()
        inputs.stop()
        assert not decoders()
    slow.go.set()
    rig.until(lambda: False, 0.5)
    assert waiting._decoded is None and rig.state(V) is ModalityState.NEVER_RECEIVED


@pytest.mark.parametrize(('failure', 'text'), [
    (InvalidSampleError('image data: cut'), 'image data: cut'),
    (RuntimeError('odd'), 'RuntimeError: odd')])
def test_an_image_that_cannot_be_decoded_is_counted_with_its_reason(rig, slow, failure, text):
    rig.start(rgb__transport='compressed')
    slow.failure = failure
    slow.go.set()
    assert rig.until(lambda: rig.state(V) is ModalityState.INVALID,
                     step=lambda: rig.send('image/compressed', jpeg()))
    status = next(s for s in rig.stream.assess(rig.now_ns()) if s.modality is V)
    assert status.detail.startswith(text)


def test_an_executor_that_was_shut_down_does_not_end_the_thread():
    def create_task(callback):
        raise RuntimeError('the executor was shut down')

    done = []
    node = SimpleNamespace(executor=SimpleNamespace(create_task=create_task))
    decoder = ImageDecoder(node, lambda message, now_ns: done.append((message.read(), now_ns)))
    for i in range(4):
        decoder.submit(SimpleNamespace(read=lambda i=i: i), i)
        end = time.monotonic() + 20
        while decoder._decoded is None and time.monotonic() < end:
            time.sleep(0.01)
    assert done == [(0, 0), (1, 1), (2, 2)] and decoder._thread.is_alive()
    decoder.stop()
