"""Sensor data that a recogniser keeps between windows is gone after a reset."""

from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.backends import choose
from karmma_ros.model.backends.pytorch import CompiledCUDA, Eager
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
import numpy as np
import pytest
import torch

MS = 1_000_000
V, F, A, D = PAPER_MODALITIES


class Live:
    """A stream of noise and a recogniser on a backend."""

    def __init__(self, bundle, runtime, traces, noting):
        backend = Eager(bundle.network) if runtime == 'eager' else choose(
            bundle, 'cpu', runtime).backend
        self.recogniser = Recogniser(backend, bundle.vocabulary, bundle.spec)
        noting(backend)
        self.traces, self.rng, self.now_ns = traces, np.random.default_rng(), 10**12
        self.on = {m: InputSettings(10**9) for m in self.recogniser.modalities}
        self.stream = SensorStream(bundle.spec, self.recogniser.modalities, self.on,
                                   hop=self.recogniser.hop(2.0))

    def run(self, windows=3):
        """Recognise windows of noise, and record every type of data on the way."""
        while windows:
            self.now_ns += 50 * MS
            self._add()
            window = self.stream.window(self.now_ns)
            if window is not None and len(window.modalities) == len(self.on):
                self.recogniser.recognise(window)
                for frame in window.samples[V].frames:
                    self.traces.note('frame', frame.image)
                for flow in window.samples[F].cache._cached.values():
                    self.traces.note('flow', flow)
                self.traces.note('audio', window.samples[A].samples)
                for boxes in window.samples[D].boxes if D in self.on else ():
                    self.traces.note('boxes', boxes)
                windows -= 1

    def _add(self):
        image = self.rng.integers(0, 255, (40, 40, 3)).astype(np.uint8)
        audio = self.rng.uniform(-1, 1, 800).astype(np.float32)
        boxes = np.sort(self.rng.random((3, 5), np.float32), axis=1)
        boxes[:, 4] = 0
        for what, data in (('image', image), ('samples', audio)):
            self.traces.note(what, data)
        self.stream.add(Modality.RGB, image, self.now_ns, self.now_ns)
        self.stream.add(
            Modality.AUDIO, AudioChunk(audio, 16_000), self.now_ns - 50 * MS, self.now_ns
        )
        if D in self.on:
            assert not self.stream.add(Modality.DETECTIONS, boxes, self.now_ns, self.now_ns)

    def disable(self, *modalities):
        """Do what `enabled: false` does."""
        self.stream.configure({m: InputSettings(10**9, enabled=m not in modalities)
                               for m in self.on})
        self.recogniser.reset(modalities)


@pytest.mark.parametrize(('way', 'runtime'), [
    ('tokens', 'eager'), ('tokens', 'openvino'), ('tokens', 'onnxruntime'),
    ('chunks', 'eager'), ('chunks', 'openvino'), ('causal', 'eager'), ('causal', 'onnxruntime'),
    ('causal', 'openvino')])
def test_nothing_of_the_sensors_is_left_in_memory(exported, traces, noting, way, runtime):
    live = Live(exported(way), runtime, traces, noting)
    live.run()
    assert {'image', 'samples', 'frame', 'flow', 'audio'} <= traces.noted()
    assert any('output' in each or 'input' in each for each in traces.noted())
    assert traces.left()
    live.disable(*live.on)
    assert traces.left() == []


@pytest.mark.parametrize(('way', 'runtime'), [('chunks', 'onnxruntime'), ('causal', 'eager')])
def test_a_reset_leaves_nothing_either_and_recognition_starts_anew(
    exported, traces, noting, way, runtime
):
    live = Live(exported(way), runtime, traces, noting)
    live.run()
    live.stream.clear()
    live.recogniser.reset()
    assert traces.left() == []
    live.run(1)


@pytest.mark.parametrize('way', ['chunks', 'causal'])
def test_the_other_inputs_keep_what_they_remember(exported, traces, noting, way):
    live = Live(exported(way), 'eager', traces, noting)
    live.run()
    caches = live.recogniser._tokens._caches
    live.disable(F)
    assert not vars(caches[F]).get('_cached') and not vars(caches[F]).get('_images')
    assert vars(caches[V]).get('_cached') or vars(caches[V]).get('_images')


def test_the_buffers_of_cuda_graphs_are_overwritten(monkeypatch):
    """Without a GPU: the graphs are stand-ins that double their input."""
    class Graph:
        def __init__(self, *inputs):
            self.inputs, self.output = list(inputs), {'tokens': torch.ones(3)}

        def replay(self):
            self.output['tokens'].copy_(2 * self.inputs[0])

    monkeypatch.setattr(torch.cuda, 'synchronize', lambda device: None)
    backend = CompiledCUDA.__new__(CompiledCUDA)
    backend.device = 'cuda:0'
    backend._host = {V: torch.ones(3)}
    backend._encoders = {V: Graph(torch.ones(3))}
    backend._fusions = {(V,): Graph(torch.ones(3), torch.ones(3))}
    backend.clear()
    graphs = [backend._encoders[V], backend._fusions[(V,)]]
    left = [backend._host[V], *(x for g in graphs for x in (*g.inputs, g.output['tokens']))]
    assert len(left) == 6 and not any(x.any() for x in left)
