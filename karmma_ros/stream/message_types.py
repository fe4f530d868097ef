"""The names of the message types that the inputs can have."""

IMAGE = 'sensor_msgs/msg/Image'
COMPRESSED_IMAGE = 'sensor_msgs/msg/CompressedImage'
DETECTIONS = 'vision_msgs/msg/Detection2DArray'
AUDIO_BARE = 'audio_common_msgs/msg/AudioData'
AUDIO_DRIVERS = 'audio_common_msgs/msg/AudioDataStamped'
AUDIO_TOLD = 'audio_common_msgs/msg/AudioStamped'
"""Of another project, mgonzs13's, whose package bears the same name; it tells its format."""
AUDIO_INFO = 'audio_common_msgs/msg/AudioInfo'
