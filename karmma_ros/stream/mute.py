"""Muted inputs: the `--mute` option of the player and of the evaluation of bags."""

from __future__ import annotations

from dataclasses import dataclass
import re

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality

ALL = 'all'
"""Stands for every input."""
INPUTS = 'rgb (or video, camera), flow, audio, detections, all, or a /topic'
METAVAR = 'INPUT[@START..STOP]'
HELP = ('no message of this input from second START until before second STOP of the bag, as '
        f'audio@3s..6s; without times in the whole bag; may be repeated. INPUT: {INPUTS}')
"""Help text of an option `--mute`."""
_MUTE = re.compile(r'(?P<input>[^@]+)(@(?P<start>[\d.]+)s?\.\.(?P<stop>[\d.]*)s?)?')


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


def parse_mute(text: str) -> Mute:
    """
    Parse `video@10s..20s`, `audio@30..`, `detections`, `all@1..2` or `/image@3s..6s`.

    :raises InvalidSettingError: for anything else.
    """
    match = _MUTE.fullmatch(text.strip())
    try:
        start, stop = ((float(match['start'] or 0), float(match['stop'] or 'inf')) if match
                       else (0.0, 0.0))
    except ValueError:  # digits and points that are no number, as in 1.2.3
        start = stop = 0.0
    if match is None or not start < stop:
        raise InvalidSettingError(
            '--mute', text, f'{METAVAR}, in seconds from the start of the bag, as video@10s..20s')
    return Mute(input_name(match['input'], '--mute', text), start, stop)


def input_name(name: str, option: str, text: str) -> str:
    """
    Return the value of a modality, `all`, or a topic as it is.

    :param text: the value of the option, for the error.
    :raises InvalidSettingError: for anything else.
    """
    name = name.strip()
    if name.startswith('/') or name.lower() == ALL:
        return name if name.startswith('/') else ALL
    try:
        return Modality.parse(name).value
    except InvalidSettingError:
        raise InvalidSettingError(option, text, f'for an input: {INPUTS}') from None
