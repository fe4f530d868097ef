"""Training on corrupted inputs: single samples in which one sensor is covered, noisy or hung."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, cast

from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Clips
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import modality_type, sources_of
from karmma_ros.modalities.corruption import SEVERITIES
from karmma_ros.modality import Modality
import numpy as np
import torch
from torch import Tensor

_STREAM = 0xC0
"""Sets these random numbers apart from others of the same seed and step."""


class InputCorruption:
    """
    Corrupt one modality of a sample, with a probability, at any of its severities.

    What is drawn depends on the seed, the step, and the index of the sample in the step alone.
    Flow that is computed from a corrupted camera is that of its corrupted frames.
    """

    def __init__(
        self, probability: float, seed: int, spec: ClipSpec, computed: Collection[Modality] = (),
    ) -> None:
        """
        Take the settings.

        :param probability: of each sample.
        :param computed: modalities that are computed from another one's samples.
        """
        self._probability, self._seed, self._spec = probability, seed, spec
        self._source = {m: source for m, source in sources_of(computed, spec).items()}

    @classmethod
    def of_clips(cls, probability: float, seed: int, clips: Clips) -> InputCorruption | None:
        """
        Return the corruption of the clips of a split; None with a probability of 0.

        :raises InvalidSettingError: when the clips are not made of samples.
        """
        if not probability:
            return None
        spec: ClipSpec | None = getattr(clips, 'spec', None)
        if spec is None:
            raise InvalidSettingError(
                'optimizer.corruption', probability, '0 for clips that are no sensor data')
        computed = cast(Any, clips).computed(0) if hasattr(clips, 'computed') else ()
        return cls(probability, seed, spec, computed)

    def __call__(
        self, inputs: Mapping[Modality, Tensor], present: Mapping[Modality, Tensor], step: int,
        positions: Sequence[int],
    ) -> dict[Modality, Tensor]:
        """
        Return the inputs of a batch with corrupted samples; none is changed in place.

        :param present: modality → bool `[b]`, of those that may be corrupted.
        :param positions: index in the step of each sample.
        """
        corrupted = dict(inputs)
        for row, position in enumerate(positions):
            rng = np.random.default_rng((self._seed, step, position, _STREAM))
            if rng.random() >= self._probability:
                continue
            for modality, x in self._sample(
                    {m: inputs[m][row] for m, has in present.items()
                     if m in inputs and bool(has[row])}, rng).items():
                if corrupted[modality] is inputs[modality]:
                    corrupted[modality] = inputs[modality].clone()
                corrupted[modality][row] = torch.from_numpy(x)
        return corrupted

    def _sample(
        self, inputs: Mapping[Modality, Tensor], rng: np.random.Generator,
    ) -> dict[Modality, np.ndarray]:
        """Return what changes of the inputs of one sample."""
        candidates = [m for m in inputs if modality_type(m).input_corruptions
                      and self._source.get(m) not in inputs]
        if not candidates:
            return {}
        modality = candidates[int(rng.integers(len(candidates)))]
        own = modality_type(modality)
        name = own.input_corruptions[int(rng.integers(len(own.input_corruptions)))]
        severity = int(rng.choice(SEVERITIES))
        x = own.corrupt_input(
            name, severity, inputs[modality].float().cpu().numpy(), self._spec, rng)
        changed = {modality: x}
        for derived in (m for m in inputs if self._source.get(m) == modality):
            flow: Any = modality_type(derived)
            frames = own.restore(x, self._spec)
            changed[derived] = flow.prepare(flow.recomputed(frames, self._spec), self._spec)
        return changed
