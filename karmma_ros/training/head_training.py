"""
New heads over a frozen fusion block: trained by gradient descent, or nearest class means.

Both are the same layers, so that a model directory holds either. The recipe is ours: five windows
of each segment, AdamW, modality dropout, label smoothing.

Shape legend: n segments, u subsets, c classes, b batch, d fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from copy import deepcopy
from dataclasses import dataclass
from typing import cast

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.training.fused_features import FusedFeatures
from karmma_ros.training.losses import classification_loss
from karmma_ros.training.modality_dropout import drop_modalities, seeded_rand
from karmma_ros.training.module import split_by_decay, warmup_cosine
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn, Tensor

_CHUNK = 256
"""Windows that are read at once."""

Ids = NDArray[np.int64]
Labels = Mapping[str, Ids]
"""Head → class id of every segment, `[n]`; -1 where it has none."""
SubsetLogits = dict[str, NDArray[np.float32]]
"""Head → `[n, c]`, NaN where a segment lacks the subset."""


@dataclass(frozen=True)
class HeadSettings:
    """How heads are trained."""

    steps: int = 300
    """Optimizer steps."""
    batch_size: int = 32
    """Windows of a step."""
    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.05
    """Weight decay of AdamW."""
    modality_dropout: float = 0.5
    """Probability of each modality of a window to be dropped."""
    label_smoothing: float = 0.1
    """Fraction of the probability that is spread over all classes."""
    seed: int = 0
    """Of the order of windows and of modality dropout."""

    def __post_init__(self) -> None:
        for name in ('steps', 'batch_size'):
            if getattr(self, name) < 1:
                raise InvalidSettingError(
                    f'--{name.replace("_", "-")}', getattr(self, name), 'a number above 0')


def new_heads(base: MultiHeadMLP, sizes: Mapping[str, int], seed: int) -> MultiHeadMLP:
    """
    Return heads of other classes that take what those of the base do.

    :param sizes: head → number of classes.
    """
    heads = deepcopy(base)
    generator = torch.Generator().manual_seed(seed)
    width = base.width
    heads.classifiers = nn.ModuleDict({head: nn.Linear(width, n) for head, n in sizes.items()})
    for classify in linears(heads).values():
        nn.init.normal_(classify.weight, std=width ** -0.5, generator=generator)
        nn.init.zeros_(classify.bias)
    return heads.requires_grad_(True)


def linears(heads: MultiHeadMLP) -> dict[str, nn.Linear]:
    """Return head → its linear classifier."""
    return cast(dict[str, nn.Linear], dict(heads.classifiers.items()))


def train_heads(
    heads: MultiHeadMLP, features: FusedFeatures, segments: Ids, labels: Labels,
    settings: HeadSettings, report: Callable[[int, float], None] = lambda step, loss: None,
) -> None:
    """
    Train heads in place; they can be used whenever this is interrupted.

    :param segments: to train on; one without a window is left out.
    :param report: called after each step with its number, from 1, and the loss.
    """
    decayed, plain = split_by_decay(heads)
    optimizer = torch.optim.AdamW(
        [{'params': list(decayed.values()), 'weight_decay': settings.weight_decay},
         {'params': list(plain.values()), 'weight_decay': 0.0}], lr=settings.learning_rate)
    scheduler = torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: warmup_cosine(step, settings.steps, settings.steps // 20))
    heads.train()
    batches = _batches(features, segments, settings)
    for step in range(1, settings.steps + 1):
        own, rows, subset = next(batches)
        windows = features.read(rows, subset)
        ids = {head: torch.from_numpy(x[own]) for head, x in labels.items()}
        loss = classification_loss(
            heads(windows.tokens, windows.counted), ids, settings.label_smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        scheduler.step()
        report(step, float(loss.detach()))
    heads.eval()


def _batches(
    features: FusedFeatures, segments: Ids, settings: HeadSettings
) -> Iterator[tuple[Ids, Ids, list[int]]]:
    """Yield segments, a window of each, and the subset that modality dropout leaves of it."""
    usable = np.array([n for n in segments if len(features.rows_of(n))], np.int64)
    rng, step = np.random.default_rng(settings.seed), 0
    while True:
        order = np.concatenate([
            rng.permutation(usable) for _ in range(-(-settings.batch_size // len(usable)))])
        for first in range(0, len(order) - settings.batch_size + 1, settings.batch_size):
            own = order[first:first + settings.batch_size]
            rows = np.array([rng.choice(features.rows_of(n)) for n in own])
            present = torch.from_numpy(features.present[rows])
            step += 1
            kept = drop_modalities(present, settings.modality_dropout,
                                   seeded_rand(settings.seed * 1_000_003 + step)).numpy()
            yield own, rows, [_subset(features, a, b, rng) for a, b in zip(kept, present.numpy())]


def _subset(
    features: FusedFeatures, kept: NDArray[np.bool_], present: NDArray[np.bool_],
    rng: np.random.Generator,
) -> int:
    """Return the index of a subset; of many modalities one that is fused and has the window's."""
    index = features.subset_index(kept)
    if index >= 0:
        return index
    own = {m for m, has in zip(features.modalities, present) if has}
    return int(rng.choice([u for u, s in enumerate(features.subsets) if own.issuperset(s)]))


@torch.no_grad()
def set_nearest_class_mean(
    heads: MultiHeadMLP, features: FusedFeatures, segments: Ids, labels: Labels
) -> None:
    """
    Make the classifiers those of the nearest class mean, in place.

    The means are over the windows of a class and their subsets. The distance is that of the
    covariance C within the classes, half shrunk to a sphere. Of its square only the part that
    differs between classes is left, which is linear: w = C⁻¹ m, b = -m C⁻¹ m / 2. A class
    without a window is never predicted.
    """
    totals = class_sums(heads, features, segments, labels)
    for head, classify in linears(heads).items():
        count = totals.counts[head].sum(0)  # [c]
        mean = totals.sums[head].sum(0) / count.clamp_min(1)[:, None]  # [c, 2d]
        covariance = totals.square - mean.T @ (mean * count[:, None])
        covariance /= count.sum().clamp_min(1)
        sphere = torch.eye(len(covariance)) * covariance.diagonal().mean().clamp_min(1e-12)
        weight = torch.linalg.solve((covariance + sphere) / 2, mean.T).T
        bias = -(weight * mean).sum(1) / 2
        classify.weight.copy_(weight)
        classify.bias.copy_(torch.where(count > 0, bias, bias.min() - 1e3))


@dataclass(frozen=True)
class ClassSums:
    """Sums, float64, of what the classifiers take over windows and their subsets."""

    sums: dict[str, Tensor]
    """Head → `[u, c, 2d]`, of each subset and class."""
    counts: dict[str, Tensor]
    """Head → number of windows, `[u, c]`."""
    square: Tensor
    """Sum of the outer products of all, `[2d, 2d]`."""

    @classmethod
    def zeros(cls, heads: MultiHeadMLP, subsets: int) -> ClassSums:
        """Return the sums over nothing."""
        width = heads.width
        sizes = {head: classify.out_features for head, classify in linears(heads).items()}
        return cls({head: torch.zeros(subsets, n, width).double() for head, n in sizes.items()},
                   {head: torch.zeros(subsets, n).double() for head, n in sizes.items()},
                   torch.zeros(width, width).double())

    def add(self, subset: int, pooled: Tensor, ids: Mapping[str, Tensor]) -> None:
        """
        Add windows of a subset.

        :param pooled: `[b, 2d]`.
        :param ids: head → classes `[b]`.
        """
        x = pooled.double()
        self.square.addmm_(x.T, x)
        for head, own in ids.items():
            self.sums[head][subset].index_add_(0, own, x)
            self.counts[head][subset] += torch.bincount(
                own, minlength=self.counts[head].shape[1])


@torch.no_grad()
def class_sums(
    heads: MultiHeadMLP, features: FusedFeatures, segments: Ids, labels: Labels
) -> ClassSums:
    """Sum what the classifiers take over the windows of each class and subset."""
    totals = ClassSums.zeros(heads, len(features.subsets))
    for u, rows, pooled in pooled_windows(heads, features, segments):
        totals.add(u, pooled, {head: torch.from_numpy(labels[head][features.segment[rows]])
                                for head in totals.sums})
    return totals


@torch.no_grad()
def pooled_windows(
    heads: MultiHeadMLP, features: FusedFeatures, segments: Ids
) -> Iterator[tuple[int, Ids, Tensor]]:
    """Yield subset, windows and what the classifiers take of them `[b, 2d]`, chunk by chunk."""
    rows = np.concatenate([np.zeros(0, np.int64), *(features.rows_of(n) for n in segments)])
    for u in range(len(features.subsets)):
        own = rows[features.has(rows, u)]
        for first in range(0, len(own), _CHUNK):
            chunk = own[first:first + _CHUNK]
            windows = features.read(chunk, [u] * len(chunk))
            yield u, chunk, heads.pool(windows.tokens, windows.counted)


@torch.no_grad()
def predict(
    heads: MultiHeadMLP, features: FusedFeatures, segments: Ids
) -> list[SubsetLogits]:
    """Return the logits of the middle window of segments, for each subset."""
    heads.eval()
    rows = np.array([features.middle(n) for n in segments], np.int64)
    predicted: list[SubsetLogits] = []
    for u in range(len(features.subsets)):
        where = np.flatnonzero((rows >= 0) & features.has(rows, u))
        logits: SubsetLogits = {
            head: np.full((len(rows), classify.out_features), np.nan, np.float32)
            for head, classify in linears(heads).items()}
        for first in range(0, len(where), _CHUNK):
            chunk = where[first:first + _CHUNK]
            windows = features.read(rows[chunk], [u] * len(chunk))
            for head, x in heads(windows.tokens, windows.counted).items():
                logits[head][chunk] = x.numpy()
        predicted.append(logits)
    return predicted


@torch.no_grad()
def scale_logits(heads: MultiHeadMLP, factors: Mapping[str, float]) -> None:
    """Multiply the logits of each head, in place."""
    for head, classify in linears(heads).items():
        classify.weight.mul_(factors[head])
        classify.bias.mul_(factors[head])
