"""
The one thread that looks at the stream, asks the network and publishes.

It works on the newest window and on nothing else: a wake-up that comes while it is busy
is answered once, when it is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from threading import Condition, Lock, Thread
import time
from typing import Any

from karmma_ros.modality import Modality
from karmma_ros.node.diagnostics import Timings
from karmma_ros.node.inputs import Inputs
from karmma_ros.node.log import describe, NodeLog
from karmma_ros.node.messages import (
    availability_message,
    end_to_end_latency,
    event_message,
    Publishing,
    recognition_message,
)
from karmma_ros.node.outputs import Outputs
from karmma_ros.node.parameters import Parameters
from karmma_ros.stream.availability import ModalityStatus
from karmma_ros.stream.events import ActionEvent, ActionEvents
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.window import Window
from rclpy.node import Node

# With two wake-ups a second this makes at least one report a second.
_AVAILABILITY_PERIOD_S = 0.4


@dataclass(frozen=True)
class Engine:
    """What turns samples into answers; replaced as a whole, between two windows."""

    stream: SensorStream
    recogniser: Recogniser
    model_id: str
    events: ActionEvents


class Worker:
    """
    Turn the stream into results whenever it is woken.

    What belongs to the thread, the engine above all, is changed by orders: they are carried
    out in the thread between two windows, or at once while it does not run.
    """

    def __init__(
        self, node: Node, parameters: Parameters, engine: Engine, lock: Lock, inputs: Inputs,
        outputs: Outputs,
    ) -> None:
        """
        Prepare without starting the thread.

        :param lock: guards the streams, which the inputs write.
        """
        self._log = NodeLog(node)
        self._node, self._parameters, self._inputs = node, parameters, inputs
        self._engine, self._lock, self._outputs = engine, lock, outputs
        self._woken, self._stopping, self._due, self._check = Condition(), False, False, False
        self._orders: deque[Callable[[], None]] = deque()
        self._thread: Thread | None = None
        self._paused = False
        self._forgotten = 0
        """How often samples were forgotten."""
        self._erasing: set[Modality] = set()
        """Modalities of which the network is still to erase what it keeps."""
        self._sequence = 0
        self._heard: tuple[int, int] | None = None
        """Stamp of the last result, and the node's time then."""
        self._used: tuple[Modality, ...] = ()
        """The inputs that the last result rests on."""
        self._reported: tuple[Any, ...] = ()
        self._reported_at = 0.0
        self.timings = Timings()
        self.failure = ''
        """Why there was no answer to the last window; empty if there was one."""

    @property
    def engine(self) -> Engine:
        """Return what answers now."""
        return self._engine

    def start(self) -> None:
        """Start the thread; it sleeps until `wake` or `watch`."""
        self._stopping = self._due = self._check = False
        self._sequence, self._reported, self.failure = 0, (), ''
        self.timings = Timings()
        self._thread = Thread(target=self._run, name='karmma worker', daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ask for a result from what is newest."""
        with self._woken:
            if self._due and not self._paused:
                self.timings.skipped += 1
            self._due = True
            self._woken.notify()

    def watch(self) -> None:
        """Ask for a report about the inputs, without a result."""
        with self._woken:
            self._check = True
            self._woken.notify()

    def stop(self) -> None:
        """End the thread, wait for it, and end what runs: nothing touches the network then."""
        with self._woken:
            self._stopping = True
            self._woken.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._obey()
        self._finish_events()

    def replace(self, engine: Engine) -> None:
        """Let another engine answer from the next window on; what runs by the old one ends."""
        def swap() -> None:
            self._publish_events(engine.events.take_over(self._engine.events))
            self._engine, self._heard, self._used = engine, None, ()
        self._order(swap)

    def pause(self, paused: bool) -> None:
        """Stop giving results, or go on; the inputs are looked after all the time."""
        def change() -> None:
            self._paused = paused
            if paused:
                self._finish_events()
        self._order(change)
        self.watch()

    def forget(self) -> None:
        """End what runs, as samples have been forgotten; no result rests on them any more."""
        self._order(self._finish_events)
        self.erase(tuple(Modality))

    def erase(self, modalities: Collection[Modality]) -> None:
        """
        Erase what the network keeps of these modalities, as their samples have been forgotten.

        A result that is being computed now rests on them, and is not published.
        """
        if not modalities:
            return
        with self._woken:
            self._forgotten += 1
            pending = bool(self._erasing)
            self._erasing.update(modalities)
        if not pending:
            self._order(self._erase)

    def _erase(self) -> None:
        with self._woken:
            modalities = tuple(self._erasing)
            self._erasing.clear()
        self._engine.recogniser.reset(modalities)

    def hindrance(self, statuses: Sequence[ModalityStatus]) -> str:
        """Say why there is no result now, given what can be said of the inputs; '' if there is."""
        if self._paused:
            return 'paused by ~/enable'
        if not self._enough(statuses):
            usable, needed = sum(s.available for s in statuses), self._parameters['min_modalities']
            return f'{usable} inputs can be used; it takes {needed}'
        return self.failure

    def _order(self, order: Callable[[], None]) -> None:
        with self._woken:
            self._orders.append(order)
            running = self._thread is not None
            self._woken.notify()
        if not running:
            self._obey()

    def _obey(self) -> None:
        """Carry out what was ordered."""
        while self._orders:
            self._orders.popleft()()

    def _run(self) -> None:
        while True:
            with self._woken:
                self._woken.wait_for(
                    lambda: self._due or self._check or self._orders or self._stopping)
                if self._stopping:
                    return
                due, self._due, self._check = self._due, False, False
            try:
                self._obey()
                self._step(due)
            except Exception as error:  # one bad clip must not end recognition
                self._fail(f'no result: {describe(error)}')

    def _step(self, recognise: bool) -> None:
        """Judge the inputs, report them if they changed, and publish a result if one is due."""
        now_ns, stream, forgotten = self._now_ns(), self._engine.stream, self._forgotten
        with self._lock:
            statuses = stream.assess(now_ns)
            possible = not self._paused and self._enough(statuses)
            window = stream.window(now_ns) if recognise and possible else None
        self._report(statuses, now_ns, possible)
        if window is not None:
            self._recognise(window, forgotten)
        elif self._heard is not None:
            stamp_ns, then_ns = self._heard
            self._publish_events(self._engine.events.advance(stamp_ns + now_ns - then_ns))

    def _report(
        self, statuses: Sequence[ModalityStatus], now_ns: int, possible: bool
    ) -> None:
        """Publish the availability when a state changed, and at least once a second."""
        used = [s.modality for s in statuses if s.available and s.modality in self._used
                ] if possible and not self.failure else []
        states = (possible, *((s.state, s.modality, s.modality in used) for s in statuses))
        now = time.monotonic()
        if states == self._reported and now - self._reported_at < _AVAILABILITY_PERIOD_S:
            return
        self._reported, self._reported_at = states, now
        self._outputs.availability.publish(availability_message(
            statuses, now_ns, possible, used))

    def _enough(self, statuses: Sequence[ModalityStatus]) -> bool:
        return sum(s.available for s in statuses) >= self._parameters['min_modalities']

    def _recognise(self, window: Window, forgotten: int) -> None:
        engine, started = self._engine, time.perf_counter()
        prediction = engine.recogniser.recognise(window)
        inference_s = time.perf_counter() - started
        message = recognition_message(prediction, window, self._publishing(engine))
        message.sequence = self._sequence
        message.header.frame_id = self._frame_id(window)
        message.inference_latency = inference_s
        now_ns = self._now_ns()
        message.end_to_end_latency = age_s = end_to_end_latency(window.end_ns, now_ns)
        with self._woken:  # once `forget` has returned nobody hears of what was before
            if forgotten != self._forgotten:
                return
            self._outputs.recognition.publish(message)
        self._sequence += 1
        self._heard, self.failure = (window.end_ns, now_ns), ''
        self._used = window.modalities
        self.timings.add(time.monotonic(), inference_s, age_s)
        self._publish_events(
            engine.events.push(window.end_ns, window.start_ns, prediction),
            message.header.frame_id)

    def _finish_events(self) -> None:
        self._publish_events(self._engine.events.clear())
        self._heard, self._used = None, ()

    def _publish_events(self, events: Iterable[ActionEvent], frame_id: str = '') -> None:
        for event in events:
            self._outputs.events.publish(
                event_message(event, self._publishing(self._engine), frame_id))

    def _publishing(self, engine: Engine) -> Publishing:
        return Publishing(
            self._parameters['top_k'], self._parameters['score_threshold'],
            self._parameters['subject_id'], engine.model_id)

    def _frame_id(self, window: Window) -> str:
        """Return the camera's frame, else that of the first other input in the window."""
        sources = [Modality.RGB if m is Modality.FLOW else m for m in window.modalities]
        return next((self._inputs.frame_ids[m] for m in sources if m in self._inputs.frame_ids),
                    '')

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _fail(self, text: str) -> None:
        self.failure = text
        self._log.error(text, topic='inference')
