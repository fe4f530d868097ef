"""Run the lifecycle node: `python -m karmma_ros.node`, or `ros2 run karmma_ros karmma`."""

from __future__ import annotations

from collections.abc import Sequence
import signal
import sys
from threading import Event
from typing import Any

from karmma_ros.errors import printable
from karmma_ros.node.running import check_arguments
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.signals import SignalHandlerOptions


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Spin the node until SIGINT or SIGTERM, then shut it down in order.

    Our own handlers: with rclpy's the context is gone before the node could stop its
    worker, and an idle node may not notice the signal at all.
    """
    check_arguments('karmma_node', 'Recognise actions: a lifecycle node. docs/node.md has its '
                    'topics and parameters.', arguments)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # Takes a second, in which a signal shall end the process in order, too.
    from karmma_ros.node.lifecycle import KarmmaNode
    from karmma_ros.node.log import NodeLog
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy raises several kinds, most of all for unreadable files
        print(printable(f'karmma: the ROS arguments cannot be used: {error}', 2000),
              file=sys.stderr)
        return 2
    node, executor = KarmmaNode(), SingleThreadedExecutor()
    executor.add_node(node)
    log = NodeLog(node)
    try:
        started = _autostart(node) if node.parameters['autostart'] else True
        while started and not stop.is_set():
            _spin_once(executor, log)
        node.shut_down()
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0 if started else 1


def _autostart(node: Any) -> bool:
    success = TransitionCallbackReturn.SUCCESS
    return bool(node.trigger_configure() == success and node.trigger_activate() == success)


def _spin_once(executor: SingleThreadedExecutor, log: Any) -> None:
    try:
        executor.spin_once(timeout_sec=0.2)
    except Exception as error:  # an impossible transition asked for by a client, for one
        log.error(f'{type(error).__name__}: {error}', topic='executor')


if __name__ == '__main__':
    sys.exit(main())
