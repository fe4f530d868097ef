"""A window or clip to a prediction."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modality import in_order, Modality, subset_name
from karmma_ros.prediction import Prediction, Vocabulary
from karmma_ros.stream.window import Window
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn


class Recogniser:
    """
    Run a network on one clip at a time, on one device.

    The network has `modalities` and is called as `network(inputs, present)`: float32 inputs
    with a batch dimension for the modalities that are there, and bool `[1, m]` over all its
    modalities in canonical order; it gives logits `[1, classes]` for each head.
    """

    def __init__(
        self,
        network: nn.Module,
        vocabulary: Vocabulary,
        spec: ClipSpec,
        device: str | torch.device = 'cpu',
    ) -> None:
        self.device = torch.device(device)
        self.vocabulary, self.spec = vocabulary, spec
        self.modalities = in_order(network.modalities)  # type: ignore[arg-type]
        self._network = network.to(self.device).eval()

    def recognise(
        self, source: Window | Clip, keep: Iterable[Modality] | None = None,
    ) -> Prediction:
        """
        Predict from all modalities that are there, or those of them to keep.

        :raises InvalidSampleError: when none is left that the network takes, or when the
            network's answer is not finite.
        :raises InvalidSettingError: when the network and the vocabulary do not match.
        """
        wanted = set(self.modalities if keep is None else keep) & set(self.modalities)
        clip = source.clip(wanted) if isinstance(source, Window) else source
        used = [m for m in clip.modalities if m in wanted]
        if not used:
            raise InvalidSampleError(
                f'clip: got {subset_name(clip.modalities)}; it may be at least one of '
                f'{subset_name(wanted)}')
        logits = self._run({m: clip.inputs[m] for m in used})
        return Prediction({h: self._probabilities(h, x) for h, x in logits.items()},
                          self.vocabulary)

    def warm_up(self) -> None:
        """Run silence once through all modalities together and each alone, to set up memory."""
        silence = {m: np.zeros(self.spec.input_shape(m), np.float32) for m in self.modalities}
        for subset in [self.modalities, *((m,) for m in self.modalities)]:
            self.recognise(Clip({m: silence[m] for m in subset}))

    @torch.inference_mode()
    def _run(self, inputs: Mapping[Modality, Any]) -> dict[str, NDArray[np.float64]]:
        batch = {m: torch.from_numpy(x)[None].to(self.device) for m, x in inputs.items()}
        present = torch.tensor([[m in batch for m in self.modalities]], device=self.device)
        logits = self._network(batch, present)
        return {head: x[0].double().cpu().numpy() for head, x in logits.items()}

    def _probabilities(self, head: str, logits: NDArray[np.float64]) -> NDArray[np.float64]:
        classes = len(self.vocabulary.heads.get(head, ()))
        if logits.shape != (classes,):
            raise InvalidSettingError(
                f'classes of head {head!r}', classes, f'{len(logits)}, as the network gives')
        if not np.isfinite(logits).all():
            raise InvalidSampleError(f'head {head!r}: the network gave NaN or infinity')
        scores = np.exp(logits - logits.max())
        return np.asarray(scores / scores.sum())
