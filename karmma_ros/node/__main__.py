"""Run the lifecycle node: `python -m karmma_ros.node`, or `ros2 run karmma_ros karmma_node`."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Sequence
import signal
import sys
from threading import Event
from typing import Any

from karmma_ros.errors import printable
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.node import Node
from rclpy.signals import SignalHandlerOptions
from rclpy.task import Future
from rclpy.utilities import remove_ros_args

_ROS_ARGUMENTS = """\
ROS arguments:
  --ros-args -p NAME:=VALUE        set a parameter of the node
  --ros-args -r FROM:=TO           remap the name of a topic or service
  --ros-args --params-file FILE    read parameters from a YAML file
"""


def check_arguments(name: str, description: str, arguments: Sequence[str] | None) -> None:
    """
    Print the help for `--help`, and reject other arguments than those of ROS.

    :raises SystemExit: after either; 0 after the help.
    """
    parser = argparse.ArgumentParser(
        prog=name, description=description, epilog=_ROS_ARGUMENTS, allow_abbrev=False,
        usage='%(prog)s [-h] [--ros-args ARGUMENT ...]',
        formatter_class=argparse.RawDescriptionHelpFormatter)
    words = [name, *(sys.argv[1:] if arguments is None else arguments)]
    try:
        others = remove_ros_args(words)[1:]
    except Exception:  # rclpy raises several types; its `init` reports the error
        return
    parser.parse_args(others)


def run(
    name: str, description: str, make: Callable[[], Node], arguments: Sequence[str] | None,
) -> int:
    """
    Spin the node that `make` returns until SIGINT or SIGTERM; return the exit status.

    An error in the ROS arguments or the parameters is printed after `name`.
    """
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    check_arguments(name, description, arguments)
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
        node = make()
    except Exception as error:  # rclpy raises several types, as for unreadable files
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


def main(arguments: Sequence[str] | None = None) -> int:
    """
    Spin the node until SIGINT or SIGTERM, then shut it down in order.

    With rclpy's signal handlers the context is gone before the node can stop its worker, and an
    idle node may not notice the signal.
    """
    check_arguments('karmma_node', 'Recognise actions: a lifecycle node. docs/node.md has its '
                    'topics and parameters.', arguments)
    stop = Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    # These imports take a second, in which signals are handled already.
    from karmma_ros.node.executor import make_executor
    from karmma_ros.node.lifecycle import KarmmaNode
    from karmma_ros.node.log import NodeLog
    try:
        rclpy.init(args=arguments, signal_handler_options=SignalHandlerOptions.NO)
    except Exception as error:  # rclpy raises several types, as for unreadable files
        print(printable(f'karmma: the ROS arguments cannot be used: {error}', 2000),
              file=sys.stderr)
        return 2
    node = KarmmaNode()
    log = NodeLog(node)
    executor, problem = make_executor(node, node.parameters['executor'])
    if problem:
        log.warning(f'EventsExecutor is not used: {problem}. The node works, with more processor '
                    'time; set executor to single_threaded to start without the test',
                    topic='executor')
    try:
        started = _autostart(node) if node.parameters['autostart'] else True
        while started and not stop.is_set():
            _spin(executor, log)
        node.shut_down()
    finally:
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()
    return 0 if started else 1


def _autostart(node: Any) -> bool:
    success = TransitionCallbackReturn.SUCCESS
    return bool(node.trigger_configure() == success and node.trigger_activate() == success)


def _spin(executor: Any, log: Any) -> None:
    """Run what is due within 0.2 s; a signal is noticed afterwards."""
    try:
        if isinstance(executor, SingleThreadedExecutor):
            executor.spin_once(timeout_sec=0.2)
        else:  # spin_once of EventsExecutor would start its loop anew for each callback
            executor.spin_until_future_complete(Future(), timeout_sec=0.2)
    except Exception as error:  # such as an invalid transition that a client requests
        log.error(f'{type(error).__name__}: {error}', topic='executor')


if __name__ == '__main__':
    sys.exit(main())
