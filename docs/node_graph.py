"""
Print every topic and service of the running node, one JSON object a line.

    python docs/node_graph.py [MODEL]

A node is activated in this process and observed in every setting that makes it subscribe to
something else; nothing has to be published. The tests compare docs/node.md and
config/security/karmma.policy.xml with the output; your own policy or launch file can start from it
as well.
"""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
import json
import os
import sys
import time

from karmma_ros.node.lifecycle import KarmmaNode
import rclpy
from rclpy.executors import SingleThreadedExecutor
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter

SETTINGS = (
    {},
    {'rgb.transport': 'compressed', 'flow.source': 'topic'},
    {'use_sim_time': True},
)
"""Parameters that change what the node subscribes to."""
_SETTLE_S = 1.0
"""Time without a new endpoint after which discovery is complete."""
_PATIENCE_S = 20.0


@dataclass(frozen=True, order=True)
class Endpoint:
    """A publisher, a subscription or a service of the node."""

    role: str
    """publish, subscribe or serve."""
    name: str
    """Fully qualified, after remapping."""
    type: str


def endpoints(node: KarmmaNode) -> Iterator[Endpoint]:
    """Return what the middleware knows of a node."""
    name, namespace = node.get_name(), node.get_namespace()
    for role, get_names in (
        ('publish', node.get_publisher_names_and_types_by_node),
        ('subscribe', node.get_subscriber_names_and_types_by_node),
        ('serve', node.get_service_names_and_types_by_node),
    ):
        for topic, types in get_names(name, namespace):
            yield from (Endpoint(role, topic, type_name) for type_name in types)


def observe(node: KarmmaNode, executor: SingleThreadedExecutor) -> set[Endpoint]:
    """Return all endpoints that the node has in any of the settings."""
    seen: set[Endpoint] = set()
    for setting in SETTINGS:
        node.set_parameters([Parameter(n, value=v) for n, v in setting.items()])
        deadline = time.monotonic() + _PATIENCE_S
        now, since, settled = set(), 0.0, False
        while not settled and time.monotonic() < deadline:
            executor.spin_once(timeout_sec=0.05)
            before, now = now, set(endpoints(node))
            if now != before:
                since = time.monotonic()
            roles = {endpoint.role for endpoint in now}
            settled = len(roles) == 3 and time.monotonic() - since >= _SETTLE_S
        seen |= now
    return seen


def main(model: str = 'synthetic_kitchen') -> int:
    os.environ.setdefault('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    rclpy.init()
    node = KarmmaNode(parameter_overrides=[Parameter('model', value=model)])
    executor = SingleThreadedExecutor()
    executor.add_node(node)
    try:
        for transition in (node.trigger_configure, node.trigger_activate):
            if transition() != TransitionCallbackReturn.SUCCESS:
                return 1
        for endpoint in sorted(observe(node, executor)):
            print(json.dumps(asdict(endpoint)))
        return 0
    finally:
        node.trigger_shutdown()
        executor.shutdown()
        node.destroy_node()
        rclpy.try_shutdown()


if __name__ == '__main__':
    sys.exit(main(*sys.argv[1:2]))
