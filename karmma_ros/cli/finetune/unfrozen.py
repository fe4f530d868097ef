"""Train more than the heads of a fine-tuning: the fusion block, or the encoders too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

from karmma_ros.cli.finetune.base_model import load_below_heads
from karmma_ros.cli.finetune.head_choice import (
    action_hits,
    as_predictions,
    FittedHeads,
)
from karmma_ros.cli.finetune.labelled_bags import LabelledBags
from karmma_ros.cli.options import open_model
from karmma_ros.cli.progress import Bars
from karmma_ros.clip import ClipSpec
from karmma_ros.data.folds import TRAIN, VALIDATION
from karmma_ros.data.samples import Clips, Sample
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.inference import collect
from karmma_ros.evaluation.predictions import DatasetPredictions
from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, main_subsets, Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import only, preset
from karmma_ros.storage import fingerprint
from karmma_ros.training.added_classes import statistics_of
from karmma_ros.training.checkpoints import TrainingStopped
from karmma_ros.training.fused_features import FusedFeatures
from karmma_ros.training.head_training import class_sums, Ids, new_heads, predict
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.module import OptimizerSettings
from karmma_ros.training.precomputed import (
    FeatureCache,
    Inference,
    network_on_tokens,
    TeacherLogitCache,
)
from karmma_ros.training.run import RunSettings, train
from karmma_ros.training.teacher import check_teacher, Teacher
import numpy as np
import torch
import yaml

FUSION, ALL = 'fusion', 'all'
_LEARNING_RATE = {FUSION: 1e-3, ALL: 3e-4}


@dataclass(frozen=True)
class UnfreezeSettings:
    """What is trained besides the heads, and how long."""

    part: str
    """`fusion` or `all`."""
    epochs: int = 20
    """Passes over all windows."""
    seed: int = 0
    teacher: str = ''
    """Model to distil from; empty: none."""
    device: str = 'cpu'
    workers: int = 0
    openvino: bool = False
    """Whether OpenVINO computes frozen encoders."""

    def __post_init__(self) -> None:
        if self.part not in (FUSION, ALL):
            raise InvalidSettingError('--unfreeze', self.part, f'{FUSION} or {ALL}')
        if self.epochs < 1:
            raise InvalidSettingError('--epochs', self.epochs, 'a number above 0')


def parse_added(words: Sequence[str]) -> dict[Modality, dict[str, Any]]:
    """
    Parse `imu` and `skeleton={joints: 20}` to modality → fields of its specification.

    :raises InvalidSettingError: for anything else.
    """
    added = {}
    for word in words:
        name, _, text = word.partition('=')
        try:
            fields = yaml.safe_load(text) if text else {}
        except yaml.YAMLError:
            fields = None
        if not isinstance(fields, dict):
            raise InvalidSettingError('--add-modalities', word, 'a modality, or with its settings '
                                      'as "skeleton={joints: 20, dimensions: 3}"')
        added[Modality.parse(name)] = fields
    return {m: added[m] for m in in_order(added)}


def with_added_modalities(
    base: Bundle, settings: Mapping[Modality, Mapping[str, Any]]
) -> Bundle:
    """
    Return the base with further modalities, whose encoders start from nothing.

    :param settings: modality → fields of its specification.
    :raises InvalidSettingError: for a modality that the base has, or no encoder is known for.
    """
    added = in_order(settings)
    known = [m for m in added if m in base.network.modalities]
    if known:
        raise InvalidSettingError('--add-modalities', known[0].value, 'one that the model lacks',
                                  f'it takes {", ".join(base.network.modalities)}')
    spec = base.spec
    for m in added:
        own = modality_type(m)
        if m not in spec.inputs and (m.suffix or not own.spec_field):
            spec = replace(spec, inputs={**spec.inputs, m: own.spec(spec)})
        if settings[m]:
            fields = spec.to_dict()
            inputs = fields.get('inputs', {})
            spec = ClipSpec.from_dict({**fields, 'inputs': {
                **inputs, m.value: {**inputs.get(m.value, {}), **settings[m]}}})
    small = preset('tiny')  # whose encoders learn from little data
    config = replace(only(
        replace(base.config, preset='tiny', encoders={**small.encoders, **base.config.encoders}),
        [*base.config.modalities, *added]), preset=base.config.preset)
    torch.manual_seed(0)
    network = build(config, spec, base.vocabulary)
    load_below_heads(network, base.network)
    return replace(base, network=network.eval(), config=config, spec=spec)


class SegmentWindows:
    """Windows of some segments, each a labelled sample: a `Clips`."""

    def __init__(self, labelled: LabelledBags, segments: Ids) -> None:
        first, rows = 0, []
        wanted = set(segments.tolist())
        for i, (recording, clips) in enumerate(zip(labelled.recordings, labelled.clips)):
            rows += [(i, row, first + n) for row, n in enumerate(clips.segments.tolist())
                     if first + n in wanted]
            first += len(recording.labels)
        self._clips, self._rows, self._ids = labelled.clips, rows, labelled.ids
        self.segments = np.array([segment for _, _, segment in rows], np.int64)
        """Segment of each window."""

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Sample:
        """Return a window."""
        recording, row, segment = self._rows[index]
        labels = {head: int(ids[segment]) for head, ids in self._ids.items()}
        return Sample(self._clips[recording][row].clip, labels, index)

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return the same in every epoch."""
        return self[index]


@dataclass(frozen=True)
class ChosenRows:
    """Some samples of a data set, which keep their indices: a `Clips`."""

    clips: Clips
    rows: Sequence[int]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> Sample:
        """Return a sample."""
        return self.clips[self.rows[index]]

    def training_sample(self, index: int, epoch: int) -> Sample:
        """Return the same in every epoch."""
        return self[index]


@dataclass(frozen=True)
class _Part:
    """A training: segments that it is on, and those that validate it."""

    name: str
    training: Ids
    validation: Ids


def _parts(labelled: LabelledBags, part: str) -> list[_Part]:
    """
    Return the trainings; the last one is the model's.

    Without a validation split the fusion block is validated by the folds, each of which takes
    seconds, and then trained on all; of all weights the first fold alone validates, for each
    would take as long as the training.
    """
    division = labelled.division
    training, validation = division.rows(TRAIN), division.rows(VALIDATION)
    if len(validation):
        return [_Part('run', training, validation)]
    folds = division.folds[training]
    own = [_Part(f'fold_{fold + 1}', training[folds != fold], training[folds == fold])
           for fold in np.unique(folds).tolist()]
    if part == ALL:
        return [replace(own[0], name='run')]
    return [*own, _Part('run', training, training[:0])]


@dataclass
class Unfrozen:
    """A network of which more than the heads was trained, and its validation."""

    network: Karmma
    stopped: bool = False
    validated: Ids = field(default_factory=lambda: np.zeros(0, np.int64))
    """Segments that networks trained without them predicted; none where the network itself has
    segments that validate it."""
    predictions: list[DatasetPredictions] = field(default_factory=list)
    """Of these segments, for each fold."""


@dataclass(frozen=True)
class _Training:
    """What all trainings of a fine-tuning share."""

    base: Bundle
    labelled: LabelledBags
    settings: UnfreezeSettings
    folder: Path
    clips: Clips
    """Windows, or their tokens where the encoders stay frozen."""
    segments: Ids
    """Segment of each of them."""
    teacher: Teacher | None

    def rows(self, segments: Ids, middle: bool = False) -> ChosenRows:
        """Return the windows of segments, or the middle one of each."""
        own = [np.flatnonzero(self.segments == n) for n in segments]
        chosen = [rows[len(rows) // 2:][:1] if middle else rows for rows in own]
        return ChosenRows(self.clips, np.concatenate([np.zeros(0, np.int64), *chosen]).tolist())

    def run(self, part: _Part, network: Karmma) -> None:
        """Train a network in place."""
        only, chosen = self.settings.part, self.settings
        training = self.rows(part.training)
        # Without validation segments nothing chooses an epoch: that they exist is all that counts.
        validation = self.rows(part.validation if len(part.validation) else part.training, True)
        fixed = part.name != 'run' or not len(part.validation)
        optimizer = OptimizerSettings(
            learning_rate=_LEARNING_RATE[only], weight_decay=0.05, label_smoothing=0.1,
            augmentation=0.0 if only == FUSION else 1.0)
        run = RunSettings(
            epochs=chosen.epochs, batch_size=min(32, len(training)), seed=chosen.seed,
            workers=chosen.workers if only == ALL else 0, device=chosen.device,
            keep='last' if fixed else 'best', validate_every=chosen.epochs if fixed else 1,
            progress=part.name == 'run', optimizer=optimizer)
        train(network, training, validation, run, self.folder / part.name, self.teacher)

    def predict(self, part: _Part, network: Karmma) -> DatasetPredictions:
        """Predict the middle windows of the segments that validate."""
        loader = scoring_loader(self.rows(part.validation, True), network.modalities, 32)
        return collect(network, loader, chosen=main_subsets(network.modalities))


def train_unfrozen(
    base: Bundle, labelled: LabelledBags, settings: UnfreezeSettings, cache: Path, bars: Bars,
) -> Unfrozen:
    """
    Train the network of a base with new heads.

    Its weights are those of the best epoch on validation, or of the last one where folds
    validate. A stopped training resumes.

    :raises InvalidSettingError: for a teacher of other classes, clips or sensors.
    """
    parts = _parts(labelled, settings.part)
    network = _with_new_heads(base, labelled, settings)
    training, trained = _prepare(base, labelled, settings, parts, network, cache, bars)
    bars.stop()  # Lightning has its own
    result, start = Unfrozen(network), deepcopy(network.state_dict())
    try:
        for number, part in enumerate(parts, 1):
            if part.name != 'run':
                print(f'fold {number} of {len(parts) - 1}', flush=True)
            network.load_state_dict(start)
            if not len(training.rows(part.training)):
                continue  # of a fold whose other segments have no window
            training.run(part, trained)
            if part.name != 'run':
                own = training.rows(part.validation, True).rows
                result.validated = np.concatenate([result.validated, training.segments[own]])
                result.predictions.append(training.predict(part, trained))
    except TrainingStopped as stop:
        if part.name != 'run':
            raise KeyboardInterrupt from stop
        print(f'karmma finetune: {stop}')
        result.stopped = True
    network.cpu().eval()
    return result


def _prepare(
    base: Bundle, labelled: LabelledBags, settings: UnfreezeSettings, parts: Sequence[_Part],
    network: Karmma, cache: Path, bars: Bars,
) -> tuple[_Training, Karmma]:
    """Compute tokens and logits of the teacher; return them with the network to train."""
    last = parts[-1]
    windows = SegmentWindows(labelled, np.concatenate([last.training, last.validation]))
    facts = {'base': base.sha256, 'architecture': base.config.to_dict(),
             'settings': [settings.part, settings.epochs, settings.seed, settings.teacher],
             'clips': [each.folder.name for each in labelled.recordings],
             'ids': {head: ids.tolist() for head, ids in labelled.ids.items()},
             'splits': [[part.training.tolist(), part.validation.tolist()] for part in parts]}
    folder = cache / 'finetune' / fingerprint(facts)
    inference = Inference(16, settings.workers, settings.device)
    teacher = _teacher(network, labelled, base, settings, windows, folder, bars)
    if settings.part == ALL:
        return _Training(base, labelled, settings, folder, windows, windows.segments,
                         teacher), network
    tokens = FeatureCache.build(
        folder / 'tokens', network, windows, fingerprint(facts),
        replace(inference, openvino=settings.openvino, progress=partial(bars, 'tokens')))
    return _Training(base, labelled, settings, folder, tokens, windows.segments,
                     teacher), network_on_tokens(network.cpu(), tokens)


def _with_new_heads(
    base: Bundle, labelled: LabelledBags, settings: UnfreezeSettings
) -> Karmma:
    config = replace(base.config, freeze_encoders=settings.part == FUSION)
    network = build(config, base.spec, labelled.vocabulary)
    own = network.state_dict()
    network.load_state_dict({**own, **{
        name: x for name, x in base.network.state_dict().items()
        if not name.startswith('heads.')}})
    assert isinstance(base.network.heads, MultiHeadMLP)
    network.heads = new_heads(base.network.heads, labelled.vocabulary.sizes, settings.seed)
    return network


def _teacher(
    network: Karmma, labelled: LabelledBags, base: Bundle, settings: UnfreezeSettings,
    windows: Clips, folder: Path, bars: Bars,
) -> Teacher | None:
    if not settings.teacher:
        return None
    bundle = open_model(settings.teacher, '--teacher')
    check_teacher(bundle, network, base.spec, labelled.vocabulary)
    return TeacherLogitCache.build(
        folder / 'logits', bundle.network, windows, folder.name,
        Inference(16, settings.workers, settings.device,
                  partial(bars, "the teacher's logits")))


def fitted_of(
    unfrozen: Unfrozen, features: FusedFeatures, labelled: LabelledBags, frozen: FittedHeads,
    settings: UnfreezeSettings,
) -> FittedHeads:
    """
    Return the heads of a trained network with their validation.

    :param frozen: what was reached over the frozen base, for comparison.
    """
    heads = unfrozen.network.heads
    assert isinstance(heads, MultiHeadMLP)
    last = _parts(labelled, settings.part)[-1]
    training, validation = (segments[[len(features.rows_of(n)) > 0 for n in segments]]
                            for segments in (last.training, last.validation))
    method = 'heads and fusion block' if settings.part == FUSION else 'all weights'
    fitted = FittedHeads(heads, method, statistics=statistics_of(class_sums(
        heads, features, training, labelled.ids)))
    if unfrozen.predictions:
        fitted.validated = unfrozen.validated
        fitted.validation = DatasetPredictions.concatenate(unfrozen.predictions)
    elif len(validation):
        fitted.validated = validation
        fitted.validation = as_predictions(
            features, labelled, validation, predict(heads, features, validation))
    if fitted.validation is not None:
        fitted.notes.append(_comparison(method, fitted, frozen))
    return fitted


def _comparison(method: str, fitted: FittedHeads, frozen: FittedHeads) -> str:
    assert fitted.validation is not None
    own, known = float(action_hits(fitted.validation).mean()), set(fitted.validated.tolist())
    kept = [i for i, n in enumerate(frozen.validated) if n in known]
    before = (float(action_hits(frozen.validation)[kept].mean())
              if frozen.validation is not None and kept else float('nan'))
    return (f'{method} trained: action accuracy {100 * own:.1f} % on {len(fitted.validated)} '
            f'validation segments, {100 * before:.1f} % with frozen encoders and fusion block'
            + ('; leave --unfreeze out' if before > own else ''))
