"""The training step: cross-entropy and distillation under modality dropout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
import math
from typing import Any

from karmma_ros.data.samples import Batch
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.karmma import Karmma
from karmma_ros.training.augmentation import augment
from karmma_ros.training.input_corruption import InputCorruption
from karmma_ros.training.loaders import processes
from karmma_ros.training.losses import classification_loss, distillation_loss
from karmma_ros.training.modality_dropout import drop_modalities, StepRandom
from karmma_ros.training.teacher import Teacher
import lightning
import numpy as np
import torch
from torch import nn, Tensor


def warmup_cosine(step: int, total: int, warmup: int, floor: float = 0.01) -> float:
    """
    Return the factor of the peak learning rate: linear warm-up, then cosine decay.

    With 100 steps, a warm-up of 10 and a floor of 0.01 it is 0.01 at step 0, 1 at step 10 and
    0.01 again at step 99.

    :param step: from 0 to `total` - 1.
    :param warmup: steps of the rise from `floor` to 1.
    :param floor: factor at the first step and at the last.
    """
    if step < warmup:
        return floor + (1 - floor) * step / warmup
    progress = min(1.0, (step - warmup) / max(1, total - 1 - warmup))
    return floor + (1 - floor) * (1 + math.cos(math.pi * progress)) / 2


@dataclass(frozen=True)
class OptimizerSettings:
    """Optimizer, regularisation and weights of the losses."""

    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    encoder_lr_mult: float = 1.0
    """
    Learning rate of the encoders, as a multiple of `learning_rate`. Paper: none is given. Below 1,
    such as 0.1, encoders that are pretrained on few clips keep more of what they know while the
    fusion block is trained.
    """
    weight_decay: float = 0.01
    """Paper: 0.01 for the student, 0.05 for the teacher."""
    gradient_clip: float = 2.0
    """Gradients are scaled to this norm at most. Paper: 2.0 for the student, 1.0 for the
    teacher."""
    warmup: float = 0.1
    """Fraction of all steps in which the learning rate rises. Paper: 10 of 100 epochs."""
    modality_dropout: float = 0.5
    """Probability of each modality to be dropped in training. Paper: 0.5."""
    unimodal_weight: float = 0.0
    """
    Weight of a further cross-entropy: that of each modality alone. Paper: none, for its encoders
    are pretrained. Encoders that start from random weights need it: otherwise the loss is soon
    small by the easiest modality alone, and the others learn little.
    """
    gamma: float = 0.7
    """With a teacher: weight of the cross-entropy; that of the distillation is 1 - gamma (Eq. 4).
    The paper's best row can only be 0.7."""
    label_smoothing: float = 0.0
    """Paper: none."""
    mixup: float = 0.0
    """Parameter of the Beta distribution from which the fraction of another sample in each sample
    is drawn (mixup, Zhang et al., ICLR 2018); 0.2 suits a few hundred samples. Paper: none."""
    augmentation: float = 1.0
    """Strength of the light augmentation, 0 (none) to 1."""
    corruption: float = 0.0
    """Probability of each sample to have one sensor corrupted, covered, noisy or hung, at any of
    five severities; the teacher sees the clean one. Paper: none."""

    def __post_init__(self) -> None:
        for name in ('warmup', 'modality_dropout', 'gamma', 'label_smoothing', 'augmentation',
                     'mixup', 'corruption'):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InvalidSettingError(f'optimizer.{name}', value, 'from 0 to 1')
        for name in ('learning_rate', 'gradient_clip', 'encoder_lr_mult'):
            if not 0 < getattr(self, name) < math.inf:
                raise InvalidSettingError(
                    f'optimizer.{name}', getattr(self, name), 'a number above 0')


@dataclass(frozen=True)
class Mixup:
    """Mixup of the samples of a batch (Zhang et al., ICLR 2018, Eq. 1)."""

    fraction: float
    """Of each sample itself, 0 to 1; the rest is its partner's."""
    partner: Tensor
    """Int64 `[b]`: index in the batch of each sample's partner."""

    def inputs(self, batch: Batch, modalities: Sequence[Modality]) -> Batch:
        """
        Return the batch with mixed inputs, where both samples have the modality.

        :param modalities: of the columns of `batch.present`.
        """
        mixed = {}
        for modality, x in batch.inputs.items():
            own = batch.present[:, modalities.index(modality)]
            both = (own & own[self.partner]).view(-1, *[1] * (x.ndim - 1))
            other = self.fraction * x + (1 - self.fraction) * x[self.partner]
            mixed[modality] = torch.where(both, other, x)
        return Batch(mixed, batch.present, batch.labels, batch.index)

    def logits(self, logits: Tensor) -> Tensor:
        """Return the logits `[b, c]` of the mixed probabilities."""
        p = logits.softmax(1)
        return (self.fraction * p + (1 - self.fraction) * p[self.partner]).clamp_min(1e-12).log()


class RecognitionModule(lightning.LightningModule):
    """
    Train a network on any mixture of modalities.

    All random numbers depend on the seed and the step alone, so a resumed run equals an
    uninterrupted one. Those of a sample also depend on its index in the step, so that dividing
    the step into batches and processes makes no difference.

    A sample that has none of the network's modalities is skipped. Modalities that the network
    does not take are never dropped from the teacher.

    :param accumulate_batches: batches of a step on each process.
    :param corruption: of the student's inputs; None: they stay clean.
    """

    def __init__(
        self, network: Karmma, optimizer: OptimizerSettings, seed: int = 0,
        teacher: Teacher | None = None, accumulate_batches: int = 1,
        corruption: InputCorruption | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.teacher = teacher
        self.optimizer = optimizer
        self.seed, self.accumulate_batches = seed, accumulate_batches
        self.corruption = corruption
        self.modalities = in_order({*network.modalities, *(teacher.reads if teacher else ())})

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Return the loss of one batch; student and teacher see the same modalities."""
        rand = self._rand(len(batch), batch_index)
        own = self._columns(self.network.modalities)
        present = batch.present.clone()
        usable = present[:, own].any(1)
        present[:, own] |= ~usable[:, None]  # numbers for every sample, also for skipped ones
        settings = self.optimizer
        present[:, own] = drop_modalities(present[:, own], settings.modality_dropout, rand)
        inputs = augment(batch.inputs, settings.augmentation, rand)
        batch = Batch(inputs, batch.present, batch.labels, batch.index)
        seen = [batch]
        """What the student sees, then what the teacher does where that is another."""
        if self.corruption is not None:
            seen.insert(0, self._corrupted(self.corruption, batch, present, batch_index))
        if not usable.all():
            seen, present = [each.rows(usable) for each in seen], present[usable]
        mix = self._mix(seen[0], batch_index)
        if mix is not None:
            seen = [mix.inputs(each, self.modalities) for each in seen]
        batch = seen[0]
        loss = self._loss(batch, present, mix, seen[-1]) if len(batch) else self._zero_loss()
        self.log('loss', loss, prog_bar=True, batch_size=max(1, len(batch)))
        return loss

    def _rand(self, count: int, batch_index: int) -> StepRandom:
        """Return the random numbers of this batch, and seed the global generator."""
        rank, world = processes()
        batches = self.accumulate_batches
        batch, seed = batch_index % batches, self.seed * 1_000_003 + self.global_step
        # The encoders' own dropout uses the global generator.
        torch.manual_seed((seed * batches + batch) * world + rank)
        return StepRandom(seed, count * batches * world, self._positions(count, batch_index))

    def _positions(self, count: int, batch_index: int) -> Tensor:
        """Return the index in the step of each sample of a batch."""
        rank, world = processes()
        batch = batch_index % self.accumulate_batches
        return torch.arange(count) * world + rank + batch * count * world

    def _corrupted(
        self, corruption: InputCorruption, batch: Batch, present: Tensor, batch_index: int,
    ) -> Batch:
        """
        Return the batch as the student sees it.

        :param present: bool `[b, m]`, the modalities that are left of each sample.
        """
        has = {m: (present & batch.present)[:, i]
               for m, i in zip(self.network.modalities, self._columns(self.network.modalities))}
        inputs = corruption(batch.inputs, has, self.global_step,
                            self._positions(len(batch), batch_index).tolist())
        return Batch(inputs, batch.present, batch.labels, batch.index)

    def _mix(self, batch: Batch, batch_index: int) -> Mixup | None:
        """Return how the samples of a batch are mixed; None where they are not."""
        if not self.optimizer.mixup or len(batch) < 2:
            return None
        step = np.random.default_rng((self.seed, self.global_step))
        fraction = float(step.beta(self.optimizer.mixup, self.optimizer.mixup))
        pairs = np.random.default_rng((self.seed, self.global_step, batch_index, processes()[0]))
        return Mixup(
            fraction, torch.from_numpy(pairs.permutation(len(batch))).to(batch.present.device)
        )

    def _loss(
        self, batch: Batch, present: Tensor, mix: Mixup | None = None,
        clean: Batch | None = None,
    ) -> Tensor:
        """
        Return the loss: with a teacher γ · cross-entropy + (1 - γ) · distillation (Eq. 4).

        :param present: bool `[b, m]`, the modalities that the network sees.
        :param clean: what the teacher sees; None: the same batch.
        """
        settings, network = self.optimizer, self.network
        own = self._columns(network.modalities)
        alone = settings.unimodal_weight > 0
        # The losses of each modality alone need every encoding, not only those kept.
        needed = batch.present if alone else present
        tokens = network.encode_present(batch.inputs, needed[:, own])
        logits = network.fuse(tokens, present[:, self._columns(tokens)])
        loss = self._classification(logits, batch.labels, mix)
        if self.teacher is not None:
            masks = {m: present[:, i] for i, m in enumerate(self.modalities)}
            targets = self.teacher(batch if clean is None else clean, masks)
            if mix is not None and not self.teacher.reads:  # cached, of samples that are not mixed
                targets = {head: mix.logits(each) for head, each in targets.items()}
            distillation = distillation_loss(logits, targets)
            loss = settings.gamma * loss + (1 - settings.gamma) * distillation
        if alone:
            loss = loss + settings.unimodal_weight * self._unimodal_loss(tokens, batch, mix)
        return loss

    def _classification(
        self, logits: Mapping[str, Tensor], labels: Mapping[str, Tensor], mix: Mixup | None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """
        Return the cross-entropy; with mixup, that of both labels by their fractions.

        :param labels: of all samples of the batch.
        :param rows: bool `[b]`, the samples that `logits` has; None: all.
        """
        def of(each: Mapping[str, Tensor]) -> Tensor:
            chosen = each if rows is None else {head: ids[rows] for head, ids in each.items()}
            return classification_loss(logits, chosen, self.optimizer.label_smoothing)

        if mix is None:
            return of(labels)
        partners = {head: ids[mix.partner] for head, ids in labels.items()}
        return mix.fraction * of(labels) + (1 - mix.fraction) * of(partners)

    def _zero_loss(self) -> Tensor:
        """Return a loss of 0 that reaches every weight, for a batch without a usable sample."""
        return torch.stack([p.sum() for p in self.network.parameters() if p.requires_grad]
                           ).sum() * 0.0

    def _unimodal_loss(
        self, tokens: Mapping[Modality, Tensor], batch: Batch, mix: Mixup | None,
    ) -> Tensor:
        """Sum the losses of each modality alone, over the samples that have it."""
        losses = []
        for (modality, encoded), column in zip(tokens.items(), self._columns(tokens)):
            rows = batch.present[:, column]
            losses.append(self._classification(
                self.network.fuse({modality: encoded[rows]}), batch.labels, mix, rows))
        return torch.stack(losses).sum()

    def _columns(self, modalities: Iterable[Modality]) -> list[int]:
        return [self.modalities.index(m) for m in modalities]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the accuracy of each head, and of the action, with all present modalities."""
        own = self._columns(self.network.modalities)
        batch = batch.rows(batch.present[:, own].any(1))
        if not len(batch):
            return
        logits = self.network(batch.inputs, batch.present[:, own])
        correct = torch.ones(len(batch), dtype=torch.bool, device=batch.present.device)
        for head, scores in logits.items():
            hit = scores.argmax(1) == batch.labels[head]
            correct &= hit
            self._log_accuracy(head, hit)
        if 'action' not in logits:
            self._log_accuracy('action', correct)

    def _log_accuracy(self, name: str, hit: Tensor) -> None:
        self.log(f'val/{name}', hit.float().mean(), prog_bar=name == 'action', sync_dist=True,
                 batch_size=len(hit))

    def configure_optimizers(self) -> Any:
        """Return AdamW and its schedule, linear warm-up and cosine decay."""
        settings = self.optimizer
        optimizer = torch.optim.AdamW(self._parameter_groups(), lr=settings.learning_rate)
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, total, round(settings.warmup * total)))
        return {'optimizer': optimizer,
                'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}

    def _parameter_groups(self) -> list[dict[str, Any]]:
        """Return the groups by `split_by_decay`; those of encoders, if they learn otherwise."""
        settings = self.optimizer
        groups = []
        for group, decay in zip(split_by_decay(self.network), (settings.weight_decay, 0.0)):
            encoders = [] if settings.encoder_lr_mult == 1 else [
                p for name, p in group.items() if name.startswith('encoders.')]
            own = set(encoders)
            groups.append({'params': [p for p in group.values() if p not in own],
                           'weight_decay': decay})
            if encoders:
                groups.append({'params': encoders, 'weight_decay': decay,
                               'lr': settings.learning_rate * settings.encoder_lr_mult})
        return groups

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """
        Refuse a checkpoint whose optimizer has other parameter groups.

        :raises InvalidSettingError: for one of a version in which tokens decayed too.
        """
        wanted = [len(group['params']) for group in self._parameter_groups()]
        for state in checkpoint.get('optimizer_states', ()):
            got = [len(group['params']) for group in state['param_groups']]
            if got != wanted:
                raise InvalidSettingError(
                    'checkpoint', f'one whose optimizer has groups of {got} parameters',
                    f'one with groups of {wanted}, as this version has',
                    'an older version decayed tokens and positions too: finish the run with that '
                    'version, or give another --run-dir to train from the beginning')


def split_by_decay(network: nn.Module) -> tuple[dict[str, nn.Parameter], dict[str, nn.Parameter]]:
    """
    Return the trained parameters by name: those with weight decay, and those without.

    Only matrices and kernels decay: what is called `weight`, or ends so, and has more than one
    dimension. Biases, norms, tokens ([CLS], of absent modalities, of order, AST's class and
    distillation token), position embeddings, tables of relative positions, and embeddings of
    categories do not. The paper does not state it: this rule is ours.
    """
    decayed: dict[str, nn.Parameter] = {}
    plain: dict[str, nn.Parameter] = {}
    seen: set[nn.Parameter] = set()  # one that two modules share counts once
    for module_name, module in network.named_modules():
        for name, parameter in module.named_parameters(module_name, recurse=False):
            if parameter.requires_grad and parameter not in seen:
                seen.add(parameter)
                decays = (parameter.ndim > 1 and name.endswith('weight')
                          and not isinstance(module, _NEVER_DECAYED))
                (decayed if decays else plain)[name] = parameter
    return decayed, plain


_NEVER_DECAYED = (nn.Embedding, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)
