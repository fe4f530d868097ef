"""Sensors that send data that show nothing, alone and in pairs, between processes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
import gc
from pathlib import Path
from random import Random
from tempfile import TemporaryDirectory
import time
from typing import Any

from karmma_msgs.msg import ModalityStatus
from karmma_ros.node.messages import time_ns
import numpy as np

from fault_suite.case import case, Trial
from fault_suite.churn_dds import FEEDS, History
from fault_suite.messages import REPEAT, SECOND
from fault_suite.models import make_model, SPEC
from fault_suite.monitor import node_monitor, NodeMonitor
from fault_suite.processes import (
    ALL,
    CAMERA,
    DETECTOR,
    MICROPHONE,
    node_process,
    sender_process,
    SenderProcess,
)
from fault_suite.ros import domain

LONG_SPEC = replace(SPEC, duration=1.6, num_frames=32, audio=replace(SPEC.audio, tile_steps=80))
"""A window of 1.6 s in 32 slots of 0.05 s."""
SENSORS = (
    {**CAMERA, 'rate': 30}, {**MICROPHONE, 'rate': 25, 'fields': {'samples': 640}},
    # Fractions of pixels, as of a network: whole ones may rest for seconds.
    {**DETECTOR, 'rate': 20, 'fields': {'centres_and_sizes': [[40.3, 30.2, 20.4, 15.7]]}},
)
RATE_HZ = 20.0
REACTION_S, RECOVERY_S = 1.0, LONG_SPEC.duration
LIE_S, CLEAN_S, PAUSE_S = (1.3, 2.0), RECOVERY_S + 0.3, (0.1, 0.5)
"""
How long a lie lasts; how long its sensor is right then, at least; and how long all sensors send
what is right before the next lies.
"""
LIES = {
    'camera': {'black': 'black', 'covered': 'black', 'blown out': 'blown out',
               'noise': 'noise', REPEAT: 'frozen'},
    'microphone': {'silence': 'digital silence', 'clipped': 'clipped', REPEAT: 'repeated'},
    'detector': {'without area': 'without area', 'outside': 'outside', REPEAT: 'stuck'},
}
"""Sensor → lie of `messages.UNINFORMATIVE` → how the reason begins."""
_SPARE = {'rgb': 3, 'flow': 3, 'audio': 1280, 'detections': 3}
"""Samples beyond those of the exact time: slots that it touches, messages sent late."""


@dataclass(frozen=True)
class Lie:
    """One sensor that shows nothing from `start` to `end`, in seconds of one clock."""

    sensor: str
    name: str
    start: float
    end: float


@dataclass(frozen=True)
class Observation:
    """The status of one modality as a message has it."""

    time: float
    status: ModalityStatus


def plan(lies: int, seed: int) -> list[Lie]:
    """Return lies of one sensor or of two at a time, each of a sensor that was right before."""
    random = Random(seed)
    free, over, planned = dict.fromkeys(ALL, 0.0), 0.0, []
    while len(planned) < lies:
        sensors = random.sample(ALL, random.choice((1, 2)))[:lies - len(planned)]
        start = max(over + random.uniform(*PAUSE_S), *(free[sensor] for sensor in sensors))
        for sensor in sensors:
            name = random.choice(list(LIES[sensor]))
            planned.append(Lie(sensor, name, start, start + random.uniform(*LIE_S)))
            free[sensor] = planned[-1].end + CLEAN_S
            over = max(over, planned[-1].end)
            start += random.uniform(0, LIE_S[0])
    return planned


def _play(monitor: NodeMonitor, sender: SenderProcess, planned: Sequence[Lie]) -> list[Lie]:
    """Send the lies; return them with the times of time.monotonic() at which they were sent."""
    began = time.monotonic()
    events = sorted([(lie.start, i) for i, lie in enumerate(planned)]
                    + [(lie.end, i) for i, lie in enumerate(planned)])
    lying = dict.fromkeys(ALL, '')
    times: dict[int, list[float]] = {}
    for due, i in events:
        monitor.spin(began + due - time.monotonic())
        lying[planned[i].sensor] = '' if i in times else planned[i].name
        times.setdefault(i, []).append(
            sender.switch(*(f'{name}:{lie}' for name, lie in lying.items())))
    monitor.spin(CLEAN_S)
    return [replace(lie, start=times[i][0], end=times[i][1]) for i, lie in enumerate(planned)]


@contextmanager
def _without_collection() -> Iterator[None]:
    """Collect no garbage: of all the messages that are kept it would take seconds."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def _histories(lies: Sequence[Lie], began: float) -> dict[str, History]:
    """Return what each sensor sent: the name of a lie, or True."""
    histories = {name: History([(began, True)]) for name in ALL}
    for lie in sorted(lies, key=lambda each: each.start):
        histories[lie.sensor].changes += [(lie.start, lie.name), (lie.end, True)]
    return histories


def _observations(monitor: NodeMonitor) -> dict[str, list[Observation]]:
    """Return the statuses of each modality in all messages, in the order of receipt."""
    received = sorted(monitor.results + monitor.availabilities, key=lambda each: each.time)
    observed: dict[str, list[Observation]] = {}
    for each in received:
        for status in each.message.modalities:
            observed.setdefault(status.name, []).append(Observation(each.time, status))
    return observed


def _expected(history: History, now: float) -> tuple[bool | None, str]:
    """Return whether the oracle is sure of the sensor or of a lie; None between; and the lie."""
    lie = history.steady(now - REACTION_S, now)
    if isinstance(lie, str):
        return False, lie
    return (True if history.steady(now - RECOVERY_S, now) is True else None), ''


def _check_states(trial: Trial, monitor: NodeMonitor, histories: dict[str, History]) -> None:
    wrong, unsure, checked = [], 0, 0
    observed = _observations(monitor)
    for sensor, modality in _modalities():
        for each in observed.get(modality, ()):
            right, lie = _expected(histories[sensor], each.time)
            if right is None:
                unsure += 1
                continue
            checked += 1
            state, detail = each.status.state, each.status.detail
            reason = detail.removeprefix('derived from the camera: ')
            if right != (state == ModalityStatus.AVAILABLE) or not right and not (
                    state == ModalityStatus.UNINFORMATIVE
                    and reason.startswith(LIES[sensor][lie])):
                wrong.append(f'{modality}: {state} ({detail}) {"without a lie" if right else lie}')
    trial.require('each state is AVAILABLE when its sensor was right for a window, and '
                  f'UNINFORMATIVE, with the reason, when it showed nothing for {REACTION_S:g} s',
                  checked and not wrong,
                  f'{len(wrong)} wrong of {checked} ({unsure} more were between): '
                  + '; '.join(sorted(set(wrong))[:5]))


def _modalities() -> Iterator[tuple[str, str]]:
    """Return each sensor with each modality that is made of its messages."""
    return ((sensor, modality) for sensor in ALL for modality in FEEDS[sensor])


def _delays(
    lies: Sequence[Lie], observed: dict[str, list[Observation]], state: int, at: str,
) -> list[tuple[str, float]]:
    """Return lie and seconds until each of its modalities has a state; infinity without."""
    delays = []
    for lie in lies:
        since = getattr(lie, at)
        for modality in FEEDS[lie.sensor]:
            first = next((each.time for each in observed.get(modality, ())
                          if each.time >= since and each.status.state == state), float('inf'))
            delays.append((f'{lie.sensor} {lie.name}', first - since))
    return delays


def _check_delays(
    trial: Trial, lies: Sequence[Lie], observed: dict[str, list[Observation]],
) -> None:
    for title, figure, state, at, most_s in (
            (f'each lie is reported within {REACTION_S:g} s of its start', 'reaction_s',
             ModalityStatus.UNINFORMATIVE, 'start', REACTION_S),
            (f'each sensor is available again within a window, {RECOVERY_S:g} s', 'recovery_s',
             ModalityStatus.AVAILABLE, 'end', RECOVERY_S)):
        delays = _delays(lies, observed, state, at)
        values = [seconds for _, seconds in delays]
        p50, p95, largest = (round(float(np.percentile(values, q, method='higher')), 3)
                             for q in (50, 95, 100))
        late = [f'{name} {seconds:.2f} s' for name, seconds in delays if not seconds <= most_s]
        trial.require(title, not late, f'{len(late)} of {len(delays)} late: p50 {p50} s, p95 '
                      f'{p95} s, largest {largest} s{": " if late else ""}{", ".join(late[:5])}')
        trial.figures[figure] = {'p50': p50, 'p95': p95, 'largest': largest, 'p95_by_lie': {
            name: round(float(np.percentile([s for n, s in delays if n == name], 95)), 3)
            for name in sorted({name for name, _ in delays})}}


def _check_results(
    trial: Trial, monitor: NodeMonitor, lies: Sequence[Lie], histories: dict[str, History],
) -> None:
    clock_s = time.time() - time.monotonic()
    unavailable, failed, missing, left_over, used = 0, 0, 0, 0, 0
    for received in monitor.results:
        statuses = {status.name: status for status in received.message.modalities}
        end = time_ns(received.message.window_end) / SECOND - clock_s
        for sensor, modality in _modalities():
            status = statuses[modality]
            right, _ = _expected(histories[sensor], received.time)
            missing += right is True and not status.used
            if status.used:
                used += 1
                unavailable += status.state != ModalityStatus.AVAILABLE
                failed += right is False
                left_over += _holds_lies(status, end, [each for each in lies
                                                       if each.sensor == sensor])
    trial.require('no result uses an input that it reports as other than AVAILABLE',
                  used and not unavailable, f'{unavailable} of {used} inputs used')
    trial.require(f'no result uses an input whose sensor has shown nothing for {REACTION_S:g} s',
                  not failed, f'{failed} of {used}')
    trial.require('no result after the end of a lie uses samples from before it', not left_over,
                  f'{left_over} of {used}')
    trial.require('every result uses the inputs whose sensors are right for a window', not missing,
                  f'{missing} missing in {len(monitor.results)} results')


def _holds_lies(status: ModalityStatus, window_end: float, lies: Sequence[Lie]) -> bool:
    """Return whether a window has more samples than came since the last lie, once it is over."""
    over = [lie.end for lie in lies if lie.end <= window_end - RECOVERY_S / 2]
    if not over or any(lie.start <= window_end <= lie.end for lie in lies):
        return False
    elapsed = window_end - max(over)
    rate = 16000 if status.name == 'audio' else LONG_SPEC.num_frames / LONG_SPEC.duration
    return bool(status.num_samples > elapsed * rate + _SPARE[status.name])


def check(trial: Trial, monitor: NodeMonitor, lies: Sequence[Lie], began: float) -> None:
    """
    Compare the messages of the node with what was sent.

    :param lies: with the times of time.monotonic() at which they were sent.
    :param began: since when all sensors were right before the first lie.
    """
    histories = _histories(lies, began)
    _check_delays(trial, lies, _observations(monitor))
    _check_states(trial, monitor, histories)
    _check_results(trial, monitor, lies, histories)


def _pairs(lies: Sequence[Lie]) -> int:
    """Return how many lies overlap with another one."""
    return sum(any(a is not b and a.start < b.end and b.start < a.end for b in lies)
               for a in lies)


def _node_pause(monitor: NodeMonitor, began: float) -> dict[str, float]:
    """Return the longest time without a message of the node, and when it was: a stall."""
    times = np.sort([each.time for each in monitor.results + monitor.availabilities])
    longest = int(np.diff(times).argmax())
    return {'node_pause_s': round(float(times[longest + 1] - times[longest]), 3),
            'node_pause_at_s': round(float(times[longest] - began), 1)}


@case('lies', 'Sensors that show nothing', (
    'Real time: camera (30 Hz), microphone and detector in a process of their own send messages '
    'that are valid and show nothing, and then right ones again: {events} starts and ends of a '
    'lie (seed {seed}), of one sensor or of two at a time. The camera is black, covered with '
    'noise, blown out, noise alone or frozen; the microphone is silent to the last bit, clipped '
    'or repeats; the boxes have no area, lie outside of the image or are stuck. The flow is '
    'computed from the camera. The states in all messages of the node, another process, are '
    'compared with what was sent.'),
    full={'events': 500, 'seed': 17}, quick={'events': 24}, limit_s=900)
def run(trial: Trial, events: int, seed: int) -> None:
    """Send lies and check states and results."""
    with TemporaryDirectory() as folder, domain(), node_monitor() as monitor, \
            sender_process(SENSORS) as sender:
        parameters: dict[str, Any] = {
            'model': make_model(Path(folder, 'random'), LONG_SPEC), 'threads': 1,
            'autostart': True, 'rate': RATE_HZ}
        sender.switch(*ALL)
        with node_process(parameters):
            if not trial.require('there are results from all inputs', monitor.result_with(
                    'rgb', 'flow', 'audio', 'detections', limit_s=180), len(monitor.results)):
                return
            monitor.spin(CLEAN_S)
            for received in (monitor.results, monitor.availabilities):
                received.clear()
            began = time.monotonic()
            sender.pauses_s.clear()
            with _without_collection():
                lies = _play(monitor, sender, plan(events // 2, seed))
            check(trial, monitor, lies, began - CLEAN_S)
            numbers = [each.message.sequence for each in monitor.results]
            trial.figures.update(
                events=2 * len(lies), in_pairs=_pairs(lies),
                seconds=round(time.monotonic() - began), results=len(monitor.results),
                results_lost=numbers[-1] - numbers[0] + 1 - len(numbers),
                sender_pause_s=round(max(sender.pauses_s), 3), **_node_pause(monitor, began))
