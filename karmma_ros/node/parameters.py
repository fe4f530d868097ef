"""
A node's parameters: declared, checked and read, and the services that set them.

A value of the wrong type does not stop a node in its constructor. It is kept as an error in
`problems`, which the node raises when it is configured, and which a valid value removes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from difflib import get_close_matches
from typing import Any

from karmma_ros.errors import InvalidSettingError, KarmmaError, printable
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.declaration import Declaration
from karmma_ros.modality import is_modality, Modality
from karmma_ros.node.declarations import DECLARATIONS, descriptor_of, OVERLAY_DECLARATIONS
from karmma_ros.node.log import describe, NodeLog
from rcl_interfaces.msg import ParameterDescriptor, SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node
from rclpy.parameter import Parameter

Values = Mapping[str, Any]
"""Every parameter's value by name."""


class Parameters(Mapping[str, Any]):
    """The declared parameters of one node; `parameters['audio.timeout']` gives a value."""

    def __init__(
        self, node: Node, checks: Iterable[Callable[[Values, set[str]], None]] = (),
        changed: Callable[[set[str]], None] = lambda names: None,
        declarations: Iterable[Declaration] = DECLARATIONS,
    ) -> None:
        """
        Declare everything on `node`; what is wrong with the initial values is in `problems`.

        :param checks: called with all values as they would be after a change, and the names
            that change; they raise a KarmmaError to reject it, and have no effect of their own.
        :param changed: called with the names of parameters after they have new values.
        """
        self._node, self._checks, self._changed = node, tuple(checks), changed
        self._declarations = {declaration.name: declaration for declaration in declarations}
        self._own_names = frozenset(self._declarations)
        self._problems: dict[str, InvalidSettingError] = {}
        self.frozen = False
        """True while the parameters that are declared as fixed may not change."""
        self._values: dict[str, Any] = {}
        for declaration in self._declarations.values():
            self._declare(declaration)
        node.add_on_set_parameters_callback(self._on_set)
        if hasattr(node, 'add_pre_set_parameters_callback'):
            node.add_pre_set_parameters_callback(self._with_doubles)
        # Humble has no callback after a change; there `_on_set` is the last to check it.
        self._has_post_set = hasattr(node, 'add_post_set_parameters_callback')
        if self._has_post_set:
            node.add_post_set_parameters_callback(self._store)

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    @property
    def problems(self) -> list[InvalidSettingError]:
        """
        Return what is wrong with initial values that have not been set since.

        Those of what was declared later are raised by `declare`, for the model that needs it.
        """
        return [each for name, each in self._problems.items() if name in self._own_names]

    def declare(self, declarations: Iterable[Declaration]) -> None:
        """
        Declare more, such as those of a model's inputs; what is declared stays.

        :raises InvalidSettingError: for the first initial value that cannot be used.
        """
        given = {each.name: each for each in declarations}
        new = {n: each for n, each in given.items() if n not in self._declarations}
        for declaration in new.values():
            self._declare(declaration)
        self._declarations.update(new)  # afterwards, so that no callback takes it for a change
        for name in given:  # also of what was declared before, until it is set
            if name in self._problems:
                raise self._problems[name]

    def _declare(self, declaration: Declaration) -> None:
        """
        Declare with the override if it is good, else with the default.

        The first, untyped declaration only reads the override: rclpy itself would stop the
        node in its constructor at `timeout: 1`, without naming the fix.
        """
        name = declaration.name
        probe = ParameterDescriptor(dynamic_typing=True)
        value = self._node.declare_parameter(name, declaration.default, probe).value
        self._node.undeclare_parameter(name)
        try:
            value = declaration.check(value)
        except InvalidSettingError as problem:
            self._problems[name], value = problem, declaration.default
        descriptor = descriptor_of(declaration)
        # Humble cannot convert an integer before it compares the types; `check` does, too.
        descriptor.dynamic_typing = isinstance(declaration.default, float) and not hasattr(
            self._node, 'add_pre_set_parameters_callback')
        self._node.declare_parameter(name, value, descriptor, ignore_override=True)
        self._values[name] = value

    def _on_set(self, changes: list[Parameter]) -> SetParametersResult:
        """Check a change, without an effect, since other callbacks may reject it."""
        own = self._own(changes)
        try:
            values = {**self._values, **{n: self._check(n, v) for n, v in own.items()}}
            for check in self._checks if own else ():
                check(values, set(own))
        except KarmmaError as problem:
            return SetParametersResult(successful=False, reason=str(problem))
        except Exception as error:  # rclpy would send no response at all
            names = ', '.join(sorted(own))
            return SetParametersResult(
                successful=False, reason=printable(f'{names}: {describe(error)}', 1000))
        if not self._has_post_set:
            self._store(changes)
        return SetParametersResult(successful=True)

    def _own(self, changes: Iterable[Parameter]) -> dict[str, Any]:
        return {each.name: each.value for each in changes if each.name in self._declarations}

    def _check(self, name: str, value: Any) -> Any:
        declaration = self._declarations[name]
        value = declaration.check(value)
        if self.frozen and declaration.fixed and value != self[name]:
            raise InvalidSettingError(
                name, value, f'{self[name]!r} while the node is configured',
                'deactivate and clean up the node first, or restart it')
        return value

    def _store(self, changes: list[Parameter]) -> None:
        """Store new values, and report which differ."""
        new = {n: self._declarations[n].check(v) for n, v in self._own(changes).items()}
        names = {n for n, v in new.items() if v != self._values[n] or n in self._problems}
        for name in names:
            self._problems.pop(name, None)
        self._values.update(new)
        if names:
            self._changed(names)

    def _with_doubles(self, changes: list[Parameter]) -> list[Parameter]:
        """Return integers as doubles where a double is declared: `ros2 param set … rate 3`."""
        return [Parameter(each.name, Parameter.Type.DOUBLE, float(each.value))
                if each.type_ is Parameter.Type.INTEGER and self._is_double(each.name) else each
                for each in changes]

    def _is_double(self, name: str) -> bool:
        declaration = self._declarations.get(name)
        return declaration is not None and isinstance(declaration.default, float)


_KNOWN = tuple(each.name for each in (*DECLARATIONS, *OVERLAY_DECLARATIONS))
"""Of both nodes, for they may share the section `/**` of one file."""
_ROS_PREFIXES = ('use_sim_time', 'start_type_description_service', 'qos_overrides.')
"""Names, or their prefixes, of the parameters that rclpy itself declares."""
_MAX_LISTED, _NAME_LENGTH = 8, 80
"""Names listed in one warning, and characters of each."""


def overrides_warning(node: Node) -> str:
    """
    Return which initial values name no parameter of a node; empty if none does.

    rclpy has no public way to list the values of files and `-p`; where a version keeps them under
    another name, there is no warning.
    """
    given = getattr(node, '_parameter_overrides', None) or {}
    names = sorted(
        name
        for name in given
        if name not in _KNOWN
        and not _is_of_input(name)
        and not name.startswith(_ROS_PREFIXES)
        and not node.has_parameter(name)
    )
    if not names:
        return ''
    listed = ', '.join(_with_closest(name) for name in names[:_MAX_LISTED])
    more = f' and {len(names) - _MAX_LISTED} more' if len(names) > _MAX_LISTED else ''
    return (f'unknown parameters are ignored: {listed}{more}: correct the names; what belongs to '
            "another node goes below that node's name in the parameter file, not below /**")


def _is_of_input(name: str) -> bool:
    """Return whether a parameter is one of an input, which a model with that input declares."""
    modality = name.partition('.')[0]
    return is_modality(modality) and name in {
        each.name for each in modality_type(Modality(modality)).declarations()}


def _name_problem(node: Node, name: str) -> str:
    """Return that a node has no parameter of this name, with the closest; empty if it has."""
    return '' if node.has_parameter(name) else f'unknown parameter {_with_closest(name)}'


def _with_closest(name: str) -> str:
    close = get_close_matches(name[:_NAME_LENGTH], _KNOWN, 1)
    return printable(name, _NAME_LENGTH) + (f' (did you mean {close[0]}?)' if close else '')


Callback = Callable[[Any, Any], Any]


def guard_services(node: Node, log: NodeLog) -> None:
    """
    Turn an exception in a callback of a service that the node has by now into a response.

    rclpy sends none then, and the client waits for ever. Each parameter of a SetParameters
    request is set on its own, so that one that fails leaves the others alone.
    """
    for service in node.services:
        callback = service.callback
        if service.srv_type is SetParameters:
            callback = _one_by_one(node, callback)
        service.callback = _guarded(callback, log)


def _guarded(callback: Callback, log: NodeLog) -> Callback:
    def respond(request: Any, response: Any) -> Any:
        try:
            return callback(request, response)
        except Exception as error:
            name = type(request).__qualname__.rpartition('_Request')[0] or 'service'
            log.error(f'{name} failed: {describe(error)}', topic=f'service {name}')
            return _failed(response, describe(error))
    return respond


def _failed(response: Any, reason: str) -> Any:
    """Fill in the fields of a response that report a failure."""
    result = getattr(response, 'result', None)
    if isinstance(result, SetParametersResult):
        result.successful, result.reason = False, printable(reason)
    for field, value in (('success', False), ('message', printable(reason))):
        if hasattr(response, field):
            setattr(response, field, value)
    return response


def _one_by_one(node: Node, callback: Callback) -> Callback:
    def set_one(parameter: Any) -> SetParametersResult:
        problem = _name_problem(node, parameter.name)
        single = SetParameters.Request(parameters=[parameter])
        try:
            result, = callback(single, SetParameters.Response()).results
        except Exception as error:
            return SetParametersResult(successful=False, reason=printable(
                problem or f'{parameter.name}: {describe(error)}', 1000))
        if problem and not result.successful:
            result.reason = printable(problem, 1000)
        return result

    def respond(request: Any, response: Any) -> Any:
        response.results = [set_one(each) for each in request.parameters]
        return response
    return respond
