"""
Capture the overlay while sensors are muted: `python docs/draw_overlay.py [FILE.png]`.

The bag of `make demo` plays through the node and the overlay over ROS 2, in real time; the
figure of docs/overlay.md shows it at four times.
"""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
import sys
from typing import Any

import cv2
from karmma_msgs.msg import ActionAnnotation
from karmma_ros.modalities.rgb import read_image
from karmma_ros.node.demo import Driver, isolate, MUTES, prepare_bag, running
from karmma_ros.node.messages import time_ns
from lifecycle_msgs.msg import Transition
import numpy as np
import rclpy
from rclpy.qos import DurabilityPolicy, QoSProfile
from rosgraph_msgs.msg import Clock
from sensor_msgs.msg import Image

FIGURE = Path(__file__).parent / 'images' / 'overlay.png'
CACHE = Path(__file__).parents[1] / '.cache' / 'demo'
TIMES_S = (11.8, 15.7, 23.8, 31.8)
"""Of the bag: all sensors, no audio, no camera, neither audio nor detections."""
COLUMNS, GAP, WIDTH = 2, 8, 1000


class Viewer:
    """Subscribe to the overlay, and keep the last image before each of the times."""

    def __init__(self) -> None:
        """Subscribe, so that the overlay draws."""
        self.node = rclpy.create_node('viewer')
        self.seen: dict[float, Any] = {}
        self._start_ns = self._now_ns = 0
        self.node.create_subscription(Clock, '/clock', self._on_clock, 10)
        # Latched: unlike the clock's first tick, the bag's beginning is received however late.
        latched = QoSProfile(depth=100, durability=DurabilityPolicy.TRANSIENT_LOCAL)
        self.node.create_subscription(ActionAnnotation, 'ground_truth', self._on_truth, latched)
        self.node.create_subscription(Image, 'karmma_overlay/image', self._on_image, 1)

    def _on_clock(self, message: Any) -> None:
        self._now_ns = time_ns(message.clock)

    def _on_truth(self, message: Any) -> None:
        self._start_ns = self._start_ns or time_ns(message.header.stamp)

    def _on_image(self, message: Any) -> None:
        # The clock may be behind on a busy machine; without a camera the image's stamp stays.
        now_ns = max(self._now_ns, time_ns(message.header.stamp))
        second = (now_ns - self._start_ns) / 1e9
        for time_s in TIMES_S:
            if self._start_ns and second <= time_s:
                self.seen[time_s] = message

    def images(self) -> list[Any]:
        """Return the image of each time, RGB."""
        messages = [self.seen[time_s] for time_s in TIMES_S]
        return [read_image(m, (m.height, m.width)) for m in messages]


def record(viewer: Viewer, bag: Path) -> None:
    """Run node, overlay and player until the bag ends."""
    with ExitStack() as stack:
        node = stack.enter_context(running(
            'karmma_ros.node', '--ros-args', '-p', 'use_sim_time:=true'))
        stack.enter_context(running('karmma_ros.overlay.node'))
        driver = Driver(viewer.node, node)
        driver.change(Transition.TRANSITION_CONFIGURE, 'configure')
        driver.change(Transition.TRANSITION_ACTIVATE, 'activate')
        mutes = [w for what, start, stop in MUTES for w in ('--mute', f'{what}@{start}..{stop}')]
        player = stack.enter_context(
            running('karmma_ros.node.player', str(bag), '--clock', *mutes))
        while player.poll() is None:
            rclpy.spin_once(viewer.node, timeout_sec=0.1)


def contact_sheet(images: list[Any]) -> Any:
    """Arrange images of one size in rows, on white, as wide as a page."""
    height, width, _ = images[0].shape
    rows = -(-len(images) // COLUMNS)
    sheet = np.full((rows * (height + GAP) - GAP, COLUMNS * (width + GAP) - GAP, 3), 255, np.uint8)
    for i, image in enumerate(images):
        y, x = i // COLUMNS * (height + GAP), i % COLUMNS * (width + GAP)
        sheet[y:y + height, x:x + width] = image
    small = WIDTH, round(sheet.shape[0] * WIDTH / sheet.shape[1])
    return cv2.resize(sheet, small, interpolation=cv2.INTER_AREA)


def main(path: Path = FIGURE) -> None:
    """Write the figure."""
    isolate()
    bag = prepare_bag(CACHE)
    rclpy.init()
    viewer = Viewer()
    record(viewer, bag)
    sheet = contact_sheet(viewer.images())
    cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR),
                [cv2.IMWRITE_PNG_COMPRESSION, 9])
    rclpy.try_shutdown()


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:]))
