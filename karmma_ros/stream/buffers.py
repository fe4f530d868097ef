"""
The recent past of each sensor, in bounded memory.

Times are stamps in integer nanoseconds. Each buffer takes samples in any order; it keeps
what can still be part of a window that ends at its newest sample or later.

Shape legend: t frames, h height, w width, n boxes or samples.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.detections import detection_input
from karmma_ros.preprocess.resize import resize_and_crop
from karmma_ros.preprocess.spectrogram import resample, StreamResampler
from karmma_ros.stream.frame_buffer import FrameSlots
from karmma_ros.stream.spectrogram_cache import SpectrogramCache
import numpy as np
from numpy.typing import NDArray

_SPARE_SLOTS = 2
_MESSAGES_PER_FRAME = 16


@dataclass(frozen=True, eq=False)
class Frame:
    """One frame that is kept; its picture is never written to again."""

    stamp_ns: int
    serial: int
    """Tells frames apart even where a clock that jumped back repeats a stamp."""
    image: NDArray[np.uint8]
    """RGB `[h, w, 3]`, of the crop's size."""


class FrameBuffer(FrameSlots[Frame]):
    """Keep one frame for each slot of time: each is resized once, and its flow computed once."""

    def __init__(self, spec: ClipSpec) -> None:
        super().__init__(spec)
        self._serial = 0

    def add(self, image: NDArray[np.uint8], stamp_ns: int) -> None:
        """
        Keep a copy of an RGB image `[h, w, 3]`, resized to the crop; the first of a slot stays.

        :raises InvalidSampleError: for anything but a non-empty uint8 image.
        """
        check_array('image', image, np.uint8, ('h', 'w', 3))
        if not self.wants(stamp_ns):
            return
        self._serial += 1
        picture = np.array(resize_and_crop(image, *self._size), order='C')
        self._put(Frame(stamp_ns, self._serial, picture))


JITTER_NS = 50_000_000
"""By so much the stamps of sound that was laid end to end may differ from where it lies."""
_OFF_NS = 10_000_000
"""
Sound of which every stamp in a second is later than this has lost some, or drifts; if every
stamp is earlier, the first was late.
"""
_PATIENCE_NS = NANOSECONDS


class AudioBuffer:
    """
    Keep mono sound at the model's rate in a ring, by absolute sample index.

    Index i is the sound at i / rate seconds. What was never heard reads as silence and is
    marked. Chunks are laid end to end by their number of samples, so that stamps may
    jitter; a stamp that differs by more than the tolerance ends the run, and so do stamps that
    are all late, or all early, for a second on end. What was heard is never written over.

    Windows end with a whole hop of the spectrogram, up to one earlier than asked: so they have
    columns in common.
    """

    def __init__(self, spec: ClipSpec) -> None:
        self._rate = spec.audio.sample_rate
        self._window, self._hop = spec.audio_samples, spec.audio.hop_length
        self._capacity = self._window + self._rate // 2
        self._sound = np.zeros(self._capacity, np.float32)
        self._valid = np.zeros(self._capacity, np.bool_)
        self._end = 0
        self._run: _Run | None = None
        self._empty = True
        self._spec = spec.audio
        self.spectrogram = SpectrogramCache(self._spec)
        """Of the sound in here; another one after `clear`."""

    @property
    def newest_ns(self) -> int | None:
        """Return the time up to which sound was heard."""
        return None if self._empty else self._time_ns(self._end)

    @property
    def nbytes(self) -> int:
        """Return the memory held."""
        return self._sound.nbytes + self._valid.nbytes

    def add(
        self,
        samples: NDArray[np.float32],
        sample_rate: int,
        stamp_ns: int,
        tolerance_ns: int = JITTER_NS,
    ) -> None:
        """
        Take a chunk of mono sound `[n]` whose first sample has the stamp.

        A chunk that starts before the end of the run fills holes and changes nothing that
        was heard before.

        :raises InvalidSampleError: for another type or shape, or a rate that is no rate.
        """
        longest = self._capacity * sample_rate // self._rate
        if 0 < longest < len(samples):
            stamp_ns += (len(samples) - longest) * NANOSECONDS // sample_rate
            samples = samples[-longest:]
        run = self._run
        if run is None or run.resampler.source_rate != sample_rate:
            run = self._start(sample_rate, stamp_ns)
        early_ns = run.next_ns - stamp_ns
        if early_ns > tolerance_ns:
            self._write(resample(samples, sample_rate, self._rate), self._index(stamp_ns))
            return
        off_ns = max(_OFF_NS, tolerance_ns // 10)  # without stamps the network jitters as well
        if early_ns < -tolerance_ns or run.stays_off(stamp_ns, off_ns):
            run = self._start(sample_rate, stamp_ns)
        heard = run.resampler.push(samples)
        self._write(heard, run.start + run.written)
        run.pushed += len(samples)
        run.written += len(heard)
        self._run = run

    def read(self, end_ns: int) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return the audio of the window that ends at `end_ns`, `[n]`, and its valid mask."""
        sound = np.zeros(self._window, np.float32)
        valid = np.zeros(self._window, np.bool_)
        first, last = self._held(end_ns)
        place = np.arange(first, last) % self._capacity
        offset = first - self.first(end_ns)
        sound[offset:offset + len(place)] = self._sound[place]
        valid[offset:offset + len(place)] = self._valid[place]
        return sound, valid

    def first(self, end_ns: int) -> int:
        """Return the index of the first sample of the window that ends at `end_ns`."""
        return self._stop(end_ns) - self._window

    def heard(self, end_ns: int) -> int:
        """Count the samples of the window that were heard."""
        return int(np.count_nonzero(self._valid[np.arange(*self._held(end_ns)) % self._capacity]))

    def span_ns(self, end_ns: int) -> tuple[int, int]:
        """Return the times between which sound of the window was heard; it must have some."""
        first, last = self._held(end_ns)
        heard = np.flatnonzero(self._valid[np.arange(first, last) % self._capacity])
        return self._time_ns(first + int(heard[0])), self._time_ns(first + int(heard[-1]) + 1)

    def clear(self) -> None:
        """Forget all sound."""
        self._run, self._empty, self._end = None, True, 0
        self.spectrogram = SpectrogramCache(self._spec)
        self._sound[:] = 0
        self._valid[:] = False

    def _held(self, end_ns: int) -> tuple[int, int]:
        """Return the part of the window's indices that lies in the ring, maybe none."""
        stop = self._stop(end_ns)
        first = max(stop - self._window, self._end - self._capacity)
        last = min(stop, self._end)
        return (first, last) if first < last and not self._empty else (stop, stop)

    def _stop(self, end_ns: int) -> int:
        return self._index(end_ns) // self._hop * self._hop

    def _start(self, sample_rate: int, stamp_ns: int) -> _Run:
        return _Run(StreamResampler(sample_rate, self._rate), stamp_ns, self._index(stamp_ns))

    def _write(self, sound: NDArray[np.float32], start: int) -> None:
        """Write from an index on, where nothing was heard."""
        if not len(sound):
            return
        self._advance(start + len(sound))
        skipped = max(0, self._end - self._capacity - start)
        sound, start = sound[skipped:], start + skipped
        place = np.arange(start, start + len(sound)) % self._capacity
        holes = ~self._valid[place]
        self._sound[place[holes]] = sound[holes]
        self._valid[place] = True

    def _advance(self, end: int) -> None:
        """Move the ring's end forward; what it passes over becomes silence, not heard."""
        if self._empty:
            self._end, self._empty = end, False
        fresh = min(end - self._end, self._capacity)
        if fresh > 0:
            place = np.arange(end - fresh, end) % self._capacity
            self._sound[place] = 0
            self._valid[place] = False
            self._end = end

    def _index(self, time_ns: int) -> int:
        return (time_ns * self._rate + NANOSECONDS // 2) // NANOSECONDS

    def _time_ns(self, index: int) -> int:
        return index * NANOSECONDS // self._rate


@dataclass
class _Run:
    """Chunks that follow each other without a gap."""

    resampler: StreamResampler
    stamp_ns: int
    start: int
    """Index of the first sample."""
    pushed: int = 0
    """Samples taken, at the source's rate."""
    written: int = 0
    """Samples written, at the model's rate."""
    side: int = 0
    """Of the last stamp: 1 late, -1 early, 0 neither."""
    side_since_ns: int = 0
    """Stamp from which on it is that."""

    def stays_off(self, stamp_ns: int, off_ns: int) -> bool:
        """Note a chunk; tell whether all are late, or early, for so long that it is no jitter."""
        late_ns = stamp_ns - self.next_ns
        side = (late_ns > off_ns) - (late_ns < -off_ns)
        if side != self.side:
            self.side, self.side_since_ns = side, stamp_ns
        return side != 0 and stamp_ns - self.side_since_ns >= _PATIENCE_NS

    @property
    def next_ns(self) -> int:
        """Return the stamp that the next chunk should bear."""
        return self.stamp_ns + self.pushed * NANOSECONDS // self.resampler.source_rate


class DetectionBuffer:
    """Keep the boxes of recent messages; an empty message says that nothing was seen."""

    def __init__(self, spec: ClipSpec) -> None:
        self._spec = spec.detections
        self._count, self._period_ns = spec.num_frames, spec.frame_period_ns
        self._duration_ns = spec.duration_ns
        self._stamps: list[int] = []
        self._boxes: list[NDArray[np.float32]] = []

    @property
    def newest_ns(self) -> int | None:
        """Return the stamp of the newest message."""
        return self._stamps[-1] if self._stamps else None

    @property
    def nbytes(self) -> int:
        """Return the memory held by boxes."""
        return sum(boxes.nbytes for boxes in self._boxes)

    def add(self, boxes: NDArray[np.float32], stamp_ns: int) -> None:
        """
        Take the boxes of one message, `[n, 5]`, normalised; the first of a stamp stays.

        Only what the network can be given is kept: hands first, `max_boxes` at most.

        :raises InvalidSampleError: for what `detection_input` does not take.
        """
        kept = detection_input([boxes], self._spec)[0]
        place = bisect_left(self._stamps, stamp_ns)
        if self._stamps[place:place + 1] == [stamp_ns]:
            return
        self._stamps.insert(place, stamp_ns)
        self._boxes.insert(place, kept)
        oldest_ns = self._stamps[-1] - self._duration_ns - _SPARE_SLOTS * self._period_ns
        surplus = max(bisect_left(self._stamps, oldest_ns),
                      len(self._stamps) - _MESSAGES_PER_FRAME * self._count)
        del self._stamps[:surplus], self._boxes[:surplus]

    def select(self, end_ns: int) -> list[int]:
        """
        Return for each of the t slots the place of its message, -1 for none.

        It is the one nearest to the slot's centre, of those up to `end_ns`, and no further
        away than one slot or, with a slower detector, its usual period: a quarter of the
        window at most.
        """
        usable = bisect_left(self._stamps, end_ns + 1)
        tolerance_ns = self._tolerance_ns()
        last = end_ns // self._period_ns
        return [
            self._nearest(slot * self._period_ns + self._period_ns // 2, usable, tolerance_ns)
            for slot in range(last - self._count + 1, last + 1)
        ]

    def boxes(self, places: Sequence[int]) -> tuple[NDArray[np.float32], ...]:
        """Return the boxes `[max_boxes, 5]` of the chosen messages; none where it is -1."""
        nothing = np.zeros((0, 5), np.float32)
        return tuple(nothing if place < 0 else self._boxes[place] for place in places)

    def stamps_ns(self, places: Sequence[int]) -> list[int]:
        """Return the stamps of the chosen messages in ascending order, each once."""
        return sorted({self._stamps[place] for place in places if place >= 0})

    def clear(self) -> None:
        """Forget all messages."""
        self._stamps.clear()
        self._boxes.clear()

    def _tolerance_ns(self) -> int:
        gaps = sorted(b - a for a, b in zip(self._stamps, self._stamps[1:]))
        usual_ns = gaps[len(gaps) // 2] if gaps else 0
        return max(self._period_ns, min(usual_ns, self._duration_ns // 4))

    def _nearest(self, time_ns: int, usable: int, tolerance_ns: int) -> int:
        after = bisect_left(self._stamps, time_ns, 0, usable)
        near = [i for i in (after - 1, after)
                if 0 <= i < usable and abs(self._stamps[i] - time_ns) <= tolerance_ns]
        return min(near, key=lambda i: abs(self._stamps[i] - time_ns), default=-1)
