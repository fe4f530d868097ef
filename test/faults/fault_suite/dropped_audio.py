"""Audio chunks that are dropped: those that follow must be aligned again."""

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
from fault_suite.simulation import ConstantPrediction, Simulation, simulation

START_NS = 1_700_000_000 * SECOND
_CHUNK_S, _CHUNK_SAMPLES = 0.02, 320
RECOVERY_S = 3.0
_WINDOW_SAMPLES = round(SPEC.duration * SPEC.audio.sample_rate)
MESSAGE_TYPES = {
    'with stamps': 'audio_common_msgs/msg/AudioDataStamped',
    'without stamps': 'audio_common_msgs/msg/AudioData',
}


def _play(sim: Simulation, stamped: bool, dropped_s: float) -> int:
    """Send 5 s of audio, drop some, resume; return the number of samples in the window."""
    chunk_ns = round(_CHUNK_S * SECOND)
    dropped_from = START_NS + 5 * SECOND
    dropped_to = dropped_from + round(dropped_s * SECOND)
    now_ns = START_NS
    while now_ns < dropped_to + round(RECOVERY_S * SECOND):
        now_ns += chunk_ns
        sim.set_time(now_ns)
        if not dropped_from < now_ns <= dropped_to:
            audio = messages.audio(now_ns - chunk_ns, _CHUNK_SAMPLES)
            sim.receive('audio', audio if stamped else audio.audio)
        # An image every 0.1 s ends the window where the audio should end, too.
        if (now_ns - START_NS) % (SECOND // 10) == 0:
            sim.receive('image', messages.image(now_ns))
    return _samples(sim, now_ns)


def _samples(sim: Simulation, now_ns: int) -> int:
    statuses: Any = sim.worker.engine.stream.assess(now_ns)
    return next(s.num_samples for s in statuses if s.modality is Modality.AUDIO)


@case('dropped_audio', 'Dropped audio chunks', (
    'Simulated: a microphone sends chunks of 20 ms and a camera sends images; once, chunks are '
    'dropped '
    '({dropouts_s} s of them), then all arrive again; with and without stamps.'),
    full={'dropouts_s': [0.04, 0.2, 0.4, 0.8]}, limit_s=100)
def run(trial: Trial, dropouts_s: list[float]) -> None:
    """Drop chunks of each duration."""
    with TemporaryDirectory() as folder, domain(check_fields=False):
        model = make_model(Path(folder, 'random'))
        for stamps, message_type in MESSAGE_TYPES.items():
            for dropped_s in dropouts_s:
                with simulation(model, ConstantPrediction(vocabulary()), START_NS,
                                audio__type=message_type) as sim:
                    num_samples = _play(sim, stamps == 'with stamps', dropped_s)
                missing_s = (_WINDOW_SAMPLES - num_samples) / SPEC.audio.sample_rate
                trial.require(
                    f'{stamps}, {dropped_s:g} s dropped: {RECOVERY_S:g} s later the audio extends '
                    'to the end of the window again, within 0.05 s', missing_s <= 0.05,
                    f'{missing_s:.3f} s missing of {SPEC.duration:g} s')
