"""A hundred thousand malformed messages, passed to the node's callbacks."""

from __future__ import annotations

import array
from collections import Counter
from collections.abc import Callable
import gc
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from audio_common_msgs.msg import AudioData, AudioDataStamped, AudioInfo
import cv2
from hypothesis import given, HealthCheck, Phase, seed, settings
from hypothesis import strategies as st
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.modality import Modality
import numpy as np

from fault_suite import messages
from fault_suite.case import case, Trial
from fault_suite.messages import SECOND
from fault_suite.models import make_model
from fault_suite.mutations import mutated
from fault_suite.proc import MEBI, peak_bytes, usage
from fault_suite.ros import domain
from fault_suite.simulation import ConstantPrediction, Simulation, simulation

START_NS = 1_700_000_000 * SECOND
STEP_NS = 10_000_000
_BATCH, _BATCHES = 50, 40
_MEMORY_MIB = 16
_CHUNK_NS = 100_000_000
"""Duration of an audio chunk."""
GOOD_INFO = AudioInfo(sample_rate=16_000, channels=1, sample_format='S16LE')


def _audio(stamp_ns: int) -> AudioDataStamped:
    return messages.audio(stamp_ns, _CHUNK_NS * 16 // 1_000_000)


def _unstamped(stamp_ns: int) -> AudioData:
    return _audio(stamp_ns).audio


# Topic, its modality, and a valid message with the given stamp.
Topic = tuple[str, 'Modality | None', Callable[[int], Any]]
RAW: tuple[Topic, ...] = (
    ('image', Modality.RGB, messages.image), ('flow', Modality.FLOW, messages.flow),
    ('audio', Modality.AUDIO, _audio), ('audio_info', None, lambda _: GOOD_INFO),
    ('detections', Modality.DETECTIONS, messages.boxes))
OTHER: tuple[Topic, ...] = (
    ('image/compressed', Modality.RGB, messages.compressed),
    ('audio', Modality.AUDIO, _unstamped), ('audio_info', None, lambda _: GOOD_INFO),
    ('detections', Modality.DETECTIONS, messages.boxes))
SETUPS = {
    'raw images, flow, stamped audio, boxes': (RAW, {'flow__source': 'topic'}),
    'compressed images, audio without stamps, boxes': (OTHER, {
        'rgb__transport': 'compressed', 'audio__type': 'audio_common_msgs/msg/AudioData'}),
}


class Fuzz:
    """Pass messages to a node and check that each is counted."""

    def __init__(self, sim: Simulation, topics: tuple[Topic, ...]) -> None:
        self.sim, self.topics, self.now_ns = sim, topics, START_NS
        self.count: Counter[str] = Counter()
        self.escaped: list[str] = []
        self.unaccounted: list[str] = []

    def put(self, topic: Topic, message: Any) -> None:
        """Advance the clock, then pass the message."""
        name, modality, _ = topic
        self.now_ns += STEP_NS
        self.sim.set_time(self.now_ns)
        before = self._dropped(modality)
        try:
            self.sim.receive(name, message)
        except BaseException as error:
            self.escaped.append(f'{name}: {type(error).__name__}: {error}')
            return
        self.count['all'] += 1
        if modality is not None:
            self._account(name, modality, before)

    def _dropped(self, modality: Modality | None) -> int:
        return 0 if modality is None else self._status(modality).dropped

    def _status(self, modality: Modality) -> Any:
        statuses = self.sim.worker.engine.stream.assess(self.now_ns)
        return next(status for status in statuses if status.modality is modality)

    def _account(self, name: str, modality: Modality, before: int) -> None:
        """Count whether it was accepted or dropped; it must be one of the two."""
        status = self._status(modality)
        accepted, dropped = status.age_ns == 0, status.dropped - before
        self.count['accepted'] += accepted
        self.count['dropped'] += dropped
        if accepted + dropped != 1:
            self.unaccounted.append(
                f'{name}: accepted {accepted}, dropped {dropped}: {status.detail}')
        if dropped and not accepted and status.state.name == 'INVALID' and not status.detail:
            self.unaccounted.append(f'{name}: dropped without a reason')

    def recovers(self) -> int:
        """Send nothing for a second, then valid messages; return the number of inputs used."""
        self.sim.clear()
        self.now_ns += SECOND
        for _ in range(14):
            self.now_ns += _CHUNK_NS
            self.sim.set_time(self.now_ns)
            for name, _, make in self.topics:
                self.sim.receive(
                    name, make(self.now_ns - (_CHUNK_NS if name == 'audio' else 0))
                )
        result = self.sim.tick()
        return sum(s.used for s in result.modalities) if result else 0


def _play(trial: Trial, model: Path, setup: str, number: int, start: int) -> None:
    topics, parameters = SETUPS[setup]
    prediction = ConstantPrediction(vocabulary(), every=1)
    with simulation(model, prediction, START_NS, **parameters) as sim:
        fuzz, warm_rss = Fuzz(sim, topics), 0
        # hypothesis keeps all examples of a run, 7 KB a message: with many short runs, memory
        # that grows is the node's.
        for turn in range(max(1, number // (_BATCH * _BATCHES))):
            _put_many(fuzz, start + turn)
            gc.collect()
            if not warm_rss and fuzz.count['all'] >= number // 5:
                warm_rss = usage().rss
        _check(trial, setup, fuzz, warm_rss)


def _put_many(fuzz: Fuzz, number: int) -> None:
    """Pass a few thousand messages, those of the seed, to the node."""
    strategy = st.one_of(
        *[st.tuples(st.just(t), mutated(t[2](START_NS))) for t in fuzz.topics])

    @seed(number)
    @settings(max_examples=_BATCHES, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.lists(strategy, min_size=_BATCH, max_size=_BATCH))
    def put(drawn: list[tuple[Topic, Any]]) -> None:
        for topic, make in drawn:
            fuzz.put(topic, make(fuzz.now_ns))
        fuzz.sim.clear()

    put()


def _check(trial: Trial, setup: str, fuzz: Fuzz, warm_rss: int) -> None:
    count, grown = fuzz.count, (usage().rss - warm_rss) / MEBI
    trial.require(f'{setup}: no exception leaves a callback', not fuzz.escaped,
                  f'{len(fuzz.escaped)} of {count["all"]}; {"; ".join(fuzz.escaped[:2])}')
    trial.require(f'{setup}: each message is either accepted or dropped and counted',
                  not fuzz.unaccounted,
                  f'{count["accepted"]} accepted, {count["dropped"]} dropped, '
                  f'{len(fuzz.unaccounted)} '
                  f'neither or both; {"; ".join(fuzz.unaccounted[:2])}')
    trial.require(f'{setup}: both outcomes occur often', min(count['accepted'], count['dropped'])
                  > 0.1 * count['all'], f'{count["accepted"]} and {count["dropped"]}')
    trial.require(f'{setup}: memory grows by less than {_MEMORY_MIB} MiB after the first fifth',
                  grown < _MEMORY_MIB, f'{grown:.1f} MiB')
    inputs = fuzz.recovers()
    trial.require(f'{setup}: a second of silence, then 1.4 s of valid messages give a result from '
                  'all inputs', inputs == 4, f'a result from {inputs}')
    trial.figures[setup] = {**count, 'grown_mib': round(grown, 1)}


def _bomb(trial: Trial, model: Path) -> None:
    """Send a small file that unpacks to 768 MB."""
    side = 16_000
    _, data = cv2.imencode('.png', np.zeros((side, side), np.uint8))
    message = messages.compressed(START_NS)
    message.format, message.data = 'png', array.array('B', data.tobytes())
    with simulation(model, ConstantPrediction(vocabulary()), START_NS,
                    rgb__transport='compressed') as sim:
        before = peak_bytes()
        Fuzz(sim, OTHER).put(OTHER[0], message)
        grown = (peak_bytes() - before) / MEBI
    trial.require(
        f'a PNG of {len(data) // 1024} KiB that unpacks to {side} x {side} pixels takes less than '
        '256 MiB', grown < 256, f'peak memory grew by {grown:.0f} MiB')


@case('fuzz', 'Malformed messages', (
    'Simulated: {number:,} messages, generated by hypothesis from valid ones by changing up to '
    'four fields (any field of any message: sizes, steps, encodings, bytes, stamps, ids, NaN, '
    'infinity, the ends of each type’s range), written to the wire format and read again, are '
    'passed to the node’s own callbacks; seeds from {start} on.'),
    full={'number': 100_000, 'start': 3}, quick={'number': 8000}, limit_s=900)
def run(trial: Trial, number: int, start: int) -> None:
    """Fuzz all transports, then a decompression bomb."""
    with TemporaryDirectory() as folder, domain(check_fields=False):
        model = make_model(Path(folder, 'random'))
        for setup in SETUPS:
            _play(trial, model, setup, number // len(SETUPS), start)
        _bomb(trial, model)
