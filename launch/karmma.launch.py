"""
Start the recognition node and bring it to active; with overlay:=true the overlay beside it.

`ros2 launch karmma_ros karmma.launch.py image:=/camera/image_raw audio:=/audio_stamped`
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode, Node
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

# Beside this folder both in the source tree and below share/karmma_ros.
PARAMS_FILE = Path(__file__).resolve().parents[1] / 'config' / 'node' / 'karmma.yaml'
TOPICS = {
    'image': 'the camera, sensor_msgs/msg/Image; with rgb.transport compressed the node takes '
             'this topic with /compressed behind it',
    'flow': 'optical flow, sensor_msgs/msg/Image of 32FC2; with flow.source topic only',
    'audio': 'the microphone, of the message type in audio.type',
    'audio_info': "the microphone's format, audio_common_msgs/msg/AudioInfo",
    'detections': 'hands and objects, of the message type in detections.type',
    'action_recognition': 'the results, karmma_msgs/msg/ActionRecognition',
}
PARAMETERS = {
    'model': ('model directory or name, or with allow_hub:=true hf://ORGANISATION/NAME@REVISION',
              str),
    'allow_hub': ('download models of the Hugging Face Hub, true or false', bool),
    'device': ('auto, cpu, cuda or cuda:N', str),
    'backend': ('auto, eager, compiled, onnxruntime or openvino', str),
    'rate': ('results a second', float),
    'use_sim_time': ('follow /clock, e.g. of a bag that is played, true or false', bool),
}
"""Parameters that are set instead of params_file's, if they are given."""
SWITCHES = {
    'overlay': ('false', 'publish NAME_overlay/image too, with the recognised action drawn on '
                         'the image'),
    'autostart': ('true', 'configure and activate the node, not only start it'),
    'respawn': ('false', 'start a node again 2 s after its process has ended'),
}
TRUE, FALSE = ('true', '1', 'yes', 'on', 'y', 't'), ('false', '0', 'no', 'off', 'n', 'f')
RESPAWN_DELAY_S = 2.0


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments: files, names and topics; defaults of parameters are in the file."""
    return LaunchDescription([
        DeclareLaunchArgument('params_file', default_value=str(PARAMS_FILE),
                              description="the nodes' parameters, YAML"),
        *(DeclareLaunchArgument(name, default_value='',
                                description=f"{content}, instead of params_file's")
          for name, (content, _) in PARAMETERS.items()),
        DeclareLaunchArgument('namespace', default_value='', description="the nodes' namespace"),
        DeclareLaunchArgument('name', default_value='karmma',
                              description='name of the node; the overlay is NAME_overlay'),
        *(DeclareLaunchArgument(name, default_value=name, description=f'topic of {content}')
          for name, content in TOPICS.items()),
        DeclareLaunchArgument('remap', default_value='', description='topics of further inputs of '
                              'the model, as "imu:=/imu/data image_wrist:=/wrist/image_raw"'),
        *(DeclareLaunchArgument(name, default_value=default,
                                description=f'{content}; true or false')
          for name, (default, content) in SWITCHES.items()),
        DeclareLaunchArgument('log_level', default_value='info',
                              description='debug, info, warn, error or fatal'),
        OpaqueFunction(function=_start),
    ])


def _start(context):
    """Return the nodes with their transitions."""
    switches = {name: _boolean(name, _value(context, name)) for name in SWITCHES}
    shared = _shared(switches)
    name = _value(context, 'name')
    node = LifecycleNode(
        executable='karmma_node', name=name,
        remappings=[*_remappings(TOPICS), *_further_remappings(_value(context, 'remap'))],
        parameters=[_params_file(context), _overrides(context, switches)], **shared)
    nodes = [node]
    if switches['overlay']:
        nodes.append(Node(
            executable='overlay', name=f'{name}_overlay',
            remappings=_remappings(('image', 'action_recognition')),
            parameters=[_params_file(context), {
                **_given(context, 'use_sim_time'),
                **({'recogniser': name} if name != 'karmma' else {})}], **shared))
    if not switches['autostart'] or switches['respawn']:
        return nodes
    # LifecycleNode(autostart=True) is not in Humble, nor in the first Jazzy. Without start_state
    # and handle_once the node would be activated again after every deactivation.
    activate_once = RegisterEventHandler(OnStateTransition(
        target_lifecycle_node=node, start_state='configuring', goal_state='inactive',
        entities=[_transition(node, Transition.TRANSITION_ACTIVATE)], handle_once=True,
    ))
    return [activate_once, *nodes, _transition(node, Transition.TRANSITION_CONFIGURE)]


def _overrides(context, switches):
    """Return the parameters that were given as arguments."""
    overrides = _given(context, *PARAMETERS)
    if switches['respawn'] and switches['autostart']:
        # Launch requests its transitions once: a process that comes back starts by itself.
        overrides['autostart'] = True
    return overrides


def _given(context, *names):
    """Return those of these parameters that were given."""
    texts = {name: _value(context, name) for name in names}
    return {name: _converted(name, text) for name, text in texts.items() if text}


def _shared(switches):
    """Return what the nodes have in common."""
    respawn = {'respawn': True, 'respawn_delay': RESPAWN_DELAY_S} if switches['respawn'] else {}
    return {
        'package': 'karmma_ros', 'namespace': LaunchConfiguration('namespace'),
        'output': 'screen', 'ros_arguments': ['--log-level', LaunchConfiguration('log_level')],
        **respawn,
    }


def _params_file(context):
    """Return the path of the parameter file; launch_ros starts a node without one that is not."""
    path = Path(_value(context, 'params_file')).expanduser()
    if not path.is_file():
        raise RuntimeError(f"params_file is '{path}', which is no file: give the path of a YAML "
                           f'file, or leave it out for {PARAMS_FILE}')
    return str(path)


def _remappings(names):
    return [(name, LaunchConfiguration(name)) for name in names]


def _further_remappings(text):
    """Return the remappings of an argument `FROM:=TO FROM:=TO`."""
    remappings = []
    for word in text.split():
        name, separator, topic = word.partition(':=')
        if not (name and separator and topic):
            raise RuntimeError(f'remap is {text!r}; expected FROM:=TO, several separated by '
                               'spaces, such as "imu:=/imu/data"')
        remappings.append((name, topic))
    return remappings


def _value(context, name):
    """Return the value of an argument."""
    return LaunchConfiguration(name).perform(context)


def _boolean(name, text):
    """Return what a switch is set to; YAML, Python and the shell write it in different ways."""
    word = text.strip().strip('\'"').lower()
    if word in TRUE or word in FALSE:
        return word in TRUE
    raise RuntimeError(f'{name} is {text!r}; expected true or false '
                       f'(also {", ".join((*TRUE[1:], *FALSE[1:]))})')


def _converted(name, text):
    convert = PARAMETERS[name][1]
    if convert is bool:
        return _boolean(name, text)
    try:
        return convert(text)
    except ValueError:
        raise RuntimeError(f'{name} is {text!r}; expected a number') from None


def _transition(node, transition_id):
    """Return a request of a lifecycle transition of `node`."""
    return EmitEvent(event=ChangeState(
        lifecycle_node_matcher=matches_action(node), transition_id=transition_id,
    ))
