"""
Settings of the stream and the events from the node's parameters, and the `--mute` option.

The option is that of the player and of the evaluation of bags.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import input_of, modality_type
from karmma_ros.modality import in_order, is_modality, Modality, REGISTRY
from karmma_ros.model.registry import package_folders
from karmma_ros.stream.events import EventSettings
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

_EVENT_PARAMETERS = ('smoothing', 'start', 'end', 'min_duration', 'max_gap', 'background')


def make_stream(
    spec: ClipSpec, modalities: tuple[Modality, ...], values: Mapping[str, Any],
    with_topic: Collection[Modality], hop: int = 0,
) -> SensorStream:
    """
    Make the stream of a node with these parameters.

    :param with_topic: modalities with a topic of their own though they could be computed.
    :param hop: frames from one window of a streaming network to the next; 0 for others.
    """
    return SensorStream(
        spec, modalities, input_settings(values, modalities, spec, with_topic), with_topic, hop)


def with_topic(values: Mapping[str, Any], modalities: Iterable[Modality]) -> frozenset[Modality]:
    """Return the derived modalities that a node with these parameters receives on a topic."""
    return frozenset(m for m in modalities if modality_type(m).derived_from
                     and not modality_type(m).is_derived(values))


def input_settings(
    values: Mapping[str, Any], modalities: Iterable[Modality], spec: ClipSpec,
    with_topic: Collection[Modality],
) -> dict[Modality, InputSettings]:
    """Return the settings of each modality; one that is computed shares its source's timeout."""
    settings = {}
    for modality in modalities:
        source = input_of(modality, spec, with_topic)
        settings[modality] = InputSettings(
            timeout_ns=round(values[f'{source}.timeout'] * NANOSECONDS),
            enabled=values[f'{modality}.enabled'],
            min_coverage=values[f'{source}.min_coverage'])
    return settings


def event_settings(values: Mapping[str, Any]) -> EventSettings:
    """
    Return the settings of the events.

    `max_gap` is two periods of `rate` at least: else each result would end what runs.

    :raises InvalidSettingError: when they contradict each other.
    """
    chosen = {name: values[f'events.{name}'] for name in _EVENT_PARAMETERS}
    chosen['max_gap'] = max(chosen['max_gap'], 2 / values['rate'])
    return EventSettings(**{**chosen, 'background': chosen['background'] or None})


_DEFAULTS = Path('config', 'node', 'karmma.yaml')


def node_parameters(
    path: Path | None = None, modalities: Iterable[Modality] = (),
) -> dict[str, Any]:
    """
    Return every parameter of the node by its dotted name, as a parameter file of a robot has it.

    :param path: a file with some of them; the others are as the node's own file has them.
    :param modalities: of the model; those of the paper are always included.
    :raises InvalidSettingError: for a file that cannot be read or names what does not exist.

    >>> from karmma_ros.stream.settings import node_parameters
    >>> node_parameters()['audio.timeout']
    0.5
    """
    given = {} if path is None else _read(path)
    named = {name.partition('.')[0] for name in given}
    inputs = {*modalities, *(Modality(name) for name in named if is_modality(name))}
    values = {each.name: each.default for m in in_order(inputs)
              for each in modality_type(m).declarations()} | _read(_default_file())
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


ALL_INPUTS = 'all'
"""Stands for every input."""
INPUT_NAMES = ', '.join(
    name + (f' (or {", ".join(entry.synonyms)})' if entry.synonyms else '')
    for name, entry in REGISTRY.items()) + ', one of several as rgb_wrist, all, or a /topic'
MUTE_METAVAR = 'INPUT[@START..STOP]'
MUTE_HELP = ('no message of this input from second START until before second STOP of the bag, as '
        f'audio@3s..6s; without times in the whole bag; may be repeated. INPUT: {INPUT_NAMES}')
"""Help text of an option `--mute`."""
_SECONDS = r'\d+\.?\d*|\.\d+'
_MUTE = re.compile(rf'(?P<input>[^@]+)(@(?P<start>{_SECONDS})s?\.\.(?P<stop>{_SECONDS})?s?)?')


@dataclass(frozen=True)
class Mute:
    """An input without messages from `start` until before `stop`, seconds from the bag's start."""

    input: str
    """Value of a modality, `all`, or a topic, which begins with `/`."""
    start: float = 0.0
    stop: float = float('inf')

    def __str__(self) -> str:
        if self.start == 0 and self.stop == float('inf'):
            return f'{self.input} muted'
        stop = '' if self.stop == float('inf') else f'{self.stop:g} s'
        return f'{self.input} muted {self.start:g} s..{stop}'

    def covers(self, seconds: float) -> bool:
        """Whether the input is muted at this second of the bag."""
        return self.start <= seconds < self.stop


def source_of(name: str) -> Modality | None:
    """Return what an input that an option names is computed from; None for others and topics."""
    return modality_type(Modality(name)).source(ClipSpec()) if is_modality(name) else None


def parse_mute(text: str) -> Mute:
    """
    Parse `video@10s..20s`, `audio@30..`, `detections`, `all@1..2` or `/image@3s..6s`.

    :raises InvalidSettingError: for anything else.
    """
    match = _MUTE.fullmatch(text.strip())
    if match is not None:
        start, stop = float(match['start'] or 0), float(match['stop'] or 'inf')
        if start < stop:
            return Mute(input_name(match['input'], '--mute', text), start, stop)
    raise InvalidSettingError(
        '--mute', text,
        f'{MUTE_METAVAR}, in seconds from the start of the bag, as video@10s..20s')


def input_name(name: str, option: str, text: str) -> str:
    """
    Return the value of a modality, `all`, or a topic as it is.

    :param text: the value of the option, for the error.
    :raises InvalidSettingError: for anything else.
    """
    name = name.strip()
    if name.startswith('/') or name.lower() == ALL_INPUTS:
        return name if name.startswith('/') else ALL_INPUTS
    try:
        return Modality.parse(name).value
    except InvalidSettingError:
        raise InvalidSettingError(option, text, f'for an input: {INPUT_NAMES}') from None
