"""Cached tokens: the outputs are those of a window encoded at once."""

from dataclasses import replace
from threading import Barrier
import weakref

from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.builder import build
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.streaming import Chunks, chunks_of, EagerParts
from karmma_ros.prediction import Vocabulary
from karmma_ros.preprocess.resize import video_input
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
from karmma_ros.stream.token_cache import hop_for, TokenCache
import numpy as np
import pytest
import torch

V, F, A, _ = PAPER_MODALITIES
MS = 1_000_000
SPEC = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(height=16, width=16),
                audio=AudioSpec(tiles=2, tile_steps=20, n_mels=8))
PERIOD = 100
"""Milliseconds from one frame of a clip to the next."""
FRAMES = EncoderConfig('r2plus1d', {'widths': [4, 8, 8]})
CAUSAL = EncoderConfig('causal_frames', {
    'backbone': 'resnet10t', 'channels': [4, 4, 8, 8], 'stem_width': 4, 'kernel': 3, 'grid': 1})


def network_of(frames: EncoderConfig):
    """Return a network of V, F and A with random weights, its mixers and norms included."""
    torch.manual_seed(0)
    config = ModelConfig(
        'small', {V: frames, F: frames, A: EncoderConfig('mel_cnn', {'widths': [4, 8]})},
        dim=16, heads=2, feedforward=16, token_cap=16, reduction='even',
        fusion='queries' if frames is CAUSAL else 'transformer')
    network = build(config, SPEC, Vocabulary({'verb': ('a', 'b', 'c')})).eval()
    with torch.no_grad():
        for weights in [*network.parameters(), *network.buffers()]:
            if weights.is_floating_point() and weights.ndim > 0:
                weights.add_(0.1 * torch.rand_like(weights))
    return network


class Counting:
    """Count what the encoders of a modality are given to encode."""

    def __init__(self, network, modality=V) -> None:
        self.frames = 0
        encoder = network.encoders[modality.value]
        inner = getattr(encoder, 'encoder', None)
        if inner is not None:
            inner.register_forward_pre_hook(self._chunks)
        else:
            encoder.model.conv1.register_forward_pre_hook(self._images)

    def _chunks(self, module, given) -> None:
        self.frames += given[0].shape[0] * given[0].shape[2]

    def _images(self, module, given) -> None:
        self.frames += len(given[0])

    def take(self) -> int:
        """Return the frames encoded since the last call."""
        taken, self.frames = self.frames, 0
        return taken


class Live:
    """A camera and a microphone that run on, and the windows that end at their newest samples."""

    def __init__(self, flow_topic: bool = False, drops: frozenset[int] = frozenset()) -> None:
        settings = {m: InputSettings(1000 * MS) for m in (V, F, A)}
        self.stream = SensorStream(
            SPEC, (V, F, A), settings, with_topic={Modality.FLOW} if flow_topic else ()
        )
        self.rng = np.random.default_rng(0)
        self.frame, self.flow_topic, self.drops = 1000, flow_topic, drops

    def window(self, hop: int):
        """Let `hop` frames come; give the window that ends with the last."""
        for _ in range(hop):
            self.frame += 1
            self._send(self.frame * PERIOD * MS)
        return self.stream.window(self.frame * PERIOD * MS)

    def _send(self, stamp_ns: int) -> None:
        audio = self.rng.normal(0, 0.1, 16 * PERIOD).astype(np.float32)
        assert not self.stream.add(
            Modality.AUDIO, AudioChunk(audio, 16_000), stamp_ns - PERIOD * MS, stamp_ns
        )
        if self.frame in self.drops:
            return
        image = np.kron(self.rng.integers(0, 256, (4, 4, 3)), np.ones((5, 5, 1))).astype(np.uint8)
        assert not self.stream.add(Modality.RGB, image, stamp_ns, stamp_ns)
        if self.flow_topic:
            flow = self.rng.normal(0, 3, (20, 20, 2)).astype(np.float32)
            assert not self.stream.add(Modality.FLOW, flow, stamp_ns, stamp_ns)


@torch.inference_mode()
def at_once(network, window):
    """Run as training does: on the complete clip."""
    inputs = {m: torch.from_numpy(x)[None] for m, x in window.clip().inputs.items()}
    present = torch.tensor([[m in inputs for m in network.modalities]])
    return network(inputs, present)['verb']


def predictions(network, cache, window):
    with torch.inference_mode():
        return network.fuse(cache.tokens(window))['verb']


@pytest.mark.parametrize('flow_topic', [False, True])
@pytest.mark.parametrize('hop', [1, 2, 4])
def test_chunks_equal_the_complete_window_and_only_the_newest_is_encoded(hop, flow_topic):
    network = network_of(replace(FRAMES, chunk=4))
    cache, live = TokenCache(EagerParts(network)), Live(flow_topic)
    seen = {m: Counting(network, m) for m in (V, F)}
    live.window(12)
    for i in range(3 * 8 // hop):
        window = live.window(hop)
        assert window.modalities == (V, F, A)
        torch.testing.assert_close(
            predictions(network, cache, window),
            _uncounted(network, window, seen),
            rtol=0,
            atol=1e-5,
        )
        if i >= 4 // hop:
            assert {m: count.take() for m, count in seen.items()} == {V: 4, F: 4}
        else:
            [count.take() for count in seen.values()]


def _uncounted(network, window, seen):
    before = {m: count.frames for m, count in seen.items()}
    prediction = at_once(network, window)
    for m, count in seen.items():
        count.frames = before[m]
    return prediction


def test_a_dropped_frame_costs_no_more_and_changes_nothing_else():
    network = network_of(replace(FRAMES, chunk=4))
    cache, seen = TokenCache(EagerParts(network)), Counting(network)
    live = Live(drops=frozenset({1018, 1021}))
    live.window(12)
    for _ in range(8):
        window = live.window(2)
        result = predictions(network, cache, window)
        assert seen.take() <= 8
        torch.testing.assert_close(result, at_once(network, window), rtol=0, atol=1e-5)
        seen.take()


def test_a_late_frame_is_seen_when_it_comes():
    network = network_of(replace(FRAMES, chunk=4))
    cache, live = TokenCache(EagerParts(network)), Live(drops=frozenset({1018}))
    live.window(16)
    live.window(4)
    predictions(network, cache, live.window(1))
    assert not live.stream.add(Modality.RGB,
        np.zeros((20, 20, 3), np.uint8), 1018 * PERIOD * MS, live.frame * PERIOD * MS)
    window = live.window(1)
    torch.testing.assert_close(
        predictions(network, cache, window), at_once(network, window), rtol=0, atol=1e-5)


@pytest.mark.parametrize('frames', [replace(FRAMES, chunk=4), CAUSAL], ids=['chunks', 'causal'])
def test_what_no_window_can_show_is_discarded(frames):
    network = network_of(frames)
    cache, live = TokenCache(EagerParts(network)), Live()
    images = [weakref.ref(frame.image) for frame in live.window(12).samples[V].frames]
    for i in range(24):
        cache.tokens(live.window(1))
        if i == 2:  # some of them are in windows still
            assert any(image() is not None for image in images)
    assert all(image() is None for image in images)


@pytest.mark.parametrize('flow_topic', [False, True])
def test_each_frame_is_encoded_once_and_remembers_those_before(flow_topic):
    network = network_of(CAUSAL)
    cache, live, seen = TokenCache(EagerParts(network)), Live(flow_topic), Counting(network)
    live.window(8)
    first = live.window(8)
    torch.testing.assert_close(
        predictions(network, cache, first), at_once(network, first), rtol=0, atol=1e-5)
    seen.take()
    for hop in (1, 3, 2, 1):
        predictions(network, cache, live.window(hop))
        assert seen.take() == hop
    predictions(network, cache, live.window(20))  # nothing is left of the last window
    assert seen.take() == 8


@torch.inference_mode()
def test_a_stream_frame_by_frame_is_the_video_at_once():
    network = network_of(CAUSAL)
    cache, live = TokenCache(EagerParts(network)), Live()
    live.window(1)
    windows = [live.window(7), *(live.window(1) for _ in range(8))]
    frames = [
        *windows[0].samples[V].frames,
        *(window.samples[V].frames[-1] for window in windows[1:]),
    ]
    tokens = [cache.tokens(window)[V] for window in windows][-1]
    encoder, embedding = network.encoders['rgb'], network.embedding(V)
    video = torch.from_numpy(_prepared(frames))[None]
    complete, _ = network.encode_next(V, video, None)
    assert encoder.parts == 8
    torch.testing.assert_close(tokens, embedding.in_order(complete[-8:][None]), rtol=0, atol=1e-5)


def _prepared(frames):
    return video_input(np.stack([frame.image for frame in frames]), SPEC.video)


def test_large_graphs_of_two_modalities_run_at_the_same_time():
    network = network_of(CAUSAL)
    live, meeting = Live(), Barrier(2, timeout=20)

    class Meeting(EagerParts):
        runs_in_parallel = True

        def encode_next(self, modality, x, past, unsettled=0):
            meeting.wait()  # fails unless V and F are both here
            return super().encode_next(modality, x, past)

    cache, alone = TokenCache(Meeting(network)), TokenCache(EagerParts(network))
    for hop in (8, 1, 2):
        window = live.window(hop)
        tokens, wanted = cache.tokens(window, [V, F]), alone.tokens(window, [V, F])
        assert list(tokens) == [V, F]
        for modality in (V, F):
            torch.testing.assert_close(tokens[modality], wanted[modality])


def test_an_error_of_one_modality_is_raised_when_all_have_ended():
    network = network_of(CAUSAL)

    class Failing(EagerParts):
        runs_in_parallel = True

        def encode_next(self, modality, x, past, unsettled=0):
            if modality == F:
                raise InvalidSampleError('flow: got NaN')
            return super().encode_next(modality, x, past)

    with pytest.raises(InvalidSampleError, match='flow: got NaN'):
        TokenCache(Failing(network)).tokens(Live().window(8))


def test_sensors_that_are_kept_out_are_not_encoded():
    network = network_of(replace(FRAMES, chunk=4))
    cache, live, seen = TokenCache(EagerParts(network)), Live(), Counting(network)
    live.window(12)
    assert list(cache.tokens(live.window(1), [F, A])) == [F, A]
    assert seen.take() == 0


@pytest.mark.parametrize(('frames', 'rate', 'hop'), [
    (FRAMES, 5, 0),
    (replace(FRAMES, chunk=4), 1, 4),
    (replace(FRAMES, chunk=4), 4, 2),
    (replace(FRAMES, chunk=4), 9, 1),
    (replace(FRAMES, chunk=4), 30, 1),
    (CAUSAL, 2, 5),
    (CAUSAL, 4, 2),
    (CAUSAL, 30, 1),
])
def test_windows_hop_by_a_divisor_of_the_chunks_and_by_any_number_of_causal_frames(
        frames, rate, hop):
    network = network_of(frames)
    assert hop_for(chunks_of(network), SPEC, rate) == hop


@pytest.mark.parametrize(('rate', 'hop'), [(2, 4), (3, 2), (6, 1)])
def test_windows_end_with_a_chunk_of_causal_audio_where_the_rate_allows_it(rate, hop):
    chunks = {V: Chunks(8, True, False), A: Chunks(4, True, False, columns=40)}
    assert hop_for(chunks, SPEC, rate) == hop
