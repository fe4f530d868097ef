"""Run a plain node as a program."""

from __future__ import annotations

from collections.abc import Callable, Sequence
import signal
import sys
from threading import Event

from karmma_ros.errors import printable
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions


def run(name: str, make: Callable[[], Node], arguments: Sequence[str] | None) -> int:
    """
    Spin the node that `make` gives until SIGINT or SIGTERM, and give the exit status.

    What is wrong with the ROS arguments or the parameters is said in a sentence after `name`.
    """
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
    except Exception as error:  # rclpy raises several kinds, most of all for unreadable files
        print(printable(f'{name}: {error}', 2000), file=sys.stderr)
        rclpy.try_shutdown()
        return 2
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    while not stop.is_set():
        executor.spin_once(timeout_sec=0.2)
    executor.shutdown()
    node.destroy_node()
    rclpy.try_shutdown()
    return 0
