# The node on a processor. docs/docker.md has the commands.
#
#   docker build -f docker/cpu.Dockerfile -t karmma_ros:cpu .
FROM ros:jazzy-ros-base-noble
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
WORKDIR /ws

# What the distribution has. Made anew only when a package.xml changes; PyTorch and what stands on
# it is pinned in requirements/ instead.
COPY package.xml src/karmma_ros/package.xml
COPY karmma_msgs/package.xml src/karmma_msgs/package.xml
RUN apt-get update \
 && apt-get install -y --no-install-recommends python3-venv \
 && rosdep update --rosdistro "$ROS_DISTRO" \
 && rosdep install --from-paths src --ignore-src -y --rosdistro "$ROS_DISTRO" \
      -t buildtool -t build -t buildtool_export -t build_export -t exec \
      --skip-keys "python3-torch python3-torchvision python3-timm-pip \
        python3-huggingface-hub-pip python3-rosbags-pip" \
 && rm -rf /var/lib/apt/lists/*

# An index with CPU builds of PyTorch, which are a tenth of the size. Empty: pip's own index.
ARG TORCH_INDEX_URL=
COPY requirements/torch.txt requirements/runtime.txt requirements/ros.txt /tmp/requirements/
# numpy 1: the distribution's own Python packages are built for it. setuptools: colcon's limit.
RUN python3 -m venv --system-site-packages .venv \
 && cd /tmp/requirements \
 && { echo 'numpy<2'; grep '^setuptools==' ros.txt; } > constraints.txt \
 && /ws/.venv/bin/pip install --no-cache-dir -c constraints.txt \
      ${TORCH_INDEX_URL:+--index-url "$TORCH_INDEX_URL"} \
      -r torch.txt "$(grep -o '^torchvision==[^ ]*' runtime.txt)" \
 && /ws/.venv/bin/pip install --no-cache-dir -c constraints.txt -r runtime.txt
ENV VIRTUAL_ENV=/ws/.venv
ENV PATH=/ws/.venv/bin:$PATH

# Messages change seldom, the rest often. python3 -m: scripts then start with this Python.
COPY karmma_msgs src/karmma_msgs
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" -- \
 && python3 -m colcon build --packages-select karmma_msgs \
 && rm -rf build log
COPY package.xml setup.py setup.cfg src/karmma_ros/
COPY resource src/karmma_ros/resource
COPY launch src/karmma_ros/launch
COPY config src/karmma_ros/config
COPY models src/karmma_ros/models
COPY karmma_ros src/karmma_ros/karmma_ros
RUN source "/opt/ros/$ROS_DISTRO/setup.bash" -- \
 && source install/setup.bash -- \
 && python3 -m colcon build --packages-select karmma_ros \
 && rm -rf build log

# Logs where every user may write, so that `docker run --user` takes any.
ENV ROS_LOG_DIR=/tmp/ros_log
COPY --chmod=755 docker/entrypoint.sh /karmma_entrypoint.sh
# The user with the id 1000 that Ubuntu 24.04's image brings.
USER ubuntu
# `ros2 launch` ends its nodes in order on SIGINT; on SIGTERM it leaves them behind.
STOPSIGNAL SIGINT
ENTRYPOINT ["/karmma_entrypoint.sh"]
CMD ["ros2", "launch", "karmma_ros", "karmma.launch.py"]
