"""
What /diagnostics says of the node (REP 107): each input, inference, model, lifecycle.

Our own instead of diagnostic_updater's: its Python tasks for rates and stamps go by the
wall clock even in simulated time.
"""

from __future__ import annotations

from collections.abc import Mapping
from math import isnan
from typing import Any

from diagnostic_msgs.msg import DiagnosticArray, DiagnosticStatus, KeyValue
from karmma_ros.errors import printable
from karmma_ros.node.messages import heads_note
from karmma_ros.node.model_loader import Model
from karmma_ros.node.times import time_message
from karmma_ros.node.timings import Pace
from karmma_ros.stream.availability import ModalityState, ModalityStatus
from std_msgs.msg import Header

OK, WARN, ERROR = DiagnosticStatus.OK, DiagnosticStatus.WARN, DiagnosticStatus.ERROR

_LEVELS = {ModalityState.DISABLED: OK, ModalityState.AVAILABLE: OK, ModalityState.INVALID: ERROR}
# A timer that shares its processor never comes quite as often as it was asked to.
_FAST_ENOUGH = 0.8
_LENGTH = 1000
"""Most characters of a message and of a value."""


def input_status(
    status: ModalityStatus, facts: Mapping[str, str], problem: str
) -> DiagnosticStatus:
    """Tell of one input; a problem with its topic outweighs what came through it."""
    level = _LEVELS.get(status.state, WARN)
    message = status.detail or 'available'
    if status.warning and status.warning in status.detail:
        level = WARN  # unlike a message that cannot be read, it is a matter of settings
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
    pace: Pace, results: int, skipped: int, wanted_rate: float, hindrance: str
) -> DiagnosticStatus:
    """
    Tell how recognition goes.

    :param hindrance: why there can be no result now; empty if there can.
    """
    level, message = OK, f'{pace.rate:.1f} results a second'
    if hindrance:
        level, message = (OK if hindrance.startswith('paused') else ERROR), hindrance
    elif pace.rate < _FAST_ENOUGH * wanted_rate:
        level, message = WARN, f'{message}; asked for {wanted_rate:g}: it takes too long, or ' \
            'inputs come more slowly'
    return _status(level, 'inference', message, {
        'rate [Hz]': f'{pace.rate:.2f}',
        'latency p50 [s]': _seconds(pace.latency[0]), 'latency p95 [s]': _seconds(pace.latency[1]),
        'age p50 [s]': _seconds(pace.age[0]), 'age p95 [s]': _seconds(pace.age[1]),
        'results': results, 'skipped': skipped})


def model_status(model: Model, loading: str, failure: str) -> DiagnosticStatus:
    """Tell which model answers, and what became of the one that was asked for."""
    bundle, backend = model.bundle, model.recogniser.backend
    message = f'{bundle.model_id} on {model.device}'
    if loading:
        message += f'; loading {loading}'
    return _status(WARN if failure else OK, 'model', failure or message, {
        'id': bundle.model_id, 'path': bundle.path, 'sha256': bundle.sha256,
        'device': model.device,
        'backend': f'{backend.name} {backend.precision}', 'backend chosen': model.reason,
        'dataset': bundle.dataset,
        'heads': heads_note(bundle.vocabulary) or ', '.join(bundle.vocabulary.heads),
        'loading': loading, 'last failure': failure})


def lifecycle_status(state: str) -> DiagnosticStatus:
    """Tell the state of the lifecycle; a node that waits is not in error."""
    return _status(OK, 'lifecycle', state, {'state': state})


def diagnostics_message(
    node_name: str, now_ns: int, statuses: list[DiagnosticStatus]
) -> DiagnosticArray:
    """Put the statuses together under the node's name."""
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
