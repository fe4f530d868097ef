"""
Labelled segments of recordings → samples, by the same steps as on a robot.

A data set gives the start and end of its segments and a source for each modality. The window is
chosen, read and preprocessed here, the same way for every data set.

Shape legend: t frames, h height, w width, n samples or boxes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any
import warnings

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.data.samples import Sample
from karmma_ros.errors import DataError, InvalidSampleError, InvalidSettingError
from karmma_ros.media.sources import FlowFromVideo, SharedFrames, Source
from karmma_ros.modalities import make_clip, modality_type
from karmma_ros.modality import Modality
import numpy as np
from numpy.typing import NDArray

CENTRE = 0.5
"""Position of the window in a segment that is scored: 0 at the start, 1 at the end."""


@dataclass(frozen=True)
class LabelledSegment:
    """
    A labelled interval of a recording.

    :raises InvalidSettingError: when it begins before second 0 or ends before it begins.
    """

    name: str
    """Unique in its split, such as the narration_id."""
    start_s: float
    stop_s: float
    """Seconds of the sources' own time, the end excluded."""
    labels: Mapping[str, int]
    """Head → class id."""
    sources: Mapping[Modality, Source]
    """Modality → its recording; a missing one has no key. Segments may share their sources."""

    def __post_init__(self) -> None:
        if not 0 <= self.start_s <= self.stop_s:
            raise InvalidSettingError(
                f'segment {self.name}', (self.start_s, self.stop_s),
                'two seconds from 0 on, the start not after the stop')


def window_start(start_s: float, stop_s: float, duration_s: float, position: float) -> float:
    """
    Return the second at which a window of `duration_s` begins.

    :param position: 0 at the start of the segment, 1 at its end. In a segment shorter than the
        window it is centred and extends beyond the segment, as on a robot, whose windows do not
        follow segments, but not before second 0.
    """
    slack = stop_s - start_s - duration_s
    return start_s + position * slack if slack > 0 else max(0.0, start_s + slack / 2)


class SegmentDataset:
    """
    The clips of segments: a `Clips` that is cheap to pickle for the workers of a loader.

    Segments without any source are left out and counted in `left_out`. A sample lacks a modality
    that cannot be read: `unreadable` counts these by path, in the process that read, and each path
    is reported once by a warning.

    A clip of the paper's size (32 frames of 456 x 256, one core of a server) costs 26 ms for
    RGB and 22 ms for flow from loose or packed JPEGs, 3 ms for audio and 130 ms more where
    flow is computed: 8 such cores feed 130 clips of V+F+A a second, or 50 with computed flow.

    :param seed: decides the positions of the training windows in their segments.
    :param skip_unreadable: False: a modality that cannot be read is an error.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from karmma_ros.clip import ClipSpec
    >>> from karmma_ros.media.audio_file import AudioFile
    >>> from karmma_ros.data.segments import LabelledSegment, SegmentDataset
    >>> from karmma_ros.modality import Modality
    >>> import numpy as np
    >>> import soundfile
    >>> with TemporaryDirectory() as folder:
    ...     path = Path(folder, 'first.wav')
    ...     soundfile.write(path, np.zeros(64_000), 16_000)
    ...     segment = LabelledSegment(
    ...         'first', 0.5, 3.5, {'verb': 1}, {Modality.AUDIO: AudioFile(path)})
    ...     sample = SegmentDataset([segment], ClipSpec())[0]
    >>> sample.labels, [str(modality) for modality in sample.clip.inputs]
    ({'verb': 1}, ['audio'])
    """

    def __init__(self, segments: Sequence[LabelledSegment], spec: ClipSpec, seed: int = 0,
                 skip_unreadable: bool = True) -> None:
        self.segments = [segment for segment in segments if segment.sources]
        self.left_out = len(segments) - len(self.segments)
        self.spec, self.seed, self.skip_unreadable = spec, seed, skip_unreadable
        self.unreadable: dict[str, int] = {}
        self._wanted: frozenset[Modality] | None = None

    def with_modalities(self, modalities: Sequence[Modality]) -> SegmentDataset:
        """Return the same clips with some modalities only; one that has none of them is empty."""
        selected = copy(self)
        selected._wanted = frozenset(modalities)
        return selected

    def modalities(self, index: int) -> tuple[Modality, ...]:
        """Return the modalities that are read of a segment."""
        return tuple(m for m in self.segments[index].sources
                     if self._wanted is None or m in self._wanted)

    def __len__(self) -> int:
        return len(self.segments)

    def __getitem__(self, index: int) -> Sample:
        """
        Return the clip at the centre of a segment: always the same.

        :raises DataError: when nothing of the segment can be read.
        """
        return self._sample(index, CENTRE)

    def training_sample(self, index: int, epoch: int) -> Sample:
        """
        Return a clip at a random position, which depends on (seed, epoch, index) alone.

        :raises DataError: when nothing of the segment can be read.
        """
        return self._sample(index, self._position(index, epoch))

    def start_of(self, index: int, epoch: int | None) -> float:
        """Return the second at which the window of an epoch begins; None: of the scored one."""
        return self._start(index, CENTRE if epoch is None else self._position(index, epoch))

    def _position(self, index: int, epoch: int) -> float:
        return float(np.random.default_rng((self.seed, epoch, index)).random())

    def _sample(self, index: int, position: float) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'segment {index} of {len(self)}')
        inputs = self.read(index, self._start(index, position), self._prepared)
        return Sample(Clip(inputs), self.segments[index].labels, index)

    def arrays(self, index: int, delay_s: float = 0.0) -> dict[Modality, Any]:
        """
        Return what `ModalityType.prepare` takes of the clip that is scored.

        :param delay_s: how much earlier the window lies; later, where the recording has not begun.
        :raises DataError: when nothing of the segment can be read.
        """
        start = self._start(index, CENTRE)
        start += delay_s if start < delay_s else -delay_s
        return self.read(index, start, lambda modality, arrays: arrays)

    def labels(self, index: int) -> Mapping[str, int]:
        """Return head → class id of a clip, without reading it."""
        return self.segments[index].labels

    def computed(self, index: int) -> frozenset[Modality]:
        """Return the modalities of a clip that are computed from another one's samples."""
        sources = self.segments[index].sources
        return frozenset(m for m in self.modalities(index)
                         if isinstance(sources[m], FlowFromVideo))

    def _start(self, index: int, position: float) -> float:
        segment = self.segments[index]
        return window_start(segment.start_s, segment.stop_s, self.spec.duration, position)

    def _prepared(self, modality: Modality, arrays: Any) -> NDArray[np.float32]:
        return make_clip(self.spec, {modality: arrays}).inputs[modality]

    def read(
        self, index: int, start_s: float, convert: Callable[[Modality, Any], Any]
    ) -> dict[Modality, Any]:
        """
        Return a window of each modality that can be read, converted.

        :param start_s: second of the recording at which it begins, as `start_of` returns it.
        :param convert: from a modality and what `ModalityType.prepare` takes.
        :raises DataError: when nothing of the segment can be read.
        """
        segment, frames = self.segments[index], SharedFrames()
        windows: dict[Modality, Any] = {}
        failure: Exception | None = None
        for modality in self.modalities(index):
            try:
                arrays = modality_type(modality).read_window(
                    segment.sources[modality], start_s, self.spec, frames)
                windows[modality] = convert(modality, arrays)
            except (DataError, InvalidSampleError) as error:
                if not self.skip_unreadable:
                    raise _of_segment(segment, modality, error) from error
                failure = _of_segment(segment, modality, error)
                self._count(failure)
        if not windows and failure is not None:
            raise failure
        return windows

    def _count(self, error: DataError) -> None:
        path = str(error.path)
        if path not in self.unreadable:
            warnings.warn(f'missing from its samples: {error}', stacklevel=5)
        self.unreadable[path] = self.unreadable.get(path, 0) + 1


def _of_segment(segment: LabelledSegment, modality: Modality, error: Exception) -> DataError:
    """Return an error with its segment and modality added, of the same file."""
    if isinstance(error, DataError):
        return DataError(error.path, f'{error.problem} (segment {segment.name}, {modality})',
                         error.remedy)
    path = getattr(segment.sources[modality], 'path', Path(segment.name))
    return DataError(path, f'{error} (segment {segment.name}, {modality})',
                     'repair the file or remove it')
