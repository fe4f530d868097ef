"""A network that is too slow for the rate, and one that runs out of memory."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from karmma_ros.clip import VideoSpec
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
import numpy as np

from fault_suite import messages
from fault_suite.case import case, Trial
from fault_suite.models import make_model, SPEC
from fault_suite.monitor import node_monitor, NodeMonitor, repeated
from fault_suite.processes import ALL, node_process, sender_process
from fault_suite.ros import domain
from fault_suite.simulation import ConstantPrediction, simulation

RATE_HZ = 50.0
HEAVY = replace(SPEC, num_frames=32, video=VideoSpec(160, 160))
_HICCUP_S = 0.5


def _slow(trial: Trial, monitor: NodeMonitor, model: Path, seconds: float) -> None:
    # Before the camera is received only audio and boxes are encoded, which is quick.
    first = monitor.result_with('rgb', 'flow', 'audio', 'detections', limit_s=60)
    if not trial.require('there are results from all inputs', first,
                         'results' if first else 'none in 60 s'):
        return
    monitor.spin(2.0)
    before = len(monitor.results)
    monitor.spin(seconds)
    results = monitor.results[before:]
    ages = np.array([h.message.end_to_end_latency for h in results])
    latencies = np.array([h.message.inference_latency for h in results])
    rate = len(results) / seconds
    trial.figures['slow'] = {
        'requested_hz': RATE_HZ, 'achieved_hz': round(rate, 2),
        'latency_p50_s': round(float(np.median(latencies)), 3),
        'age_p50_s': round(float(np.median(ages)), 3),
        'age_p95_s': round(float(np.percentile(ages, 95)), 3)}
    trial.require('the network is slower than the rate, as this case requires',
                  np.median(latencies) > 1 / RATE_HZ, f'{np.median(latencies):.3f} s a window')
    # A window waits for nothing but its own inference and the preparation before it.
    bound = 2 * float(np.percentile(latencies, 95)) + _HICCUP_S
    trial.require('latest wins: the age of a result (p95) is bounded by two inferences and 0.5 s',
                  np.percentile(ages, 95) < bound,
                  f'{np.percentile(ages, 95):.3f} s of {bound:.3f} s')
    third = max(1, len(ages) // 3)
    trial.require('the age does not grow: that of the last third exceeds that of the first by at '
                  'most half and 0.2 s',
                  np.median(ages[-third:]) < 1.5 * np.median(ages[:third]) + 0.2,
                  f'{np.median(ages[:third]):.3f} s, then {np.median(ages[-third:]):.3f} s')
    twice = repeated(results)
    trial.require('no window twice', not twice, f'{twice} of {len(results)}')
    _check_diagnostics(trial, monitor)


def _check_diagnostics(trial: Trial, monitor: NodeMonitor) -> None:
    status = monitor.status('inference')
    values = {v.key: v.value for v in status.values} if status else {}
    trial.require('diagnostics warn that it is slower than its rate, and count what was skipped',
                  status and status.level == b'\x01' and int(values.get('skipped', 0)) > 0,
                  f'{status.message if status else "nothing"}; skipped {values.get("skipped")}')


class _Failing(ConstantPrediction):
    """Raise an out-of-memory error for some windows, each time another one."""

    ERRORS = (MemoryError('cannot allocate'), RuntimeError('CUDA out of memory'),
              RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    left = len(ERRORS)

    def __call__(self, window: Any, **options: Any) -> Any:
        """Raise each error once."""
        if self.left:
            self.left -= 1
            raise self.ERRORS[self.left]
        return super().__call__(window, **options)


def _no_memory(trial: Trial, model: Path) -> None:
    """Let inference fail; the next window must give a result."""
    start_ns = 1_700_000_000 * messages.SECOND
    prediction, published = _Failing(vocabulary()), []
    with simulation(model, prediction, start_ns) as sim:
        for tick in range(20):
            now_ns = start_ns + tick * 100_000_000
            sim.set_time(now_ns)
            sim.receive('image', messages.image(now_ns))
            published.append(sim.tick() is not None)
    trial.require(
        'simulated: inference runs out of memory three times; the next window gives a result, and '
        'all after it', not prediction.left and all(published[-10:]) and not any(published[:3]),
        ''.join('r' if c else '-' for c in published) + ' (r: a result)')


@case('pressure', 'Overload and out of memory', (
    'A network for 32 frames of 160 x 160 on one thread is set to 50 results a second for '
    '{seconds:g} s while three processes share the machine. Then, simulated, inference raises the '
    'errors of a machine without free memory. A machine without memory for DDS itself is not '
    'tested: there the process ends, and launch starts it again.'),
    full={'seconds': 20.0}, quick={'seconds': 5.0}, limit_s=200)
def run(trial: Trial, seconds: float) -> None:
    """Request more than the machine can compute."""
    with TemporaryDirectory() as folder, domain():
        heavy = make_model(Path(folder, 'heavy'), HEAVY)
        with node_monitor() as monitor, sender_process() as sender:
            sender.switch(*ALL)
            with node_process({'model': heavy, 'threads': 1, 'autostart': True, 'rate': RATE_HZ}):
                _slow(trial, monitor, heavy, seconds)
        _no_memory(trial, make_model(Path(folder, 'random')))
