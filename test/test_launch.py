"""
The launch file.

Launch is no wheel: where there is none, the file runs on stand-ins that only note what it asks
for. Where it is installed, the same file is loaded by the real one as well.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

import pytest

LAUNCH_FILE = Path(__file__).resolve().parents[1] / 'launch' / 'karmma.launch.py'
TOPICS = {'image', 'flow', 'audio', 'audio_info', 'detections'}
ARGUMENTS = TOPICS | {'params_file', 'model', 'namespace', 'overlay', 'autostart', 'use_sim_time',
                      'log_level'}
MODULES = ('launch', 'launch.actions', 'launch.events', 'launch.substitutions',
           'launch_ros.actions', 'launch_ros.event_handlers', 'launch_ros.events.lifecycle')
HAS_LAUNCH = importlib.util.find_spec('launch_ros') is not None


class Note:
    """What the launch file asked for: the name of a class and what it was called with."""

    def __init__(self, kind: str, arguments: tuple[Any, ...], options: dict[str, Any]) -> None:
        self.kind, self.arguments, self.options = kind, arguments, options

    def perform(self, context: dict[str, str]) -> str:
        """Give a LaunchConfiguration's value."""
        assert self.kind == 'LaunchConfiguration'
        return context[self.arguments[0]]


def load() -> ModuleType:
    """Load the launch file as launch does."""
    spec = importlib.util.spec_from_file_location('karmma_launch', LAUNCH_FILE)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def description(monkeypatch) -> list[Note]:
    """Run the launch file on the stand-ins."""
    def stand_in(name: str) -> ModuleType:
        module = ModuleType(name)
        module.__getattr__ = lambda kind: (  # type: ignore[method-assign]
            lambda *arguments, **options: Note(kind, arguments, options))
        return module

    for name in MODULES:
        for part in (name.partition('.')[0], name.rpartition('.')[0], name):
            if part:
                monkeypatch.setitem(sys.modules, part, stand_in(part))
    description: Note = load().generate_launch_description()  # type: ignore[assignment]
    assert description.kind == 'LaunchDescription'
    return description.arguments[0]


def start(description: list[Note], **given: str) -> list[Note]:
    """Carry out the part of the launch file that knows the arguments' values."""
    context = {note.arguments[0]: note.options['default_value'] for note in description[:-1]}
    assert set(given) <= set(context)
    assert description[-1].kind == 'OpaqueFunction'
    return description[-1].options['function']({**context, **given})


def repr_of(value: Any) -> Any:
    """Give what a stand-in was made of, for comparison."""
    if isinstance(value, Note):
        return value.kind, value.arguments
    return [repr_of(each) for each in value] if isinstance(value, list) else value


def transition(note: Note) -> int:
    """Give the transition that an EmitEvent asks for."""
    assert (note.kind, note.options['event'].kind) == ('EmitEvent', 'ChangeState')
    return note.options['event'].options['transition_id']


def test_arguments_are_files_names_and_topics(description):
    defaults = {note.arguments[0]: note.options for note in description[:-1]}
    assert set(defaults) == ARGUMENTS
    assert all(options['description'] for options in defaults.values())
    assert Path(defaults['params_file']['default_value']).is_file()
    numbers = [o for o in defaults.values() if o['default_value'].replace('.', '').isdigit()]
    assert not numbers, "numbers belong into the node's YAML"


def test_the_node_is_brought_to_active_once(description):
    from lifecycle_msgs.msg import Transition
    activate, node, configure = start(description)
    assert node.kind == 'LifecycleNode' and activate.kind == 'RegisterEventHandler'
    assert node.options['package'] == 'karmma_ros'
    assert node.options['executable'] == 'karmma_node'
    assert 'autostart' not in node.options, 'Humble has no such argument'
    assert transition(configure) == Transition.TRANSITION_CONFIGURE
    handler = activate.arguments[0]
    assert handler.kind == 'OnStateTransition'
    assert handler.options['target_lifecycle_node'] is node
    assert (handler.options['start_state'], handler.options['goal_state']) \
        == ('configuring', 'inactive')
    assert handler.options['handle_once'] is True
    assert [transition(e) for e in handler.options['entities']] \
        == [Transition.TRANSITION_ACTIVATE]


def test_without_autostart_the_node_is_only_started(description):
    assert [note.kind for note in start(description, autostart='false')] == ['LifecycleNode']


def test_a_model_overrides_the_file_only_when_given(description):
    file, overrides = start(description)[1].options['parameters']
    assert file.endswith('config/node/karmma.yaml') and overrides == {'use_sim_time': False}
    given = start(description, model='/m', use_sim_time='true', params_file='p.yaml')[1]
    assert given.options['parameters'] == ['p.yaml', {'use_sim_time': True, 'model': '/m'}]


def test_topics_are_remapped_by_their_names_in_the_node(description):
    from karmma_ros.node.inputs import TOPICS as OF_THE_NODE
    assert set(OF_THE_NODE.values()) <= TOPICS
    remappings = start(description)[1].options['remappings']
    assert {name for name, _ in remappings} == TOPICS
    assert all(note.arguments == (name,) for name, note in remappings)


def test_the_overlay_comes_when_asked_for_and_sees_the_same_camera(description):
    node, overlay = start(description, overlay='true', autostart='false')
    assert (overlay.kind, overlay.options['executable']) == ('Node', 'overlay')
    camera = dict(node.options['remappings'])['image']
    assert dict(overlay.options['remappings'])['image'].arguments == camera.arguments
    for option in ('namespace', 'ros_arguments'):
        ours, theirs = node.options[option], overlay.options[option]
        assert repr_of(ours) == repr_of(theirs), option
    assert len(start(description)) == 3, 'and only then'


def test_the_overlay_takes_no_model(description):
    _, overlay = start(description, overlay='true', autostart='false', model='/m')
    assert overlay.options['parameters'][1] == {'use_sim_time': False}


def test_no_name_is_absolute(description):
    """A second instance in another namespace shall have topics of its own."""
    defaults = {note.arguments[0]: note.options['default_value'] for note in description[:-1]}
    assert not [name for name in TOPICS | {'namespace'} if defaults[name].startswith('/')]
    for node in start(description, overlay='true', autostart='false'):
        assert node.options['namespace'].arguments == ('namespace',)
        assert '/' not in node.options['name']


def test_every_executable_is_an_entry_point(description):
    lines = (LAUNCH_FILE.parents[1] / 'setup.py').read_text()
    for node in start(description, overlay='true', autostart='false'):
        assert f"'{node.options['executable']} = karmma_ros" in lines


if HAS_LAUNCH:
    def test_the_real_launch_takes_it():
        from launch import LaunchContext
        description = load().generate_launch_description()
        assert {a.name for a in description.get_launch_arguments()} == ARGUMENTS
        context = LaunchContext()
        for entity in description.entities[:-1]:
            entity.visit(context)
        context.launch_configurations['overlay'] = 'true'
        kinds = [type(entity).__name__ for entity in description.entities[-1].execute(context)]
        assert kinds == ['RegisterEventHandler', 'LifecycleNode', 'Node', 'EmitEvent']
