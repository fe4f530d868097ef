"""
The expected masks, derived from the rules only, without code of the package.

The rules, as the documentation has them: an input is available when its last message came
within its timeout, by the receiver's clock, and its samples cover enough of the window, by
their stamps. The window ends at the newest stamp of those inputs that are fresh; should their
stamps lie further apart than a window, the largest group that agrees decides, and of equals
that of the first input. Of the images that fall into one slot of the clip's grid only the
first is used. The audio of a window ends with a whole column of the spectrogram, at the window's
end or before. Flow from the camera is available when the camera is. No window is used twice, and
none that ends earlier follows, unless it lies a whole window back.

Times are integer nanoseconds.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from math import ceil

RGB, FLOW, AUDIO, BOXES = NAMES = ('rgb', 'flow', 'audio', 'detections')


@dataclass(frozen=True)
class Rules:
    """The settings that the masks depend on."""

    duration_ns: int
    slots: int
    """Frames of a clip: the window is cut into so many slots of a fixed grid."""
    sample_rate: int
    timeouts_ns: Mapping[str, int]
    hop: int
    """Samples from one column of the spectrogram to the next."""
    flow_topic: bool = False
    coverage: float = 0.5

    @property
    def slot_ns(self) -> int:
        """Return the length of a slot."""
        return self.duration_ns // self.slots


@dataclass
class _Sensor:
    stamps: list[tuple[int, int]] = field(default_factory=list)
    """First and last stamp of each message, in the order of receipt."""
    received_ns: int = -1


class Oracle:
    """Take the messages that the node receives and return its expected masks."""

    def __init__(self, rules: Rules) -> None:
        self.rules = rules
        self._sensors: dict[str, _Sensor] = {name: _Sensor() for name in NAMES}
        if not rules.flow_topic:
            self._sensors[FLOW] = self._sensors[RGB]
        self._last_end_ns: int | None = None

    def note(self, name: str, start_ns: int, stop_ns: int, now_ns: int) -> None:
        """Take a message that holds what was sensed from `start_ns` to `stop_ns`."""
        sensor = self._sensors[name]
        sensor.received_ns = now_ns
        if name in (RGB, FLOW) and stop_ns // self.rules.slot_ns in {
                stamp // self.rules.slot_ns for _, stamp in sensor.stamps[-20:]}:
            return
        sensor.stamps.append((start_ns, stop_ns))
        # Older stamps have no effect.
        del sensor.stamps[:-400]

    def available(self, now_ns: int) -> tuple[str, ...]:
        """Return the inputs that are available now."""
        end_ns = self._end_ns(now_ns)
        if end_ns is None:
            return ()
        return tuple(n for n in NAMES if self._fresh(n, now_ns) and self._covers(n, end_ns))

    def result(self, now_ns: int) -> tuple[int, tuple[str, ...]] | None:
        """Return the end of the window and the mask of the result that is due now, if one is."""
        mask, end_ns, last_ns = self.available(now_ns), self._end_ns(now_ns), self._last_end_ns
        if not mask or end_ns is None:
            return None
        if last_ns is not None and last_ns - self.rules.duration_ns < end_ns <= last_ns:
            return None
        self._last_end_ns = end_ns
        return end_ns, mask

    def age_ns(self, name: str, now_ns: int) -> int:
        """Return the time since the last receipt."""
        return now_ns - self._sensors[name].received_ns

    def _fresh(self, name: str, now_ns: int) -> bool:
        sensor = self._sensors[name]
        return bool(sensor.stamps) and (
            now_ns - sensor.received_ns <= self.rules.timeouts_ns[name])

    def _end_ns(self, now_ns: int) -> int | None:
        newest = [max(stop for _, stop in self._sensors[name].stamps)
                  for name in NAMES if self._fresh(name, now_ns)]
        best: list[int] = []
        for stamp in newest:
            group = [s for s in newest if abs(s - stamp) <= self.rules.duration_ns]
            if len(group) > len(best):
                best = group
        return max(best) if best else None

    def _covers(self, name: str, end_ns: int) -> bool:
        rules = self.rules
        if name == AUDIO:
            needed = ceil(rules.coverage * rules.duration_ns * rules.sample_rate / 1e9)
            return self._received_samples(end_ns) >= needed
        needed = ceil(rules.coverage * rules.slots)
        if name == BOXES:
            return self._slots_with_boxes(end_ns) >= needed
        filled = {stamp // rules.slot_ns for _, stamp in self._sensors[name].stamps}
        return len(filled & set(self._slots(end_ns))) >= max(needed, 2 if name == FLOW else 0)

    def _slots(self, end_ns: int) -> range:
        last = end_ns // self.rules.slot_ns
        return range(last + 1 - self.rules.slots, last + 1)

    def _received_samples(self, end_ns: int) -> int:
        """Count the audio samples of the window; chunks do not overlap here."""
        rate, rules = self.rules.sample_rate, self.rules
        stop = round(end_ns * rate / 1e9) // rules.hop * rules.hop
        first = stop - round(rules.duration_ns * rate / 1e9)
        chunks = ((round(a * rate / 1e9), round(b * rate / 1e9))
                  for a, b in self._sensors[AUDIO].stamps)
        return sum(max(0, min(b, stop) - max(a, first)) for a, b in chunks)

    def _slots_with_boxes(self, end_ns: int) -> int:
        """Count the slots near whose middle a message lies: within a slot, or the usual gap."""
        rules = self.rules
        stamps = sorted(stamp for _, stamp in self._sensors[BOXES].stamps)
        oldest = stamps[-1] - rules.duration_ns - 2 * rules.slot_ns
        stamps = [stamp for stamp in stamps if stamp >= oldest]
        gaps = sorted(b - a for a, b in zip(stamps, stamps[1:]))
        usual = gaps[len(gaps) // 2] if gaps else 0
        reach = max(rules.slot_ns, min(usual, rules.duration_ns // 4))
        middles = [slot * rules.slot_ns + rules.slot_ns // 2 for slot in self._slots(end_ns)]
        return sum(any(abs(s - middle) <= reach and s <= end_ns for s in stamps)
                   for middle in middles)
