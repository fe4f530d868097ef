"""
Compare two defences against corrupted sensors: a learned gate, and training on corruptions.

`python benchmarks/informativeness_gate.py MODEL …` fits a gate for each model and scores the model
without and with it. A gate is a logistic regression for each modality, on the mean of its
encoder's tokens: whether the true class is more probable with the modality than without it. It is
fitted to validation clips, half of them corrupted, and scored on test clips; a modality that it
rejects is left out.

Shape legend: b batch, n tokens, d width, m modalities.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from karmma_ros.data.samples import Clips
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings, open_splits
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.modality import Modality
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.registry import find_model
from karmma_ros.training.input_corruption import InputCorruption
from karmma_ros.training.loaders import scoring_loader
import torch
from torch import nn, Tensor

Gates = Mapping[Modality, nn.Linear]


@dataclass(frozen=True)
class Encoded:
    """The tokens of a batch of which one modality may be corrupted."""

    tokens: Mapping[Modality, Tensor]
    """Modality → `[b, n, d]`."""
    labels: Mapping[str, Tensor]
    corrupted: Mapping[Modality, Tensor]
    """Modality → bool `[b]`."""

    def features(self, modality: Modality) -> Tensor:
        """Return the mean token of each clip, `[b, d]`."""
        return self.tokens[modality].mean(1)


def batches(
    network: Karmma, clips: Clips, limit: int, probability: float, seed: int,
) -> Iterator[Encoded]:
    """Encode the first clips of a split, each with one corrupted modality by a probability."""
    corruption = InputCorruption.of_clips(probability, seed, clips)
    for step, batch in enumerate(scoring_loader(clips, network.modalities, 32)):
        if step * 32 >= limit:
            return
        present = {m: batch.present[:, i] for i, m in enumerate(network.modalities)}
        inputs = batch.inputs if corruption is None else corruption(
            batch.inputs, present, step, range(len(batch.present)))
        yield Encoded(
            network.encode_present(inputs, batch.present), batch.labels,
            {m: (inputs[m] != batch.inputs[m]).flatten(1).any(1) for m in network.modalities})


def log_probability(network: Karmma, encoded: Encoded, left_out: Tensor | None = None) -> Tensor:
    """
    Return the log-probability of the true action, `[b]`.

    :param left_out: bool `[b, m]`.
    """
    output = fused(network, encoded, left_out)
    return torch.stack([
        logits.log_softmax(1).gather(1, encoded.labels[head][:, None])[:, 0]
        for head, logits in output.items()]).sum(0)


def fused(network: Karmma, encoded: Encoded, left_out: Tensor | None) -> Mapping[str, Tensor]:
    """Return head → logits, with some modalities left out of each clip."""
    if left_out is None or not left_out.any():
        return network.fuse(encoded.tokens)
    rows: dict[str, list[Tensor]] = {}
    for row, without in enumerate(left_out):
        tokens = {m: encoded.tokens[m][row:row + 1] for m, out in zip(network.modalities, without)
                  if not out}
        for head, logits in network.fuse(tokens).items():
            rows.setdefault(head, []).append(logits)
    return {head: torch.cat(each) for head, each in rows.items()}


def fit(network: Karmma, clips: Clips, limit: int) -> Gates:
    """Fit a gate for each modality."""
    features: dict[Modality, list[Tensor]] = {m: [] for m in network.modalities}
    helps: dict[Modality, list[Tensor]] = {m: [] for m in network.modalities}
    for encoded in batches(network, clips, limit, 0.5, seed=1):
        complete = log_probability(network, encoded)
        for i, modality in enumerate(network.modalities):
            left_out = torch.zeros(len(complete), len(network.modalities), dtype=torch.bool)
            left_out[:, i] = True
            features[modality].append(encoded.features(modality))
            helps[modality].append(complete >= log_probability(network, encoded, left_out))
    return {m: _regression(torch.cat(features[m]), torch.cat(helps[m]).float())
            for m in network.modalities}


def _regression(x: Tensor, y: Tensor) -> nn.Linear:
    """Return a logistic regression with a small penalty."""
    with torch.inference_mode(False), torch.enable_grad():
        x, y = x.clone(), y.clone()
        gate = nn.Linear(x.shape[1], 1)
        optimizer = torch.optim.LBFGS(gate.parameters(), max_iter=200)

        def closure() -> Tensor:
            optimizer.zero_grad()
            loss = nn.functional.binary_cross_entropy_with_logits(gate(x)[:, 0], y)
            loss = loss + 1e-3 * gate.weight.square().sum()
            loss.backward()
            return loss
        optimizer.step(closure)
    return gate


def rejected(network: Karmma, gates: Gates, encoded: Encoded) -> Tensor:
    """Return what the gates leave out, bool `[b, m]`; the best modality always remains."""
    scores = torch.stack([gates[m](encoded.features(m))[:, 0] for m in network.modalities], 1)
    out = scores < 0
    out[torch.arange(len(out)), scores.argmax(1)] = False
    return out


def right(output: Mapping[str, Tensor], labels: Mapping[str, Tensor]) -> Tensor:
    """Return where every head is right, bool `[b]`."""
    return torch.stack([x.argmax(1) == labels[head] for head, x in output.items()]).all(0)


def scored(network: Karmma, gates: Gates, clips: Clips, limit: int, probability: float
           ) -> tuple[float, float, float]:
    """Return the accuracy without and with the gates, and the fraction that they reject."""
    plain, gated, out = [], [], []
    for encoded in batches(network, clips, limit, probability, seed=2):
        left_out = rejected(network, gates, encoded)
        plain.append(right(fused(network, encoded, None), encoded.labels))
        gated.append(right(fused(network, encoded, left_out), encoded.labels))
        out.append(left_out.any(1))
    accuracy, with_gates, fraction = (
        float(torch.cat(each).float().mean()) for each in (plain, gated, out))
    return accuracy, with_gates, fraction


def main() -> None:
    """Print a table: models, corrupted or not, without and with a gate."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n\n')[0])
    parser.add_argument('models', nargs='+')
    parser.add_argument('--cache', type=Path, default=Path('.cache') / 'synthetic_kitchen')
    parser.add_argument('--idle', type=float, default=0.1)
    parser.add_argument('--limit', type=int, default=800, help='clips of each split')
    options = parser.parse_args()
    rows: list[Sequence[str]] = []
    with torch.inference_mode():
        for name in options.models:
            bundle = load_bundle(find_model(name))
            splits = open_splits(
                replace(KitchenSettings(), idle=options.idle), bundle.spec, options.cache)
            gates = fit(bundle.network, splits.validation, options.limit)
            for title, probability in (('as recorded', 0.0), ('one sensor corrupted', 1.0)):
                figures = scored(bundle.network, gates, splits.test, options.limit, probability)
                rows.append([bundle.model_id, title, *(f'{100 * x:.1f}' for x in figures)])
    print(markdown_table(['model', 'test clips', 'accuracy', 'with gate', 'rejected'], rows, 2))


if __name__ == '__main__':
    main()
