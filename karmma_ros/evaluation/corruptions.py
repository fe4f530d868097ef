"""
Predictions for clips whose sensors are corrupted, late or silent: encoded once for each change.

A clip is read once and each modality encoded once as recorded. Under a condition only the
modalities that differ are encoded again. Each condition is predicted twice: with all that the clip
has, and as a node predicts it, without what a content check finds to show nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
import math
from pathlib import Path
from typing import Any, cast

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.data.corrupted import (
    ClipWindow,
    ClipWindows,
    inputs_of,
    masked_by_checks,
    RecordedClips,
    SensorCondition,
    thresholds_of_checks,
)
from karmma_ros.data.samples import Batch, collate, Sample
from karmma_ros.evaluation.inference import (
    fuse_subsets,
    LoaderSettings,
    Network,
    NotFiniteError,
    SHARD_SIZE,
)
from karmma_ros.evaluation.predictions import DatasetPredictions, PredictionsError
from karmma_ros.modality import Modality, subset_name
from karmma_ros.storage import fingerprint
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

Subset = tuple[Modality, ...]


@dataclass(frozen=True)
class ConditionPredictions:
    """The predictions under one condition; `present` is what the network was given."""

    plain: DatasetPredictions
    checked: DatasetPredictions
    """Without what the content checks found to show nothing."""


@dataclass(frozen=True)
class _Encoded:
    """The tokens of a batch."""

    tokens: Mapping[Modality, Tensor]
    present: Tensor
    """Bool `[b, m]`."""


class ConditionCollector:
    """Predict the clips of a split under many conditions."""

    def __init__(
        self, network: Network, clips: RecordedClips, spec: ClipSpec, settings: LoaderSettings,
    ) -> None:
        self._network, self._spec, self._settings = network, spec, settings
        self._clips = ClipWindows(clips, (), network.modalities, spec).clips

    @torch.inference_mode()
    def collect(
        self, conditions: Mapping[str, SensorCondition], indices: Sequence[int], folder: Path,
        progress: Callable[[int], None] = lambda samples: None, shard_size: int = SHARD_SIZE,
    ) -> dict[str, ConditionPredictions]:
        """
        Predict clips, or read the predictions that an earlier run has written.

        :param folder: keeps the shards; it must be of this very network and these clips.
        :param progress: called with the number of clips done under all conditions.
        """
        self._network.eval()
        checks = thresholds_of_checks(self._network.modalities)
        paths = {name: folder / fingerprint({**condition.facts(), 'checks': checks})
                 for name, condition in conditions.items()}
        shards: dict[str, list[ConditionPredictions]] = {name: [] for name in conditions}
        for number in range(math.ceil(len(indices) / shard_size)):
            rows = indices[number * shard_size:(number + 1) * shard_size]
            loaded = {name: _load(path, number, len(rows)) for name, path in paths.items()}
            written = {name: each for name, each in loaded.items() if each is not None}
            missing = {name: each for name, each in conditions.items() if name not in written}
            predicted = self._predict(missing, rows, progress) if missing else {}
            for name, each in predicted.items():
                for table in _TABLES:
                    getattr(each, table).save(paths[name] / f'{number:05d}_{table}.npz')
            if not missing:
                progress(len(rows))
            for name, own in shards.items():
                own.append(predicted[name] if name in predicted else written[name])
        return {name: _concatenated(parts) for name, parts in shards.items()}

    def _predict(
        self, conditions: Mapping[str, SensorCondition], rows: Sequence[int],
        progress: Callable[[int], None],
    ) -> dict[str, ConditionPredictions]:
        parts: dict[str, list[ConditionPredictions]] = {name: [] for name in conditions}
        windows = ClipWindows(self._clips, rows, self._network.modalities, self._spec)
        for batch in DataLoader(
                cast(Any, windows), self._settings.batch_size,
                num_workers=self._settings.workers, collate_fn=list):
            recorded = self._encode([window.arrays for window in batch], batch)
            for name, condition in conditions.items():
                parts[name].append(self._under(condition, batch, recorded))
            progress(len(batch))
        return {name: _concatenated(own) for name, own in parts.items()}

    def _under(
        self, condition: SensorCondition, windows: Sequence[ClipWindow], recorded: _Encoded,
    ) -> ConditionPredictions:
        changed = [condition.apply(window, self._clips, self._spec) for window in windows]
        own = self._network.modalities
        is_changed = torch.tensor([[m in each for m in own] for each in changed])
        encoded = self._encode(changed, windows)
        present = torch.where(is_changed, encoded.present, recorded.present)
        present[:, [i for i, m in enumerate(own) if m in condition.removed]] = False
        tokens = {m: _chosen(m, is_changed[:, i], encoded, recorded)
                  for i, m in enumerate(own) if m in encoded.tokens or m in recorded.tokens}
        masked = [masked_by_checks(each, window, self._spec) if condition.observed == 1 else ()
                  for each, window in zip(changed, windows)]  # what is not received has no check
        informative = torch.tensor([[m not in each for m in own] for each in masked])
        plain = self._fused(tokens, present, windows)
        if bool((informative | ~present).all()):
            return ConditionPredictions(plain, plain)
        return ConditionPredictions(plain, self._fused(tokens, present & informative, windows))

    def _encode(
        self, arrays: Sequence[Mapping[Modality, Any]], windows: Sequence[ClipWindow],
    ) -> _Encoded:
        """Encode what each clip has of the network's modalities."""
        own = self._network.modalities
        samples = [Sample(Clip(inputs_of({m: x for m, x in each.items() if m in own}, self._spec)),
                          window.labels) for each, window in zip(arrays, windows)]
        batch: Batch = collate(samples, own).to(self._settings.device)
        some = batch.present.any(1)
        rows = batch.rows(some)
        encoded = self._network.encode_present(rows.inputs, rows.present) if len(rows) else {}
        positions = some.nonzero().squeeze(1)
        tokens = {m: x.new_zeros(len(samples), *x.shape[1:]).index_copy(0, positions, x)
                  for m, x in encoded.items()}
        return _Encoded(tokens, batch.present.cpu())

    def _fused(
        self, tokens: Mapping[Modality, Tensor], present: Tensor, windows: Sequence[ClipWindow],
    ) -> DatasetPredictions:
        """Predict each clip from all that is present of it."""
        own = self._network.modalities
        rows = {tuple(m for m, has in zip(own, row) if has): torch.from_numpy(chosen)
                for row, chosen in patterns(present.numpy()) if any(row)}
        logits: dict[str, dict[str, np.ndarray]] = {}
        for subset, by_head in fuse_subsets(self._network, tokens, rows):
            for head, x in by_head.items():
                broken = int((~torch.isfinite(x)).any(1).sum())
                if broken:
                    raise NotFiniteError(subset_name(subset), head, broken)
                spread = np.full((len(windows), x.shape[1]), np.nan, np.float32)
                spread[rows[subset].numpy()] = x.float().cpu().numpy()
                logits.setdefault(subset_name(subset), {})[head] = spread
        labels = {head: np.array([window.labels[head] for window in windows])
                  for head in windows[0].labels}
        return DatasetPredictions(own, logits, present.numpy(), labels)


def patterns(present: np.ndarray) -> Iterator[tuple[list[bool], np.ndarray]]:
    """Yield each row of `[n, m]` that occurs, and where it does."""
    rows, row_of = np.unique(present, axis=0, return_inverse=True)
    for i, row in enumerate(rows):
        yield row.tolist(), np.flatnonzero(row_of.ravel() == i)


def _chosen(
    modality: Modality, is_changed: Tensor, encoded: _Encoded, recorded: _Encoded,
) -> Tensor:
    """Return the tokens of a modality: changed ones where a clip has them."""
    new, old = encoded.tokens.get(modality), recorded.tokens.get(modality)
    if new is None or old is None:
        return cast(Tensor, old if new is None else new)
    return torch.where(is_changed.to(new.device).view(-1, *[1] * (new.ndim - 1)), new, old)


_TABLES = 'plain', 'checked'


def _concatenated(parts: Sequence[ConditionPredictions]) -> ConditionPredictions:
    return ConditionPredictions(*(
        DatasetPredictions.concatenate([getattr(each, table) for each in parts])
        for table in _TABLES))


def _load(folder: Path, number: int, count: int) -> ConditionPredictions | None:
    """Return a shard that was written; None without one, or with a damaged one."""
    try:
        tables = [DatasetPredictions.load(folder / f'{number:05d}_{table}.npz')
                  for table in _TABLES]
    except PredictionsError:
        return None
    if any(len(table) != count for table in tables):
        return None
    return ConditionPredictions(*tables)
