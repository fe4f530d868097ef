"""Accuracy for every subset of the modalities (the paper's Table I)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from karmma_ros.data.batch import Batch
from karmma_ros.modality import subset_name, subsets
from karmma_ros.model.karmma import Karmma
import torch
from torch import Tensor

ACTION = 'action'
"""The joint score: right only where every head's best class is."""


def correct(logits: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """
    Tell for each sample whether the best class is the true one.

    :param logits: head → `[b, classes]`.
    :param labels: head → `[b]`.
    :returns: bool `[b]` for each head and for the action, which needs all heads right.
    """
    hits = {head: scores.argmax(1) == labels[head] for head, scores in logits.items()}
    return {**hits, ACTION: torch.stack(list(hits.values())).all(0)}


@torch.inference_mode()
def score_subsets(
    network: Karmma,
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
    network.eval()
    columns = {m: i for i, m in enumerate(network.modalities)}
    rights: dict[str, dict[str, int]] = {}
    totals: dict[str, int] = {}
    for batch in batches:
        batch = batch.to(device)
        tokens = {m: network.encode(m, x) for m, x in batch.inputs.items()}
        for chosen in subsets(tokens):
            rows = batch.present[:, [columns[m] for m in chosen]].all(1)
            if not rows.any():
                continue
            logits = network.fuse({m: tokens[m][rows] for m in chosen})
            hits = correct(logits, {head: ids[rows] for head, ids in batch.labels.items()})
            name = subset_name(chosen)
            totals[name] = totals.get(name, 0) + int(rows.sum())
            tally = rights.setdefault(name, dict.fromkeys(hits, 0))
            for key, hit in hits.items():
                tally[key] += int(hit.sum())
        progress(len(batch))
    order = [subset_name(s) for s in subsets(network.modalities)]
    return {
        name: {key: hit / totals[name] for key, hit in rights[name].items()}
        for name in order if name in totals
    }


def markdown(scores: Mapping[str, Mapping[str, float]]) -> str:
    """Set the scores as a Markdown table in percent, one row a subset."""
    heads = list(next(iter(scores.values())))
    lines = [
        '| sensors | ' + ' | '.join(heads) + ' |',
        '|---|' + '---:|' * len(heads),
        *(
            f'| {name} | ' + ' | '.join(f'{100 * row[h]:.1f}' for h in heads) + ' |'
            for name, row in scores.items()
        ),
    ]
    return '\n'.join(lines) + '\n'
