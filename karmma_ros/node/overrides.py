"""Names of parameters that do not exist: in a file, on the command line, in a request."""

from __future__ import annotations

from difflib import get_close_matches

from karmma_ros.errors import printable
from karmma_ros.node.declarations import DECLARATIONS, OVERLAY_DECLARATIONS
from rclpy.node import Node

_KNOWN = tuple(each.name for each in (*DECLARATIONS, *OVERLAY_DECLARATIONS))
"""Of both nodes, for they may share the section `/**` of one file."""
_OF_ROS = ('use_sim_time', 'start_type_description_service', 'qos_overrides.')
"""Names, or their beginnings, of what rclpy itself declares."""
_SHOWN, _LENGTH = 8, 80
"""Names listed in one warning, and characters of each."""


def overrides_warning(node: Node) -> str:
    """
    Return a sentence on what a node was started with that is no parameter; empty if nothing is.

    rclpy has no public way to list the values of files and `-p`; where it keeps them under
    another name than today's, there is no warning.
    """
    given = getattr(node, '_parameter_overrides', None) or {}
    names = sorted(name for name in given if name not in _KNOWN and not name.startswith(_OF_ROS)
                   and not node.has_parameter(name))
    if not names:
        return ''
    listed = ', '.join(_with_closest(name) for name in names[:_SHOWN])
    more = f' and {len(names) - _SHOWN} more' if len(names) > _SHOWN else ''
    return (f'unknown parameters are ignored: {listed}{more}: correct the names; what belongs to '
            "another node goes below that node's name in the parameter file, not below /**")


def name_problem(node: Node, name: str) -> str:
    """Return that a node has no parameter of this name, and the closest; empty if it has."""
    return '' if node.has_parameter(name) else f'unknown parameter {_with_closest(name)}'


def _with_closest(name: str) -> str:
    close = get_close_matches(name[:_LENGTH], _KNOWN, 1)
    return printable(name, _LENGTH) + (f' (did you mean {close[0]}?)' if close else '')
