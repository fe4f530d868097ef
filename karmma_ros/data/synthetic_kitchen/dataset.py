"""The splits as torch data sets: read from disk, or rendered when asked for."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Sample
from karmma_ros.data.synthetic_kitchen.cache import open_split
from karmma_ros.data.synthetic_kitchen.rendering import render_clip, RenderedClip
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.modality import Modality
from karmma_ros.prediction import NOUN, VERB
import numpy as np
from torch.utils.data import Dataset


class WrittenKitchen(Dataset[Sample]):
    """
    A split that `write_split` wrote.

    Each process maps the files anew; pickling it carries the folder's name alone.

    :raises CacheError: when the folder is missing, not whole or of another version.
    """

    def __init__(
        self, folder: Path | str, modalities: Sequence[Modality] = tuple(Modality)
    ) -> None:
        self.folder = Path(folder)
        self.modalities = tuple(modalities)
        self._open()

    def taking(self, modalities: Sequence[Modality]) -> WrittenKitchen:
        """Give the same clips with some modalities only."""
        return WrittenKitchen(self.folder, modalities)

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

    def visit(self, index: int, epoch: int) -> Sample:
        """Give the clip, which has one window only."""
        return self[index]


class LiveKitchen(Dataset[Sample]):
    """The same split, rendered clip by clip as it is asked for."""

    def __init__(self, split: Split, count: int, seed: int, spec: ClipSpec) -> None:
        self.split, self.count, self.seed, self.spec = split, count, seed, spec

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, index: int) -> Sample:
        if not 0 <= index < len(self):
            raise IndexError(f'clip {index} of {len(self)}')
        return _sample(render_clip(self.split, self.seed, index, self.spec), self.spec)

    def visit(self, index: int, epoch: int) -> Sample:
        """Give the clip, which has one window only."""
        return self[index]


def _sample(
    rendered: RenderedClip, spec: ClipSpec, modalities: Sequence[Modality] = tuple(Modality)
) -> Sample:
    verb, noun = (int(label) for label in rendered.labels)
    return Sample(rendered.clip(spec, modalities), {VERB: verb, NOUN: noun})
