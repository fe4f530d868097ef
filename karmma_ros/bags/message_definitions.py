"""
Topics and the definitions of their message types.

Bags of Iron and later contain the definition of every type. Those of Humble in sqlite3 do not:
for them, this module defines the types that the node subscribes to, as they were in 2022.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import os
from pathlib import Path
from typing import Any

import karmma_ros
from karmma_ros.bags.limits import MAX_DEFINITION, MAX_FIELDS, MAX_MESSAGE, MAX_NESTED
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat, Nodetype
from rosbags.typesys import get_types_from_idl, get_types_from_msg, get_typestore, Stores
from rosbags.typesys.store import Typestore

_IDL_SEPARATOR = '=' * 80 + '\n'

_VISION = {
    'Point2D': 'float64 x\nfloat64 y',
    'Pose2D': 'vision_msgs/Point2D position\nfloat64 theta',
    'BoundingBox2D': 'vision_msgs/Pose2D center\nfloat64 size_x\nfloat64 size_y',
    'ObjectHypothesis': 'string class_id\nfloat64 score',
    'ObjectHypothesisWithPose':
        'vision_msgs/ObjectHypothesis hypothesis\ngeometry_msgs/PoseWithCovariance pose',
    'Detection2D':
        'std_msgs/Header header\nvision_msgs/ObjectHypothesisWithPose[] results\n'
        'vision_msgs/BoundingBox2D bbox\nstring id',
    'Detection2DArray': 'std_msgs/Header header\nvision_msgs/Detection2D[] detections',
}
_YOLO = {
    'Point2D': 'float64 x\nfloat64 y',
    'Vector2': 'float64 x\nfloat64 y',
    'Pose2D': 'yolo_msgs/Point2D position\nfloat64 theta',
    'BoundingBox2D': 'yolo_msgs/Pose2D center\nyolo_msgs/Vector2 size',
    'BoundingBox3D': 'geometry_msgs/Pose center\ngeometry_msgs/Vector3 size\nstring frame_id',
    'Mask': 'int32 height\nint32 width\nyolo_msgs/Point2D[] data',
    'KeyPoint2D': 'int32 id\nyolo_msgs/Point2D point\nfloat64 score',
    'KeyPoint2DArray': 'yolo_msgs/KeyPoint2D[] data',
    'KeyPoint3D': 'int32 id\ngeometry_msgs/Point point\nfloat64 score',
    'KeyPoint3DArray': 'yolo_msgs/KeyPoint3D[] data\nstring frame_id',
    'Detection':
        'int32 class_id\nstring class_name\nfloat64 score\nstring id\n'
        'yolo_msgs/BoundingBox2D bbox\nyolo_msgs/BoundingBox3D bbox3d\nyolo_msgs/Mask mask\n'
        'yolo_msgs/KeyPoint2DArray keypoints\nyolo_msgs/KeyPoint3DArray keypoints3d',
    'DetectionArray': 'std_msgs/Header header\nyolo_msgs/Detection[] detections',
}
_AUDIO = {
    'AudioData': 'uint8[] data',
    'AudioDataStamped': 'std_msgs/Header header\naudio_common_msgs/AudioData audio',
    'AudioInfo':
        'uint8 channels\nuint32 sample_rate\nstring sample_format\nuint32 bitrate\n'
        'string coding_format',
}
# A different package of the same name, which alone has AudioStamped.
_OTHER_AUDIO = {
    'AudioData':
        'float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\n'
        'uint8[] uint8_data',
    'AudioInfo': 'int32 format\nint32 channels\nint32 rate\nint32 chunk',
    'Audio':
        'audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info',
    'AudioStamped': 'std_msgs/Header header\naudio_common_msgs/Audio audio',
}


@dataclass
class Topic:
    """One topic of a bag, or of one of its files."""

    name: str
    type: str
    encoding: str = 'cdr'
    """Encoding of the messages; only `cdr` can be read."""
    definition: MessageDefinition | None = None
    """Definition of the type in the bag; None without one."""
    count: int = 0
    qos: str = ''
    """QoS that its publishers offered, YAML as rosbag2 writes it; '' where it is not known."""


class TypeReader:
    """Deserialize the messages of one type."""

    def __init__(self, type_name: str, definition: MessageDefinition | None) -> None:
        """
        Prepare a type.

        :param definition: the one in the bag, if it contains one.
        :raises ValueError: for a type that neither the bag nor this package defines.
        """
        self.type_name = type_name
        self._store = _store(type_name, definition)
        nested = check_fields(type_name, self._store.fielddefs)
        self._max_bytes = MAX_NESTED if nested else MAX_MESSAGE

    def __call__(self, data: bytes) -> Any:
        """
        Return the message.

        :raises ValueError: for bytes that are not a message of this type.
        """
        if len(data) > self._max_bytes:
            raise ValueError(f'a {self.type_name} has {len(data):,} bytes; expected at most '
                             f'{self._max_bytes:,}')
        try:
            return self._store.deserialize_cdr(data, self.type_name)
        except Exception as error:  # a damaged message may break the decoder anywhere
            raise ValueError(f'the bytes are no {self.type_name} '
                             f'({type(error).__name__}: {error})') from None

    def new(self, type_name: str, **fields: Any) -> Any:
        """Return a message of this type, or of one that it contains."""
        return self._store.types[type_name](**fields)

    def write(self, message: Any) -> bytes:
        """Return the bytes of a message."""
        return bytes(self._store.serialize_cdr(message, self.type_name))


def _store(type_name: str, definition: MessageDefinition | None) -> Typestore:
    types: dict[str, Any] = {}
    if definition is not None and 0 < len(definition.data) <= MAX_DEFINITION:
        try:
            types = _parse(type_name, definition)
            check_fields(type_name, types)
        except Exception:  # the type may still be defined here
            types = {}
    if type_name in types:
        store = get_typestore(Stores.EMPTY)
        try:
            store.register(types)
            store.generate_msgdef(type_name, ros_version=2)  # fails if a nested type is missing
            return store
        except Exception:  # an incomplete definition
            pass
    return _predefined(type_name)


def check_fields(type_name: str, types: Mapping[str, Any]) -> bool:
    """
    Return whether a type has arrays of messages or strings, which take much memory.

    :param types: by name, as the rosbags library represents them.
    :raises ValueError: for a type that contains itself, has more than `MAX_FIELDS` fields, or
        has arrays of messages without fields: a few bytes may stand for billions of them.
    """
    sizes: dict[str, int] = {}
    nested = False

    def size(name: str, outer: tuple[str, ...]) -> int:
        nonlocal nested
        if name in outer:
            raise ValueError(f'{name} contains itself')
        if name not in sizes:
            total = 0
            for _, (node, content) in types[name][1]:
                is_list = node in (Nodetype.ARRAY, Nodetype.SEQUENCE)
                inner, element = content[0] if is_list else (node, content)
                fields = size(element, (*outer, name)) if inner == Nodetype.NAME else 1
                if is_list and not fields:
                    raise ValueError(f'{name} has an array of {element}, which has no field')
                if is_list and (inner == Nodetype.NAME or element[0] in ('string', 'wstring')):
                    nested = True
                    fields *= content[1] if node == Nodetype.ARRAY else 1
                total += fields
            sizes[name] = total
        if sizes[name] > MAX_FIELDS:
            raise ValueError(f'{name} has more than {MAX_FIELDS:,} fields')
        return sizes[name]

    size(type_name, ())
    return nested


def _parse(type_name: str, definition: MessageDefinition) -> dict[str, Any]:
    text = definition.data
    if definition.format is MessageDefinitionFormat.MSG:
        return dict(get_types_from_msg(text, type_name))
    if not text.startswith(f'{_IDL_SEPARATOR}IDL: '):
        return dict(get_types_from_idl(text))
    types: dict[str, Any] = {}
    for part in text.split(_IDL_SEPARATOR)[1:]:
        types.update(get_types_from_idl(part.split('\n', 1)[1]))
    return types


def _predefined(type_name: str) -> Typestore:
    store = get_typestore(Stores.ROS2_HUMBLE)
    if type_name in store.types:
        return store
    package, _, name = type_name.partition('/msg/')
    texts = _texts(package, name)
    if name not in texts:
        raise ValueError(f'the bag does not define {type_name}, and it is not predefined')
    types: dict[str, Any] = {}
    for each, text in texts.items():
        types.update(get_types_from_msg(text, f'{package}/msg/{each}'))
    store.register({key: value for key, value in types.items() if key not in store.types})
    return store


def _texts(package: str, name: str) -> dict[str, str]:
    """Return name → definition of the types of a package."""
    if package == 'vision_msgs':
        return _VISION
    if package == 'yolo_msgs':
        return _YOLO
    if package == 'audio_common_msgs':
        return _OTHER_AUDIO if name in ('AudioStamped', 'Audio') else _AUDIO
    prefixes = os.environ.get('AMENT_PREFIX_PATH', '').split(os.pathsep)
    folders = [Path(prefix, 'share', package, 'msg') for prefix in prefixes if prefix]
    folders.append(Path(karmma_ros.__file__).parents[1] / package / 'msg')
    folder = next((f for f in folders if (f / f'{name}.msg').is_file()), None)
    return {} if folder is None else {p.stem: p.read_text() for p in sorted(folder.glob('*.msg'))}
