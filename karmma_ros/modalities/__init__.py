"""
Modalities: one module for each type, and the functions that find them.

Names and order are in `karmma_ros.modality`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from functools import cache
import re
from typing import Any, NamedTuple

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities.modality_type import ModalityType
from karmma_ros.modality import in_order, load_type, Modality, registered_types


@cache
def modality_type(modality: Modality) -> ModalityType:
    """
    Return the type of a modality, for this one.

    >>> from karmma_ros.clip import ClipSpec
    >>> from karmma_ros.modalities import modality_type
    >>> from karmma_ros.modality import Modality
    >>> modality_type(Modality('rgb_wrist')).topic_name
    'image_wrist'
    >>> modality_type(Modality.FLOW).source(ClipSpec())
    'rgb'

    :raises InvalidSettingError: when its class cannot be loaded, or is no `ModalityType`.
    """
    entry = registered_types()[modality.type_name]
    loaded = load_type(modality.type_name, entry.location)
    if not (isinstance(loaded, type) and issubclass(loaded, ModalityType)):
        raise InvalidSettingError(
            f'modality type {modality.type_name}', entry.location,
            'a subclass of karmma_ros.modalities.modality_type.ModalityType')
    return loaded(modality)


def input_modalities(
    modalities: Iterable[Modality], clip: ClipSpec,
) -> tuple[Modality, ...]:
    """Return the modalities of a network, and those that some are computed from, in order."""
    own = tuple(modalities)
    return in_order([*own, *sources_of(own, clip).values()])


def sources_of(modalities: Iterable[Modality], clip: ClipSpec) -> dict[Modality, Modality]:
    """Return the modality that each derived one can be computed from."""
    sources = {m: modality_type(m).source(clip) for m in modalities}
    return {m: source for m, source in sources.items() if source is not None}


def input_of(modality: Modality, clip: ClipSpec, with_topic: Collection[Modality]) -> Modality:
    """
    Return the modality whose messages a modality is made of.

    :param with_topic: modalities with a topic of their own though they could be computed.
    """
    return modality if modality in with_topic else modality_type(modality).source(clip) or modality


def make_clip(clip: ClipSpec, arrays: Mapping[Modality, Any]) -> Clip:
    """
    Turn the samples of a window into the network's inputs.

    :param arrays: modality → what `ModalityType.prepare` of it takes.
    :raises InvalidSampleError: for another type or shape, NaN or infinity.
    """
    return Clip({m: modality_type(m).prepare(each, clip) for m, each in arrays.items()})


class UnsupportedType(NamedTuple):
    """A message type that has the data of a modality, in a form that is not read."""

    modality: Modality
    remedy: str
    """What to do about it; `{topic}` stands for the name of the topic."""


# What is drawn over images, describes them or is disparity is no image; nor are these boxes.
_BESIDE = re.compile(
    r'Info|Marker|Annotation|Status|Config|Disparity|Depth|AprilTag|Aruco|Hazard|Collision')


def unsupported_type(type_name: str) -> UnsupportedType | None:
    """
    Return what a message type that no input can have holds, and what to do; None for others.

    A type that no modality knows is judged by the words in its name.
    """
    types = [modality_type(Modality(name)) for name in registered_types()]
    if any(type_name in each.message_types for each in types):
        return None
    for each in types:
        if type_name in each.unsupported:
            return UnsupportedType(each.modality, each.unsupported[type_name])
    name = type_name.rpartition('/')[2]
    for each in types if not _BESIDE.search(name) else ():
        pattern, remedy = each.unsupported_names
        if pattern and re.search(pattern, name):
            return UnsupportedType(each.modality, remedy)
    return None
