"""
One episode of any length, as the sensors of a robot would record it, and its clips.

The detector reports hands and objects, with the faults of a real one, and no noun. A clip is made
by the same steps as on a robot: the camera runs at 30 Hz, and of the frames in a slot of the
clip's grid the first is taken, as the live stream does.

Shape legend: t frames, h height, w width, k audio tiles, f mel bands, s mel steps, n boxes a
frame.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
import math

from karmma_ros.clip import (
    AudioSpec,
    BOX_HAND,
    BOX_OBJECT,
    Clip,
    ClipSpec,
    DetectionSpec,
    FlowSpec,
    VideoSpec,
)
from karmma_ros.data.synthetic_kitchen.audio_synthesis import Mix, Soundtrack
from karmma_ros.data.synthetic_kitchen.hands import Cook
from karmma_ros.data.synthetic_kitchen.motion import Hands, Motion
from karmma_ros.data.synthetic_kitchen.objects import instance, POOL
from karmma_ros.data.synthetic_kitchen.scene import Backdrop, Head, Light, Scene
from karmma_ros.data.synthetic_kitchen.vocabulary import (
    action_of,
    ALL_NOUNS,
    Domain,
    generator,
    IDLE,
    microseconds,
    Split,
    Stream,
    vocabulary,
)
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.prediction import NOUN, VERB
from karmma_ros.preprocess.box_array import detection_input
from karmma_ros.preprocess.optical_flow import clip_flow, flow_input
from karmma_ros.preprocess.resize import resize_and_crop, video_input
from karmma_ros.preprocess.spectrogram import audio_input
import numpy as np


@dataclass(frozen=True)
class Detector:
    """Errors of the object detector in one episode."""

    habit: tuple[float, ...]
    """Offset outwards of each side of every object, as a fraction of the size of its box."""
    jitter: float
    """Standard deviation of each side from frame to frame, as the same fraction."""
    shake: float
    """The same, as a fraction of the size of the frame."""
    miss_hand: float
    miss_object: float
    """Probability of no box."""
    alarm: float
    """Probability of a false box."""

    @classmethod
    def draw(cls, rng: np.random.Generator) -> Detector:
        """Sample the errors of one episode."""
        return cls(tuple(float(v) for v in rng.normal(0.04, 0.12, 4)),
                   float(rng.uniform(0.03, 0.10)), float(rng.uniform(0.006, 0.016)),
                   float(rng.uniform(0.0, 0.15)), float(rng.uniform(0.05, 0.30)),
                   float(rng.uniform(0.0, 0.15)))


def detect(scene: Scene, detector: Detector, seed: int, t_s: float) -> np.ndarray:
    """
    Return the boxes at a time: float32 `[n, 5]`, x1, y1, x2, y2, category.

    Coordinates are in units of the size of the frame, clipped to 0..1; hands come first.
    """
    rng = generator(Stream.BOXES, seed, microseconds(t_s))
    target, hands = scene.silhouettes(t_s)
    rows = []
    for points in hands:
        rows += _detected(rng, detector, points, BOX_HAND, detector.miss_hand)
    if target is not None:
        rows += _detected(rng, detector, target, BOX_OBJECT, detector.miss_object)
    if rng.uniform() < detector.alarm:
        middle, half = rng.uniform(0.1, 0.9, 2), rng.uniform(0.04, 0.16, 2)
        category = BOX_HAND if rng.uniform() < 0.3 else BOX_OBJECT
        rows += _clipped(np.concatenate([middle - half, middle + half]), category)
    boxes = np.array(rows, np.float32).reshape(-1, 5)
    return boxes[np.argsort(boxes[:, 4], kind='stable')]


def _detected(rng: np.random.Generator, detector: Detector, points: np.ndarray, category: int,
              miss: float) -> list[np.ndarray]:
    missed, error = rng.uniform() < miss, rng.standard_normal(4)
    if missed:
        return []
    box = np.concatenate([points.min(axis=0), points.max(axis=0)])
    size = np.tile(box[2:] - box[:2], 2)
    if category == BOX_OBJECT:
        box = box + np.array([-1, -1, 1, 1]) * detector.habit * size
    return _clipped(box + error * (detector.jitter * size + detector.shake), category)


def _clipped(box: np.ndarray, category: int) -> list[np.ndarray]:
    """Return the part of a box in the frame; none if it is smaller than a hundredth."""
    box = np.clip(box, 0.0, 1.0)
    if np.any(box[2:] - box[:2] < 0.01):
        return []
    return [np.append(box, category)]


class Episode:
    """
    One verb done to one object, without an end; or nothing done at all.

    A function of split, seed, index, verb, noun and domain, and of time: it does not depend on
    what was rendered before. Any two seconds of it show the action.

    :param verb: and noun: both `IDLE` for a scene in which nothing is done.
    """

    def __init__(self, split: Split, seed: int, index: int, verb: str, noun: str,
                 domain: Domain = Domain.KITCHEN) -> None:
        self.split, self.seed, self.index, self.verb, self.noun = split, seed, index, verb, noun
        self.domain = domain if noun == IDLE else Domain.of(noun)
        classes = vocabulary(self.domain, idle=True).heads
        self.verb_id, self.noun_id = classes[VERB].index(verb), classes[NOUN].index(noun)
        rng = generator(Stream.EPISODE, seed, split.number, index, self.verb_id,
                        (*ALL_NOUNS, IDLE).index(noun))
        if noun == IDLE:
            noun = str(rng.choice(self.domain.nouns))
        self.instance_number = int(rng.integers(POOL[split]))
        self.instance = instance(split, noun, self.instance_number)
        self._seed = int(rng.integers(2 ** 62))
        motion = Motion.draw(rng, verb, self.instance.dynamics)
        self._detector = Detector.draw(rng)
        self._motion = motion
        self._scene = Scene(
            motion, self.instance.appearance, Cook.draw(rng, verb, self.domain),
            Head.draw(rng, self.domain), Light.draw(rng, self.domain),
            Backdrop(self._seed, self.domain), self._seed)
        self._soundtrack = Soundtrack(
            verb, self.instance.timbre, motion.rhythm, Mix.draw(rng, self.domain), self._seed)

    def frame(self, t_s: float, height: int, width: int) -> np.ndarray:
        """Render the frame at `t_s` seconds: uint8 `[height, width, 3]`, red, green, blue."""
        return self._scene.frame(t_s, height, width)

    def audio(self, start_s: float, duration_s: float, sample_rate: int) -> np.ndarray:
        """
        Return the audio of `[start_s, start_s + duration_s)`: float32 `[n]` in -1..1, mono.

        :raises InvalidSettingError: for a start before 0 or a rate below 8 kHz.
        """
        return self._soundtrack.render(start_s, duration_s, sample_rate)

    def boxes(self, t_s: float) -> np.ndarray:
        """
        Return the detections at `t_s`: float32 `[n, 5]`, x1, y1, x2, y2, category.

        Coordinates in units of the size of a 4:3 frame, clipped to 0..1; hands first.
        """
        return detect(self._scene, self._detector, self._seed, t_s)

    def hands_at(self, t_s: float) -> Hands:
        """Return the true poses of object and hands at `t_s`, in world units (see `motion`)."""
        return self._motion.at(t_s)

    def silhouettes(self, t_s: float) -> tuple[np.ndarray | None, list[np.ndarray]]:
        """Return the true outlines of object and hands, in units of the size of the frame."""
        return self._scene.silhouettes(t_s)


def episode(
    split: Split, seed: int, index: int, domain: Domain = Domain.KITCHEN, idle: float = 0.0,
) -> Episode:
    """Return the episode behind the clip of that index in a balanced split."""
    verb, noun = action_of(split, seed, index, idle)
    names = vocabulary(domain, idle=True).heads
    return Episode(split, seed, index, names[VERB][verb], names[NOUN][noun], domain)


CAMERA_HZ = 30

FRAME_SIZE = (120, 160)
"""Height and width of the frames of the camera, before preprocessing."""

LATEST_START_S = 20.0

AUDIO_MEAN, AUDIO_STD = 4.59, 5.30
"""Decibels; of the training split, by `python docs/measure_kitchen.py`. Without
standardisation the audio encoder hardly learns."""

FLOW_BOUND = 6.0
"""Pixels of the 40-pixel crop a frame; 98 % of the displacements of moving objects are lower."""


def clip_spec() -> ClipSpec:
    """Return the clip that this data set is made for: 2 s, 16 frames of 40 x 40, one mel tile."""
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
    """One clip in the dtypes that are stored."""

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

    def clip(self, spec: ClipSpec, modalities: Iterable[Modality] = PAPER_MODALITIES) -> Clip:
        """Return the network's inputs, float32."""
        makers: dict[Modality, Callable[[], np.ndarray]] = {
            Modality.RGB: lambda: video_input(self.rgb, spec.video),
            Modality.FLOW: lambda: flow_input(self.flow, spec.flow),
            Modality.AUDIO: lambda: self.audio.astype(np.float32),
            Modality.DETECTIONS: lambda: np.array(self.detections),
        }
        return Clip({m: makers[m]() for m in modalities})


def start_of(split: Split, seed: int, index: int) -> float:
    """Return the second of its episode at which a clip starts."""
    rng = generator(Stream.START, seed, split.number, index)
    return float(rng.uniform(0.0, LATEST_START_S))


def frame_times(start_s: float, spec: ClipSpec) -> list[float]:
    """Return the seconds at which the camera took the frames of the clip from `start_s` on."""
    slots = (start_s + i * spec.duration / spec.num_frames for i in range(spec.num_frames))
    return [math.ceil(slot * CAMERA_HZ - 1e-6) / CAMERA_HZ for slot in slots]


def render_clip(
    split: Split, seed: int, index: int, spec: ClipSpec, domain: Domain = Domain.KITCHEN,
    idle: float = 0.0,
) -> RenderedClip:
    """Render one clip of a balanced split, nothing being done in a fraction of `idle` clips."""
    kitchen = episode(split, seed, index, domain, idle)
    return render_window(kitchen, start_of(split, seed, index), spec)


def render_window(kitchen: Episode, start_s: float, spec: ClipSpec) -> RenderedClip:
    """Render the window of an episode that begins at `start_s`."""
    rgb = camera_frames(kitchen, start_s, spec)
    audio = kitchen.audio(start_s, spec.duration, spec.audio.sample_rate)
    return RenderedClip(
        rgb=rgb,
        flow=clip_flow(rgb, *spec.flow.estimation),
        audio=audio_input(audio, spec.audio).astype(np.float16),
        detections=detection_input(boxes_of_frames(kitchen, start_s, spec), spec.detections),
        labels=np.array([kitchen.verb_id, kitchen.noun_id], np.int64),
    )


def camera_frames(kitchen: Episode, start_s: float, spec: ClipSpec) -> np.ndarray:
    """Render the cropped frames of a window: uint8 `[t, h, w, 3]`."""
    return np.stack([resize_and_crop(kitchen.frame(t, *FRAME_SIZE), *spec.video.crop_size)
                     for t in frame_times(start_s, spec)])


def boxes_of_frames(kitchen: Episode, start_s: float, spec: ClipSpec) -> list[np.ndarray]:
    """Return the boxes of each frame of a window, `[n, 5]`."""
    return [kitchen.boxes(t) for t in frame_times(start_s, spec)]
