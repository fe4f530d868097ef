"""
The one thread that looks at the stream, asks the network and publishes.

It works on the newest window and on nothing else: a wake-up that comes while it is busy
is answered once, when it is done.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Condition, Lock, Thread
import time
from typing import Any

from karmma_ros.modality import Modality
from karmma_ros.node.inputs import Inputs
from karmma_ros.node.messages import (
    availability_message,
    end_to_end_latency,
    Publishing,
    recognition_message,
)
from karmma_ros.node.parameters import Parameters
from karmma_ros.stream.availability import ModalityStatus
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.sensors import SensorStream
from karmma_ros.stream.window import Window
from rclpy.node import Node

# With the watchdog's half second this makes at least one report a second.
_AVAILABILITY_PERIOD_S = 0.4
_WARN_EVERY_S = 10.0


@dataclass(frozen=True)
class Outputs:
    """The publishers of one configured node."""

    recognition: Any
    availability: Any


class Worker:
    """Turn the stream into results whenever it is woken."""

    def __init__(
        self, node: Node, parameters: Parameters, recogniser: Recogniser, model_id: str,
        stream: SensorStream, lock: Lock, inputs: Inputs, outputs: Outputs,
    ) -> None:
        """
        Prepare without starting the thread.

        :param lock: guards `stream`, which the inputs write.
        """
        self._node, self._parameters, self._inputs = node, parameters, inputs
        self._recogniser, self._model_id, self._outputs = recogniser, model_id, outputs
        self._stream, self._lock = stream, lock
        self._woken, self._stopping, self._due, self._check = Condition(), False, False, False
        self._thread: Thread | None = None
        self._sequence = 0
        self._reported: tuple[Any, ...] = ()
        self._reported_at = 0.0
        self._warned_at = -_WARN_EVERY_S

    def start(self) -> None:
        """Start the thread; it sleeps until `wake` or `watch`."""
        self._stopping = self._due = self._check = False
        self._sequence, self._reported = 0, ()
        self._thread = Thread(target=self._run, name='karmma worker', daemon=True)
        self._thread.start()

    def wake(self) -> None:
        """Ask for a result from what is newest."""
        with self._woken:
            self._due = True
            self._woken.notify()

    def watch(self) -> None:
        """Ask for a report about the inputs, without a result."""
        with self._woken:
            self._check = True
            self._woken.notify()

    def stop(self) -> None:
        """End the thread and wait for it: afterwards nothing touches the network."""
        with self._woken:
            self._stopping = True
            self._woken.notify()
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _run(self) -> None:
        while True:
            with self._woken:
                self._woken.wait_for(lambda: self._due or self._check or self._stopping)
                if self._stopping:
                    return
                due, self._due, self._check = self._due, False, False
            try:
                self._step(due)
            except Exception as error:  # one bad clip must not end recognition
                self._warn(f'no result: {type(error).__name__}: {error}')

    def _step(self, recognise: bool) -> None:
        """Judge the inputs, report them if they changed, and publish a result if one is due."""
        now_ns = self._now_ns()
        with self._lock:
            statuses = self._stream.assess(now_ns)
            possible = self._possible(statuses)
            window = self._stream.window(now_ns) if recognise and possible else None
        self._report(statuses, now_ns, possible)
        if window is not None:
            self._recognise(window)

    def _report(
        self, statuses: Sequence[ModalityStatus], now_ns: int, possible: bool
    ) -> None:
        """Publish the availability when a state changed, and at least once a second."""
        states = (possible, *((s.state, s.modality) for s in statuses))
        now = time.monotonic()
        if states == self._reported and now - self._reported_at < _AVAILABILITY_PERIOD_S:
            return
        self._reported, self._reported_at = states, now
        self._outputs.availability.publish(availability_message(statuses, now_ns, possible))

    def _possible(self, statuses: Sequence[ModalityStatus]) -> bool:
        return sum(s.available for s in statuses) >= self._parameters['min_modalities']

    def _recognise(self, window: Window) -> None:
        started = time.perf_counter()
        prediction = self._recogniser.recognise(window)
        inference_s = time.perf_counter() - started
        message = recognition_message(prediction, window, self._publishing())
        message.sequence = self._sequence
        message.header.frame_id = self._frame_id(window)
        message.inference_latency = inference_s
        message.end_to_end_latency = end_to_end_latency(window.end_ns, self._now_ns())
        self._sequence += 1
        self._outputs.recognition.publish(message)

    def _publishing(self) -> Publishing:
        return Publishing(
            self._parameters['top_k'], self._parameters['score_threshold'],
            self._parameters['subject_id'], self._model_id)

    def _frame_id(self, window: Window) -> str:
        """Give the camera's frame, else that of the first other input in the window."""
        sources = [Modality.RGB if m is Modality.FLOW else m for m in window.modalities]
        return next((self._inputs.frame_ids[m] for m in sources if m in self._inputs.frame_ids),
                    '')

    def _now_ns(self) -> int:
        return self._node.get_clock().now().nanoseconds

    def _warn(self, text: str) -> None:
        now = time.monotonic()
        if now - self._warned_at >= _WARN_EVERY_S:
            self._warned_at = now
            self._node.get_logger().error(text)
