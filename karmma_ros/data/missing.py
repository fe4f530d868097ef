"""Data with holes, made from data without: for experiments on missing modalities."""

from __future__ import annotations

from dataclasses import replace

from karmma_ros.clip import Clip
from karmma_ros.data.batch import Clips, Sample
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
import numpy as np


class WithoutSome:
    """
    The same clips, of which each has lost some of its modalities for good; a `Clips`.

    A modality of a sample is hidden with probability `share`, each on its own; where that
    would hide all, one of them, drawn evenly, stays. What a sample lacks depends on the seed
    and its index alone, so that it is as missing in the last epoch as it was in the first:
    modality dropout, in contrast, shows every modality in some epoch.

    :raises InvalidSettingError: when `share` is no probability.
    """

    def __init__(self, clips: Clips, share: float, seed: int = 0) -> None:
        if not 0 <= share <= 1:
            raise InvalidSettingError('share', share, 'from 0 to 1')
        self.clips, self.share, self.seed = clips, share, seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, index: int) -> Sample:
        """Give what is left of the clip that is scored."""
        return self._without_some(index, self.clips[index])

    def visit(self, index: int, epoch: int) -> Sample:
        """Give what is left of the clip of an epoch: the modalities that `__getitem__` gives."""
        return self._without_some(index, self.clips.visit(index, epoch))

    def hidden(self, index: int, modalities: tuple[Modality, ...]) -> set[Modality]:
        """Tell which of the modalities that a sample has are hidden."""
        # A draw for each modality there is: none depends on which others were recorded.
        generator = np.random.default_rng((self.seed, index))
        draws = dict(zip(Modality, generator.random(len(Modality))))
        lost = {m for m in modalities if draws[m] < self.share}
        if lost and len(lost) == len(modalities):
            lost.remove(max(lost, key=lambda m: draws[m]))
        return lost

    def _without_some(self, index: int, sample: Sample) -> Sample:
        lost = self.hidden(index, sample.clip.modalities)
        left = {m: x for m, x in sample.clip.inputs.items() if m not in lost}
        return replace(sample, clip=Clip(left))
