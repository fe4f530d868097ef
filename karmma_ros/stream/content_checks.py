"""
Content checks: messages that decode without an error, and hold other data than expected.

Each check judges what came over some seconds, never one message, and keeps its finding until there
is evidence against it. The same checks run live and in the replay of a bag.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

from karmma_ros.modality import Modality
from karmma_ros.stream.audio_hints import AudioFormat
from karmma_ros.stream.audio_rate import AudioRateCheck
from karmma_ros.stream.availability import Finding
from karmma_ros.stream.box_check import BoxCheck, BoxFrame
from karmma_ros.stream.image_check import FlowCheck, ValueRangeCheck
from karmma_ros.stream.sensor_stream import SensorStream
import numpy as np
from numpy.typing import NDArray


class ContentChecks:
    """The checks of all inputs; a stream is notified of each change of a finding."""

    def __init__(self, lock: AbstractContextManager[Any]) -> None:
        """
        Start without findings.

        :param lock: guards the stream.
        """
        self._lock = lock
        self._stream: SensorStream | None = None
        self._known: dict[tuple[Modality, str], Finding] = {}
        self._reset()

    def feed(self, stream: SensorStream) -> None:
        """Notify another stream from now on, beginning with what is known."""
        self._stream = stream
        for (source, check), finding in self._known.items():
            with self._lock:
                stream.set_finding(source, check, finding)

    def reset(self) -> None:
        """Withdraw all findings and start anew."""
        self._reset()
        for source, check in list(self._known):
            self._tell(source, check, None)

    def audio(
        self, samples: int, audio_format: AudioFormat, stamp_ns: int, now_ns: int,
    ) -> None:
        """Check the rate of audio; see `AudioRateCheck.note`."""
        self._audio_rate.note(samples, audio_format, stamp_ns, now_ns)
        self._tell(Modality.AUDIO, 'rate', self._audio_rate.finding)

    def boxes(self, corners: NDArray[np.float64], frame: BoxFrame, now_ns: int) -> None:
        """Check the unit of boxes; see `BoxCheck.note`."""
        self._boxes.note(corners, frame, now_ns)
        self._tell(Modality.DETECTIONS, 'unit', self._boxes.unit)
        self._tell(Modality.DETECTIONS, 'size', self._boxes.size)

    def image(
        self, image: NDArray[np.uint8], bits: int, largest: Callable[[], tuple[int, str]],
        now_ns: int,
    ) -> None:
        """Check the range of an image's values; see `ValueRangeCheck.note`."""
        self._range.note(image, bits, largest, now_ns)
        self._tell(Modality.RGB, 'range', self._range.finding)

    def flow(self, flow: NDArray[np.float32], now_ns: int) -> None:
        """Check the unit of flow; see `FlowCheck.note`."""
        self._flow.note(flow, now_ns)
        self._tell(Modality.FLOW, 'unit', self._flow.finding)

    def _reset(self) -> None:
        self._audio_rate, self._boxes = AudioRateCheck(), BoxCheck()
        self._range, self._flow = ValueRangeCheck(), FlowCheck()

    def _tell(self, source: Modality, check: str, finding: Finding | None) -> None:
        if self._known.get((source, check)) is finding:
            return
        if finding is None:
            del self._known[source, check]
        else:
            self._known[source, check] = finding
        if self._stream is not None:
            with self._lock:
                self._stream.set_finding(source, check, finding)
