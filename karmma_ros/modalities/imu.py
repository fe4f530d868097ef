"""
Inertial sensors: linear acceleration and angular velocity.

Shape legend: n messages, t samples of the window.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import pi
from typing import Any, ClassVar

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities.content_check import Finding, Persistence
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.modality_type import Values
from karmma_ros.modalities.series import Series, SeriesDecoder, SeriesSpec, SeriesType
from karmma_ros.modalities.series_content import StuckSeries
import numpy as np
from numpy.typing import NDArray

IMU = 'sensor_msgs/msg/Imu'
STANDARD_GRAVITY = 9.80665
"""m/s² in one g (CGPM 1901)."""
_USUAL_ROTATION = 2.0
"""rad/s that become 1: a moderate turn of a hand."""
_USUAL_ACCELERATION = 3.0
"""m/s², likewise, beside gravity."""
_ACCELERATIONS = {'m/s2': 1.0, 'g': STANDARD_GRAVITY}
_ROTATIONS = {'rad/s': 1.0, 'deg/s': pi / 180}
"""Unit of a parameter → what it is in SI units."""


@dataclass(frozen=True)
class ImuSpec(SeriesSpec):
    """How the messages of an inertial sensor become channels."""

    type_name: ClassVar[str] = 'imu'

    samples: int = 128
    """Samples of the window, interpolated linearly at the centres of as many equal parts (t)."""
    lengths: bool = True
    """Whether the lengths of both vectors are channels too, which do not depend on how the sensor
    is turned on its carrier."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check('lengths', type(self.lengths) is bool, 'true or false')


_BLOCK_NS, _LEAST_MESSAGES = NANOSECONDS // 2, 5
_MOST_MESSAGES = 4096
"""Kept of a block, which does not end while the stamps stand still."""
_PERSISTENT_NS, _BLOCKS = 3 * NANOSECONDS // 2, 4
_FASTEST = 36.0
"""rad/s about one axis: above 2000 °/s, the range of common gyroscopes."""
_BLOCKS_OF_REST = 240
"""Two minutes: rest does not show the unit of the angular velocity."""


class ImuCheck:
    """Find channels that are not measured, gravity that was removed, and other units."""

    def __init__(self) -> None:
        self.findings: dict[str, Finding | None] = {}
        """Name of a check → what it finds now."""
        self._block: list[NDArray[np.float32]] = []
        self._start_ns = 0
        self._persistence = {
            name: Persistence(_PERSISTENT_NS, _BLOCKS) for name in ('missing', 'acceleration')}
        self._persistence['angular velocity'] = Persistence(_BLOCK_NS, 2, _BLOCKS_OF_REST)

    def update(self, vector: NDArray[np.float32], acceleration_unit: str, time_ns: int) -> None:
        """
        Take a message, m/s² and rad/s `[6]`.

        :param acceleration_unit: that it was read with.
        """
        if not self._block or time_ns < self._start_ns:
            self._block, self._start_ns = [], time_ns
        if len(self._block) < _MOST_MESSAGES:
            self._block.append(vector)
        if time_ns - self._start_ns < _BLOCK_NS or len(self._block) < _LEAST_MESSAGES:
            return
        block = np.stack(self._block)
        self._block = []
        self._set('missing', _missing(block), time_ns)
        self._set('acceleration', _acceleration(block[:, :3], acceleration_unit), time_ns)
        self._set('angular velocity', _angular_velocity(block[:, 3:]), time_ns)

    def _set(self, check: str, finding: Finding | None, time_ns: int) -> None:
        """
        Establish what a block shows once several have shown it.

        The first text stays, unless another makes the data usable, or not.
        """
        old = self.findings.get(check)
        if not self._persistence[check].update(finding is not None, time_ns):
            self.findings[check] = None
        elif finding is not None and (old is None or old.usable != finding.usable):
            self.findings[check] = finding


def _missing(block: NDArray[np.float32]) -> Finding | None:
    for name, values in (
        ('linear_acceleration', block[:, :3]),
        ('angular_velocity', block[:, 3:]),
    ):
        if not values.any():
            # A simulated sensor at rest may turn with exactly 0 rad/s; gravity is everywhere.
            return Finding(
                f'{name} is 0 in all messages: it seems not to be measured; remap imu to a topic '
                'with both vectors (realsense2_camera: set unite_imu_method to 2)',
                usable=name != 'linear_acceleration')
    return None


def _acceleration(values: NDArray[np.float32], unit: str) -> Finding | None:
    lengths = np.linalg.norm(values, axis=1)
    median, low = float(np.median(lengths)), float(np.quantile(lengths, 0.1))
    text = f'the median length of linear_acceleration is {median:.3g} m/s², expected about 9.8: '
    if unit != 'g' and 0.7 < median < 1.4 and low > 0.5:
        return Finding(
            f'{text}the driver seems to send g: set imu.acceleration_unit to g', usable=False)
    if unit == 'g' and median > 40:
        return Finding(
            f'{text}the driver seems to send m/s²: set imu.acceleration_unit to m/s2',
            usable=False)
    if median > 150:
        return Finding(f'{text}have the driver send m/s² or g, and set imu.acceleration_unit',
                       usable=False)
    if 0 < median < 0.3:
        return Finding(f'{text}gravity seems to be removed; have the driver send the acceleration '
                       'with it')
    return None


def _angular_velocity(values: NDArray[np.float32]) -> Finding | None:
    fast = (np.abs(values) > _FASTEST).any(1).mean()
    if fast < 0.5:
        return None
    return Finding(
        f'angular_velocity is above {_FASTEST:g} rad/s (2000 °/s) in most messages: the driver '
        'seems to send °/s: set imu.angular_velocity_unit to deg/s', usable=False)


def imu_input(series: NDArray[np.float32], lengths: bool = True) -> NDArray[np.float32]:
    """
    Scale the channels of an inertial sensor, and add the lengths of both vectors.

    The lengths do not depend on how the sensor is turned on its carrier.

    :param series: `[6, t]`: linear acceleration, m/s², then angular velocity, rad/s.
    :param lengths: whether to add them.
    :returns: `[8, t]`: acceleration in g, angular velocity in units of 2 rad/s, the length of
        the acceleration minus 1 g, the length of the angular velocity; `[6, t]` without lengths.
    :raises InvalidSampleError: for another number of channels.
    """
    if series.ndim != 2 or len(series) != 6:
        raise InvalidSampleError(f'IMU: got channels {list(series.shape)}; expected [6, t]')
    acceleration, rotation = series[:3] / STANDARD_GRAVITY, series[3:] / _USUAL_ROTATION
    channels = [acceleration, rotation]
    if lengths:
        channels += [np.linalg.norm(acceleration, axis=0, keepdims=True) - 1,
                     np.linalg.norm(rotation, axis=0, keepdims=True)]
    return np.asarray(np.concatenate(channels), np.float32)


class ImuDecoder(SeriesDecoder):
    """Decode the messages of an inertial sensor; check its rate and its units."""

    _units: tuple[str, str]
    """Those of the parameters that it checks with."""
    _check: ImuCheck

    def read_parameters(self) -> None:
        """Check with the units that are set now."""
        units = (self.parameter('acceleration_unit'), self.parameter('angular_velocity_unit'))
        if units != self._units:
            self._units, self._check = units, ImuCheck()
            for check in ('missing', 'acceleration', 'angular velocity'):
                self.set_finding(check, None)

    def stored(self, sample: NDArray[np.float32], stamp_ns: int, now_ns: int) -> None:
        """Check rate and units."""
        super().stored(sample, stamp_ns, now_ns)
        self._check.update(sample, self._units[0], stamp_ns or now_ns)
        for check, finding in self._check.findings.items():
            self.set_finding(check, finding)

    def reset(self) -> None:
        """Start the checks anew."""
        super().reset()
        self._units, self._check = ('', ''), ImuCheck()


class Imu(SeriesType):
    """Inertial sensor (I)."""

    name, letter, sensor = 'imu', 'I', 'the inertial sensor'
    what, silence = 'the inertial sensor', 'a message after which it is stale'
    spec_class = ImuSpec
    message_types = (IMU,)
    read_with = ('acceleration_unit', 'angular_velocity_unit')
    depth = 200
    decoder, content_check = ImuDecoder, StuckSeries
    unsupported = {
        'sensor_msgs/msg/MagneticField': f'it has no acceleration: remap to a topic of {IMU}',
        'geometry_msgs/msg/AccelStamped': f'publish its vectors as {IMU}',
    }
    unsupported_names = '^(?i:Imu|RawImu|ImuData)', f'publish {IMU}'
    encoders = {
        'tiny': ('series_cnn', {}),
        'tiny_causal': ('causal_series', {}),
        'tiny_teacher': ('series_cnn', {'width': 128}),
    }

    def channels(self, clip: ClipSpec) -> int:
        """Return 6: linear acceleration, then angular velocity."""
        return 6

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[8, t]`, or `[6, t]` without the lengths."""
        return 8 if self.spec(clip).lengths else 6, self.spec(clip).samples

    def features(self, series: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return scaled channels and lengths."""
        return imu_input(series, self.spec(clip).lengths)

    def restore(self, x: NDArray[np.float32], clip: ClipSpec) -> Series:
        """Return acceleration and angular velocity."""
        units = np.repeat([STANDARD_GRAVITY, _USUAL_ROTATION], 3)[:, None]
        return self.restored_series(np.asarray(x[:6] * units, np.float32), clip)

    def usual_size(self, samples: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return what a moderate movement of a hand adds, m/s² and rad/s."""
        return np.repeat(np.array([_USUAL_ACCELERATION, _USUAL_ROTATION], np.float32), 3)

    def read(
        self, message: Any, type_name: str, clip: ClipSpec, values: Values
    ) -> NDArray[np.float32]:
        """Return m/s² and rad/s, `[6]`; the orientation is not used."""
        units = (_ACCELERATIONS[values[f'{self.modality}.acceleration_unit']],
                 _ROTATIONS[values[f'{self.modality}.angular_velocity_unit']])
        vectors = message.linear_acceleration, message.angular_velocity
        vector = np.array([unit * value for unit, each in zip(units, vectors)
                           for value in (each.x, each.y, each.z)], np.float32)
        for name, each in zip(
            ('linear_acceleration', 'angular_velocity'), (vector[:3], vector[3:])
        ):
            if not np.isfinite(each).all():
                raise self.invalid(
                    f'{name} is {each.tolist()}; expected finite numbers: it is not measured; '
                    'remap imu to a topic with both vectors')
        return vector

    def parameters(self) -> tuple[Declaration, ...]:
        """Return the units of a driver that does not keep to REP 103."""
        name = self.modality
        return (
            Declaration(f'{name}.acceleration_unit', 'm/s2', 'Unit of linear_acceleration, which '
                        'includes gravity: m/s2 by REP 103; some drivers send g.',
                        choices=tuple(_ACCELERATIONS)),
            Declaration(f'{name}.angular_velocity_unit', 'rad/s', 'Unit of angular_velocity: '
                        'rad/s by REP 103; some drivers send deg/s.', choices=tuple(_ROTATIONS)),
        )
