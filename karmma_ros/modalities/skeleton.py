"""
Joints of one person, in the image or in space.

Shape legend: j joints, d dimensions (2 or 3), t samples of the window.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modalities.modality_type import Values
from karmma_ros.modalities.series import SeriesBuffer, SeriesDecoder, SeriesSpec, SeriesType
from karmma_ros.modalities.series_content import StuckSeries
from karmma_ros.modalities.series_corruptions import SKELETON_CORRUPTIONS
from karmma_ros.preprocess.joints import skeleton_input
import numpy as np
from numpy.typing import NDArray

SKELETON = 'hri_msgs/msg/Skeleton2D'
MARKERS = 'visualization_msgs/msg/MarkerArray'
POSES = 'geometry_msgs/msg/PoseArray'
MOST_JOINTS = 1000
UP = ('x', 'y', 'z')


@dataclass(frozen=True)
class SkeletonSpec(SeriesSpec):
    """How joints become channels; joints are numbered as the messages have them, from 0."""

    type_name: ClassVar[str] = 'skeleton'

    joints: int = 18
    """Joints of a person (j); hri_msgs has 18."""
    dimensions: int = 2
    """2 in the image, or 3 in space (d)."""
    root: tuple[int, ...] = ()
    """Joints whose mean is the origin, such as the hips; empty: the mean of all joints."""
    scale: tuple[int, ...] = ()
    """Two joints whose distance becomes 1, such as head and hip; empty: the root mean square of
    the distances from the origin."""
    shoulders: tuple[int, ...] = ()
    """Left and right joint, whose turn about the vertical is removed in 3-D; empty: it stays."""
    up: str = 'z'
    """Vertical axis: z by REP 103, y of many trackers. Its direction does not matter."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.check('joints', type(self.joints) is int and 1 < self.joints <= MOST_JOINTS,
                   f'an integer from 2 to {MOST_JOINTS}')
        self.check('dimensions', self.dimensions in (2, 3), '2 or 3')
        self.check('root', self._are_joints(self.root), f'joints from 0 to {self.joints - 1}')
        for field in ('scale', 'shoulders'):
            pair = getattr(self, field)
            two = not pair or len({*pair}) == len(pair) == 2
            self.check(field, two and self._are_joints(pair),
                       f'empty, or two joints from 0 to {self.joints - 1}')
        self.check('shoulders', not self.shoulders or self.dimensions == 3,
                   'empty with 2 dimensions')
        self.check('up', self.up in UP, 'x, y or z')

    def _are_joints(self, indices: Sequence[int]) -> bool:
        return all(type(each) is int and 0 <= each < self.joints for each in indices)


def _indices(name: str, texts: Sequence[str]) -> list[int]:
    """
    Return the parameter `joints` as numbers; empty: all.

    :raises InvalidSettingError: for anything but numbers from 0 on.
    """
    given = [text.strip() for text in texts if text.strip()]
    if not all(text.isdecimal() and len(text) < 10 for text in given):
        raise InvalidSettingError(
            name, list(texts), "the indices of joints in the message, from 0, as ['0', '1', '4']")
    return [int(text) for text in given]


class SkeletonDecoder(SeriesDecoder):
    """Decode the joints of a person, and check their rate."""

    def read_parameters(self) -> None:
        """Check the indices of joints."""
        _indices(f'{self.modality}.joints', self.parameter('joints'))


_LISTS, _SHAPES = (6, 7, 8), (1, 2, 3)
"""Types of visualization_msgs/Marker: lists of cubes, spheres, points; cube, sphere, cylinder."""
_ADD = 0


class Skeleton(SeriesType):
    """Joints of one person (S)."""

    name, letter, sensor = 'skeleton', 'S', 'the skeleton'
    what = 'the skeleton'
    silence = 'a message with a person after which it is stale'
    spec_class = SkeletonSpec
    read_with = ('joints', 'aspect_ratio', 'namespace')
    message_types = (SKELETON, POSES, MARKERS)
    depth = 10
    timeout = 1.0
    decoder, content_check = SkeletonDecoder, StuckSeries
    corruptions = SKELETON_CORRUPTIONS
    unsupported_names = 'Skeleton', f'publish {SKELETON} or {POSES}'
    encoders = {
        'tiny': ('series_cnn', {'norm': 'batch'}),
        'tiny_causal': ('causal_series', {}),
        'tiny_teacher': ('series_cnn', {'norm': 'batch', 'width': 128}),
    }

    def channels(self, clip: ClipSpec) -> int:
        """Return the number of joints times dimensions."""
        spec: SkeletonSpec = self.spec(clip)
        return spec.joints * spec.dimensions

    def input_shape(self, clip: ClipSpec) -> tuple[int, ...]:
        """Return `[2 · j · d, t]`: positions and movements."""
        return 2 * self.channels(clip), self.spec(clip).samples

    def features(self, series: NDArray[np.float32], clip: ClipSpec) -> NDArray[np.float32]:
        """Return positions and movements."""
        spec: SkeletonSpec = self.spec(clip)
        joints = series.T.reshape(spec.samples, spec.joints, spec.dimensions)
        return skeleton_input(joints, clip.duration / spec.samples, spec.root, spec.scale,
                              spec.shoulders, UP.index(spec.up))

    def check_measured(self, measured: NDArray[np.bool_], clip: ClipSpec) -> None:
        """Refuse a window in which a joint is never seen."""
        missing = np.flatnonzero(~measured.reshape(self.spec(clip).joints, -1).all(1))
        if len(missing):
            raise InvalidSampleError(
                f'{self.modality}: joints {", ".join(map(str, missing))} are not seen in the '
                'window; expected each once or more: train without them '
                f'(clip.inputs.{self.modality}.joints)')

    def buffer(self, clip: ClipSpec) -> SeriesBuffer:
        """Return an empty buffer, in which single joints may be missing."""
        spec: SkeletonSpec = self.spec(clip)
        return SeriesBuffer(clip, self.channels(clip), spec.samples, spec.joints, 'joint')

    def usual_size(self, samples: NDArray[np.float32], clip: ClipSpec) -> float:
        """Return the root mean square of the distances of the joints from their centre."""
        joints = samples.reshape(len(samples), -1, self.spec(clip).dimensions)
        centred = joints - np.nanmean(joints, axis=1, keepdims=True)
        return float(np.sqrt(np.nanmean(np.square(centred).sum(axis=2))))

    def parts(self, clip: ClipSpec) -> int:
        """Return the number of joints."""
        return int(self.spec(clip).joints)

    def read(
        self, message: Any, type_name: str, clip: ClipSpec, values: Values
    ) -> NDArray[np.float32]:
        """Return the coordinates of each joint, `[j · d]`; NaN for one that is not seen."""
        spec: SkeletonSpec = self.spec(clip)
        joints = self._joints(message, type_name, spec.dimensions, values)
        chosen = _indices(f'{self.modality}.joints', values[f'{self.modality}.joints'])
        if chosen and max(chosen) < len(joints):
            joints = joints[chosen]
        if len(joints) != spec.joints or (chosen and len(chosen) != spec.joints):
            raise self.invalid(
                f'got {len(joints)} joints; expected {spec.joints}, as the model takes: have the '
                'tracker send the joints that it was trained on, of one person, or set '
                'skeleton.joints to their indices in the message')
        seen = np.isfinite(joints).all(1)
        joints[~seen] = np.nan
        if not seen.any():
            raise self.invalid(
                f'got no joint of {spec.joints} (NaN, or a confidence up to '
                'skeleton.min_confidence); expected a person in view')
        if seen.sum() > 1 and not np.ptp(joints[seen], axis=0).any():
            raise self.invalid('got joints that all coincide; expected a person in view')
        return joints.reshape(-1)

    def _joints(
        self, message: Any, type_name: str, dimensions: int, values: Values
    ) -> NDArray[np.float32]:
        """Return what a message has, `[joints, d]`."""
        name = self.modality
        if type_name == SKELETON:
            if dimensions == 3:
                raise self.invalid(
                    f'got {SKELETON}, which lies in the image; expected joints in space, as the '
                    f'model takes: set skeleton.type to {POSES} or {MARKERS}')
            least, aspect = values[f'{name}.min_confidence'], values[f'{name}.aspect_ratio']
            points = [(point.x * aspect, point.y) if point.c > least else (np.nan, np.nan)
                      for point in message.skeleton[:MOST_JOINTS + 1]]
            return np.array(points, np.float32).reshape(-1, 2)
        if type_name == POSES:
            marked = [pose.position for pose in message.poses[:MOST_JOINTS + 1]]
        else:
            marked = _marked(message.markers, values[f'{name}.namespace'])[:MOST_JOINTS + 1]
        in_space = [(point.x, point.y, point.z) for point in marked]
        return np.array(in_space, np.float32).reshape(-1, 3)[:, :dimensions]

    def parameters(self) -> tuple[Declaration, ...]:
        """Return how messages are to be understood."""
        name = self.modality
        return (
            Declaration(f'{name}.type', POSES, f'Message type of the {name} topic: points of one '
                        f'person in the order of the joints, or {SKELETON}, joints in the image.',
                        choices=self.message_types),
            Declaration(f'{name}.joints', [''], "Index in the message of each of the model's "
                        "joints, from 0, as ['0', '1', '4']; empty: the message has the same "
                        'joints in the same order.'),
            Declaration(f'{name}.min_confidence', 0.0, f'Joints of {SKELETON} with a confidence '
                        'up to this are not seen.', (0.0, 1.0)),
            Declaration(f'{name}.aspect_ratio', 1.0, f'Width of the image of {SKELETON} divided '
                        'by its height: x is multiplied with it. 1 where the training data has '
                        'fractions of the image, too.', (0.01, 100.0)),
            Declaration(f'{name}.namespace', '', f'Markers of {MARKERS} with this ns are the '
                        'joints; empty: all of them.'),
        )


def _marked(markers: Sequence[Any], namespace: str) -> list[Any]:
    """
    Return the points of the markers that are joints, in order.

    They are those of the first marker that is a list of points; else the positions of cubes,
    spheres and cylinders, by their ids. Lines, text and so on are not joints.
    """
    shown = [each for each in markers
             if each.action == _ADD and namespace in ('', each.ns)]
    for each in shown:
        if each.type in _LISTS:
            return list(each.points)
    single = sorted((each for each in shown if each.type in _SHAPES), key=lambda each: each.id)
    return [each.pose.position for each in single]
