"""
The node's parameters: declared, judged, read.

A value of the wrong kind never stops the node from starting. It is remembered as a
sentence, and `configure` fails with it; setting the parameter right mends it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from karmma_ros.errors import InvalidSettingError, KarmmaError, printable
from karmma_ros.node.declarations import Declaration, DECLARATIONS, OVERLAY_DECLARATIONS
from karmma_ros.node.log import describe
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rclpy.node import Node
from rclpy.parameter import Parameter

_BY_NAME = {declaration.name: declaration for declaration in DECLARATIONS}

Values = Mapping[str, Any]
"""Every parameter's value by name."""


class Parameters(Mapping[str, Any]):
    """The declared parameters of one node; `parameters['audio.timeout']` gives a value."""

    def __init__(
        self, node: Node, checks: Iterable[Callable[[Values, set[str]], None]] = (),
        changed: Callable[[set[str]], None] = lambda names: None,
    ) -> None:
        """
        Declare everything on `node`; whatever is wrong waits in `problems`.

        :param checks: judge all values as they would be after a change of the names given,
            and raise a KarmmaError against it; they have no effect of their own.
        :param changed: is told which parameters have new values, after they have them.
        """
        self._node, self._checks, self._changed = node, tuple(checks), changed
        self._problems: dict[str, InvalidSettingError] = {}
        self.frozen = False
        """True from configure to cleanup: parameters that configure reads may not change."""
        self._values: dict[str, Any] = {}
        for declaration in DECLARATIONS:
            self._declare(declaration)
        node.add_on_set_parameters_callback(self._on_set)
        if hasattr(node, 'add_pre_set_parameters_callback'):
            node.add_pre_set_parameters_callback(_converted)
        # Humble has no callback for afterwards; there `_on_set` is the last one to judge.
        self._has_post_set = hasattr(node, 'add_post_set_parameters_callback')
        if self._has_post_set:
            node.add_post_set_parameters_callback(self._take)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def problems(self) -> list[InvalidSettingError]:
        """Return what was wrong with the values at the start and was not set right since."""
        return list(self._problems.values())

    def _declare(self, declaration: Declaration) -> None:
        """
        Declare with the override if it is good, else with the default.

        The first, untyped declaration only reads the override: rclpy itself would stop the
        node in its constructor at `timeout: 1` and never name the way out.
        """
        name = declaration.name
        probe = ParameterDescriptor(dynamic_typing=True)
        value = self._node.declare_parameter(name, declaration.default, probe).value
        self._node.undeclare_parameter(name)
        try:
            value = declaration.check(value)
        except InvalidSettingError as problem:
            self._problems[name], value = problem, declaration.default
        descriptor = declaration.descriptor()
        # Humble cannot convert a whole number before it compares the types; `check` does, too.
        descriptor.dynamic_typing = isinstance(declaration.default, float) and not hasattr(
            self._node, 'add_pre_set_parameters_callback')
        self._node.declare_parameter(name, value, descriptor, ignore_override=True)
        self._values[name] = value

    def _on_set(self, changes: list[Parameter]) -> SetParametersResult:
        """Judge a change; it must have no effect of its own, since others may refuse it."""
        ours = {change.name: change.value for change in changes if change.name in _BY_NAME}
        try:
            values = {**self._values, **{n: self._judge(n, v) for n, v in ours.items()}}
            for check in self._checks if ours else ():
                check(values, set(ours))
        except KarmmaError as problem:
            return SetParametersResult(successful=False, reason=str(problem))
        except Exception as error:  # rclpy would send no response at all
            names = ', '.join(sorted(ours))
            return SetParametersResult(
                successful=False, reason=printable(f'{names}: {describe(error)}', 1000))
        if not self._has_post_set:
            self._take(changes)
        return SetParametersResult(successful=True)

    def _judge(self, name: str, value: Any) -> Any:
        declaration = _BY_NAME[name]
        value = declaration.check(value)
        if self.frozen and declaration.fixed and value != self[name]:
            raise InvalidSettingError(
                name, value, f'{self[name]!r} for now: it is read by configure',
                'deactivate and clean up the node first')
        return value

    def _take(self, changes: list[Parameter]) -> None:
        """Keep what was set, and tell which values are new."""
        ours = {change.name: change.value for change in changes if change.name in _BY_NAME}
        new = {n: _BY_NAME[n].check(v) for n, v in ours.items()}
        names = {n for n, v in new.items() if v != self._values[n] or n in self._problems}
        for name in names:
            self._problems.pop(name, None)
        self._values.update(new)
        if names:
            self._changed(names)


def _converted(changes: list[Parameter]) -> list[Parameter]:
    """Turn whole numbers into doubles where a double is declared: `ros2 param set … rate 3`."""
    return [_as_double(each) if each.type_ is Parameter.Type.INTEGER else each
            for each in changes]


def _as_double(change: Parameter) -> Parameter:
    declaration = _BY_NAME.get(change.name)
    if declaration is None or not isinstance(declaration.default, float):
        return change
    return Parameter(change.name, Parameter.Type.DOUBLE, float(change.value))


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
