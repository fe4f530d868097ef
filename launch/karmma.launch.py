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
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments: files, names and topics; every number is in params_file."""
    switch = {'choices': ['true', 'false']}
    return LaunchDescription([
        DeclareLaunchArgument('params_file', default_value=str(PARAMS_FILE),
                              description="the nodes' parameters, YAML"),
        DeclareLaunchArgument('model', default_value='',
                              description="model directory or name, instead of params_file's"),
        DeclareLaunchArgument('namespace', default_value='', description="the nodes' namespace"),
        *(DeclareLaunchArgument(name, default_value=name, description=f'topic of {content}')
          for name, content in TOPICS.items()),
        DeclareLaunchArgument('overlay', default_value='false', **switch,
                              description='publish karmma_overlay/image too, with what is '
                                          'recognised drawn on the picture'),
        DeclareLaunchArgument('autostart', default_value='true', **switch,
                              description='configure and activate the node, not only start it'),
        DeclareLaunchArgument('use_sim_time', default_value='false', **switch,
                              description='follow /clock, e.g. of a bag that is played'),
        DeclareLaunchArgument('log_level', default_value='info',
                              description='debug, info, warn, error or fatal'),
        OpaqueFunction(function=_start),
    ])


def _start(context):
    """Give the nodes with their transitions; an empty model leaves params_file's alone."""
    given = {name: LaunchConfiguration(name).perform(context)
             for name in ('params_file', 'model', 'overlay', 'autostart', 'use_sim_time')}
    overrides = {'use_sim_time': given['use_sim_time'] == 'true'}
    model = {'model': given['model']} if given['model'] else {}
    node = LifecycleNode(
        executable='karmma_node', name='karmma',
        remappings=[(name, LaunchConfiguration(name)) for name in TOPICS],
        **_shared(given['params_file'], {**overrides, **model}),
    )
    overlay = Node(
        executable='overlay', name='karmma_overlay',
        remappings=[('image', LaunchConfiguration('image'))],
        **_shared(given['params_file'], overrides),
    )
    nodes = [node, overlay] if given['overlay'] == 'true' else [node]
    if given['autostart'] == 'false':
        return nodes
    # LifecycleNode(autostart=True) is not in Humble, nor in the first Jazzy. Without start_state
    # and handle_once the node would be activated again after every deactivation.
    activate_once = RegisterEventHandler(OnStateTransition(
        target_lifecycle_node=node, start_state='configuring', goal_state='inactive',
        entities=[_transition(node, Transition.TRANSITION_ACTIVATE)], handle_once=True,
    ))
    return [activate_once, *nodes, _transition(node, Transition.TRANSITION_CONFIGURE)]


def _shared(params_file, overrides):
    """Give what the nodes have in common."""
    return {
        'package': 'karmma_ros', 'namespace': LaunchConfiguration('namespace'),
        'output': 'screen', 'parameters': [params_file, overrides],
        'ros_arguments': ['--log-level', LaunchConfiguration('log_level')],
    }


def _transition(node, transition_id):
    """Ask `node` for a lifecycle transition."""
    return EmitEvent(event=ChangeState(
        lifecycle_node_matcher=matches_action(node), transition_id=transition_id,
    ))
