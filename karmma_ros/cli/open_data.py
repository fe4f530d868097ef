"""Open a data set for a command; clips of bags are extracted first."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
import warnings

from karmma_ros.clip import ClipSpec
from karmma_ros.cluster.engine import workers_of_environment
from karmma_ros.data.datasets import DataSettings, open_splits
from karmma_ros.data.samples import Splits


def open_data(
    settings: DataSettings, spec: ClipSpec | None, cache: Path,
    progress: Callable[[str, int, int], None] = lambda task, done, total: None,
) -> Splits:
    """
    Open the splits of the chosen data set, as `data.datasets.open_splits` does.

    Clips of bags are extracted by the cluster in RAY_ADDRESS, if that is set.
    """
    if settings.packed or settings.dataset != 'bags':
        return open_splits(settings, spec, cache, progress)
    from karmma_ros.bags.training_clips import (
        extract_recordings,  # reads bags: not for every command
    )
    recordings = extract_recordings(settings.bags, spec or settings.spec, cache, progress,
                                    workers=workers_of_environment())
    for each in recordings:
        for line in each.notes:
            warnings.warn(line, stacklevel=2)
    return open_splits(settings, spec, cache, progress, recordings)
