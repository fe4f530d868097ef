"""Check that the files of a data set are present and can be decoded, before training on it."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from itertools import islice
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.data.packs.pack_format import shard_name
from karmma_ros.data.packs.packed_clips import PackedClips
from karmma_ros.data.samples import Clips, Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.errors import DataError, KarmmaError
from karmma_ros.media.sources import Source
from karmma_ros.modality import in_order, Modality, PAPER_MODALITIES
import numpy as np

EXAMPLES = 3
"""Examples kept of each type of problem."""

Progress = Callable[[str, int, int], None]
"""Called with the name of a task, how much of it is done, and the total."""


@dataclass
class ModalityCounts:
    """One modality of one split, in segments."""

    present: int = 0
    """Its file exists."""
    lacking: int = 0
    """The data set has none for this segment. No error: no two segments need the same ones."""
    missing: int = 0
    """The data set names a file that does not exist or cannot be opened."""
    decoded: int = 0
    """Read completely, as in training."""
    damaged: int = 0
    """Of those decoded: could not be read."""
    examples: list[str] = field(default_factory=list)
    """The first problems, each with its segment; the first that are missing and damaged."""
    lacking_examples: list[str] = field(default_factory=list)
    """The first segments that lack it."""
    remarks: dict[str, list[str]] = field(default_factory=dict)
    """Remark on how a file is read → the first segments that it applies to."""
    remark_counts: dict[str, int] = field(default_factory=dict)
    """Remark → number of its segments."""

    def note_remark(self, segment: str, remark: str) -> None:
        """Count a segment whose file has a remark."""
        self.remark_counts[remark] = self.remark_counts.get(remark, 0) + 1
        examples = self.remarks.setdefault(remark, [])
        if len(examples) < EXAMPLES:
            examples.append(segment)

    def note_missing(self, segment: str, problem: str) -> None:
        """Count a file that is missing."""
        self.missing += 1
        if self.missing <= EXAMPLES:
            self.examples.append(f'{segment}: {problem}')

    def note_damaged(self, segment: str, problem: str) -> None:
        """Count a file that could not be decoded."""
        self.damaged += 1
        if self.damaged <= EXAMPLES:
            self.examples.append(f'{segment}: {problem}')


@dataclass
class SplitReport:
    """One split."""

    segments: int
    """With at least one modality."""
    left_out: int = 0
    """Segments without any."""
    modalities: dict[Modality, ModalityCounts] = field(default_factory=dict)

    @property
    def intact(self) -> bool:
        """Whether nothing is missing or damaged."""
        counts = self.modalities.values()
        return not self.left_out and not any(c.missing or c.damaged for c in counts)

    @property
    def complete(self) -> bool:
        """Whether it is intact and every segment has every modality that any has."""
        return self.intact and not any(c.lacking for c in self.modalities.values())


@dataclass
class DatasetReport:
    """A data set."""

    name: str
    splits: dict[str, SplitReport]
    """`train`, `validation` and `test`; `validation, test` where they are the same clips."""

    @property
    def intact(self) -> bool:
        """Whether nothing is missing or damaged."""
        return all(split.intact for split in self.splits.values())

    @property
    def complete(self) -> bool:
        """Whether it is intact and every segment of a split has the same modalities."""
        return all(split.complete for split in self.splits.values())

    def to_dict(self) -> dict[str, Any]:
        """Return a JSON-ready mapping."""
        splits = {}
        for name, split in self.splits.items():
            splits[name] = {**asdict(split), 'modalities': {
                str(m): asdict(counts) for m, counts in split.modalities.items()}}
        return {'dataset': self.name, 'intact': self.intact, 'complete': self.complete,
                'splits': splits}


def check_dataset(
    splits: Splits, decode: int = 0, seed: int = 0,
    progress: Progress = lambda task, done, total: None,
) -> DatasetReport:
    """
    Check the file of every modality of every segment.

    Of a video the first frame is decoded, and the times of a small one are checked.

    :param decode: number of segments of each split, chosen by `seed`, to decode completely. Of
        clips without files of their own (rendered ones), at least one is decoded.
    """
    reports = {}
    for name, clips in _different(splits).items():
        if isinstance(clips, PackedClips):
            reports[name] = _check_packed(name, clips, decode, seed, progress)
            continue
        segments = _segments(clips)
        if segments is None:
            reports[name] = _check_samples(name, clips, decode, seed, progress)
            continue
        split = SplitReport(len(segments), getattr(clips, 'left_out', 0))
        intact = _check_files(name, segments, split, progress)
        _decode_some(name, segments, intact, split, splits.spec, decode, seed, progress)
        reports[name] = split
    return DatasetReport(splits.name, reports)


def _different(splits: Splits) -> dict[str, Clips]:
    """Return the clips by split; those of two splits once, under both names."""
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
    """Return the segments of clips, also of clips that wrap others."""
    while clips is not None:
        if hasattr(clips, 'segments'):
            return clips.segments
        clips = getattr(clips, 'clips', None)
    return None


def _check_files(
    name: str, segments: Sequence[LabelledSegment], split: SplitReport, progress: Progress,
) -> dict[Modality, list[int]]:
    """Count the files; return, for each modality, the segments whose file is present."""
    intact: dict[Modality, list[int]] = {}
    # Segments of one recording share their sources: each is checked once.
    check = lru_cache(maxsize=4096)(_problem)
    for index, segment in enumerate(segments):
        for modality, source in segment.sources.items():
            counts = split.modalities.setdefault(modality, ModalityCounts())
            problem, remarks = check(source) if isinstance(source, Hashable) else _problem(source)
            for remark in remarks:
                counts.note_remark(segment.name, remark)
            if problem is None:
                counts.present += 1
                intact.setdefault(modality, []).append(index)
            else:
                counts.note_missing(segment.name, problem)
        progress(f'{name}: files', index + 1, len(segments))
    split.modalities = {m: split.modalities[m] for m in in_order(split.modalities)}
    for modality, counts in split.modalities.items():
        counts.lacking = len(segments) - counts.present - counts.missing
        without = (s.name for s in segments if modality not in s.sources)
        counts.lacking_examples = list(islice(without, min(EXAMPLES, counts.lacking)))
    return intact


def _problem(source: Source) -> tuple[str | None, tuple[str, ...]]:
    """Return why a source cannot be read, if so, and remarks on how it is read."""
    problem = source.problem()
    remarks = getattr(source, 'remarks', None)
    if problem is not None or remarks is None:
        return problem, ()
    try:
        return None, remarks()
    except DataError as error:
        # Whether a sample lacks it is decided by decoding; the reason is reported in any case.
        return None, (f'it cannot be read: {error.problem}: {error.remedy}',)


def _decode_some(
    name: str, segments: Sequence[LabelledSegment], intact: dict[Modality, list[int]],
    split: SplitReport, spec: ClipSpec, decode: int, seed: int, progress: Progress,
) -> None:
    chosen = _draw(len(segments), decode, seed)
    by_modality = {modality: set(indices) for modality, indices in intact.items()}
    for done, index in enumerate(chosen):
        segment = segments[index]
        for modality, problem in _decode(segment, spec, by_modality, index):
            counts = split.modalities[modality]
            counts.decoded += 1
            if problem is not None:
                counts.note_damaged(segment.name, problem)
        progress(f'{name}: decoding', done + 1, len(chosen))


def _decode(
    segment: LabelledSegment, spec: ClipSpec, intact: dict[Modality, set[int]], index: int,
) -> Iterator[tuple[Modality, str | None]]:
    """Read each modality by itself, so that a damaged one does not hide the others."""
    for modality, source in segment.sources.items():
        if index not in intact.get(modality, ()):
            continue
        alone = LabelledSegment(segment.name, segment.start_s, segment.stop_s, segment.labels,
                        {modality: source})
        try:
            SegmentDataset([alone], spec, skip_unreadable=False)[0]
        except DataError as error:
            yield modality, str(error)
        else:
            yield modality, None


def _check_samples(
    name: str, clips: Clips, decode: int, seed: int, progress: Progress,
) -> SplitReport:
    split = SplitReport(len(clips))
    chosen = _draw(len(clips), max(1, decode), seed)
    all_counts = {m: ModalityCounts() for m in PAPER_MODALITIES}
    for done, index in enumerate(chosen):
        try:
            present = clips[index].clip.modalities
        except KarmmaError as error:
            for counts in all_counts.values():
                counts.note_damaged(f'clip {index}', str(error))
            continue
        for modality in present:
            all_counts.setdefault(modality, ModalityCounts()).decoded += 1
        progress(f'{name}: decoding', done + 1, len(chosen))
    split.modalities = {m: counts for m, counts in all_counts.items()
                        if counts.decoded or counts.damaged}
    for counts in split.modalities.values():
        counts.present = len(clips)
    return split


def _check_packed(
    name: str, clips: PackedClips, decode: int, seed: int, progress: Progress,
) -> SplitReport:
    """Check the shards, by their digests where clips are decoded as well."""
    split = SplitReport(len(clips))
    numbers = sorted({*clips.shards})
    problems: dict[int, str | None] = {}
    for done, number in enumerate(numbers):
        problems[number] = clips.pack.shard_problem(number, content=decode > 0)
        progress(f'{name}: shards', done + 1, len(numbers))
    split.modalities = {m: ModalityCounts() for m in clips.packed_modalities}
    for index, number in enumerate(clips.shards):
        recorded, problem = clips.recorded(index), problems[number]
        for modality, counts in split.modalities.items():
            if modality not in recorded:
                counts.lacking += 1
                if counts.lacking <= EXAMPLES:
                    counts.lacking_examples.append(f'clip {index}')
            elif problem is None:
                counts.present += 1
            else:
                counts.note_missing(
                    f'clip {index}', f'{clips.pack.store.path(shard_name(number))}: {problem}')
    intact = [i for i, number in enumerate(clips.shards) if problems[number] is None]
    for index in (intact[i] for i in _draw(len(intact), decode, seed)):
        for modality in clips.recorded(index):
            split.modalities[modality].decoded += 1
            try:
                clips.with_modalities([modality])[index]
            except KarmmaError as error:
                split.modalities[modality].note_damaged(f'clip {index}', str(error))
    return split


def _draw(count: int, wanted: int, seed: int) -> list[int]:
    """Return some indices, chosen at random without replacement, ascending."""
    drawn = np.random.default_rng(seed).permutation(count)[:wanted]
    return sorted(int(index) for index in drawn)
