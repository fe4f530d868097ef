"""
Time live predictions of students at the paper's size: what `streaming.py` measures.

Random weights; a camera and a microphone run, inference runs every two frames of a clip, and only
new frames are encoded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
import statistics
import time
from typing import Any

import cv2
from exported import exported, noise
from karmma_ros.clip import ClipSpec
from karmma_ros.evaluation.cost import count_operations, setting
from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import check_clip, difference, predict_subsets, TOLERANCE
from karmma_ros.model.backends.interface import Backend, EAGER, Input
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.backends.selection import read_export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle, load_bundle, save_bundle
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.streaming import chunks_of, EagerParts, newest
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
from karmma_ros.stream.token_cache import TokenCache
from karmma_ros.stream.window import Window
import numpy as np
import torch

EXPORTS = Path('.cache/streaming/exports')
"""Networks with random weights and their exports; delete it to make them anew."""
SENSORS = (Modality.RGB, Modality.FLOW, Modality.AUDIO)
HOP = 2
"""Frames of a clip from one prediction to the next: 8 a second at the paper's 16 frames."""


@dataclass(frozen=True)
class Cost:
    """The cost of one prediction at the paper's size, with V, F and A."""

    network_ms: float
    """Encoding new frames, and fusion; the median."""
    prediction_ms: float
    """A live prediction: the same, and flow, spectrogram and all other preparation."""
    cpu_ms: float
    """CPU time of a live prediction, all cores together."""
    difference: float
    """Of the logits from those of eager with the same weights, as a fraction of their range."""


def measure(
    which: Mapping[str, tuple[ModelConfig, Sequence[str]]], rounds: int
) -> dict[tuple[str, str], Cost]:
    """
    Time all in turns, so that other load of the machine affects all.

    :param which: name → network, and the exports that it is timed in beside eager.
    :returns: name, and what runs it → figures.
    """
    subjects = {(name, subject.label): subject for name, (config, exports) in which.items()
                for subject in subjects_of(config, exports)}
    times: dict[tuple[str, str], list[tuple[float, float, float]]] = {key: [] for key in subjects}
    for _ in range(rounds):
        for key, subject in subjects.items():
            network, _ = seconds(subject.newest)
            window = next(subject.windows)
            times[key].append((network, *seconds(lambda: subject.predict(window))))
    return {key: Cost(*(1e3 * statistics.median(each) for each in zip(*times[key])),
                         subject.difference) for key, subject in subjects.items()}


def seconds(run: Callable[[], Any]) -> tuple[float, float]:
    """Run once: give the time that went by, and that which the processor worked."""
    before = time.perf_counter(), time.process_time()
    run()
    return time.perf_counter() - before[0], time.process_time() - before[1]


def subjects_of(config: ModelConfig, exports: Sequence[str]) -> Iterator[Subject]:
    """Return what runs a network: eager, then its exports, which are made where they lack."""
    bundle = _bundle(config)
    eager = Eager(bundle.network)
    yield Subject(bundle, eager, EAGER, [])
    for words in exports:
        export_ = exported(bundle, words, lambda: noise(bundle))
        yield Subject(bundle, read_export(bundle, export_), export_.label, [eager])


def _bundle(config: ModelConfig) -> Bundle:
    """Read a network, or write one with random weights."""
    path, (spec, vocabulary) = EXPORTS / config.preset, setting(config.preset)
    if not (path / 'config.json').is_file():
        torch.manual_seed(0)
        save_bundle(path, build(config, spec, vocabulary), config, spec, vocabulary,
                    dataset='none: random weights', card='')
    return load_bundle(path)


class Subject:
    """
    A student with random weights behind a camera and a microphone that run.

    :param wanted: backends with the same outputs; none for eager.
    """

    def __init__(
        self, bundle: Bundle, backend: Backend, label: str, wanted: Sequence[Backend]
    ) -> None:
        self.label = label
        self._recogniser = Recogniser(backend, bundle.vocabulary, bundle.spec)
        self.difference = max((differs(bundle, backend, other) for other in wanted), default=0.0)
        allowed = TOLERANCE[backend.precision]
        if self.difference > allowed:  # what is wrong is not timed
            raise SystemExit(f'{label} of {bundle.path} differs by {self.difference:.2%}')
        clip = zeros(bundle.network)
        self.newest: Callable[[], Any] = lambda: backend.infer(clip)
        if backend.parts is not None:
            tokens = newest(backend.parts, clip, HOP)
            self.newest = lambda: backend.fuse(tokens())
        self.windows = windows(bundle.spec)
        for _ in range(_windows_to_know(bundle)):
            self.predict(next(self.windows))  # from now on all but the newest is known
        self.newest()

    def predict(self, window: Window) -> None:
        """Run inference on a window as the node does."""
        self._recogniser.recognise(window)


def differs(bundle: Bundle, ours: Backend, eager: Backend) -> float:
    """Compare the logits of a clip, of each sensor and of all, and of a few live windows."""
    clip = check_clip(bundle.spec, SENSORS)
    worst = difference(predict_subsets(ours, clip), predict_subsets(eager, clip))
    if ours.parts is None or eager.parts is None:
        return worst
    caches = TokenCache(ours.parts), TokenCache(eager.parts)
    for _, window in zip(range(3), windows(bundle.spec)):
        ours_out, wanted = ({SENSORS: backend.fuse(cache.tokens(window))}
                            for backend, cache in zip((ours, eager), caches))
        worst = max(worst, difference(ours_out, wanted))
    return worst


def _windows_to_know(bundle: Bundle) -> int:
    """Count the windows until each chunk has been the newest once."""
    own, frames = chunks_of(bundle.network).get(Modality.RGB), bundle.spec.num_frames
    chunk = frames // own.count if own and not own.stateful else frames
    return 1 + (frames - chunk) // HOP


def zeros(network: Karmma) -> dict[Modality, Input]:
    """Return a clip of zeros."""
    return {m: np.zeros((1, *network.input_shapes[m]), np.float32) for m in network.modalities}


def cost_of(config: ModelConfig) -> tuple[int, int]:
    """Count the operations of one prediction, and the parameters."""
    spec, classes = setting(config.preset)
    with torch.device('meta'):
        network = build(config, spec, classes).eval()
    tokens = newest(EagerParts(network, 'meta'), zeros(network), HOP)
    operations, _ = count_operations(lambda: network.fuse(tokens()))
    return operations, sum(p.numel() for p in network.parameters())


def windows(spec: ClipSpec) -> Iterator[Window]:
    """Return windows of a video at 30 Hz with audio, each ending two frames of a clip later."""
    stream = SensorStream(spec, SENSORS, {m: InputSettings(10**9) for m in SENSORS})
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (640, 480))
    period, frame = spec.frame_period_ns, 10_000
    while True:
        frame += 1
        now = frame * period
        stream.add(Modality.RGB, np.roll(image, 3 * frame, 1), now, now)
        audio = rng.normal(0, 0.1, period * spec.audio.sample_rate // 10**9)
        stream.add(
            Modality.AUDIO,
            AudioChunk(audio.astype(np.float32), spec.audio.sample_rate),
            now - period,
            now,
        )
        if frame > 10_000 + spec.num_frames and frame % HOP == 0:
            window = stream.window(now)
            assert window is not None and window.modalities == SENSORS
            yield window
