"""
The clips of a split as sensors give them that are covered, muted, hung, noisy, late or silent.

Samples are corrupted before they are prepared. Flow that is computed from a camera is computed
from its corrupted frames. A condition depends on its seed and the index of a clip alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any, cast, Protocol
import zlib

from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Clips
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities import input_modalities, make_clip, modality_type, sources_of
from karmma_ros.modalities.window_content import default_thresholds, uninformative
from karmma_ros.modality import in_order, Modality
import numpy as np


class RecordedClips(Clips, Protocol):
    """Clips whose samples can be read before they are prepared."""

    def arrays(self, index: int, delay_s: float = 0.0) -> dict[Modality, Any]:
        """Return what `ModalityType.prepare` takes of a clip, from so many seconds before it."""
        ...

    def labels(self, index: int) -> Mapping[str, int]:
        """Return head → class id of a clip, without reading it."""
        ...

    def computed(self, index: int) -> frozenset[Modality]:
        """Return the modalities of a clip that are computed from another one's samples."""
        ...

    def with_modalities(self, modalities: Sequence[Modality]) -> RecordedClips:
        """Return the same clips with some modalities only."""
        ...


def recorded(clips: Clips) -> RecordedClips:
    """
    Return clips as those whose samples can be read.

    :raises InvalidSettingError: when they cannot.
    """
    needed = 'arrays', 'computed', 'labels', 'with_modalities'
    if not all(hasattr(clips, name) for name in needed):
        raise InvalidSettingError(
            '--corruptions', type(clips).__name__, 'a data set that has the samples of its clips')
    return cast(RecordedClips, clips)


@dataclass(frozen=True)
class SensorCorruption:
    """The corruption of one modality."""

    modality: Modality
    names: tuple[str, ...]
    """One of them is drawn for each clip."""
    severity: int


Sensors = Mapping[Modality, tuple[Modality, ...]]
"""Modality whose samples are corrupted → the network's modalities that they become."""


def sensors_of(
    clips: RecordedClips, modalities: Sequence[Modality], spec: ClipSpec, index: int,
) -> Sensors:
    """
    Return what can be corrupted: a camera with the flow that is computed from it.

    :param modalities: of the network.
    :param index: of a clip, which shows what is computed.
    """
    computed = clips.with_modalities(input_modalities(modalities, spec)).computed(index)
    sources = sources_of(modalities, spec)
    root = {m: sources[m] if m in computed and m in sources else m for m in modalities}
    return {sensor: tuple(m for m in modalities if root[m] == sensor)
            for sensor in in_order(root.values())}


def sensor_corruptions(modality: Modality) -> tuple[str, ...]:
    """Return the names of the corruptions that a modality has."""
    return tuple(modality_type(modality).corruptions)


@dataclass(frozen=True)
class ClipWindow:
    """The samples of a clip before they are prepared."""

    index: int
    """Of the clip in its split."""
    arrays: Mapping[Modality, Any]
    """What `ModalityType.prepare` takes; it may have cameras that only flow is computed from."""
    computed: frozenset[Modality]
    """Modalities that are computed from another one's samples."""
    labels: Mapping[str, int]


class ClipWindows:
    """Some clips of a split as windows; cheap to pickle for the workers of a loader."""

    def __init__(
        self, clips: RecordedClips, rows: Sequence[int], modalities: Sequence[Modality],
        spec: ClipSpec,
    ) -> None:
        """Take the modalities of the network; a camera may be needed for its flow alone."""
        self.clips = clips.with_modalities(input_modalities(modalities, spec))
        self.rows = rows

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, position: int) -> ClipWindow:
        index = self.rows[position]
        return ClipWindow(index, self.clips.arrays(index), self.clips.computed(index),
                      self.clips.labels(index))


@dataclass(frozen=True)
class SensorCondition:
    """What happens to the sensors of each clip."""

    corruptions: tuple[SensorCorruption, ...] = ()
    delayed: tuple[Modality, ...] = ()
    """Modalities whose samples come from `delay_s` earlier than those of the others."""
    delay_s: float = 0.0
    removed: tuple[Modality, ...] = ()
    """Modalities without any sample."""
    observed: float = 1.0
    """Fraction of the window after which nothing is received any more."""
    seed: int = 0

    @property
    def sensors(self) -> tuple[Modality, ...]:
        """Return the modalities that it is about; none: all."""
        return (*(each.modality for each in self.corruptions), *self.delayed, *self.removed)

    def facts(self) -> dict[str, Any]:
        """Return all that it depends on, JSON-ready."""
        return asdict(self)

    def apply(
        self, window: ClipWindow, clips: RecordedClips, spec: ClipSpec,
    ) -> dict[Modality, Any]:
        """
        Return the samples of the modalities that differ, all where no modality is named.

        :param clips: of the window, for earlier samples.
        """
        if not self.sensors:
            changed = dict(window.arrays)
            if self.observed < 1:
                changed = {m: modality_type(m).truncate(x, self.observed, spec)
                           for m, x in changed.items()}
        else:
            late = [m for m in self.delayed if m in window.arrays and m not in window.computed]
            changed = dict(clips.with_modalities(late).arrays(window.index, self.delay_s)
                           if late else {})
            changed |= {each.modality: self._corrupted(each, window, spec)
                        for each in self.corruptions
                        if each.modality in window.arrays and each.modality not in window.computed}
        for modality in window.computed & {*window.arrays}:
            own = modality_type(modality)
            source = own.source(spec)
            if source in changed and (self.sensors or self.observed < 1):
                changed[modality] = cast(Any, own).recomputed(changed[source], spec)
        return changed

    def _corrupted(self, corruption: SensorCorruption, window: ClipWindow, spec: ClipSpec) -> Any:
        modality = corruption.modality
        key = zlib.crc32(f'{modality} {" ".join(corruption.names)}'.encode())
        rng = np.random.default_rng((self.seed, window.index, key, corruption.severity))
        name = corruption.names[int(rng.integers(len(corruption.names)))]
        return modality_type(modality).corrupt(
            name, corruption.severity, window.arrays[modality], spec, rng)


def inputs_of(arrays: Mapping[Modality, Any], spec: ClipSpec) -> dict[Modality, Any]:
    """Return the network's inputs; samples that the node would drop have none."""
    inputs: dict[Modality, Any] = {}
    for modality, each in arrays.items():
        with suppress(InvalidSampleError):
            inputs |= make_clip(spec, {modality: each}).inputs
    return inputs


def thresholds_of_checks(modalities: Sequence[Modality]) -> dict[str, Any]:
    """Return the thresholds of `masked_by_checks`, by parameter."""
    return {name: value for m in modalities for name, value in default_thresholds(m).items()}


def masked_by_checks(
    changed: Mapping[Modality, Any], window: ClipWindow, spec: ClipSpec,
) -> frozenset[Modality]:
    """Return which of the changed modalities the node would leave out, as they show nothing."""
    sources = {modality_type(m).source(spec) for m in changed}
    beside = {m: x for m, x in window.arrays.items() if m in sources}
    findings = uninformative({**beside, **changed}, spec, window.computed)
    return frozenset({*findings} & {*changed})
