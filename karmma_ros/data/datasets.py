"""Every data set that can be trained on, by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from karmma_ros.clip import ClipSpec
from karmma_ros.data import epic_kitchens, manifest, something_something
from karmma_ros.data.epic_kitchens import EpicKitchensSettings
from karmma_ros.data.manifest import ManifestSettings
from karmma_ros.data.samples import Splits
from karmma_ros.data.something_something import SomethingSomethingSettings
from karmma_ros.data.synthetic_kitchen import dataset as synthetic_kitchen
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.errors import InvalidSettingError

DATASETS = ('synthetic_kitchen', 'epic_kitchens', 'something_something', 'manifest')


@dataclass(frozen=True)
class DataSettings:
    """Which data set, and where it lies; only the section of the chosen one is read."""

    dataset: str = 'synthetic_kitchen'
    """Name of the data set: synthetic_kitchen, epic_kitchens, something_something or manifest."""
    clip: ClipSpec | None = None
    """How clips are made; none: as the paper's are, or as the synthetic kitchen is made for."""
    synthetic_kitchen: KitchenSettings = field(default_factory=KitchenSettings)
    epic_kitchens: EpicKitchensSettings = field(default_factory=EpicKitchensSettings)
    something_something: SomethingSomethingSettings = field(
        default_factory=SomethingSomethingSettings)
    manifest: ManifestSettings = field(default_factory=ManifestSettings)

    def __post_init__(self) -> None:
        if self.dataset not in DATASETS:
            raise InvalidSettingError('data.dataset', self.dataset, ', '.join(DATASETS))

    @property
    def spec(self) -> ClipSpec:
        """Return how clips are made."""
        if self.clip is not None:
            return self.clip
        return clip_spec() if self.dataset == 'synthetic_kitchen' else ClipSpec()


def open_splits(
    settings: DataSettings, spec: ClipSpec | None, cache: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Splits:
    """
    Open the splits of the chosen data set.

    :param spec: how clips are made; None: as the settings say.
    :param cache: folder for what is made once: the rendered kitchen.
    :param progress: called with what is done, how much of it is, and how much there is in all.
    :raises DataError: when something of it is missing or not as its owner publishes it.
    """
    spec = settings.spec if spec is None else spec
    if settings.dataset == 'synthetic_kitchen':
        return synthetic_kitchen.open_splits(settings.synthetic_kitchen, spec, cache, progress)
    if settings.dataset == 'epic_kitchens':
        return epic_kitchens.open_splits(settings.epic_kitchens, spec)
    if settings.dataset == 'manifest':
        return manifest.open_splits(settings.manifest, spec)
    return something_something.open_splits(
        settings.something_something, spec,
        lambda done, total: progress('reading boxes', done, total))
