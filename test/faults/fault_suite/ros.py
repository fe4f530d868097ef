"""A ROS domain of this process's own."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import os
from pathlib import Path
import sys

import rclpy

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / 'helpers'))

from ros_domains import claimed_domain  # noqa: E402

# Above the system's own ports, and above the domains that the tests in test/node take: a node
# of the same name in the same domain would respond in place of ours.
_DOMAINS = range(215, 232)


@contextmanager
def domain(check_fields: bool = True) -> Iterator[None]:
    """Run rclpy in a domain of its own, for this process and those that it starts."""
    if rclpy.ok():  # somebody else's, which serves as well
        yield
        return
    with claimed_domain(_DOMAINS) as claimed:
        os.environ['ROS_DOMAIN_ID'] = str(claimed)
        os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
        if check_fields:  # as Humble always does: refuse fields of a wrong type
            os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'
        rclpy.init()
        try:
            yield
        finally:
            rclpy.try_shutdown()
