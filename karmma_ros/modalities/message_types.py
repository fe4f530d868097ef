"""
Names of message types that several modules use; they are read without importing their packages.

Those of a single modality are in its module.
"""

from __future__ import annotations

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
DETECTIONS = 'vision_msgs/msg/Detection2DArray'
YOLO = 'yolo_msgs/msg/DetectionArray'
"""Of mgonzs13's yolo_ros."""
AUDIO_DATA = 'audio_common_msgs/msg/AudioData'
AUDIO_DATA_STAMPED = 'audio_common_msgs/msg/AudioDataStamped'
AUDIO_STAMPED = 'audio_common_msgs/msg/AudioStamped'
"""Of another project, mgonzs13's, whose package has the same name; it states its format."""
AUDIO_INFO = 'audio_common_msgs/msg/AudioInfo'
