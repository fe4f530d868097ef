"""Chunks of sound that are lost on the way: what comes after must lie in its right place."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.modality import Modality

from fault_suite import messages
from fault_suite.case import case, Trial
from fault_suite.messages import SECOND
from fault_suite.models import make_model, SPEC
from fault_suite.ros import domain
from fault_suite.simulation import ConstantAnswer, Simulation, simulation

START_NS = 1_700_000_000 * SECOND
_CHUNK_S, _CHUNK_SAMPLES = 0.02, 320
RECOVERY_S = 3.0
_WHOLE = round(SPEC.duration * SPEC.audio.sample_rate)
KINDS = {
    'with stamps': 'audio_common_msgs/msg/AudioDataStamped',
    'without stamps': 'audio_common_msgs/msg/AudioData',
}


def _play(sim: Simulation, stamped: bool, lost_s: float) -> int:
    """Send five seconds, lose some, send on; give the samples that the window then has."""
    chunk_ns = round(_CHUNK_S * SECOND)
    lost_from = START_NS + 5 * SECOND
    lost_to = lost_from + round(lost_s * SECOND)
    now_ns = START_NS
    while now_ns < lost_to + round(RECOVERY_S * SECOND):
        now_ns += chunk_ns
        sim.set_time(now_ns)
        if not lost_from < now_ns <= lost_to:
            sound = messages.sound(now_ns - chunk_ns, _CHUNK_SAMPLES)
            sim.detect_events('audio', sound if stamped else sound.audio)
        # A picture a tenth of a second ends the window where the sound should end, too.
        if (now_ns - START_NS) % (SECOND // 10) == 0:
            sim.detect_events('image', messages.image(now_ns))
    return _samples(sim, now_ns)


def _samples(sim: Simulation, now_ns: int) -> int:
    statuses: Any = sim.worker.engine.stream.assess(now_ns)
    return next(s.num_samples for s in statuses if s.modality is Modality.AUDIO)


@case('lost_sound', 'Lost chunks of sound', (
    'Simulated: a microphone sends chunks of 20 ms beside a camera; once, chunks are lost '
    '({losses_s} s of them), then all arrive again; with stamps and without.'),
    full={'losses_s': [0.04, 0.2, 0.4, 0.8]}, limit_s=100)
def run(trial: Trial, losses_s: list[float]) -> None:
    """Lose some."""
    with TemporaryDirectory() as folder, domain(check_fields=False):
        model = make_model(Path(folder, 'random'))
        for kind, name in KINDS.items():
            for lost_s in losses_s:
                with simulation(model, ConstantAnswer(vocabulary()), START_NS,
                                audio__type=name) as sim:
                    found = _play(sim, kind == 'with stamps', lost_s)
                missing_s = (_WHOLE - found) / SPEC.audio.sample_rate
                trial.demand(
                    f'{kind}, {lost_s:g} s lost: {RECOVERY_S:g} s later the sound reaches to the '
                    'end of the window again, to 0.05 s', missing_s <= 0.05,
                    f'{missing_s:.3f} s missing of {SPEC.duration:g} s')
