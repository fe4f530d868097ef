"""
Gaze: the point that a person fixates, as a modality of karmma_ros.

Shape legend: c channels, t samples of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from karmma_ros.clip import ClipSpec
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.modality_type import Values
from karmma_ros.modalities.series import SeriesSpec, SeriesType
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class GazeSpec(SeriesSpec):
    """How gaze points become channels; its fields are those of `clip.inputs.gaze`."""

    type_name: ClassVar[str] = 'gaze'

    samples: int = 32
    """Samples of the window (t)."""
    unit: float = 1.0
    """Metres that become 1."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check('unit', self.unit > 0, 'a number above 0')


class Gaze(SeriesType):
    """Gaze points in space (G)."""

    name, letter, sensor = 'gaze', 'G', 'the eye tracker'
    what, silence = 'the eye tracker', 'a point after which it is stale'
    spec_class = GazeSpec
    message_types = ('geometry_msgs/msg/PointStamped',)
    encoders = {'tiny': ('series_cnn', {})}

    def channels(self, clip: ClipSpec) -> int:
        """Return 3: x, y, z."""
        return 3

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[6, t]`: position and movement."""
        return 6, self.spec(clip).samples

    def features(self, series: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return positions relative to the mean of the window, and movements a sample."""
        scaled = series / np.float32(self.spec(clip).unit)
        movement = np.diff(scaled, axis=1, prepend=scaled[:, :1])
        return np.concatenate([scaled - scaled.mean(1, keepdims=True), movement])

    def read(
        self, message: Any, type_name: str, clip: ClipSpec, values: Values
    ) -> NDArray[np.float32]:
        """Return the point of a message, `[3]`, metres."""
        point = message.point
        vector = np.array([point.x, point.y, point.z], np.float32)
        vector *= np.float32(values[f'{self.modality}.scale'])
        if not np.isfinite(vector).all():
            raise self.invalid('got NaN or infinity; expected finite numbers: the eyes are not '
                               'tracked; have the driver omit such messages')
        return vector

    def parameters(self) -> tuple[Declaration, ...]:
        """Return the parameter of its own."""
        return (Declaration(f'{self.modality}.scale', 1.0, "Metres in one unit of the driver's "
                            'points.', (0.0001, 1000.0)),)
