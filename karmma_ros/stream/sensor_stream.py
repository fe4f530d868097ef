"""
The inputs of one person or robot: received samples, their availability and the next window.

A camera is the input of RGB and flow, unless flow has a topic of its own; a microphone of audio;
a detector of detections.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from math import ceil

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modality import in_order, listed, Modality
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.detections import check_boxes
from karmma_ros.preprocess.flow import check_displacement, check_video_size
from karmma_ros.preprocess.spectrogram import check_rate
from karmma_ros.stream.audio_buffer import AudioBuffer, JITTER_NS
from karmma_ros.stream.availability import Finding, ModalityState, ModalityStatus
from karmma_ros.stream.buffers import DetectionBuffer, FlowBuffer, FlowFrame, Frame, FrameBuffer
from karmma_ros.stream.source import InputSettings, InputSource
from karmma_ros.stream.window import FlowCache, Window
import numpy as np
from numpy.typing import NDArray

UNSTAMPED_AUDIO_TOLERANCE_NS = 500_000_000
"""Audio without stamps is continuous unless a chunk is received later than this."""
_NOT_USED = 'nothing uses this input'


class SensorStream:
    """
    Store samples, report which modalities are available, return windows.

    Freshness depends on the time of receipt (`now_ns`, any clock of the caller's), alignment on
    stamps. `stamp_ns` 0 means that there is none: the time of receipt is used. A sample that
    cannot be used is dropped and counted, never raised: each `add_…` returns the reason, or ''
    when the sample was stored. Nothing here is expensive, so that one lock may guard it all;
    `Window.clip()`, which is, needs no lock.

    :raises InvalidSettingError: as `configure`.

    >>> from karmma_ros.clip import ClipSpec, VideoSpec
    >>> from karmma_ros.modality import Modality
    >>> from karmma_ros.stream.sensor_stream import SensorStream
    >>> from karmma_ros.stream.source import InputSettings
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
            each, so that a streaming network can reuse its chunks; 0: with any sample.
        """
        self.hop = hop
        self._spec, self._modalities = spec, in_order(modalities)
        self.listed = listed(self._modalities)
        """Modalities of the statuses."""
        self._frames, self._flow = FrameBuffer(spec), FlowBuffer(spec)
        self._audio, self._detections = AudioBuffer(spec), DetectionBuffer(spec)
        self._sources = {
            Modality.RGB: InputSource(self._frames, 1, spec.duration_ns),
            Modality.FLOW: InputSource(self._flow, 1, spec.duration_ns),
            Modality.AUDIO: InputSource(self._audio, 1, spec.duration_ns),
            Modality.DETECTIONS: InputSource(self._detections, 1, spec.duration_ns),
        }
        self._flow_cache = FlowCache(spec.flow.bound)
        self._last_end_ns: int | None = None
        self._flow_topic = flow_topic
        self.configure(settings)

    def configure(
        self, settings: Mapping[Modality, InputSettings], flow_topic: bool | None = None,
    ) -> None:
        """
        Apply new settings; what they do not change continues undisturbed.

        The samples of an input that nothing uses any more are discarded at once.

        :param flow_topic: whether flow is added, or computed from the camera; None leaves
            that as it is.
        :raises InvalidSettingError: when a modality has no settings, or the model's frames are
            too small to compute flow; the old settings stay.
        """
        flow_topic = self._flow_topic if flow_topic is None else flow_topic
        chosen = {m: _setting(m, settings) for m in self._modalities}
        if not flow_topic and Modality.FLOW in chosen and chosen[Modality.FLOW].enabled:
            check_video_size(self._spec.video)
        self._settings, self._flow_topic = chosen, flow_topic
        self._inputs = {m: self._sources[self._source_of(m)]
                        for m, setting in self._settings.items() if setting.enabled}
        for modality, source in reversed(self._inputs.items()):  # RGB's timeout before flow's
            source.timeout_ns = self._settings[modality].timeout_ns
        for modality, source in self._sources.items():
            if self._used(modality) is None:
                source.clear()
        if self._inputs.get(Modality.FLOW) is not self._sources[Modality.RGB]:
            self._flow_cache = FlowCache(self._spec.flow.bound)

    @property
    def nbytes(self) -> int:
        """Return the memory held by samples."""
        return sum(source.buffer.nbytes for source in self._sources.values())

    @property
    def newest_frame_ns(self) -> int | None:
        """
        Return the stamp of the newest frame that a window may have.

        It is the camera's, or that of a flow topic where there is no camera; None without either.
        """
        return next((camera.buffer.newest_ns for camera in self._cameras()), None)

    def wants_image(self, stamp_ns: int, now_ns: int) -> bool:
        """
        Return whether to decode a camera image and add it.

        False when its slot in time is filled (the image counts as received all the same)
        and when nothing uses the camera.
        """
        source = self._used(Modality.RGB)
        return source is not None and not source.skip(stamp_ns or now_ns, now_ns)

    def wants_flow(self, stamp_ns: int, now_ns: int) -> bool:
        """Return whether to decode a flow message and add it, as `wants_image`."""
        source = self._used(Modality.FLOW)
        if source is None:
            return False
        skipped = source.skip(stamp_ns or now_ns, now_ns)
        if skipped:
            self._flow.record_stamp(stamp_ns or now_ns)
        return not skipped

    def add_image(self, image: NDArray[np.uint8], stamp_ns: int, now_ns: int) -> str:
        """Add an RGB image uint8 `[h, w, 3]` of any size; it is copied."""
        source, stamp_ns = self._used(Modality.RGB), stamp_ns or now_ns
        if source is None:
            return _NOT_USED
        try:
            check_array('image', image, np.uint8, ('h', 'w', 3))
            source.check_stamp(stamp_ns, stamp_ns, now_ns)
            self._frames.add(image, stamp_ns)
        except InvalidSampleError as error:
            return source.drop(error, now_ns)
        return source.accept(stamp_ns, now_ns)

    def add_flow(self, flow: NDArray[np.float32], stamp_ns: int, now_ns: int) -> str:
        """
        Add displacements float32 `[h, w, 2]` of any size, in its pixels since the frame before.

        The stamp is that of the later frame.
        """
        source, stamp_ns = self._used(Modality.FLOW), stamp_ns or now_ns
        if source is None:
            return _NOT_USED
        try:
            check_displacement(flow)
            source.check_stamp(stamp_ns, stamp_ns, now_ns)
            self._flow.add(flow, stamp_ns)
        except InvalidSampleError as error:
            return source.drop(error, now_ns)
        return source.accept(stamp_ns, now_ns)

    def add_audio(
        self, samples: NDArray[np.float32], sample_rate: int, stamp_ns: int, now_ns: int,
    ) -> str:
        """
        Add mono audio float32 `[n]`; the stamp is that of its first sample.

        Without a stamp the chunk ends at the time of receipt.
        """
        source = self._used(Modality.AUDIO)
        if source is None:
            return _NOT_USED
        tolerance_ns = JITTER_NS if stamp_ns else UNSTAMPED_AUDIO_TOLERANCE_NS
        try:
            _check_audio(samples, sample_rate)
            length_ns = len(samples) * NANOSECONDS // sample_rate
            start_ns = stamp_ns or max(0, now_ns - length_ns)
            source.check_stamp(start_ns, start_ns + length_ns, now_ns)
            self._audio.add(samples, sample_rate, start_ns, tolerance_ns)
        except InvalidSampleError as error:
            return source.drop(error, now_ns)
        return source.accept(start_ns, now_ns)

    def add_detections(self, boxes: NDArray[np.float32], stamp_ns: int, now_ns: int) -> str:
        """
        Add the boxes of one message, float32 `[n, 5]`: x1, y1, x2, y2 in 0..1, category.

        A message without boxes counts too: nothing was detected.
        """
        source, stamp_ns = self._used(Modality.DETECTIONS), stamp_ns or now_ns
        if source is None:
            return _NOT_USED
        try:
            check_boxes(boxes)
            source.check_stamp(stamp_ns, stamp_ns, now_ns)
            self._detections.add(boxes, stamp_ns)
        except InvalidSampleError as error:
            return source.drop(error, now_ns)
        return source.accept(stamp_ns, now_ns)

    def reject(self, modality: Modality, reason: str, now_ns: int) -> None:
        """Count a message that could not even be decoded."""
        source = self._used(self._source_of(modality))
        if source is not None:
            source.stats.drop(reason, now_ns)

    def set_finding(self, source: Modality, check: str, finding: Finding | None) -> None:
        """
        Set what a content check found in the messages of one input; None withdraws it.

        A finding that is not usable makes the modality INVALID, with the text as its detail, and
        its samples are not used; any other is a warning beside the state.

        :param source: whose messages they are; computed flow shares the camera's findings.
        :param check: names the check: each has one finding at a time.
        """
        self._sources[source].set_finding(check, finding)

    def restart(self, source: Modality) -> None:
        """Clear the samples of one input, as when they were decoded with other settings."""
        self._sources[source].restart()

    def assess(self, now_ns: int) -> tuple[ModalityStatus, ...]:
        """Return the status of each of `listed`."""
        return self._statuses(now_ns, self._end_ns(now_ns))

    def window(self, now_ns: int) -> Window | None:
        """
        Return the window that ends at the newest sample.

        None when no modality is available, and when no sample is newer than the window
        before: no two in a row have the same end.
        """
        end_ns = self._end_ns(now_ns)
        if end_ns is not None and self.hop:
            end_ns = self._last_hop_ns(end_ns, now_ns)
        if end_ns is None or not self._is_new(end_ns):
            return None
        statuses = self._statuses(now_ns, end_ns)
        available = tuple(s.modality for s in statuses if s.available)
        if not available:
            return None
        self._last_end_ns = end_ns
        return self._make_window(end_ns, available, statuses)

    def clear(self) -> None:
        """Discard all samples and times, as when the clock has jumped; counts stay."""
        for source in self._sources.values():
            source.clear()
        self._flow_cache = FlowCache(self._spec.flow.bound)
        self._last_end_ns = None

    def _source_of(self, modality: Modality) -> Modality:
        """Return the modality whose input a modality is made of."""
        computed = modality is Modality.FLOW and not self._flow_topic
        return Modality.RGB if computed else modality

    def _used(self, modality: Modality) -> InputSource | None:
        """Return the input of a modality if an enabled modality is made of it."""
        source = self._sources[modality]
        return source if any(each is source for each in self._inputs.values()) else None

    def _cameras(self) -> list[InputSource]:
        """Return the inputs in use that have frames."""
        used = (self._used(Modality.RGB), self._used(Modality.FLOW))
        return [camera for camera in used if camera is not None]

    def _end_ns(self, now_ns: int) -> int | None:
        """
        Return the newest stamp among fresh inputs that are usable; None without any.

        Should their clocks differ by more than a window, the largest group that agrees
        decides (the one with the first modality, among equals): one input with another clock
        must not make all others unavailable.
        """
        newest = [s.buffer.newest_ns for s in self._inputs.values()
                  if s.usable and s.fresh(now_ns)]
        stamps = [stamp for stamp in newest if stamp is not None]
        groups = [[other for other in stamps if abs(other - stamp) <= self._spec.duration_ns]
                  for stamp in stamps]
        largest = max(groups, key=len, default=[])
        return max(largest, default=None)

    def _last_hop_ns(self, end_ns: int, now_ns: int) -> int:
        """
        Return the end of the last complete hop of frames; `end_ns` without fresh frames.

        The last slot has its frame, or never will: else the chunk with it would be encoded
        again when it is received.
        """
        newest = [c.buffer.newest_ns for c in self._cameras() if c.fresh(now_ns)]
        stamps = [stamp for stamp in newest if stamp is not None]
        if not stamps:
            return end_ns
        period_ns = self._spec.frame_period_ns
        slot = min(stamps) // period_ns
        complete = (slot + 1) // self.hop * self.hop
        return min(end_ns, complete * period_ns - 1)

    def _step(self, end_ns: int) -> int:
        """Return a number that one window alone may end at."""
        return (end_ns // self._spec.frame_period_ns + 1) // self.hop if self.hop else end_ns

    def _is_new(self, end_ns: int) -> bool:
        last_ns = self._last_end_ns
        if last_ns is None or self._step(end_ns) > self._step(last_ns):
            return True
        # A step back by a window or more is another clock: one has jumped, or the inputs with a
        # later one are stale. After a smaller step there is no window until the stamps catch up.
        # Starting anew would be no quicker, for half of a window would have to be covered first.
        return end_ns <= last_ns - self._spec.duration_ns

    def _statuses(self, now_ns: int, end_ns: int | None) -> tuple[ModalityStatus, ...]:
        return tuple(self._status(modality, now_ns, end_ns) for modality in self.listed)

    def _status(self, modality: Modality, now_ns: int, end_ns: int | None) -> ModalityStatus:
        source = self._inputs.get(modality)
        if source is None:
            why = ('disabled by its setting' if modality in self._settings
                   else 'the model does not take it')
            return ModalityStatus(modality, ModalityState.DISABLED, detail=why)
        computed = self._source_of(modality) is not modality
        coverage = source.buffer.coverage(end_ns)
        needed = ceil(self._settings[modality].min_coverage * coverage.total)
        if computed:
            needed = max(needed, min(2, coverage.total))  # one frame alone shows no movement
        state, detail = source.state(coverage, needed, end_ns, now_ns)
        if detail and computed:
            detail = f'derived from the camera: {detail}'
        shared = computed and Modality.RGB in self._inputs
        stats = source.stats
        return ModalityStatus(
            modality, state, stats.last_stamp_ns, stats.age_ns(now_ns), source.timeout_ns,
            coverage.samples, stats.rate(now_ns, source.timeout_ns), stats.dropped, detail,
            '' if shared else source.warning)

    def _make_window(
        self, end_ns: int, available: tuple[Modality, ...], statuses: tuple[ModalityStatus, ...],
    ) -> Window:
        spans: dict[Modality, tuple[int, int]] = {}
        frames: tuple[Frame, ...] = ()
        flows: tuple[FlowFrame, ...] = ()
        audio = valid = boxes = None
        for modality in available:
            if modality is Modality.AUDIO:
                audio, valid = self._audio.read(end_ns)
                spans[modality] = self._audio.span_ns(end_ns)
            elif modality is Modality.DETECTIONS:
                indices = self._detections.select(end_ns)
                boxes = self._detections.boxes(indices)
                stamps = self._detections.stamps_ns(indices)
                spans[modality] = stamps[0], stamps[-1]
            elif self._source_of(modality) is Modality.FLOW:
                flows = self._flow.select(end_ns)
                spans[modality] = _span(flows)
            else:
                frames = self._frames.select(end_ns)
                spans[modality] = _span(frames)
        return Window(
            self._spec, end_ns - self._spec.duration_ns, end_ns, available, statuses, spans,
            frames, audio, valid, boxes, self._flow_cache, tuple(flow.image for flow in flows),
            self._audio.first(end_ns), self._audio.spectrogram)


def _span(frames: Sequence[Frame | FlowFrame]) -> tuple[int, int]:
    stamps = [frame.stamp_ns for frame in frames]
    return min(stamps), max(stamps)


def _setting(modality: Modality, settings: Mapping[Modality, InputSettings]) -> InputSettings:
    try:
        return settings[modality]
    except KeyError:
        raise InvalidSettingError(
            f'settings of {modality}', None, 'an InputSettings: the model takes it') from None


def _check_audio(samples: NDArray[np.float32], sample_rate: int) -> None:
    check_rate(sample_rate)
    check_array('audio', samples, np.float32, ('n',))
    if not np.isfinite(samples).all():
        raise InvalidSampleError('audio: got NaN or infinity; expected finite samples')
