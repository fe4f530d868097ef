"""What sensors deliver: events in order of time, each of which writes one message to a bag."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from heapq import merge
from pathlib import Path

from karmma_ros.bags.writer import BagWriter
from karmma_ros.clip import NANOSECONDS
import numpy as np

# Fixed, so that the same command writes the same stamps: 2025-01-01 00:00 UTC.
START_NS = 1_735_689_600 * NANOSECONDS
AUDIO_RATE = 16_000
AUDIO_CHUNK = 512

Event = tuple[int, int, Callable[[BagWriter], None]]
"""When to write (ns), a rank that settles ties, and what to write."""
_TRUTH, _PICTURE, _FLOW, _SOUND, _BOXES = range(5)


def annotation(
    start_ns: int, stop_ns: int, verb: tuple[int, str], noun: tuple[int, str],
) -> Event:
    """Give the truth from `start_ns` until before `stop_ns`: (class id, name) each."""
    return start_ns, _TRUTH, lambda bag: bag.annotation(start_ns, stop_ns, verb, noun)


def picture(stamp_ns: int, image: np.ndarray) -> Event:
    """Give one RGB picture, uint8 `[h, w, 3]`."""
    return stamp_ns, _PICTURE, lambda bag: bag.image(stamp_ns, image)


def flow(stamp_ns: int, field: np.ndarray) -> Event:
    """Give the movement since the message before, pixels `[h, w, 2]`."""
    return stamp_ns, _FLOW, lambda bag: bag.flow(stamp_ns, field)


def boxes(stamp_ns: int, corners: np.ndarray, classes: list[str]) -> Event:
    """Give the boxes of one picture, pixels `[n, 4]`: x1, y1, x2, y2."""
    return stamp_ns, _BOXES, lambda bag: bag.detections(stamp_ns, corners, classes)


def sound(samples: np.ndarray, start_ns: int) -> Iterator[Event]:
    """Cut `[n]` samples into messages; each is written when its last sample is there."""
    for first in range(0, len(samples), AUDIO_CHUNK):
        yield _chunk(start_ns + first * NANOSECONDS // AUDIO_RATE,
                     samples[first:first + AUDIO_CHUNK])


def _chunk(stamp_ns: int, piece: np.ndarray) -> Event:
    end_ns = stamp_ns + len(piece) * NANOSECONDS // AUDIO_RATE
    return end_ns, _SOUND, lambda bag: bag.audio(stamp_ns, piece, end_ns)


def write(bag: BagWriter, *sensors: Iterable[Event]) -> None:
    """Write what several sensors deliver, each in order of time."""
    for _, _, write_one in merge(*sensors, key=lambda event: event[:2]):
        write_one(bag)


def tell(out: Path, bag: BagWriter) -> int:
    """Say what was written; give the exit status."""
    print(f'{out}: {bag.summary()}')
    return 0
