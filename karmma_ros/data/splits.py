"""A data set, ready to train on and to score on."""

from __future__ import annotations

from dataclasses import dataclass

from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Clips
from karmma_ros.prediction import Vocabulary


@dataclass(frozen=True)
class Splits:
    """The three splits of a data set; two of them may be the same clips."""

    name: str
    """The data set in words, such as `EPIC-KITCHENS-100`."""
    spec: ClipSpec
    """How the clips were made."""
    vocabulary: Vocabulary
    """The heads and their class names."""
    train: Clips
    validation: Clips
    test: Clips
