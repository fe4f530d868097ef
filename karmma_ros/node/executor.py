"""
The executor of the node.

rclpy's SingleThreadedExecutor collects all subscriptions, timers, services and QoS event handlers
anew for each message, which takes more processor time than the node's own callbacks.
EventsExecutor is called by the middleware instead. rclpy has it since Jazzy and calls it
experimental, so that it is used only where it delivers in a test at start.
"""

from __future__ import annotations

from contextlib import suppress
import time
from typing import Any

from rclpy.clock import Clock, ClockType
from rclpy.executors import SingleThreadedExecutor
from rclpy.node import Node
from std_msgs.msg import Empty

AUTO, EVENTS, SINGLE_THREADED = 'auto', 'events', 'single_threaded'
EXECUTORS = (AUTO, EVENTS, SINGLE_THREADED)
_TEST_S = 2.0
_PERIOD_S = 0.02
_TEST_TOPIC = '~/_executor_test'
"""Hidden from `ros2 topic list`, for a name starts with an underscore."""


def make_executor(node: Node, wanted: str = AUTO) -> tuple[Any, str]:
    """
    Return an executor with the node, and why it is not the wanted one; '' if it is.

    :param wanted: auto and events take EventsExecutor where rclpy has it and it delivers;
        single_threaded does not try it. The reason of auto is '' where rclpy has none.
    """
    problem = ''
    if wanted != SINGLE_THREADED:
        try:
            from rclpy.experimental import EventsExecutor
        except ImportError:  # Humble, and the first releases of Jazzy
            problem = 'rclpy has no EventsExecutor' if wanted == EVENTS else ''
        else:
            executor = EventsExecutor(context=node.context)
            executor.add_node(node)
            problem = _test(node, executor)
            if not problem:
                return executor, ''
            with suppress(Exception):  # it does not work
                executor.remove_node(node)
                executor.shutdown()
    executor = SingleThreadedExecutor(context=node.context)
    executor.add_node(node)
    return executor, problem


def _test(node: Node, executor: Any) -> str:
    """Return what of a message, timers and tasks an executor does not deliver in 2 s."""
    delivered: set[str] = set()
    publisher = node.create_publisher(Empty, _TEST_TOPIC, 1)
    subscription = node.create_subscription(
        Empty, _TEST_TOPIC, lambda _: delivered.add('messages'), 1)

    def on_timer() -> None:
        delivered.add('timers')
        publisher.publish(Empty())

    # By the steady clock: simulated time may not have started.
    timer = node.create_timer(_PERIOD_S, on_timer, clock=Clock(clock_type=ClockType.STEADY_TIME))
    expected, deadline = {'messages', 'timers', 'tasks'}, time.monotonic() + _TEST_S
    problem = ''
    try:
        executor.create_task(delivered.add, 'tasks')
        while delivered != expected and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=_PERIOD_S)
    except Exception as error:  # of any type, for it is experimental
        problem = f'{type(error).__name__}: {error}'
    for each, destroy in ((timer, node.destroy_timer), (publisher, node.destroy_publisher),
                          (subscription, node.destroy_subscription)):
        destroy(each)
    if problem or delivered == expected:
        return problem
    return f'no {" and ".join(sorted(expected - delivered))} in {_TEST_S:g} s'
