"""
The node's /diagnostics (REP 107): the status of each input, inference, model, lifecycle.

Not by diagnostic_updater, whose Python tasks for rates and stamps use the wall clock even in
simulated time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import isnan
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from karmma_ros.errors import printable
from karmma_ros.modality import Modality
from karmma_ros.node.messages import heads_note, time_message
from karmma_ros.node.model_loader import Model
from karmma_ros.stream.availability import ModalityState, ModalityStatus
import numpy as np
from std_msgs.msg import Header

_RECENT = 128
_RECENT_S = 30.0


@dataclass(frozen=True)
class RateStats:
    """Statistics of recent results; without any, rate is 0 and the rest is NaN."""

    rate: float
    """Results a second, hertz."""
    latency: tuple[float, float]
    """From window to prediction, median and 95th percentile, seconds."""
    age: tuple[float, float]
    """From the newest sample to publishing, the same; NaN where stamps are of another clock."""


class Timings:
    """Rate and latencies of the latest results; times are of a monotonic clock, seconds."""

    def __init__(self) -> None:
        self.results = 0
        """Published since activation."""
        self.skipped = 0
        """Requests for a result that came while one was pending."""
        self._latest: deque[tuple[float, float, float]] = deque(maxlen=_RECENT)

    def add(self, now: float, latency: float, age: float) -> None:
        """Add a result; an age below zero is unknown."""
        self.results += 1
        self._latest.append((now, latency, age if age >= 0 else np.nan))

    def stats(self, now: float) -> RateStats:
        """Return the statistics of the last half minute."""
        latest = np.array([x for x in list(self._latest) if now - x[0] <= _RECENT_S])
        if not len(latest):
            return RateStats(0.0, (np.nan, np.nan), (np.nan, np.nan))
        elapsed = now - latest[0, 0]
        ages = latest[~np.isnan(latest[:, 2]), 2]
        return RateStats(
            (len(latest) - 1) / elapsed if elapsed > 0 else 0.0,
            _percentiles(latest[:, 1]), _percentiles(ages))


def _percentiles(values: np.ndarray) -> tuple[float, float]:
    if not len(values):
        return np.nan, np.nan
    median, late = np.percentile(values, (50, 95))
    return float(median), float(late)


OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

_LEVELS = {ModalityState.DISABLED: OK, ModalityState.AVAILABLE: OK, ModalityState.INVALID: ERROR}
_FAST_ENOUGH = 0.8
"""Fraction of the requested rate: on a busy processor timers are late."""
_LENGTH = 1000
"""Most characters of a message and of a value."""


def input_status(
    status: ModalityStatus, facts: Mapping[str, str], problem: str
) -> DiagnosticStatus:
    """Return the status of one input; a problem with its topic comes first."""
    level = _LEVELS.get(status.state, WARN)
    message = status.detail or 'available'
    if status.warning and status.warning in status.detail:
        level = WARN  # a matter of settings, unlike a message that cannot be decoded
    elif status.warning:
        level = ERROR if level == ERROR else WARN
        message = '; '.join(filter(None, (status.detail, status.warning)))
    if problem and status.state is not ModalityState.DISABLED:
        level, message = ERROR, problem
    return _status(level, status.modality.value, message, {
        'state': status.state.name.lower(), 'rate [Hz]': f'{status.rate:.1f}',
        'age [s]': _seconds(status.age_ns / 1e9 if status.age_ns >= 0 else float('nan')),
        'timeout [s]': _seconds(status.timeout_ns / 1e9),
        'dropped': status.dropped, **facts})


def inference_status(
    stats: RateStats, results: int, skipped: int, rate: float, blocking_reason: str
) -> DiagnosticStatus:
    """
    Return the status of inference.

    :param rate: requested results a second.
    :param blocking_reason: why there can be no result now; empty if there can.
    """
    level, message = OK, f'{stats.rate:.1f} results a second'
    if blocking_reason:
        level = OK if blocking_reason.startswith('paused') else ERROR
        message = blocking_reason
    elif stats.rate < _FAST_ENOUGH * rate:
        level = WARN
        message += f'; {rate:g} requested: inference is slower, or inputs arrive more slowly'
    return _status(
        level,
        'inference',
        message,
        {
            'rate [Hz]': f'{stats.rate:.2f}',
            'latency p50 [s]': _seconds(stats.latency[0]),
            'latency p95 [s]': _seconds(stats.latency[1]),
            'age p50 [s]': _seconds(stats.age[0]),
            'age p95 [s]': _seconds(stats.age[1]),
            'results': results,
            'skipped': skipped,
        },
    )


def model_status(model: Model, loading: str, failure: str) -> DiagnosticStatus:
    """Return which model is in use, and what happened to the one that was requested."""
    bundle, backend = model.bundle, model.recogniser.backend
    message = f'{bundle.model_id} on {model.device}'
    if loading:
        message += f'; loading {loading}'
    return _status(WARN if failure else OK, 'model', failure or message, {
        'id': bundle.model_id, 'path': bundle.path, 'sha256': bundle.sha256,
        'device': model.device,
        'backend': f'{backend.name} {backend.precision}', 'backend chosen': model.reason,
        'dataset': bundle.dataset,
        'calibration': bundle.calibration.describe(backend.modalities),
        'heads': heads_note(bundle.vocabulary) or ', '.join(bundle.vocabulary.heads),
        'loading': loading, 'last failure': failure})


def lifecycle_status(state: str) -> DiagnosticStatus:
    """Return the lifecycle state; a node that is not active is not in error."""
    return _status(OK, 'lifecycle', state, {'state': state})


def diagnostics_message(
    node_name: str, now_ns: int, statuses: list[DiagnosticStatus]
) -> DiagnosticArray:
    """Return the statuses as one message, named after the node."""
    for status in statuses:
        status.name = f'{node_name.lstrip("/")}: {status.name}'
    return DiagnosticArray(header=Header(stamp=time_message(now_ns)), status=statuses)


def _status(level: Any, name: str, message: str, values: Mapping[str, Any]) -> DiagnosticStatus:
    return DiagnosticStatus(
        level=level, name=name, message=printable(message, _LENGTH), hardware_id='none',
        values=[KeyValue(key=key, value=printable(value, _LENGTH))
                for key, value in values.items()])


def _seconds(value: float) -> str:
    return 'unknown' if isnan(value) else f'{value:.3f}'


Write = Callable[[str, str], bool]
"""Takes a line and its topic; False when the topic is throttled."""


class WarningLog:
    """
    Compare the warnings of all modalities with those that were logged, and log each change.

    A change that is throttled is logged later, unless it has been undone by then.
    """

    def __init__(self, warn: Write, inform: Write) -> None:
        """Take the log's functions for a warning and for an information."""
        self._warn, self._inform = warn, inform
        self._logged: dict[Modality, str] = {}

    def update(self, statuses: Iterable[ModalityStatus]) -> None:
        """Log each warning that has appeared, changed or ended since it was last logged."""
        for status in statuses:
            if status.warning != self._logged.get(status.modality, '') and self._write(status):
                self._logged[status.modality] = status.warning

    def _write(self, status: ModalityStatus) -> bool:
        topic = f'{status.modality} content'
        if status.warning:
            return self._warn(status.warning_line, topic)
        before = self._logged[status.modality]
        return self._inform(f'{status.modality}: this warning has ended: {before}', topic)
