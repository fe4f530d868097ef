"""
Vectors of any signal: tactile sensors, forces, gaze.

Shape legend: c channels, t samples of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.modality_type import Values
from karmma_ros.modalities.series import (
    ChannelSpec,
    MOST_CHANNELS,
    Series,
    SeriesType,
)
import numpy as np
from numpy.typing import NDArray

FLOATS = 'std_msgs/msg/Float32MultiArray'
DOUBLES = 'std_msgs/msg/Float64MultiArray'


@dataclass(frozen=True)
class VectorSpec(ChannelSpec):
    """How a signal of so many values becomes channels."""

    type_name: ClassVar[str] = 'vector'

    size: int = 0
    """Values of a message (c); it must be set."""

    def __post_init__(self) -> None:
        self.check('size', type(self.size) is int and 0 <= self.size <= MOST_CHANNELS,
                   f'an integer from 1 to {MOST_CHANNELS}')
        super().__post_init__()

    @property
    def channels(self) -> int:
        """Return the number of values of a message."""
        return self.size


class Vector(SeriesType):
    """Vectors of any signal (X)."""

    name, letter, sensor = 'vector', 'X', 'the signal'
    what, silence = 'the signal', 'a message after which it is stale'
    spec_class = VectorSpec
    message_types = (FLOATS, DOUBLES)
    content_check = None  # of a signal that may be anything
    unsupported = {
        f'std_msgs/msg/{name}': f'publish its values as {FLOATS}'
        for name in ('Float32', 'Float64', 'Int16MultiArray', 'Int32MultiArray')
    } | {'geometry_msgs/msg/WrenchStamped': f'publish its six values as {FLOATS}'}
    encoders = {
        'tiny': ('series_cnn', {}),
        'tiny_causal': ('causal_series', {}),
        'tiny_teacher': ('series_cnn', {'width': 128}),
    }

    def channels(self, clip: ClipSpec) -> int:
        """Return the number of values of a message."""
        size: int = self.spec(clip).size
        if not size:
            raise InvalidSettingError(
                f'clip.inputs.{self.modality}.size', size, 'the number of values of a message')
        return size

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[c, t]`."""
        return self.channels(clip), self.spec(clip).samples

    def features(self, series: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return standardised channels."""
        spec: VectorSpec = self.spec(clip)
        return spec.standardised(series)

    def restore(self, x: NDArray[np.float32], clip: ClipSpec) -> Series:
        """Return the vectors that the channels were made from."""
        return self.restored_series(self.spec(clip).restored(x), clip)

    def usual_size(self, samples: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return the deviation of each channel."""
        size: NDArray[np.float32] = self.spec(clip).usual_size
        return size

    def read(
        self, message: Any, type_name: str, clip: ClipSpec, values: Values
    ) -> NDArray[np.float32]:
        """Return the values of a message, `[c]`, those of several dimensions one after another."""
        size, offset = self.channels(clip), int(message.layout.data_offset)
        vector = np.asarray(message.data, np.float32).reshape(-1)[offset:]
        if len(vector) != size:
            raise self.invalid(
                f'got {len(vector)} values; expected {size}, as the model takes '
                f'(clip.inputs.{self.modality}.size): remap vector to the topic that it was '
                'trained on')
        if not np.isfinite(vector).all():
            raise self.invalid(
                f'values {np.flatnonzero(~np.isfinite(vector)).tolist()} are NaN or infinity; '
                'expected finite numbers: have the publisher omit such messages')
        return vector

    def parameters(self) -> tuple[Declaration, ...]:
        """Return the message type."""
        return (Declaration(
            f'{self.modality}.type', FLOATS, f'Message type of the {self.topic_name} topic; its '
            'messages have no stamp: the time of receipt is used.', choices=(FLOATS, DOUBLES)),)
