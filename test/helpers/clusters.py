"""Clusters of Ray for tests, on loopback."""

from contextlib import contextmanager, suppress
import logging
import socket
import time


@contextmanager
def two_nodes():
    """
    Yield the address of two nodes of one core, and what kills the second.

    The second claims to have a GPU.
    """
    from ray.cluster_utils import Cluster

    logging.getLogger('ray').setLevel(logging.ERROR)
    nodes, options = Cluster(), {'num_cpus': 1, 'object_store_memory': 80 * 1024**2}
    nodes.add_node(**options, include_dashboard=False, _system_config={'worker_niceness': 0})
    second = nodes.add_node(**options, num_gpus=1)
    try:  # remove_node would use the connection of this process, which another thread may end
        yield nodes.address, lambda: second.kill_all_processes(check_alive=False, wait=True)
    finally:
        nodes.shutdown()


@contextmanager
def node_with_client():
    """Yield the address `ray://` of one node of two cores."""
    from ray.cluster_utils import Cluster

    logging.getLogger('ray').setLevel(logging.ERROR)
    port, agent = _free_port(), _free_port()
    nodes = Cluster()
    nodes.add_node(
        num_cpus=2, object_store_memory=80 * 1024**2, include_dashboard=False,
        _system_config={'worker_niceness': 0}, ray_client_server_port=port,
        runtime_env_agent_port=agent)
    try:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with suppress(OSError):
                socket.create_connection(('127.0.0.1', port), 1).close()
                break
            time.sleep(0.1)
        yield f'ray://127.0.0.1:{port}'
    finally:
        nodes.shutdown()


def _free_port():
    with socket.create_server(('127.0.0.1', 0)) as server:
        return server.getsockname()[1]
