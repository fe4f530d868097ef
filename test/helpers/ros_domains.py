"""ROS domains that no other process on this machine has."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
import fcntl
import os
from pathlib import Path
import tempfile


@contextmanager
def claimed_domain(domains: Sequence[int]) -> Iterator[int]:
    """
    Claim one of the domains until the end.

    :raises RuntimeError: when other processes have claimed all.
    """
    start = os.getpid() % len(domains)
    for domain in (*domains[start:], *domains[:start]):
        with (Path(tempfile.gettempdir()) / f'karmma_ros_test_domain_{domain}').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    raise RuntimeError(f'the ROS domains {domains[0]} to {domains[-1]} are all claimed by other '
                       'tests: wait until one ends')
