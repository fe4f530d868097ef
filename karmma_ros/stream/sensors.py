"""
All sensors of one person or robot: what came in, what of it can be used, the next window.

A camera feeds RGB and flow; a microphone feeds audio; a detector feeds detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import ceil
from typing import Union

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.detections import check_boxes
from karmma_ros.preprocess.resampling import check_rate
from karmma_ros.stream.availability import ModalityState, ModalityStatus
from karmma_ros.stream.buffers import AudioBuffer, DetectionBuffer, Frame, FrameBuffer
from karmma_ros.stream.receipts import Receipts
from karmma_ros.stream.timeline import Fit, Timeline
from karmma_ros.stream.window import FlowMemo, Window
import numpy as np
from numpy.typing import NDArray

UNSTAMPED_AUDIO_TOLERANCE_NS = 500_000_000
"""Sound without stamps is laid end to end unless it comes later than this."""

_CAMERA = (Modality.RGB, Modality.FLOW)


@dataclass(frozen=True)
class InputSettings:
    """When one modality counts as available."""

    timeout_ns: int
    """It is stale when its last good sample is older than this."""
    enabled: bool = True
    min_coverage: float = 0.5
    """Part of the window that must hold samples of its own, above 0 to 1."""

    def __post_init__(self) -> None:
        if not self.timeout_ns > 0:
            raise InvalidSettingError('timeout_ns', self.timeout_ns, 'a number above 0')
        if not 0 < self.min_coverage <= 1:
            raise InvalidSettingError(
                'min_coverage', self.min_coverage, 'a number above 0 and at most 1')


_Buffer = Union[FrameBuffer, AudioBuffer, DetectionBuffer]


class _Input:
    """One sensor: its buffer and what is known of its messages."""

    def __init__(self, buffer: _Buffer, timeout_ns: int, span_ns: int) -> None:
        self.buffer = buffer
        self.timeout_ns = timeout_ns
        self.receipts = Receipts()
        self.timeline = Timeline(span_ns)

    def fresh(self, now_ns: int) -> bool:
        return self.receipts.fresh(now_ns, self.timeout_ns)

    def clear(self) -> None:
        self.buffer.clear()
        self.receipts.clear()
        self.timeline.clear()


class SensorStream:
    """
    Take samples as they come, say what can be used, cut windows.

    Freshness is judged by receipt (`now_ns`, any clock of the caller's), alignment by stamp.
    `stamp_ns` 0 means that there is none: the time of receipt is used. A sample that cannot
    be used is dropped and counted, never raised: each `add_…` gives the reason, or '' when
    the sample was taken. Nothing here is expensive, so that one lock may guard it all; what
    is, `Window.clip()`, needs no lock.

    :raises InvalidSettingError: when a modality has no settings.
    """

    def __init__(
        self,
        spec: ClipSpec,
        modalities: Iterable[Modality],
        settings: Mapping[Modality, InputSettings],
    ) -> None:
        self._spec = spec
        self._settings = {m: _setting(m, settings) for m in in_order(modalities)}
        self._camera = FrameBuffer(spec)
        self._microphone = AudioBuffer(spec)
        self._detector = DetectionBuffer(spec)
        self._inputs = self._make_inputs()
        self._flow_memo = FlowMemo(spec.flow.bound)
        self._last_end_ns: int | None = None

    @property
    def nbytes(self) -> int:
        """Give the memory held by samples."""
        return self._camera.nbytes + self._microphone.nbytes + self._detector.nbytes

    def wants_image(self, stamp_ns: int, now_ns: int) -> bool:
        """
        Tell whether to decode a camera image and add it.

        False when its slot in time is filled (the image counts as received all the same)
        and when nothing uses the camera.
        """
        camera = self._input(*_CAMERA)
        if camera is None:
            return False
        stamp_ns = stamp_ns or now_ns
        fits = stamp_ns >= 0 and camera.timeline.fits(stamp_ns, stamp_ns, now_ns)
        if not fits or self._camera.wants(stamp_ns):
            return True
        camera.timeline.admit(stamp_ns, stamp_ns, now_ns)
        camera.receipts.take(stamp_ns, now_ns)
        return False

    def add_image(self, image: NDArray[np.uint8], stamp_ns: int, now_ns: int) -> str:
        """Take an RGB image uint8 `[h, w, 3]` of any size; it is copied."""
        camera = self._input(*_CAMERA)
        if camera is None:
            return 'the camera is not used'
        stamp_ns = stamp_ns or now_ns
        try:
            check_array('image', image, np.uint8, ('h', 'w', 3))
            self._admit(camera, stamp_ns, stamp_ns, now_ns)
            self._camera.add(image, stamp_ns)
        except InvalidSampleError as error:
            return _drop(camera, error, now_ns)
        camera.receipts.take(stamp_ns, now_ns)
        return ''

    def add_audio(
        self, samples: NDArray[np.float32], sample_rate: int, stamp_ns: int, now_ns: int,
    ) -> str:
        """
        Take mono sound float32 `[n]`; the stamp is that of its first sample.

        Without a stamp the chunk ends at the time of receipt.
        """
        microphone = self._input(Modality.AUDIO)
        if microphone is None:
            return 'audio is not used'
        try:
            _check_sound(samples, sample_rate)
            length_ns = len(samples) * NANOSECONDS // sample_rate
            start_ns = stamp_ns or max(0, now_ns - length_ns)
            self._admit(microphone, start_ns, start_ns + length_ns, now_ns)
            if stamp_ns:
                self._microphone.add(samples, sample_rate, start_ns)
            else:
                self._microphone.add(
                    samples, sample_rate, start_ns, UNSTAMPED_AUDIO_TOLERANCE_NS)
        except InvalidSampleError as error:
            return _drop(microphone, error, now_ns)
        microphone.receipts.take(start_ns, now_ns)
        return ''

    def add_detections(self, boxes: NDArray[np.float32], stamp_ns: int, now_ns: int) -> str:
        """
        Take the boxes of one message, float32 `[n, 5]`: x1, y1, x2, y2 in 0..1, category.

        No box at all is a message too: nothing was seen.
        """
        detector = self._input(Modality.DETECTIONS)
        if detector is None:
            return 'detections are not used'
        stamp_ns = stamp_ns or now_ns
        try:
            check_boxes(boxes)
            self._admit(detector, stamp_ns, stamp_ns, now_ns)
            self._detector.add(boxes, stamp_ns)
        except InvalidSampleError as error:
            return _drop(detector, error, now_ns)
        detector.receipts.take(stamp_ns, now_ns)
        return ''

    def reject(self, modality: Modality, reason: str, now_ns: int) -> None:
        """Count a message that could not even be decoded."""
        sensor = self._inputs.get(modality) or (
            self._input(*_CAMERA) if modality in _CAMERA else None)
        if sensor is not None:
            sensor.receipts.drop(reason, now_ns)

    def assess(self, now_ns: int) -> tuple[ModalityStatus, ...]:
        """Give the status of every modality there is, in canonical order."""
        return self._assess(now_ns, self._end_ns(now_ns))

    def window(self, now_ns: int) -> Window | None:
        """
        Cut the window that ends at the newest sample, if there is one to cut.

        None when no modality is available, and when no sample is newer than the window
        before: no two in a row have the same end.
        """
        end_ns = self._end_ns(now_ns)
        if end_ns is None or not self._is_new(end_ns):
            return None
        statuses = self._assess(now_ns, end_ns)
        available = tuple(s.modality for s in statuses if s.available)
        if not available:
            return None
        self._last_end_ns = end_ns
        return self._cut(end_ns, available, statuses)

    def clear(self) -> None:
        """Forget all samples and times, as when the clock has jumped; counts stay."""
        for sensor in self._inputs.values():
            sensor.clear()
        self._last_end_ns = None

    def _make_inputs(self) -> dict[Modality, _Input]:
        """Give each modality in use its sensor; RGB and flow share one."""
        buffers: dict[Modality, _Buffer] = {
            Modality.RGB: self._camera, Modality.FLOW: self._camera,
            Modality.AUDIO: self._microphone, Modality.DETECTIONS: self._detector}
        inputs: dict[Modality, _Input] = {}
        for modality, setting in self._settings.items():
            if not setting.enabled:
                continue
            twin = inputs.get(Modality.RGB) if modality is Modality.FLOW else None
            inputs[modality] = twin or _Input(
                buffers[modality], setting.timeout_ns, self._spec.duration_ns)
        return inputs

    def _input(self, *modalities: Modality) -> _Input | None:
        return next((self._inputs[m] for m in modalities if m in self._inputs), None)

    def _admit(self, sensor: _Input, start_ns: int, stop_ns: int, now_ns: int) -> None:
        """Hold a stamp against the sensor's timeline; restart there if it has jumped."""
        if start_ns < 0:
            raise InvalidSampleError(f'stamp: got {start_ns} ns; it may be 0 or more')
        fit = sensor.timeline.admit(start_ns, stop_ns, now_ns)
        if fit is Fit.DROP:
            raise InvalidSampleError(sensor.timeline.misfit(start_ns))
        if fit is Fit.RESTART:
            sensor.buffer.clear()
            sensor.receipts.restart(start_ns)

    def _end_ns(self, now_ns: int) -> int | None:
        """
        Give the newest stamp among fresh inputs; None without any.

        Should their clocks differ by more than a window, the largest group that agrees
        decides (the one with the first modality, among equals): one foreign clock must not
        put out all others.
        """
        newest = [s.buffer.newest_ns for s in self._inputs.values() if s.fresh(now_ns)]
        stamps = [stamp for stamp in newest if stamp is not None]
        groups = [[other for other in stamps if abs(other - stamp) <= self._spec.duration_ns]
                  for stamp in stamps]
        largest = max(groups, key=len, default=[])
        return max(largest, default=None)

    def _is_new(self, end_ns: int) -> bool:
        last_ns = self._last_end_ns
        if last_ns is None or end_ns > last_ns:
            return True
        # So far back it is another clock: one has jumped, or inputs by a later one fell silent.
        return end_ns <= last_ns - self._spec.duration_ns

    def _assess(self, now_ns: int, end_ns: int | None) -> tuple[ModalityStatus, ...]:
        return tuple(self._status(modality, now_ns, end_ns) for modality in Modality)

    def _status(self, modality: Modality, now_ns: int, end_ns: int | None) -> ModalityStatus:
        sensor = self._inputs.get(modality)
        if sensor is None:
            taken = modality in self._settings
            why = 'disabled by its setting' if taken else 'the model does not take it'
            return ModalityStatus(modality, ModalityState.DISABLED, detail=why)
        coverage = self._coverage(modality, end_ns)
        state, detail = _judge(sensor, coverage, self._offset(sensor, end_ns), now_ns)
        if detail and modality is Modality.FLOW:
            detail = f'derived from the camera: {detail}'
        receipts = sensor.receipts
        return ModalityStatus(
            modality, state, receipts.last_stamp_ns, receipts.age_ns(now_ns), sensor.timeout_ns,
            coverage.samples, receipts.rate(now_ns, sensor.timeout_ns), receipts.dropped, detail)

    def _coverage(self, modality: Modality, end_ns: int | None) -> _Coverage:
        share = self._settings[modality].min_coverage
        t = self._spec.num_frames
        if modality is Modality.AUDIO:
            heard = 0 if end_ns is None else self._microphone.heard(end_ns)
            n, rate = self._spec.audio_samples, self._spec.audio.sample_rate
            return _Coverage(heard, heard, ceil(share * n), f'{n / rate:g} s of sound', rate)
        if modality is Modality.DETECTIONS:
            places = [] if end_ns is None else self._detector.select(end_ns)
            own, messages = sum(p >= 0 for p in places), len({p for p in places if p >= 0})
            return _Coverage(messages, own, ceil(share * t), f'{t} frames with boxes')
        own = 0 if end_ns is None else self._camera.own_slots(end_ns)
        needed = ceil(share * t)
        if modality is Modality.FLOW:
            needed = max(needed, min(2, t))  # one frame alone cannot show movement
        return _Coverage(own, own, needed, f'{t} frames')

    def _offset(self, sensor: _Input, end_ns: int | None) -> str:
        """Say by how much a sensor's clock is off the window; '' if it is not."""
        newest_ns = sensor.buffer.newest_ns
        if newest_ns is None or end_ns is None:
            return ''
        ahead = (newest_ns - end_ns) / NANOSECONDS
        if abs(ahead) <= self._spec.duration:
            return ''
        direction = 'ahead of' if ahead > 0 else 'behind'
        return f'its stamps are {abs(ahead):.3f} s {direction} the others: their clocks differ'

    def _cut(
        self, end_ns: int, available: tuple[Modality, ...], statuses: tuple[ModalityStatus, ...],
    ) -> Window:
        spans: dict[Modality, tuple[int, int]] = {}
        frames: tuple[Frame, ...] = ()
        audio = heard = boxes = None
        for modality in available:
            if modality is Modality.AUDIO:
                audio, heard = self._microphone.read(end_ns)
                spans[modality] = self._microphone.span_ns(end_ns)
            elif modality is Modality.DETECTIONS:
                places = self._detector.select(end_ns)
                boxes = self._detector.boxes(places)
                stamps = self._detector.stamps_ns(places)
                spans[modality] = stamps[0], stamps[-1]
            else:
                frames = self._camera.select(end_ns)
                stamps = [frame.stamp_ns for frame in frames]
                spans[modality] = min(stamps), max(stamps)
        return Window(
            self._spec, end_ns - self._spec.duration_ns, end_ns, available, statuses, spans,
            frames, audio, heard, boxes, self._flow_memo)


@dataclass(frozen=True)
class _Coverage:
    """How well one modality covers the window."""

    samples: int
    own: int
    needed: int
    whole: str
    per: int = 1
    """Samples in one of the unit that people read."""

    @property
    def shortfall(self) -> str:
        return f'{self.own / self.per:g} of {self.whole}; it needs {self.needed / self.per:g}'


def _judge(
    sensor: _Input, coverage: _Coverage, offset: str, now_ns: int,
) -> tuple[ModalityState, str]:
    """Give a sensor's state and, unless it is available, the reason."""
    receipts, timeout_ns = sensor.receipts, sensor.timeout_ns
    if sensor.fresh(now_ns):
        if coverage.own >= coverage.needed:
            return ModalityState.AVAILABLE, ''
        return ModalityState.INSUFFICIENT, offset or coverage.shortfall
    if receipts.failing(now_ns, timeout_ns):
        return ModalityState.INVALID, receipts.reason
    if not receipts.received:
        return ModalityState.NEVER_RECEIVED, 'nothing received'
    age, timeout = receipts.age_ns(now_ns) / NANOSECONDS, timeout_ns / NANOSECONDS
    return ModalityState.STALE, f'last sample {age:.1f} s ago; the timeout is {timeout:g} s'


def _setting(
    modality: Modality, settings: Mapping[Modality, InputSettings],
) -> InputSettings:
    try:
        return settings[modality]
    except KeyError:
        raise InvalidSettingError(
            f'settings of {modality}', None, 'an InputSettings: the model takes it') from None


def _check_sound(samples: NDArray[np.float32], sample_rate: int) -> None:
    check_rate(sample_rate)
    check_array('audio', samples, np.float32, ('n',))
    if not np.isfinite(samples).all():
        raise InvalidSampleError('audio: got NaN or infinity; it may be finite samples')


def _drop(sensor: _Input, error: InvalidSampleError, now_ns: int) -> str:
    sensor.receipts.drop(str(error), now_ns)
    return str(error)
