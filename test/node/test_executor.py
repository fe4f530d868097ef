"""EventsExecutor where it delivers; else rclpy's usual one, with the reason."""

import sys
from types import ModuleType

from karmma_ros.node import executor as executors
from karmma_ros.node.executor import EXECUTORS, make_executor
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.parameter import Parameter
from std_msgs.msg import String


@pytest.fixture
def node(ros):
    node = rclpy.create_node('spun')
    yield node
    node.destroy_node()


def offer(monkeypatch, make):
    """Let rclpy offer another EventsExecutor; None: no such module, as in Humble."""
    module = make and ModuleType('rclpy.experimental')
    if make:
        module.EventsExecutor = make
    monkeypatch.setitem(sys.modules, 'rclpy.experimental', module)


def delivers(node, executor):
    """Return whether a message that is published afterwards is received."""
    received = []
    node.create_subscription(String, 'topic', received.append, 1)
    publisher = node.create_publisher(String, 'topic', 1)
    node.create_timer(0.05, lambda: publisher.publish(String(data='once')))
    for _ in range(500):
        executor.spin_once(timeout_sec=0.02)
        if received:
            return True
    return False


@pytest.mark.parametrize('wanted', EXECUTORS)
def test_each_setting_gives_an_executor_that_delivers(node, wanted):
    executor, problem = make_executor(node, wanted)
    assert problem == ''
    assert isinstance(executor, SingleThreadedExecutor) == (wanted == 'single_threaded')
    assert list(executor.get_nodes()) == [node] and delivers(node, executor)
    executor.shutdown()


def test_simulated_time_that_has_not_started_is_no_reason(ros):
    node = rclpy.create_node('simulated', parameter_overrides=[
        Parameter('use_sim_time', value=True)])
    executor, problem = make_executor(node)
    assert problem == '' and not isinstance(executor, SingleThreadedExecutor)
    executor.shutdown()
    node.destroy_node()


def test_the_test_leaves_no_topic_and_no_timer(node):
    before = [len(list(each)) for each in (node.subscriptions, node.publishers, node.timers)]
    executor, _ = make_executor(node)
    assert [len(list(each)) for each in (node.subscriptions, node.publishers, node.timers)
            ] == before
    executor.shutdown()


class Dead(SingleThreadedExecutor):
    """An executor that delivers nothing."""

    def spin_once(self, timeout_sec=None):
        pass


class Failing(SingleThreadedExecutor):
    """An executor that raises."""

    def spin_once(self, timeout_sec=None):
        raise RuntimeError('Guard conditions not supported')


@pytest.mark.parametrize(('make', 'reason'), [
    (Dead, 'no messages and tasks and timers in 0.2 s'),
    (Failing, 'RuntimeError: Guard conditions not supported'),
])
def test_one_that_does_not_deliver_is_replaced_and_the_reason_returned(
    node, monkeypatch, make, reason,
):
    monkeypatch.setattr(executors, '_TEST_S', 0.2)
    offer(monkeypatch, make)
    executor, problem = make_executor(node)
    assert problem == reason and type(executor) is SingleThreadedExecutor
    assert delivers(node, executor)
    executor.shutdown()


@pytest.mark.parametrize(('wanted', 'reason'), [
    ('auto', ''), ('events', 'rclpy has no EventsExecutor'), ('single_threaded', '')])
def test_an_rclpy_without_it_is_only_a_problem_of_who_wants_it(
    node, monkeypatch, wanted, reason,
):
    offer(monkeypatch, None)
    executor, problem = make_executor(node, wanted)
    assert problem == reason and type(executor) is SingleThreadedExecutor
    executor.shutdown()
