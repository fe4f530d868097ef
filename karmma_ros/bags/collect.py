"""The answers of the network, gathered by condition as they come."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
import time
from typing import Any

from karmma_ros.bags.bag_run import Condition
from karmma_ros.bags.replay import WindowRequest
from karmma_ros.errors import InvalidSampleError
from karmma_ros.evaluation.inference import BatchInference, Prepared, Subset, SubsetPredictions
from karmma_ros.evaluation.predictions import BagPredictions, present_row
from karmma_ros.modality import Modality, subset_name, subsets
import numpy as np
from numpy.typing import NDArray


class Collector:
    """Gather the answers by condition until they are taken."""

    def __init__(
        self, conditions: Sequence[Sequence[Condition]], sizes: Mapping[str, int], echo: int,
    ) -> None:
        """
        Start empty.

        :param conditions: for each lane.
        :param echo: the lane whose answers are compared with recorded ones.
        """
        self._sizes, self._echo_lane = sizes, echo
        self._names = [[(f'{lane}/{c.name}', c) for c in those]
                       for lane, those in enumerate(conditions)]
        self._with_subsets = [any(c.subset for c in those) for those in conditions] + [False]
        self._rows: dict[str, list[_Row]] = {}
        self._echo: list[_Row] = []
        self.lost: Counter[str] = Counter()
        """Why windows have no answer → how many."""

    def echo_wanted(self, cuts: Sequence[WindowRequest]) -> bool:
        """Return whether a batch holds windows to compare, which no part keeps."""
        return any(cut.lane == self._echo_lane for cut in cuts)

    def ask(
        self, asker: BatchInference, cuts: Sequence[WindowRequest], echo_only: bool = False
    ) -> None:
        """
        Ask about the windows of a batch, and keep what is answered.

        :param echo_only: keep only what is compared with recorded answers; the rest is known.
        """
        started = time.perf_counter()
        kept, clips = [], []
        for cut in cuts:
            try:
                clips.append(asker.prepare(cut.lane, cut.window))
                kept.append(cut)
            except InvalidSampleError as error:
                self.lost[f'windows that cannot be prepared: {error}'] += 1
        if not kept:
            return
        wanted = [self._wanted(cut, clip) for cut, clip in zip(kept, clips)]
        answers = asker(clips, wanted)
        share_s = (time.perf_counter() - started) / len(kept)
        places = {subset: {int(row): i for i, row in enumerate(found.rows)}
                  for subset, found in answers.items()}
        for row, (cut, clip) in enumerate(zip(kept, clips)):
            by_subset = {s: _one(found, places[s][row]) for s, found in answers.items()
                         if row in places[s]}
            self._keep(cut, clip, by_subset, share_s, echo_only)

    def take(self) -> dict[str, BagPredictions]:
        """Return the answers since the last time, of every condition."""
        taken = {name: _gathered(self._rows.get(name, ()), self._sizes)
                 for those in self._names for name, _ in those}
        self._rows = {}
        return taken

    def echo(self) -> BagPredictions:
        """Return the answers at the ends of recorded windows."""
        return _gathered(self._echo, self._sizes)

    def _wanted(self, cut: WindowRequest, clip: Prepared) -> list[Subset]:
        own = clip.modalities
        return subsets(own) if self._with_subsets[cut.lane] else [own]

    def _keep(
        self,
        cut: WindowRequest,
        clip: Prepared,
        by_subset: Mapping[Subset, dict[str, Any]],
        share_s: float,
        echo_only: bool,
    ) -> None:
        own = clip.modalities
        if not all(np.isfinite(p).all() for p in by_subset[own].values()):
            self.lost['windows to which the network answers NaN'] += 1
            return
        if cut.lane == self._echo_lane:
            self._echo.append(_Row(cut, own, by_subset[own], share_s))
            return
        if echo_only:
            return
        named = {subset_name(s): s for s in by_subset}
        for name, condition in self._names[cut.lane]:
            subset = named.get(condition.subset) if condition.subset else own
            if subset is not None:
                self._rows.setdefault(name, []).append(
                    _Row(cut, subset, by_subset[subset], share_s))


@dataclass(frozen=True, eq=False)
class _Row:
    """One answer."""

    start_ns: int
    end_ns: int
    inference_ns: int
    subset: Subset
    probabilities: Mapping[str, NDArray[np.float32]]
    share_s: float

    def __init__(
        self, cut: WindowRequest, subset: Subset, probabilities: Mapping[str, NDArray[np.float32]],
        share_s: float,
    ) -> None:
        # The window itself, with its samples, is let go.
        for name, value in (
                ('start_ns', cut.window.start_ns), ('end_ns', cut.window.end_ns),
                ('inference_ns', cut.inference_ns), ('subset', subset),
                ('probabilities', probabilities), ('share_s', share_s)):
            object.__setattr__(self, name, value)


def _one(found: SubsetPredictions, place: int) -> dict[str, NDArray[np.float32]]:
    return {head: p[place] for head, p in found.probabilities.items()}


def _gathered(rows: Sequence[_Row], sizes: Mapping[str, int]) -> BagPredictions:
    if not rows:
        return BagPredictions.empty(sizes)
    times = np.array([(r.start_ns, r.end_ns, r.inference_ns) for r in rows], np.int64)
    return BagPredictions(
        times[:, 0], times[:, 1], times[:, 2], np.stack([present_row(r.subset) for r in rows]),
        {head: np.stack([r.probabilities[head] for r in rows]) for head in sizes},
        np.array([r.share_s for r in rows], np.float32),
        np.zeros((0, 1 + len(Modality)), np.int64))
