"""
The inputs of one person or robot: received samples, their availability and the next window.

A derived modality, such as flow, shares the input of its source unless it has a topic of its own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from math import ceil
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import input_modalities, modality_type, sources_of
from karmma_ros.modalities.content_check import Finding
from karmma_ros.modalities.sample_buffer import WindowSamples
from karmma_ros.modality import in_order, listed, Modality
from karmma_ros.stream.availability import ModalityState, ModalityStatus
from karmma_ros.stream.source import InputSettings, InputSource
from karmma_ros.stream.window import Window

_NOT_USED = 'nothing uses this input'


class SensorStream:
    """
    Store samples, report which modalities are available, return windows.

    Freshness depends on the time of receipt (`now_ns`, any clock of the caller's), alignment on
    stamps. `stamp_ns` 0 means that there is none: the time of receipt is used. A sample that
    cannot be used is dropped and counted, never raised: `add` returns the reason, or '' when
    the sample was stored. Nothing here is expensive, so that one lock may guard it all;
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
    ...     problem = stream.add(
    ...         Modality.RGB, np.zeros((48, 64, 3), np.uint8), time_ns, time_ns)
    >>> window = stream.window(now_ns=2_000_000_000)
    >>> [str(modality) for modality in window.modalities], window.end_ns
    (['rgb'], 2000000000)
    """

    def __init__(
        self,
        spec: ClipSpec,
        modalities: Iterable[Modality],
        settings: Mapping[Modality, InputSettings],
        with_topic: Iterable[Modality] = (),
        hop: int = 0,
    ) -> None:
        """
        Start empty.

        :param with_topic: modalities that could be computed from others, and are added instead.
        :param hop: windows end with a whole number of this many frames (`hop_for`), one for
            each, so that a streaming network can reuse its chunks; 0: with any sample.
        """
        self.hop = hop
        self._spec, self._modalities = spec, in_order(modalities)
        self.listed = listed(self._modalities)
        """Modalities of the statuses."""
        self._types = {m: modality_type(m) for m in self._modalities}
        self._derived_from = sources_of(self._modalities, spec)
        """Modality → the one that it can be computed from."""
        inputs = input_modalities(self._modalities, spec)
        self._sources = {
            m: InputSource(modality_type(m).buffer(spec), 1, spec.duration_ns) for m in inputs}
        self._framed = {m for m in inputs if modality_type(m).has_frames}
        if hop:
            for modality, source in self._sources.items():
                # A window ends up to a hop before the newest frame of the latest camera.
                lag_ns = spec.duration_ns if self._framed - {modality} else 0
                source.buffer.keep_longer(hop * spec.frame_period_ns + lag_ns)
        self._derivations: dict[Modality, Callable[[Any], WindowSamples]] = {}
        self._last_end_ns: int | None = None
        self._with_topic: frozenset[Modality] = frozenset()
        self._inputs: dict[Modality, InputSource] = {}
        self._in_use: dict[Modality, InputSource] = {}
        self.configure(settings, with_topic)

    def configure(
        self, settings: Mapping[Modality, InputSettings],
        with_topic: Iterable[Modality] | None = None,
    ) -> None:
        """
        Apply new settings; what they do not change continues undisturbed.

        The samples of an input that nothing uses any more are discarded at once.

        :param with_topic: modalities that could be computed from others, and are added instead;
            None leaves that as it is.
        :raises InvalidSettingError: when a modality has no settings, or cannot be computed from
            its source; the old settings stay.
        """
        topics = self._with_topic if with_topic is None else frozenset(with_topic)
        chosen = {m: _setting(m, settings) for m in self._modalities}
        for modality in self._derived_from.keys() - topics:
            if chosen[modality].enabled:
                self._types[modality].check_derivation(self._spec)
        self._settings, self._with_topic = chosen, topics
        self._inputs = {m: self._sources[self._source_of(m)]
                        for m, setting in self._settings.items() if setting.enabled}
        for modality, source in reversed(self._inputs.items()):  # RGB's timeout before flow's
            source.timeout_ns = self._settings[modality].timeout_ns
        self._in_use = {m: source for m, source in self._sources.items()
                        if any(each is source for each in self._inputs.values())}
        for modality, source in self._sources.items():
            if modality not in self._in_use:
                source.clear()
        computed = {m for m in self._inputs if self._is_computed(m)}
        self._derivations = {
            m: self._derivations.get(m) or self._types[m].derivation(self._spec) for m in computed}

    @property
    def inputs(self) -> tuple[Modality, ...]:
        """Return the modalities that samples can be added of."""
        return tuple(self._sources)

    @property
    def nbytes(self) -> int:
        """Return the memory held by samples."""
        return sum(source.buffer.nbytes for source in self._sources.values())

    @property
    def newest_frame_ns(self) -> int | None:
        """
        Return the stamp of the newest frame that a window may have.

        It is that of the first input with frames: the camera, else a flow topic, and so on; None
        without any.
        """
        return next((source.buffer.newest_ns for source in self._with_frames()), None)

    def uses(self, modality: Modality) -> bool:
        """Return whether an enabled modality is made of the samples of this input."""
        return self._used(modality) is not None

    def wants(self, modality: Modality, stamp_ns: int, now_ns: int) -> bool:
        """
        Return whether to decode a message and add its sample.

        False when its slot in time is filled (it counts as received all the same) and when
        nothing uses the input.
        """
        source = self._used(modality)
        return source is not None and not source.skip(stamp_ns or now_ns, now_ns)

    def add(self, modality: Modality, sample: Any, stamp_ns: int, now_ns: int) -> str:
        """
        Add the sample of one message, as the modality's buffer takes it.

        RGB: uint8 `[h, w, 3]` of any size. Flow: displacements float32 `[h, w, 2]` of any size,
        in its pixels since the frame before; the stamp is that of the later frame. Audio: an
        `AudioChunk`; the stamp is that of its first sample. Detections: float32 `[n, 5]` (x1,
        y1, x2, y2 in 0..1, category); an empty one counts too: nothing was detected.
        """
        source = self._used(modality)
        return _NOT_USED if source is None else source.add(sample, stamp_ns, now_ns)

    def reject(
        self, modality: Modality, reason: str, now_ns: int, informative: bool = True,
    ) -> None:
        """Count a message that could not even be decoded, or that shows nothing."""
        source = self._used(self._source_of(modality))
        if source is not None:
            source.stats.drop(reason, now_ns, informative)

    def set_finding(self, source: Modality, check: str, finding: Finding | None) -> None:
        """
        Set what a content check found in the messages of one input; None withdraws it.

        A finding that is not usable makes the modality INVALID, one that is not informative
        UNINFORMATIVE, with the text as its detail, and its samples are not used; any other is a
        warning beside the state.

        :param source: whose messages they are; computed flow shares the camera's findings.
        :param check: names the check: each has one finding at a time.
        """
        if source in self._sources:
            self._sources[source].set_finding(check, finding)

    def restart(self, source: Modality) -> None:
        """Clear the samples of one input, as when they were decoded with other settings."""
        if source in self._sources:
            self._sources[source].restart()

    def assess(self, now_ns: int) -> tuple[ModalityStatus, ...]:
        """Return the status of each of `listed`."""
        return self._statuses(now_ns, self._end_ns(now_ns))

    def window(self, now_ns: int, least: int = 1) -> Window | None:
        """
        Return the window that ends at the newest sample.

        None when fewer modalities are available in it than `least`, and when no sample is newer
        than the window before: no two in a row have the same end.
        """
        end_ns = self._end_ns(now_ns)
        if end_ns is not None and self.hop:
            end_ns = self._last_hop_ns(end_ns, now_ns)
        if end_ns is None or not self._is_new(end_ns):
            return None
        statuses = self._statuses(now_ns, end_ns)
        available = tuple(s.modality for s in statuses if s.available)
        if len(available) < max(1, least):
            return None
        self._last_end_ns = end_ns
        return self._make_window(end_ns, available, statuses)

    def clear(self) -> None:
        """Discard all samples and times, as when the clock has jumped; counts stay."""
        for source in self._sources.values():
            source.clear()
        self._derivations = {
            m: self._types[m].derivation(self._spec) for m in self._derivations}
        self._last_end_ns = None

    def _is_computed(self, modality: Modality) -> bool:
        return modality in self._derived_from and modality not in self._with_topic

    def _source_of(self, modality: Modality) -> Modality:
        """Return the modality whose input a modality is made of."""
        return self._derived_from[modality] if self._is_computed(modality) else modality

    def _used(self, modality: Modality) -> InputSource | None:
        """Return the input of a modality if an enabled modality is made of it."""
        return self._in_use.get(modality)

    def _with_frames(self) -> list[InputSource]:
        """Return the inputs in use whose samples are frames."""
        return [source for m, source in self._in_use.items() if m in self._framed]

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
        Return the end of the last complete hop of frames; `end_ns` without frames near it.

        The last slot has its frame, or never will: else the chunk with it would be encoded
        again when it is received.
        """
        newest = [c.buffer.newest_ns for c in self._with_frames()
                  if c.usable and c.fresh(now_ns)]
        # Frames that are further away are in no window: they are of another clock, or repeat.
        stamps = [stamp for stamp in newest
                  if stamp is not None and abs(stamp - end_ns) <= self._spec.duration_ns]
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
        computed = self._is_computed(modality)
        coverage = source.buffer.coverage(end_ns)
        needed = ceil(self._settings[modality].min_coverage * coverage.total)
        if computed:
            needed = max(needed, min(2, coverage.total))  # one frame alone shows no movement
        state, detail = source.state(coverage, needed, end_ns, now_ns)
        if detail and computed:
            detail = f'derived from {modality_type(self._source_of(modality)).label}: {detail}'
        shared = computed and self._source_of(modality) in self._inputs
        stats = source.stats
        return ModalityStatus(
            modality, state, stats.last_stamp_ns, stats.age_ns(now_ns), source.timeout_ns,
            coverage.samples, stats.rate(now_ns, source.timeout_ns), stats.dropped, detail,
            '' if shared else source.warning)

    def _make_window(
        self, end_ns: int, available: tuple[Modality, ...], statuses: tuple[ModalityStatus, ...],
    ) -> Window:
        received: dict[Modality, WindowSamples] = {}  # once for all that are made of an input
        samples = {}
        for modality in available:
            source = self._source_of(modality)
            if source not in received:
                received[source] = self._sources[source].buffer.window(end_ns)
            derive = self._derivations.get(modality)
            samples[modality] = received[source] if derive is None else derive(received[source])
        return Window(
            self._spec, end_ns - self._spec.duration_ns, end_ns, available, statuses, samples)


def _setting(modality: Modality, settings: Mapping[Modality, InputSettings]) -> InputSettings:
    try:
        return settings[modality]
    except KeyError:
        raise InvalidSettingError(
            f'settings of {modality}', None, 'an InputSettings: the model takes it') from None
