"""What a report comes to, in a few sentences and figures; pages and Markdown open with it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from karmma_ros.modality import Modality, parse_subset, subset_name

_SENSORS = {Modality.RGB: 'the camera', Modality.FLOW: 'optical flow', Modality.AUDIO: 'sound',
            Modality.DETECTIONS: 'the boxes'}


def percent(share: float | None, digits: int = 1) -> str:
    """Set a share in percent; a dash where it cannot be told."""
    return '–' if share is None else f'{100 * share:.{digits}f}'


def seconds(value: float | None, digits: int = 1) -> str:
    """Set seconds; a dash where they cannot be told."""
    return '–' if value is None else f'{value:.{digits}f}'


def clock(value: float) -> str:
    """Set seconds since the start as [h:]mm:ss.s."""
    tenths = round(10 * value)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    before = f'{hours}:{minutes:02}' if hours else f'{minutes}'
    return f'{before}:{rest // 10:02}.{rest % 10}'


def scored_key(report: Mapping[str, Any]) -> str | None:
    """Give what the verdict is about: all heads together, or one where no more is known."""
    actions = report['conditions'][0]['actions']
    return report['joint'] if report['joint'] in actions else next(iter(actions), None)


def sentences(report: Mapping[str, Any]) -> Iterator[str]:
    """Say what was found, the most important first."""
    first, key = report['conditions'][0], scored_key(report)
    if key is None:
        yield (f'{first["windows"]:,} windows were recognised. There is no truth to hold them '
               f'against; {first["events"]["count"]:,} actions were announced.')
    else:
        yield from _recognised(first, key)
        yield from _announced(first['events'])
        yield from _calibrated(report, key)
    yield from _lost(report, key)
    yield _sensors(first['with_sensor'])


def _recognised(first: Mapping[str, Any], key: str) -> Iterator[str]:
    one = first['actions'][key]
    low, high = one['interval']
    others = ', '.join(f'{name} {percent(each["top1"])} %'
                       for name, each in first['actions'].items() if name != key)
    yield (f'{one["right"]:,} of {one["count"]:,} true actions are recognised: '
           f'{percent(one["top1"])} % (95 % interval {percent(low)} to {percent(high)})'
           + (f'; {others}.' if others else '.'))


def _announced(events: Mapping[str, Any]) -> Iterator[str]:
    if not events['count'] or not events.get('true'):
        yield 'No action was announced as an event.'
        return
    delay = events['delay_s']
    late = (f', {seconds(delay["p50"])} s after its start in the median '
            f'({seconds(delay["p90"])} s for nine of ten)' if delay['count'] else '')
    yield (f'As a stream: {events["count"]:,} events; {percent(events["found"])} % of the true '
           f'actions are announced{late}. F1 at an overlap of 0.25: '
           f'{percent(events["f1"]["25"])} %.')


def _calibrated(report: Mapping[str, Any], key: str) -> Iterator[str]:
    bins = report['calibration'][key]['windows']
    told = [(n, c, a) for n, c, a in zip(bins['count'], bins['confidence'], bins['accuracy'])
            if n and c is not None and a is not None]
    total = sum(n for n, _, _ in told)
    if total:
        gap = sum(n * (c - a) for n, c, a in told) / total
        word = 'too sure' if gap > 0 else 'too modest'
        yield (f'One window alone is {100 * abs(gap):.1f} points {word} on average '
               f'(calibration error {percent(bins["error"])} %).')


def _lost(report: Mapping[str, Any], key: str | None) -> Iterator[str]:
    columns = report['segments']['conditions']
    found = {c['parameters']['subset']: columns[c['name']] for c in report['conditions']
             if key is not None and c['parameters'].get('subset')}
    full = max(found, key=lambda name: len(parse_subset(name)), default=None)
    if full is None:
        return
    # Held against each other on the same actions: those that have all of these sensors.
    places = [i for i, known in enumerate(known_actions(report, key))
              if known and found[full]['windows'][i]]
    costs = []
    for sensor in parse_subset(full):
        rest = subset_name(m for m in parse_subset(full) if m is not sensor)
        if rest in found and places:
            costs.append((_share(found[rest], key, places), _SENSORS[sensor]))
    if costs:
        left, lost = min(costs)
        text = (f'With all of {full} {percent(_share(found[full], key, places))} % of the '
                f'{len(places):,} actions that have them are right; the costliest single loss is '
                f'{lost}: {percent(left)} % remain.')
        half = (report['losing'] or {}).get(key)
        yield text + (f' With every sensor missing half of the time: {percent(half[5])} %.'
                      if half else '')


def known_actions(report: Mapping[str, Any], key: str | None) -> list[bool]:
    """Tell of each true action whether it counts for a score."""
    truth = report['segments']['truth']
    columns = [truth[key]] if key in truth else list(truth.values())
    return [min(ids) >= 0 for ids in zip(*columns)]


def _share(columns: Mapping[str, Any], key: str | None, places: Sequence[int]) -> float:
    return sum(columns['right'][key][i] for i in places) / len(places)


def _sensors(shares: Mapping[str, float]) -> str:
    told = ', '.join(f'{_SENSORS[Modality(name)]} {percent(share, 0)} %'
                     for name, share in shares.items() if share)
    return f'Share of the windows that have a sensor: {told}.' if told else 'No sensor was used.'
