"""
From an episode to one labelled clip, by the same steps as on a robot.

The camera runs at 30 Hz; of the frames in a slot of the clip's grid the first is taken, as
the live stream does. Shape legend: t frames, h height, w width, k audio tiles, f mel
bands, s mel steps, n boxes a frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
import math

from karmma_ros.clip import AudioSpec, Clip, ClipSpec, DetectionSpec, FlowSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.episode import Episode, episode
from karmma_ros.data.synthetic_kitchen.seeds import generator, Stream
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.modality import Modality
from karmma_ros.preprocess.audio import audio_input
from karmma_ros.preprocess.detections import detection_input
from karmma_ros.preprocess.flow import clip_flow, flow_input
from karmma_ros.preprocess.video import resize_and_crop, video_input
import numpy as np

CAMERA_HZ = 30

PICTURE = (120, 160)
"""Height and width of the camera's pictures before preprocessing."""

LATEST_START_S = 20.0

AUDIO_MEAN, AUDIO_STD = 4.59, 5.30
"""Decibels; of the training split, as `python docs/measure_kitchen.py`
gives them. Without standardising, the sound encoder hardly learns."""

FLOW_BOUND = 6.0
"""Pixels of the 40-pixel crop a frame; 98 % of the displacements on what moves lie within it."""


def clip_spec() -> ClipSpec:
    """Give the clip that this data set is made for: 2 s, 16 frames of 40 x 40, one mel tile."""
    return ClipSpec(
        duration=2.0,
        num_frames=16,
        video=VideoSpec(height=40, width=40),
        flow=FlowSpec(bound=FLOW_BOUND),
        audio=AudioSpec(sample_rate=16_000, n_fft=512, win_length=400, hop_length=160,
                        n_mels=64, tiles=1, tile_steps=200, mean=AUDIO_MEAN, std=AUDIO_STD),
        detections=DetectionSpec(max_boxes=6),
    )


@dataclass(frozen=True)
class RenderedClip:
    """One clip in the compact types of the written form."""

    rgb: np.ndarray
    """uint8 `[t, h, w, 3]`."""
    flow: np.ndarray
    """uint8 `[t, h, w, 2]`."""
    audio: np.ndarray
    """float16 `[k, f, s]`, standardised."""
    detections: np.ndarray
    """float32 `[t, n, 5]`."""
    labels: np.ndarray
    """int64 `[2]`: verb, noun."""

    def clip(self, spec: ClipSpec, modalities: Iterable[Modality] = tuple(Modality)) -> Clip:
        """Give the network's inputs, float32."""
        makers: dict[Modality, Callable[[], np.ndarray]] = {
            Modality.RGB: lambda: video_input(self.rgb, spec.video),
            Modality.FLOW: lambda: flow_input(self.flow, spec.flow),
            Modality.AUDIO: lambda: self.audio.astype(np.float32),
            Modality.DETECTIONS: lambda: np.array(self.detections),
        }
        return Clip({m: makers[m]() for m in modalities})


def start_of(split: Split, seed: int, index: int) -> float:
    """Give the second of its episode at which a clip begins."""
    rng = generator(Stream.START, seed, split.number, index)
    return float(rng.uniform(0.0, LATEST_START_S))


def frame_times(start_s: float, spec: ClipSpec) -> list[float]:
    """Give the seconds at which the camera took the frames of the clip from `start_s` on."""
    slots = (start_s + i * spec.duration / spec.num_frames for i in range(spec.num_frames))
    return [math.ceil(slot * CAMERA_HZ - 1e-6) / CAMERA_HZ for slot in slots]


def render_clip(split: Split, seed: int, index: int, spec: ClipSpec) -> RenderedClip:
    """Render one clip of a balanced split."""
    kitchen = episode(split, seed, index)
    return render_window(kitchen, start_of(split, seed, index), spec)


def render_window(kitchen: Episode, start_s: float, spec: ClipSpec) -> RenderedClip:
    """Render the window of an episode that begins at `start_s`."""
    times = frame_times(start_s, spec)
    height, width = spec.video.height, spec.video.width
    rgb = np.stack([resize_and_crop(kitchen.frame(t, *PICTURE), height, width) for t in times])
    sound = kitchen.audio(start_s, spec.duration, spec.audio.sample_rate)
    return RenderedClip(
        rgb=rgb,
        flow=clip_flow(rgb, spec.flow.bound),
        audio=audio_input(sound, spec.audio).astype(np.float16),
        detections=detection_input([kitchen.boxes(t) for t in times], spec.detections),
        labels=np.array([kitchen.verb_id, kitchen.noun_id], np.int64),
    )
