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
from fault_suite.audience import audience, DemoMonitor, repeated
from fault_suite.case import case, Trial
from fault_suite.models import make_model, SPEC
from fault_suite.processes import ALL, node_process, sender_process
from fault_suite.ros import domain
from fault_suite.simulation import ConstantAnswer, simulation

RATE_HZ = 50.0
HEAVY = replace(SPEC, num_frames=32, video=VideoSpec(160, 160))
_HICCUP_S = 0.5


def _slow(trial: Trial, ears: DemoMonitor, model: Path, seconds: float) -> None:
    # Those before the camera is heard are quick: nothing is encoded but sound and boxes.
    first = ears.result_with('rgb', 'flow', 'audio', 'detections', limit_s=60)
    if not trial.demand('results from all inputs come', first,
                        'results' if first else 'none in 60 s'):
        return
    ears.listen(2.0)
    before = len(ears.results)
    ears.listen(seconds)
    results = ears.results[before:]
    ages = np.array([h.message.end_to_end_latency for h in results])
    takes = np.array([h.message.inference_latency for h in results])
    rate = len(results) / seconds
    trial.figures['slow'] = {
        'asked_hz': RATE_HZ, 'came_hz': round(rate, 2),
        'latency_p50_s': round(float(np.median(takes)), 3),
        'age_p50_s': round(float(np.median(ages)), 3),
        'age_p95_s': round(float(np.percentile(ages, 95)), 3)}
    trial.demand('the network is slower than the rate, else nothing is shown',
                 np.median(takes) > 1 / RATE_HZ, f'{np.median(takes):.3f} s a window')
    # A window waits for nothing but its own inference and the preparation before it.
    bound = 2 * float(np.percentile(takes, 95)) + _HICCUP_S
    trial.demand('latest wins: the age of a result (p95) is bounded by two inferences and 0.5 s',
                 np.percentile(ages, 95) < bound,
                 f'{np.percentile(ages, 95):.3f} s of {bound:.3f} s')
    third = max(1, len(ages) // 3)
    trial.demand('the age does not grow: the last third is no older than the first by half and '
                 '0.2 s', np.median(ages[-third:]) < 1.5 * np.median(ages[:third]) + 0.2,
                 f'{np.median(ages[:third]):.3f} s, then {np.median(ages[-third:]):.3f} s')
    twice = repeated(results)
    trial.demand('no window twice', not twice, f'{twice} of {len(results)}')
    _judge_diagnostics(trial, ears)


def _judge_diagnostics(trial: Trial, ears: DemoMonitor) -> None:
    status = ears.status('inference')
    values = {v.key: v.value for v in status.values} if status else {}
    trial.demand('diagnostics warn that it is slower than asked, and count what was skipped',
                 status and status.level == b'\x01' and int(values.get('skipped', 0)) > 0,
                 f'{status.message if status else "nothing"}; skipped {values.get("skipped")}')


class _Failing(ConstantAnswer):
    """Run out of memory for some windows, each time in another way."""

    ERRORS = (MemoryError('cannot allocate'), RuntimeError('CUDA out of memory'),
              RuntimeError("DefaultCPUAllocator: can't allocate memory"))
    left = len(ERRORS)

    def __call__(self, window: Any, keep: Any = None) -> Any:
        """Fail while there is something left to fail with."""
        if self.left:
            self.left -= 1
            raise self.ERRORS[self.left]
        return super().__call__(window, keep)


def _no_memory(trial: Trial, model: Path) -> None:
    """Let recognition fail; the next window must be answered."""
    start_ns = 1_700_000_000 * messages.SECOND
    answer, came = _Failing(vocabulary()), []
    with simulation(model, answer, start_ns) as sim:
        for tick in range(20):
            now_ns = start_ns + tick * 100_000_000
            sim.set_time(now_ns)
            sim.detect_events('image', messages.image(now_ns))
            came.append(sim.tick() is not None)
    trial.demand(
        'simulated: recognition runs out of memory three times; the next window is answered, and '
        'all after it', not answer.left and all(came[-10:]) and not any(came[:3]),
        ''.join('r' if c else '-' for c in came) + ' (r: a result)')


@case('pressure', 'Too slow, and out of memory', (
    'A network of 32 pictures of 160 x 160 on one thread is asked for 50 results a second for '
    '{seconds:g} s while three processes share the machine. Then, simulated, recognition fails '
    'with errors as they come when there is no memory. A machine that has none left for DDS '
    'itself is not tried: there the process ends, and launch starts it again.'),
    full={'seconds': 20.0}, quick={'seconds': 5.0}, limit_s=200)
def run(trial: Trial, seconds: float) -> None:
    """Ask for too much."""
    with TemporaryDirectory() as folder, domain():
        heavy = make_model(Path(folder, 'heavy'), HEAVY)
        with audience() as ears, sender_process() as sender:
            sender.switch(*ALL)
            with node_process({'model': heavy, 'threads': 1, 'autostart': True, 'rate': RATE_HZ}):
                _slow(trial, ears, heavy, seconds)
        _no_memory(trial, make_model(Path(folder, 'random')))
