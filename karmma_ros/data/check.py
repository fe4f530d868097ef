"""What of a data set is on the disk, before days are spent on training on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.data.media import VideoFile
from karmma_ros.data.samples import Clips, Splits
from karmma_ros.data.segments import FlowFromVideo, LabelledSegment, SegmentDataset, Source
from karmma_ros.errors import DataError, KarmmaError
from karmma_ros.modality import in_order, Modality
import numpy as np

EXAMPLES = 3
"""Sentences kept of each kind of trouble."""

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how much of it is done and how much there is."""


@dataclass
class ModalityCounts:
    """One modality of one split, in segments."""

    there: int = 0
    """Its file was found."""
    lacking: int = 0
    """The data set has none for this segment. No fault: no two segments need the same ones."""
    missing: int = 0
    """The data set names a file that is not there or cannot be opened."""
    decoded: int = 0
    """Read whole, as training would."""
    damaged: int = 0
    """Of those decoded: could not be read."""
    examples: list[str] = field(default_factory=list)
    """The first troubles, each with its segment; the first that are missing and damaged."""
    lacking_examples: list[str] = field(default_factory=list)
    """The first segments that lack it."""
    remarks: dict[str, list[str]] = field(default_factory=dict)
    """How files are read that are particular, and the first segments of each kind."""
    remark_counts: dict[str, int] = field(default_factory=dict)
    """Segments of each kind."""

    def note_remark(self, segment: str, remark: str) -> None:
        """Count a segment whose file is read in a particular way."""
        self.remark_counts[remark] = self.remark_counts.get(remark, 0) + 1
        examples = self.remarks.setdefault(remark, [])
        if len(examples) < EXAMPLES:
            examples.append(segment)

    def note_missing(self, segment: str, trouble: str) -> None:
        """Count a file that is not there."""
        self.missing += 1
        if self.missing <= EXAMPLES:
            self.examples.append(f'{segment}: {trouble}')

    def note_damaged(self, segment: str, trouble: str) -> None:
        """Count what could not be decoded."""
        self.damaged += 1
        if self.damaged <= EXAMPLES:
            self.examples.append(f'{segment}: {trouble}')


@dataclass
class SplitReport:
    """One split."""

    segments: int
    """With at least one modality."""
    left_out: int = 0
    """Segments without any."""
    modalities: dict[Modality, ModalityCounts] = field(default_factory=dict)

    @property
    def sound(self) -> bool:
        """Return whether nothing is missing or damaged."""
        tallies = self.modalities.values()
        return not self.left_out and not any(t.missing or t.damaged for t in tallies)

    @property
    def complete(self) -> bool:
        """Return whether, besides, every segment has every modality that any has."""
        return self.sound and not any(t.lacking for t in self.modalities.values())


@dataclass
class DatasetReport:
    """A data set."""

    name: str
    splits: dict[str, SplitReport]
    """`train`, `validation` and `test`; `validation, test` where they are the same clips."""

    @property
    def sound(self) -> bool:
        """Return whether nothing is missing or damaged."""
        return all(split.sound for split in self.splits.values())

    @property
    def complete(self) -> bool:
        """Return whether, besides, every segment of a split has the same modalities."""
        return all(split.complete for split in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        splits = {}
        for name, split in self.splits.items():
            splits[name] = {**asdict(split), 'modalities': {
                str(m): asdict(tally) for m, tally in split.modalities.items()}}
        return {'dataset': self.name, 'sound': self.sound, 'complete': self.complete,
                'splits': splits}


def check_dataset(
    splits: Splits, decode: int = 0, seed: int = 0,
    progress: Progress = lambda what, done, total: None,
) -> DatasetReport:
    """
    Look for the file of every modality of every segment.

    Of a video the first frame is decoded, and the times of a small one are checked.

    :param decode: segments of each split, drawn by `seed`, to read whole besides. Clips that
        have no files of their own (rendered ones) are known by these alone, by one at least.
    """
    found = {}
    for name, clips in _different(splits).items():
        segments = _segments(clips)
        if segments is None:
            found[name] = _look_at_samples(name, clips, decode, seed, progress)
            continue
        split = SplitReport(len(segments), getattr(clips, 'left_out', 0))
        sound = _look_for_files(name, segments, split, progress)
        _decode_some(name, segments, sound, split, splits.spec, decode, seed, progress)
        found[name] = split
    return DatasetReport(splits.name, found)


def _different(splits: Splits) -> dict[str, Clips]:
    """Name the clips; those that serve as two splits are looked at once."""
    named: dict[str, Clips] = {}
    for name in ('train', 'validation', 'test'):
        clips = getattr(splits, name)
        same = next((other for other, known in named.items() if known is clips), None)
        if same is not None:
            named[f'{same}, {name}'] = named.pop(same)
        else:
            named[name] = clips
    return named


def _segments(clips: Any) -> Sequence[LabelledSegment] | None:
    """Return the segments behind clips, also behind clips that wrap others."""
    while clips is not None:
        if hasattr(clips, 'segments'):
            return clips.segments
        clips = getattr(clips, 'clips', None)
    return None


def _look_for_files(
    name: str, segments: Sequence[LabelledSegment], split: SplitReport, progress: Progress,
) -> dict[Modality, list[int]]:
    """Count what is there; give, for each modality, the segments of which nothing is missing."""
    sound: dict[Modality, list[int]] = {}
    # Segments of one recording share their sources: each is asked once.
    ask = lru_cache(maxsize=4096)(_problem)
    for index, segment in enumerate(segments):
        for modality, source in segment.sources.items():
            tally = split.modalities.setdefault(modality, ModalityCounts())
            problem, remarks = ask(source) if isinstance(source, Hashable) else _problem(source)
            for remark in remarks:
                tally.note_remark(segment.name, remark)
            if problem is None:
                tally.there += 1
                sound.setdefault(modality, []).append(index)
            else:
                tally.note_missing(segment.name, problem)
        progress(f'{name}: files', index + 1, len(segments))
    split.modalities = {m: split.modalities[m] for m in in_order(split.modalities)}
    for modality, tally in split.modalities.items():
        tally.lacking = len(segments) - tally.there - tally.missing
        without = (s.name for s in segments if modality not in s.sources)
        tally.lacking_examples = list(islice(without, min(EXAMPLES, tally.lacking)))
    return sound


def _problem(source: Source) -> tuple[str | None, tuple[str, ...]]:
    """Return why a source cannot be read, if so, and how it is read if it is particular."""
    problem = source.problem()
    video = source.video if isinstance(source, FlowFromVideo) else source
    if problem is not None or not isinstance(video, VideoFile):
        return problem, ()
    try:
        return None, video.probe().notes
    except DataError as error:
        # Decoding decides whether a sample is lost by it; the reason is named in any case.
        return None, (f'it cannot be read: {error.problem}: {error.remedy}',)


def _decode_some(
    name: str, segments: Sequence[LabelledSegment], sound: dict[Modality, list[int]],
    split: SplitReport, spec: ClipSpec, decode: int, seed: int, progress: Progress,
) -> None:
    chosen = _draw(len(segments), decode, seed)
    where = {modality: set(indices) for modality, indices in sound.items()}
    for done, index in enumerate(chosen):
        segment = segments[index]
        for modality, trouble in _decode(segment, spec, where, index):
            tally = split.modalities[modality]
            tally.decoded += 1
            if trouble is not None:
                tally.note_damaged(segment.name, trouble)
        progress(f'{name}: decoding', done + 1, len(chosen))


def _decode(
    segment: LabelledSegment, spec: ClipSpec, sound: dict[Modality, set[int]], index: int,
) -> Iterator[tuple[Modality, str | None]]:
    """Read each modality by itself, so that a damaged one does not hide the others."""
    for modality, source in segment.sources.items():
        if index not in sound.get(modality, ()):
            continue
        alone = LabelledSegment(segment.name, segment.start_s, segment.stop_s, segment.labels,
                        {modality: source})
        try:
            SegmentDataset([alone], spec, skip_unreadable=False)[0]
        except DataError as error:
            yield modality, str(error)
        else:
            yield modality, None


def _look_at_samples(
    name: str, clips: Clips, decode: int, seed: int, progress: Progress,
) -> SplitReport:
    split = SplitReport(len(clips))
    chosen = _draw(len(clips), max(1, decode), seed)
    tallies = {m: ModalityCounts() for m in Modality}
    for done, index in enumerate(chosen):
        try:
            present = clips[index].clip.modalities
        except KarmmaError as error:
            for tally in tallies.values():
                tally.note_damaged(f'clip {index}', str(error))
            continue
        for modality in present:
            tallies[modality].decoded += 1
        progress(f'{name}: decoding', done + 1, len(chosen))
    split.modalities = {m: t for m, t in tallies.items() if t.decoded or t.damaged}
    for tally in split.modalities.values():
        tally.there = len(clips)
    return split


def _draw(count: int, wanted: int, seed: int) -> list[int]:
    """Draw without putting back, in ascending order."""
    drawn = np.random.default_rng(seed).permutation(count)[:wanted]
    return sorted(int(index) for index in drawn)
