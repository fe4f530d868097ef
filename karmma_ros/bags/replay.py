"""
Replay a bag through simulated nodes, on the clock of the bag.

Nothing here waits or measures time: the same bag and settings give the same windows.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Collection, Generator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from karmma_ros.bags.audio_infos import EarlierInfos
from karmma_ros.bags.bag_message import BagMessage
from karmma_ros.bags.faults import Fault, Faults
from karmma_ros.bags.message_definitions import Topic
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.simulated_node import (
    RecordedNode,
    RecordedWindow,
    SimulatedNode,
    WindowRequest,
)
from karmma_ros.bags.topics import microphone_of, RECOGNITION, TopicChoice, TRUTH
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.modalities import input_of
from karmma_ros.modality import Modality

FOREIGN_CLOCK_NS = 10 * NANOSECONDS
"""Stamps that are further from the times of receipt are of another clock."""


@dataclass(frozen=True)
class Run:
    """The faults of one run of a replay."""

    faults: tuple[Fault, ...] = ()
    seed: int = 0


class Replay:
    """One pass over a bag for any number of runs; images are decoded once for all of them."""

    def __init__(
        self, bag: Bag, choice: TopicChoice, spec: ClipSpec, modalities: tuple[Modality, ...],
        values: Mapping[str, Any], runs: Sequence[Run],
        recorded: Sequence[RecordedWindow] = (), hop: int = 0,
        audio_infos: EarlierInfos | None = None,
    ) -> None:
        """
        Prepare the runs.

        :param values: the node's parameters, by name.
        :param recorded: the windows of recorded predictions, in order of time; if any, the last
            run makes these.
        :param hop: as for `SimulatedNode`.
        :param audio_infos: audio formats that were stated before the bag began.
        :raises InvalidSettingError: for a parameter that cannot be used.
        """
        self._bag, self._spec, self._values = bag, spec, values
        self._topics = {
            role: topic for role, topic in choice.topics.items()
            if role != RECOGNITION and _is_used(role, modalities, spec, values, choice)}

        def arguments(index: int, run: Run) -> tuple[Any, ...]:
            return (index, spec, modalities, values, choice.with_topic(modalities),
                    Faults(run.faults, run.seed, bag.start_ns), bag.start_ns, hop)
        self.nodes = [SimulatedNode(*arguments(i, run)) for i, run in enumerate(runs)]
        if recorded:
            used = [replace(window, newest_ns={
                r: s for r, s in window.newest_ns.items() if r in self._topics})
                for window in recorded]
            self.nodes.append(RecordedNode(used, *arguments(len(runs), Run())))
        for node in self.nodes:
            node.set_audio_infos(audio_infos or {})
        self.truths: list[tuple[int, int, str, str]] = []
        """Start, end, verb and noun of each message of the ground-truth topic."""
        self.truth_ids: list[tuple[int, int]] = []
        """Class ids of verb and noun of each of them."""
        self.unreadable: Counter[str] = Counter()
        """Role → messages that cannot be deserialized."""
        self.longest_pause_ns = 0
        """The longest time without any message."""

    def windows(
        self, progress: Callable[[int], None] = lambda time_ns: None,
    ) -> Generator[WindowRequest, None, None]:
        """
        Yield all windows of all runs, in order of time.

        :param progress: called with the current time of the bag.
        """
        roles: dict[tuple[str, str], list[str]] = {}
        for role, topic in self._topics.items():
            roles.setdefault((topic.name, topic.type), []).append(role)
        topics = [self._topics[first] for first, *_ in roles.values()]
        readers = {(topic.name, topic.type): self._reader(topic) for topic in topics}
        counts: Counter[str] = Counter()
        now_ns = self._bag.start_ns
        for topic, received_ns, data in self._bag.messages(topics):
            read = readers[topic.name, topic.type]
            self.longest_pause_ns = max(self.longest_pause_ns, received_ns - now_ns)
            now_ns = max(now_ns, received_ns)
            for role in roles[topic.name, topic.type]:
                message = BagMessage(
                    role, topic.type, counts[role], now_ns, data, read, self._spec, self._values)
                counts[role] += 1
                if role == TRUTH:
                    self._add_truth(message)
                    continue
                for node in self.nodes:
                    yield from node.process(message)
            progress(now_ns)
        for node in self.nodes:
            yield from node.advance(now_ns + 1)

    def _reader(self, topic: Topic) -> Callable[[bytes], Any]:
        try:
            return self._bag.reader(topic)
        except ValueError as error:
            reason = str(error)

        def reject(data: bytes) -> Any:
            raise ValueError(reason)
        return reject

    def _add_truth(self, message: BagMessage) -> None:
        try:
            annotation = message.message
            start_ns, end_ns = (stamp.sec * NANOSECONDS + stamp.nanosec
                                for stamp in (annotation.header.stamp, annotation.end))
            ids = int(annotation.verb_id), int(annotation.noun_id)
            self.truths.append((int(start_ns), int(end_ns), annotation.verb, annotation.noun))
            self.truth_ids.append(ids)
        except (ValueError, AttributeError):
            self.unreadable[TRUTH] += 1


def _is_used(
    role: str, modalities: Collection[Modality], spec: ClipSpec, values: Mapping[str, Any],
    choice: TopicChoice,
) -> bool:
    """Return whether a node with these parameters subscribes to a role."""
    if role == TRUTH:
        return True
    sensor = str(microphone_of(role) or role)
    with_topic = choice.with_topic(modalities)
    return any(values[f'{m}.enabled'] and sensor == input_of(m, spec, with_topic)
               for m in modalities)
