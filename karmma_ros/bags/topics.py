"""Which topic of a bag is the camera, the microphone, the detector and the truth."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from karmma_ros.bags.reader import Bag, Topic
from karmma_ros.bags.writer import TRUTH_TYPE
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import BagError, InvalidSettingError, printable
from karmma_ros.modality import Modality
from karmma_ros.stream import message_types as types

AUDIO_INFO, TRUTH, RECOGNITION = 'audio_info', 'truth', 'recognition'
_SENSORS = tuple(m.value for m in Modality)
NONE = 'none'
"""Instead of a topic: leave this one out."""

TYPES: Mapping[str, tuple[str, ...]] = {
    Modality.RGB.value: (types.IMAGE, types.COMPRESSED_IMAGE),
    Modality.FLOW.value: (types.IMAGE,),
    Modality.AUDIO.value: (types.AUDIO_DATA_STAMPED, types.AUDIO_STAMPED, types.AUDIO_DATA),
    AUDIO_INFO: (types.AUDIO_INFO,),
    Modality.DETECTIONS.value: (types.DETECTIONS, types.YOLO),
    TRUTH: (TRUTH_TYPE,),
    RECOGNITION: ('karmma_msgs/msg/ActionRecognition',),
}
"""Role → the message types that can play it, the better first."""

_MOST_LISTED = 20
"""Topics that one sentence names."""
FLOW_ENCODING = '32FC2'
_DEPTH = ('16UC1', '32FC1', 'mono16', '16SC1')
_GREY = ('mono8', '8UC1')
# How good a picture is, by what it holds; what is not here is of no use.
_COLOUR, _SHADES, _UNFIT = 2, 1, 0


@dataclass(frozen=True)
class TopicChoice:
    """The topics that play a role, and what a person should know of the choice."""

    topics: Mapping[str, Topic]
    notes: tuple[str, ...]
    unread: tuple[str, ...] = ()
    """A sentence for each topic of a sensor that cannot be read."""

    @property
    def flow_topic(self) -> bool:
        """Return whether flow comes by a topic of its own."""
        return Modality.FLOW.value in self.topics

    def described(self) -> dict[str, dict[str, Any]]:
        """Return role → topic, type and count, JSON-ready."""
        return {role: {'topic': t.name, 'type': t.type, 'count': t.count}
                for role, t in self.topics.items()}


def parse_named(words: Sequence[str]) -> dict[str, str]:
    """
    Read `rgb=/camera/image`, `audio=none` and the like.

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
    Find the topics by their types, and pictures by what is in them.

    :param named: role → topic, where the user knows better; `none` leaves one out.
    :param modalities: what the model takes.
    :param want_flow_topic: take flow from a topic if there is one, even beside a camera.
    :raises InvalidSettingError: when a named topic is not there, or of another type.
    :raises BagError: when there is nothing that the model takes.
    """
    candidates = {role: _candidates(bag, role) for role in TYPES}
    chosen: dict[str, Topic] = {}
    notes: list[str] = []
    for role, found in candidates.items():
        if role in named:
            if named[role] != NONE:
                chosen[role] = _named(bag, role, named[role])
        elif found and _wanted(role, modalities):
            chosen[role] = found[0]
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
        raise BagError(bag.path, 'it holds no topic of a type that the model takes',
                       _what_to_do(bag, modalities, unread))
    return TopicChoice(chosen, tuple(_told(role, topic, candidates[role], bag)
                                for role, topic in chosen.items()) + tuple(notes), unread)


def _unread(
    bag: Bag, named: Mapping[str, str], modalities: Collection[Modality],
    chosen: Collection[str],
) -> Iterator[str]:
    """Name the topics of wanted sensors that cannot be read, and what to do about each."""
    for topic in bag.topics.values():
        unread = types.unread_type(topic.type)
        if unread is not None and topic.count:
            role, cure = unread.modality.value, unread.cure.format(topic=topic.name)
            why = f'is not read: {cure}; then record again'
        else:
            role = next((r for r, fit in TYPES.items() if topic.type in fit), '')
            why = 'holds no message: was it published, and did the recorder match its QoS?'
            if topic.count or role not in _SENSORS or role in chosen:
                continue
        if _wanted(role, modalities) and named.get(role) != NONE:
            yield f'{topic.name} ({topic.type}, {_counted(topic)}) {why}'


def _what_to_do(bag: Bag, modalities: Collection[Modality], unread: Sequence[str]) -> str:
    """Return how a bag without any input gets one; a name helps only where the type fits."""
    roles = [role for role in _SENSORS if _wanted(role, modalities)]
    fit = [(role, t.name) for role in roles for t in bag.topics.values()
           if t.count and t.type in TYPES[role]]
    named = ', '.join(f'{role}={name}' for role, name in fit)
    steps = [*unread, f'name one with --topics: {named}'] if fit else list(unread)
    if not steps:
        steps = ['record one of ' + ', '.join(dict.fromkeys(t for r in roles for t in TYPES[r]))]
    return '; '.join([*steps, f'there are: {_listing(bag)}'])


def _counted(topic: Topic) -> str:
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
    """Return the topics that can play a role, the best first."""
    fit = TYPES[role]
    found = [topic for topic in bag.topics.values() if topic.type in fit and topic.count]
    ranks = {id(topic): _rank(bag, role, topic) for topic in found}
    return sorted(
        (topic for topic in found if ranks[id(topic)]),
        key=lambda t: (-ranks[id(t)], fit.index(t.type), -t.count, t.name))


def _rank(bag: Bag, role: str, topic: Topic) -> int:
    """Return how fit a topic is by its first message; 0 if it is not."""
    if role not in (Modality.RGB.value, Modality.FLOW.value):
        return 1
    content = _content(bag, topic)
    if role == Modality.FLOW.value:
        return int(content == FLOW_ENCODING)
    if content in (*_DEPTH, FLOW_ENCODING) or 'compressedDepth' in content:
        return _UNFIT
    return _SHADES if content in _GREY else _COLOUR


def _content(bag: Bag, topic: Topic) -> str:
    """Return encoding or format of a topic's first picture; '' when it cannot be read."""
    try:
        read = bag.reader(topic)
        message = read(next(iter(bag.messages([topic]))).data)
    except (ValueError, StopIteration):
        return ''
    return str(message.encoding if topic.type == types.IMAGE else message.format)


def _named(bag: Bag, role: str, name: str) -> Topic:
    option = '--ground-truth' if role == TRUTH else f'--topics {role}'
    there = [topic for topic in bag.topics.values() if topic.name == name]
    fit = [topic for topic in there if topic.type in TYPES[role]]
    if fit:
        return fit[0]
    if there:
        unread = types.unread_type(there[0].type)
        raise InvalidSettingError(
            option, f'{name} ({there[0].type})', ' or '.join(TYPES[role]),
            '' if unread is None else unread.cure.format(topic=name))
    raise InvalidSettingError(option, name, f'a topic of the bag: {_listing(bag)}')


def _listing(bag: Bag) -> str:
    names = [printable(f'{t.name} ({t.type})') for t in islice(bag.topics.values(), _MOST_LISTED)]
    others = len(bag.topics) - len(names)
    return ', '.join(names) + (f' and {others:,} more' if others else '') or 'none'


def _told(role: str, topic: Topic, candidates: Sequence[Topic], bag: Bag) -> str:
    length_s = (bag.end_ns - bag.start_ns) / NANOSECONDS
    rate = f', {topic.count / length_s:.1f} Hz' if length_s > 0 and topic.count > 1 else ''
    others = [printable(t.name) for t in candidates if t is not topic]
    more = f' and {len(others) - _MOST_LISTED:,} more' if len(others) > _MOST_LISTED else ''
    beside = f'; not {", ".join(others[:_MOST_LISTED])}{more}' if others else ''
    return (f'{role}: {printable(topic.name)} ({printable(topic.type)}, '
            f'{_counted(topic)}{rate}){beside}')
