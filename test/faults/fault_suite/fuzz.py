"""Messages that no sensor should send, a hundred thousand of them, into the node's callbacks."""

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
from fault_suite.simulation import ConstantAnswer, Simulation, simulation

START_NS = 1_700_000_000 * SECOND
STEP_NS = 10_000_000
_BATCH, _BATCHES = 50, 40
_MEMORY_MIB = 16
_CHUNK_NS = 100_000_000
"""The length of a chunk of sound."""
GOOD_INFO = AudioInfo(sample_rate=16_000, channels=1, sample_format='S16LE')


def _sound(stamp_ns: int) -> AudioDataStamped:
    return messages.sound(stamp_ns, _CHUNK_NS * 16 // 1_000_000)


def _unstamped(stamp_ns: int) -> AudioData:
    return _sound(stamp_ns).audio


# Topic, what it feeds, and a good message of it with the stamp given.
Topic = tuple[str, 'Modality | None', Callable[[int], Any]]
RAW: tuple[Topic, ...] = (
    ('image', Modality.RGB, messages.image), ('flow', Modality.FLOW, messages.flow),
    ('audio', Modality.AUDIO, _sound), ('audio_info', None, lambda _: GOOD_INFO),
    ('detections', Modality.DETECTIONS, messages.boxes))
OTHER: tuple[Topic, ...] = (
    ('image/compressed', Modality.RGB, messages.compressed),
    ('audio', Modality.AUDIO, _unstamped), ('audio_info', None, lambda _: GOOD_INFO),
    ('detections', Modality.DETECTIONS, messages.boxes))
SETUPS = {
    'raw pictures, flow, stamped sound, boxes': (RAW, {'flow__source': 'topic'}),
    'compressed pictures, sound without stamps, boxes': (OTHER, {
        'rgb__transport': 'compressed', 'audio__type': 'audio_common_msgs/msg/AudioData'}),
}


class Fuzz:
    """Put messages into a node and see that each is accounted for."""

    def __init__(self, sim: Simulation, topics: tuple[Topic, ...]) -> None:
        self.sim, self.topics, self.now_ns = sim, topics, START_NS
        self.count: Counter[str] = Counter()
        self.escaped: list[str] = []
        self.unaccounted: list[str] = []

    def put(self, topic: Topic, message: Any) -> None:
        """Let time pass a little, then the message come in."""
        name, modality, _ = topic
        self.now_ns += STEP_NS
        self.sim.set_time(self.now_ns)
        before = self._dropped(modality)
        try:
            self.sim.detect_events(name, message)
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
        """Note whether it was taken (received now) or dropped; it must be one of the two."""
        status = self._status(modality)
        taken, dropped = status.age_ns == 0, status.dropped - before
        self.count['taken'] += taken
        self.count['dropped'] += dropped
        if taken + dropped != 1:
            self.unaccounted.append(f'{name}: taken {taken}, dropped {dropped}: {status.detail}')
        if dropped and not taken and status.state.name == 'INVALID' and not status.detail:
            self.unaccounted.append(f'{name}: dropped without a reason')

    def recovers(self) -> int:
        """Be silent for a second, send good messages, tell on how many inputs the result rests."""
        self.sim.forget()
        self.now_ns += SECOND
        for _ in range(14):
            self.now_ns += _CHUNK_NS
            self.sim.set_time(self.now_ns)
            for name, _, make in self.topics:
                self.sim.detect_events(
                    name, make(self.now_ns - (_CHUNK_NS if name == 'audio' else 0))
                )
        result = self.sim.tick()
        return sum(s.used for s in result.modalities) if result else 0


def _play(trial: Trial, model: Path, setup: str, number: int, start: int) -> None:
    topics, parameters = SETUPS[setup]
    with simulation(model, ConstantAnswer(vocabulary(), every=1), START_NS, **parameters) as sim:
        fuzz, warm_rss = Fuzz(sim, topics), 0
        # hypothesis remembers all examples of a run, 7 KB a message: many short runs, so that
        # what grows is the node's.
        for turn in range(max(1, number // (_BATCH * _BATCHES))):
            _put_many(fuzz, start + turn)
            gc.collect()
            if not warm_rss and fuzz.count['all'] >= number // 5:
                warm_rss = usage().rss
        _judge(trial, setup, fuzz, warm_rss)


def _put_many(fuzz: Fuzz, number: int) -> None:
    """Put a few thousand messages into the node, those of the seed."""
    strategy = st.one_of(
        *[st.tuples(st.just(t), mutated(t[2](START_NS))) for t in fuzz.topics])

    @seed(number)
    @settings(max_examples=_BATCHES, database=None, deadline=None, phases=[Phase.generate],
              suppress_health_check=list(HealthCheck))
    @given(st.lists(strategy, min_size=_BATCH, max_size=_BATCH))
    def put(found: list[tuple[Topic, Any]]) -> None:
        for topic, make in found:
            fuzz.put(topic, make(fuzz.now_ns))
        fuzz.sim.forget()

    put()


def _judge(trial: Trial, setup: str, fuzz: Fuzz, warm_rss: int) -> None:
    count, grown = fuzz.count, (usage().rss - warm_rss) / MEBI
    trial.demand(f'{setup}: no exception leaves a callback', not fuzz.escaped,
                 f'{len(fuzz.escaped)} of {count["all"]}; {"; ".join(fuzz.escaped[:2])}')
    trial.demand(f'{setup}: each message is either taken or dropped and counted',
                 not fuzz.unaccounted,
                 f'{count["taken"]} taken, {count["dropped"]} dropped, {len(fuzz.unaccounted)} '
                 f'neither or both; {"; ".join(fuzz.unaccounted[:2])}')
    trial.demand(f'{setup}: both kinds occur often', min(count['taken'], count['dropped'])
                 > 0.1 * count['all'], f'{count["taken"]} and {count["dropped"]}')
    trial.demand(f'{setup}: memory grows by less than {_MEMORY_MIB} MiB after the first fifth',
                 grown < _MEMORY_MIB, f'{grown:.1f} MiB')
    inputs = fuzz.recovers()
    trial.demand(f'{setup}: a second of silence and 1.4 s of good messages afterwards give a '
                 'result from all inputs', inputs == 4, f'a result from {inputs}')
    trial.figures[setup] = {**count, 'grown_mib': round(grown, 1)}


def _bomb(trial: Trial, model: Path) -> None:
    """Send a small file that unpacks to 768 MB."""
    side = 16_000
    _, data = cv2.imencode('.png', np.zeros((side, side), np.uint8))
    message = messages.compressed(START_NS)
    message.format, message.data = 'png', array.array('B', data.tobytes())
    with simulation(model, ConstantAnswer(vocabulary()), START_NS,
                    rgb__transport='compressed') as sim:
        before = peak_bytes()
        Fuzz(sim, OTHER).put(OTHER[0], message)
        grown = (peak_bytes() - before) / MEBI
    trial.demand(
        f'a PNG of {len(data) // 1024} KiB that unpacks to {side} x {side} pixels takes less than '
        '256 MiB', grown < 256, f'peak memory grew by {grown:.0f} MiB')


@case('fuzz', 'Messages that no sensor should send', (
    'Simulated: {number:,} messages, made by hypothesis from good ones by changing up to four '
    'fields (any field of any message: sizes, steps, encodings, bytes, stamps, ids, NaN, '
    'infinity, the ends of each type’s range), written to the wire format and read again, are put '
    'into the node’s own callbacks; seeds from {start} on.'),
    full={'number': 100_000, 'start': 3}, quick={'number': 8000}, limit_s=900)
def run(trial: Trial, number: int, start: int) -> None:
    """Fuzz all transports, then a decompression bomb."""
    with TemporaryDirectory() as folder, domain(check_fields=False):
        model = make_model(Path(folder, 'random'))
        for setup in SETUPS:
            _play(trial, model, setup, number // len(SETUPS), start)
        _bomb(trial, model)
