"""One evaluated bag: its facts, the conditions of its sensors, all that a report needs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.evaluation.ground_truth import Truth
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.modality import Modality, parse_subset, subset_name
from karmma_ros.prediction import Vocabulary
import numpy as np
from numpy.typing import NDArray

AS_RECORDED = 'as recorded'
"""Name of the condition without any change to the sensors."""

FrameSource = Callable[[Sequence[int]], Iterable['NDArray[np.uint8] | None']]
"""Times in ns of the bag's clock to RGB frames `[h, w, 3]`; None where there is none."""


@dataclass(frozen=True)
class Condition:
    """The sensors that are used, and their faults."""

    name: str = AS_RECORDED
    """`as recorded`, a subset as in the paper (`V+A`), or a description of the faults."""
    parameters: Mapping[str, Any] = field(default_factory=dict, hash=False)
    """JSON-ready. A subset has `{'subset': 'V+A'}`: the windows as recorded that have all of it,
    without the other sensors. `{'without': 'audio'}` are those that have audio and something else,
    without it. Faults have their options, and the seed."""

    @property
    def subset(self) -> str:
        """Return the name of the subset; empty for a condition without one."""
        return str(self.parameters.get('subset', ''))

    @classmethod
    def of_subset(cls, modalities: Sequence[Modality]) -> Condition:
        """Return the condition in which only these modalities are used."""
        name = subset_name(modalities)
        return cls(name, {'subset': name})

    @property
    def without(self) -> str:
        """Return the name of the modality that is left out; empty if none is."""
        return str(self.parameters.get('without', ''))

    @classmethod
    def leaving_out(cls, modality: Modality) -> Condition:
        """Return the condition in which one modality is not used."""
        return cls(f'without {modality}', {'without': modality.value})

    def used(self, own: tuple[Modality, ...]) -> tuple[Modality, ...]:
        """Return which modalities of a window are used; none where the condition has no window."""
        if self.subset:
            subset = parse_subset(self.subset)
            return subset if set(subset) <= set(own) else ()
        if self.without:
            return tuple(m for m in own if m != self.without) if self.without in own else ()
        return own


@dataclass(frozen=True)
class BagInfo:
    """Facts about one bag; JSON-ready with `dataclasses.asdict`."""

    path: str
    start_ns: int
    """When the first message was received."""
    end_ns: int
    """When the last message was received."""
    storage: str
    """`mcap` or `sqlite3`, and its compression."""
    messages: int
    """Number of messages that could be read, of all topics."""
    topics: Mapping[str, Mapping[str, Any]]
    """Role (a modality, `audio_info`, `audio_info_SUFFIX`, `truth`, `recognition`) → topic, type
    and count."""
    missing_messages: Mapping[str, int]
    """Reason → messages that could not be used."""
    warnings: Sequence[str]
    """Sentences for a person."""
    missing: int = 0
    """Number of messages, files and parts in `missing_messages` that could not be read."""

    @property
    def seconds(self) -> float:
        """Return the time from the first to the last message."""
        return max(0, self.end_ns - self.start_ns) / 1e9


@dataclass(frozen=True)
class RecordedComparison:
    """How the predictions recorded in a bag compare with ours for the same windows."""

    topic: str
    predictions: int
    """Recorded predictions that could be read."""
    unreadable: int
    of_another_model: int
    models: Sequence[str]
    without_classes: int
    same_window: int
    """Predictions of this model whose window ends with one of ours."""
    same_sensors: int
    same_prediction: int
    """Of those with the same sensors: no score differs by more than `tolerance`."""
    same_best: int
    """Of those with the same window: the best classes are equal."""
    largest_difference: float
    tolerance: float


@dataclass(frozen=True, eq=False)
class BagRun:
    """One evaluated bag, as a report needs it."""

    info: BagInfo
    predictions: Mapping[Condition, BagPredictions]
    """The first condition is as recorded."""
    truth: Truth | None
    vocabulary: Vocabulary
    spec: ClipSpec
    frames: FrameSource
    recorded: RecordedComparison | None = None
    """Comparison with the predictions recorded in the bag; None without any."""
