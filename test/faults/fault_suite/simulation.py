"""
The real node without DDS, without threads, and with a clock that is set by hand.

Messages are put into the callbacks of the node's own subscriptions; a tick of the rate timer
judges, recognises and publishes before it returns. What is published is serialised, so that
no field may be out of its range, and kept instead of being sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from karmma_msgs.msg import ActionRecognition, ModalityAvailability
from karmma_ros.node import inputs, lifecycle, session
from karmma_ros.node.image_decoder import decode, DecodedImage, ImageDecoder
from karmma_ros.node.worker import Worker
from karmma_ros.prediction import Prediction, Vocabulary
import numpy as np
from rclpy.clock import ClockType
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.serialization import serialize_message
from rclpy.time import Time

SUCCESS = TransitionCallbackReturn.SUCCESS


class SteppedWorker(Worker):
    """The node's worker, which runs in the thread that sends a request."""

    def _run(self) -> None:
        """Let the thread that `start` starts end at once."""

    def request_result(self) -> None:
        """Do at once what the thread would do when the rate timer ticks."""
        self._step(True)

    def request_report(self) -> None:
        """Do at once what the thread would do for a report."""
        self._step(False)


class SteppedDecoder(ImageDecoder):
    """The node's decoder of compressed images, which decodes in the thread that submits one."""

    def submit(self, arrived: Any, now_ns: int) -> None:
        """Decode and hand back at once what the thread and the executor would."""
        self._done(DecodedImage(arrived, decode(arrived)), now_ns)


class Simulation:
    """An active node and what it publishes."""

    def __init__(self, node: Any, published: dict[str, list[Any]]) -> None:
        self.node, self._published = node, published
        self._callbacks: dict[str, Any] = {}
        self.attach()

    def attach(self) -> None:
        """Look up the node's subscriptions again, as after they changed."""
        self._callbacks = {s.topic_name.strip('/'): s.callback for s in self.node.subscriptions}

    @property
    def results(self) -> list[ActionRecognition]:
        """Return the results that were published and not taken away yet."""
        return self._published.setdefault('action_recognition', [])

    @property
    def availabilities(self) -> list[ModalityAvailability]:
        """Return the reports that were published and not taken away yet."""
        return self._published.setdefault('~/modality_availability', [])

    @property
    def worker(self) -> SteppedWorker:
        """Return the node's worker."""
        return SteppedWorker.latest  # type: ignore[attr-defined]

    def set_time(self, now_ns: int) -> None:
        """Set the node's clock, as /clock would."""
        self.node.get_clock().set_ros_time_override(
            Time(nanoseconds=now_ns, clock_type=ClockType.ROS_TIME))

    def detect_events(self, topic: str, message: Any) -> None:
        """Put a message into the callback of the node's subscription."""
        self._callbacks[topic](message)

    def hears(self, topic: str) -> bool:
        """Return whether the node subscribes to a topic."""
        return topic in self._callbacks

    def tick(self) -> ActionRecognition | None:
        """Let the rate timer go off; give the result if one was published."""
        before = len(self.results)
        self.worker.request_result()
        return self.results[-1] if len(self.results) > before else None

    def report(self) -> ModalityAvailability:
        """Let the node judge its inputs now, and give what it says."""
        self.worker._reported = ()  # else an unchanged state is told again only after 0.4 s
        self.worker.request_report()
        return self.availabilities[-1]

    def forget(self) -> None:
        """Throw away what was published."""
        for messages in self._published.values():
            messages.clear()


@contextmanager
def simulation(
    model: Any, answer: ConstantAnswer | None = None, start_ns: int = 0,
    **parameters: Any,
) -> Iterator[Simulation]:
    """
    Return an active node; `__` in a parameter's name stands for a dot.

    :param answer: takes the place of the network, which is the slowest part by far.
    """
    published: dict[str, list[Any]] = {}
    values = {'model': str(model), 'threads': 1, 'use_sim_time': True, **parameters}
    with mock.patch.object(session, 'Worker', _kept(SteppedWorker)), \
            mock.patch.object(inputs, 'ImageDecoder', SteppedDecoder):
        node = _recording(published)(enable_communication_interface=False, parameter_overrides=[
            Parameter(name.replace('__', '.'), value=value) for name, value in values.items()])
        try:
            _expect(node.trigger_configure(), 'configure')
            if answer is not None:
                _answer_with(answer)
            made = Simulation(node, published)
            made.set_time(start_ns)
            _expect(node.trigger_activate(), 'activate')
            made.attach()
            yield made
            node.trigger_shutdown()
        finally:
            node.destroy_node()


def _expect(outcome: TransitionCallbackReturn, what: str) -> None:
    if outcome != SUCCESS:
        raise RuntimeError(f'{what} failed; the log says why')


def _kept(kind: type) -> Callable[..., Any]:
    """Make the class remember its last instance."""
    def make(*arguments: Any, **options: Any) -> Any:
        kind.latest = kind(*arguments, **options)
        return kind.latest
    return make


def _recording(published: dict[str, list[Any]]) -> type:
    """Return the node's class with publishers that keep what they are given."""
    class Recording(lifecycle.KarmmaNode):
        def create_publisher(self, kind: type, topic: str, *arguments: Any, **options: Any) -> Any:
            made = super().create_publisher(kind, topic, *arguments, **options)
            if topic.startswith('/'):  # not the node's own: rosout, diagnostics, parameters
                return made
            made.publish = _keeper(published.setdefault(topic, []))
            return made

        def create_lifecycle_publisher(
            self, kind: type, topic: str, *arguments: Any, **options: Any
        ) -> Any:
            made = super().create_lifecycle_publisher(kind, topic, *arguments, **options)
            made.publish = _keeper(published.setdefault(topic, []))
            return made

    return Recording


def _keeper(kept: list[Any]) -> Callable[[Any], None]:
    def keep(message: Any) -> None:
        serialize_message(message)
        kept.append(message)
    return keep


def _answer_with(answer: ConstantAnswer) -> None:
    worker = SteppedWorker.latest  # type: ignore[attr-defined]
    recogniser = worker.engine.recogniser
    answer.network, recogniser.recognise = recogniser.recognise, answer


class ConstantAnswer:
    """Answer every window alike; now and then ask the real network, which must not fail."""

    def __init__(self, vocabulary: Vocabulary, every: int = 0) -> None:
        """Take what there is to answer, and how often to ask the network; 0 never does."""
        scores = {h: np.full(len(n), 1 / len(n)) for h, n in vocabulary.heads.items()}
        self._prediction, self._every = Prediction(scores, vocabulary), every
        self._calls, self.network = 0, None

    def __call__(self, window: Any, keep: Any = None) -> Prediction:
        """Take the place of Recogniser.recognise."""
        self._calls += 1
        if self._every and self.network is not None and self._calls % self._every == 0:
            return self.network(window)
        return self._prediction
