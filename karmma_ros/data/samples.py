"""Samples, the splits that they come from, and batches of samples of any modalities."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import cast, Protocol

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.prediction import Vocabulary
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import default_collate


@dataclass(frozen=True)
class Sample:
    """One labelled clip."""

    clip: Clip
    labels: Mapping[str, int]
    """Head → class id."""
    index: int = -1
    """Its index in its split; -1 where it does not matter."""


class Clips(Protocol):
    """A split of a data set."""

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> Sample:
        """Return a clip as it is scored: always the same."""
        ...

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return a clip as it is trained on in an epoch: with another window, for example."""
        ...


def without_preparation(clips: Clips) -> Clips:
    """Return clips that a loader passes on as far as `ModalityType.begin` prepares them."""
    select = getattr(clips, 'without_preparation', None)
    return clips if select is None else cast(Clips, select())


def with_modalities(clips: Clips, modalities: Sequence[Modality]) -> Clips:
    """Return the same clips with some modalities only, where that saves the data set work."""
    select = getattr(clips, 'with_modalities', None)
    return clips if select is None else cast(Clips, select(modalities))


class Preparation:
    """
    Prepares a batch on its device; samples that are absent become zeros.

    Images are passed on in 8 bit and audio as one spectrogram: a third of the bytes, and a card
    prepares them in no time. It is no dataclass, into which Lightning would descend.
    """

    def __init__(self, clip: ClipSpec, present: Mapping[Modality, Tensor]) -> None:
        """Take the specification of the clips; modality that is not prepared → bool `[b]`."""
        self._clip, self._present = clip, present

    def __call__(self, inputs: Mapping[Modality, Tensor]) -> dict[Modality, Tensor]:
        """Return the inputs of the network."""
        prepared = {}
        for modality, x in inputs.items():
            if modality in self._present:
                x = modality_type(modality).prepare_batch(x, self._clip)
                x[~self._present[modality].to(x.device)] = 0
            prepared[modality] = x
        return prepared


@dataclass  # not frozen: Lightning puts tensors of another precision into a copy
class Batch:
    """
    Stacked clips; b samples, m modalities in canonical order.

    >>> from karmma_ros.clip import Clip, ClipSpec
    >>> from karmma_ros.data.samples import collate, Sample
    >>> from karmma_ros.modality import Modality
    >>> import numpy as np
    >>> audio = np.zeros(ClipSpec().input_shape(Modality.AUDIO), np.float32)
    >>> batch = collate([Sample(Clip({Modality.AUDIO: audio}), {'verb': 3})], [Modality.AUDIO])
    >>> len(batch), batch.labels['verb'].tolist()
    (1, [3])
    """

    inputs: Mapping[Modality, Tensor]
    """Modality → float32 `[b, ...]`; zeros where a sample lacks it."""
    present: Tensor
    """Bool `[b, m]`."""
    labels: Mapping[str, Tensor]
    """Head → int64 `[b]`."""
    index: Tensor
    """Int64 `[b]`: each sample's index in its split."""
    preparation: Preparation | None = None
    """How inputs that are not prepared yet are, on the device; None: all are."""

    def __len__(self) -> int:
        return len(self.present)

    def to(self, device: torch.device | str) -> Batch:
        """Return the same batch on another device, its inputs prepared."""
        inputs = {m: x.to(device, non_blocking=True) for m, x in self.inputs.items()}
        return Batch(
            inputs if self.preparation is None else self.preparation(inputs),
            self.present.to(device),
            {head: ids.to(device) for head, ids in self.labels.items()},
            self.index.to(device),
        )

    def rows(self, chosen: Tensor) -> Batch:
        """Return the samples that a bool `[b]` marks."""
        return Batch(
            {m: x[chosen] for m, x in self.inputs.items()},
            self.present[chosen],
            {head: ids[chosen] for head, ids in self.labels.items()},
            self.index[chosen],
        )


def collate(
    samples: Sequence[Sample], modalities: Sequence[Modality],
    clip: ClipSpec | None = None, unprepared: Collection[Modality] = (),
) -> Batch:
    """
    Stack samples; no two need the same modalities.

    :param clip: specification by which some modalities are prepared later, on the device.
    :param unprepared: these modalities.
    """
    inputs: dict[Modality, Tensor] = {}
    present = torch.zeros(len(samples), len(modalities), dtype=torch.bool)
    for column, modality in enumerate(modalities):
        arrays = [sample.clip.inputs.get(modality) for sample in samples]
        template = next((x for x in arrays if x is not None), None)
        if template is None:
            continue
        present[:, column] = torch.tensor([x is not None for x in arrays])
        # In a loader's process it stacks in shared memory: one copy less.
        inputs[modality] = default_collate([
            torch.from_numpy(np.zeros_like(template) if x is None else x) for x in arrays])
    labels = {
        head: torch.tensor([sample.labels[head] for sample in samples])
        for head in samples[0].labels
    }
    later = {m: present[:, column] for column, m in enumerate(modalities) if m in unprepared}
    return Batch(inputs, present, labels, torch.tensor([sample.index for sample in samples]),
                 Preparation(clip, later) if clip is not None and later else None)


@dataclass(frozen=True)
class Splits:
    """The three splits of a data set; two of them may be the same clips."""

    name: str
    """The name of the data set, such as `EPIC-KITCHENS-100`."""
    spec: ClipSpec
    """Format of the clips."""
    vocabulary: Vocabulary
    """The heads and their class names."""
    train: Clips
    validation: Clips
    test: Clips
    folds: tuple[str, ...] = ()
    """The fold of each training clip, such as the person; empty: none are named."""
