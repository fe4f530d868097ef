"""
The splits as torch data sets: rendered once and read from disk, or rendered on access.

A split on disk is an `ArrayStore`: a folder that exists is complete, and a stopped run is
continued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import partial
import os
from pathlib import Path
from typing import Any

import cv2
from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.data.synthetic_kitchen.episode import (
    boxes_of_frames,
    camera_frames,
    episode,
    render_clip,
    RenderedClip,
    start_of,
)
from karmma_ros.data.synthetic_kitchen.vocabulary import Classes, Domain, Split, vocabulary
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.prediction import NOUN, VERB
from karmma_ros.preprocess.optical_flow import clip_flow
from karmma_ros.storage import (
    ArrayStore,
    file_lock,
    fingerprint,
    METADATA,
    open_arrays,
    read_metadata,
    REMEDY,
)
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import Dataset

VERSION = 3
"""Grows whenever equal settings would give clips that differ by more than rounding."""

CHUNK = 32
"""Clips that are written at once: those of an interrupted run that are not rendered again."""

_DTYPES = {'rgb': np.uint8, 'flow': np.uint8, 'audio': np.float16, 'detections': np.float32,
           'labels': np.int64}
assert tuple(_DTYPES) == tuple(f.name for f in fields(RenderedClip))


def write_split(folder: Path | str, split: Split, count: int, seed: int, spec: ClipSpec, *,
                domain: Domain = Domain.KITCHEN, idle: float = 0.0,
                classes: Classes | None = None, workers: int = 1,
                progress: Callable[[int, int], None] = lambda done, total: None,
                ) -> Path:
    """
    Render the first `count` clips of a split into `folder`, unless they are there.

    :param classes: that occur; None: all of the domain.
    :param workers: processes that render; 1 renders in this one.
    :param progress: called with the clips done and the clips in all.
    :raises DataError: when the folder holds a split of other settings.
    :raises InvalidSettingError: when there is nothing to write or no process to write it.
    """
    for name, value in (('count', count), ('workers', workers)):
        if value < 1:
            raise InvalidSettingError(name, value, 'at least 1')
    folder = Path(folder)
    rgb, flow = (spec.input_shape(m)[1:] for m in (Modality.RGB, Modality.FLOW))
    shapes = {'rgb': (*rgb, 3), 'flow': (*flow, 2),
              'audio': spec.input_shape(Modality.AUDIO),
              'detections': spec.input_shape(Modality.DETECTIONS), 'labels': (2,)}
    layout = {name: (dtype, shapes[name]) for name, dtype in _DTYPES.items()}
    classes = classes or Classes.of(domain)
    described = describe(split, count, seed, spec, classes, idle)
    store = ArrayStore(folder, described, layout, count)
    with file_lock(folder):
        if folder.exists():
            _check(folder, store.metadata)
            return folder
        render = partial(_render_chunk, split, seed, spec, classes, idle,
                         classes.episodes(split, seed, count, idle))
        store.fill(render, CHUNK, workers, progress, _use_one_thread)
    return folder


def describe(
    split: Split, count: int, seed: int, spec: ClipSpec, classes: Classes, idle: float = 0.0,
) -> dict[str, Any]:
    """Return everything that decides the content of a written split, JSON-ready."""
    return {'dataset': 'synthetic_kitchen', 'version': VERSION, 'split': split.value,
            'count': count, 'seed': seed, 'verbs': classes.verbs, 'nouns': classes.nouns,
            'spec': spec.to_dict(), **({'idle': idle} if idle else {})}


def open_split(folder: Path | str) -> tuple[dict[str, Any], dict[str, NDArray[Any]]]:
    """
    Return the metadata and the memory-mapped arrays of a written split.

    :raises DataError: when it is missing, incomplete, damaged or of another version.
    """
    folder = Path(folder)
    metadata, arrays = open_arrays(folder)
    _check(folder, {'dataset': 'synthetic_kitchen', 'version': VERSION})
    for name, dtype in _DTYPES.items():
        if arrays[name].dtype != dtype or len(arrays[name]) != metadata.get('count'):
            raise DataError(folder, f'{name}.npy does not fit {METADATA}', REMEDY)
    return metadata, arrays


def _check(folder: Path, wanted: Mapping[str, Any]) -> None:
    """Check that a folder holds the wanted split, complete."""
    metadata = read_metadata(folder)
    if metadata is None:
        raise DataError(folder, f'it has no readable {METADATA}', REMEDY)
    for key, value in wanted.items():
        if metadata.get(key) != value:
            difference = _difference(metadata.get(key), value)
            raise DataError(folder, f'its {key} is {difference}', REMEDY)
    for name in _DTYPES:
        if not (folder / f'{name}.npy').is_file():
            raise DataError(folder, f'{name}.npy is missing', REMEDY)


def _difference(actual: object, wanted: object) -> str:
    """Describe what differs; of two mappings only the fields that do."""
    if isinstance(actual, dict) and isinstance(wanted, dict):
        names = [k for k in wanted if actual.get(k) != wanted[k]]
        return f'another in {", ".join(names)}'
    return f'{actual!r}; expected {wanted!r}'


def _use_one_thread() -> None:
    cv2.setNumThreads(1)


def _render_chunk(
    split: Split, seed: int, spec: ClipSpec, classes: Classes, idle: float,
    episodes: Sequence[int], rows: range,
) -> dict[str, NDArray[Any]]:
    clips = [render_clip(split, seed, episodes[row], spec, classes.domain, idle) for row in rows]
    chunk = {name: np.stack([getattr(clip, name) for clip in clips]) for name in _DTYPES}
    every = vocabulary(classes.domain, idle=True).heads
    own = classes.vocabulary(idle=True).heads
    chunk['labels'] = np.array([
        [own[head].index(every[head][label]) for head, label in zip((VERB, NOUN), labels)]
        for labels in chunk['labels'].tolist()], np.int64)
    return chunk


class CachedKitchen(Dataset[Sample]):
    """
    A split that `write_split` wrote.

    Each process maps the files; a pickle has the path of the folder alone.

    :raises DataError: when the folder is missing, incomplete or of another version.
    """

    def __init__(
        self, folder: Path | str, modalities: Sequence[Modality] = PAPER_MODALITIES
    ) -> None:
        self.folder = Path(folder)
        self.modalities = tuple(modalities)
        self._open()

    def with_modalities(self, modalities: Sequence[Modality]) -> CachedKitchen:
        """Return the same clips with some modalities only."""
        return CachedKitchen(self.folder, modalities)

    def _open(self) -> None:
        self.metadata, self._arrays = open_split(self.folder)
        self.spec = ClipSpec.from_dict(self.metadata['spec'])

    def __getstate__(self) -> dict[str, Any]:
        return {'folder': self.folder, 'modalities': self.modalities}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        self._open()

    def __len__(self) -> int:
        return len(self._arrays['labels'])

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')
        rendered = RenderedClip(**{k: np.asarray(v[index]) for k, v in self._arrays.items()})
        return _sample(rendered, self.spec, self.modalities)

    def arrays(self, index: int, delay_s: float = 0.0) -> dict[Modality, Any]:
        """
        Return what `ModalityType.prepare` takes of a clip, its audio synthesized again.

        :param delay_s: how much earlier the window lies; later, where the episode has not begun.
        """
        split, seed = Split(self.metadata['split']), self.metadata['seed']
        idle, nouns = self.metadata.get('idle', 0.0), self.metadata['nouns']
        classes = Classes.of(Domain.of(nouns[0]), self.metadata['verbs'], nouns)
        number = classes.episodes(split, seed, index + 1, idle)[index]
        kitchen = episode(split, seed, number, classes.domain, idle)
        start = start_of(split, seed, number)
        start += delay_s if start < delay_s else -delay_s
        readers: dict[Modality, Callable[[], Any]] = {
            m: partial(np.array, self._arrays[m.value][index])
            for m in (Modality.RGB, Modality.FLOW, Modality.DETECTIONS)}
        if delay_s:
            readers = {
                Modality.RGB: lambda: camera_frames(kitchen, start, self.spec),
                Modality.FLOW: lambda: clip_flow(
                    camera_frames(kitchen, start, self.spec), *self.spec.flow.estimation),
                Modality.DETECTIONS: lambda: boxes_of_frames(kitchen, start, self.spec)}
        readers[Modality.AUDIO] = lambda: kitchen.audio(
            start, self.spec.duration, self.spec.audio.sample_rate)
        return {m: readers[m]() for m in self.modalities}

    def labels(self, index: int) -> Mapping[str, int]:
        """Return head → class id of a clip, without reading it."""
        return dict(zip((VERB, NOUN), self._arrays['labels'][index].tolist()))

    def computed(self, index: int) -> frozenset[Modality]:
        """Return flow, which is computed from the frames."""
        return frozenset({Modality.FLOW} & {*self.modalities})

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return the clip, which has one window only."""
        return self[index]


class LiveKitchen(Dataset[Sample]):
    """The same split, rendered clip by clip on access."""

    def __init__(self, split: Split, count: int, seed: int, spec: ClipSpec,
                 domain: Domain = Domain.KITCHEN, idle: float = 0.0) -> None:
        self.split, self.count, self.seed, self.spec = split, count, seed, spec
        self.domain, self.idle = domain, idle

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')
        rendered = render_clip(
            self.split, self.seed, index, self.spec, self.domain, self.idle)
        return _sample(rendered, self.spec)

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return the clip, which has one window only."""
        return self[index]


def _sample(
    rendered: RenderedClip, spec: ClipSpec, modalities: Sequence[Modality] = PAPER_MODALITIES
) -> Sample:
    verb, noun = (int(label) for label in rendered.labels)
    return Sample(rendered.clip(spec, modalities), {VERB: verb, NOUN: noun})


TITLES = {Domain.KITCHEN: 'Synthetic Kitchen',
          Domain.GARAGE: 'Synthetic Kitchen (garage)'}


@dataclass(frozen=True)
class KitchenSettings:
    """How much of the synthetic kitchen to render."""

    train: int = 7200
    """Training clips."""
    validation: int = 800
    """Validation clips."""
    test: int = 1600
    """Test clips."""
    seed: int = 0
    """Seed of the rendering."""
    domain: str = Domain.KITCHEN.value
    """kitchen or garage: the same verbs with other objects, surroundings, camera and audio, to
    pretrain encoders on."""
    idle: float = 0.0
    """Fraction of the clips in which nothing is done. Above 0 both heads have the class nothing,
    which events do not announce."""
    verbs: tuple[str, ...] = ()
    """Verbs that occur; empty: all. The heads have no other."""
    nouns: tuple[str, ...] = ()
    """Nouns that occur; empty: all."""

    def __post_init__(self) -> None:
        for name in ('train', 'validation', 'test'):
            if getattr(self, name) < 1:
                raise InvalidSettingError(
                    f'synthetic_kitchen.{name}', getattr(self, name), 'an integer above 0')
        self.classes  # checks them
        if not 0 <= self.idle < 1:
            raise InvalidSettingError(
                'synthetic_kitchen.idle', self.idle, 'a fraction of the clips, 0 or more, below 1')

    @property
    def classes(self) -> Classes:
        """Return the classes that occur."""
        domain = Domain.parse(self.domain, 'synthetic_kitchen.domain')
        return Classes.of(domain, self.verbs, self.nouns, 'synthetic_kitchen.')


def open_splits(
    settings: KitchenSettings, spec: ClipSpec, cache: Path,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> Splits:
    """
    Render the splits, unless they are in the cache.

    :param cache: folder to keep them in.
    :param progress: called with the name of a task, the clips done and the total.
    :raises DataError: when the folder holds something else under their names.
    """
    classes, written = settings.classes, {}
    domain = classes.domain
    # The kitchen's folders have the names that they had before there was another domain.
    prefix = '' if domain is Domain.KITCHEN else f'{domain}_'
    prefix += f'idle{settings.idle:g}_' if settings.idle else ''
    prefix += '' if classes.all else f'{fingerprint(classes.vocabulary().heads)}_'
    for split in Split:
        count = getattr(settings, split.value)
        folder = write_split(
            cache / f'{prefix}{split}_{count}_{settings.seed}', split, count, settings.seed, spec,
            classes=classes, idle=settings.idle, workers=os.cpu_count() or 1,
            progress=partial(progress, f'rendering {prefix}{split}'))
        written[split] = CachedKitchen(folder)
    return Splits(TITLES[domain], spec, classes.vocabulary(settings.idle > 0),
                  written[Split.TRAIN], written[Split.VALIDATION], written[Split.TEST])
