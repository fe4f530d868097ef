"""
Compare scores of unknown actions: which finds most of them at the same rate of false alarms.

`python benchmarks/unknown_actions.py` takes the test clips of the Synthetic Kitchen as known.
Unknown are clips of its garage, whose objects the model has never seen, and scenes without an
action: the first frame of a clip, its boxes, and silence. Thresholds are those of the validation
clips. It needs the rendered clips, which `--cache` keeps.

With `--left-out DRAWS` it trains networks from nothing instead, each without two verbs and two
nouns that are drawn, and takes the test clips with any of them for unknown. With `--bases DIR …`
it takes models that know a part of the classes, as those of `benchmarks/unseen_classes.py`, and
the test clips with any other class for unknown.

Shape legend: n clips, d width of the fused tokens, c classes.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from karmma_ros.calibration import Subset, unknown_score
from karmma_ros.clip import Clip
from karmma_ros.data.samples import Clips, Sample, Splits
from karmma_ros.data.synthetic_kitchen.dataset import (
    CachedKitchen,
    KitchenSettings,
    open_splits,
    write_split,
)
from karmma_ros.data.synthetic_kitchen.vocabulary import Domain, IDLE, Split
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.evaluation.temperature_scaling import FALSE_ALARM_RATE
from karmma_ros.modality import Modality, subset_name, subsets
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import preset
from karmma_ros.model.registry import find_model
from karmma_ros.prediction import softmax, Vocabulary
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.module import OptimizerSettings
from karmma_ros.training.run import RunSettings, train
import numpy as np
from numpy.typing import NDArray
import torch

Floats = NDArray[np.float64]
ROOT = Path(__file__).resolve().parents[1]


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


class ChosenClips:
    """Some clips of a data set, with classes numbered anew."""

    def __init__(
        self, clips: CachedKitchen, ids: Mapping[str, Sequence[int]], known: bool,
    ) -> None:
        """
        Choose clips.

        :param ids: head → class ids that are kept, in the order of their new numbers.
        :param known: take the clips whose classes are kept; false: the others, with class 0.
        """
        self.spec = clips.spec
        self._clips, self._ids, self._known = clips, {h: list(i) for h, i in ids.items()}, known
        self._indices = [
            index for index in range(len(clips)) if known is all(
                label in self._ids[head] for head, label in clips.labels(index).items())]

    def __len__(self) -> int:
        return len(self._indices)

    def __getitem__(self, index: int) -> Sample:
        sample = self._clips[self._indices[index]]
        return replace(sample, labels={
            head: self._ids[head].index(label) if self._known else 0
            for head, label in sample.labels.items()})

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return the clip, which has one window only."""
        return self[index]

    def computed(self, index: int) -> frozenset[Modality]:
        """Return what is computed from another modality."""
        return self._clips.computed(index)


class Outputs:
    """The logits and the fused tokens of clips, by subset."""

    def __init__(self, network: Karmma, clips: Any) -> None:
        fused: list[torch.Tensor] = []
        hook = network.fusion.register_forward_hook(
            lambda module, given, tokens: fused.append(tokens.mean(1)))
        self.logits: dict[Subset, dict[str, Floats]] = {}
        self.features: dict[Subset, Floats] = {}
        self.labels: dict[str, NDArray[np.int64]] = {}
        parts: list[tuple[Mapping[str, torch.Tensor], dict[Subset, Any], dict[Subset, Any]]] = []
        with torch.inference_mode():
            for batch in scoring_loader(clips, network.modalities, 32):
                tokens = network.encode_present(batch.inputs, batch.present)
                logits, features = {}, {}
                for subset in subsets(network.modalities):
                    logits[subset] = network.fuse({m: tokens[m] for m in subset})
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


Table = dict[Subset, dict[str, tuple[float, float, float]]]
"""Subset → score → area under the ROC curve, fraction that is detected, false alarms."""


def compared(network: Karmma, validation: Outputs, test: Outputs, unknown: Outputs) -> Table:
    """Return the figures of every score, with the thresholds of the validation clips."""
    table: Table = {}
    for subset in subsets(network.modalities):
        table[subset] = {}
        for name, score in scores(validation, subset).items():
            threshold = np.quantile(score(validation), 1 - FALSE_ALARM_RATE)
            table[subset][name] = (
                auroc(score(test), score(unknown)), float((score(unknown) > threshold).mean()),
                float((score(test) > threshold).mean()))
    return table


def show(title: str, tables: Sequence[Table]) -> None:
    """Print the mean of several draws, and the mean of all subsets."""
    names = list(next(iter(tables[0].values())))
    means = {subset: np.mean([[t[subset][name] for name in names] for t in tables], axis=0)
             for subset in tables[0]}
    rows = [[subset_name(subset), *(f'{100 * x:.1f}' for x in figures.ravel())]
            for subset, figures in means.items()]
    rows.append(['mean', *(f'{100 * x:.1f}' for x in np.mean([*means.values()], axis=0).ravel())])
    print(f'## {title}: area under the ROC curve, detected, false alarms, %\n')
    print(markdown_table(['sensors', *(f'{name} {what}' for name in names
                                       for what in ('AUROC', 'detected', 'alarms'))], rows))


def train_without(
    splits: Splits, draw: int, epochs: int, precision: str, work: Path,
) -> Table:
    """Train a network without two verbs and two nouns; return its figures."""
    rng = np.random.default_rng(draw)
    ids, names = {}, {}
    for head, classes in splits.vocabulary.heads.items():
        real = [i for i, name in enumerate(classes) if name != IDLE]
        left_out = set(rng.choice(real, 2, replace=False).tolist())
        ids[head] = [i for i in range(len(classes)) if i not in left_out]
        names[head] = tuple(classes[i] for i in ids[head])
        print(f'draw {draw}: without', ', '.join(classes[i] for i in sorted(left_out)), flush=True)
    clips = {name: cast(CachedKitchen, getattr(splits, name))
             for name in ('train', 'validation', 'test')}
    parts = {name: ChosenClips(each, ids, known=True) for name, each in clips.items()}
    torch.manual_seed(draw)
    network = build(preset('tiny'), splits.spec, Vocabulary(names))
    train(network, parts['train'], parts['validation'], RunSettings(
        epochs=epochs, batch_size=32, seed=draw, precision=precision, progress=False,
        optimizer=OptimizerSettings(
            learning_rate=2e-3, weight_decay=0.05, gradient_clip=2.0, modality_dropout=0.5,
            unimodal_weight=0.3)), work / f'left_out_{draw}')
    return of_known_classes(f'draw {draw}', network, splits, ids)


def of_known_classes(
    name: str, network: Karmma, splits: Splits, ids: Mapping[str, Sequence[int]],
) -> Table:
    """Return the figures of a network that knows some of the classes."""
    clips = {part: cast(CachedKitchen, getattr(splits, part)) for part in ('validation', 'test')}
    validation, test = (Outputs(network, ChosenClips(each, ids, known=True))
                        for each in clips.values())
    everything = tuple(network.modalities)
    hits = np.all([test.logits[everything][head].argmax(1) == labels
                   for head, labels in test.labels.items()], axis=0)
    print(f'{name}: {100 * hits.mean():.1f} % of {len(hits)} known test clips right', flush=True)
    unknown = Outputs(network, ChosenClips(clips['test'], ids, known=False))
    return compared(network, validation, test, unknown)


def of_base(path: Path, idle: float, cache: Path) -> Table:
    """Return the figures of a trained model that knows some of the classes."""
    bundle = load_bundle(path)
    splits = open_splits(KitchenSettings(train=1, idle=idle), bundle.spec, cache)
    ids = {head: [splits.vocabulary.heads[head].index(name) for name in names]
           for head, names in bundle.vocabulary.heads.items()}
    return of_known_classes(str(path), bundle.network, splits, ids)


def main() -> None:
    """Print a table for each kind of unknown clips."""
    parser = argparse.ArgumentParser(description=__doc__.strip().split('\n\n')[0])
    parser.add_argument('--model', default='synthetic_kitchen')
    parser.add_argument('--cache', type=Path, default=Path('.cache') / 'synthetic_kitchen')
    parser.add_argument('--counts', type=int, nargs=3, default=(800, 1600, 320),
                        help='clips of validation, of the test and of the garage')
    parser.add_argument('--idle', type=float, default=0.0,
                        help='fraction of the clips in which nothing is done, a known class')
    parser.add_argument('--left-out', type=int, metavar='DRAWS',
                        help='train this many networks without two verbs and two nouns instead')
    parser.add_argument('--bases', type=Path, nargs='+', metavar='DIR',
                        help='take these models, which know a part of the classes, instead')
    parser.add_argument('--epochs', type=int, default=32, help='of these networks')
    parser.add_argument('--precision', default='bf16-mixed', help='of these networks')
    parser.add_argument('--work', type=Path, default=ROOT / 'build' / 'unknown_actions',
                        help='folder for the checkpoints of these networks')
    options = parser.parse_args()
    if options.bases:
        show('models of a part of the classes', [
            of_base(path, options.idle, options.cache) for path in options.bases])
        return
    bundle = load_bundle(find_model(options.model))
    if options.left_out:
        splits = open_splits(KitchenSettings(idle=options.idle), bundle.spec, options.cache)
        show(f'{options.left_out} draws of two verbs and two nouns', [
            train_without(splits, draw, options.epochs, options.precision, options.work)
            for draw in range(options.left_out)])
        return
    network = bundle.network
    kitchen = f'idle{options.idle:g}_' if options.idle else ''
    clips = [CachedKitchen(write_split(
        options.cache / f'{prefix}{split}_{count}_0', split, count, 0, bundle.spec, domain=domain,
        idle=idle))
        for (prefix, split, domain, idle), count in zip((
            (kitchen, Split.VALIDATION, Domain.KITCHEN, options.idle),
            (kitchen, Split.TEST, Domain.KITCHEN, options.idle),
            ('garage_', Split.TEST, Domain.GARAGE, 0.0)), options.counts)]
    validation, test, garage = (Outputs(network, each) for each in clips)
    still = Outputs(network, StillScenes(clips[0]))
    for title, unknown in (('garage', garage), ('still scenes', still)):
        show(title, [compared(network, validation, test, unknown)])


if __name__ == '__main__':
    main()
