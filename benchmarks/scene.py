"""
The data of the benchmarks' sensors; run as a program, it publishes them over DDS.

A camera of 640 x 480 rgb8 at 30 Hz with a moving scene (flow between equal images would cost
nothing), best effort, as drivers send; a microphone of 16 kHz in messages of 20 ms; a detector of
two boxes at 10 Hz. `python benchmarks/scene.py` sends, stamped with the wall
clock, until its input ends, then prints the camera's stamps as JSON.
"""

from __future__ import annotations

import array
from collections.abc import Callable, Iterator
from itertools import cycle
import json
from pathlib import Path
import sys
from threading import Thread
import time
from typing import Any

import cv2
import numpy as np
import rclpy
from rclpy.qos import QoSProfile, ReliabilityPolicy

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test' / 'faults'))

from fault_suite import messages  # noqa: E402
from karmma_ros.node.messages import time_message, time_ns  # noqa: E402

WIDTH, HEIGHT, CAMERA_HZ, AUDIO_HZ, BOXES_HZ = 640, 480, 30, 50, 10
PERIODS_NS = {'image': 10**9 // CAMERA_HZ, 'audio': 10**9 // AUDIO_HZ,
              'detections': 10**9 // BOXES_HZ}
"""Topic → time between two messages."""
_IMAGES = 31  # no two that are stored, at any rate, are equal


def images() -> list[Any]:
    """Return camera messages of a scene that moves across the image."""
    rng = np.random.default_rng(0)
    scene = cv2.resize(rng.integers(0, 256, (24, 32, 3), np.uint8), (WIDTH, HEIGHT))
    results = []
    for i in range(_IMAGES):
        message = messages.image(0, WIDTH, HEIGHT)
        message.data = array.array('B', np.roll(scene, 3 * i, 1).tobytes())
        results.append(message)
    return results


def audio_chunks() -> list[Any]:
    """Return messages of 20 ms of noise."""
    rng = np.random.default_rng(1)
    results = []
    for _ in range(AUDIO_HZ):
        message = messages.audio(0, samples=16_000 // AUDIO_HZ)
        noise = rng.normal(0, 2000, 16_000 // AUDIO_HZ)
        message.audio.data = array.array('B', noise.astype('<i2').tobytes())
        results.append(message)
    return results


def boxes() -> list[Any]:
    """Return messages of two boxes, one of which moves."""
    return [messages.boxes(0, ((320 + 10 * i, 240, 80, 60), (100, 100, 40, 40)))
            for i in range(10)]


MAKERS: dict[str, Callable[[], list[Any]]] = {
    'image': images, 'audio': audio_chunks, 'detections': boxes}
"""Topic → a round of its messages, without stamps."""


def stamp(topic: str, message: Any, now_ns: int) -> Any:
    """Stamp a message of data recorded until now; audio has the time of its first sample."""
    message.header.stamp = time_message(now_ns - (PERIODS_NS[topic] if topic == 'audio' else 0))
    return message


def _rounds() -> dict[str, Iterator[Any]]:
    return {topic: cycle(make()) for topic, make in MAKERS.items()}


def play() -> list[int]:
    """Publish until the input ends; return the stamps of the images, nanoseconds."""
    rclpy.init()
    node, rounds, stamps = rclpy.create_node('sensors'), _rounds(), []
    publishers = {topic: node.create_publisher(type(next(rounds[topic])), topic, QoSProfile(
        depth=10, reliability=ReliabilityPolicy.BEST_EFFORT if topic == 'image'
        else ReliabilityPolicy.RELIABLE)) for topic in rounds}
    ended = Thread(target=sys.stdin.read, daemon=True)
    ended.start()
    due = dict.fromkeys(rounds, time.time_ns())
    while ended.is_alive():
        topic = min(due, key=lambda each: due[each])
        time.sleep(max(0, due[topic] - time.time_ns()) / 1e9)
        # After a pause of the machine a camera has skipped what was due, a microphone has not.
        taken_ns = due[topic] if topic == 'audio' else time.time_ns()
        due[topic] = max(due[topic], taken_ns - PERIODS_NS[topic]) + PERIODS_NS[topic]
        message = stamp(topic, next(rounds[topic]), taken_ns)
        publishers[topic].publish(message)
        if topic == 'image':
            stamps.append(time_ns(message.header.stamp))
    node.destroy_node()
    rclpy.try_shutdown()
    return stamps


if __name__ == '__main__':
    print(json.dumps(play()))
