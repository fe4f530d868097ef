"""
The worker thread: it takes windows from the stream, runs inference and publishes.

It works on the newest window only: requests that come while it is busy are served together, once
it is done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from threading import Condition, Lock, Thread
import time
from typing import Any

from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.node.diagnostics import Timings
from karmma_ros.node.inputs import Inputs
from karmma_ros.node.log import describe, NodeLog
from karmma_ros.node.messages import (
    availability_message,
    end_to_end_latency,
    event_message,
    Outputs,
    Publishing,
    recognition_message,
)
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
    """What turns samples into predictions and events; replaced between two windows."""

    stream: SensorStream
    recogniser: Recogniser
    model_id: str
    events: ActionEvents


class Worker:
    """
    Publish a result for each request.

    What belongs to the thread, above all the engine, is changed by commands: they are run in the
    thread between two windows, or at once while it does not run.
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
        self._condition = Condition()
        """Guards the requests, the commands and the generation."""
        self._result_requested = self._report_requested = self._stopping = False
        self._commands: deque[Callable[[], None]] = deque()
        self._thread: Thread | None = None
        self._paused = False
        self._generation = 0
        """How often samples were discarded; a result of an older generation is not published."""
        self._to_discard: set[Modality] = set()
        """Modalities whose cached tokens the recogniser is still to discard."""
        self._sequence = 0
        self._last_result_ns: tuple[int, int] | None = None
        """Stamp of the last result, and the node's time when it was published."""
        self._used: tuple[Modality, ...] = ()
        """The modalities of the last result."""
        self._reported: tuple[Any, ...] = ()
        self._reported_at = 0.0
        self.timings = Timings()
        self.failure = ''
        """Why the last window has no result; empty if it has one."""

    @property
    def engine(self) -> Engine:
        """Return the engine in use."""
        return self._engine

    def start(self) -> None:
        """Start the thread; it sleeps until a request."""
        self._result_requested = self._report_requested = self._stopping = False
        self._sequence, self._reported, self.failure = 0, (), ''
        self.timings = Timings()
        self._thread = Thread(target=self._run, name='karmma worker', daemon=True)
        self._thread.start()

    def request_result(self) -> None:
        """Publish a result from the newest window, and a report if it is due."""
        with self._condition:
            if self._result_requested and not self._paused:
                self.timings.skipped += 1
            self._result_requested = True
            self._condition.notify()

    def request_report(self) -> None:
        """Publish the availability of the inputs if it is due, without a result."""
        with self._condition:
            self._report_requested = True
            self._condition.notify()

    def stop(self) -> None:
        """End the thread, wait for it, and end the actions in progress."""
        with self._condition:
            self._stopping = True
            self._condition.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None
        self._drain_commands()
        self._finish_events()

    def replace(self, engine: Engine) -> None:
        """Use another engine from the next window on; actions of the old one end."""
        def swap() -> None:
            self._publish_events(engine.events.take_over(self._engine.events))
            self._engine, self._last_result_ns, self._used = engine, None, ()
        self._post(swap)

    def pause(self, paused: bool) -> None:
        """Stop or resume publishing results; reports of the inputs continue."""
        def change() -> None:
            self._paused = paused
            if paused:
                self._finish_events()
        self._post(change)
        self.request_report()

    def reset(self) -> None:
        """Start anew after all samples were discarded: actions in progress end."""
        self._post(self._finish_events)
        self.discard(self._engine.recogniser.modalities)

    def discard(self, modalities: Collection[Modality]) -> None:
        """
        Discard what the recogniser caches of modalities whose samples were discarded.

        A result that is being computed rests on them, and is not published.
        """
        if not modalities:
            return
        with self._condition:
            self._generation += 1
            pending = bool(self._to_discard)
            self._to_discard.update(modalities)
        if not pending:
            self._post(self._discard)

    def _discard(self) -> None:
        with self._condition:
            modalities = tuple(self._to_discard)
            self._to_discard.clear()
        self._engine.recogniser.reset(modalities)

    def blocking_reason(self, statuses: Sequence[ModalityStatus]) -> str:
        """Return why there can be no result with inputs of these statuses; '' if there can."""
        if self._paused:
            return 'paused by ~/enable'
        if not self._enough(statuses):
            usable, needed = sum(s.available for s in statuses), self._parameters['min_modalities']
            return f'{usable} inputs available; min_modalities is {needed}'
        return self.failure

    def _post(self, command: Callable[[], None]) -> None:
        with self._condition:
            self._commands.append(command)
            running = self._thread is not None
            self._condition.notify()
        if not running:
            self._drain_commands()

    def _drain_commands(self) -> None:
        while self._commands:
            self._commands.popleft()()

    def _run(self) -> None:
        while True:
            with self._condition:
                self._condition.wait_for(
                    lambda: self._result_requested or self._report_requested
                    or self._commands or self._stopping)
                if self._stopping:
                    return
                result_requested = self._result_requested
                self._result_requested = self._report_requested = False
            self._step(result_requested)

    def _step(self, result_requested: bool) -> None:
        """Run the commands, report the inputs if due, and publish a result if requested."""
        try:
            self._drain_commands()
            self._publish(result_requested)
        except Exception as error:  # one bad clip must not end recognition
            self.failure = f'no result: {describe(error)}'
            self._log.error(self.failure, topic='inference')

    def _publish(self, result_requested: bool) -> None:
        now_ns, stream, generation = self._now_ns(), self._engine.stream, self._generation
        with self._lock:
            statuses = stream.assess(now_ns)
            possible = not self._paused and self._enough(statuses)
            # The window of a streaming model ends earlier, where fewer inputs may be available.
            least = self._parameters['min_modalities']
            window = stream.window(now_ns, least) if result_requested and possible else None
        self._report(statuses, now_ns, possible)
        if window is not None:
            self._recognise(window, generation)
        elif self._last_result_ns is not None:
            stamp_ns, then_ns = self._last_result_ns
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

    def _recognise(self, window: Window, generation: int) -> None:
        engine, started = self._engine, time.perf_counter()
        prediction = engine.recogniser.recognise(
            window, leave_one_out=self._parameters['leave_one_out'])
        inference_s = time.perf_counter() - started
        message = recognition_message(prediction, window, self._publishing(engine))
        message.sequence = self._sequence
        message.header.frame_id = self._frame_id(window)
        message.inference_latency = inference_s
        now_ns = self._now_ns()
        message.end_to_end_latency = age_s = end_to_end_latency(window.end_ns, now_ns)
        with self._condition:  # no result from discarded samples once `discard` has returned
            if generation != self._generation:
                return
            self._outputs.recognition.publish(message)
        self._sequence += 1
        if self._last_result_ns is not None and window.end_ns < self._last_result_ns[0]:
            self._finish_events()  # the clock of the stamps has jumped back
        self._last_result_ns, self.failure = (window.end_ns, now_ns), ''
        self._used = window.modalities
        self.timings.add(time.monotonic(), inference_s, age_s)
        self._publish_events(
            engine.events.push(window.end_ns, window.start_ns, prediction),
            message.header.frame_id)

    def _finish_events(self) -> None:
        self._publish_events(self._engine.events.clear())
        self._last_result_ns, self._used = None, ()

    def _publish_events(self, events: Iterable[ActionEvent], frame_id: str = '') -> None:
        for event in events:
            self._outputs.events.publish(
                event_message(event, self._publishing(self._engine), frame_id))

    def _publishing(self, engine: Engine) -> Publishing:
        return Publishing(
            self._parameters['top_k'], self._parameters['score_threshold'],
            self._parameters['subject_id'], engine.model_id)

    def _frame_id(self, window: Window) -> str:
        """Return the frame id of the camera, else of the first other input in the window."""
        sources = [modality_type(m).source(window.spec) or m for m in window.modalities]
        return next((self._inputs.frame_ids[m] for m in sources if m in self._inputs.frame_ids),
                    '')

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds
