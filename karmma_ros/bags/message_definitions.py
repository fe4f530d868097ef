"""
Message types for reading: those that the bag defines itself, else those known here.

Bags of Iron and later hold the definition of every type. Those of Humble in sqlite3 do not:
for them the types that the node takes are known here, as they were in 2022.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from io import BytesIO
import os
from pathlib import Path
import struct
from typing import Any

import karmma_ros
from karmma_ros.bags.limits import MOST_BYTES, MOST_DEFINITION, MOST_FIELDS, MOST_NAME, MOST_NESTED
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
# Another package of the same name: whoever has AudioStamped has these.
_OTHER_AUDIO = {
    'AudioData':
        'float32[] float32_data\nint32[] int32_data\nint16[] int16_data\nint8[] int8_data\n'
        'uint8[] uint8_data',
    'AudioInfo': 'int32 format\nint32 channels\nint32 rate\nint32 chunk',
    'Audio':
        'audio_common_msgs/AudioData audio_data\naudio_common_msgs/AudioInfo info',
    'AudioStamped': 'std_msgs/Header header\naudio_common_msgs/Audio audio',
}


class TypeReader:
    """Turn the bytes of one type into messages."""

    def __init__(self, type_name: str, definition: MessageDefinition | None) -> None:
        """
        Take the definition that the bag holds, if it holds one.

        :raises ValueError: for a type that neither the bag nor this package defines.
        """
        self.type_name = type_name
        self._store = _store(type_name, definition)
        nested = check_fields(type_name, self._store.fielddefs)
        self._most_bytes = MOST_NESTED if nested else MOST_BYTES

    def __call__(self, data: bytes) -> Any:
        """
        Return the message.

        :raises ValueError: for bytes that are none of this type.
        """
        if len(data) > self._most_bytes:
            raise ValueError(f'a {self.type_name} has {len(data):,} bytes; expected at most '
                             f'{self._most_bytes:,}')
        try:
            return self._store.deserialize_cdr(data, self.type_name)
        except Exception as error:  # a damaged message may break the decoder anywhere
            raise ValueError(f'the bytes are no {self.type_name} '
                             f'({type(error).__name__}: {error})') from None


def _store(type_name: str, definition: MessageDefinition | None) -> Typestore:
    types: dict[str, Any] = {}
    if definition is not None and 0 < len(definition.data) <= MOST_DEFINITION:
        try:
            types = _parse(type_name, definition)
            check_fields(type_name, types)
        except Exception:  # whatever the parser meets, the type may still be known here
            types = {}
    if type_name in types:
        store = get_typestore(Stores.EMPTY)
        try:
            store.register(types)
            store.generate_msgdef(type_name, ros_version=2)  # needs all that it is made of
            return store
        except Exception:  # an incomplete definition
            pass
    return _known(type_name)


def check_fields(type_name: str, types: Mapping[str, Any]) -> bool:
    """
    Return whether a type has arrays of messages or strings, which take much memory.

    :param types: as the rosbags library has them, by name.
    :raises ValueError: for a type that holds itself, more than `MOST_FIELDS` fields, or arrays of
        messages without any field: in a few bytes there may be billions of them.
    """
    sizes: dict[str, int] = {}
    nested = False

    def size(name: str, outer: tuple[str, ...]) -> int:
        nonlocal nested
        if name in outer:
            raise ValueError(f'{name} holds itself')
        if name not in sizes:
            total = 0
            for _, (kind, content) in types[name][1]:
                is_list = kind in (Nodetype.ARRAY, Nodetype.SEQUENCE)
                inner, what = content[0] if is_list else (kind, content)
                fields = size(what, (*outer, name)) if inner == Nodetype.NAME else 1
                if is_list and not fields:
                    raise ValueError(f'{name} has an array of {what}, which has no field')
                if is_list and (inner == Nodetype.NAME or what[0] in ('string', 'wstring')):
                    nested = True
                    fields *= content[1] if kind == Nodetype.ARRAY else 1
                total += fields
            sizes[name] = total
        if sizes[name] > MOST_FIELDS:
            raise ValueError(f'{name} has more than {MOST_FIELDS:,} fields')
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


def _known(type_name: str) -> Typestore:
    store = get_typestore(Stores.ROS2_HUMBLE)
    if type_name in store.types:
        return store
    package, _, name = type_name.partition('/msg/')
    texts = _texts(package, name)
    if name not in texts:
        raise ValueError(f'the bag does not define {type_name}, nor is it known here')
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
    found = next((f for f in folders if (f / f'{name}.msg').is_file()), None)
    return {} if found is None else {p.stem: p.read_text() for p in sorted(found.glob('*.msg'))}


SCHEMA, CHANNEL = 3, 4
LONGEST_DEFINITION = 4 << 20
"""Bytes of a record of a schema or a channel."""
_FORMATS = {'ros2msg': MessageDefinitionFormat.MSG, 'ros2idl': MessageDefinitionFormat.IDL,
            'omgidl': MessageDefinitionFormat.IDL}


@dataclass
class FileTopic:
    """One topic of one file."""

    name: str
    type: str
    encoding: str
    """Of its messages; `cdr` is what can be read."""
    definition: MessageDefinition | None = None
    count: int = 0
    qos: str = ''
    """What its publishers offered, YAML as rosbag2 writes it; '' where that is not known."""


class Definitions:
    """Those of one file; the first one of a number counts."""

    def __init__(self, lost: Counter[str]) -> None:
        """Take where to count definitions that are of no use."""
        self.topics: dict[int, FileTopic] = {}
        self._schemas: dict[int, tuple[str, str, str]] = {}
        self._contradictions: set[tuple[str, ...]] = set()
        self._lost = lost

    def take(self, kind: int, data: bytes) -> None:
        """Read the record of a schema or a channel."""
        fields = BytesIO(data)
        try:
            if kind == SCHEMA:
                self._take_schema(fields)
            else:
                self._take_channel(fields)
        except (struct.error, ValueError):  # UnicodeDecodeError is one, too
            self._lost['unreadable definitions'] += 1

    def _take_schema(self, fields: BytesIO) -> None:
        (number,) = struct.unpack('<H', fields.read(2))
        schema = _text(fields, MOST_NAME), _text(fields, MOST_NAME), _text(fields)
        self._check_same(self._schemas.setdefault(number, schema), schema)

    def _take_channel(self, fields: BytesIO) -> None:
        number, schema = struct.unpack('<HH', fields.read(4))
        name, encoding = _text(fields, MOST_NAME), _text(fields, MOST_NAME)
        type_name, form, text = self._schemas.get(schema, ('', '', ''))
        definition = MessageDefinition(_FORMATS[form], text) if form in _FORMATS else None
        topic = FileTopic(name, type_name, encoding, definition, qos=_qos(fields))
        first = self.topics.setdefault(number, topic)
        self._check_same((first.name, first.type), (name, type_name))

    def _check_same(self, first: tuple[str, ...], second: tuple[str, ...]) -> None:
        if first != second and second not in self._contradictions:
            self._contradictions.add(second)
            self._lost['definitions that contradict an earlier one of the same number'] += 1


def _text(fields: BytesIO, most: int = LONGEST_DEFINITION) -> str:
    (length,) = struct.unpack('<I', fields.read(4))
    data = fields.read(min(length, most))
    if len(data) != length:
        raise ValueError('a text is cut off or too long')
    return data.decode()


def _qos(fields: BytesIO) -> str:
    """Read what the publishers offered from what a channel has beside its name."""
    fields.read(4)
    while fields.tell() < len(fields.getbuffer()):
        name, text = _text(fields), _text(fields)
        if name == 'offered_qos_profiles':
            return text
    return ''
