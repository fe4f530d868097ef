"""`karmma bag record`: print the `ros2 bag record` command for a bag that can be evaluated."""

from __future__ import annotations

import argparse
from collections.abc import Mapping
import os
from pathlib import Path
import shlex
from typing import Any

from karmma_ros.cli.options import writing
from karmma_ros.errors import InvalidSettingError

HUMBLE = 'humble'
QOS_FILE = 'karmma_record_qos.yaml'
SENSORS: Mapping[str, tuple[str, int]] = {
    'image': ('/image', 30), 'flow': ('', 30), 'audio': ('/audio', 200),
    'detections': ('/detections', 50)}
"""Sensor → its topic, '' for none, and how many messages may wait to be written."""
_LATCHED = ('audio_info', 'ground_truth')
_OWN = ('action_recognition', '{node}/action_events', '{node}/modality_availability',
        '{node}/model_info')


def add_parser(kinds: Any) -> None:
    """Add the command to the sub-parsers of `karmma bag`."""
    parser = kinds.add_parser('record', help='print the `ros2 bag record` command for a bag that '
                              'can be evaluated, and write its QoS file')
    parser.set_defaults(run=run)
    parser.add_argument('out', metavar='BAG', help='folder that ros2 bag record makes')
    for name, (topic, _) in SENSORS.items():
        parser.add_argument(f'--{name}', metavar='TOPIC', default=topic,
                            help=f'topic of the {name}; none leaves it out '
                            f'[{topic or "none"}]')
    parser.add_argument('--audio-info', metavar='TOPIC', default='/audio_info',
                        help='topic with the audio format of the driver '
                        '[/audio_info]')
    parser.add_argument('--ground-truth', metavar='TOPIC', default='', help='topic of the '
                        'karmma_msgs/ActionAnnotation of your annotation tool [none]')
    parser.add_argument('--node', metavar='NAME', default='/karmma', help='node whose outputs '
                        'are recorded too; none leaves them out [/karmma]')
    parser.add_argument('--storage', choices=('mcap', 'sqlite3'), default='mcap',
                        help='storage format of the bag [mcap]')
    parser.add_argument('--reliable', action='store_true', help='request lost messages again: '
                        'only if every sensor is published reliably')
    parser.add_argument('--qos-file', metavar='YAML', type=Path, default=Path(QOS_FILE),
                        help=f'file of QoS overrides to write [{QOS_FILE}]')
    parser.add_argument('--distro', default=os.environ.get('ROS_DISTRO', 'jazzy'),
                        help='ROS distribution of the robot [ROS_DISTRO, else jazzy]')


def run(options: argparse.Namespace) -> int:
    """Write the QoS file and print the command."""
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


def _topic(options: argparse.Namespace, name: str) -> str:
    topic = str(getattr(options, name))
    if topic in ('', 'none'):
        return ''
    if not topic.startswith('/'):
        raise InvalidSettingError(f'--{name.replace("_", "-")}', topic,
                                  'the full name of a topic, which begins with /')
    return topic


def _own_topics(options: argparse.Namespace) -> list[str]:
    if options.node == 'none':
        return []
    name = f'/{options.node.strip("/")}'
    namespace = name.rpartition('/')[0]
    return [each.format(node=name) if '{' in each else f'{namespace}/{each}' for each in _OWN]


def _qos(
    options: argparse.Namespace, sensors: Mapping[str, str], latched: list[str],
) -> str:
    """Return what `ros2 bag record` asks of each topic; what is not named, it finds out itself."""
    reliability = 'reliable' if options.reliable else 'best_effort'
    lines = ['# What ros2 bag record asks for. best_effort hears every publisher; a deep queue '
             'loses nothing\n# while the disk is busy.']
    for name, topic in sensors.items():
        lines += _entry(topic, SENSORS[name][1], reliability, 'volatile')
    for topic in latched:
        lines += _entry(topic, 10, 'reliable', 'transient_local')
    return '\n'.join(lines) + '\n'


def _entry(topic: str, depth: int, reliability: str, durability: str) -> list[str]:
    return [f'{topic}:', '  history: keep_last', f'  depth: {depth}',
            f'  reliability: {reliability}', f'  durability: {durability}']
