"""
The node's parameters: the one place where their defaults, ranges and meanings live.

A value of the wrong kind never stops the node from starting. It is remembered as a
sentence, and `configure` fails with it; setting the parameter right mends it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from karmma_ros.errors import InvalidSettingError
from rcl_interfaces.msg import (
    FloatingPointRange,
    IntegerRange,
    ParameterDescriptor,
    SetParametersResult,
)
from rclpy.node import Node
from rclpy.parameter import Parameter

RELIABILITIES = ('best_effort', 'reliable')


@dataclass(frozen=True)
class Declaration:
    """One parameter."""

    name: str
    default: Any
    """Its type is the parameter's type."""
    description: str
    range: tuple[float, float] | None = None
    """Lowest and highest value, both allowed."""
    choices: tuple[str, ...] = ()
    live: bool = False
    """A change takes effect at the next result; all others are read by `configure`."""

    @property
    def allowed(self) -> str:
        """Say what the value may be."""
        if self.choices:
            return ' or '.join(self.choices)
        kind = _KINDS[type(self.default)]
        return f'{kind} from {self.range[0]} to {self.range[1]}' if self.range else kind

    def check(self, value: Any) -> Any:
        """
        Give the value in the declared type; a whole number serves for a double.

        :raises InvalidSettingError: when the value is of another type or out of range.
        """
        if isinstance(self.default, float) and type(value) is int:
            value = float(value)
        if isinstance(self.default, list) and value is not None:
            value = list(value)
        if type(value) is not type(self.default):
            raise InvalidSettingError(self.name, value, self.allowed, self._remedy())
        if self.range and not self.range[0] <= value <= self.range[1]:
            raise InvalidSettingError(self.name, value, self.allowed)
        if self.choices and value not in self.choices:
            raise InvalidSettingError(self.name, value, self.allowed)
        return value

    def descriptor(self) -> ParameterDescriptor:
        """Give what `ros2 param describe` shows."""
        when = '' if self.live else ' Read by configure.'
        descriptor = ParameterDescriptor(
            name=self.name, description=self.description + when,
            additional_constraints=self.allowed)
        if self.range and isinstance(self.default, float):
            descriptor.floating_point_range = [
                FloatingPointRange(from_value=self.range[0], to_value=self.range[1])]
        elif self.range:
            descriptor.integer_range = [
                IntegerRange(from_value=int(self.range[0]), to_value=int(self.range[1]))]
        return descriptor

    def _remedy(self) -> str:
        return f'write it as in `{self.name}: {_yaml(self.default)}`'


_KINDS = {
    bool: 'true or false', int: 'a whole number', float: 'a number', str: 'text',
    list: 'a list of texts',
}


def _yaml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else repr(value)


_TIMEOUT = (0.05, 60.0)
_ENABLED = 'Use this input; false switches it off for good.'
_RELIABILITY = ('best_effort receives from every publisher; reliable also has lost messages '
                'sent again, from reliable publishers only.')
_PART = (0.01, 1.0)
_COVERAGE = 'Part of the window that must be covered before this input counts as available.'

DECLARATIONS = (
    Declaration('model', 'synthetic_kitchen',
                'Model directory, or the name of one that comes with karmma_ros.'),
    Declaration('device', 'auto', 'auto, cpu, cuda or cuda:N; auto takes a GPU if there is one.'),
    Declaration('threads', 0, "CPU threads of the network; 0 leaves torch's choice.", (0, 256)),
    Declaration('autostart', False, 'Configure and activate by itself, without a launch file.'),
    Declaration('rate', 5.0, 'Results a second, at most; on the node clock.', (0.1, 60.0)),
    Declaration('min_modalities', 1, 'Publish nothing while fewer inputs than this are available.',
                (1, 4), live=True),
    Declaration('top_k', 5, 'Verbs, nouns and actions in a result.', (1, 100), live=True),
    Declaration('score_threshold', 0.0,
                'above_threshold is true when the best verb and noun both reach this.',
                (0.0, 1.0), live=True),
    Declaration('subject_id', '', 'Copied into the results: whose actions they are.', live=True),
    Declaration('rgb.enabled', True, _ENABLED),
    Declaration('rgb.timeout', 0.5, 'Seconds without a picture after which the camera is stale.',
                _TIMEOUT),
    Declaration('rgb.min_coverage', 0.5, _COVERAGE, _PART),
    Declaration('rgb.reliability', 'best_effort', _RELIABILITY, choices=RELIABILITIES),
    Declaration('flow.enabled', True,
                'Use optical flow; it is computed from the camera and shares its timeout.'),
    Declaration('audio.enabled', True, _ENABLED),
    Declaration('audio.timeout', 0.5, 'Seconds without sound after which it is stale.', _TIMEOUT),
    Declaration('audio.min_coverage', 0.5, _COVERAGE, _PART),
    Declaration('audio.reliability', 'best_effort', _RELIABILITY, choices=RELIABILITIES),
    Declaration('audio.sample_rate', 16_000, 'Hz; as the audio driver publishes.',
                (1_000, 384_000)),
    Declaration('audio.channels', 1, 'Interleaved channels; they are mixed to one.', (1, 64)),
    Declaration('audio.sample_format', 'S16LE',
                "GStreamer's name of the sample format: S16LE, S32LE, F32LE, U8 …"),
    Declaration('detections.enabled', True, _ENABLED),
    Declaration('detections.timeout', 1.0,
                'Seconds without a detection message after which they are stale; an empty '
                'message counts.', _TIMEOUT),
    Declaration('detections.min_coverage', 0.5, _COVERAGE, _PART),
    Declaration('detections.reliability', 'best_effort', _RELIABILITY, choices=RELIABILITIES),
    Declaration('detections.image_width', 0,
                "Width of the detector's picture, pixels; 0 takes the camera's.", (0, 100_000)),
    Declaration('detections.image_height', 0,
                "Height of the detector's picture, pixels; 0 takes the camera's.", (0, 100_000)),
    Declaration('detections.hand_classes', ['hand'],
                'class_id of hands, names or numbers as text, besides those that hold the word '
                'hand; every other class is an object.'),
)
_BY_NAME = {declaration.name: declaration for declaration in DECLARATIONS}


class Parameters:
    """The declared parameters of one node; `parameters['audio.timeout']` gives a value."""

    def __init__(self, node: Node) -> None:
        """Declare everything on `node`; whatever is wrong waits in `problems`."""
        self._node = node
        self._problems: dict[str, InvalidSettingError] = {}
        self.frozen = False
        """True from configure to cleanup: parameters that configure reads may not change."""
        for declaration in DECLARATIONS:
            self._declare(declaration)
        node.add_on_set_parameters_callback(self._on_set)
        # Humble has no callback for afterwards; there `_on_set` is the last one to judge.
        self._has_post_set = hasattr(node, 'add_post_set_parameters_callback')
        if self._has_post_set:
            node.add_post_set_parameters_callback(self._forget_problems)

    def __getitem__(self, name: str) -> Any:
        return self._node.get_parameter(name).value

    @property
    def problems(self) -> list[InvalidSettingError]:
        """Give what was wrong with the values at the start and was not set right since."""
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
        self._node.declare_parameter(
            name, value, declaration.descriptor(), ignore_override=True)

    def _on_set(self, changes: list[Parameter]) -> SetParametersResult:
        """Judge a change; it must have no effect of its own, since others may refuse it."""
        for change in changes:
            declaration = _BY_NAME.get(change.name)
            if declaration is None:
                continue
            if self.frozen and not declaration.live and change.value != self[change.name]:
                return SetParametersResult(successful=False, reason=(
                    f'{change.name} is read by configure: deactivate and clean up the node first'))
            try:
                declaration.check(change.value)
            except InvalidSettingError as problem:
                return SetParametersResult(successful=False, reason=str(problem))
        if not self._has_post_set:
            self._forget_problems(changes)
        return SetParametersResult(successful=True)

    def _forget_problems(self, changes: list[Parameter]) -> None:
        for change in changes:
            self._problems.pop(change.name, None)
