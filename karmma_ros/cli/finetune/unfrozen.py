"""Train more than the heads of a fine-tuning: the fusion block, or the encoders too."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from karmma_ros.cli.finetune.head_choice import (
    action_hits,
    as_predictions,
    FittedHeads,
)
from karmma_ros.cli.finetune.labelled_bags import LabelledBags
from karmma_ros.cli.options import open_model
from karmma_ros.cli.progress import Bars
from karmma_ros.data.folds import TRAIN, VALIDATION
from karmma_ros.data.samples import Clips, Sample
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, Modality
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


def with_added_modalities(base: Bundle, names: Sequence[str]) -> Bundle:
    """
    Return the base with further modalities, whose encoders start from nothing.

    :raises InvalidSettingError: for a modality that the base has, or no encoder is known for.
    """
    added = in_order(map(Modality.parse, names))
    known = [m for m in added if m in base.network.modalities]
    if known:
        raise InvalidSettingError('--add-modalities', known[0].value, 'one that the model lacks',
                                  f'it takes {", ".join(base.network.modalities)}')
    spec = base.spec
    for m in added:
        own = modality_type(m)
        if m not in spec.inputs and (m.suffix or not own.spec_field):
            spec = replace(spec, inputs={**spec.inputs, m: own.spec(spec)})
    small = preset('tiny')  # whose encoders learn from little data
    config = replace(only(
        replace(base.config, preset='tiny', encoders={**small.encoders, **base.config.encoders}),
        [*base.config.modalities, *added]), preset=base.config.preset)
    torch.manual_seed(0)
    network = build(config, spec, base.vocabulary)
    network.load_state_dict({**network.state_dict(), **base.network.state_dict()})
    return replace(base, network=network.eval(), config=config, spec=spec)


class SegmentWindows:
    """Windows of some segments, each a labelled sample: a `Clips`."""

    def __init__(self, labelled: LabelledBags, segments: Ids, middle: bool) -> None:
        """
        Name the windows.

        :param middle: only the middle one of each segment.
        """
        first, rows = 0, []
        wanted = set(segments.tolist())
        for i, (recording, clips) in enumerate(zip(labelled.recordings, labelled.clips)):
            for n in range(len(recording.labels)):
                own = np.flatnonzero(clips.segments == n)
                if first + n in wanted:
                    rows += [(i, int(row), first + n)
                             for row in (own[len(own) // 2:][:1] if middle else own)]
            first += len(recording.labels)
        self._clips, self._rows, self._ids = labelled.clips, rows, labelled.ids

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


def held_out(labelled: LabelledBags) -> tuple[Ids, Ids]:
    """Return the segments that train, and those that validate: a split, or the first fold."""
    training, division = labelled.division.rows(TRAIN), labelled.division
    validation = division.rows(VALIDATION)
    if len(validation):
        return training, validation
    folds = division.folds[training]
    return training[folds != 0], training[folds == 0]


def train_unfrozen(
    base: Bundle, labelled: LabelledBags, settings: UnfreezeSettings, cache: Path, bars: Bars,
) -> tuple[Karmma, bool]:
    """
    Train the network of a base with new heads; return it, and whether it was stopped.

    The weights are those of the best epoch on validation. A stopped training resumes.

    :raises InvalidSettingError: for a teacher of other classes, clips or sensors.
    """
    training, validation = held_out(labelled)
    network = _with_new_heads(base, labelled, settings)
    windows = {'train': SegmentWindows(labelled, training, middle=False),
               'validation': SegmentWindows(labelled, validation, middle=True)}
    facts = {'base': base.sha256, 'settings': [settings.part, settings.epochs, settings.seed,
                                               settings.teacher],
             'clips': [each.folder.name for each in labelled.recordings],
             'ids': {head: ids.tolist() for head, ids in labelled.ids.items()},
             'splits': [training.tolist(), validation.tolist()]}
    folder = cache / 'finetune' / fingerprint(facts)
    inference = Inference(16, settings.workers, settings.device)
    teacher = _teacher(network, labelled, base, settings, windows['train'], folder, bars)
    clips: Mapping[str, Clips] = windows
    trained = network
    if settings.part == FUSION:
        inference = replace(inference, openvino=settings.openvino)
        tokens = {name: FeatureCache.build(
            folder / 'tokens' / name, network, each, fingerprint(facts),
            replace(inference, progress=partial(bars, f'tokens of {name}')))
            for name, each in windows.items()}
        trained, clips = network_on_tokens(network.cpu(), tokens['train']), tokens
    bars.stop()  # Lightning has its own
    optimizer = OptimizerSettings(
        learning_rate=_LEARNING_RATE[settings.part], weight_decay=0.05, label_smoothing=0.1,
        augmentation=0.0 if settings.part == FUSION else 1.0)
    run = RunSettings(
        epochs=settings.epochs, batch_size=min(32, len(clips['train'])), seed=settings.seed,
        workers=settings.workers if settings.part == ALL else 0, device=settings.device,
        optimizer=optimizer)
    try:
        train(trained, clips['train'], clips['validation'], run, folder / 'run', teacher)
    except TrainingStopped as stop:
        print(f'karmma finetune: {stop}')
        return network.cpu().eval(), True
    return network.cpu().eval(), False


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
    network: Karmma, features: FusedFeatures, labelled: LabelledBags, frozen: FittedHeads,
    settings: UnfreezeSettings,
) -> FittedHeads:
    """
    Return the heads of a trained network with their validation.

    :param frozen: what was reached over the frozen base, for comparison.
    """
    heads = network.heads
    assert isinstance(heads, MultiHeadMLP)
    training, validation = (segments[[len(features.rows_of(n)) > 0 for n in segments]]
                            for segments in held_out(labelled))
    method = 'heads and fusion block' if settings.part == FUSION else 'all weights'
    fitted = FittedHeads(heads, method, statistics=statistics_of(class_sums(
        heads, features, training, labelled.ids)))
    if len(validation):
        fitted.validated = validation
        fitted.validation = as_predictions(
            features, labelled, validation, predict(heads, features, validation))
        own = float(action_hits(fitted.validation).mean())
        kept = [i for i, n in enumerate(frozen.validated) if n in set(validation.tolist())]
        before = (float(action_hits(frozen.validation)[kept].mean())
                  if frozen.validation is not None and kept else float('nan'))
        fitted.notes.append(
            f'{method} trained: action accuracy {100 * own:.1f} % on {len(validation)} validation '
            f'segments, {100 * before:.1f} % with frozen encoders and fusion block'
            + ('; leave --unfreeze out' if before > own else ''))
    return fitted
