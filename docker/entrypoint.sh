#!/bin/bash
# Run a command with ROS, this workspace and its Python: `docker run IMAGE ros2 topic list`.
set -e
source "/opt/ros/$ROS_DISTRO/setup.bash" --
source /ws/install/setup.bash --
exec "$@"
