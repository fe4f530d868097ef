"""The student's training: cross-entropy and distillation under modality dropout."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from karmma_ros.data.batch import Batch
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.karmma import Karmma
from karmma_ros.training.augment import augment
from karmma_ros.training.dropout import drop_modalities
from karmma_ros.training.losses import classification_loss, distillation_loss
from karmma_ros.training.schedule import warmup_cosine
from karmma_ros.training.teacher import FrozenTeacher
import lightning
import torch
from torch import Tensor


@dataclass(frozen=True)
class Optimisation:
    """How the student's weights are found."""

    learning_rate: float = 1e-3
    """Peak learning rate of AdamW."""
    weight_decay: float = 0.01
    """Paper: 0.01."""
    clip: float = 2.0
    """Gradients are scaled to this norm at most. Paper: 2.0."""
    warmup: float = 0.1
    """Share of all steps in which the learning rate rises. Paper: 10 of 100 epochs."""
    modality_dropout: float = 0.5
    """Chance of each modality to be dropped in training. Paper: 0.5."""
    unimodal_weight: float = 0.0
    """
    Weight of a further cross-entropy: that of each modality alone. Paper: none, for its
    encoders come pretrained. Encoders that start from nothing need it, since the easiest
    sensor otherwise answers for the others and little is left for them to learn from.
    """
    gamma: float = 0.7
    """With a teacher: the share of the cross-entropy, the rest is the distillation's (Eq. 4).
    The paper's best row can only be 0.7."""
    label_smoothing: float = 0.0
    """Paper: none."""
    augmentation: float = 1.0
    """Strength of the light augmentation, 0 (none) to 1."""

    def __post_init__(self) -> None:
        for name in ('warmup', 'modality_dropout', 'gamma', 'label_smoothing', 'augmentation'):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise InvalidSettingError(f'optimisation.{name}', value, 'from 0 to 1')
        for name in ('learning_rate', 'clip'):
            if not getattr(self, name) > 0:
                raise InvalidSettingError(
                    f'optimisation.{name}', getattr(self, name), 'a number above 0')


class StudentModule(lightning.LightningModule):
    """
    Train a network on any mixture of modalities.

    Every draw comes from the seed and the step or epoch alone, so a resumed run makes the
    draws that an unbroken one would have made.
    """

    def __init__(
        self, network: Karmma, optimisation: Optimisation, seed: int = 0,
        teacher: FrozenTeacher | None = None,
    ) -> None:
        super().__init__()
        self.network = network
        self.teacher = teacher
        self.optimisation = optimisation
        self.seed = seed

    def on_train_epoch_start(self) -> None:
        """Seed the encoders' own dropout, which draws from the global generator."""
        torch.manual_seed(self.seed * 1_000_003 + self.current_epoch)

    def training_step(self, batch: Batch, batch_index: int) -> Tensor:
        """Give the loss of one batch; one draw of modality dropout feeds student and teacher."""
        settings = self.optimisation
        generator = torch.Generator().manual_seed(self.seed * 1_000_003 + self.global_step)
        present = drop_modalities(batch.present, settings.modality_dropout, generator)
        inputs = augment(batch.inputs, settings.augmentation, generator)
        alone = settings.unimodal_weight > 0
        # The losses of each modality alone need every encoding, not only those drawn.
        tokens = self.network.encode_present(inputs, batch.present if alone else present)
        logits = self.network.fuse(tokens, present[:, self._columns(tokens)])
        loss = classification_loss(logits, batch.labels, settings.label_smoothing)
        if self.teacher is not None:
            taught = distillation_loss(logits, self.teacher(inputs, present))
            loss = settings.gamma * loss + (1 - settings.gamma) * taught
        if alone:
            loss = loss + settings.unimodal_weight * self._unimodal_loss(tokens, batch)
        self.log('loss', loss, prog_bar=True, batch_size=len(batch))
        return loss

    def _unimodal_loss(self, tokens: Mapping[Modality, Tensor], batch: Batch) -> Tensor:
        """Sum the losses of each modality alone, over the samples that have it."""
        losses = []
        for (modality, encoded), column in zip(tokens.items(), self._columns(tokens)):
            rows = batch.present[:, column]
            labels = {head: ids[rows] for head, ids in batch.labels.items()}
            losses.append(classification_loss(
                self.network.fuse({modality: encoded[rows]}), labels,
                self.optimisation.label_smoothing))
        return torch.stack(losses).sum()

    def _columns(self, modalities: Iterable[Modality]) -> list[int]:
        return [self.network.modalities.index(m) for m in modalities]

    def validation_step(self, batch: Batch, batch_index: int) -> None:
        """Log the accuracy of each head, and of the action, with all there is."""
        logits = self.network(batch.inputs, batch.present)
        right = torch.ones(len(batch), dtype=torch.bool, device=batch.present.device)
        for head, scores in logits.items():
            hit = scores.argmax(1) == batch.labels[head]
            right &= hit
            self.log(f'val/{head}', hit.float().mean(), batch_size=len(batch))
        self.log('val/action', right.float().mean(), prog_bar=True, batch_size=len(batch))

    def configure_optimizers(self) -> Any:
        """Give AdamW under linear warm-up and cosine decay; biases and tokens don't decay."""
        settings = self.optimisation
        trained = [p for p in self.network.parameters() if p.requires_grad]
        decay = [p for p in trained if p.ndim > 1]
        plain = [p for p in trained if p.ndim <= 1]
        optimizer = torch.optim.AdamW(
            [{'params': decay, 'weight_decay': settings.weight_decay},
             {'params': plain, 'weight_decay': 0.0}],
            lr=settings.learning_rate)
        total = int(self.trainer.estimated_stepping_batches)
        scheduler = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: warmup_cosine(step, total, round(settings.warmup * total)))
        return {'optimizer': optimizer,
                'lr_scheduler': {'scheduler': scheduler, 'interval': 'step'}}
