"""
What the node does with the messages of a bag: which windows it makes, and when.

A simulated node does the same in the same order (stream/window.py, node/worker.py): when inference
is due, it assesses the inputs, and makes a window if enough are available and one has new samples.
A tick of its rate comes before the messages that are received at the same time. It always keeps
up: no tick is skipped because the previous inference took too long.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
import heapq
from typing import Any

from karmma_ros.bags.audio_infos import EarlierInfos
from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.faults import Faults
from karmma_ros.bags.reader import LATEST_NS
from karmma_ros.bags.topics import microphone_of
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modality import listed, Modality
from karmma_ros.stream.availability import ModalityState, ModalityStatus
from karmma_ros.stream.ingest import MessageIngest
from karmma_ros.stream.settings import make_stream
from karmma_ros.stream.window import InferenceTrigger, tick_period_ns, Window
import numpy as np
from numpy.typing import NDArray

_NEVER = LATEST_NS
_TOLERANCE_NS = NANOSECONDS
"""Difference between the times at which node and recorder may receive a message."""


@dataclass(frozen=True, eq=False)
class WindowRequest:
    """A window on which a node would have run inference."""

    run_index: int
    """Index of the run in the replay."""
    window: Window
    inference_ns: int
    """When, on the clock of the bag."""


@dataclass(frozen=True)
class RecordedWindow:
    """A window of the recorded node, and the messages that it had received."""

    end_ns: int
    inference_ns: int
    """When inference began, on the node's clock; 0 where that is not known."""
    received_ns: int
    """When the recorder received the prediction, on the clock of the bag."""
    newest_ns: Mapping[str, int]
    """Role → the stamp of its newest message; 0 for none."""


@dataclass
class RejectedMessages:
    """Messages that the inputs rejected."""

    counts: Counter[str] = field(default_factory=Counter)
    """Role → number."""
    first: dict[str, str] = field(default_factory=dict)
    """Role → reason of the first one."""

    def add(self, role: str, reason: str) -> None:
        """Count one."""
        self.counts[role] += 1
        self.first.setdefault(role, reason)


class SimulatedNode:
    """A node that receives the messages of a bag, with the faults of one run."""

    def __init__(
        self, run_index: int, spec: ClipSpec, modalities: tuple[Modality, ...],
        values: Mapping[str, Any], with_topic: Collection[Modality], faults: Faults, start_ns: int,
        hop: int = 0,
    ) -> None:
        """
        Start with empty buffers.

        :param values: the node's parameters, by name.
        :param hop: frames from one window of a streaming network to the next; 0 for others.
        :raises InvalidSettingError: for a parameter that cannot be used.
        """
        self._run_index, self._faults = run_index, faults
        self._stream = make_stream(spec, modalities, values, with_topic, hop)
        self._ingest = MessageIngest(values, corrupt=faults.corrupt)
        self._ingest.feed(self._stream)
        self._needed = values['min_modalities']
        self._trigger = InferenceTrigger(every_frame=bool(hop))
        self._period_ns = tick_period_ns(spec, values['rate'], hop)
        # As in a node that was started before the clock: ticks at multiples of the period.
        self._tick_ns = -(-start_ns // self._period_ns) * self._period_ns
        self._received_ns = self._start_ns = start_ns
        self._longest_timeout_ns = max(
            round(values[f'{m}.timeout'] * NANOSECONDS) for m in listed(modalities))
        self._delayed: list[tuple[int, int, BagMessage]] = []
        """Heap of messages with the time of receipt and a sequence number."""
        self._sequence = 0
        self.rejected = RejectedMessages()
        self._warnings: dict[str, list[int]] = {}
        """The warning of a modality → its first and last time."""
        self._states: list[tuple[int, ...]] = []
        self._statuses: Sequence[ModalityStatus] = ()

    @property
    def details(self) -> dict[str, str]:
        """Return why each received but unavailable sensor was so at the last assessment."""
        never = (ModalityState.DISABLED, ModalityState.NEVER_RECEIVED)
        return {s.modality.value: s.detail for s in self._statuses
                if s.detail and s.state not in never}

    @property
    def warnings(self) -> list[str]:
        """Return the warnings of the content checks, with the seconds of the bag."""
        return [
            f'{line} (second {first_ns / NANOSECONDS:.1f} to {last_ns / NANOSECONDS:.1f})'
            for line, (first_ns, last_ns) in self._warnings.items()]

    @property
    def problems(self) -> list[str]:
        """Return a sentence on the rejected messages of each input, then the warnings."""
        return [*(f'{role}: messages that cannot be used: {count:,}; the first one: '
                  f'{self.rejected.first[role]}'
                  for role, count in sorted(self.rejected.counts.items())), *self.warnings]

    @property
    def states(self) -> NDArray[np.int64]:
        """Return the changes of state: time, and the state of each modality, `[s, 1 + m]`."""
        return np.array(self._states, np.int64).reshape(-1, 1 + len(self._stream.listed))

    def set_audio_infos(self, infos: EarlierInfos) -> None:
        """Use audio formats that were stated before the first message."""
        for role, info in infos.items():
            if microphone := microphone_of(role):
                with suppress(InvalidSampleError):  # then the check of the rate reports it
                    self._ingest.apply_info(microphone, info.message)

    def process(self, message: BagMessage) -> Iterator[WindowRequest]:
        """Advance to the time of a message, then receive it as the faults allow."""
        now_ns = message.received_ns
        yield from self.advance(now_ns)
        receive_ns = now_ns if microphone_of(message.role) else (
            self._faults.receive_ns(message.role, message.index, now_ns))
        if receive_ns is None:
            return
        if receive_ns > now_ns:
            self._sequence += 1
            heapq.heappush(self._delayed, (receive_ns, self._sequence, message))
            return
        yield from self._on_message(message, now_ns)

    def advance(self, now_ns: int) -> Iterator[WindowRequest]:
        """Process the ticks up to and including a time, and the delayed messages before it."""
        while True:
            receive_ns = self._delayed[0][0] if self._delayed else _NEVER
            due_ns = min(receive_ns, now_ns)
            if self._tick_ns <= due_ns:
                if self._trigger.on_tick():
                    yield from self._infer(self._tick_ns)
                silent = self._tick_ns - self._received_ns > self._longest_timeout_ns
                self._tick_ns += self._period_ns
                if silent:  # nothing changes before the next message, which may be years away
                    self._tick_ns = max(self._tick_ns, due_ns // self._period_ns * self._period_ns)
            elif receive_ns < now_ns:
                yield from self._on_message(heapq.heappop(self._delayed)[2], receive_ns)
            else:
                return

    def _on_message(self, message: BagMessage, now_ns: int) -> Iterator[WindowRequest]:
        """Receive a message, and run inference if it is a frame that the trigger waits for."""
        self._receive(message, now_ns)
        if self._trigger.on_frame(self._stream.newest_frame_ns):
            yield from self._infer(now_ns)

    def _receive(self, message: BagMessage, now_ns: int) -> None:
        self._received_ns = now_ns
        problem = ''
        if microphone := microphone_of(message.role):
            try:
                self._ingest.apply_info(microphone, message.message)
            except InvalidSampleError as error:
                problem = str(error)
        else:
            problem = self._ingest.add(self._faults.held(message), now_ns)
        if problem:
            self.rejected.add(message.role, problem)

    def _infer(self, now_ns: int) -> Iterator[WindowRequest]:
        """Assess the inputs, and yield a window if there are enough."""
        self._statuses = statuses = self._stream.assess(now_ns)
        self._note_states(statuses, now_ns)
        self._note_warnings(statuses, now_ns - self._start_ns)
        if sum(status.available for status in statuses) < self._needed:
            return
        window = self._stream.window(now_ns, self._needed)
        if window is not None:
            yield WindowRequest(self._run_index, window, now_ns)

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
    A simulated node that makes the windows of the recorded predictions of a real node.

    A prediction contains the newest stamp of each sensor. Messages with a newer one are processed
    only after the window was made, as the recorder may have received them earlier than the node.
    """

    def __init__(self, recorded: Sequence[RecordedWindow], *arguments: Any) -> None:
        """
        Start with empty buffers.

        :param recorded: in order of time.
        :param arguments: of `SimulatedNode`.
        """
        super().__init__(*arguments)
        self._recorded = deque(recorded)
        self._waiting: list[BagMessage] = []
        """Messages that the node had not received when it made the next window."""
        self._newest_ns: dict[str, int] = {}
        """Role → the newest stamp processed."""
        self._last_ns = 0

    def process(self, message: BagMessage) -> Iterator[WindowRequest]:
        """Process a message, now or after the next window; yield the complete windows."""
        self._waiting.append(message)
        yield from self._windows(message.received_ns)

    def advance(self, now_ns: int) -> Iterator[WindowRequest]:
        """Yield the remaining windows from the messages received."""
        yield from self._windows(_NEVER)

    def _windows(self, now_ns: int) -> Iterator[WindowRequest]:
        """Yield one window after another, as far as the messages reach."""
        while self._recorded:
            recorded = self._recorded[0]
            self._process_until(recorded)
            complete = all(self._newest_ns.get(r, 0) >= s for r, s in recorded.newest_ns.items())
            if not complete and now_ns <= recorded.received_ns + _TOLERANCE_NS:
                return
            self._recorded.popleft()
            inference_ns = max(self._last_ns, recorded.inference_ns)
            window = self._stream.window(inference_ns)
            if window is not None and window.end_ns == recorded.end_ns:
                yield WindowRequest(self._run_index, window, inference_ns)
        self._waiting.clear()  # no remaining window needs them

    def _process_until(self, recorded: RecordedWindow) -> None:
        """Receive the messages that the node had received when it made a window."""
        waiting, self._waiting = self._waiting, []
        for message in waiting:
            stamp_ns = self._stamp_ns(message)
            if stamp_ns <= recorded.newest_ns.get(message.role, _NEVER):
                self._last_ns = max(self._last_ns, message.received_ns)
                self._newest_ns[message.role] = max(
                    stamp_ns, self._newest_ns.get(message.role, 0))
                self._receive(message, message.received_ns)
            elif message.received_ns > recorded.received_ns - _TOLERANCE_NS:
                self._waiting.append(message)  # earlier ones never reached the node

    def _stamp_ns(self, message: BagMessage) -> int:
        try:
            stamp_ns = 0 if microphone_of(message.role) else message.stamp_ns
        except InvalidSampleError:  # the ingest rejects it
            stamp_ns = 0
        return stamp_ns or message.received_ns
