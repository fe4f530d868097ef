"""What `report.json` holds, as types. Fields with a default are absent where they are None."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from karmma_ros.bags.bag_run import RecordedComparison

FORMAT = 'karmma_ros.bag_report/2'
SCHEMA_ID = 'karmma_ros.bag_report.2.schema.json'


@dataclass(frozen=True)
class Percentiles:
    """Statistics of a quantity in seconds; null where there is nothing."""

    count: int
    mean: float
    p50: float
    p90: float
    p95: float
    p99: float
    max: float


@dataclass(frozen=True)
class Histogram:
    """Counts in bins of equal width, in seconds; `above` lie beyond the last edge."""

    edges: Sequence[float]
    counts: Sequence[int]
    above: int


@dataclass(frozen=True)
class ActionScores:
    """Clip-level scores of one head, or of all heads jointly, over the true actions."""

    count: int
    coverage: float
    """Fraction of the actions that have a prediction."""
    top1: float
    top5: float
    mean_recall: float
    calibration_error: float
    correct: int
    interval: tuple[float, float]
    """95 % Wilson interval of `top1`."""
    top1_covered: float
    """Top-1 accuracy of the actions that have a prediction."""


@dataclass(frozen=True)
class WindowScores:
    """Scores of single windows that lie inside a true action."""

    count: int
    top1: float
    top5: float
    calibration_error: float


@dataclass(frozen=True)
class EventScores:
    """Segmental scores of the published events; only `count` without ground truth."""

    count: int
    true: int | None = None
    f1: Mapping[str, float] | None = None
    """Overlap (IoU) in percent → F1."""
    edit: float | None = None
    recall: float | None = None
    """Fraction of the true segments that an event matches at the smallest overlap."""
    delay_s: Percentiles | None = None
    mean_average_precision: Mapping[str, Sequence[float]] | None = None
    """Head → mean average precision at each tIoU of the settings."""


@dataclass(frozen=True)
class PerBagScores:
    """Scores of one bag under one condition."""

    windows: int
    events: int
    top1: Mapping[str, tuple[int, int]]
    """Head → correct, count."""
    matches: Mapping[str, tuple[int, int, int]]
    """Overlap in percent → true positives, false positives, false negatives."""
    edit: float


@dataclass(frozen=True)
class Agreement:
    """Windows as recorded with a counterpart in the condition, and those of equal classes."""

    compared: float
    same: float


@dataclass(frozen=True)
class ConditionScores:
    """Scores of all bags under one condition of the sensors."""

    name: str
    parameters: Mapping[str, Any]
    windows: int
    modality_coverage: Mapping[str, float]
    """Modality → fraction of the windows that have it."""
    unknown: float
    """Fraction of the windows whose action the model does not know."""
    actions: Mapping[str, ActionScores]
    per_window: Mapping[str, WindowScores]
    events: EventScores
    age_s: Percentiles
    by_bag: Sequence[PerBagScores]
    agreement: Agreement | None = None


@dataclass(frozen=True)
class ActionColumns:
    """Results of one condition, one value for each true action."""

    windows: Sequence[int]
    best: Mapping[str, Sequence[int]]
    correct: Mapping[str, Sequence[int]]
    top5: Mapping[str, Sequence[int]]
    confidence: Mapping[str, Sequence[float]]
    delay_s: Sequence[float | None]


@dataclass(frozen=True)
class TrueActions:
    """The true actions of all bags, a column for each property."""

    bag: Sequence[int]
    start_ns: Sequence[int]
    end_ns: Sequence[int]
    names: Mapping[str, Sequence[str]]
    truth: Mapping[str, Sequence[int]]
    """Head → class ids; negative where unknown."""
    conditions: Mapping[str, ActionColumns]


@dataclass(frozen=True)
class GroundTruthSummary:
    """Where the ground truth of a bag comes from, and what could not be used."""

    source: str
    actions: int
    left_out: Mapping[str, int]
    warnings: Sequence[str]


@dataclass(frozen=True)
class BagSummary:
    """One bag: its file, topics, dropped messages and ground truth."""

    name: str
    path: str
    start_ns: int
    end_ns: int
    storage: str
    messages: int
    topics: Mapping[str, Mapping[str, Any]]
    missing_messages: Mapping[str, int]
    """Reason → messages, files or parts."""
    warnings: Sequence[str]
    missing: int
    seconds: float
    truth: GroundTruthSummary | None
    recorded: RecordedComparison | None


@dataclass(frozen=True)
class CalibrationBins:
    """A reliability diagram, and its expected calibration error."""

    count: Sequence[float]
    confidence: Sequence[float]
    accuracy: Sequence[float]
    error: float


@dataclass(frozen=True)
class ReliabilityDiagrams:
    """Reliability of the confidence of single windows and of actions."""

    actions: CalibrationBins
    windows: CalibrationBins


@dataclass(frozen=True)
class WithoutSensor:
    """A window predicted without one of its sensors."""

    sensor: str
    score: float
    """Probability of the classes that are predicted with it."""
    score_with: float
    """The same with it."""
    predicted: Mapping[str, str]


@dataclass(frozen=True)
class FailureCase:
    """An action that was recognised wrongly, with high confidence."""

    bag: int
    start_ns: int
    end_ns: int
    at_s: float
    window_ns: tuple[int, int]
    truth: Mapping[str, str]
    predicted: Mapping[str, str]
    confidence: float
    chance_of_truth: Mapping[str, float]
    present: Sequence[str]
    states: Mapping[str, int]
    without: Sequence[WithoutSensor] | None = None
    """What the window would be without each sensor, where these were left out in turn."""


@dataclass(frozen=True)
class ReportSettings:
    """Length of a window, parameters of events, thresholds of the scores."""

    window_s: float
    events: Mapping[str, Any]
    overlaps: Sequence[float]
    tious: Sequence[float]


@dataclass(frozen=True)
class BagReport:
    """The complete report on one or several bags."""

    format: str
    model: Mapping[str, Any]
    settings: ReportSettings
    heads: Sequence[str]
    joint_head: str
    vocabulary: Mapping[str, Sequence[str]]
    bags: Sequence[BagSummary]
    segments: TrueActions
    conditions: Sequence[ConditionScores]
    calibration: Mapping[str, ReliabilityDiagrams]
    confusion: Mapping[str, Sequence[tuple[int, int, int]]]
    """Head → true class, predicted class, count."""
    age_histogram: Histogram
    robustness: Mapping[str, Sequence[float] | float] | None
    """`probability` of a missing sensor, accuracy of each head, and summary measures."""
    warnings: Sequence[str]
    failure_cases_condition: str | None = None
    failure_cases: Sequence[FailureCase] | None = None
    provenance: Mapping[str, Any] | None = None
    """What another run would change: date, machine, command, measured times."""
