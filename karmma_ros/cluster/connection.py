"""Connections to clusters of Ray, and one of this machine alone."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
import logging
import math
import os
import socket
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.storage import scratch_folder

INSTALL = 'pip install -r requirements/cluster.txt'
_CONNECT_S = 10
_STORE_BYTES = 256 * 1024**2
"""Ray's shared memory where the cluster is this machine alone; more goes to its folder."""


def cloudpickle_of_ray(address: str, slots: int) -> Any:
    """
    Return the module of Ray that pickles what a script defines, too.

    :raises InvalidSettingError: when Ray is not installed.
    """
    try:
        from ray import cloudpickle
    except ImportError as error:
        raise InvalidSettingError(
            '--cluster' if address else '--jobs', address or slots,
            'one job on this machine, since Ray is not installed', INSTALL) from error
    return cloudpickle


@contextmanager
def connected(address: str, slots: int, gpus: float = 0) -> Iterator[Any]:
    """
    Connect to a cluster, or start one of this machine alone, and end it afterwards.

    :param address: of the cluster; empty: of this machine.
    :param slots: cores that the latter counts.
    :param gpus: that each of them claims.
    :returns: the module of Ray.
    :raises InvalidSettingError: when there is no such cluster.
    """
    os.environ.setdefault('RAY_USAGE_STATS_ENABLED', '0')
    import ray

    logging.getLogger('ray').setLevel(logging.ERROR)
    common: dict[str, Any] = {
        'log_to_driver': False, 'configure_logging': False, 'namespace': f'karmma_{os.getpid()}'}
    if not address:
        with scratch_folder() as folder:
            ray.init('local', num_cpus=slots, num_gpus=math.ceil(gpus * slots - 1e-3),
                     include_dashboard=False, object_store_memory=_STORE_BYTES,
                     _system_config={'worker_niceness': 0},
                     _temp_dir=str(folder), **common)
            try:
                yield ray
            finally:
                ray.shutdown()
        return
    try:
        _check_reachable(address)
        try:
            ray.init(address, **common)
        except ConnectionAbortedError:  # the head could not start the client's process: again
            ray.shutdown()
            ray.init(address, **common)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        reason = str(error).strip().splitlines()[0].rstrip(':')
        raise InvalidSettingError(
            '--cluster', address, 'the address of a Ray cluster',
            f'{reason}: check that `ray status` works there, and that Ray and Python have the '
            'same versions on all machines') from error
    try:
        yield ray
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise an OSError if nobody listens: Ray would wait for minutes."""
    host, _, port = address.removeprefix('ray://').rpartition(':')
    if address.startswith('ray://') and not (host and port.isdigit()):
        raise ValueError('it lacks a host or a port')
    if port.isdigit():
        socket.create_connection((host, int(port)), _CONNECT_S).close()
