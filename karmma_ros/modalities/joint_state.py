"""
States of chosen joints of a robot.

Shape legend: c channels, t samples of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, ClassVar

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError, printable
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.modality_type import Values
from karmma_ros.modalities.series import (
    ChannelSpec,
    MOST_CHANNELS,
    Series,
    SeriesDecoder,
    SeriesType,
)
from karmma_ros.modalities.series_content import StuckJoints
import numpy as np
from numpy.typing import NDArray

JOINT_STATE = 'sensor_msgs/msg/JointState'
FIELDS = ('position', 'velocity', 'effort')
_LISTED = 20
"""Names in one sentence."""


@dataclass(frozen=True)
class JointStateSpec(ChannelSpec):
    """Which values of which joints become channels, and how."""

    type_name: ClassVar[str] = 'joint_state'

    names: tuple[str, ...] = ()
    """Joints, in the order of the channels; they must be set."""
    fields: tuple[str, ...] = ('position',)
    """What is taken of each joint: position (rad or m), velocity, effort (N m or N); first one
    field of all joints, then the next."""

    def __post_init__(self) -> None:
        self.check('names', len({*self.names}) == len(self.names) <= MOST_CHANNELS
                   and all(isinstance(each, str) and each for each in self.names),
                   'names of joints, each once')
        self.check('fields', len({*self.fields}) == len(self.fields) > 0
                   and all(each in FIELDS for each in self.fields), f'some of {", ".join(FIELDS)}')
        super().__post_init__()

    @property
    def channels(self) -> int:
        """Return the number of joints times fields."""
        return len(self.names) * len(self.fields)


def _names(given: Sequence[str]) -> list[str]:
    return [name for name in given if name]


class JointStateDecoder(SeriesDecoder):
    """Decode the states of joints, and check their rate."""

    def read_parameters(self) -> None:
        """Check the names."""
        names = _names(self.parameter('names'))
        if len({*names}) != len(names):
            raise InvalidSettingError(
                f'{self.modality}.names', names, 'names of joints, each once')


class JointState(SeriesType):
    """States of joints of a robot (J)."""

    name, letter, sensor = 'joint_state', 'J', 'the joint states'
    what, silence = 'the joint states', 'a message after which they are stale'
    topic = 'joint_states'
    spec_class = JointStateSpec
    read_with = ('names',)
    message_types = (JOINT_STATE,)
    decoder, content_check = JointStateDecoder, StuckJoints
    unsupported = {
        'control_msgs/msg/JointTrajectoryControllerState':
            f'remap joint_states to the {JOINT_STATE} of joint_state_broadcaster',
        'control_msgs/msg/DynamicJointState':
            f'remap joint_states to the {JOINT_STATE} of joint_state_broadcaster',
    }
    encoders = {
        'tiny': ('series_cnn', {}),
        'tiny_causal': ('causal_series', {}),
        'tiny_teacher': ('series_cnn', {'width': 128}),
    }

    def columns(self, clip: ClipSpec) -> tuple[str, ...]:
        """Return the names of the joints; of several fields, `NAME.FIELD` each."""
        spec: JointStateSpec = self.spec(clip)
        if len(spec.fields) == 1:
            return spec.names
        return tuple(f'{name}.{field}' for field in spec.fields for name in spec.names)

    def channels(self, clip: ClipSpec) -> int:
        """Return the number of joints times fields."""
        spec: JointStateSpec = self.spec(clip)
        if not spec.names:
            raise InvalidSettingError(
                f'clip.inputs.{self.modality}.names', spec.names, 'the names of the joints')
        return spec.channels

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[c, t]`."""
        return self.channels(clip), self.spec(clip).samples

    def features(self, series: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return standardised channels."""
        spec: JointStateSpec = self.spec(clip)
        return spec.standardised(series)

    def restore(self, x: NDArray[np.float32], clip: ClipSpec) -> Series:
        """Return the vectors that the channels were made from."""
        return self.restored_series(self.spec(clip).restored(x), clip)

    def usual_size(self, samples: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return the deviation of each channel."""
        size: NDArray[np.float32] = self.spec(clip).usual_size
        return size

    def stand_ins(self, sample: NDArray[np.float32], clip: ClipSpec) -> tuple[Any, Any]:
        """Return positions and velocities, as far as they are channels."""
        spec: JointStateSpec = self.spec(clip)
        fields = dict(zip(spec.fields, sample.reshape(len(spec.fields), -1)))
        return SimpleNamespace(message=SimpleNamespace(
            position=fields.get('position', ()), velocity=fields.get('velocity', ()))), None

    def read(
        self, message: Any, type_name: str, clip: ClipSpec, values: Values
    ) -> NDArray[np.float32]:
        """Return the values of the chosen joints, `[c]`."""
        spec: JointStateSpec = self.spec(clip)
        names = _names(values[f'{self.modality}.names']) or list(spec.names)
        if len(names) != len(spec.names):
            raise self.invalid(
                f'joint_state.names has {len(names)} names; expected {len(spec.names)}, one for '
                f'each joint of the model: {_listing(spec.names)}')
        position = {name: index for index, name in enumerate(message.name)}
        missing = [name for name in names if name not in position]
        if missing:
            raise self.invalid(
                f'got joints {_listing(message.name)} without {_listing(missing)}: remap '
                'joint_states to a topic with all joints of the model, or set joint_state.names '
                'to what this robot calls them')
        chosen = [position[name] for name in names]
        return np.concatenate(
            [self._field(message, field, chosen, names) for field in spec.fields]
        )

    def _field(
        self, message: Any, field: str, chosen: Sequence[int], names: Sequence[str],
    ) -> NDArray[np.float32]:
        values = np.asarray(getattr(message, field), np.float32)
        if len(values) != len(message.name):
            raise self.invalid(
                f'got {len(values)} values of {field} for {len(message.name)} joints; expected '
                f'one for each: the driver does not publish {field}; train without it '
                f'(clip.inputs.{self.modality}.fields)')
        vector: NDArray[np.float32] = values[list(chosen)]
        wrong = [name for name, value in zip(names, vector) if not np.isfinite(value)]
        if wrong:
            raise self.invalid(
                f'{field} of {_listing(wrong)} is NaN or infinity; expected finite numbers: the '
                'joint is not measured; check its state interfaces')
        return vector

    def parameters(self) -> tuple[Declaration, ...]:
        """Return the names of the joints."""
        return (Declaration(
            f'{self.modality}.names', [''], "Names in the messages of the model's joints, in its "
            'order; empty: those that it was trained with.'),)


def _listing(names: Sequence[str]) -> str:
    listed = [printable(name, 60) for name in names[:_LISTED]]
    return ', '.join(listed) + (
        f' and {len(names) - _LISTED} more' if len(names) > _LISTED else ''
    )
