"""
Compare scores of unknown actions: which finds most of them at the same rate of false alarms.

`python benchmarks/unknown_actions.py` takes the test clips of the Synthetic Kitchen as known.
Unknown are clips of its garage, whose objects the model has never seen, and scenes without an
action: the first frame of a clip, its boxes, and silence. Thresholds are those of the validation
clips. It needs the rendered clips, which `--cache` keeps.

Shape legend: n clips, d width of the fused tokens, c classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from karmma_ros.calibration import Subset, unknown_score
from karmma_ros.clip import Clip
from karmma_ros.data.samples import Clips, Sample
from karmma_ros.data.synthetic_kitchen.dataset import CachedKitchen, write_split
from karmma_ros.data.synthetic_kitchen.vocabulary import Domain, Split
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.evaluation.temperature_scaling import FALSE_ALARM_RATE
from karmma_ros.modality import Modality, subset_name, subsets
from karmma_ros.model.bundle import Bundle, load_bundle
from karmma_ros.model.registry import find_model
from karmma_ros.prediction import softmax
from karmma_ros.training.loaders import scoring_loader
import numpy as np
from numpy.typing import NDArray
import torch

Floats = NDArray[np.float64]


class StillScenes:
    """The clips of a data set without movement, and with silent audio."""

    def __init__(self, clips: Clips) -> None:
        self._clips = clips

    def __len__(self) -> int:
        return len(self._clips)

    def __getitem__(self, index: int) -> Sample:
        sample = self._clips[index]
        x: dict[Modality, Any] = dict(sample.clip.inputs)
        x[Modality.RGB] = np.repeat(x[Modality.RGB][:, :1], x[Modality.RGB].shape[1], axis=1)
        x[Modality.FLOW] = np.zeros_like(x[Modality.FLOW])
        x[Modality.AUDIO] = np.full_like(x[Modality.AUDIO], x[Modality.AUDIO].min())
        boxes = x[Modality.DETECTIONS]
        x[Modality.DETECTIONS] = np.repeat(boxes[:1], len(boxes), axis=0)
        return replace(sample, clip=Clip(x))


class Outputs:
    """The logits and the fused tokens of clips, by subset."""

    def __init__(self, bundle: Bundle, clips: Any) -> None:
        fused: list[torch.Tensor] = []
        hook = bundle.network.fusion.register_forward_hook(
            lambda module, given, tokens: fused.append(tokens.mean(1)))
        self.logits: dict[Subset, dict[str, Floats]] = {}
        self.features: dict[Subset, Floats] = {}
        self.labels: dict[str, NDArray[np.int64]] = {}
        parts: list[tuple[Mapping[str, torch.Tensor], dict[Subset, Any], dict[Subset, Any]]] = []
        with torch.inference_mode():
            for batch in scoring_loader(clips, bundle.network.modalities, 32):
                tokens = bundle.network.encode_present(batch.inputs, batch.present)
                logits, features = {}, {}
                for subset in subsets(bundle.network.modalities):
                    logits[subset] = bundle.network.fuse({m: tokens[m] for m in subset})
                    features[subset] = fused.pop()
                parts.append((batch.labels, logits, features))
        hook.remove()
        for head in parts[0][0]:
            self.labels[head] = np.concatenate([labels[head] for labels, _, _ in parts])
        for subset in parts[0][1]:
            self.logits[subset] = {
                head: np.concatenate([logits[subset][head] for _, logits, _ in parts])
                for head in self.labels}
            self.features[subset] = np.concatenate([f[subset] for _, _, f in parts])


def mahalanobis(known: Outputs, subset: Subset) -> Callable[[Outputs], Floats]:
    """Return the squared distance to the nearest class of each head, summed (Lee et al. 2018)."""
    x = known.features[subset].astype(np.float64)
    means, precisions = {}, {}
    for head, ids in known.labels.items():
        means[head] = np.stack([x[ids == i].mean(0) for i in np.unique(ids)])
        rest = x - means[head][np.searchsorted(np.unique(ids), ids)]
        covariance = rest.T @ rest / len(x) + 1e-4 * np.eye(x.shape[1])
        precisions[head] = np.linalg.inv(covariance)

    def distance(outputs: Outputs) -> Floats:
        total = np.zeros(len(outputs.features[subset]))
        for head, centres in means.items():
            gaps = outputs.features[subset][:, None] - centres  # [n, c, d]
            total += np.einsum('ncd,de,nce->nc', gaps, precisions[head], gaps).min(1)
        return total
    return distance


def scores(known: Outputs, subset: Subset) -> dict[str, Callable[[Outputs], Floats]]:
    """Return each score by name."""
    return {
        'energy': lambda o: unknown_score(o.logits[subset]),
        'maximum logit': lambda o: -np.sum([x.max(1) for x in o.logits[subset].values()], axis=0),
        'maximum softmax': lambda o: -np.prod(
            [softmax(x).max(1) for x in o.logits[subset].values()], axis=0),
        'Mahalanobis': mahalanobis(known, subset)}


def auroc(known: Floats, unknown: Floats) -> float:
    """Return the probability that an unknown clip has a higher score than a known one."""
    order = np.argsort(np.concatenate([known, unknown]), kind='stable')
    ranks = np.empty(len(order))
    ranks[order] = np.arange(1, len(order) + 1)
    count = len(unknown)
    return float((ranks[len(known):].sum() - count * (count + 1) / 2) / (count * len(known)))


def main() -> None:
    """Print a table for each kind of unknown clips."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n\n')[0])
    parser.add_argument('--model', default='synthetic_kitchen')
    parser.add_argument('--cache', type=Path, default=Path('.cache') / 'synthetic_kitchen')
    parser.add_argument('--counts', type=int, nargs=3, default=(800, 1600, 320),
                        help='clips of validation, of the test and of the garage')
    options = parser.parse_args()
    bundle = load_bundle(find_model(options.model))
    clips = [CachedKitchen(write_split(
        options.cache / f'{prefix}{split}_{count}_0', split, count, 0, bundle.spec, domain=domain))
        for (prefix, split, domain), count in zip((
            ('', Split.VALIDATION, Domain.KITCHEN), ('', Split.TEST, Domain.KITCHEN),
            ('garage_', Split.TEST, Domain.GARAGE)), options.counts)]
    validation, test, garage = (Outputs(bundle, each) for each in clips)
    still = Outputs(bundle, StillScenes(clips[0]))
    for title, unknown in (('garage', garage), ('still scenes', still)):
        rows = []
        for subset in subsets(bundle.network.modalities):
            cells = []
            for score in scores(validation, subset).values():
                threshold = np.quantile(score(validation), 1 - FALSE_ALARM_RATE)
                cells += [f'{100 * auroc(score(test), score(unknown)):.1f}',
                          f'{100 * (score(unknown) > threshold).mean():.0f}',
                          f'{100 * (score(test) > threshold).mean():.1f}']
            rows.append([subset_name(subset), *cells])
        names = list(scores(validation, subsets(bundle.network.modalities)[0]))
        print(f'## {title}: area under the ROC curve, found, false alarms, %\n')
        print(markdown_table(['sensors', *(f'{name} {what}' for name in names
                                           for what in ('AUROC', 'found', 'alarms'))], rows))


if __name__ == '__main__':
    main()
