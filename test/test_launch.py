"""
The launch file.

Launch is no wheel: where there is none, the file runs on stand-ins that record its calls.
Where it is installed, the same file is loaded by the real one as well.
"""

from __future__ import annotations

import importlib.util
from pathlib import Path
import sys
from types import ModuleType
from typing import Any

import pytest

LAUNCH_FILE = Path(__file__).resolve().parents[1] / 'launch' / 'karmma.launch.py'
TOPICS = {'image', 'flow', 'audio', 'audio_info', 'detections', 'action_recognition'}
ARGUMENTS = TOPICS | {
    'params_file', 'model', 'allow_hub', 'device', 'backend', 'rate', 'namespace', 'name',
    'overlay', 'autostart', 'use_sim_time', 'respawn', 'log_level', 'remap'}
WEBCAM_FILE = LAUNCH_FILE.with_name('webcam.launch.py')
MODULES = ('launch', 'launch.actions', 'launch.events', 'launch.substitutions',
           'launch.launch_description_sources',
           'launch_ros.actions', 'launch_ros.event_handlers', 'launch_ros.events.lifecycle')
HAS_LAUNCH = importlib.util.find_spec('launch_ros') is not None


class Note:
    """A class that the launch file uses, and the arguments of its call."""

    def __init__(
        self, class_name: str, arguments: tuple[Any, ...], options: dict[str, Any]
    ) -> None:
        self.class_name, self.arguments, self.options = class_name, arguments, options

    def perform(self, context: dict[str, str]) -> str:
        """Return a LaunchConfiguration's value."""
        assert self.class_name == 'LaunchConfiguration'
        return context[self.arguments[0]]


def load(file: Path = LAUNCH_FILE) -> ModuleType:
    """Load a launch file as launch does."""
    spec = importlib.util.spec_from_file_location('karmma_launch', file)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def stand_ins(monkeypatch) -> None:
    """Put stand-ins in the place of launch's modules."""
    def stand_in(name: str) -> ModuleType:
        module = ModuleType(name)
        module.__getattr__ = lambda class_name: (  # type: ignore[method-assign]
            lambda *arguments, **options: Note(class_name, arguments, options))
        return module

    for name in MODULES:
        for part in (name.partition('.')[0], name.rpartition('.')[0], name):
            if part:
                monkeypatch.setitem(sys.modules, part, stand_in(part))


@pytest.fixture
def description(stand_ins) -> list[Note]:
    """Run the launch file on the stand-ins."""
    return entities(LAUNCH_FILE)


@pytest.fixture
def webcam(stand_ins) -> list[Note]:
    """Run the launch file of a webcam on the stand-ins."""
    return entities(WEBCAM_FILE)


def entities(file: Path) -> list[Note]:
    """Return what a launch file describes."""
    description: Note = load(file).generate_launch_description()  # type: ignore[assignment]
    assert description.class_name == 'LaunchDescription'
    return description.arguments[0]


def start(description: list[Note], **given: str) -> list[Note]:
    """Carry out the part of the launch file that knows the arguments' values."""
    context = {note.arguments[0]: note.options['default_value'] for note in description[:-1]}
    assert set(given) <= set(context)
    assert description[-1].class_name == 'OpaqueFunction'
    return description[-1].options['function']({**context, **given})


def repr_of(value: Any) -> Any:
    """Return what a stand-in was made of, for comparison."""
    if isinstance(value, Note):
        return value.class_name, value.arguments
    return [repr_of(each) for each in value] if isinstance(value, list) else value


def transition(note: Note) -> int:
    """Return the transition that an EmitEvent requests."""
    assert (note.class_name, note.options['event'].class_name) == ('EmitEvent', 'ChangeState')
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
    assert node.class_name == 'LifecycleNode' and activate.class_name == 'RegisterEventHandler'
    assert node.options['package'] == 'karmma_ros'
    assert node.options['executable'] == 'karmma_node'
    assert 'autostart' not in node.options, 'Humble has no such argument'
    assert transition(configure) == Transition.TRANSITION_CONFIGURE
    handler = activate.arguments[0]
    assert handler.class_name == 'OnStateTransition'
    assert handler.options['target_lifecycle_node'] is node
    assert (handler.options['start_state'], handler.options['goal_state']) \
        == ('configuring', 'inactive')
    assert handler.options['handle_once'] is True
    assert [transition(e) for e in handler.options['entities']] \
        == [Transition.TRANSITION_ACTIVATE]


def test_without_autostart_the_node_is_only_started(description):
    assert [note.class_name for note in start(description, autostart='false')] == ['LifecycleNode']


def test_a_model_overrides_the_file_only_when_given(description, tmp_path):
    ours = tmp_path / 'p.yaml'
    ours.touch()
    file, overrides = start(description)[1].options['parameters']
    assert file.endswith('config/node/karmma.yaml') and overrides == {}
    given = start(description, model='/m', use_sim_time='true', params_file=str(ours))[1]
    assert given.options['parameters'] == [str(ours), {'use_sim_time': True, 'model': '/m'}]


def test_models_of_the_hub_are_allowed_by_an_argument(description):
    for text, value in (('true', True), ('1', True), ('no', False)):
        node = start(description, model='hf://me/kitchen@v1', allow_hub=text)[1]
        assert node.options['parameters'][1] == {
            'model': 'hf://me/kitchen@v1', 'allow_hub': value}
    with pytest.raises(RuntimeError, match="allow_hub is 'perhaps'; expected true or false"):
        start(description, allow_hub='perhaps')


def test_topics_are_remapped_by_their_names_in_the_node(description):
    from karmma_ros.modalities import modality_type
    from karmma_ros.modality import PAPER_MODALITIES

    assert {modality_type(m).topic_name for m in PAPER_MODALITIES} | {
        'action_recognition'
    } <= TOPICS
    remappings = start(description)[1].options['remappings']
    assert {name for name, _ in remappings} == TOPICS
    assert all(note.arguments == (name,) for name, note in remappings)


def test_topics_of_further_inputs_are_remapped(description):
    node, overlay = start(description, overlay='true', autostart='false',
                          remap='imu:=/imu/data  image_wrist:=/wrist/image_raw')
    assert node.options['remappings'][-2:] == [
        ('imu', '/imu/data'), ('image_wrist', '/wrist/image_raw')]
    assert {name for name, _ in overlay.options['remappings']} == {'image', 'action_recognition'}
    for wrong in ('imu=/imu', 'imu', ':=/imu', 'imu:='):
        with pytest.raises(RuntimeError, match='expected FROM:=TO'):
            start(description, remap=wrong)


def test_the_overlay_comes_when_asked_for_and_sees_the_same_camera(description):
    node, overlay = start(description, overlay='true', autostart='false')
    assert (overlay.class_name, overlay.options['executable']) == ('Node', 'overlay')
    camera = dict(node.options['remappings'])['image']
    assert dict(overlay.options['remappings'])['image'].arguments == camera.arguments
    for option in ('namespace', 'ros_arguments'):
        ours, theirs = node.options[option], overlay.options[option]
        assert repr_of(ours) == repr_of(theirs), option
    assert len(start(description)) == 3, 'and only then'


def test_the_overlay_takes_no_model(description):
    _, overlay = start(description, overlay='true', autostart='false', model='/m')
    assert overlay.options['parameters'][1] == {}


def test_use_sim_time_overrides_the_file_only_when_given(description):
    for text, value in (('true', True), ('false', False)):
        nodes = start(description, overlay='true', autostart='false', use_sim_time=text)
        assert [each.options['parameters'][1] for each in nodes] == [{'use_sim_time': value}] * 2


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


@pytest.mark.parametrize('text', ['true', 'True', 'TRUE', '1', 'yes', 'Yes', 'on', 'y', "'true'"])
@pytest.mark.parametrize('switch', ['overlay', 'autostart', 'use_sim_time', 'respawn'])
def test_a_switch_takes_every_spelling(description, switch, text):
    off = {'true': 'false', 'True': 'False', 'TRUE': 'FALSE', '1': '0', 'yes': 'no', 'Yes': 'No',
           'on': 'off', 'y': 'n', "'true'": "'false'"}[text]
    for given, plain in ((text, 'true'), (off, 'false')):
        ours, theirs = (start(description, **{switch: each}) for each in (given, plain))
        assert [n.class_name for n in ours] == [n.class_name for n in theirs]
        for one, other in zip(ours, theirs):
            assert one.options.get('parameters') == other.options.get('parameters')
            assert one.options.get('respawn') == other.options.get('respawn')


@pytest.mark.parametrize(('given', 'error'), [
    ({'overlay': 'maybe'}, "overlay is 'maybe'; expected true or false"),
    ({'use_sim_time': 'maybe'}, "use_sim_time is 'maybe'; expected true or false"),
    ({'rate': 'fast'}, "rate is 'fast'; expected a number"),
    ({'params_file': '/no/such.yaml'}, "params_file is '/no/such.yaml', which is no file"),
    ({'params_file': ''}, "params_file is '.', which is no file"),
])
def test_a_wrong_argument_is_an_error_that_names_it(description, given, error):
    with pytest.raises(RuntimeError) as raised:
        start(description, **given)
    assert error in str(raised.value)


def test_parameters_that_are_given_override_the_file(description):
    given = start(description, device='cuda:1', backend='eager', rate='2')[1]
    assert given.options['parameters'][1] == {
        'device': 'cuda:1', 'backend': 'eager', 'rate': 2.0}
    from karmma_ros.node.declarations import DECLARATIONS
    assert set(load_parameters()) - {'use_sim_time'} <= {d.name for d in DECLARATIONS}


def load_parameters():
    return load().PARAMETERS


def test_the_name_is_also_the_overlays_and_whose_results_it_draws(description):
    node, overlay = start(description, name='left', overlay='true', autostart='false')
    assert (node.options['name'], overlay.options['name']) == ('left', 'left_overlay')
    assert overlay.options['parameters'][1] == {'recogniser': 'left'}
    results = [dict(each.options['remappings'])['action_recognition'].arguments
               for each in (node, overlay)]
    assert results == [('action_recognition',)] * 2


def test_a_node_that_is_started_again_activates_itself(description):
    """Launch sends its transitions once, to the first process."""
    node, = start(description, respawn='true')
    assert (node.options['respawn'], node.options['respawn_delay']) == (True, 2.0)
    assert node.options['parameters'][1] == {'autostart': True}
    node, = start(description, respawn='true', autostart='false')
    assert node.options['parameters'][1] == {}
    assert 'respawn' not in start(description)[1].options


def including():
    """Return the code of docs/node.md that includes the launch file, and the names it defines."""
    page = (LAUNCH_FILE.parents[1] / 'docs' / 'node.md').read_text()
    return next(code for code in page.split('```python\n')[1:] if 'GroupAction' in code
                ).partition('```')[0]


def test_the_documented_inclusion_keeps_arguments_apart():
    code = including()
    compile(code, 'docs/node.md', 'exec')
    assert 'scoped=True' in code and 'forwarding=False' in code
    assert "'image': LaunchConfiguration('camera')" in code


def test_a_webcam_starts_drivers_and_the_node(webcam):
    camera, microphone, included = start(webcam, model='/m', video_device='/dev/video2')
    assert (camera.options['package'], camera.options['executable']) == (
        'usb_cam', 'usb_cam_node_exe')
    assert camera.options['parameters'] == [
        {'video_device': '/dev/video2', 'image_width': 640, 'image_height': 480}]
    assert microphone.options['package'] == 'audio_capture'
    assert microphone.options['parameters'][0]['format'] == 'wave'
    assert 'device' not in microphone.options['parameters'][0]
    assert included.class_name == 'IncludeLaunchDescription'
    given = dict(included.options['launch_arguments'])
    assert set(given) <= ARGUMENTS
    assert (given['image'], given['audio'], given['model'], given['overlay']) == (
        'image_raw', 'audio_stamped', '/m', 'true')


def test_the_microphone_publishes_what_the_node_expects_by_default(webcam):
    import yaml
    file = LAUNCH_FILE.parents[1] / 'config' / 'node' / 'karmma.yaml'
    audio = yaml.safe_load(file.read_text())['/**']['ros__parameters']['audio']
    driver = start(webcam)[1].options['parameters'][0]
    for name in ('channels', 'sample_rate', 'sample_format'):
        assert driver[name] == audio[name]


def test_another_driver_and_no_microphone(webcam):
    camera, included = start(webcam, camera='v4l2_camera', microphone='none',
                             image_size='1280x720', namespace='head')
    assert camera.options['executable'] == 'v4l2_camera_node'
    assert camera.options['parameters'][0]['image_size'] == [1280, 720]
    assert camera.options['namespace'] == 'head'
    assert dict(included.options['launch_arguments'])['namespace'] == 'head'
    microphone, included = start(webcam, camera='none')
    assert microphone.options['name'] == 'microphone'
    assert dict(included.options['launch_arguments'])['overlay'] == 'false'


def test_a_webcam_is_recorded(webcam, monkeypatch, tmp_path):
    monkeypatch.setenv('ROS_DISTRO', 'jazzy')
    bag = str(tmp_path / 'monday')
    recorder = start(webcam, record=bag, recognise='false')[-1]
    assert recorder.options['cmd'] == [
        'ros2', 'bag', 'record', '--output', bag, '--topics', '/image_raw', '/audio_stamped',
        '/audio_info']
    monkeypatch.setenv('ROS_DISTRO', 'humble')
    words = start(webcam, record=bag, namespace='/head')[-1].options['cmd']
    assert words[5:7] == ['/head/image_raw', '/head/audio_stamped']
    assert words[-1] == '/head/karmma/model_info'


@pytest.mark.parametrize(('given', 'error'), [
    ({'camera': 'webcam'}, "camera is 'webcam'; expected usb_cam, v4l2_camera or none"),
    ({'microphone': 'alsa'}, "microphone is 'alsa'; expected audio_capture or none"),
    ({'camera': 'none', 'microphone': 'none'}, 'expected a driver of at least one'),
    ({'image_size': '640'}, "image_size is '640'; expected WIDTHxHEIGHT, such as 640x480"),
    ({'image_size': '0x480'}, "image_size is '0x480'; expected WIDTHxHEIGHT"),
    ({'recognise': 'maybe'}, "recognise is 'maybe'; expected true or false"),
    ({'record': '.'}, "record is '.', which exists; expected a new directory"),
])
def test_a_wrong_argument_of_the_webcam_is_an_error_that_names_it(webcam, given, error):
    with pytest.raises(RuntimeError) as raised:
        start(webcam, **given)
    assert error in str(raised.value)


if HAS_LAUNCH:
    def test_the_real_launch_takes_the_webcam():
        from launch import LaunchContext
        description = load(WEBCAM_FILE).generate_launch_description()
        context = LaunchContext()
        for entity in description.entities[:-1]:
            entity.visit(context)
        class_names = [
            type(entity).__name__ for entity in description.entities[-1].execute(context)
        ]
        assert class_names == ['Node', 'Node', 'IncludeLaunchDescription']

    def test_the_real_launch_takes_it():
        from launch import LaunchContext
        description = load().generate_launch_description()
        assert {a.name for a in description.get_launch_arguments()} == ARGUMENTS
        context = LaunchContext()
        for entity in description.entities[:-1]:
            entity.visit(context)
        context.launch_configurations['overlay'] = 'true'
        class_names = [
            type(entity).__name__ for entity in description.entities[-1].execute(context)
        ]
        assert class_names == ['RegisterEventHandler', 'LifecycleNode', 'Node', 'EmitEvent']

    def test_the_real_launch_keeps_the_arguments_of_a_bringup_apart():
        """The including file has arguments of the same names with other meanings."""
        from launch import LaunchContext
        scope: dict[str, Any] = {}
        exec(including().replace(
            "FindPackageShare('karmma_ros')", repr(str(LAUNCH_FILE.parents[1]))), scope)
        description = scope['generate_launch_description']()
        context = LaunchContext()
        context.launch_configurations.update(
            params_file='/of/the/bringup.yaml', name='bringup', use_sim_time='maybe',
            camera='/front/image_raw')
        seen = []

        def visit(entities):
            for entity in entities:
                if type(entity).__name__ in ('LifecycleNode', 'Node'):
                    seen.append(dict(context.launch_configurations))
                    continue
                if type(entity).__name__ in ('RegisterEventHandler', 'EmitEvent'):
                    continue
                visit(entity.visit(context) or [])

        visit(description.entities)
        inside, = seen
        assert inside['image'] == '/front/image_raw' and inside['name'] == 'karmma'
        assert inside['use_sim_time'] == ''
        assert inside['params_file'].endswith('config/node/karmma.yaml')
        assert context.launch_configurations['name'] == 'bringup'
        assert 'image' not in context.launch_configurations
