"""Accuracy for every subset of the modalities (the paper's Table I)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from karmma_ros.data.samples import Batch
from karmma_ros.evaluation.classification import hits
from karmma_ros.evaluation.inference import collect, Network
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.evaluation.tables import markdown_table
import torch


def score_subsets(
    network: Network,
    batches: Iterable[Batch],
    device: str | torch.device = 'cpu',
    progress: Callable[[int], None] = lambda samples: None,
) -> dict[str, dict[str, float]]:
    """
    Score a network on every subset of its modalities; each is encoded only once.

    Samples that lack a modality count only for the subsets they have.

    :param progress: called with the number of samples done after each batch.
    :returns: subset name → head or `action` → top-1 accuracy, 0 to 1, the largest subset
        first; a subset that no sample has is left out.
    """
    return top1(collect(network, batches, device, progress))


def top1(predictions: DatasetPredictions) -> dict[str, dict[str, float]]:
    """Return subset name → head, and the action, → top-1 accuracy, 0 to 1, the largest first."""
    return {
        name: {key: float(hit.mean()) for key, hit in hits(predictions, subset).items()}
        for name, subset in predictions.subsets()
    }


def markdown(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Set the scores as a Markdown table in percent, one row a subset."""
    heads = list(next(iter(scores.values())))
    return markdown_table(['sensors', *heads], [
        [name, *(f'{100 * row[head]:.1f}' for head in heads)] for name, row in scores.items()])
