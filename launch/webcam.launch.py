"""
Try or record with a webcam: camera driver, microphone driver, the node and the overlay.

`ros2 launch karmma_ros webcam.launch.py model:=/models/my_kitchen record:=monday`

The drivers are the packages usb_cam or v4l2_camera, and audio_capture; install what is used.
"""

import os
from pathlib import Path

from launch import LaunchDescription
from launch.actions import (
    DeclareLaunchArgument,
    ExecuteProcess,
    IncludeLaunchDescription,
    OpaqueFunction,
)
from launch.launch_description_sources import PythonLaunchDescriptionSource
from launch.substitutions import LaunchConfiguration
from launch_ros.actions import Node

NODE_LAUNCH_FILE = Path(__file__).resolve().parent / 'karmma.launch.py'
CAMERAS = ('usb_cam', 'v4l2_camera', 'none')
MICROPHONES = ('audio_capture', 'none')
IMAGE, AUDIO, AUDIO_INFO = 'image_raw', 'audio_stamped', 'audio_info'
"""Topics that the drivers publish."""
RESULTS = ('action_recognition', 'karmma/action_events', 'karmma/modality_availability',
           'karmma/model_info')
ARGUMENTS = {
    'camera': ('usb_cam', 'camera driver: usb_cam, v4l2_camera or none'),
    'video_device': ('/dev/video0', 'camera'),
    'image_size': ('640x480', 'width x height of the images, in pixels'),
    'microphone': ('audio_capture', 'microphone driver: audio_capture or none'),
    'audio_device': ('', "ALSA device, such as hw:1,0 (arecord -l lists them); the system's "
                         'default without'),
    'recognise': ('true', 'start the recognition node; false only records'),
    'record': ('', 'directory of a bag that is recorded; none without'),
    'model': ('', "model directory or name, instead of the node's parameter file's"),
    'allow_hub': ('', 'download models of the Hugging Face Hub, true or false'),
    'rate': ('', "results a second, instead of the node's parameter file's"),
    'overlay': ('true', 'publish karmma_overlay/image, the image with the recognised action'),
    'namespace': ('', "the nodes' namespace"),
}
"""Name → default, description."""


def generate_launch_description() -> LaunchDescription:
    """Declare the arguments."""
    return LaunchDescription([
        *(DeclareLaunchArgument(name, default_value=default, description=description)
          for name, (default, description) in ARGUMENTS.items()),
        OpaqueFunction(function=_start),
    ])


def _start(context):
    """Return drivers, node and recorder."""
    values = {name: LaunchConfiguration(name).perform(context).strip() for name in ARGUMENTS}
    camera = _choice('camera', values['camera'], CAMERAS)
    microphone = _choice('microphone', values['microphone'], MICROPHONES)
    recognise = _choice('recognise', values['recognise'].lower(), ('true', 'false')) == 'true'
    if camera == microphone == 'none':
        raise RuntimeError('camera and microphone are none; expected a driver of at least one')
    actions = []
    if camera != 'none':
        actions.append(_camera(camera, values))
    if microphone != 'none':
        actions.append(_microphone(values))
    if recognise:
        actions.append(_recognition(camera != 'none', values))
    if values['record']:
        topics = ([IMAGE] if camera != 'none' else []) + (
            [AUDIO, AUDIO_INFO] if microphone != 'none' else [])
        actions.append(_recorder(
            values['record'], [*topics, *(RESULTS if recognise else ())], values['namespace']))
    return actions


def _camera(driver, values):
    """Return the node of the camera's driver."""
    width, height = _size(values['image_size'])
    if driver == 'usb_cam':
        executable = 'usb_cam_node_exe'
        parameters = {'image_width': width, 'image_height': height}
    else:
        executable, parameters = 'v4l2_camera_node', {'image_size': [width, height]}
    return Node(
        package=driver, executable=executable, name='camera', namespace=values['namespace'],
        output='screen', parameters=[{'video_device': values['video_device'], **parameters}])


def _microphone(values):
    """Return the node of the microphone's driver: 16 kHz, mono, as the node's defaults."""
    device = {'device': values['audio_device']} if values['audio_device'] else {}
    return Node(
        package='audio_capture', executable='audio_capture_node', name='microphone',
        namespace=values['namespace'], output='screen', parameters=[{
            'format': 'wave', 'channels': 1, 'sample_rate': 16000, 'sample_format': 'S16LE',
            **device}])


def _recognition(has_camera, values):
    """Return the node with its overlay, which needs a camera."""
    overlay = values['overlay'] if has_camera else 'false'
    return IncludeLaunchDescription(
        PythonLaunchDescriptionSource(str(NODE_LAUNCH_FILE)),
        launch_arguments={
            'image': IMAGE, 'audio': AUDIO, 'audio_info': AUDIO_INFO, 'overlay': overlay,
            'model': values['model'], 'allow_hub': values['allow_hub'], 'rate': values['rate'],
            'namespace': values['namespace']}.items())


def _recorder(folder, topics, namespace):
    """Return the recorder of a bag."""
    if Path(folder).exists():
        raise RuntimeError(f'record is {folder!r}, which exists; expected a new directory')
    prefix = f'/{namespace.strip("/")}/' if namespace.strip('/') else '/'
    names = [prefix + topic for topic in topics]
    # Humble has no --topics; its successors warn without it.
    words = names if os.environ.get('ROS_DISTRO') == 'humble' else ['--topics', *names]
    return ExecuteProcess(
        cmd=['ros2', 'bag', 'record', '--output', folder, *words], output='screen')


def _choice(name, value, choices):
    if value not in choices:
        raise RuntimeError(f'{name} is {value!r}; expected {", ".join(choices[:-1])} or '
                           f'{choices[-1]}')
    return value


def _size(text):
    """Return width and height of `WIDTHxHEIGHT`."""
    width, _, height = text.lower().partition('x')
    if not (width.isdecimal() and height.isdecimal() and int(width) and int(height)):
        raise RuntimeError(f'image_size is {text!r}; expected WIDTHxHEIGHT, such as 640x480')
    return int(width), int(height)
