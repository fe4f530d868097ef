"""
A bag through the stream of sensors, on the bag's clock: which windows a node would have cut.

Nothing here waits or measures time: the same bag and settings give the same windows. What the
node does is done in its order (stream/looks.py, node/worker.py): when a look is due it judges
the inputs, and cuts a window if enough can be used and any of them has news. A tick of its rate
comes before the messages received at its very time.

It is the node that keeps up: no tick is skipped because the one before took too long.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
import heapq
from typing import Any

from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.faults import Fault, Faults
from karmma_ros.bags.reader import Bag, LATEST_NS, Topic
from karmma_ros.bags.topics import AUDIO_INFO, RECOGNITION, TopicChoice, TRUTH
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modality import Modality
from karmma_ros.stream.availability import ModalityState, ModalityStatus
from karmma_ros.stream.ingest import MessageIngest
from karmma_ros.stream.settings import make_stream
from karmma_ros.stream.trigger import InferenceTrigger
from karmma_ros.stream.window import Window
import numpy as np
from numpy.typing import NDArray

_NEVER = LATEST_NS
_PATIENCE_NS = NANOSECONDS
"""How much later than a node a recorder may receive a message, or the other way round."""


@dataclass(frozen=True, eq=False)
class WindowRequest:
    """One window that a node would have asked its network about."""

    lane: int
    """Place of the run among those of the replay."""
    window: Window
    inference_ns: int
    """The bag's time then."""


@dataclass(frozen=True)
class RecordedWindow:
    """One window that a real node cut, and what it had by then."""

    end_ns: int
    time_ns: int
    """When it was cut, on the node's clock; 0 where that is not known."""
    heard_ns: int
    """When the recorder received the answer, on the bag's clock."""
    newest_ns: Mapping[str, int]
    """Role → the stamp of its newest message; 0 for none."""


@dataclass
class RejectedMessages:
    """Messages that the inputs did not take."""

    counts: Counter[str] = field(default_factory=Counter)
    """Role → how many."""
    first: dict[str, str] = field(default_factory=dict)
    """Role → what was wrong with the first of them."""

    def note(self, role: str, reason: str) -> None:
        """Count one."""
        self.counts[role] += 1
        self.first.setdefault(role, reason)


class SimulatedNode:
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
        self._ingest = MessageIngest(values)
        self._ingest.feed(self._stream)
        self._needed = values['min_modalities']
        # As in the node: looked for twice a hop, no window of a streaming network is missed.
        self._trigger = InferenceTrigger(every_frame=bool(hop))
        self._period_ns = (
            hop * spec.frame_period_ns // 2 if hop else round(NANOSECONDS / values['rate']))
        # As in a node that was started before the clock: ticks at whole periods of it.
        self._tick_ns = -(-start_ns // self._period_ns) * self._period_ns
        self._heard_ns = self._start_ns = start_ns
        self._longest_ns = max(
            round(values[f'{m}.timeout'] * NANOSECONDS) for m in Modality)
        self._held: list[tuple[int, int, BagMessage]] = []
        """Delayed messages: when they arrive, and in which order."""
        self._order = 0
        self.refusals = RejectedMessages()
        self._warnings: dict[str, list[int]] = {}
        """The warning of a modality → when it was found first and last."""
        self._states: list[tuple[int, ...]] = []
        self._statuses: Sequence[ModalityStatus] = ()

    @property
    def details(self) -> dict[str, str]:
        """Say of each sensor that was heard why it could not be used at the last look."""
        unheard = (ModalityState.DISABLED, ModalityState.NEVER_RECEIVED)
        return {s.modality.value: s.detail for s in self._statuses
                if s.detail and s.state not in unheard}

    @property
    def warnings(self) -> list[str]:
        """Return what the content checks found, and in which seconds of the bag."""
        return [
            f'{line} (second {first_ns / NANOSECONDS:.1f} to {last_ns / NANOSECONDS:.1f})'
            for line, (first_ns, last_ns) in self._warnings.items()]

    @property
    def states(self) -> NDArray[np.int64]:
        """Return time and the state of each modality from then on, `[s, 5]`."""
        return np.array(self._states, np.int64).reshape(-1, 1 + len(Modality))

    def take_info(self, info: Any) -> None:
        """Take what was stated of the audio format before the first message."""
        with suppress(InvalidSampleError):  # then the rate check has the word
            self._ingest.take_info(info)

    def take(self, delivery: BagMessage) -> Iterator[WindowRequest]:
        """Go on to the time of a message, then take it, or whatever its faults leave of it."""
        now_ns = delivery.received_ns
        yield from self.advance(now_ns)
        arrival_ns = now_ns if delivery.role == AUDIO_INFO else (
            self._faults.receive_ns(delivery.role, delivery.index, now_ns))
        if arrival_ns is None:
            return
        if arrival_ns > now_ns:
            self._order += 1
            heapq.heappush(self._held, (arrival_ns, self._order, delivery))
            return
        yield from self._follow(delivery, now_ns)

    def advance(self, now_ns: int) -> Iterator[WindowRequest]:
        """Do what is due up to a time: ticks up to and with it, delayed messages before it."""
        while True:
            arrival_ns = self._held[0][0] if self._held else _NEVER
            due_ns = min(arrival_ns, now_ns)
            if self._tick_ns <= due_ns:
                if self._trigger.on_tick():
                    yield from self._look(self._tick_ns)
                silent = self._tick_ns - self._heard_ns > self._longest_ns
                self._tick_ns += self._period_ns
                if silent:  # nothing changes before the next message, be it years away
                    self._tick_ns = max(self._tick_ns, due_ns // self._period_ns * self._period_ns)
            elif arrival_ns < now_ns:
                yield from self._follow(heapq.heappop(self._held)[2], arrival_ns)
            else:
                return

    def _follow(self, delivery: BagMessage, now_ns: int) -> Iterator[WindowRequest]:
        """Take a message, and look for a window if it was what a look waits for."""
        self._receive(delivery, now_ns)
        if self._trigger.on_frame(self._stream.newest_frame_ns):
            yield from self._look(now_ns)

    def _receive(self, delivery: BagMessage, now_ns: int) -> None:
        self._heard_ns = now_ns
        if delivery.role == AUDIO_INFO:
            refusal = self._read_info(delivery)
        else:
            refusal = self._ingest.add(delivery, now_ns)
        if refusal:
            self.refusals.note(delivery.role, refusal)

    def _read_info(self, delivery: BagMessage) -> str:
        try:
            self._ingest.take_info(delivery.message)
        except InvalidSampleError as error:
            return str(error)
        return ''

    def _look(self, now_ns: int) -> Iterator[WindowRequest]:
        self._statuses = statuses = self._stream.assess(now_ns)
        self._note_states(statuses, now_ns)
        self._note_warnings(statuses, now_ns - self._start_ns)
        if sum(status.available for status in statuses) < self._needed:
            return
        window = self._stream.window(now_ns)
        if window is not None:
            yield WindowRequest(self._number, window, now_ns)

    def _note_warnings(self, statuses: Sequence[ModalityStatus], time_ns: int) -> None:
        for status in statuses:
            if status.warning:
                self._warnings.setdefault(status.warning_line, [time_ns, time_ns])[1] = time_ns

    def _note_states(self, statuses: Sequence[ModalityStatus], now_ns: int) -> None:
        states = tuple(int(status.state) for status in statuses)
        if not self._states or self._states[-1][1:] != states:
            self._states.append((now_ns, *states))


class RecordedNode(SimulatedNode):
    """
    One simulated node that is asked when a real one was: for the answers that a bag holds.

    An answer tells the newest stamp of each sensor that the node had. A message with a newer one
    is held back until the window is cut, for the recorder may have received it earlier.
    """

    def __init__(self, asked: Sequence[RecordedWindow], *lane: Any) -> None:
        """Take what was asked, in order of time, and what a lane takes."""
        super().__init__(*lane)
        self._asked = deque(asked)
        self._waiting: list[BagMessage] = []
        """What the node did not have yet when it cut the next window."""
        self._had: dict[str, int] = {}
        """Role → the newest stamp of what it had."""
        self._last_ns = 0

    def take(self, delivery: BagMessage) -> Iterator[WindowRequest]:
        """Take a message, now or after the next window; cut the windows that are complete."""
        self._waiting.append(delivery)
        yield from self._go_on(delivery.received_ns)

    def advance(self, now_ns: int) -> Iterator[WindowRequest]:
        """Cut the windows that are left, with what there is."""
        yield from self._go_on(_NEVER)

    def _go_on(self, now_ns: int) -> Iterator[WindowRequest]:
        """Cut one window after the other, as far as messages reach."""
        while self._asked:
            asked = self._asked[0]
            self._take_what_it_had(asked)
            complete = all(self._had.get(r, 0) >= s for r, s in asked.newest_ns.items())
            if not complete and now_ns <= asked.heard_ns + _PATIENCE_NS:
                return
            self._asked.popleft()
            cut_ns = max(self._last_ns, asked.time_ns)
            window = self._stream.window(cut_ns)
            if window is not None and window.end_ns == asked.end_ns:
                yield WindowRequest(self._number, window, cut_ns)
        self._waiting.clear()  # no window is left that would need them

    def _take_what_it_had(self, asked: RecordedWindow) -> None:
        waiting, self._waiting = self._waiting, []
        for delivery in waiting:
            stamp_ns = self._stamp_ns(delivery)
            if stamp_ns <= asked.newest_ns.get(delivery.role, _NEVER):
                self._last_ns = max(self._last_ns, delivery.received_ns)
                self._had[delivery.role] = max(stamp_ns, self._had.get(delivery.role, 0))
                self._receive(delivery, delivery.received_ns)
            elif delivery.received_ns > asked.heard_ns - _PATIENCE_NS:  # else it was never had
                self._waiting.append(delivery)

    def _stamp_ns(self, delivery: BagMessage) -> int:
        try:
            stamp_ns = 0 if delivery.role == AUDIO_INFO else delivery.stamp_ns
        except InvalidSampleError:  # it will be refused
            stamp_ns = 0
        return stamp_ns or delivery.received_ns


@dataclass(frozen=True)
class Run:
    """What is done to the sensors of one lane."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0


class Replay:
    """One pass over a bag for any number of runs; pictures are decoded once for all of them."""

    def __init__(
        self, bag: Bag, choice: TopicChoice, spec: ClipSpec, modalities: tuple[Modality, ...],
        values: Mapping[str, Any], runs: Sequence[Run], echoed: Sequence[RecordedWindow] = (),
        hop: int = 0, audio_info: Any = None,
    ) -> None:
        """
        Prepare the runs.

        :param values: the node's parameters, by name.
        :param echoed: the windows that a node answered, in order of time; if any, they are cut
            in a run of their own, the last one.
        :param hop: as a `SimulatedNode` takes it.
        :param audio_info: what was stated of the audio format before the bag began.
        :raises InvalidSettingError: for a parameter that cannot be used.
        """
        self._bag, self._spec, self._bits = bag, spec, values['rgb.bits']
        self._topics = {
            role: topic for role, topic in choice.topics.items()
            if role != RECOGNITION and _fed(role, values, choice.flow_topic)}
        self.lanes = [
            SimulatedNode(number, spec, modalities, values, choice.flow_topic,
                 Faults(run.faults, run.seed, bag.start_ns), bag.start_ns, hop)
            for number, run in enumerate(runs)]
        if echoed:
            known = [replace(asked, newest_ns={
                r: s for r, s in asked.newest_ns.items() if r in self._topics})
                for asked in echoed]
            self.lanes.append(RecordedNode(
                known, len(runs), spec, modalities, values, choice.flow_topic,
                Faults((), 0, bag.start_ns), bag.start_ns, hop))
        for lane in self.lanes if audio_info is not None else ():
            lane.take_info(audio_info)
        self.truths: list[tuple[int, int, str, str]] = []
        """Start, stop, verb and noun of what a truth topic says."""
        self.truth_ids: list[tuple[int, int]] = []
        """Verb and noun of each of them, by class id."""
        self.unread: Counter[str] = Counter()
        """Role → messages whose bytes are none of their type."""
        self.longest_pause_ns = 0
        """The longest time without any message that is used."""

    def cuts(
        self, progress: Callable[[int], None] = lambda time_ns: None,
    ) -> Generator[WindowRequest, None, None]:
        """
        Return all windows of all runs, in order of time.

        :param progress: called with the bag's time as it goes on.
        """
        readers = {(t.name, t.type): (role, self._reader(t)) for role, t in self._topics.items()}
        counts: Counter[str] = Counter()
        crop = self._spec.video.height, self._spec.video.width
        end_ns = self._bag.start_ns
        for topic, received_ns, data in self._bag.messages(list(self._topics.values())):
            role, read = readers[topic.name, topic.type]
            self.longest_pause_ns = max(self.longest_pause_ns, received_ns - end_ns)
            end_ns = max(end_ns, received_ns)
            delivery = BagMessage(
                role, topic.type, counts[role], end_ns, data, read, crop,
                self._bits)
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

    def _note_truth(self, delivery: BagMessage) -> None:
        try:
            message = delivery.message
            times = (stamp.sec * NANOSECONDS + stamp.nanosec
                     for stamp in (message.header.stamp, message.stop))
            start_ns, stop_ns = times
            ids = int(message.verb_id), int(message.noun_id)
            self.truths.append((int(start_ns), int(stop_ns), message.verb, message.noun))
            self.truth_ids.append(ids)
        except (ValueError, AttributeError):
            self.unread[TRUTH] += 1


def _fed(role: str, values: Mapping[str, Any], flow_topic: bool) -> bool:
    """Return whether a node with these parameters would subscribe."""
    if role == TRUTH:
        return True
    if role == AUDIO_INFO:
        role = Modality.AUDIO.value
    if role == Modality.RGB.value and not flow_topic:
        return bool(values['rgb.enabled'] or values['flow.enabled'])
    return bool(values[f'{role}.enabled'])
