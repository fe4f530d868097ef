"""Every service of a node responds, whatever the request holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from karmma_ros.errors import printable
from karmma_ros.node.log import describe, NodeLog
from rcl_interfaces.msg import SetParametersResult
from rcl_interfaces.srv import SetParameters
from rclpy.node import Node

Callback = Callable[[Any, Any], Any]


def guard_services(node: Node, log: NodeLog, names: Callable[[str], str]) -> None:
    """
    Turn an exception in a callback of a service that the node has by now into a response.

    rclpy sends none then, and its caller waits for ever.

    :param names: returns what is wrong with the name of a parameter; empty if it exists.
    """
    for service in node.services:
        callback = service.callback
        if service.srv_type is SetParameters:
            callback = _one_by_one(callback, names)
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
    """Fill in what a response has to report a failure with."""
    result = getattr(response, 'result', None)
    if isinstance(result, SetParametersResult):
        result.successful, result.reason = False, printable(reason)
    for field, value in (('success', False), ('message', printable(reason))):
        if hasattr(response, field):
            setattr(response, field, value)
    return response


def _one_by_one(callback: Callback, names: Callable[[str], str]) -> Callback:
    """Set each parameter of a request by itself: one that fails leaves the others alone."""
    def respond(request: Any, response: Any) -> Any:
        response.results = [_set(callback, each, names(each.name))
                            for each in request.parameters]
        return response
    return respond


def _set(callback: Callback, parameter: Any, problem: str) -> SetParametersResult:
    single = SetParameters.Request(parameters=[parameter])
    try:
        result, = callback(single, SetParameters.Response()).results
    except Exception as error:
        return SetParametersResult(
            successful=False,
            reason=printable(problem or f'{parameter.name}: {describe(error)}', 1000))
    if problem and not result.successful:
        result.reason = printable(problem, 1000)
    return result
