"""A ROS domain of this process's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os

import rclpy

# Above the system's own ports, and above the domains that the tests in test/node take: a node
# of the same name in the same domain would respond in place of ours.
_FIRST_DOMAIN, _DOMAINS = 215, 17


@contextmanager
def domain(check_fields: bool = True) -> Iterator[None]:
    """Run rclpy in a domain of its own, for this process and those that it starts."""
    if rclpy.ok():  # somebody else's, which serves as well
        yield
        return
    os.environ['ROS_DOMAIN_ID'] = str(_FIRST_DOMAIN + os.getpid() % _DOMAINS)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    if check_fields:  # as Humble always does: refuse fields of a wrong type
        os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'
    rclpy.init()
    try:
        yield
    finally:
        rclpy.try_shutdown()
