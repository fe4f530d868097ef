"""The synthetic kitchen as a data set to train on: rendered once, kept on disk."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
import os
from pathlib import Path

from karmma_ros.clip import ClipSpec
from karmma_ros.data.splits import Splits
from karmma_ros.data.synthetic_kitchen.cache import write_split
from karmma_ros.data.synthetic_kitchen.dataset import WrittenKitchen
from karmma_ros.data.synthetic_kitchen.vocabulary import Split, vocabulary
from karmma_ros.errors import InvalidSettingError

TITLE = 'Synthetic Kitchen'


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
    """Seed of everything that is rendered."""

    def __post_init__(self) -> None:
        for name in ('train', 'validation', 'test'):
            if getattr(self, name) < 1:
                raise InvalidSettingError(
                    f'synthetic_kitchen.{name}', getattr(self, name), 'an integer above 0')


def open_splits(
    settings: KitchenSettings, spec: ClipSpec, cache: Path,
    progress: Callable[[str, int, int], None] = lambda what, done, total: None,
) -> Splits:
    """
    Render the splits, or find them rendered.

    :param cache: folder to keep them in.
    :param progress: called with what is done, the clips done and the clips in all.
    :raises CacheError: when the folder holds something else under their names.
    """
    written = {}
    for split in Split:
        count = getattr(settings, split.value)
        folder = write_split(
            cache / f'{split}_{count}_{settings.seed}', split, count, settings.seed, spec,
            workers=os.cpu_count() or 1,
            progress=partial(progress, f'rendering {split}'))
        written[split] = WrittenKitchen(folder)
    return Splits(TITLE, spec, vocabulary(), written[Split.TRAIN], written[Split.VALIDATION],
                  written[Split.TEST])
