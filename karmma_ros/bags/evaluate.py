"""
One bag from its messages to the answers of a model: reading, replay and network at once.

A thread reads, decodes and cuts windows, while this one prepares them and asks the network;
numpy, OpenCV and torch let go of the interpreter while they compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
import os
from pathlib import Path
from queue import Empty, Full, Queue
import shutil
from threading import Event, Thread
from typing import Any

from karmma_ros.bags.bag_run import BagInfo, Condition
from karmma_ros.bags.collect import Collector
from karmma_ros.bags.faults import describe, Fault, on_inputs, parameters
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.recorded import compare_recorded, read_recorded, RecordedPredictions
from karmma_ros.bags.replay import Replay, Run, WindowRequest
from karmma_ros.bags.resume import (
    bag_digest,
    file_states,
    info_dict,
    info_of,
    key_of,
    ResumableRun,
)
from karmma_ros.bags.topics import (
    AUDIO_INFO,
    choose_topics,
    EarlierInfo,
    find_earlier_info,
    RECOGNITION,
    TopicChoice,
    TRUTH,
)
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import BagError, printable
from karmma_ros.evaluation.inference import inference_for, Subset
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.modality import Modality, subsets
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.streaming import chunks_of
from karmma_ros.stream.message_types import AUDIO_STAMPED
from karmma_ros.stream.token_cache import hop_for
import numpy as np

VERSION = 8
"""Grows whenever the same bag and settings would give other answers."""

BATCH = 16
_QUEUE = 64
_PART_BATCHES = 32
_FOREIGN_CLOCK_NS = 10 * NANOSECONDS
_LONG_PAUSE_NS = 600 * NANOSECONDS
_MAX_WARNING = 1000

Progress = Callable[[int, int], None]
"""Nanoseconds of the bag that are done, and all of them."""
TruthTuple = tuple[int, int, str, str]


@dataclass(frozen=True)
class Settings:
    """What is asked of each bag."""

    values: Mapping[str, Any]
    """The node's parameters, by name."""
    topics: Mapping[str, str] = field(default_factory=dict)
    """Role → topic, where it is named."""
    subsets: bool = False
    """Ask every subset of the sensors too."""
    faults: tuple[tuple[Fault, ...], ...] = ()
    """Each one is done in a run of its own, beside the one as recorded."""
    seed: int = 0
    batch_size: int = BATCH
    given: tuple[Path, ...] = ()
    """All bags that are evaluated, of which one may be an earlier part of another."""

    def described(self) -> dict[str, Any]:
        """Return what decides the answers, JSON-ready."""
        return {
            'version': VERSION, 'values': dict(self.values), 'topics': dict(self.topics),
            'subsets': self.subsets, 'batch_size': self.batch_size,
            'faults': [parameters(each, self.seed) for each in self.faults]}


@dataclass(frozen=True, eq=False)
class Evaluated:
    """What was found in one bag; times are those of the bag's clock."""

    info: BagInfo
    answers: Mapping[Condition, BagPredictions]
    """The first one is as recorded."""
    truths: Sequence[TruthTuple]
    """Start, stop, verb and noun of each message of the truth topic."""
    truth_topic: str
    """Empty where there is none."""
    recorded: Mapping[str, Any] | None
    """How the node's own answers in the bag compare; None when it holds none."""
    notes: Sequence[str]
    """Which topics were chosen."""
    fresh: bool = True
    """Whether all was done now, and nothing taken from an earlier run."""
    truth_ids: Sequence[Sequence[int]] = ()
    """Class ids of verb and noun of each of `truths`."""


def evaluate_bag(
    path: Path, bundle: Bundle, settings: Settings, work: Path | None,
    progress: Progress = lambda done_ns, total_ns: None, device: str = 'cpu',
) -> Evaluated:
    """
    Return a model's answers to the windows of a bag, under every condition.

    :param work: folder to keep what is found, and to find what was kept; None keeps nothing.
    :raises BagError: when there is nothing in the bag that can be used.
    :raises InvalidSettingError: for settings that the bag or the model does not allow.
    """
    with Bag(path) as bag:
        flow_topic = settings.values['flow.source'] == 'topic'
        choice = choose_topics(bag, settings.topics, bundle.network.modalities, flow_topic)
        topics = {role: topic.name for role, topic in choice.topics.items()}
        settings = replace(
            settings, faults=tuple(on_inputs(each, topics) for each in settings.faults))
        info = _earlier_info(path, choice, settings)
        evaluation = _Evaluation(bag, choice, bundle, settings, device, info)
        before = file_states(bag.files.sources)
        folder = None if work is None else work / key_of(
            _what_decides(bag, bundle, settings, info))
        found = evaluation.run(folder, progress)
        if file_states(bag.files.sources) != before:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise BagError(path, 'its files changed while they were read',
                           'wait until they are written, and give the same command again')
        return found


def _what_decides(
    bag: Bag, bundle: Bundle, settings: Settings, info: EarlierInfo | None,
) -> dict[str, Any]:
    """Return everything that decides what is found in a bag, JSON-ready."""
    return {
        'bag': bag_digest(bag.files.sources), 'missing': list(bag.files.missing),
        'model': [bundle.sha256, bundle.model_id], 'architecture': bundle.config.to_dict(),
        'spec': bundle.spec.to_dict(), **settings.described(),
        'audio_info': None if info is None else info.fields}


def _earlier_info(path: Path, choice: TopicChoice, settings: Settings) -> EarlierInfo | None:
    """Return the audio format of an earlier part, where the bag itself does not state it."""
    audio = choice.topics.get(Modality.AUDIO.value)
    if audio is None or audio.type == AUDIO_STAMPED or AUDIO_INFO in {*choice.topics,
                                                                   *settings.topics}:
        return None
    return find_earlier_info(path, settings.given)


class _Evaluation:
    """One bag that is open, and what is asked of it."""

    def __init__(
        self, bag: Bag, choice: TopicChoice, bundle: Bundle, settings: Settings, device: str,
        info: EarlierInfo | None,
    ) -> None:
        self._bag, self._choice, self._bundle, self._settings = bag, choice, bundle, settings
        self._device, self._info = device, info
        self._runs, self._lane_conditions = _conditions(settings, bundle.network.modalities)

    def run(self, folder: Path | None, progress: Progress) -> Evaluated:
        """Take what is kept of it, or do it."""
        names = ['/'.join((str(lane), c.name)) for lane, those in enumerate(self._lane_conditions)
                 for c in those]
        work = None if folder is None else ResumableRun(folder, names)
        kept = work.done() if work is not None else None
        fresh = kept is None and (work is None or not work.batches)
        if kept is None:
            kept = self._do(work, names, progress)
        facts, answers = kept
        progress(1, 1)
        return self._evaluated(facts, dict(zip(names, (answers[n] for n in names))), fresh)

    def _do(
        self, work: ResumableRun | None, names: Sequence[str], progress: Progress,
    ) -> tuple[dict[str, Any], dict[str, BagPredictions]]:
        bag, bundle = self._bag, self._bundle
        echoes = read_recorded(bag, self._choice.topics.get(RECOGNITION),
                             tuple(bundle.vocabulary.heads))
        replay = Replay(
            bag, self._choice, bundle.spec, bundle.network.modalities, self._settings.values,
            self._runs, echoes.asked, self._hop(),
            None if self._info is None else self._info.message)
        collector = Collector(self._lane_conditions, bundle.vocabulary.sizes, len(self._runs))
        asker = inference_for(bundle, self._device)
        known = 0 if work is None else work.batches
        start_ns, total_ns = bag.start_ns, max(1, bag.end_ns - bag.start_ns)
        pending = 0
        with closing(_ahead(replay.cuts(lambda now: progress(now - start_ns, total_ns)))) as cuts:
            for number, batch in enumerate(_batches(cuts, self._settings.batch_size)):
                if number < known and not (asker.stateful or collector.echo_wanted(batch)):
                    continue
                collector.ask(asker, batch, echo_only=number < known)
                pending += number >= known
                if work is not None and pending == _PART_BATCHES:
                    work.add(pending, collector.take())
                    pending = 0
        rest = collector.take()
        states = {name: replay.lanes[int(name.split('/')[0])].states for name in names}
        facts = self._facts(replay, collector, echoes)
        if work is None:
            return facts, {n: rest[n].with_states(states[n]) for n in names}
        work.add(pending, rest)
        work.finish(facts, states)
        done = work.done()
        assert done is not None
        return done

    def _hop(self) -> int:
        network, spec = self._bundle.network, self._bundle.spec
        return hop_for(chunks_of(network), spec, self._settings.values['rate'])

    def _facts(
        self, replay: Replay, collector: Collector, echoes: RecordedPredictions,
    ) -> dict[str, Any]:
        """Return what was found beside the answers, JSON-ready."""
        bag, lost, warnings = self._bag, Counter(self._bag.missing), list(self._bag.warnings)
        if self._info is not None:
            warnings.append(f'audio_info: taken from an earlier part, {self._info.path.name}')
        refusals = replay.lanes[0].refusals
        for role, count in sorted(refusals.counts.items()):
            lost[f'{role} messages that cannot be used'] += count
            warnings.append(f'{role}: messages that cannot be used: {count:,}; the first one: '
                            f'{refusals.first[role]}')
        warnings += replay.lanes[0].warnings
        for role, count in sorted(replay.unread.items()):
            lost[f'{role} messages that cannot be read'] += count
        lost.update(collector.lost)
        pause_ns = replay.longest_pause_ns
        if pause_ns > _LONG_PAUSE_NS:
            warnings.append(f'no message for {pause_ns / NANOSECONDS:,.0f} s within the bag: was '
                            'the clock set while it was recorded?')
        info = BagInfo(
            _name(bag), bag.start_ns, bag.end_ns, bag.files.storage, bag.messages_count,
            self._choice.to_dict(), {k: v for k, v in sorted(lost.items()) if v}, warnings,
            bag.missing.total())
        recorded = compare_recorded(echoes, collector.echo(), self._bundle)
        return {'info': info_dict(info), 'truths': replay.truths, 'truth_ids': replay.truth_ids,
                'recorded': recorded, 'unusable': replay.lanes[0].details}

    def _evaluated(
        self, facts: Mapping[str, Any], by_name: Mapping[str, BagPredictions], fresh: bool,
    ) -> Evaluated:
        conditions = [c for those in self._lane_conditions for c in those]
        answers = dict(zip(conditions, by_name.values()))
        offset_ns = _foreign_clock(answers[conditions[0]])
        warnings = [*facts['info']['warnings'], *self._choice.unread]
        if offset_ns:
            answers = {c: _shifted(a, offset_ns) for c, a in answers.items()}
            warnings.append(
                f'the stamps lie {abs(offset_ns) / 1e9:,.0f} s '
                f'{"before" if offset_ns > 0 else "after"} the times of receipt: the windows are '
                'given on the clock of the bag, moved by that much')
        warnings += _unused(answers[conditions[0]], facts['unusable'], warnings)
        info = info_of({
            **facts['info'], 'path': _name(self._bag),
            'warnings': [printable(text, _MAX_WARNING) for text in warnings]})
        truth = self._choice.topics.get(TRUTH)
        return Evaluated(
            info, answers, _on_clock(facts['truths'], info, offset_ns),
            '' if truth is None else truth.name, facts['recorded'], self._choice.notes, fresh,
            facts['truth_ids'])


def _conditions(
    settings: Settings, modalities: Subset,
) -> tuple[list[Run], list[list[Condition]]]:
    """Return the runs, and for each of them what is answered of it."""
    first = [Condition()]
    if settings.subsets:
        first += [Condition.of_subset(subset) for subset in subsets(modalities)]
    runs, conditions = [Run()], [first]
    for faults in settings.faults:
        runs.append(Run(faults, settings.seed))
        conditions.append([Condition(describe(faults), parameters(faults, settings.seed))])
    return runs, conditions


def _batches(cuts: Iterator[WindowRequest], size: int) -> Iterator[list[WindowRequest]]:
    """
    Put cuts of one run together; the same ones meet each time, whatever runs beside it.

    Who is in a batch decides on the last digits of an answer.
    """
    waiting: dict[int, list[WindowRequest]] = {}
    for cut in cuts:
        batch = waiting.setdefault(cut.lane, [])
        batch.append(cut)
        if len(batch) == size:
            yield waiting.pop(cut.lane)
    for lane in sorted(waiting):
        yield waiting[lane]


def _ahead(items: Iterator[WindowRequest]) -> Generator[WindowRequest, None, None]:
    """Let a thread work ahead, by so many items at most; its failure is raised here."""
    queue: Queue[WindowRequest | BaseException | None] = Queue(_QUEUE)
    stop = Event()
    thread = Thread(target=_fill, args=(items, queue, stop), name='karmma bag', daemon=True)
    thread.start()
    try:
        while True:
            item = queue.get()
            if item is None:
                return
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        while thread.is_alive():  # it may wait for room
            try:
                queue.get(timeout=0.05)
            except Empty:
                pass
        thread.join()


def _fill(items: Iterator[WindowRequest], queue: Queue[Any], stop: Event) -> None:
    def put(item: Any) -> bool:
        while not stop.is_set():
            try:
                queue.put(item, timeout=0.1)
                return True
            except Full:
                continue
        return False
    try:
        for item in items:
            if not put(item):
                return
        put(None)
    except BaseException as error:  # told to the other thread
        put(error)


def _name(bag: Bag) -> str:
    """Return the path of a bag as text: bytes that are no UTF-8 become replacement characters."""
    return printable(os.fsencode(bag.path).decode(errors='replace'), _MAX_WARNING)


def _foreign_clock(answers: BagPredictions) -> int:
    """Return by how much the windows lie before the bag's clock, ns; 0 if it is the same clock."""
    if not len(answers):
        return 0
    offset_ns = int(np.median(answers.inference_ns - answers.end_ns))
    return offset_ns if abs(offset_ns) > _FOREIGN_CLOCK_NS else 0


def _on_clock(
    truths: Sequence[Sequence[Any]], info: BagInfo, offset_ns: int,
) -> list[TruthTuple]:
    """Move truths with the stamps, unless they are on the clock of the bag already."""
    if any(start < info.end_ns and stop > info.start_ns for start, stop, *_ in truths):
        offset_ns = 0
    return [(start + offset_ns, stop + offset_ns, verb, noun)
            for start, stop, verb, noun in truths]


def _shifted(answers: BagPredictions, offset_ns: int) -> BagPredictions:
    return BagPredictions(
        answers.start_ns + offset_ns, answers.end_ns + offset_ns, answers.inference_ns,
        answers.present, answers.probabilities, answers.latency_s, answers.states)


def _unused(
    answers: BagPredictions, unusable: Mapping[str, str], warnings: Sequence[str],
) -> Iterator[str]:
    """Name the sensors that are in no window, and why, unless a warning has it already."""
    if not len(answers):
        yield 'no window was cut' + ('' if unusable else ': the bag is too short')
    used = [bool(column.any()) for column in answers.present.T]
    for modality, there in zip(Modality, used):
        if not there and modality.value in unusable:
            why = unusable[modality.value]
            known = any(why in text for text in warnings)
            yield f'{modality} is in no window' + ('' if known else f': {why}')
