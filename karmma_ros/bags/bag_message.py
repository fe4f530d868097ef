"""A message on its way from a bag to the inputs: decoded when wanted, and once for all runs."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modality import Modality
from karmma_ros.stream.ingest import ReceivedMessage, SizedImage

_PICTURES = (Modality.RGB.value, Modality.FLOW.value)
_STAMPS = {0: Struct('>iI'), 1: Struct('<iI')}
_HEADER_AT = 4
"""Behind CDR's own header. Pictures begin with their header, and that with the stamp."""


class BagMessage:
    """One message as it lies in the bag; an `InputMessage`, where its role is that of a sensor."""

    def __init__(
        self, role: str, type_name: str, index: int, received_ns: int, data: bytes,
        read: Callable[[bytes], Any], crop: tuple[int, int],
        bits: int = 16,
    ) -> None:
        """
        Take it unread.

        :param role: what its topic is, as `topics.TYPES` has them.
        :param index: its place among the messages of its topic.
        :param read: gives the message; ValueError for bytes that are none.
        :param crop: height and width that pictures are cropped to.
        :param bits: significant bits of images with 16 bit channels.
        """
        self.role, self.type_name, self.index = role, type_name, index
        self.received_ns, self._data, self._read, self._crop = received_ns, data, read, crop
        self._bits = bits
        self._message: Any = None
        self._image: SizedImage | None = None
        self._failure = ''

    @property
    def modality(self) -> Modality:
        """Return the sensor."""
        return Modality(self.role)

    @property
    def message(self) -> Any:
        """
        Return the message.

        :raises InvalidSampleError: when its bytes are none of its type.
        """
        if self._message is None:
            self._message = self._once(lambda: self._read(self._data))
        return self._message

    @property
    def stamp_ns(self) -> int:
        """
        Return the stamp, 0 without one.

        :raises InvalidSampleError: for a time before 1970.
        """
        if self.role in _PICTURES and len(self._data) >= _HEADER_AT + 8:
            # Most pictures are not wanted: their stamp is all that is ever looked at.
            sec, nanosec = _STAMPS[self._data[1] & 1].unpack_from(self._data, _HEADER_AT)
            if sec >= 0:
                return int(sec * NANOSECONDS + nanosec)
        return self._arrived.stamp_ns

    def image(self) -> SizedImage:
        """
        Return a picture or a flow, cropped, and the size of the whole.

        :raises InvalidSampleError: when it cannot be decoded.
        """
        if self._image is None:
            self._image = self._once(lambda: self._arrived.image())
        return self._image

    @property
    def _arrived(self) -> ReceivedMessage:
        return ReceivedMessage(self.modality, self.type_name, self.message, self._crop, self._bits)

    def _once(self, give: Callable[[], Any]) -> Any:
        """Return what the other runs will get too; a failure is not met twice."""
        if not self._failure:
            try:
                return give()
            except ValueError as failure:  # InvalidSampleError is one, too
                self._failure = str(failure)
        raise InvalidSampleError(self._failure)
