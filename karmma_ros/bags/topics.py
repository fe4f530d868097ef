"""
The roles of the topics of a bag: camera, microphone, detector, ground truth and so on.

`ros2 bag record` writes latched messages once. When it splits a bag, the audio format that the
driver states is in the first file only: a later file takes it from an earlier one.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
import re
from typing import Any

from karmma_ros.bags.message_definitions import Topic
from karmma_ros.bags.metadata import COMPRESSED, storage_suffix
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.writer import TRUTH_TYPE
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import BagError, InvalidSettingError, KarmmaError, printable
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.stream import message_types as types

AUDIO_INFO, TRUTH, RECOGNITION = 'audio_info', 'truth', 'recognition'
_SENSORS = tuple(m.value for m in PAPER_MODALITIES)
NONE = 'none'
"""In place of a topic: do not use one."""

TYPES: Mapping[str, tuple[str, ...]] = {
    Modality.RGB.value: (types.IMAGE, types.COMPRESSED_IMAGE),
    Modality.FLOW.value: (types.IMAGE,),
    Modality.AUDIO.value: (types.AUDIO_DATA_STAMPED, types.AUDIO_STAMPED, types.AUDIO_DATA),
    AUDIO_INFO: (types.AUDIO_INFO,),
    Modality.DETECTIONS.value: (types.DETECTIONS, types.YOLO),
    TRUTH: (TRUTH_TYPE,),
    RECOGNITION: ('karmma_msgs/msg/ActionRecognition',),
}
"""Role → its message types, preferred ones first."""

_MAX_LISTED = 20
"""Topics named in one sentence."""
FLOW_ENCODING = '32FC2'
_DEPTH = ('16UC1', '32FC1', 'mono16', '16SC1')
_GREY = ('mono8', '8UC1')
_COLOUR_RANK, _GREY_RANK, _UNFIT_RANK = 2, 1, 0
_SPLIT_FILE = re.compile(r'(.+)_(\d+)')


@dataclass(frozen=True)
class TopicChoice:
    """The topics of the roles."""

    topics: Mapping[str, Topic]
    """Role → topic."""
    notes: tuple[str, ...]
    """A sentence about each choice."""
    unread: tuple[str, ...] = ()
    """A sentence for each topic of a sensor that cannot be read."""

    @property
    def flow_topic(self) -> bool:
        """Return whether flow has a topic; else it is computed from the camera."""
        return Modality.FLOW.value in self.topics

    def to_dict(self) -> dict[str, dict[str, Any]]:
        """Return role → topic, type and count, JSON-ready."""
        return {role: {'topic': t.name, 'type': t.type, 'count': t.count}
                for role, t in self.topics.items()}


def parse_topics(words: Sequence[str]) -> dict[str, str]:
    """
    Parse `rgb=/camera/image`, `audio=none` and the like to role → topic.

    :raises InvalidSettingError: for anything else.
    """
    named = {}
    for word in words:
        role, _, topic = word.partition('=')
        try:
            role = role if role in TYPES else Modality.parse(role).value
        except InvalidSettingError:
            topic = ''
        if not topic:
            raise InvalidSettingError('--topics', word, 'ROLE=/topic or ROLE=none', 'roles are '
                                      + ', '.join(TYPES))
        named[role] = topic
    return named


def choose_topics(
    bag: Bag, named: Mapping[str, str], modalities: Collection[Modality],
    want_flow_topic: bool = False,
) -> TopicChoice:
    """
    Choose the topics by their types, and image topics by their encodings.

    :param named: role → topic, as given by the user; `none` disables a role.
    :param modalities: of the model.
    :param want_flow_topic: prefer a flow topic to flow computed from the camera.
    :raises InvalidSettingError: when a named topic does not exist, or has another type.
    :raises BagError: when there is no topic that the model uses.
    """
    candidates = {role: _candidates(bag, role) for role in TYPES}
    chosen: dict[str, Topic] = {}
    notes: list[str] = []
    for role, fit in candidates.items():
        if role in named:
            if named[role] != NONE:
                chosen[role] = _named(bag, role, named[role])
        elif fit and _wanted(role, modalities):
            chosen[role] = fit[0]
    flow = Modality.FLOW.value
    if flow in chosen and flow not in named and Modality.RGB.value in chosen and (
            not want_flow_topic):
        topic = chosen.pop(flow)
        notes.append(f'flow is computed from the camera; --topics flow={topic.name} takes the '
                     'topic instead')
    audio = chosen.get(Modality.AUDIO.value)
    if AUDIO_INFO in chosen and (audio is None or audio.type == types.AUDIO_STAMPED):
        del chosen[AUDIO_INFO]
    unread = tuple(_unread(bag, named, modalities, chosen))
    if not any(m.value in chosen or _computed(m, chosen) for m in modalities):
        raise BagError(bag.path, 'it has no topic of a type that the model takes',
                       _remedy(bag, modalities, unread))
    return TopicChoice(chosen, tuple(_note(role, topic, candidates[role], bag)
                                     for role, topic in chosen.items()) + tuple(notes), unread)


def _unread(
    bag: Bag, named: Mapping[str, str], modalities: Collection[Modality],
    chosen: Collection[str],
) -> Iterator[str]:
    """Yield a sentence with a remedy for each topic of a wanted sensor that cannot be read."""
    for topic in bag.topics.values():
        unread = types.unsupported_type(topic.type)
        if unread is not None and topic.count:
            role, remedy = unread.modality.value, unread.remedy.format(topic=topic.name)
            reason = f'is not read: {remedy}; then record again'
        else:
            role = next((r for r, fit in TYPES.items() if topic.type in fit), '')
            reason = 'has no message: was it published, and did the recorder match its QoS?'
            if topic.count or role not in _SENSORS or role in chosen:
                continue
        if _wanted(role, modalities) and named.get(role) != NONE:
            yield f'{topic.name} ({topic.type}, {_messages(topic)}) {reason}'


def _remedy(bag: Bag, modalities: Collection[Modality], unread: Sequence[str]) -> str:
    """Return how a bag without any input gets one."""
    roles = [role for role in _SENSORS if _wanted(role, modalities)]
    fit = ', '.join(f'{role}={t.name}' for role in roles for t in bag.topics.values()
                    if t.count and t.type in TYPES[role])
    steps = [*unread, f'name one with --topics: {fit}'] if fit else list(unread)
    if not steps:
        steps = ['record one of ' + ', '.join(dict.fromkeys(t for r in roles for t in TYPES[r]))]
    return '; '.join([*steps, f'the topics are: {_listing(bag)}'])


def _messages(topic: Topic) -> str:
    return f'{topic.count:,} message{"s" * (topic.count != 1)}'


def _computed(modality: Modality, chosen: Mapping[str, Topic]) -> bool:
    return modality is Modality.FLOW and Modality.RGB.value in chosen


def _wanted(role: str, modalities: Collection[Modality]) -> bool:
    if role == Modality.RGB.value:
        return Modality.RGB in modalities or Modality.FLOW in modalities
    if role == AUDIO_INFO:
        return Modality.AUDIO in modalities
    return role in (TRUTH, RECOGNITION) or Modality(role) in modalities


def _candidates(bag: Bag, role: str) -> list[Topic]:
    """Return the topics that fit a role, the best first."""
    fit = TYPES[role]
    topics = [topic for topic in bag.topics.values() if topic.type in fit and topic.count]
    ranks = {id(topic): _rank(bag, role, topic) for topic in topics}
    return sorted(
        (topic for topic in topics if ranks[id(topic)]),
        key=lambda t: (-ranks[id(t)], fit.index(t.type), -t.count, t.name))


def _rank(bag: Bag, role: str, topic: Topic) -> int:
    """Return how well the first message of a topic fits; 0 if it does not."""
    if role not in (Modality.RGB.value, Modality.FLOW.value):
        return 1
    encoding = _encoding(bag, topic)
    if role == Modality.FLOW.value:
        return int(encoding == FLOW_ENCODING)
    if encoding in (*_DEPTH, FLOW_ENCODING) or 'compressedDepth' in encoding:
        return _UNFIT_RANK
    return _GREY_RANK if encoding in _GREY else _COLOUR_RANK


def _encoding(bag: Bag, topic: Topic) -> str:
    """Return encoding or format of the first image of a topic; '' when it cannot be read."""
    try:
        read = bag.reader(topic)
        message = read(next(iter(bag.messages([topic]))).data)
    except (ValueError, StopIteration):
        return ''
    return str(message.encoding if topic.type == types.IMAGE else message.format)


def _named(bag: Bag, role: str, name: str) -> Topic:
    option = '--ground-truth' if role == TRUTH else f'--topics {role}'
    topics = [topic for topic in bag.topics.values() if topic.name == name]
    fit = [topic for topic in topics if topic.type in TYPES[role]]
    if fit:
        return fit[0]
    if topics:
        unread = types.unsupported_type(topics[0].type)
        raise InvalidSettingError(
            option, f'{name} ({topics[0].type})', ' or '.join(TYPES[role]),
            '' if unread is None else unread.remedy.format(topic=name))
    raise InvalidSettingError(option, name, f'a topic of the bag: {_listing(bag)}')


def _listing(bag: Bag) -> str:
    names = [printable(f'{t.name} ({t.type})') for t in islice(bag.topics.values(), _MAX_LISTED)]
    others = len(bag.topics) - len(names)
    return ', '.join(names) + (f' and {others:,} more' if others else '') or 'none'


def _note(role: str, topic: Topic, candidates: Sequence[Topic], bag: Bag) -> str:
    length_s = (bag.end_ns - bag.start_ns) / NANOSECONDS
    rate = f', {topic.count / length_s:.1f} Hz' if length_s > 0 and topic.count > 1 else ''
    others = [printable(t.name) for t in candidates if t is not topic]
    more = f' and {len(others) - _MAX_LISTED:,} more' if len(others) > _MAX_LISTED else ''
    beside = f'; not {", ".join(others[:_MAX_LISTED])}{more}' if others else ''
    return (f'{role}: {printable(topic.name)} ({printable(topic.type)}, '
            f'{_messages(topic)}{rate}){beside}')


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


def find_earlier_info(path: Path, paths: Iterable[Path]) -> EarlierInfo | None:
    """Return the audio format in the latest earlier file of a split bag; None without any."""
    for earlier in earlier_files(path, paths):
        try:
            message = _last_info(earlier)
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
    name = path.with_suffix('').stem if path.suffix in COMPRESSED else path.stem
    match = _SPLIT_FILE.fullmatch(name)
    return None if match is None else ((path.resolve().parent, match[1] + suffix), int(match[2]))


def _last_info(path: Path) -> Any:
    message = None
    with Bag(path) as bag:
        topics = [t for t in bag.topics.values() if t.type == types.AUDIO_INFO and t.count]
        for each in bag.messages(topics) if topics else ():
            message = bag.reader(each.topic)(each.data)
    return message
