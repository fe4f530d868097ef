"""`karmma bag record`: print the `ros2 bag record` command for a bag that can be evaluated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import os
from pathlib import Path
import shlex
from typing import Literal

from jsonargparse import Namespace
from karmma_ros.cli.options import (
    command_parser,
    CommandParser,
    to_path,
    writing,
)
from karmma_ros.errors import InvalidSettingError

HUMBLE = 'humble'
QOS_FILE = 'karmma_record_qos.yaml'
SENSORS: Mapping[str, tuple[str, int]] = {
    'image': ('/image', 30), 'flow': ('', 30), 'audio': ('/audio', 200),
    'detections': ('/detections', 50)}
"""Sensor → its topic, '' for none, and the depth of its queue."""
_LATCHED = ('audio_info', 'ground_truth')
_OWN = ('action_recognition', '{node}/action_events', '{node}/modality_availability',
        '{node}/model_info')


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma bag record', 'Print the `ros2 bag record` command for a bag that can be '
        'evaluated, and write its QoS file.', 'BAG [OPTION ...]')
    parser.add_argument(
        'out', metavar='BAG', type=str, help='directory that ros2 bag record makes'
    )
    for name, (topic, _) in SENSORS.items():
        parser.add_argument(f'--{name}', metavar='TOPIC', type=str, default=topic or 'none',
                            help=f'topic of the {name}; none leaves it out')
    parser.add_argument('--audio-info', metavar='TOPIC', type=str, default='/audio_info',
                        help='topic with the audio format of the driver')
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
    sensors = {name: topic for name in SENSORS if (topic := _topic(options, name))}
    if not sensors:
        raise InvalidSettingError('--image', 'none', 'a topic',
                                  'there is nothing to evaluate without any sensor')
    latched = [topic for name in _LATCHED if (topic := _topic(options, name))]
    if 'audio' not in sensors:
        latched = [t for t in latched if t != options.audio_info]
    with writing('--qos-file', options.qos_file):
        options.qos_file.write_text(_qos(options, sensors, latched), encoding='utf-8')
    topics = [*sensors.values(), *latched, *_own_topics(options)]
    words = ['ros2', 'bag', 'record', '--storage', options.storage, '--output', options.out,
             '--qos-profile-overrides-path', str(options.qos_file)]
    # Humble has no --topics; its successors warn without it.
    words += topics if options.distro == HUMBLE else ['--topics', *topics]
    print(shlex.join(words))
    return 0


def _topic(options: Namespace, name: str) -> str:
    topic = str(getattr(options, name))
    if topic in ('', 'none'):
        return ''
    if not topic.startswith('/'):
        raise InvalidSettingError(f'--{name.replace("_", "-")}', topic,
                                  'the full name of a topic, which begins with /')
    return topic


def _own_topics(options: Namespace) -> list[str]:
    if options.node == 'none':
        return []
    name = f'/{options.node.strip("/")}'
    namespace = name.rpartition('/')[0]
    return [each.format(node=name) if '{' in each else f'{namespace}/{each}' for each in _OWN]


def _qos(
    options: Namespace, sensors: Mapping[str, str], latched: list[str],
) -> str:
    """Return the QoS overrides of `ros2 bag record`; it adapts to the other topics itself."""
    reliability = 'reliable' if options.reliable else 'best_effort'
    lines = ['# QoS that ros2 bag record requests. best_effort matches every publisher; a deep '
             'queue\n# drops no message while the disk is busy.']
    for name, topic in sensors.items():
        lines += _entry(topic, SENSORS[name][1], reliability, 'volatile')
    for topic in latched:
        lines += _entry(topic, 10, 'reliable', 'transient_local')
    return '\n'.join(lines) + '\n'


def _entry(topic: str, depth: int, reliability: str, durability: str) -> list[str]:
    return [f'{topic}:', '  history: keep_last', f'  depth: {depth}',
            f'  reliability: {reliability}', f'  durability: {durability}']
