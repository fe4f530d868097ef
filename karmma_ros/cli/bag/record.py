"""`karmma bag record`: print the `ros2 bag record` command for a bag that can be evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
from pathlib import Path
import shlex
from typing import Literal

from jsonargparse import Namespace
from karmma_ros.bags.topics import (
    AUDIO_INFO,
    info_role,
    is_input,
    microphone_of,
    NONE,
    parse_topics,
)
from karmma_ros.cli.options import (
    command_parser,
    CommandParser,
    open_model,
    to_path,
    writing,
)
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import input_modalities, modality_type
from karmma_ros.modality import in_order, is_modality, Modality, PAPER_MODALITIES

HUMBLE = 'humble'
QOS_FILE = 'karmma_record_qos.yaml'
SENSORS: Mapping[str, tuple[str, int]] = {
    'image': ('/image', 30), 'flow': ('', 30), 'audio': ('/audio', 200),
    'detections': ('/detections', 50)}
"""Sensor of the paper → its topic, '' for none, and the depth of its queue."""
_OWN = ('action_recognition', '{node}/action_events', '{node}/modality_availability',
        '{node}/model_info')


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma bag record', 'Print the `ros2 bag record` command for a bag that can be '
        'evaluated, and write its QoS file.', 'BAG [OPTION ...]')
    parser.add_argument(
        'out', metavar='BAG', type=str, help='directory that ros2 bag record makes'
    )
    parser.add_argument('--model', type=str, help='record the topics of the inputs of this model '
                        '(default: camera, audio and detections)')
    for name, (topic, _) in SENSORS.items():
        parser.add_argument(f'--{name}', metavar='TOPIC', type=str, default=topic or 'none',
                            help=f'topic of the {name}; none leaves it out')
    parser.add_argument('--topics', metavar='MODALITY=TOPIC', type=str, nargs='+', default=[],
                        help='topics of other inputs, such as imu=/imu/data; none leaves one out '
                        '(default: as the node names them)')
    parser.add_argument('--audio-info', metavar='TOPIC', type=str, default='/audio_info',
                        help='topic with the audio format of the driver; of other microphones '
                        'name it with --topics, as audio_info_left=/left/audio_info')
    parser.add_argument('--ground-truth', metavar='TOPIC', type=str, default='none', help='topic '
                        'of the karmma_msgs/ActionAnnotation of your annotation tool')
    parser.add_argument('--node', metavar='NAME', type=str, default='/karmma', help='node whose '
                        'outputs are recorded too; none leaves them out')
    parser.add_argument('--storage', type=Literal['mcap', 'sqlite3'], default='mcap',
                        help='storage format of the bag')
    parser.add_argument('--reliable', action='store_true', help='request lost messages again: '
                        'only if every sensor is published reliably')
    parser.add_argument('--qos-file', metavar='YAML', type=to_path, default=Path(QOS_FILE),
                        help='file of QoS overrides to write')
    parser.add_argument('--distro', type=str, default=os.environ.get('ROS_DISTRO', 'jazzy'),
                        help='ROS distribution of the robot')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Write the QoS file and print the command."""
    options = _parser().parse_args(list(arguments))
    inputs = _inputs(options)
    if not inputs:
        raise InvalidSettingError('--image', 'none', 'a topic',
                                  'there is nothing to evaluate without any sensor')
    sensors = {topic: _depth(modality) for modality, topic in inputs.items()}
    latched = [*_audio_infos(options, inputs), _topic(options, 'ground_truth')]
    latched = list(dict.fromkeys(topic for topic in latched if topic))
    with writing('--qos-file', options.qos_file):
        options.qos_file.write_text(_qos(options, sensors, latched), encoding='utf-8')
    topics = [*sensors, *latched, *_own_topics(options)]
    words = ['ros2', 'bag', 'record', '--storage', options.storage, '--output', options.out,
             '--qos-profile-overrides-path', str(options.qos_file)]
    # Humble has no --topics; its successors warn without it.
    words += topics if options.distro == HUMBLE else ['--topics', *topics]
    print(shlex.join(words))
    return 0


def _inputs(options: Namespace) -> dict[Modality, str]:
    """Return the topic of each input."""
    named = {_modality(role): topic for role, topic in parse_topics(options.topics).items()
             if role == AUDIO_INFO or not microphone_of(role)}
    inputs: Sequence[Modality] = PAPER_MODALITIES
    if options.model:
        bundle = open_model(options.model, '--model')
        inputs = input_modalities(bundle.network.modalities, bundle.spec)
    topics = {}
    for modality in in_order([*inputs, *named]):
        own = modality_type(modality)
        if modality in named:
            topic = _full_name('--topics', named[modality])
        elif own.topic_name in SENSORS:
            topic = _topic(options, own.topic_name)
        else:
            topic = '' if own.derived_from else f'/{own.topic_name}'
        if topic:
            topics[modality] = topic
    return topics


def _depth(modality: Modality) -> int:
    """Return the depth of the queue of the topic of an input."""
    own = modality_type(modality)
    return SENSORS[own.topic_name][1] if own.topic_name in SENSORS else max(30, 4 * own.depth)


def _audio_infos(options: Namespace, inputs: Mapping[Modality, str]) -> list[str]:
    """Return the topics with the audio formats, '' for none."""
    named, topics = parse_topics(options.topics), list[str]()
    for modality, audio in inputs.items():
        role = info_role(modality)
        if not role:
            continue
        if role in named:
            topics.append(_full_name('--topics', named[role]))
        elif role == AUDIO_INFO:
            topics.append(_topic(options, 'audio_info'))
        else:  # in the namespace of the audio, or as the node names it
            topics += [f'{audio.rpartition("/")[0]}/{AUDIO_INFO}', f'/{role}']
    return topics


def _modality(role: str) -> Modality:
    if not is_input(role) or not is_modality(role):
        raise InvalidSettingError('--topics', role, 'a modality', 'audio_info and ground_truth '
                                  'have the options --audio-info and --ground-truth')
    return Modality(role)


def _topic(options: Namespace, name: str) -> str:
    return _full_name(f'--{name.replace("_", "-")}', str(getattr(options, name)))


def _full_name(option: str, topic: str) -> str:
    """
    Return the name of a topic, '' for none.

    :raises InvalidSettingError: for a relative one.
    """
    if topic in ('', NONE):
        return ''
    if not topic.startswith('/'):
        raise InvalidSettingError(option, topic, 'the full name of a topic, which begins with /')
    return topic


def _own_topics(options: Namespace) -> list[str]:
    if options.node == 'none':
        return []
    name = f'/{options.node.strip("/")}'
    namespace = name.rpartition('/')[0]
    return [each.format(node=name) if '{' in each else f'{namespace}/{each}' for each in _OWN]


def _qos(
    options: Namespace, sensors: Mapping[str, int], latched: list[str],
) -> str:
    """Return the QoS overrides of `ros2 bag record`; it adapts to the other topics itself."""
    reliability = 'reliable' if options.reliable else 'best_effort'
    lines = ['# QoS that ros2 bag record requests. best_effort matches every publisher; a deep '
             'queue\n# drops no message while the disk is busy.']
    for topic, depth in sensors.items():
        lines += _entry(topic, depth, reliability, 'volatile')
    for topic in latched:
        lines += _entry(topic, 10, 'reliable', 'transient_local')
    return '\n'.join(lines) + '\n'


def _entry(topic: str, depth: int, reliability: str, durability: str) -> list[str]:
    return [f'{topic}:', '  history: keep_last', f'  depth: {depth}',
            f'  reliability: {reliability}', f'  durability: {durability}']
