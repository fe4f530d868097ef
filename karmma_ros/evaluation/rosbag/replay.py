"""
A bag through the stream of sensors, on the bag's clock: which windows a node would have cut.

Nothing here waits or measures time: the same bag and settings give the same windows. What the
node does is done in its order (node/worker.py): at each tick of its rate it judges the inputs,
and cuts a window if enough can be used and any of them has news. A tick comes before the
messages received at its very time.

It is the node that keeps up: no tick is skipped because the one before took too long.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import heapq
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.evaluation.rosbag.faults import Fault, Faults
from karmma_ros.evaluation.rosbag.feed import Delivery, Feed, make_stream
from karmma_ros.evaluation.rosbag.reading import Bag, LATEST_NS, Topic
from karmma_ros.evaluation.rosbag.topics import AUDIO_INFO, Choice, RECOGNITION, TRUTH
from karmma_ros.modality import Modality
from karmma_ros.stream.availability import ModalityStatus
from karmma_ros.stream.window import Window
import numpy as np
from numpy.typing import NDArray

_NEVER = LATEST_NS
_SOUND_TOLERANCE_NS = 60_000_000


@dataclass(frozen=True, eq=False)
class Cut:
    """One window that a node would have asked its network about."""

    lane: int
    """Place of the run among those of the replay."""
    window: Window
    asked_ns: int
    """The bag's time then."""


@dataclass
class Refusals:
    """Messages that the inputs did not take."""

    counts: Counter[str] = field(default_factory=Counter)
    """Role → how many."""
    first: dict[str, str] = field(default_factory=dict)
    """Role → what was wrong with the first of them."""

    def note(self, role: str, reason: str) -> None:
        """Count one."""
        self.counts[role] += 1
        self.first.setdefault(role, reason)


class Lane:
    """One simulated node: its inputs, what is wrong with them, and its rate."""

    def __init__(
        self, number: int, spec: ClipSpec, modalities: tuple[Modality, ...],
        values: Mapping[str, Any], flow_topic: bool, faults: Faults, start_ns: int,
        hop: int = 0,
    ) -> None:
        """
        Start with empty buffers.

        :param values: the node's parameters, by name.
        :param hop: frames from one window of a streaming network to the next; 0 for others.
        :raises InvalidSettingError: for a parameter that cannot be used.
        """
        self._number, self._faults = number, faults
        self._stream = make_stream(spec, modalities, values, flow_topic, hop)
        self._feed = Feed(values, self._stream)
        self._needed = values['min_modalities']
        # As in the node: looked for twice a hop, no window of a streaming network is missed.
        self._period_ns = (
            hop * spec.frame_period_ns // 2 if hop else round(NANOSECONDS / values['rate']))
        # As in a node that was started before the clock: ticks at whole periods of it.
        self._tick_ns = -(-start_ns // self._period_ns) * self._period_ns
        self._held: list[tuple[int, int, Delivery]] = []
        """Delayed messages: when they arrive, and in which order."""
        self._order = 0
        self.refusals = Refusals()
        self._states: list[tuple[int, ...]] = []

    @property
    def states(self) -> NDArray[np.int64]:
        """Give time and the state of each modality from then on, `[s, 5]`."""
        return np.array(self._states, np.int64).reshape(-1, 1 + len(Modality))

    def take(self, delivery: Delivery) -> Iterator[Cut]:
        """Go on to the time of a message, then take it, or whatever its faults leave of it."""
        now_ns = delivery.received_ns
        yield from self.advance(now_ns)
        arrival_ns = now_ns if delivery.role == AUDIO_INFO else (
            self._faults.arrival_ns(delivery.role, delivery.index, now_ns))
        if arrival_ns is None:
            return
        if arrival_ns > now_ns:
            self._order += 1
            heapq.heappush(self._held, (arrival_ns, self._order, delivery))
            return
        self._receive(delivery, now_ns)

    def advance(self, now_ns: int) -> Iterator[Cut]:
        """Do what is due up to a time: ticks up to and with it, delayed messages before it."""
        while True:
            arrival_ns = self._held[0][0] if self._held else _NEVER
            if self._tick_ns <= min(arrival_ns, now_ns):
                yield from self._tick(self._tick_ns)
                self._tick_ns += self._period_ns
            elif arrival_ns < now_ns:
                self._receive(heapq.heappop(self._held)[2], arrival_ns)
            else:
                return

    def _receive(self, delivery: Delivery, now_ns: int) -> None:
        refusal = self._feed.take(delivery, now_ns)
        if refusal:
            self.refusals.note(delivery.role, refusal)

    def _tick(self, now_ns: int) -> Iterator[Cut]:
        statuses = self._stream.assess(now_ns)
        self._note_states(statuses, now_ns)
        if sum(status.available for status in statuses) < self._needed:
            return
        window = self._stream.window(now_ns)
        if window is not None:
            yield Cut(self._number, window, now_ns)

    def _note_states(self, statuses: Sequence[ModalityStatus], now_ns: int) -> None:
        states = tuple(int(status.state) for status in statuses)
        if not self._states or self._states[-1][1:] != states:
            self._states.append((now_ns, *states))


class EchoLane(Lane):
    """
    One simulated node that is asked when a real one was: for the answers that a bag holds.

    It cuts a window when all is there that was received while the window's end was the newest
    stamp there was.
    """

    def __init__(self, ends_ns: Iterable[int], *lane: Any) -> None:
        """Take the ends of the windows to cut, and what a lane takes."""
        super().__init__(*lane)
        self._tick_ns = _NEVER
        self._ends = sorted(set(ends_ns))
        self._wanted = frozenset(self._ends)
        self._due = False
        self._last_ns = 0

    def advance(self, now_ns: int) -> Iterator[Cut]:
        """Cut the window that is due, if the time goes on."""
        if self._due and now_ns > self._last_ns:
            self._due = False
            window = self._stream.window(self._last_ns)
            if window is not None and window.end_ns in self._wanted:
                yield Cut(self._number, window, self._last_ns)

    def _receive(self, delivery: Delivery, now_ns: int) -> None:
        super()._receive(delivery, now_ns)
        self._last_ns = now_ns
        newest_ns, tolerance_ns = self._feed.newest_ns, 0
        if delivery.role == Modality.AUDIO.value:  # laid end to end, and resampled with a lag
            tolerance_ns = _SOUND_TOLERANCE_NS
        place = bisect_left(self._ends, newest_ns - tolerance_ns)
        if place < len(self._ends) and self._ends[place] <= newest_ns + tolerance_ns:
            self._due = True


@dataclass(frozen=True)
class Run:
    """What is done to the sensors of one lane."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0


class Replay:
    """One pass over a bag for any number of runs; pictures are decoded once for all of them."""

    def __init__(
        self, bag: Bag, choice: Choice, spec: ClipSpec, modalities: tuple[Modality, ...],
        values: Mapping[str, Any], runs: Sequence[Run], echoed: Iterable[int] = (),
        hop: int = 0,
    ) -> None:
        """
        Prepare the runs.

        :param values: the node's parameters, by name.
        :param echoed: ends of windows that a node answered; if any, they are cut in a run of
            their own, the last one.
        :param hop: as a `Lane` takes it.
        :raises InvalidSettingError: for a parameter that cannot be used.
        """
        self._bag, self._spec = bag, spec
        self._topics = {
            role: topic for role, topic in choice.topics.items()
            if role != RECOGNITION and _fed(role, values, choice.flow_topic)}
        self.lanes = [
            Lane(number, spec, modalities, values, choice.flow_topic,
                 Faults(run.faults, run.seed, bag.start_ns), bag.start_ns, hop)
            for number, run in enumerate(runs)]
        ends = list(echoed)
        if ends:
            self.lanes.append(EchoLane(
                ends, len(runs), spec, modalities, values, choice.flow_topic,
                Faults((), 0, bag.start_ns), bag.start_ns, hop))
        self.truths: list[tuple[int, int, str, str]] = []
        """Start, stop, verb and noun of what a truth topic says."""
        self.unread: Counter[str] = Counter()
        """Role → messages whose bytes are none of their type."""

    def cuts(
        self, progress: Callable[[int], None] = lambda time_ns: None,
    ) -> Generator[Cut, None, None]:
        """
        Give all windows of all runs, in order of time.

        :param progress: called with the bag's time as it goes on.
        """
        readers = {(t.name, t.type): (role, self._reader(t)) for role, t in self._topics.items()}
        counts: Counter[str] = Counter()
        crop = self._spec.video.height, self._spec.video.width
        end_ns = self._bag.start_ns
        for topic, received_ns, data in self._bag.messages(list(self._topics.values())):
            role, read = readers[topic.name, topic.type]
            end_ns = max(end_ns, received_ns)
            delivery = Delivery(
                role, topic.type, counts[role], end_ns, data, read, crop)
            counts[role] += 1
            if role == TRUTH:
                self._note_truth(delivery)
                continue
            for lane in self.lanes:
                yield from lane.take(delivery)
            progress(end_ns)
        for lane in self.lanes:
            yield from lane.advance(end_ns + 1)

    def _reader(self, topic: Topic) -> Callable[[bytes], Any]:
        try:
            return self._bag.reader(topic)
        except ValueError as error:
            refusal = str(error)

        def refuse(data: bytes) -> Any:
            raise ValueError(refusal)
        return refuse

    def _note_truth(self, delivery: Delivery) -> None:
        try:
            message = delivery.message
            times = (stamp.sec * NANOSECONDS + stamp.nanosec
                     for stamp in (message.header.stamp, message.stop))
            start_ns, stop_ns = times
            self.truths.append((int(start_ns), int(stop_ns), message.verb, message.noun))
        except (ValueError, AttributeError):
            self.unread[TRUTH] += 1


def _fed(role: str, values: Mapping[str, Any], flow_topic: bool) -> bool:
    """Tell whether a node with these parameters would subscribe."""
    if role == TRUTH:
        return True
    if role == AUDIO_INFO:
        role = Modality.AUDIO.value
    if role == Modality.RGB.value and not flow_topic:
        return bool(values['rgb.enabled'] or values['flow.enabled'])
    return bool(values[f'{role}.enabled'])
