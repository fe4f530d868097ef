"""Clusters of Ray for tests, on loopback."""

from contextlib import contextmanager
import logging


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
    try:
        yield nodes.address, lambda: nodes.remove_node(second, allow_graceful=False)
    finally:
        nodes.shutdown()
