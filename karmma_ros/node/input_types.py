"""The message types of the inputs, looked up only when needed: not all are installed."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.stream.message_types import (
    AUDIO_BARE,
    AUDIO_DRIVERS,
    AUDIO_TOLD,
    COMPRESSED_IMAGE,
    DETECTIONS,
    IMAGE,
    unread_type,
    YOLO,
)

COMPRESSED = '/compressed'
"""Where image_transport publishes the compressed pictures of a topic."""


def message_class(type_name: str, modality: Modality) -> Any:
    """
    Give the class of a message type such as `sensor_msgs/msg/Image`.

    :raises InvalidSettingError: when its package, which is not required, is not installed.
    """
    package, _, name = type_name.split('/')
    try:
        return getattr(import_module(f'{package}.msg'), name)
    except (ImportError, AttributeError):
        raise _missing(type_name, package, modality) from None


def _missing(type_name: str, package: str, modality: Modality) -> InvalidSettingError:
    off = f'set {modality}.enabled to false'
    if type_name == AUDIO_TOLD:
        return InvalidSettingError(
            'audio.type', type_name, 'a type that is installed',
            'build https://github.com/mgonzs13/audio_common and source its workspace last, for '
            f'another package has its name; or set audio.type to {AUDIO_DRIVERS}, or {off}')
    if type_name == YOLO:
        return InvalidSettingError(
            'detections.type', type_name, 'a type that is installed',
            'build https://github.com/mgonzs13/yolo_ros and source its workspace; or set '
            f'detections.type to {DETECTIONS}, or {off}')
    install = f'install ros-$ROS_DISTRO-{package.replace("_", "-")} and source ROS again'
    if modality is Modality.AUDIO and _installed(AUDIO_TOLD):
        install = f'set audio.type to {AUDIO_TOLD}, which is installed under this name'
    return InvalidSettingError(
        f'{modality}.enabled', True, f'true only where {type_name} is installed',
        f'{install}, or {off}')


def _installed(type_name: str) -> bool:
    package, _, name = type_name.split('/')
    try:
        return hasattr(import_module(f'{package}.msg'), name)
    except ImportError:
        return False


def mend(modality: Modality, topic: str, taken: str, offered: str) -> str:
    """Say what to do about a topic that carries another type than the one that is taken."""
    if (taken, offered) == (IMAGE, COMPRESSED_IMAGE) and modality is Modality.RGB:
        if topic.endswith(COMPRESSED):
            return (f'set rgb.transport to compressed and remap image to '
                    f'{topic[:-len(COMPRESSED)]}')
        return f'set rgb.transport to compressed and remap image/compressed to {topic}'
    if (taken, offered) == (COMPRESSED_IMAGE, IMAGE):
        return f'set rgb.transport to raw and remap image to {topic}'
    if modality is Modality.AUDIO and offered in (AUDIO_BARE, AUDIO_DRIVERS, AUDIO_TOLD):
        return f'set audio.type to {offered}'
    if modality is Modality.DETECTIONS and offered in (DETECTIONS, YOLO):
        return f'set detections.type to {offered}'
    unread = unread_type(offered)
    if unread is not None and unread.modality is modality:
        return unread.cure.format(topic=topic)
    name = 'image' if modality is Modality.RGB else modality
    return f'remap {name} to a topic of {taken}'
