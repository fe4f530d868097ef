"""
The real node without DDS, without threads, and with a clock that is set by hand.

Messages are passed to the callbacks of the node's own subscriptions; a tick of the rate timer
assesses, runs inference and publishes before it returns. Published messages are serialised, so
that no field may be out of its range, and stored instead of sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

from karmma_msgs.msg import ActionRecognition, ModalityAvailability
from karmma_ros.node import lifecycle, message_handler, session
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

    def submit(self, message: Any, now_ns: int) -> None:
        """Decode and hand back at once what the thread and the executor would."""
        self._done(DecodedImage(message, decode(message)), now_ns)


class Simulation:
    """An active node and what it publishes."""

    def __init__(self, node: Any, published: dict[str, list[Any]]) -> None:
        self.node, self._published = node, published
        self._subscriptions: dict[str, Any] = {}
        self.attach()

    def attach(self) -> None:
        """Update after the node's subscriptions changed."""
        self._subscriptions = {s.topic_name.strip('/'): s for s in self.node.subscriptions}

    @property
    def results(self) -> list[ActionRecognition]:
        """Return the results that were published and not cleared yet."""
        return self._published.setdefault('action_recognition', [])

    @property
    def availabilities(self) -> list[ModalityAvailability]:
        """Return the reports that were published and not cleared yet."""
        return self._published.setdefault('~/modality_availability', [])

    @property
    def worker(self) -> SteppedWorker:
        """Return the node's worker."""
        return SteppedWorker.latest  # type: ignore[attr-defined]

    def set_time(self, now_ns: int) -> None:
        """Set the node's clock, as /clock would."""
        self.node.get_clock().set_ros_time_override(
            Time(nanoseconds=now_ns, clock_type=ClockType.ROS_TIME))

    def receive(self, topic: str, message: Any) -> None:
        """Put a message into the callback of the node's subscription."""
        subscription = self._subscriptions[topic]
        subscription.callback(serialize_message(message) if subscription.raw else message)

    def subscribes(self, topic: str) -> bool:
        """Return whether the node subscribes to a topic."""
        return topic in self._subscriptions

    def tick(self) -> ActionRecognition | None:
        """Trigger the rate timer; return the result if one was published."""
        before = len(self.results)
        self.worker.request_result()
        return self.results[-1] if len(self.results) > before else None

    def report(self) -> ModalityAvailability:
        """Let the node assess its inputs now, and return its report."""
        self.worker._reported = ()  # else an unchanged state is reported again only after 0.4 s
        self.worker.request_report()
        return self.availabilities[-1]

    def clear(self) -> None:
        """Clear what was published."""
        for messages in self._published.values():
            messages.clear()


@contextmanager
def simulation(
    model: Any, prediction: ConstantPrediction | None = None, start_ns: int = 0,
    **parameters: Any,
) -> Iterator[Simulation]:
    """
    Return an active node; `__` in a parameter's name stands for a dot.

    :param prediction: replaces the network, which is the slowest part by far.
    """
    published: dict[str, list[Any]] = {}
    values = {'model': str(model), 'threads': 1, 'use_sim_time': True, **parameters}
    with mock.patch.object(session, 'Worker', _with_latest(SteppedWorker)), \
            mock.patch.object(message_handler, 'ImageDecoder', SteppedDecoder):
        node = _recording(published)(enable_communication_interface=False, parameter_overrides=[
            Parameter(name.replace('__', '.'), value=value) for name, value in values.items()])
        try:
            _expect(node.trigger_configure(), 'configure')
            if prediction is not None:
                _replace_network(prediction)
            simulated = Simulation(node, published)
            simulated.set_time(start_ns)
            _expect(node.trigger_activate(), 'activate')
            simulated.attach()
            yield simulated
            node.trigger_shutdown()
        finally:
            node.destroy_node()


def _expect(outcome: TransitionCallbackReturn, what: str) -> None:
    if outcome != SUCCESS:
        raise RuntimeError(f'{what} failed; the log has the reason')


def _with_latest(worker: type) -> Callable[..., Any]:
    """Store the last instance of the class as `latest`."""
    def make(*arguments: Any, **options: Any) -> Any:
        worker.latest = worker(*arguments, **options)  # type: ignore[attr-defined]
        return worker.latest  # type: ignore[attr-defined]
    return make


def _recording(published: dict[str, list[Any]]) -> type:
    """Return the node's class with publishers that store their messages."""
    class Recording(lifecycle.KarmmaNode):
        def create_publisher(
            self, message_type: type, topic: str, *arguments: Any, **options: Any
        ) -> Any:
            publisher = super().create_publisher(message_type, topic, *arguments, **options)
            if topic.startswith('/'):  # not the node's own: rosout, diagnostics, parameters
                return publisher
            publisher.publish = _recorder(published.setdefault(topic, []))
            return publisher

        def create_lifecycle_publisher(
            self, message_type: type, topic: str, *arguments: Any, **options: Any
        ) -> Any:
            publisher = super().create_lifecycle_publisher(
                message_type, topic, *arguments, **options)
            publisher.publish = _recorder(published.setdefault(topic, []))
            return publisher

    return Recording


def _recorder(recorded: list[Any]) -> Callable[[Any], None]:
    def keep(message: Any) -> None:
        serialize_message(message)
        recorded.append(message)
    return keep


def _replace_network(prediction: ConstantPrediction) -> None:
    worker = SteppedWorker.latest  # type: ignore[attr-defined]
    recogniser = worker.engine.recogniser
    prediction.network, recogniser.recognise = recogniser.recognise, prediction


class ConstantPrediction:
    """Return the same prediction for every window; run the real network for some, as a check."""

    def __init__(self, vocabulary: Vocabulary, every: int = 0) -> None:
        """Take the classes, and run the network for one of `every` windows; 0 never does."""
        scores = {h: np.full(len(n), 1 / len(n)) for h, n in vocabulary.heads.items()}
        self._prediction, self._every = Prediction(scores, vocabulary), every
        self._calls, self.network = 0, None

    def __call__(self, window: Any, **options: Any) -> Prediction:
        """Replace Recogniser.recognise."""
        self._calls += 1
        if self._every and self.network is not None and self._calls % self._every == 0:
            return self.network(window)
        return self._prediction
