"""Cached tokens of causal audio: each chunk is encoded once, and a changed one anew."""

from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.streaming import EagerParts
from karmma_ros.prediction import Vocabulary
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
from karmma_ros.stream.token_cache import TokenCache
import numpy as np
import pytest
import torch

A = Modality.AUDIO
SPEC = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(16, 16),
                audio=AudioSpec(tiles=1, tile_steps=160, n_mels=16))
PERIOD_NS, PERIOD = 100_000_000, 1600
"""One frame of a clip, in nanoseconds and samples; a chunk of 40 columns lasts two."""
SMALL = {'backbone': 'resnet10t', 'channels': [4, 4, 8, 8], 'stem_width': 4, 'kernel': 3,
         'grid': 1}


@pytest.fixture
def network():
    torch.manual_seed(0)
    config = ModelConfig(
        'small', {Modality.RGB: EncoderConfig('causal_frames', SMALL),
                  A: EncoderConfig('causal_mel', {'columns': 40, **SMALL})},
        dim=16, heads=2, feedforward=16, token_cap=16, reduction='even')
    built = build(config, SPEC, Vocabulary({'verb': ('a', 'b', 'c')})).eval()
    with torch.no_grad():
        for weights in [*built.parameters(), *built.buffers()]:
            if weights.is_floating_point() and weights.ndim > 0:
                weights.add_(0.1 * torch.rand_like(weights))
    return built


@pytest.fixture
def encoded(network):
    """Count the chunks that the encoder of audio is given."""
    class Counter(list):
        def take(self):
            counted, self[:] = sum(self), []
            return counted

    counter = Counter()
    network.encoders['audio'].model.conv1.register_forward_pre_hook(
        lambda module, given: counter.append(len(given[0])))
    return counter


class Microphone:
    """Noise without an end, and the windows that end with its last frame."""

    def __init__(self, muted=()):
        self.stream = SensorStream(SPEC, (A,), {A: InputSettings(10**9)})
        self.rng, self.frame, self.muted = np.random.default_rng(0), 1000, muted
        self.sent = {}

    def window(self, hop):
        for _ in range(hop):
            self.sent[self.frame] = self.rng.normal(0, 0.1, PERIOD).astype(np.float32)
            if self.frame not in self.muted:
                self.send(self.frame)
            self.frame += 1
        return self.stream.window(self.frame * PERIOD_NS)

    def send(self, frame):
        assert not self.stream.add(
            A, AudioChunk(self.sent[frame], 16_000), frame * PERIOD_NS,
            self.frame * PERIOD_NS + PERIOD_NS)


@torch.inference_mode()
def at_once(network, window):
    return network.encode(A, torch.from_numpy(window.clip().inputs[A])[None])


def test_a_window_equals_its_clip_and_then_each_chunk_is_encoded_once(network, encoded):
    cache, microphone = TokenCache(EagerParts(network)), Microphone()
    first = microphone.window(8)
    torch.testing.assert_close(cache.tokens(first)[A], at_once(network, first), rtol=0, atol=1e-5)
    encoded.take()
    for hop, new in ((2, 1), (2, 1), (4, 2), (2, 1)):
        cache.tokens(microphone.window(hop))
        assert encoded.take() == new


def test_windows_that_end_within_a_chunk_encode_each_chunk_once_too(network, encoded):
    cache, microphone = TokenCache(EagerParts(network)), Microphone()
    for hop in (8, 1):
        window = microphone.window(hop)
        torch.testing.assert_close(
            cache.tokens(window)[A], at_once(network, window), rtol=0, atol=1e-5)
    encoded.take()
    for _ in range(6):
        cache.tokens(microphone.window(1))
        assert encoded.take() == 1


@torch.inference_mode()
def test_chunk_by_chunk_is_the_stream_at_once(network):
    cache, microphone = TokenCache(EagerParts(network)), Microphone()
    own = EagerParts(network).chunks[A]
    windows = [microphone.window(8), *(microphone.window(2) for _ in range(6))]
    tokens = [cache.tokens(window)[A] for window in windows][-1]
    chunks = [own.frames(window.clip().inputs[A][None]) for window in windows]
    stream = np.concatenate([chunks[0], *(each[:, :, -1:] for each in chunks[1:])], axis=2)
    complete, _ = network.encode_next(A, torch.from_numpy(stream), None)
    torch.testing.assert_close(
        tokens, network.embedding(A).in_order(complete[-4:][None]), rtol=0, atol=1e-5)
    assert not torch.allclose(tokens, at_once(network, windows[-1]), atol=1e-4)  # its past matters


def test_audio_that_comes_late_is_encoded_anew(network, encoded):
    cache, microphone = TokenCache(EagerParts(network)), Microphone(muted={1010})
    microphone.window(10)
    cache.tokens(microphone.window(4))
    encoded.take()
    microphone.send(1010)
    window = microphone.window(2)
    torch.testing.assert_close(
        cache.tokens(window)[A], at_once(network, window), rtol=0, atol=1e-5)
    assert encoded.take() == 4 + 4  # the comparison, too


def test_silence_passes_as_any_other_audio(network, encoded):
    cache, microphone = TokenCache(EagerParts(network)), Microphone()
    microphone.rng = type('Silence', (), {'normal': lambda self, mean, std, n: np.zeros(n)})()
    microphone.window(8)
    cache.tokens(microphone.window(2))
    encoded.take()
    cache.tokens(microphone.window(2))
    assert encoded.take() == 1


def test_a_reset_starts_a_stream(network, encoded):
    cache, microphone = TokenCache(EagerParts(network)), Microphone()
    cache.tokens(microphone.window(8))
    cache.reset([A])
    window = microphone.window(2)
    torch.testing.assert_close(
        cache.tokens(window)[A], at_once(network, window), rtol=0, atol=1e-5)
