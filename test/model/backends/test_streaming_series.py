"""Time series and depth chunk by chunk: live tokens are those of the stream encoded at once."""

from dataclasses import replace

from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.modalities.depth import DepthSpec
from karmma_ros.modalities.imu import ImuSpec
from karmma_ros.modality import Modality
from karmma_ros.model.backends import choose
from karmma_ros.model.backends.export import export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.streaming import MOST_UNSETTLED
from karmma_ros.prediction import Vocabulary
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
from karmma_ros.stream.token_cache import TokenCache
import numpy as np
import pytest
import torch

RGB, IMU, DEPTH = Modality.RGB, Modality('imu'), Modality('depth')
MS, COUNT = 1_000_000, 8
SPEC = ClipSpec(
    duration=0.8, num_frames=COUNT, video=VideoSpec(32, 32), audio=AudioSpec(tiles=1),
    inputs={IMU: ImuSpec(samples=32), DEPTH: DepthSpec(height=8, width=8)})
PERIOD = SPEC.frame_period_ns
CONFIG = ModelConfig('small', {
    RGB: EncoderConfig('causal_frames', {
        'backbone': 'resnet10t', 'channels': [4, 4, 8, 8], 'stem_width': 4, 'kernel': 3,
        'grid': 1}),
    IMU: EncoderConfig('causal_series', {'chunks': COUNT, 'width': 8, 'blocks': 2}),
    DEPTH: EncoderConfig('causal_depth', {'widths': [4, 8]}),
}, dim=16, heads=2, feedforward=16, token_cap=16, reduction='even', fusion='queries')


@pytest.fixture(scope='module')
def bundle(tmp_path_factory):
    """Return a model directory with exports for both runtimes."""
    torch.manual_seed(0)
    vocabulary = Vocabulary({'verb': ('a', 'b', 'c')})
    network = build(CONFIG, SPEC, vocabulary)
    with torch.no_grad():
        for weights in network.parameters():
            weights.add_(0.1 * torch.rand_like(weights))
    path = tmp_path_factory.mktemp('models') / 'series'
    save_bundle(path, network, CONFIG, SPEC, vocabulary, dataset='random', card='')
    for runtime in ('openvino', 'onnx'):
        export(load_bundle(path), runtime, 'fp32')
    return load_bundle(path)


@pytest.fixture(params=['eager', 'openvino', 'onnxruntime'])
def backend(bundle, request):
    """Return a backend of the network."""
    return choose(bundle, 'cpu', request.param).backend


class Live:
    """A camera, a depth camera at its rate and an inertial sensor."""

    def __init__(self, spec=SPEC, imu_hz=50) -> None:
        self.stream = SensorStream(
            spec, CONFIG.modalities, {m: InputSettings(10**9) for m in CONFIG.modalities})
        self.rng = np.random.default_rng(0)
        self.period_ns, self.step_ns = spec.frame_period_ns, 10**9 // imu_hz
        self.frame, self.imu_ns = 1000, 1000 * self.period_ns

    def window(self, hop=1, imu_late_ns=13 * MS):
        """Let `hop` frames come, and vectors up to so long before; return the window."""
        for _ in range(hop):
            self.frame += 1
            now = self.frame * self.period_ns
            self.send_imu(now - imu_late_ns)
            image = self.rng.integers(0, 256, (40, 40, 3)).astype(np.uint8)
            assert not self.stream.add(RGB, image, now, now)
            metres = self.rng.uniform(1, 2, (8, 8)).astype(np.float16)
            assert not self.stream.add(DEPTH, metres, now, now)
        return self.stream.window(now)

    def send_imu(self, until_ns):
        """Send the vectors up to a time."""
        while self.imu_ns + self.step_ns <= until_ns:
            self.imu_ns += self.step_ns
            vector = self.rng.normal(0, 1, 6).astype(np.float32)
            assert not self.stream.add(IMU, vector, self.imu_ns, self.imu_ns)


def inertial(window):
    """Return the chunks `[1, c, p, s]` of the inertial sensor in a window."""
    x = window.clip({IMU}).inputs[IMU][None]
    return x.reshape(*x.shape[:2], COUNT, -1)


def of_stream(network, windows):
    """Return the tokens of the last window, encoded with all that came before it at once."""
    content = {}
    for window in windows:
        for i in range(1 if content else 0, COUNT):  # what is before the window counts there
            content[window.start_ns + i * PERIOD] = inertial(window)[:, :, i]
    x = np.stack([content[start] for start in sorted(content)], axis=2)
    with torch.inference_mode():
        tokens, _ = network.encode_next(IMU, torch.from_numpy(x), None)
        return network.embedding(IMU).in_order(tokens[-COUNT:][None]).numpy()


class Counting:
    """The parts of a backend that count the chunks that they encode of a modality."""

    def __init__(self, parts, modality, monkeypatch) -> None:
        self.chunks, encode = 0, parts.encode_next

        def counted(m, x, *past):
            self.chunks += x.shape[2] if m == modality else 0
            return encode(m, x, *past)

        monkeypatch.setattr(parts, 'encode_next', counted)

    def take(self):
        """Return the number since the last call."""
        taken, self.chunks = self.chunks, 0
        return taken


def test_a_series_is_encoded_once_though_its_newest_samples_change(
        bundle, backend, monkeypatch):
    cache, live = TokenCache(backend.parts), Live()
    seen = Counting(backend.parts, IMU, monkeypatch)
    live.window(11)
    windows = []
    for hop in (1, 1, 1, 2, 1, 3, 1, 1, 1):
        windows.append(live.window(hop))
        tokens = np.asarray(cache.tokens(windows[-1])[IMU])
        np.testing.assert_allclose(tokens, of_stream(bundle.network, windows), atol=1e-4)
        if len(windows) > 1:
            changed = not np.array_equal(
                inertial(windows[-1])[:, :, -1 - hop], inertial(windows[-2])[:, :, -1])
            assert changed, 'the newest samples were interpolated anew'
            assert seen.take() == hop + MOST_UNSETTLED
        seen.take()


@pytest.mark.parametrize(('duration', 'frames', 'samples', 'rate'), [
    (0.8, 8, 32, 200), (0.8, 8, 32, 400), (1.0, 12, 48, 100), (2.0, 30, 120, 200)])
def test_rounded_times_do_not_start_a_stream_anew(
        tmp_path, monkeypatch, duration, frames, samples, rate):
    spec = replace(SPEC, duration=duration, num_frames=frames,
                   inputs={**SPEC.inputs, IMU: ImuSpec(samples=samples)})
    config = replace(CONFIG, token_cap=32, encoders={**CONFIG.encoders, IMU: EncoderConfig(
        'causal_series', {'chunks': frames, 'width': 8, 'blocks': 2})})
    parts = choose(_saved(config, spec, tmp_path / 'model'), 'cpu', 'eager').backend.parts
    cache, live = TokenCache(parts), Live(spec, rate)
    seen = Counting(parts, IMU, monkeypatch)
    live.window(2 * frames)
    cache.tokens(live.window())
    seen.take()
    for _ in range(2 * frames):
        cache.tokens(live.window())
        assert seen.take() == 1 + MOST_UNSETTLED


def test_windows_that_end_within_a_chunk_have_a_stream_of_their_own(tmp_path, monkeypatch):
    config = replace(CONFIG, encoders={**CONFIG.encoders, IMU: EncoderConfig(
        'causal_series', {'chunks': COUNT // 2, 'width': 8, 'blocks': 2}),
        RGB: EncoderConfig('r2plus1d', {'widths': [4, 8, 8]})})
    parts = choose(_saved(config, SPEC, tmp_path / 'model'), 'cpu', 'eager').backend.parts
    cache, live = TokenCache(parts), Live()
    seen = Counting(parts, IMU, monkeypatch)
    live.window(11)
    taken = []
    for _ in range(8):
        cache.tokens(live.window())
        taken.append(seen.take())
    assert taken == [4, 4, *[1 + MOST_UNSETTLED] * 6]


def test_vectors_that_come_late_are_encoded_anew(bundle, backend, monkeypatch):
    cache, live = TokenCache(backend.parts), Live()
    seen = Counting(backend.parts, IMU, monkeypatch)
    live.window(11)
    cache.tokens(live.window())
    for _ in range(4):
        cache.tokens(live.window(imu_late_ns=500 * MS))
    seen.take()
    window = live.window()  # four chunks are no longer what they were
    tokens = np.asarray(cache.tokens(window)[IMU])
    assert seen.take() == COUNT
    np.testing.assert_allclose(tokens, of_stream(bundle.network, [window]), atol=1e-4)


def test_a_gap_of_the_camera_starts_a_stream_anew(bundle, backend):
    cache, live = TokenCache(backend.parts), Live()
    live.window(11)
    cache.tokens(live.window())
    window = live.window(COUNT + 1)
    np.testing.assert_allclose(
        np.asarray(cache.tokens(window)[IMU]), of_stream(bundle.network, [window]), atol=1e-4)


def test_depth_relative_to_the_window_is_that_of_the_window_alone(bundle, backend):
    cache, live = TokenCache(backend.parts), Live()
    live.window(11)
    for _ in range(3):
        window = live.window()
        x = torch.from_numpy(window.clip({DEPTH}).inputs[DEPTH][None])
        with torch.inference_mode():
            wanted = bundle.network.encode(DEPTH, x).numpy()
        np.testing.assert_allclose(
            np.asarray(cache.tokens(window)[DEPTH]), wanted, atol=1e-4)


def test_every_subset_of_a_window_equals_eager(bundle, backend):
    live = Live()
    live.window(11)
    window = live.window()
    eager = choose(bundle, 'cpu', 'eager').backend
    for kept in ((IMU,), (DEPTH,), (RGB, IMU), CONFIG.modalities):
        x = {m: x[None] for m, x in window.clip(kept).inputs.items()}
        ours, theirs = backend.infer(x), eager.infer(x)
        np.testing.assert_allclose(
            np.asarray(ours['verb']), np.asarray(theirs['verb']), atol=1e-4)


def test_windows_end_with_frames_of_the_camera(bundle, backend):
    recogniser = Recogniser(backend, bundle.vocabulary, bundle.spec)
    assert recogniser.hop(4) == 2 and recogniser.hop(10) == 1


def test_more_chunks_than_frames_allow_any_hop(bundle):
    options = {'chunks': COUNT, 'width': 8}
    longer = replace(SPEC, inputs={**SPEC.inputs, IMU: ImuSpec(samples=64)})
    config = replace(CONFIG, encoders={**CONFIG.encoders, IMU: EncoderConfig(
        'causal_series', {**options, 'chunks': 2 * COUNT})})
    backend = choose(_saved(config, longer, bundle.path.parent / 'longer'), 'cpu', 'eager').backend
    assert Recogniser(backend, bundle.vocabulary, longer).hop(10) == 1


def _saved(config, spec, path):
    vocabulary = Vocabulary({'verb': ('a', 'b', 'c')})
    network = build(config, spec, vocabulary)
    save_bundle(path, network, config, spec, vocabulary, dataset='random', card='')
    return load_bundle(path)
