"""
Every data set by name, and the digest of a split: the key under which results on it are kept.

In a digest, media files are known by their size, their times of change and their inode, which
change whenever a file is written to, even where a tool restores the time of modification. Their
paths do not count: the same files by another spelling, or a link, are the same data. A source
whose fields do not describe it has a method `decided_by` that does.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass, replace
import hashlib
import os
from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.data import epic_kitchens, manifest, something_something
from karmma_ros.data.cached_windows import CachedWindows
from karmma_ros.data.epic_kitchens import EpicKitchensSettings
from karmma_ros.data.manifest import ManifestSettings
from karmma_ros.data.packs.packed_clips import open_pack, PackedClips
from karmma_ros.data.packs.shard_store import TIMEOUT_S
from karmma_ros.data.recordings import BagClips, BagSettings, ExtractedRecording, open_recordings
from karmma_ros.data.samples import Clips, Splits
from karmma_ros.data.segments import SegmentDataset
from karmma_ros.data.something_something import SomethingSomethingSettings
from karmma_ros.data.synthetic_kitchen import dataset as synthetic_kitchen
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings, VERSION
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
import numpy as np

DATASETS = ('synthetic_kitchen', 'epic_kitchens', 'something_something', 'manifest', 'bags')


@dataclass(frozen=True)
class DataSettings:
    """The data set and its settings; only the section of the chosen one is read."""

    dataset: str = 'synthetic_kitchen'
    """Name of the data set: synthetic_kitchen, epic_kitchens, something_something, manifest or
    bags."""
    clip: ClipSpec | None = None
    """Format of the clips; none: that of the paper, or that of the synthetic kitchen."""
    windows: int = 0
    """Windows of each training segment that are prepared once and kept on disk; each epoch takes
    another of them. 0: every epoch reads a window of its own."""
    packed: str = ''
    """Folder or URL (s3://, gs://, az://, https://) of a data pack, as `karmma data pack` writes
    it, that is read in place of the data set."""
    pack_cache_gb: float = 0.0
    """Gigabytes that copies of the shards of a pack in a bucket may take; samples are then
    shuffled among those shards only. 0: all shards are kept."""
    pack_timeout: float = TIMEOUT_S
    """Seconds that one request to a bucket may take; it is tried four times."""
    synthetic_kitchen: KitchenSettings = field(default_factory=KitchenSettings)
    epic_kitchens: EpicKitchensSettings = field(default_factory=EpicKitchensSettings)
    something_something: SomethingSomethingSettings = field(
        default_factory=SomethingSomethingSettings)
    manifest: ManifestSettings = field(default_factory=ManifestSettings)
    bags: BagSettings = field(default_factory=BagSettings)

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise InvalidSettingError('data.dataset', self.dataset, ', '.join(DATASETS))
        if self.windows < 0:
            raise InvalidSettingError('data.windows', self.windows, 'a number from 0 on')
        if not self.pack_timeout > 0:
            raise InvalidSettingError('data.pack_timeout', self.pack_timeout, 'seconds above 0')
        if not self.pack_cache_gb >= 0:
            raise InvalidSettingError(
                'data.pack_cache_gb', self.pack_cache_gb, 'gigabytes, or 0 to keep all shards')

    @property
    def spec(self) -> ClipSpec:
        """Return the format of the clips."""
        if self.clip is not None:
            return self.clip
        return clip_spec() if self.dataset == 'synthetic_kitchen' else ClipSpec()


def open_splits(
    settings: DataSettings, spec: ClipSpec | None, cache: Path,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
    recordings: Sequence[ExtractedRecording] = (),
) -> Splits:
    """
    Open the splits of the chosen data set.

    :param spec: format of the clips; None: that of the settings.
    :param cache: folder for the rendered kitchen.
    :param progress: called with the name of a task, how much of it is done, and the total.
    :param recordings: for bags, as `bags.training_clips.extract_recordings` returns them.
    :raises DataError: when a part of it is missing or not as it is published.
    """
    if settings.packed:
        return open_pack(settings.packed, spec or settings.clip, cache, settings.pack_timeout,
                         round(settings.pack_cache_gb * 1e9))
    spec = settings.spec if spec is None else spec
    if settings.dataset == 'synthetic_kitchen':
        return synthetic_kitchen.open_splits(settings.synthetic_kitchen, spec, cache, progress)
    if settings.dataset == 'epic_kitchens':
        return epic_kitchens.open_splits(settings.epic_kitchens, spec)
    if settings.dataset == 'manifest':
        return manifest.open_splits(settings.manifest, spec)
    if settings.dataset == 'bags':
        return open_recordings(settings.bags, spec, recordings)
    return something_something.open_splits(
        settings.something_something, spec,
        lambda done, total: progress('reading boxes', done, total))


def cache_windows(
    splits: Splits, settings: DataSettings, modalities: Sequence[Modality], cache: Path,
    workers: int = 1,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> Splits:
    """
    Return splits whose windows are prepared once, as `windows` of the settings has it.

    Clips that are rendered, or that are cached otherwise, stay.

    :param cache: folder to keep them in.
    :raises DataError: when the disk has too little space.
    """
    if not settings.windows:
        return splits
    cached: dict[int, Clips] = {}
    for name in ('train', 'validation', 'test'):
        clips = getattr(splits, name)
        if isinstance(clips, SegmentDataset) and id(clips) not in cached:
            cached[id(clips)] = CachedWindows.build(
                clips, settings.windows if name == 'train' else 0, modalities,
                cache / 'windows' / name, clips_digest(clips, settings), workers, progress)
    train, validation, test = (
        cached.get(id(each), each) for each in (splits.train, splits.validation, splits.test))
    return replace(splits, train=train, validation=validation, test=test)


_PLAIN = (type(None), bool, int, float, str, np.generic)


def clips_digest(clips: Clips, settings: DataSettings) -> str:
    """
    Return a digest of everything that decides the clips of a split as they are scored.

    For recordings this is the labelled segments and the files, whatever the settings are: neither
    the spelling of a path counts nor the seed of the training windows. Rendered clips are known
    by their settings and the version of the renderer.
    """
    digest = _Digest()
    if isinstance(clips, CachedWindows):
        clips = clips.clips
    if isinstance(clips, SegmentDataset):
        digest.add(clips.spec.to_dict())
        digest.add(clips.segments)
    elif isinstance(clips, PackedClips):
        digest.add(clips.decided_by())
    elif isinstance(clips, BagClips):  # the folders are named by all that decides the clips
        digest.add([[each.name for each in clips.folders], clips.located])
    else:
        own = getattr(settings, settings.dataset)
        digest.add([settings.dataset, VERSION, own, settings.spec.to_dict(), len(clips)])
    return digest.hexdigest()


class _Digest:
    """A digest of nested values, each marked by its type, so that no two values have the same."""

    def __init__(self) -> None:
        self._hash = hashlib.sha256()
        self._files: dict[Path, str] = {}

    def hexdigest(self) -> str:
        return self._hash.hexdigest()

    def add(self, value: Any) -> None:
        if hasattr(value, 'decided_by'):
            self._text('object', type(value).__name__)
            self.add(value.decided_by())
        elif isinstance(value, Path):
            self._text('path', self._files.get(value) or self._state(value))
        elif isinstance(value, np.ndarray):
            self._text('array', f'{value.dtype} {value.shape}')
            self._hash.update(value.tobytes())
        elif is_dataclass(value) and not isinstance(value, type):
            self._text('fields', type(value).__name__)
            for field in fields(value):
                self.add(getattr(value, field.name))
        elif isinstance(value, Mapping):
            self._text('mapping', str(len(value)))
            for key in sorted(value, key=str):
                self._text('key', str(key))
                self.add(value[key])
        elif isinstance(value, (list, tuple)):
            self._text('list', str(len(value)))
            for each in value:
                self.add(each)
        else:
            assert isinstance(value, _PLAIN), f'{type(value)} has no decided_by'
            self._text(type(value).__name__, repr(value))

    def _text(self, type_name: str, text: str) -> None:
        data = text.encode(errors='surrogateescape')
        self._hash.update(f'{type_name} {len(data)} '.encode())
        self._hash.update(data)

    def _state(self, path: Path) -> str:
        """Describe a file, or every file of a folder, without its path."""
        digest = hashlib.sha256()
        if path.is_dir():
            for entry in sorted(path.rglob('*')):
                name = os.fsencode(entry.relative_to(path))
                digest.update(b'%d %s %s\n' % (len(name), name, _state_of(entry).encode()))
        else:
            digest.update(_state_of(path).encode())
        return self._files.setdefault(path, digest.hexdigest())


def _state_of(path: Path) -> str:
    try:
        status = path.stat()
    except OSError as error:
        return f'none {error.errno}'
    if path.is_dir():  # its files are described one by one
        return 'folder'
    return (f'{status.st_dev} {status.st_ino} {status.st_size} {status.st_mtime_ns} '
            f'{status.st_ctime_ns}')
