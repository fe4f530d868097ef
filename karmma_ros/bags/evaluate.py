"""
Evaluate a model on a bag: from its messages to predictions under every condition.

One thread reads, decodes and makes windows, while another prepares them and runs inference: numpy,
OpenCV and torch release the interpreter lock while they compute.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
import os
from pathlib import Path
from queue import Empty, Full, Queue
import shutil
from threading import Event, Thread
from typing import Any

from karmma_ros.bags.audio_infos import (
    earlier_audio_infos,
    EarlierInfos,
    fields_of,
    topics_of_file,
)
from karmma_ros.bags.bag_run import BagInfo, Condition, RecordedComparison
from karmma_ros.bags.collect import bag_digest, Collector, file_states, ResumableRun
from karmma_ros.bags.faults import describe, Fault, on_inputs, parameters
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.recorded import compare_recorded, read_recorded, RecordedPredictions
from karmma_ros.bags.replay import FOREIGN_CLOCK_NS, Replay, Run
from karmma_ros.bags.simulated_node import WindowRequest
from karmma_ros.bags.topics import choose_topics, RECOGNITION, TopicChoice, TRUTH
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import BagError, printable
from karmma_ros.evaluation.inference import Subset
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.evaluation.window_inference import inference_for
from karmma_ros.modality import listed, subsets
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.streaming import chunks_of
from karmma_ros.storage import fingerprint
from karmma_ros.stream.settings import with_topic
from karmma_ros.stream.token_cache import hop_for
import numpy as np

VERSION = 10
"""Increases whenever the same bag and settings would give other predictions."""

BATCH = 16
_QUEUE = 64
"""Windows that the reading thread makes in advance."""
_PART_BATCHES = 32
"""Batches whose predictions are written to one file."""
_LONG_PAUSE_NS = 600 * NANOSECONDS
_MAX_WARNING = 1000
"""Characters."""

Progress = Callable[[int, int], None]
"""Called with the nanoseconds of the bag that are done, and their total."""
TruthTuple = tuple[int, int, str, str]


@dataclass(frozen=True)
class Settings:
    """How each bag is evaluated."""

    values: Mapping[str, Any]
    """The node's parameters, by name."""
    topics: Mapping[str, str] = field(default_factory=dict)
    """Role → topic, where the user names it."""
    subsets: bool = False
    """Also predict from every subset of the sensors."""
    leave_one_out: bool = False
    """Also predict without each sensor of a window."""
    faults: tuple[tuple[Fault, ...], ...] = ()
    """Faults of further runs, beside the one as recorded."""
    seed: int = 0
    batch_size: int = BATCH
    bags: tuple[Path, ...] = ()
    """All bags to evaluate: one may be an earlier file of the split bag of another."""

    def to_dict(self) -> dict[str, Any]:
        """Return all that the predictions depend on, JSON-ready."""
        return {
            'version': VERSION, 'values': dict(self.values), 'topics': dict(self.topics),
            'subsets': self.subsets, 'leave_one_out': self.leave_one_out,
            'batch_size': self.batch_size,
            'faults': [parameters(each, self.seed) for each in self.faults]}


@dataclass(frozen=True, eq=False)
class EvaluatedBag:
    """The results of one bag; times are those of the bag's clock."""

    info: BagInfo
    predictions: Mapping[Condition, BagPredictions]
    """The first condition is as recorded."""
    truths: Sequence[TruthTuple]
    """Start, end, verb and noun of each message of the ground-truth topic."""
    truth_topic: str
    """Empty without one."""
    recorded: RecordedComparison | None
    """Comparison with the predictions recorded in the bag; None without any."""
    notes: Sequence[str]
    """Which topics were chosen."""
    fresh: bool = True
    """Whether nothing was loaded from an earlier run."""
    truth_ids: Sequence[Sequence[int]] = ()
    """Class ids of verb and noun of each of `truths`."""


def evaluate_bag(
    path: Path, bundle: Bundle, settings: Settings, run_dir: Path | None,
    progress: Progress = lambda done_ns, total_ns: None, device: str = 'cpu',
) -> EvaluatedBag:
    """
    Return a model's predictions for a bag under every condition.

    :param run_dir: folder to write the predictions to, and to resume from; None for neither.
    :raises BagError: when the bag has no usable message.
    :raises InvalidSettingError: for settings that do not fit the bag or the model.
    """
    with Bag(path) as bag:
        modalities = bundle.network.modalities
        named = topics_of_file(bag, settings.topics, settings.bags)
        choice = choose_topics(bag, named, modalities,
                               with_topic(settings.values, modalities), bundle.spec)
        topics = {role: topic.name for role, topic in choice.topics.items()}
        settings = replace(
            settings, faults=tuple(on_inputs(each, topics) for each in settings.faults))
        infos = earlier_audio_infos(path, choice, settings.topics, settings.bags)
        evaluation = _Evaluation(bag, choice, bundle, settings, device, infos)
        before = file_states(bag.files.sources)
        folder = None if run_dir is None else run_dir / fingerprint(
            _key_facts(bag, bundle, settings, infos))
        result = evaluation.run(folder, progress)
        if file_states(bag.files.sources) != before:
            if folder is not None:
                shutil.rmtree(folder, ignore_errors=True)
            raise BagError(path, 'its files changed while they were read',
                           'wait until they are written, and give the same command again')
        return result


def _key_facts(
    bag: Bag, bundle: Bundle, settings: Settings, infos: EarlierInfos,
) -> dict[str, Any]:
    """Return all that the results of a bag depend on, JSON-ready."""
    return {
        'bag': bag_digest(bag.files.sources), 'missing': list(bag.files.missing),
        'model': [bundle.sha256, bundle.model_id], 'architecture': bundle.config.to_dict(),
        'calibration': bundle.calibration.to_dict(), 'spec': bundle.spec.to_dict(),
        **settings.to_dict(),
        'audio_info': fields_of(infos)}


class _Evaluation:
    """The evaluation of an open bag."""

    def __init__(
        self, bag: Bag, choice: TopicChoice, bundle: Bundle, settings: Settings, device: str,
        infos: EarlierInfos,
    ) -> None:
        self._bag, self._choice, self._bundle, self._settings = bag, choice, bundle, settings
        self._device, self._infos = device, infos
        self._runs, self._run_conditions = _conditions(settings, bundle.network.modalities)
        self._conditions = [c for group in self._run_conditions for c in group]
        self._names = [f'{run}/{c.name}' for run, group in enumerate(self._run_conditions)
                       for c in group]

    def run(self, folder: Path | None, progress: Progress) -> EvaluatedBag:
        """Load the results of an earlier run, or compute them."""
        stored = None if folder is None else ResumableRun(folder, self._names)
        results = stored.load() if stored is not None else None
        fresh = results is None and (stored is None or not stored.batches)
        if results is None:
            results = self._compute(stored, progress)
        facts, predictions = results
        progress(1, 1)
        return self._evaluated(facts, [predictions[name] for name in self._names], fresh)

    def _compute(
        self, stored: ResumableRun | None, progress: Progress,
    ) -> tuple[dict[str, Any], dict[str, BagPredictions]]:
        bag, bundle = self._bag, self._bundle
        recorded = read_recorded(
            bag, self._choice.topics.get(RECOGNITION), tuple(bundle.vocabulary.heads))
        hop = hop_for(chunks_of(bundle.network), bundle.spec, self._settings.values['rate'])
        replay = Replay(
            bag, self._choice, bundle.spec, bundle.network.modalities, self._settings.values,
            self._runs, [each.window for each in recorded.predictions], hop,
            self._infos)
        collector = Collector(self._run_conditions, bundle.vocabulary.sizes, len(self._runs),
                              listed(bundle.network.modalities))
        inference = inference_for(bundle, self._device)
        done = 0 if stored is None else stored.batches
        start_ns, total_ns = bag.start_ns, max(1, bag.end_ns - bag.start_ns)
        pending = 0
        with closing(_prefetch(replay.windows(
                lambda now_ns: progress(now_ns - start_ns, total_ns)))) as requests:
            for number, batch in enumerate(_batches(requests, self._settings.batch_size)):
                if number < done and not (inference.stateful or collector.has_recorded(batch)):
                    continue
                collector.predict(inference, batch, recorded_only=number < done)
                pending += number >= done
                if stored is not None and pending == _PART_BATCHES:
                    stored.add(pending, collector.take(), collector.take_dropped())
                    pending = 0
        rest = collector.take()
        states = {name: replay.nodes[int(name.split('/')[0])].states for name in self._names}
        dropped = collector.take_dropped()
        before = Counter() if stored is None else stored.dropped
        facts = self._facts(replay, collector, recorded, before + dropped)
        if stored is None:
            return facts, {n: rest[n].with_states(states[n]) for n in self._names}
        stored.add(pending, rest, dropped)
        stored.finish(facts, states)
        results = stored.load()
        assert results is not None
        return results

    def _facts(
        self, replay: Replay, collector: Collector, recorded: RecordedPredictions,
        dropped: Mapping[str, int],
    ) -> dict[str, Any]:
        """Return the results besides the predictions, JSON-ready."""
        bag, unused, warnings = self._bag, Counter(self._bag.missing), list(self._bag.warnings)
        warnings += [f'{role}: from an earlier file, {info.path.name}'
                     for role, info in self._infos.items()]
        rejected = replay.nodes[0].rejected
        for role, count in sorted(rejected.counts.items()):
            unused[f'{role} messages that cannot be used'] += count
        warnings += replay.nodes[0].problems
        for role, count in sorted(replay.unreadable.items()):
            unused[f'{role} messages that cannot be read'] += count
        unused.update(dropped)
        pause_ns = replay.longest_pause_ns
        if pause_ns > _LONG_PAUSE_NS:
            warnings.append(f'no message for {pause_ns / NANOSECONDS:,.0f} s within the bag: was '
                            'the clock set while it was recorded?')
        info = BagInfo(
            _name(bag), bag.start_ns, bag.end_ns, bag.files.storage, bag.messages_count,
            self._choice.to_dict(), {k: v for k, v in sorted(unused.items()) if v}, warnings,
            bag.missing.total())
        comparison = compare_recorded(recorded, collector.recorded(), self._bundle)
        return {'info': asdict(info), 'truths': replay.truths, 'truth_ids': replay.truth_ids,
                'recorded': comparison and asdict(comparison), 'unusable': replay.nodes[0].details}

    def _evaluated(
        self, facts: Mapping[str, Any], tables: Sequence[BagPredictions], fresh: bool,
    ) -> EvaluatedBag:
        offset_ns = _clock_offset_ns(tables[0])
        warnings = [*facts['info']['warnings'], *self._choice.unread]
        if offset_ns:
            tables = [_shifted(table, offset_ns) for table in tables]
            warnings.append(
                f'the stamps are {abs(offset_ns) / 1e9:,.0f} s '
                f'{"before" if offset_ns > 0 else "after"} the times of receipt: the times of the '
                'windows are shifted by that much to the clock of the bag')
        warnings += _unused(tables[0], facts['unusable'], warnings)
        info = BagInfo(**{
            **facts['info'], 'path': _name(self._bag),
            'warnings': [printable(text, _MAX_WARNING) for text in warnings]})
        truth = self._choice.topics.get(TRUTH)
        return EvaluatedBag(
            info, dict(zip(self._conditions, tables)),
            _on_bag_clock(facts['truths'], info, offset_ns), '' if truth is None else truth.name,
            facts['recorded'] and RecordedComparison(**facts['recorded']),
            self._choice.notes, fresh, facts['truth_ids'])


def _conditions(
    settings: Settings, modalities: Subset,
) -> tuple[list[Run], list[list[Condition]]]:
    """Return the runs of the replay, and the conditions of each of them."""
    first = [Condition()]
    if settings.subsets:
        first += [Condition.of_subset(subset) for subset in subsets(modalities)]
    if settings.leave_one_out and len(modalities) > 1:
        first += [Condition.leaving_out(modality) for modality in modalities]
    runs, conditions = [Run()], [first]
    for faults in settings.faults:
        runs.append(Run(faults, settings.seed))
        conditions.append([Condition(describe(faults), parameters(faults, settings.seed))])
    return runs, conditions


def _batches(requests: Iterator[WindowRequest], size: int) -> Iterator[list[WindowRequest]]:
    """
    Yield batches of windows of one run each, so that other runs do not change them.

    The last digits of a prediction depend on the batch.
    """
    waiting: dict[int, list[WindowRequest]] = {}
    for request in requests:
        batch = waiting.setdefault(request.run_index, [])
        batch.append(request)
        if len(batch) == size:
            yield waiting.pop(request.run_index)
    for run_index in sorted(waiting):
        yield waiting[run_index]


def _prefetch(items: Iterator[WindowRequest]) -> Generator[WindowRequest, None, None]:
    """Yield items that a thread produces in advance; raise its exception here."""
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
        while thread.is_alive():  # it may wait for a free slot
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
    except BaseException as error:  # raised in the other thread
        put(error)


def _name(bag: Bag) -> str:
    """Return the path of a bag as text: bytes that are not UTF-8 become replacement characters."""
    return printable(os.fsencode(bag.path).decode(errors='replace'), _MAX_WARNING)


def _clock_offset_ns(predictions: BagPredictions) -> int:
    """Return the time from the stamps to the bag's clock; 0 if it is the same clock."""
    if not len(predictions):
        return 0
    offset_ns = int(np.median(predictions.inference_ns - predictions.end_ns))
    return offset_ns if abs(offset_ns) > FOREIGN_CLOCK_NS else 0


def _on_bag_clock(
    truths: Sequence[Sequence[Any]], info: BagInfo, offset_ns: int,
) -> list[TruthTuple]:
    """Shift the ground truth like the stamps, unless it is on the clock of the bag already."""
    if any(start < info.end_ns and end > info.start_ns for start, end, *_ in truths):
        offset_ns = 0
    return [(start + offset_ns, end + offset_ns, verb, noun) for start, end, verb, noun in truths]


def _shifted(table: BagPredictions, offset_ns: int) -> BagPredictions:
    return replace(
        table, start_ns=table.start_ns + offset_ns, end_ns=table.end_ns + offset_ns)


def _unused(
    predictions: BagPredictions, unusable: Mapping[str, str], warnings: Sequence[str],
) -> Iterator[str]:
    """Yield a sentence for each sensor in no window, with the reason if no warning states it."""
    if not len(predictions):
        yield 'there is no window' + ('' if unusable else ': the bag is too short')
    used = [bool(column.any()) for column in predictions.present.T]
    for modality, is_used in zip(predictions.modalities, used):
        if not is_used and modality.value in unusable:
            reason = unusable[modality.value]
            stated = any(reason in text for text in warnings)
            yield f'{modality} is in no window' + ('' if stated else f': {reason}')
