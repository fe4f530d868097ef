"""
All sensors of one person or robot: what came in, what of it can be used, the next window.

A camera feeds RGB and flow, unless flow has a topic of its own; a microphone feeds audio;
a detector feeds detections.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import ceil

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.detections import check_boxes
from karmma_ros.preprocess.flow import check_displacement
from karmma_ros.preprocess.spectrogram import check_rate
from karmma_ros.stream.availability import Finding, ModalityState, ModalityStatus
from karmma_ros.stream.buffers import (
    AudioBuffer,
    DetectionBuffer,
    Frame,
    FrameBuffer,
    JITTER_NS,
)
from karmma_ros.stream.frame_buffer import FlowBuffer, FlowImage
from karmma_ros.stream.source import Buffer, Coverage, InputSource
from karmma_ros.stream.window import FlowCache, Window
import numpy as np
from numpy.typing import NDArray

UNSTAMPED_AUDIO_TOLERANCE_NS = 500_000_000
"""Sound without stamps is laid end to end unless it comes later than this."""


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


class SensorStream:
    """
    Take samples as they come, say what can be used, cut windows.

    Freshness is judged by receipt (`now_ns`, any clock of the caller's), alignment by stamp.
    `stamp_ns` 0 means that there is none: the time of receipt is used. A sample that cannot
    be used is dropped and counted, never raised: each `add_…` gives the reason, or '' when
    the sample was taken. Nothing here is expensive, so that one lock may guard it all; what
    is, `Window.clip()`, needs no lock.

    :raises InvalidSettingError: when a modality has no settings.

    >>> from karmma_ros.clip import ClipSpec, VideoSpec
    >>> from karmma_ros.modality import Modality
    >>> from karmma_ros.stream.sensor_stream import InputSettings, SensorStream
    >>> import numpy as np
    >>> spec = ClipSpec(duration=1.0, num_frames=4, video=VideoSpec(32, 32))
    >>> stream = SensorStream(spec, [Modality.RGB], {Modality.RGB: InputSettings(500_000_000)})
    >>> for time_ns in range(1_000_000_000, 2_000_000_001, 100_000_000):
    ...     problem = stream.add_image(np.zeros((48, 64, 3), np.uint8), time_ns, time_ns)
    >>> window = stream.window(now_ns=2_000_000_000)
    >>> [str(modality) for modality in window.modalities], window.end_ns
    (['rgb'], 2000000000)
    """

    def __init__(
        self,
        spec: ClipSpec,
        modalities: Iterable[Modality],
        settings: Mapping[Modality, InputSettings],
        flow_topic: bool = False,
        hop: int = 0,
    ) -> None:
        """
        Start empty.

        :param hop: windows end with a whole number of this many frames (`hop_for`), one for
            each, so that a streaming network meets its chunks again; 0: with any sample.
        """
        self.hop = hop
        self._spec, self._modalities = spec, in_order(modalities)
        self._camera = FrameBuffer(spec)
        self._flow = FlowBuffer(spec)
        self._microphone = AudioBuffer(spec)
        self._detector = DetectionBuffer(spec)
        buffers: dict[Modality, Buffer] = {
            Modality.RGB: self._camera, Modality.FLOW: self._flow,
            Modality.AUDIO: self._microphone, Modality.DETECTIONS: self._detector}
        self._sensors = {
            m: InputSource(buffer, 1, spec.duration_ns) for m, buffer in buffers.items()
        }
        self._flow_cache = FlowCache(spec.flow.bound)
        self._last_end_ns: int | None = None
        self.configure(settings, flow_topic)

    def configure(
        self, settings: Mapping[Modality, InputSettings], flow_topic: bool | None = None,
    ) -> None:
        """
        Take new settings; what they do not touch goes on undisturbed.

        A sensor that nothing needs any more forgets all its samples at once.

        :param flow_topic: whether flow is added, or computed from the camera; None leaves
            that as it is.
        :raises InvalidSettingError: when a modality has no settings; the old ones stay.
        """
        self._settings = {m: _setting(m, settings) for m in self._modalities}
        if flow_topic is not None:
            self._flow_topic = flow_topic
        self._inputs = {m: self._sensors[self._source(m)]
                        for m, setting in self._settings.items() if setting.enabled}
        for modality, sensor in reversed(self._inputs.items()):  # RGB's timeout before flow's
            sensor.timeout_ns = self._settings[modality].timeout_ns
        for source, sensor in self._sensors.items():
            if self._used(source) is None:
                sensor.clear()
        if self._inputs.get(Modality.FLOW) is not self._sensors[Modality.RGB]:
            self._flow_cache = FlowCache(self._spec.flow.bound)

    @property
    def nbytes(self) -> int:
        """Return the memory held by samples."""
        return sum(sensor.buffer.nbytes for sensor in self._sensors.values())

    @property
    def newest_frame_ns(self) -> int | None:
        """
        Return the stamp of the newest picture that a window may show.

        It is the camera's, or that of a flow with a topic of its own where nothing else is seen;
        None without either.
        """
        return next((camera.buffer.newest_ns for camera in self._cameras()), None)

    def wants_image(self, stamp_ns: int, now_ns: int) -> bool:
        """
        Return whether to decode a camera image and add it.

        False when its slot in time is filled (the image counts as received all the same)
        and when nothing uses the camera.
        """
        camera = self._used(Modality.RGB)
        return camera is not None and not camera.passes(stamp_ns or now_ns, now_ns)

    def wants_flow(self, stamp_ns: int, now_ns: int) -> bool:
        """Tell the same of a flow message."""
        sensor = self._used(Modality.FLOW)
        if sensor is None:
            return False
        passes = sensor.passes(stamp_ns or now_ns, now_ns)
        if passes:
            self._flow.note(stamp_ns or now_ns)
        return not passes

    def add_image(self, image: NDArray[np.uint8], stamp_ns: int, now_ns: int) -> str:
        """Take an RGB image uint8 `[h, w, 3]` of any size; it is copied."""
        def take(camera: InputSource, stamp_ns: int) -> int:
            check_array('image', image, np.uint8, ('h', 'w', 3))
            camera.admit(stamp_ns, stamp_ns, now_ns)
            self._camera.add(image, stamp_ns)
            return stamp_ns
        return self._add(Modality.RGB, take, stamp_ns, now_ns)

    def add_flow(self, flow: NDArray[np.float32], stamp_ns: int, now_ns: int) -> str:
        """
        Take displacements float32 `[h, w, 2]` of any size, in its pixels since the frame before.

        The stamp is that of the later frame.
        """
        def take(sensor: InputSource, stamp_ns: int) -> int:
            check_displacement(flow)
            sensor.admit(stamp_ns, stamp_ns, now_ns)
            self._flow.add(flow, stamp_ns)
            return stamp_ns
        return self._add(Modality.FLOW, take, stamp_ns, now_ns)

    def add_audio(
        self, samples: NDArray[np.float32], sample_rate: int, stamp_ns: int, now_ns: int,
    ) -> str:
        """
        Take mono sound float32 `[n]`; the stamp is that of its first sample.

        Without a stamp the chunk ends at the time of receipt.
        """
        tolerance_ns = JITTER_NS if stamp_ns else UNSTAMPED_AUDIO_TOLERANCE_NS

        def take(microphone: InputSource, _: int) -> int:
            _check_sound(samples, sample_rate)
            length_ns = len(samples) * NANOSECONDS // sample_rate
            start_ns = stamp_ns or max(0, now_ns - length_ns)
            microphone.admit(start_ns, start_ns + length_ns, now_ns)
            self._microphone.add(samples, sample_rate, start_ns, tolerance_ns)
            return start_ns
        return self._add(Modality.AUDIO, take, stamp_ns, now_ns)

    def add_detections(self, boxes: NDArray[np.float32], stamp_ns: int, now_ns: int) -> str:
        """
        Take the boxes of one message, float32 `[n, 5]`: x1, y1, x2, y2 in 0..1, category.

        No box at all is a message too: nothing was seen.
        """
        def take(detector: InputSource, stamp_ns: int) -> int:
            check_boxes(boxes)
            detector.admit(stamp_ns, stamp_ns, now_ns)
            self._detector.add(boxes, stamp_ns)
            return stamp_ns
        return self._add(Modality.DETECTIONS, take, stamp_ns, now_ns)

    def reject(self, modality: Modality, reason: str, now_ns: int) -> None:
        """Count a message that could not even be decoded."""
        sensor = self._used(self._source(modality))
        if sensor is not None:
            sensor.receipts.drop(reason, now_ns)

    def set_finding(self, source: Modality, check: str, finding: Finding | None) -> None:
        """
        Set what a content check found in the messages of one input; None withdraws it.

        A finding that is not usable makes the modality INVALID, with the text as its detail, and
        its samples are not used; any other is a warning beside the state.

        :param source: whose messages they are; flow that is computed shares the camera's findings.
        :param check: names the check: each has one finding at a time.
        """
        self._sensors[source].set_finding(check, finding)

    def restart(self, source: Modality) -> None:
        """Clear the samples of one input, as when they were decoded with other settings."""
        self._sensors[source].restart()

    def assess(self, now_ns: int) -> tuple[ModalityStatus, ...]:
        """Return the status of every modality there is, in canonical order."""
        return self._assess(now_ns, self._end_ns(now_ns))

    def window(self, now_ns: int) -> Window | None:
        """
        Cut the window that ends at the newest sample, if there is one to cut.

        None when no modality is available, and when no sample is newer than the window
        before: no two in a row have the same end.
        """
        end_ns = self._end_ns(now_ns)
        if end_ns is not None and self.hop:
            end_ns = self._whole_hops_ns(end_ns, now_ns)
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
        for sensor in self._sensors.values():
            sensor.clear()
        self._flow_cache = FlowCache(self._spec.flow.bound)
        self._last_end_ns = None

    def _add(
        self,
        source: Modality,
        take: Callable[[InputSource, int], int],
        stamp_ns: int,
        now_ns: int,
    ) -> str:
        """
        Let a sensor take a sample.

        :param take: called with the sensor and the stamp, or the time of receipt where there is
            none; it gives the stamp to note, and raises what is wrong with the sample.
        """
        sensor = self._used(source)
        if sensor is None:
            return 'nothing uses this input'
        try:
            noted_ns = take(sensor, stamp_ns or now_ns)
        except InvalidSampleError as error:
            return sensor.drop(error, now_ns)
        sensor.receipts.take(noted_ns, now_ns)
        return ''

    def _source(self, modality: Modality) -> Modality:
        """Return the modality whose sensor serves this one."""
        computed = modality is Modality.FLOW and not self._flow_topic
        return Modality.RGB if computed else modality

    def _used(self, source: Modality) -> InputSource | None:
        """Return a sensor if anything that is switched on takes it."""
        sensor = self._sensors[source]
        return sensor if any(each is sensor for each in self._inputs.values()) else None

    def _cameras(self) -> list[InputSource]:
        """Return the sensors in use that bring pictures."""
        used = (self._used(Modality.RGB), self._used(Modality.FLOW))
        return [camera for camera in used if camera is not None]

    def _end_ns(self, now_ns: int) -> int | None:
        """
        Return the newest stamp among fresh inputs that are usable; None without any.

        Should their clocks differ by more than a window, the largest group that agrees
        decides (the one with the first modality, among equals): one foreign clock must not
        put out all others.
        """
        newest = [s.buffer.newest_ns for s in self._inputs.values()
                  if s.usable and s.fresh(now_ns)]
        stamps = [stamp for stamp in newest if stamp is not None]
        groups = [[other for other in stamps if abs(other - stamp) <= self._spec.duration_ns]
                  for stamp in stamps]
        largest = max(groups, key=len, default=[])
        return max(largest, default=None)

    def _whole_hops_ns(self, end_ns: int, now_ns: int) -> int:
        """
        Return the end of the last whole hop of pictures; the end as it is without fresh ones.

        The last slot has its picture, or never will: else the chunk with it would be encoded
        anew when it comes.
        """
        newest = [c.buffer.newest_ns for c in self._cameras() if c.fresh(now_ns)]
        stamps = [stamp for stamp in newest if stamp is not None]
        if not stamps:
            return end_ns
        period_ns = self._spec.frame_period_ns
        slot = min(stamps) // period_ns
        whole = (slot + 1) // self.hop * self.hop
        return min(end_ns, whole * period_ns - 1)

    def _step(self, end_ns: int) -> int:
        """Return a number that one window alone may end at."""
        return (end_ns // self._spec.frame_period_ns + 1) // self.hop if self.hop else end_ns

    def _is_new(self, end_ns: int) -> bool:
        last_ns = self._last_end_ns
        if last_ns is None or self._step(end_ns) > self._step(last_ns):
            return True
        # So far back it is another clock: one has jumped, or inputs by a later one fell silent.
        # A step back by less gives no window until the stamps catch up. Starting anew would be
        # no quicker, for half of a window would have to be covered first.
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
        state, detail = sensor.judge(coverage, end_ns, now_ns)
        if detail and self._source(modality) is not modality:
            detail = f'derived from the camera: {detail}'
        shared = self._source(modality) is not modality and Modality.RGB in self._inputs
        receipts = sensor.receipts
        return ModalityStatus(
            modality, state, receipts.last_stamp_ns, receipts.age_ns(now_ns), sensor.timeout_ns,
            coverage.samples, receipts.rate(now_ns, sensor.timeout_ns), receipts.dropped, detail,
            '' if shared else sensor.warning)

    def _coverage(self, modality: Modality, end_ns: int | None) -> Coverage:
        share = self._settings[modality].min_coverage
        t = self._spec.num_frames
        if modality is Modality.AUDIO:
            heard = 0 if end_ns is None else self._microphone.heard(end_ns)
            n, rate = self._spec.audio_samples, self._spec.audio.sample_rate
            return Coverage(heard, heard, ceil(share * n), f'{n / rate:g} s of sound', rate)
        if modality is Modality.DETECTIONS:
            places = [] if end_ns is None else self._detector.select(end_ns)
            own, messages = sum(p >= 0 for p in places), len({p for p in places if p >= 0})
            return Coverage(messages, own, ceil(share * t), f'{t} frames with boxes')
        computed = self._source(modality) is Modality.RGB
        buffer = self._camera if computed else self._flow
        own = 0 if end_ns is None else buffer.own_slots(end_ns)
        needed = ceil(share * t)
        if modality is Modality.FLOW and computed:
            needed = max(needed, min(2, t))  # one frame alone cannot show movement
        return Coverage(own, own, needed, f'{t} frames')

    def _cut(
        self, end_ns: int, available: tuple[Modality, ...], statuses: tuple[ModalityStatus, ...],
    ) -> Window:
        spans: dict[Modality, tuple[int, int]] = {}
        frames: tuple[Frame, ...] = ()
        flows: tuple[FlowImage, ...] = ()
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
            elif self._source(modality) is Modality.FLOW:
                flows = self._flow.select(end_ns)
                spans[modality] = _span(flows)
            else:
                frames = self._camera.select(end_ns)
                spans[modality] = _span(frames)
        return Window(
            self._spec, end_ns - self._spec.duration_ns, end_ns, available, statuses, spans,
            frames, audio, heard, boxes, self._flow_cache, tuple(flow.image for flow in flows),
            self._microphone.first(end_ns), self._microphone.spectrogram)


def _span(samples: Sequence[Frame | FlowImage]) -> tuple[int, int]:
    stamps = [sample.stamp_ns for sample in samples]
    return min(stamps), max(stamps)


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
        raise InvalidSampleError('audio: got NaN or infinity; expected finite samples')
