"""What the node's parameters, by their names, mean for the stream and the events."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.modality import Modality
from karmma_ros.stream.events import EventSettings
from karmma_ros.stream.sensor_stream import InputSettings, SensorStream

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
    """Give each modality its timeout and coverage; computed flow shares the camera's."""
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
    Give the settings of the events.

    :raises InvalidSettingError: when they contradict each other.
    """
    chosen = {name: values[f'events.{name}'] for name in _EVENT_PARAMETERS}
    return EventSettings(**{**chosen, 'background': chosen['background'] or None})
