"""What Foxglove and RViz are configured to show exists, with its names and fields."""

from __future__ import annotations

from importlib import import_module
import json
from pathlib import Path
import re

from diagnostic_msgs.msg import DiagnosticArray
from karmma_msgs.msg import ActionEvent, ActionRecognition, ModalityAvailability
from karmma_ros.overlay.node import Overlay
import pytest
from rclpy.qos import DurabilityPolicy, HistoryPolicy, ReliabilityPolicy
from sensor_msgs.msg import CompressedImage, Image
import yaml

ROOT = Path(__file__).resolve().parents[2]
VIEWS = ROOT / 'config' / 'view'
TOPICS = {
    '/action_recognition': ActionRecognition,
    '/karmma/action_events': ActionEvent,
    '/karmma/modality_availability': ModalityAvailability,
    '/diagnostics': DiagnosticArray,
    '/karmma_overlay/image': Image,
    '/karmma_overlay/image/compressed': CompressedImage,
}
PANELS = {'Image', 'StateTransitions', 'Plot', 'RawMessages', 'DiagnosticSummary'}
"""The panels' names, the same in Foxglove and in Lichtblick."""


@pytest.fixture(scope='module')
def foxglove():
    return json.loads((VIEWS / 'karmma_foxglove.json').read_text())


@pytest.fixture(scope='module')
def rviz():
    return yaml.safe_load((VIEWS / 'karmma.rviz').read_text())


@pytest.fixture
def overlay(ros):
    node = Overlay()
    yield node
    node.destroy_node()


def panels_of(layout):
    """List the panels of a tree of splits."""
    if isinstance(layout, str):
        return [layout]
    assert layout['direction'] in ('row', 'column') and 0 < layout['splitPercentage'] < 100
    return panels_of(layout['first']) + panels_of(layout['second'])


def message_paths(config):
    """Find every text that names a topic, wherever it stands in a panel's configuration."""
    if isinstance(config, dict):
        return [path for value in config.values() for path in message_paths(value)]
    if isinstance(config, list):
        return [path for value in config for path in message_paths(value)]
    return [config] if isinstance(config, str) and config.startswith('/') else []


def check_field(message_type, path):
    """Follow `.verbs[0].score` through a message's definition."""
    for name, index in re.findall(r'\.(\w+)(\[\d+\])?', path):
        fields = message_type.get_fields_and_field_types()
        assert name in fields, f'{message_type.__name__} has no field {name}'
        described = fields[name]
        inner = re.fullmatch(r'sequence<(.+)>', described)
        assert bool(index) == bool(inner), f'{name} is {described}'
        described = inner[1] if inner else described
        if '/' in described:
            package, _, name = described.partition('/')
            message_type = getattr(import_module(f'{package}.msg'), name)


def test_every_panel_is_placed_once_and_configured(foxglove):
    placed = panels_of(foxglove['layout'])
    assert sorted(placed) == sorted(foxglove['configById'])
    assert {panel.partition('!')[0] for panel in placed} == PANELS


def test_every_topic_and_field_in_foxglove_exists(foxglove):
    paths = message_paths(foxglove['configById'])
    assert len(paths) > 10
    for path in paths:
        topic, _, field = path.partition('.')
        assert topic in TOPICS, path
        check_field(TOPICS[topic], f'.{field}' if field else '')


def test_what_foxglove_calls_a_state_is_what_the_message_calls_it(foxglove):
    from karmma_msgs.msg import ModalityStatus
    title = foxglove['configById']['StateTransitions!sensors']['foxglovePanelTitle']
    for number, name in ((ModalityStatus.AVAILABLE, 'available'), (ModalityStatus.STALE, 'stale'),
                         (ModalityStatus.INVALID, 'invalid'), (ModalityStatus.DISABLED, 'off')):
        assert f'{number} {name}' in title


def test_rviz_shows_the_overlay_in_the_quality_it_is_offered(rviz, overlay):
    display, = rviz['Visualization Manager']['Displays']
    assert display['Class'] == 'rviz_default_plugins/Image' and display['Enabled']
    topic = display['Topic']
    assert topic['Value'] in TOPICS
    offer, = overlay.get_publishers_info_by_topic(topic['Value'])
    assert topic['Reliability Policy'] == 'Reliable'
    assert offer.qos_profile.reliability == ReliabilityPolicy.RELIABLE
    assert topic['Durability Policy'] == 'Volatile'
    assert offer.qos_profile.durability == DurabilityPolicy.VOLATILE
    assert topic['History Policy'] == 'Keep Last' and HistoryPolicy.KEEP_LAST


def test_the_topics_named_here_are_those_of_the_nodes(overlay):
    own = dict(overlay.get_publisher_names_and_types_by_node('karmma_overlay', '/'))
    subscribed = dict(overlay.get_subscriber_names_and_types_by_node('karmma_overlay', '/'))
    for topic, message_type in TOPICS.items():
        name = f'{message_type.__module__.split(".")[0]}/msg/{message_type.__name__}'
        if topic.startswith('/karmma_overlay'):
            assert own[topic] == [name]
        elif topic != '/diagnostics':
            assert subscribed[topic] == [name]
    code = ''.join(path.read_text() for path in (ROOT / 'karmma_ros' / 'node').glob('*.py'))
    for name in ("'/diagnostics'", "'action_recognition'", "'~/modality_availability'",
                 "'~/action_events'"):
        assert name in code
