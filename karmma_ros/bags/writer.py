"""
Write rosbag2 bags without ROS: images, audio, detections, other sensors and ground truth.

`ros2 bag info` and `ros2 bag play` read the bags, which contain the offered QoS, type hashes and
message definitions. Stamps are integer nanoseconds; images are RGB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
import contextlib
from dataclasses import dataclass
import os
from pathlib import Path
import shutil
from typing import Any

from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError, KarmmaError
from karmma_ros.modalities.imu import IMU
from karmma_ros.modalities.message_types import AUDIO_DATA_STAMPED, DETECTIONS, IMAGE
from karmma_ros.modalities.skeleton import POSES
from karmma_ros.storage import scratch_folder
import numpy as np
from rosbags.interfaces import (
    Connection,
    Qos,
    QosDurability,
    QosHistory,
    QosLiveliness,
    QosReliability,
    QosTime,
)
from rosbags.rosbag2 import StoragePlugin, Writer
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
from rosbags.typesys.store import Typestore

TRUTH_TYPE = 'karmma_msgs/msg/ActionAnnotation'

_BUILD_HINTS = {
    'karmma_msgs': 'build it (`make env`, or `colcon build --packages-select karmma_msgs`) and '
                   'source the workspace',
    'audio_common_msgs': 'install ros-$ROS_DISTRO-audio-common-msgs and source ROS, or run '
                         '`make env`',
    'vision_msgs': 'install ros-$ROS_DISTRO-vision-msgs and source ROS, or run `make env`',
}


class MissingTypesError(KarmmaError):
    """The definitions of a message package are not on the ament path."""

    def __init__(self, package: str) -> None:
        self.package = package
        hint = _BUILD_HINTS.get(package, 'install it and source its workspace')
        super().__init__(
            f'no message definitions of {package} under AMENT_PREFIX_PATH '
            f'({os.environ.get("AMENT_PREFIX_PATH") or "not set"}): {hint}')


@dataclass(frozen=True)
class Topics:
    """Topic names in the bag; the defaults are the node's, so that a replay needs no remapping."""

    image: str = '/image'
    flow: str = '/flow'
    audio: str = '/audio'
    detections: str = '/detections'
    truth: str = '/ground_truth'
    imu: str = '/imu'
    skeleton: str = '/skeleton'


class BagWriter:
    """
    Write one bag; use it as a context manager.

    A path that ends in `.mcap` or `.db3` gives one file, any other a rosbag2 folder with its
    metadata.yaml. Nothing is left behind when writing fails.

    >>> from pathlib import Path
    >>> from tempfile import TemporaryDirectory
    >>> from karmma_ros.bags.reader import Bag
    >>> from karmma_ros.bags.writer import BagWriter
    >>> import numpy as np
    >>> with TemporaryDirectory() as folder:
    ...     with BagWriter(Path(folder, 'short.mcap')) as bag:
    ...         bag.image(1_000_000_000, np.zeros((48, 64, 3), np.uint8))
    ...     with Bag(Path(folder, 'short.mcap')) as bag:
    ...         [topic.name for topic in bag.topics.values()]
    ['/image']
    """

    def __init__(
        self, path: Path | str, *, storage: str = 'mcap', topics: Topics | None = None
    ) -> None:
        """
        Prepare to write to a path.

        :raises InvalidSettingError: when the path exists or the storage is unknown.
        """
        self.path, self.topics = Path(path), topics or Topics()
        self._storage = _storage_of(self.path, storage)
        if self.path.exists():
            raise InvalidSettingError('output path', str(path), 'a path that does not exist yet',
                                      'remove it or choose another')
        self._types = _TypeSource()
        self._connections: dict[str, Connection] = {}
        self._counts: Counter[str] = Counter()
        self._stack = contextlib.ExitStack()

    def __enter__(self) -> BagWriter:
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            # The same folder, so that the last step is a rename and never a copy.
            self._bag = self._stack.enter_context(
                scratch_folder(self.path.parent)) / self.path.stem
        except OSError as error:
            raise InvalidSettingError('output path', str(self.path), 'a path that can be '
                                      'written to', error.strerror or str(error)) from None
        # Humble reads version 8, as does everything after it, but not 9.
        self._writer = Writer(self._bag, version=8, storage_plugin=self._storage)
        self._writer.open()
        return self

    def __exit__(self, failure: type[BaseException] | None, *_: object) -> None:
        with self._stack:
            if failure is not None:
                self._writer.abort()
                return
            self._writer.close()
            self._move_to_path()

    def image(
        self, stamp_ns: int, image: np.ndarray, frame_id: str = 'camera_optical_frame'
    ) -> None:
        """Add an RGB image, uint8 `[h, w, 3]`."""
        self._image(self.topics.image, 'rgb8', stamp_ns, image, frame_id)

    def flow(
        self, stamp_ns: int, field: np.ndarray, frame_id: str = 'camera_optical_frame'
    ) -> None:
        """Add the optical flow since the previous message, pixels (x, y) `[h, w, 2]`."""
        self._image(self.topics.flow, '32FC2', stamp_ns, field.astype('<f4'), frame_id)

    def audio(
        self, stamp_ns: int, samples: np.ndarray, received_ns: int,
        frame_id: str = 'microphone',
    ) -> None:
        """
        Add mono audio, float32 `[n]` in [-1, 1], as S16LE.

        :param stamp_ns: time of the first sample.
        :param received_ns: time at which the message was complete.
        """
        pcm = np.round(np.clip(samples, -1, 1) * 32767).astype('<i2')
        message = self._new(
            AUDIO_DATA_STAMPED, header=self._header(stamp_ns, frame_id),
            audio=self._new('audio_common_msgs/msg/AudioData', data=pcm.view(np.uint8)))
        self._write(self.topics.audio, AUDIO_DATA_STAMPED, received_ns, message)

    def detections(
        self, stamp_ns: int, boxes: Sequence[Sequence[float]], classes: Sequence[str],
        scores: Sequence[float] | None = None, frame_id: str = 'camera_optical_frame',
    ) -> None:
        """Add the boxes of one image, pixels (x1, y1, x2, y2), with one class name each."""
        header = self._header(stamp_ns, frame_id)
        scores = [1.0] * len(classes) if scores is None else scores
        detections = [self._detection(header, *each) for each in zip(boxes, classes, scores)]
        message = self._new(DETECTIONS, header=header, detections=detections)
        self._write(self.topics.detections, DETECTIONS, stamp_ns, message)

    def annotation(
        self, start_ns: int, end_ns: int, verb: tuple[int, str], noun: tuple[int, str],
        subject_id: str = '',
    ) -> None:
        """Add a ground-truth action in [start_ns, end_ns), its classes as (id, name)."""
        message = self._new(
            TRUTH_TYPE, header=self._header(start_ns, ''), end=self._time(end_ns),
            verb_id=verb[0], verb=verb[1], noun_id=noun[0], noun=noun[1], subject_id=subject_id)
        self._write(self.topics.truth, TRUTH_TYPE, start_ns, message)

    def imu(
        self, stamp_ns: int, acceleration: Sequence[float], rotation: Sequence[float],
        frame_id: str = 'imu',
    ) -> None:
        """Add a sample of an inertial sensor, m/s² `[3]` and rad/s `[3]`."""
        message = self._new(
            IMU, header=self._header(stamp_ns, frame_id), orientation=self._new(
                'geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0),
            orientation_covariance=np.array([-1.0, *[0.0] * 8]),  # -1: there is none
            linear_acceleration=self._vector(acceleration),
            angular_velocity=self._vector(rotation),
            linear_acceleration_covariance=np.zeros(9), angular_velocity_covariance=np.zeros(9))
        self._write(self.topics.imu, IMU, stamp_ns, message)

    def skeleton(
        self, stamp_ns: int, joints: np.ndarray, frame_id: str = 'camera_optical_frame'
    ) -> None:
        """Add the joints of a person as poses, metres `[joints, 3]`."""
        poses = [self._new(
            'geometry_msgs/msg/Pose', position=self._new(
                'geometry_msgs/msg/Point', **dict(zip('xyz', map(float, joint)))),
            orientation=self._new('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0))
            for joint in joints]
        message = self._new(POSES, header=self._header(stamp_ns, frame_id), poses=poses)
        self._write(self.topics.skeleton, POSES, stamp_ns, message)

    def summary(self) -> str:
        """Return the number of messages of each topic, as text."""
        return ', '.join(f'{n} {topic}' for topic, n in self._counts.items()) or 'nothing'

    def _move_to_path(self) -> None:
        if self.path.suffix in _SUFFIXES:
            shutil.move(self._bag / f'{self._bag.name}{self.path.suffix}', self.path)
        else:
            shutil.move(self._bag, self.path)

    def _write(self, topic: str, type_name: str, time_ns: int, message: object) -> None:
        self._counts[topic] += 1
        if topic not in self._connections:
            self._connections[topic] = self._writer.add_connection(
                topic, type_name, typestore=self._types.store(type_name),
                offered_qos_profiles=[_LATCHED if type_name == TRUTH_TYPE else _RELIABLE])
        data = self._types.store(type_name).serialize_cdr(message, type_name)
        self._writer.write(self._connections[topic], time_ns, data)

    def _image(
        self, topic: str, encoding: str, stamp_ns: int, pixels: np.ndarray, frame_id: str
    ) -> None:
        height, width, channels = pixels.shape
        message = self._new(
            IMAGE, header=self._header(stamp_ns, frame_id), height=height, width=width,
            encoding=encoding, is_bigendian=0, step=width * channels * pixels.itemsize,
            data=np.ascontiguousarray(pixels).view(np.uint8).reshape(-1))
        self._write(topic, IMAGE, stamp_ns, message)

    def _detection(
        self, header: object, box: Sequence[float], class_name: str, score: float
    ) -> object:
        x1, y1, x2, y2 = (float(v) for v in box)
        center = self._new(
            'vision_msgs/msg/Pose2D', theta=0.0,
            position=self._new('vision_msgs/msg/Point2D', x=(x1 + x2) / 2, y=(y1 + y2) / 2))
        hypothesis = self._new('vision_msgs/msg/ObjectHypothesis', class_id=class_name,
                               score=float(score))
        return self._new(
            'vision_msgs/msg/Detection2D', header=header, id='',
            results=[self._new('vision_msgs/msg/ObjectHypothesisWithPose',
                               hypothesis=hypothesis, pose=self._no_pose())],
            bbox=self._new('vision_msgs/msg/BoundingBox2D', center=center, size_x=x2 - x1,
                           size_y=y2 - y1))

    def _no_pose(self) -> object:
        pose = self._new(
            'geometry_msgs/msg/Pose',
            position=self._new('geometry_msgs/msg/Point', x=0.0, y=0.0, z=0.0),
            orientation=self._new('geometry_msgs/msg/Quaternion', x=0.0, y=0.0, z=0.0, w=1.0))
        return self._new('geometry_msgs/msg/PoseWithCovariance', pose=pose,
                         covariance=np.zeros(36))

    def _vector(self, values: Sequence[float]) -> object:
        return self._new('geometry_msgs/msg/Vector3', **dict(zip('xyz', map(float, values))))

    def _header(self, stamp_ns: int, frame_id: str) -> object:
        return self._new('std_msgs/msg/Header', stamp=self._time(stamp_ns), frame_id=frame_id)

    def _time(self, stamp_ns: int) -> object:
        sec, nanosec = divmod(stamp_ns, NANOSECONDS)
        return self._new('builtin_interfaces/msg/Time', sec=sec, nanosec=nanosec)

    def _new(self, type_name: str, **fields: Any) -> object:
        return self._types.store(type_name).types[type_name](**fields)


class _TypeSource:
    """Message types by name: common ones, and those on the ament path."""

    def __init__(self) -> None:
        self._store = get_typestore(Stores.ROS2_JAZZY)

    def store(self, type_name: str) -> Typestore:
        if type_name not in self._store.types:
            self._register(type_name.split('/')[0])
        return self._store

    def _register(self, package: str) -> None:
        definitions = list(_definitions(package))
        if not definitions:
            raise MissingTypesError(package)
        types: dict[str, Any] = {}
        for path in definitions:
            types.update(get_types_from_msg(path.read_text(), f'{package}/msg/{path.stem}'))
        self._store.register(types)


def _definitions(package: str) -> Iterator[Path]:
    """Yield the .msg files of a package from the first prefix that has any."""
    for prefix in os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep):
        files = sorted(Path(prefix, 'share', package, 'msg').glob('*.msg')) if prefix else []
        if files:
            yield from files
            return


_SUFFIXES = {'.mcap': StoragePlugin.MCAP, '.db3': StoragePlugin.SQLITE3}
_STORAGES = {'mcap': StoragePlugin.MCAP, 'sqlite3': StoragePlugin.SQLITE3}


def _storage_of(path: Path, storage: str) -> StoragePlugin:
    if path.suffix in _SUFFIXES:
        return _SUFFIXES[path.suffix]
    try:
        return _STORAGES[storage]
    except KeyError:
        raise InvalidSettingError('storage', storage, ' or '.join(_STORAGES)) from None


# Infinite, as rosbag2 itself records an unset deadline.
_NEVER = QosTime(9223372036, 854775807)
_RELIABLE = Qos(
    history=QosHistory.KEEP_LAST, depth=10, reliability=QosReliability.RELIABLE,
    durability=QosDurability.VOLATILE, deadline=_NEVER, lifespan=_NEVER,
    liveliness=QosLiveliness.AUTOMATIC, liveliness_lease_duration=_NEVER,
    avoid_ros_namespace_conventions=False)
# Late subscribers receive the latest annotation, too.
_LATCHED = _RELIABLE._replace(durability=QosDurability.TRANSIENT_LOCAL)
