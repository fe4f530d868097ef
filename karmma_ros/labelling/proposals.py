"""
Actions that a model proposes for a recording, for a person to accept or correct.

They are the events of the node: a replay of the bag through its code, in a thread, one bag after
the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from queue import Queue
from threading import Event, Lock, Thread
from typing import Any

from karmma_ros.bags.evaluate import evaluate_bag, Settings
from karmma_ros.clip import NANOSECONDS
from karmma_ros.errors import InvalidSettingError, KarmmaError, printable
from karmma_ros.evaluation.segmentation import detect_events, event_heads
from karmma_ros.modalities import input_modalities
from karmma_ros.model.bundle import Bundle
from karmma_ros.stream.settings import event_settings, node_parameters


@dataclass(frozen=True)
class Proposal:
    """One action that the model recognises."""

    start_s: float
    stop_s: float
    classes: Mapping[str, str]
    """Head → class name."""
    score: float
    """The highest smoothed probability, 0 to 1."""

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {'start': self.start_s, 'stop': self.stop_s, 'classes': dict(self.classes),
                'score': self.score}


@dataclass
class ProposalState:
    """How far the proposals for a recording are."""

    progress: float = 0.0
    done: bool = False
    error: str = ''
    proposals: list[Proposal] = field(default_factory=list)
    """The least certain first."""

    def to_dict(self) -> dict[str, Any]:
        """Return it JSON-ready."""
        return {'progress': self.progress, 'done': self.done, 'error': self.error,
                'proposals': [each.to_dict() for each in self.proposals]}


class _Stopped(Exception):
    """The page was ended."""


class Proposer:
    """Compute the proposals for recordings in a thread, in the order of their requests."""

    def __init__(
        self, bundle: Bundle, heads: Sequence[str], cache: Path | None = None,
        topics: Mapping[str, str] | None = None,
    ) -> None:
        """
        Take the model.

        :param heads: of the label file.
        :param cache: folder for predictions, from which a stopped run resumes; None for none.
        :param topics: role → topic, as of `choose_topics`.
        :raises InvalidSettingError: when the model names no head of the label file.
        """
        self._bundle, self._cache = bundle, cache
        self._heads = [head for head in event_heads(bundle.vocabulary) if head in heads]
        if not self._heads:
            raise InvalidSettingError(
                '--model', bundle.model_id, f'a model with a head {" or ".join(heads)}, as the '
                'label file', f'it has {", ".join(bundle.vocabulary.heads)}')
        values = node_parameters(
            None, input_modalities(bundle.network.modalities, bundle.spec))
        self._events = event_settings(values)
        self._settings = Settings(values, topics or {})
        self._states: dict[Path, ProposalState] = {}
        self._queue: Queue[Path | None] = Queue()
        self._lock, self._stop = Lock(), Event()
        self._thread = Thread(target=self._run, name='karmma proposals', daemon=True)
        self._thread.start()

    def of(self, path: Path) -> ProposalState:
        """Return how far the proposals for a bag are; the first call requests them."""
        with self._lock:
            if path not in self._states:
                self._states[path] = ProposalState()
                self._queue.put(path)
            return self._states[path]

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._queue.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (path := self._queue.get()) is not None:
            state = self._states[path]
            try:
                state.proposals = self._propose(path, state)
            except _Stopped:
                return
            except (KarmmaError, OSError) as error:
                state.error = printable(error)
            except Exception as error:  # the page would wait for this and all later bags
                state.error = printable(f'{type(error).__name__}: {error}')
            state.progress, state.done = 1.0, True

    def _propose(self, path: Path, state: ProposalState) -> list[Proposal]:
        def report(done_ns: int, total_ns: int) -> None:
            if self._stop.is_set():
                raise _Stopped
            state.progress = min(0.999, done_ns / max(1, total_ns))

        evaluated = evaluate_bag(path, self._bundle, self._settings, self._cache, report)
        predictions = next(iter(evaluated.predictions.values()))
        vocabulary, start_ns = self._bundle.vocabulary, evaluated.info.start_ns
        proposals = []
        for event in detect_events(predictions, vocabulary, self._events):
            ids: Any = event.segment.label
            named = dict(zip(event_heads(vocabulary), ids))
            proposals.append(Proposal(
                max(0.0, (event.segment.start - start_ns) / NANOSECONDS),
                (event.segment.end - start_ns) / NANOSECONDS,
                {head: vocabulary.heads[head][named[head]] for head in self._heads}, event.score))
        return sorted(proposals, key=lambda each: (each.score, each.start_s))
