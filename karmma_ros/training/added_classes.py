"""
Add classes to trained heads without the data of the old ones.

The classifiers' old rows stay. New rows are trained on windows of the new classes, and on draws
from normal distributions: of every old class by the statistics of the model, of every new one
around its own mean, by the covariance that the old ones have. The bias of the new rows is then
lowered until hardly any draw of an old class goes to a new one, or, where the old ones are
confused among themselves, as few as go from one of them to as many others.

Shape legend: u subsets, c classes of which k are new, e width that the classifiers take, b batch.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from dataclasses import dataclass

from karmma_ros.data.samples import Batch
from karmma_ros.modality import main_subsets
from karmma_ros.model.class_statistics import ClassStatistics
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.model.karmma import Karmma
from karmma_ros.training.fused_features import FusedFeatures
from karmma_ros.training.head_training import (
    class_sums,
    ClassSums,
    HeadSettings,
    Ids,
    Labels,
    linears,
)
import torch
from torch import nn, Tensor
from torch.nn.functional import cross_entropy

MOST_TAKEN = 0.008
"""Fraction of the draws of old classes that may go to new ones, for draws of the covariance
itself; of wider ones proportionately fewer may. Where the old classes take more than that from
each other, the new ones take as much: they would never be recognised otherwise."""
WIDENED = (2.0, 4.0, 8.0)
"""Draws have one of these multiples of the covariance: other people and days differ by more than
the windows of a few, and by far more where clips that trained the network gave the covariance. It
is the largest for which the old classes remain apart. It and the fraction above were chosen on the
first two draws of `benchmarks/utd_mhad_bags.py`."""
_APART = 0.995
"""Fraction of the draws that the old heads recognise where the classes are apart."""
_LEARNING_RATE = 0.1
"""Of the new rows, in units of the old ones."""
_DRAWS = 4000
_CHUNK = 1000


def statistics_of(totals: ClassSums) -> ClassStatistics:
    """Return the means by subset and class, and the covariances around them."""
    means, covariances = {}, {}
    for head, sums in totals.sums.items():
        count = totals.counts[head]
        means[head] = sums / count.clamp_min(1)[..., None]
        weighed = (means[head] * count[..., None]).flatten(0, 1)
        covariance = totals.square - means[head].flatten(0, 1).T @ weighed
        covariances[head] = covariance / count.sum().clamp_min(1)
    return ClassStatistics(means, totals.counts, covariances)


@torch.no_grad()
def sums_of_batches(
    network: Karmma, batches: Iterable[Batch], device: str,
    progress: Callable[[int], None] = lambda samples: None,
) -> ClassSums:
    """Sum what the classifiers of a network take over labelled batches and their subsets."""
    heads = network.heads
    assert isinstance(heads, MultiHeadMLP)
    chosen, columns = main_subsets(network.modalities), {
        m: i for i, m in enumerate(network.modalities)}
    totals = ClassSums.zeros(heads, len(chosen))
    for batch in batches:
        batch = batch.to(device).rows(batch.present.any(1).to(device))
        tokens = network.encode_present(batch.inputs, batch.present) if len(batch) else {}
        for u, subset in enumerate(chosen):
            rows = batch.present[:, [columns[m] for m in subset]].all(1)
            if rows.any():
                fused = network.fuse_tokens({m: tokens[m][rows] for m in subset})
                ids = {head: x[rows].cpu() for head, x in batch.labels.items()}
                totals.add(u, heads.pool(*fused).cpu(), ids)
        progress(len(batch))
    return totals


@dataclass(frozen=True)
class _Distributions:
    """Normal distributions of every class of a head."""

    means: Tensor
    """`[u, c, e]`."""
    known: Tensor
    """Bool `[u, c]`."""
    factor: Tensor
    """Cholesky factor of the covariance, `[e, e]`."""

    def draw(self, classes: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Return draws `[b, e]` of classes `[b]` that are known, and their classes."""
        subset = torch.randint(len(self.means), classes.shape, generator=generator)
        kept = self.known[subset, classes]
        subset, classes = subset[kept], classes[kept]
        noise = torch.randn(len(classes), len(self.factor), generator=generator)
        return self.means[subset, classes] + noise @ self.factor.T, classes


@dataclass(frozen=True)
class AddedClasses:
    """Heads with new classes, and what the old ones are expected to keep."""

    heads: MultiHeadMLP
    statistics: ClassStatistics
    """Of old and new classes."""
    before: float
    """Fraction of draws of old classes that the old heads recognise, the mean over the heads."""
    after: float
    """The same with the new classes."""


def add_classes(
    heads: MultiHeadMLP, old: ClassStatistics, sizes: Mapping[str, int], features: FusedFeatures,
    segments: Ids, labels: Labels, settings: HeadSettings,
    report: Callable[[int, float], None] = lambda step, loss: None,
) -> AddedClasses:
    """
    Return heads that have the classes of the old ones first.

    :param sizes: head → number of old and new classes.
    :param segments: of the new classes, and of old ones if there are any.
    """
    extended = deepcopy(heads).requires_grad_(False)
    for head, classify in linears(heads).items():
        wider = nn.Linear(classify.in_features, sizes[head])
        wider.weight.data[:classify.out_features] = classify.weight.data
        wider.bias.data[:classify.out_features] = classify.bias.data
        extended.classifiers[head] = wider.requires_grad_(False)
    totals = class_sums(extended, features, segments, labels)
    statistics = _joined(old, statistics_of(totals))
    before, after = [], []
    for head, classify in linears(extended).items():
        count = linears(heads)[head].out_features
        own, multiple = _widened(statistics, head, linears(heads)[head], settings.seed)
        if sizes[head] > count:
            _train_rows(classify, count, own, settings, report)
        scores = _lower_bias(classify, count, own, MOST_TAKEN / multiple, settings.seed)
        before.append(scores[0])
        after.append(scores[1])
    return AddedClasses(extended.eval(), statistics, sum(before) / len(before),
                        sum(after) / len(after))


def _joined(old: ClassStatistics, new: ClassStatistics) -> ClassStatistics:
    """Return the old statistics, with those of the further classes."""
    means, counts = {}, {}
    for head, mean in old.means.items():
        first = mean.shape[1]
        means[head] = torch.cat([mean.double(), new.means[head][:, first:]], dim=1)
        counts[head] = torch.cat([old.counts[head].double(), new.counts[head][:, first:]], dim=1)
    return ClassStatistics(means, counts, old.covariances)


@torch.no_grad()
def _widened(
    statistics: ClassStatistics, head: str, old: nn.Linear, seed: int
) -> tuple[_Distributions, float]:
    """Return the widest distributions that the old heads still separate, and their multiple."""
    chosen = None
    for multiple in WIDENED:
        own = _Distributions(
            statistics.means[head].float(), statistics.counts[head] > 0,
            _factor(multiple * statistics.covariances[head]))
        generator = torch.Generator().manual_seed(seed + 2)
        x, ids = own.draw(torch.randint(old.out_features, (_CHUNK,), generator=generator),
                          generator)
        if chosen is not None and float((old(x).argmax(1) == ids).float().mean()) < _APART:
            break
        chosen = own, multiple
    assert chosen is not None
    return chosen


def _factor(covariance: Tensor) -> Tensor:
    wide = covariance.double()
    jitter = 1e-4 * wide.diagonal().mean().clamp_min(1e-9)
    values, vectors = torch.linalg.eigh((wide + wide.T) / 2)
    return (vectors * values.clamp_min(jitter).sqrt()).float()


def _train_rows(
    classify: nn.Linear, first: int, own: _Distributions, settings: HeadSettings,
    report: Callable[[int, float], None],
) -> None:
    """
    Train the rows of a classifier from the class `first` on.

    They start at zero, with the highest old logit at their mean as their bias, and are measured
    in the size of the old rows, so that the rate does not depend on the scale of the logits.
    """
    generator = torch.Generator().manual_seed(settings.seed)
    total, width = classify.out_features, classify.in_features
    centre = own.means[own.known].mean(0)
    old = classify.weight[:first]
    size = float((old - old.mean(0)).square().mean()) ** 0.5
    rows = torch.zeros(total - first, width, requires_grad=True)
    known = own.known[..., None]
    means = (own.means * known).sum(0) / known.sum(0).clamp_min(1)  # [c, e]
    with torch.no_grad():
        highest = classify(means[first:])[:, :first].max(1).values
    bias = highest.clone().requires_grad_(True)
    optimizer = torch.optim.AdamW([rows, bias], lr=_LEARNING_RATE, weight_decay=0.0)
    for step in range(1, settings.steps + 1):
        chosen = torch.cat([
            torch.randint(first, (2 * settings.batch_size,), generator=generator),
            torch.randint(first, total, (2 * settings.batch_size,), generator=generator)])
        x, ids = own.draw(chosen, generator)
        new = (x - centre) @ rows.T * size + bias
        loss = cross_entropy(torch.cat([classify(x)[:, :first], new], dim=1), ids)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        report(step, float(loss.detach()))
    with torch.no_grad():
        classify.weight[first:] = rows * size
        classify.bias[first:] = bias - rows @ centre * size


@torch.no_grad()
def _lower_bias(
    classify: nn.Linear, first: int, own: _Distributions, most_taken: float, seed: int
) -> tuple[float, float]:
    """Lower the new biases; return which fraction of old draws is right before and after."""
    generator = torch.Generator().manual_seed(seed + 1)
    x, ids = own.draw(torch.randint(first, (_DRAWS,), generator=generator), generator)
    logits = torch.cat([classify(part) for part in x.split(_CHUNK)])
    right = logits[:, :first].argmax(1) == ids
    before = float(right.float().mean())
    if classify.out_features == first:
        return before, before
    confused = (1 - before) * (classify.out_features - first) / max(first - 1, 1)
    most_taken = min(max(most_taken, confused), 0.5)
    gaps = (logits[:, first:].max(1).values - logits[:, :first].max(1).values)[right]
    allowed = float(gaps.quantile(1 - most_taken)) if len(gaps) else 0.0
    classify.bias.data[first:] -= max(0.0, allowed)
    taken = (gaps > max(0.0, allowed)).float().mean() if len(gaps) else torch.zeros(())
    return before, before * (1 - float(taken))
