"""Decode compressed images in a thread, while the executor receives the other inputs."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from threading import Condition, Thread
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.modality_type import InputMessage
from karmma_ros.modality import Modality
from karmma_ros.stream.ingest import ReceivedMessage
from rclpy.node import Node


@dataclass(frozen=True)
class DecodedImage:
    """A message whose image was decoded, or could not be; an `InputMessage`."""

    received: ReceivedMessage
    outcome: Any
    """What `read` returns, or the exception that it raises."""

    @property
    def modality(self) -> Modality:
        """Return the modality of its topic."""
        return self.received.modality

    @property
    def type_name(self) -> str:
        """Return its type."""
        return self.received.type_name

    @property
    def message(self) -> Any:
        """Return the message itself."""
        return self.received.message

    @property
    def spec(self) -> ClipSpec:
        """Return the specification of the clips that it may become part of."""
        return self.received.spec

    @property
    def stamp_ns(self) -> int:
        """Return its stamp, 0 without one."""
        return self.received.stamp_ns

    def read(self) -> Any:
        """
        Return the decoded image.

        :raises InvalidSampleError: when there is none.
        """
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return self.outcome


class ImageDecoder:
    """
    Decode the newest image in a thread and hand it back to the executor.

    An image that comes while another is decoded waits, and replaces one that waits. All methods
    are for the executor's thread.
    """

    def __init__(self, node: Node, done: Callable[[InputMessage, int], None]) -> None:
        """
        Prepare without a thread.

        :param done: called by the executor with what was decoded and the time of its receipt.
        """
        self._node, self._done = node, done
        self._changed = Condition()
        self._waiting: tuple[ReceivedMessage, int] | None = None
        self._decoded: tuple[DecodedImage, int] | None = None
        self._generation = 0
        """Counts the calls of `cancel`; an image of an older generation is dropped."""
        self._running = False
        self._thread: Thread | None = None

    def submit(self, received: ReceivedMessage, now_ns: int) -> None:
        """Decode this image next."""
        self._deliver()
        if self._thread is None or not self._thread.is_alive():
            self._running = True
            self._thread = Thread(target=self._run, name='image decoder', daemon=True)
            self._thread.start()
        with self._changed:
            self._waiting = received, now_ns
            self._changed.notify()

    def cancel(self) -> None:
        """Drop every image that was not handed back."""
        with self._changed:
            self._generation += 1
            self._waiting = self._decoded = None

    def stop(self) -> None:
        """Drop every image and end the thread."""
        self.cancel()
        thread, self._thread = self._thread, None
        if thread is None:
            return
        with self._changed:
            self._running = False
            self._changed.notify()
        thread.join()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: not self._running or (
                    self._waiting is not None and self._decoded is None))
                if not self._running:
                    return
                assert self._waiting is not None
                (received, now_ns), self._waiting = self._waiting, None
                generation = self._generation
            decoded = DecodedImage(received, decode(received))
            with self._changed:
                if generation == self._generation:
                    self._decoded = decoded, now_ns
            # Not a guard condition: EventsExecutor has none. Without an executor, as between two
            # calls of rclpy.spin_once(node), the next image delivers.
            executor = self._node.executor
            if executor is not None:
                with suppress(Exception):  # it was shut down; the next image delivers
                    executor.create_task(self._deliver)

    def _deliver(self) -> None:
        with self._changed:
            decoded, self._decoded = self._decoded, None
            self._changed.notify()
        if decoded is not None:
            self._done(*decoded)


def decode(received: ReceivedMessage) -> Any:
    """Decode the image of a message; return the error where there is none."""
    try:
        return received.read()
    except InvalidSampleError as error:
        return error
    except Exception as error:  # one bad image must not end the thread
        return InvalidSampleError(f'{type(error).__name__}: {error}')
