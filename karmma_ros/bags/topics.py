"""The roles of the topics of a bag: camera, microphone, detector, ground truth and so on."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from karmma_ros.bags.message_definitions import Topic
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.writer import TRUTH_TYPE
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import BagError, InvalidSettingError, printable
from karmma_ros.modalities import message_types as types
from karmma_ros.modalities import modality_type, sources_of, unsupported_type
from karmma_ros.modality import in_order, Modality, PAPER_MODALITIES, registered_types

AUDIO_INFO, TRUTH, RECOGNITION = 'audio_info', 'truth', 'recognition'
NONE = 'none'
"""In place of a topic: do not use one."""

_OTHER_TYPES: Mapping[str, tuple[str, ...]] = {
    AUDIO_INFO: (types.AUDIO_INFO,),
    TRUTH: (TRUTH_TYPE,),
    RECOGNITION: ('karmma_msgs/msg/ActionRecognition',),
}
"""Role that is no modality → its message types."""


def message_types(role: str) -> tuple[str, ...]:
    """Return the message types of a role, the name of a modality among them, preferred first."""
    if role in _OTHER_TYPES:
        return _OTHER_TYPES[role]
    if microphone_of(role):
        return _OTHER_TYPES[AUDIO_INFO]
    return modality_type(Modality(role)).message_types


def microphone_of(role: str) -> Modality | None:
    """
    Return the microphone whose format the topic of a role states; None: it states none.

    `audio_info` states that of `audio`, `audio_info_left` that of `audio_left`.
    """
    if role != AUDIO_INFO and not role.startswith(f'{AUDIO_INFO}_'):
        return None
    return Modality(role.replace(AUDIO_INFO, Modality.AUDIO.value, 1))


def is_input(role: str) -> bool:
    """Return whether a role is the name of a modality."""
    return role not in _OTHER_TYPES and microphone_of(role) is None


def info_role(modality: Modality) -> str:
    """Return the role of the topic that states the format of a microphone; '' of others."""
    own = modality_type(modality)
    return own.named(AUDIO_INFO) if own.modality.type_name == Modality.AUDIO.value else ''


_MAX_LISTED = 20
"""Topics named in one sentence."""


@dataclass(frozen=True)
class TopicChoice:
    """The topics of the roles."""

    topics: Mapping[str, Topic]
    """Role → topic."""
    notes: tuple[str, ...]
    """A sentence about each choice."""
    unread: tuple[str, ...] = ()
    """A sentence for each topic of a sensor that cannot be read."""

    def with_topic(self, modalities: Iterable[Modality]) -> frozenset[Modality]:
        """Return the modalities that have a topic though they could be computed from others."""
        return frozenset(m for m in modalities
                         if modality_type(m).derived_from and m.value in self.topics)

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
            if is_input(role):
                role = Modality.parse(role).value
        except InvalidSettingError:
            topic = ''
        if not topic:
            raise InvalidSettingError(
                '--topics', word, 'ROLE=/topic or ROLE=none',
                f'roles are {", ".join([*registered_types(), *_OTHER_TYPES])}')
        named[role] = topic
    return named


def choose_topics(
    bag: Bag, named: Mapping[str, str], modalities: Collection[Modality],
    with_topic: Collection[Modality] = (), spec: ClipSpec | None = None,
) -> TopicChoice:
    """
    Choose the topics by their types, and image topics by their encodings.

    :param named: role → topic, as given by the user; `none` disables a role.
    :param modalities: of the model.
    :param with_topic: modalities whose topics are preferred to computing them.
    :param spec: of the model's clips; None: the default.
    :raises InvalidSettingError: when a named topic does not exist, or has another type.
    :raises BagError: when there is no topic that the model uses.
    """
    sources = sources_of(modalities, ClipSpec() if spec is None else spec)
    wanted = {m.value for m in (*modalities, *sources.values())}
    inputs = in_order(Modality(role) for role in {*wanted, *named, *PAPER_MODALITIES}
                      if is_input(role))
    microphones = in_order({*modalities, *(m for m in inputs if m.value in named)})
    infos = {role: m for m in microphones if (role := info_role(m))} or {
        AUDIO_INFO: Modality.AUDIO}
    wanted |= {role for role, m in infos.items() if m in modalities}
    for role in named:
        if microphone_of(role) and role not in infos:
            raise InvalidSettingError(
                '--topics', role, f'the audio format of a microphone: {", ".join(infos)}')
    candidates = {role: _candidates(bag, role)
                  for role in (*map(str, inputs), *infos, TRUTH, RECOGNITION)}
    chosen: dict[str, Topic] = {}
    notes: list[str] = []
    for role, fit in candidates.items():
        if role in named:
            if named[role] != NONE:
                chosen[role] = _named(bag, role, named[role])
        elif fit and role in {*wanted, TRUTH, RECOGNITION}:
            topic = (info_topic(infos[role], fit, chosen) if role in infos
                     else _free(role, fit, candidates, chosen))
            if topic is not None:
                chosen[role] = topic
    for modality, source in sources.items():
        role = modality.value
        if role in chosen and role not in named and source.value in chosen and (
                modality not in with_topic):
            topic = chosen.pop(role)
            notes.append(
                f'{role} is computed from {modality_type(source).label}; --topics '
                f'{role}={topic.name} takes the topic instead')
    for role, microphone in infos.items():
        audio = chosen.get(microphone.value)
        if role in chosen and (audio is None or audio.type == types.AUDIO_STAMPED):
            del chosen[role]
    unread = tuple(_unread(bag, named, wanted, chosen))
    if not any(m.value in chosen or sources.get(m, m).value in chosen for m in modalities):
        raise BagError(bag.path, 'it has no topic of a type that the model takes',
                       _remedy(bag, wanted, unread))
    return TopicChoice(chosen, tuple(_note(role, topic, candidates[role], bag)
                                     for role, topic in chosen.items()) + tuple(notes), unread)


def _free(
    role: str, fit: Sequence[Topic], candidates: Mapping[str, Sequence[Topic]],
    chosen: Mapping[str, Topic],
) -> Topic | None:
    """Return the best topic; of several modalities of a type, one that no other has."""
    if not is_input(role):
        return fit[0]
    own = Modality(role)
    others = [each for each in candidates if is_input(each) and each != role
              and Modality(each).type_name == own.type_name]
    if not others:
        return fit[0]
    names = {modality_type(Modality(each)).topic_name for each in others}
    free = [topic for topic in fit if topic not in [chosen.get(each) for each in others]]
    name = modality_type(own).topic_name
    exact = [topic for topic in free if topic.name.rpartition('/')[2] == name]
    rest = [topic for topic in free if topic.name.rpartition('/')[2] not in names]
    return next(iter([*exact, *rest]), None)


def info_topic(
    modality: Modality, fit: Sequence[Topic], chosen: Mapping[str, Topic],
) -> Topic | None:
    """
    Return the topic that states the format of a microphone.

    It is one in the namespace of the audio, called as the node's if there are several; else one so
    called that is in the namespace of no other microphone; else the best, if it is the only
    microphone.

    :param fit: topics of that type, the best first.
    :param chosen: role → topic.
    """
    spaces = {role: _namespace(topic) for role, topic in chosen.items()
              if is_input(role) and info_role(Modality(role))}
    own, name = spaces.pop(modality.value, None), info_role(modality)
    beside = [topic for topic in fit if _namespace(topic) == own]
    called = [topic for topic in beside if topic.name.rpartition('/')[2] == name]
    if called or len(beside) == 1:
        return [*called, *beside][0]
    free = [topic for topic in fit if _namespace(topic) not in spaces.values()]
    called = [topic for topic in free if topic.name.rpartition('/')[2] == name]
    return next(iter([*called, *([] if spaces else free)]), None)


def _namespace(topic: Topic) -> str:
    return topic.name.rpartition('/')[0]


def _unread(
    bag: Bag, named: Mapping[str, str], wanted: Collection[str], chosen: Collection[str],
) -> Iterator[str]:
    """Yield a sentence with a remedy for each topic of a wanted sensor that cannot be read."""
    for topic in bag.topics.values():
        unread = unsupported_type(topic.type)
        if unread is not None and topic.count:
            role, remedy = unread.modality.value, unread.remedy.format(topic=topic.name)
            reason = f'is not read: {remedy}; then record again'
        else:
            role = next((r for r in wanted if is_input(r)
                         and topic.type in message_types(r)), '')
            reason = 'has no message: was it published, and did the recorder match its QoS?'
            if topic.count or not role or role in chosen:
                continue
        if role in wanted and named.get(role) != NONE:
            yield f'{topic.name} ({topic.type}, {_messages(topic)}) {reason}'


def _remedy(bag: Bag, wanted: Collection[str], unread: Sequence[str]) -> str:
    """Return how a bag without any input gets one."""
    roles = [m.value for m in in_order(Modality(role) for role in wanted if is_input(role))]
    fit = ', '.join(f'{role}={t.name}' for role in roles for t in bag.topics.values()
                    if t.count and t.type in message_types(role))
    steps = [*unread, f'name one with --topics: {fit}'] if fit else list(unread)
    if not steps:
        steps = [
            'record one of ' + ', '.join(dict.fromkeys(t for r in roles for t in message_types(r)))
        ]
    return '; '.join([*steps, f'the topics are: {_listing(bag)}'])


def _messages(topic: Topic) -> str:
    return f'{topic.count:,} message{"s" * (topic.count != 1)}'


def _candidates(bag: Bag, role: str) -> list[Topic]:
    """Return the topics that fit a role, the best first."""
    fit = message_types(role)
    topics = [topic for topic in bag.topics.values() if topic.type in fit and topic.count]
    ranks = {id(topic): _rank(bag, role, topic) for topic in topics}
    return sorted(
        (topic for topic in topics if ranks[id(topic)]),
        key=lambda t: (-ranks[id(t)], fit.index(t.type), -t.count, t.name))


def _rank(bag: Bag, role: str, topic: Topic) -> int:
    """Return how well the first message of a topic fits; 0 if it does not."""
    if not is_input(role) or not modality_type(Modality(role)).has_frames:
        return 1
    return modality_type(Modality(role)).rank(_encoding(bag, topic))


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
    fit = [topic for topic in topics if topic.type in message_types(role)]
    if fit:
        return fit[0]
    if topics:
        unread = unsupported_type(topics[0].type)
        raise InvalidSettingError(
            option, f'{name} ({topics[0].type})', ' or '.join(message_types(role)),
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
