"""One evaluated bag: its facts, the conditions of its sensors, all that a report needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.evaluation.ground_truth import Truth
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.modality import Modality, subset_name
from karmma_ros.prediction import Vocabulary
import numpy as np
from numpy.typing import NDArray

AS_RECORDED = 'as recorded'
"""Name of the condition in which nothing is done to the sensors."""

FrameSource = Callable[[Sequence[int]], Iterable['NDArray[np.uint8] | None']]
"""Times in ns of the bag's clock to RGB frames `[h, w, 3]`; None where there is none."""


@dataclass(frozen=True)
class Condition:
    """What was done to the sensors."""

    name: str = AS_RECORDED
    """`as recorded`, a subset as the paper names it (`V+A`), or a description of the faults."""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """JSON-ready. A subset has `{'subset': 'V+A'}`: of the windows as recorded, those that have
    all of it, with everything else left out. Faults have their options, and the seed."""

    @property
    def subset(self) -> str:
        """Return the subset's name; empty when the condition is none."""
        return str(self.parameters.get('subset', ''))

    @classmethod
    def of_subset(cls, modalities: Sequence[Modality]) -> Condition:
        """Return the condition that only these are used."""
        name = subset_name(modalities)
        return cls(name, {'subset': name})


@dataclass(frozen=True)
class BagInfo:
    """Facts about one bag; JSON-ready with `dataclasses.asdict`."""

    path: str
    start_ns: int
    """When its first message was received."""
    end_ns: int
    """When its last one was."""
    storage: str
    """`mcap` or `sqlite3`, and its compression."""
    messages: int
    """Those that could be read, of all topics."""
    topics: Mapping[str, Mapping[str, Any]]
    """Role (a modality, `audio_info`, `truth`, `recognition`) → topic, type, count."""
    lost: Mapping[str, int]
    """Why messages could not be used → how many."""
    warnings: Sequence[str]
    """Sentences for a person."""
    missing: int = 0
    """How many of `lost` the bag promises, but could not be read: messages, files, parts."""

    @property
    def seconds(self) -> float:
        """Return the time from first to last message."""
        return max(0, self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True, eq=False)
class BagRun:
    """All that is known of one bag."""

    info: BagInfo
    answers: Mapping[Condition, BagPredictions]
    """The first one is as recorded."""
    truth: Truth | None
    vocabulary: Vocabulary
    spec: ClipSpec
    frames: FrameSource
    recorded: Mapping[str, Any] | None = None
    """How the node's own predictions in the bag compare; None without any. JSON-ready."""
