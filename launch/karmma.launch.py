"""
Start the recognition node and bring it to active.

`ros2 launch karmma_ros karmma.launch.py image:=/camera/image_raw audio:=/audio_stamped`
"""

from pathlib import Path

from launch import LaunchDescription
from launch.actions import DeclareLaunchArgument, EmitEvent, OpaqueFunction, RegisterEventHandler
from launch.events import matches_action
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import LifecycleNode
from launch_ros.event_handlers import OnStateTransition
from launch_ros.events.lifecycle import ChangeState
from lifecycle_msgs.msg import Transition

# Beside this folder both in the source tree and below share/karmma_ros.
PARAMS_FILE = Path(__file__).resolve().parents[1] / 'config' / 'node' / 'karmma.yaml'
TOPICS = {
    'image': 'the camera, sensor_msgs/msg/Image',
    'audio': 'the microphone, audio_common_msgs/msg/AudioDataStamped',
    'detections': 'hands and objects, vision_msgs/msg/Detection2DArray',
}


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments: files, names and topics; every number is in params_file."""
    switch = {'choices': ['true', 'false']}
    return LaunchDescription([
        DeclareLaunchArgument('params_file', default_value=str(PARAMS_FILE),
                              description="the node's parameters, YAML"),
        DeclareLaunchArgument('model', default_value='',
                              description="model directory or name, instead of params_file's"),
        DeclareLaunchArgument('namespace', default_value='', description="the node's namespace"),
        *(DeclareLaunchArgument(name, default_value=name, description=f'topic of {content}')
          for name, content in TOPICS.items()),
        DeclareLaunchArgument('autostart', default_value='true', **switch,
                              description='configure and activate the node, not only start it'),
        DeclareLaunchArgument('use_sim_time', default_value='false', **switch,
                              description='follow /clock, e.g. of a bag that is played'),
        DeclareLaunchArgument('log_level', default_value='info',
                              description='debug, info, warn, error or fatal'),
        OpaqueFunction(function=_start),
    ])


def _start(context):
    """Give the node with its transitions; an empty model leaves params_file's alone."""
    given = {name: LaunchConfiguration(name).perform(context)
             for name in ('params_file', 'model', 'autostart', 'use_sim_time')}
    overrides = {'use_sim_time': given['use_sim_time'] == 'true'}
    if given['model']:
        overrides['model'] = given['model']
    node = LifecycleNode(
        package='karmma_ros', executable='karmma_node', name='karmma',
        namespace=LaunchConfiguration('namespace'), output='screen',
        parameters=[given['params_file'], overrides],
        remappings=[(name, LaunchConfiguration(name)) for name in TOPICS],
        ros_arguments=['--log-level', LaunchConfiguration('log_level')],
    )
    if given['autostart'] == 'false':
        return [node]
    # LifecycleNode(autostart=True) is not in Humble, nor in the first Jazzy. Without start_state
    # and handle_once the node would be activated again after every deactivation.
    activate_once = RegisterEventHandler(OnStateTransition(
        target_lifecycle_node=node, start_state='configuring', goal_state='inactive',
        entities=[_transition(node, Transition.TRANSITION_ACTIVATE)], handle_once=True,
    ))
    return [activate_once, node, _transition(node, Transition.TRANSITION_CONFIGURE)]


def _transition(node, transition_id):
    """Ask `node` for a lifecycle transition."""
    return EmitEvent(event=ChangeState(
        lifecycle_node_matcher=matches_action(node), transition_id=transition_id,
    ))
