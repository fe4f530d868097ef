"""What the node's parameters, by their names, mean for the stream and the events."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.registry import package_folders
from karmma_ros.stream.events import EventSettings
from karmma_ros.stream.sensor_stream import InputSettings, SensorStream
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

_EVENT_PARAMETERS = ('smoothing', 'start', 'end', 'min_duration', 'max_gap', 'background')


def make_stream(
    spec: ClipSpec, modalities: tuple[Modality, ...], values: Mapping[str, Any],
    flow_topic: bool, hop: int = 0,
) -> SensorStream:
    """
    Make the stream of a node with these parameters.

    :param flow_topic: whether flow has a topic of its own.
    :param hop: frames from one window of a streaming network to the next; 0 for others.
    """
    return SensorStream(
        spec, modalities, input_settings(values, flow_topic), flow_topic=flow_topic, hop=hop)


def input_settings(values: Mapping[str, Any], flow_topic: bool) -> dict[Modality, InputSettings]:
    """Return each modality its timeout and coverage; computed flow shares the camera's."""
    settings = {}
    for modality in Modality:
        computed = modality is Modality.FLOW and not flow_topic
        source = Modality.RGB if computed else modality
        settings[modality] = InputSettings(
            timeout_ns=round(values[f'{source}.timeout'] * NANOSECONDS),
            enabled=values[f'{modality}.enabled'],
            min_coverage=values[f'{source}.min_coverage'])
    return settings


def event_settings(values: Mapping[str, Any]) -> EventSettings:
    """
    Return the settings of the events.

    :raises InvalidSettingError: when they contradict each other.
    """
    chosen = {name: values[f'events.{name}'] for name in _EVENT_PARAMETERS}
    return EventSettings(**{**chosen, 'background': chosen['background'] or None})


_DEFAULTS = Path('config', 'node', 'karmma.yaml')


def node_parameters(path: Path | None = None) -> dict[str, Any]:
    """
    Return every parameter of the node by its dotted name, as a parameter file of a robot has it.

    :param path: a file with some of them; the others are as the node's own file has them.
    :raises InvalidSettingError: for a file that cannot be read or names what does not exist.

    >>> from karmma_ros.stream.settings import node_parameters
    >>> node_parameters()['audio.timeout']
    0.5
    """
    values = _read(_default_file())
    given = {} if path is None else _read(path)
    unknown = sorted(set(given) - set(values))
    if unknown:
        raise InvalidSettingError(
            f'{path}', ', '.join(unknown), 'parameters of the node',
            f'{_DEFAULTS.name} has them all')
    for name, value in given.items():
        values[name] = _typed(name, value, values[name], path)
    return values


def _typed(name: str, value: Any, default: Any, path: Path | None) -> Any:
    if isinstance(default, float) and type(value) is int:
        value = float(value)
    if type(value) is not type(default):
        raise InvalidSettingError(
            f'{name} in {path}', value, f'of the kind of {default!r}')
    return value


def _default_file() -> Path:
    for folder in package_folders():
        if (folder / _DEFAULTS).is_file():
            return folder / _DEFAULTS
    raise InvalidSettingError(
        '--params', None, 'a parameter file', f'{_DEFAULTS.name} is not installed: give one, or '
        'source the workspace')


def _read(path: Path) -> dict[str, Any]:
    try:
        content = YAML(typ='safe', pure=True).load(path.read_text(encoding='utf-8'))
        sections = [section['ros__parameters'] for section in content.values()]
    except OSError as error:
        raise InvalidSettingError('--params', str(path), 'a file that can be read',
                                  str(error.strerror)) from None
    except (YAMLError, UnicodeDecodeError, AttributeError, KeyError, TypeError) as error:
        raise InvalidSettingError(
            '--params', str(path), 'a ROS 2 parameter file: node, then ros__parameters',
            f'{type(error).__name__}: {error}') from None
    return {name: value for section in sections for name, value in _flat(section).items()}


def _flat(section: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
    values: dict[str, Any] = {}
    for name, value in section.items():
        if isinstance(value, Mapping):
            values.update(_flat(value, f'{prefix}{name}.'))
        else:
            values[f'{prefix}{name}'] = value
    return values
