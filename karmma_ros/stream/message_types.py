"""The names of the message types that the inputs can have, and of known ones that they cannot."""

from __future__ import annotations

from collections.abc import Mapping
import re
from typing import NamedTuple

from karmma_ros.modality import Modality

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
DETECTIONS = 'vision_msgs/msg/Detection2DArray'
YOLO = 'yolo_msgs/msg/DetectionArray'
"""Of mgonzs13's yolo_ros."""
AUDIO_DATA = 'audio_common_msgs/msg/AudioData'
AUDIO_DATA_STAMPED = 'audio_common_msgs/msg/AudioDataStamped'
AUDIO_STAMPED = 'audio_common_msgs/msg/AudioStamped'
"""Of another project, mgonzs13's, whose package has the same name; it states its format."""
AUDIO_INFO = 'audio_common_msgs/msg/AudioInfo'


class UnsupportedType(NamedTuple):
    """A type that carries what a modality is, in a form that is not read."""

    modality: Modality
    remedy: str
    """What to do about it; `{topic}` stands for the name of the topic."""


def _transport(name: str) -> UnsupportedType:
    """Return how to decode what a plugin of image_transport publishes."""
    return UnsupportedType(
        Modality.RGB, f'republish it raw: `ros2 run image_transport republish {name} raw '
        f'--ros-args -p in_transport:={name} -p out_transport:=raw -r in/{name}:={{topic}} '
        '-r out:=/image`')  # arguments for Humble, parameters from Iron on


_BY_DECODER = 'decode it to sensor_msgs/msg/Image with a node of its project'
_BOXES = f'have the detector publish {DETECTIONS} or {YOLO}'
_IN_SPACE = f'its boxes are in metres: publish those of the image as {DETECTIONS}'
_SAMPLES = f'publish its samples as {AUDIO_DATA_STAMPED}'
_DENSE = f'it holds no flow for each pixel: publish {IMAGE} of encoding 32FC2'

UNSUPPORTED: Mapping[str, UnsupportedType] = {
    'ffmpeg_image_transport_msgs/msg/FFMPEGPacket': _transport('ffmpeg'),
    'theora_image_transport/msg/Packet': _transport('theora'),
    'h264_msgs/msg/Packet': _transport('h264'),
    'foxglove_msgs/msg/CompressedVideo': UnsupportedType(
        Modality.RGB,
        f'it is H.264, H.265, VP9 or AV1: publish {COMPRESSED_IMAGE} (jpeg), or '
        'decode it with foxglove_compressed_video_transport',
    ),
    'foxglove_msgs/msg/CompressedImage': UnsupportedType(
        Modality.RGB, f'publish it as {COMPRESSED_IMAGE}'
    ),
    'foxglove_msgs/msg/RawImage': UnsupportedType(Modality.RGB, f'publish it as {IMAGE}'),
    'foxglove_msgs/msg/RawAudio': UnsupportedType(Modality.AUDIO, _SAMPLES),
    'realsense2_camera_msgs/msg/RGBD': UnsupportedType(
        Modality.RGB, 'take the colour topic that the driver publishes beside it'
    ),
    'rtabmap_msgs/msg/RGBDImage': UnsupportedType(
        Modality.RGB, 'take the colour topic that it was made of'
    ),
    'hbm_img_msgs/msg/HbmMsg1080P': UnsupportedType(Modality.RGB, _BY_DECODER),
    'vision_msgs/msg/Detection3DArray': UnsupportedType(Modality.DETECTIONS, _IN_SPACE),
    'vision_msgs/msg/Detection3D': UnsupportedType(Modality.DETECTIONS, _IN_SPACE),
    'vision_msgs/msg/BoundingBox3DArray': UnsupportedType(Modality.DETECTIONS, _IN_SPACE),
    'vision_msgs/msg/Detection2D': UnsupportedType(
        Modality.DETECTIONS, f'publish all boxes of an image in one {DETECTIONS}'
    ),
    'vision_msgs/msg/BoundingBox2DArray': UnsupportedType(
        Modality.DETECTIONS, f'its boxes have no class: {_BOXES}'
    ),
    'yolov8_msgs/msg/DetectionArray': UnsupportedType(
        Modality.DETECTIONS, f'update yolo_ros to version 4 or later, which publishes {YOLO}'
    ),
    'ultralytics_ros/msg/YoloResult': UnsupportedType(
        Modality.DETECTIONS, f'publish its field detections, a {DETECTIONS}'
    ),
    'darknet_ros_msgs/msg/BoundingBoxes': UnsupportedType(Modality.DETECTIONS, _BOXES),
    'depthai_ros_msgs/msg/SpatialDetectionArray': UnsupportedType(Modality.DETECTIONS, _BOXES),
    'zed_msgs/msg/ObjectsStamped': UnsupportedType(Modality.DETECTIONS, _BOXES),
    'zed_interfaces/msg/ObjectsStamped': UnsupportedType(Modality.DETECTIONS, _BOXES),
    'ai_msgs/msg/PerceptionTargets': UnsupportedType(Modality.DETECTIONS, _BOXES),
    'audio_utils_msgs/msg/AudioFrame': UnsupportedType(Modality.AUDIO, _SAMPLES),
    'audio_common_msgs/msg/Audio': UnsupportedType(
        Modality.AUDIO, f'publish it within {AUDIO_STAMPED}'
    ),
    'mavros_msgs/msg/OpticalFlow': UnsupportedType(Modality.FLOW, _DENSE),
    'mavros_msgs/msg/OpticalFlowRad': UnsupportedType(Modality.FLOW, _DENSE),
    'px4_msgs/msg/SensorOpticalFlow': UnsupportedType(Modality.FLOW, _DENSE),
}
"""Known types of cameras, microphones and detectors that no input can have."""

_READ = (IMAGE, COMPRESSED_IMAGE, DETECTIONS, YOLO, AUDIO_DATA, AUDIO_DATA_STAMPED, AUDIO_STAMPED)
# What is drawn over images, describes them or is depth is no image; nor are these boxes.
_BESIDE = re.compile(
    r'Info|Marker|Annotation|Status|Config|Disparity|Depth|AprilTag|Aruco|Hazard|Collision')
_BY_NAME = (
    (Modality.FLOW, re.compile(r'OpticalFlow'), f'publish {IMAGE} of encoding 32FC2'),
    (Modality.RGB, re.compile(r'Image|Video|JPEG|H26[45]', re.IGNORECASE),
     f'publish {IMAGE} or {COMPRESSED_IMAGE}'),
    (Modality.AUDIO, re.compile(r'Audio|PCM', re.IGNORECASE), f'publish {AUDIO_DATA_STAMPED}'),
    (Modality.DETECTIONS, re.compile(r'Detection|BoundingBox|Detected', re.IGNORECASE), _BOXES),
)


def unsupported_type(type_name: str) -> UnsupportedType | None:
    """
    Return what a type that no input can have carries, and what to do about it; None for others.

    A type that is not in `UNSUPPORTED` is judged by the words in its name.
    """
    if type_name in _READ:
        return None
    name = type_name.rpartition('/')[2]
    if type_name in UNSUPPORTED or _BESIDE.search(name):
        return UNSUPPORTED.get(type_name)
    return next((UnsupportedType(modality, remedy) for modality, words, remedy in _BY_NAME
                 if words.search(name)), None)
