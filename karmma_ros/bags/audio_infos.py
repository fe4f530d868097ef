"""
The audio formats that the drivers of microphones state, in the files of a split bag.

`ros2 bag record` writes latched messages once. When it splits a bag, the audio format that the
driver states is in the first file only: a later file takes it from an earlier one.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

from karmma_ros.bags.message_definitions import Topic
from karmma_ros.bags.metadata import is_compressed, storage_suffix
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import (
    AUDIO_INFO,
    info_role,
    info_topic,
    is_input,
    microphone_of,
    NONE,
    TopicChoice,
)
from karmma_ros.errors import KarmmaError
from karmma_ros.modalities import message_types as types
from karmma_ros.modality import Modality

_SPLIT_FILE = re.compile(r'(.+)_(\d+)')


@dataclass(frozen=True)
class EarlierInfo:
    """The audio format that an earlier file of a split bag states."""

    message: Any
    """audio_common_msgs/AudioInfo."""
    path: Path
    """Path of the earlier file."""

    @property
    def fields(self) -> list[Any]:
        """Return the audio format, JSON-ready."""
        message = self.message
        return [int(message.sample_rate), int(message.channels), str(message.sample_format),
                str(message.coding_format)]


EarlierInfos = Mapping[str, EarlierInfo]
"""Role, as `audio_info` → audio format."""


def fields_of(infos: EarlierInfos) -> Any:
    """Return audio formats, JSON-ready; None: none; that of the one microphone `audio` alone."""
    if {*infos} <= {AUDIO_INFO}:
        return infos[AUDIO_INFO].fields if infos else None
    return {role: info.fields for role, info in infos.items()}


def topics_of_file(bag: Bag, named: Mapping[str, str], paths: Iterable[Path]) -> dict[str, str]:
    """
    Return the named topics for one file of a split bag.

    An audio format that only an earlier file has is none of this file's.

    :param named: role → topic, as for `choose_topics`.
    :param paths: bags of which one may be an earlier file.
    """
    own = dict(named)
    for role, name in named.items():
        if microphone_of(role) and name not in {*_names(bag), NONE} and any(
                _has_topic(earlier, name) for earlier in earlier_files(bag.path, paths)):
            own[role] = NONE
    return own


def earlier_audio_infos(
    path: Path, choice: TopicChoice, named: Mapping[str, str], paths: Iterable[Path]
) -> EarlierInfos:
    """
    Return the audio formats of an earlier file of a split bag that the bag itself does not state.

    :param named: role → topic that the user named.
    :param paths: bags of which one may be the earlier file.
    """
    microphones = {role: m for each in choice.topics if is_input(each)
                   and (role := info_role(m := Modality(each)))}
    infos = {}
    for role, modality in microphones.items():
        own = choice.topics.get(role)
        if choice.topics[modality.value].type == types.AUDIO_STAMPED or (
                own is not None and own.count) or named.get(role) == NONE:
            continue
        info = _earlier_info(path, paths, choice.topics, modality, named.get(role, ''))
        if info is not None:
            infos[role] = info
    return infos


def _earlier_info(
    path: Path, paths: Iterable[Path], chosen: Mapping[str, Topic],
    modality: Modality = Modality.AUDIO, name: str = '',
) -> EarlierInfo | None:
    """
    Return the audio format in the latest earlier file of a split bag; None without any.

    :param chosen: role → topic.
    :param modality: the microphone.
    :param name: of the topic; empty: whichever fits the microphone.
    """
    for earlier in earlier_files(path, paths):
        try:
            message = _last_info(earlier, modality, chosen, name)
        except (KarmmaError, ValueError, OSError):  # reported when that file is evaluated
            continue
        if message is not None:
            return EarlierInfo(message, earlier)
    return None


def earlier_files(path: Path, paths: Iterable[Path]) -> list[Path]:
    """Return which of `paths` are earlier files of the same split bag, the latest first."""
    own = _split_file(path)
    if own is None:
        return []
    files = {each: file for each in paths if (file := _split_file(each)) is not None}
    return sorted((each for each, file in files.items() if file[0] == own[0] and file[1] < own[1]),
                  key=lambda each: -files[each][1])


def _split_file(path: Path) -> tuple[tuple[Path, str], int] | None:
    """Return the bag and the number of a file of a split bag, such as `kitchen_1.mcap`."""
    suffix = storage_suffix(path)
    if not suffix:
        return None
    name = path.with_suffix('').stem if is_compressed(path) else path.stem
    match = _SPLIT_FILE.fullmatch(name)
    return None if match is None else ((path.resolve().parent, match[1] + suffix), int(match[2]))


def _names(bag: Bag) -> set[str]:
    return {topic.name for topic in bag.topics.values()}


def _has_topic(path: Path, name: str) -> bool:
    try:
        with Bag(path) as bag:
            return name in _names(bag)
    except (KarmmaError, ValueError, OSError):  # reported when that file is evaluated
        return False


def _last_info(path: Path, modality: Modality, chosen: Mapping[str, Topic], name: str) -> Any:
    message = None
    with Bag(path) as bag:
        fit = [t for t in bag.topics.values() if t.type == types.AUDIO_INFO and t.count
               and name in ('', t.name)]
        topic = next(iter(fit), None) if name else info_topic(modality, fit, chosen)
        for each in () if topic is None else bag.messages([topic]):
            message = bag.reader(each.topic)(each.data)
    return message
