"""Run the network on a window or clip."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from karmma_ros.calibration import Calibration
from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modality import Modality, subset_name
from karmma_ros.model.backends.interface import Backend, Logits, Tokens
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.prediction import Prediction, Vocabulary
from karmma_ros.stream.token_cache import hop_for, TokenCache
from karmma_ros.stream.window import Window
import numpy as np
from numpy.typing import NDArray
import torch
from torch import nn


class Recogniser:
    """
    Run a network on one clip at a time.

    :param network: a backend, as `choose` returns it; or a module, which PyTorch then runs as it
        is on `device`; `Eager` describes its arguments.
    :param calibration: of the bundle; without one the probabilities have temperatures of 1.

    >>> from karmma_ros.clip import Clip
    >>> from karmma_ros.modality import Modality
    >>> from karmma_ros.model.bundle import load_bundle
    >>> from karmma_ros.model.registry import find_model
    >>> from karmma_ros.stream.recogniser import Recogniser
    >>> import numpy as np
    >>> bundle = load_bundle(find_model('synthetic_kitchen'))
    >>> recogniser = Recogniser(bundle.network, bundle.vocabulary, bundle.spec,
    ...                         calibration=bundle.calibration)
    >>> image = np.zeros(bundle.spec.input_shape(Modality.RGB), np.float32)
    >>> prediction = recogniser.recognise(Clip({Modality.RGB: image}))
    >>> len(prediction.top('verb', k=3))
    3
    """

    def __init__(
        self,
        network: nn.Module | Backend,
        vocabulary: Vocabulary,
        spec: ClipSpec,
        device: str | torch.device = 'cpu',
        calibration: Calibration = Calibration(),
    ) -> None:
        self.backend = Eager(network, device) if isinstance(network, nn.Module) else network
        self.vocabulary, self.spec = vocabulary, spec
        self.calibration = replace(calibration, activations=vocabulary.activations)
        self.modalities = self.backend.modalities
        self._tokens = TokenCache(self.backend.parts) if self.backend.parts else None
        self._used = False
        """Whether the backend's buffers may hold data of a clip."""

    def recognise(
        self, source: Window | Clip, keep: Iterable[Modality] | None = None,
        leave_one_out: bool = False,
    ) -> Prediction:
        """
        Predict from all modalities of a window or clip, or those of them to keep.

        :param leave_one_out: predict also without each of several modalities: their tokens are
            fused again, no encoder runs twice.
        :raises InvalidSampleError: when none is left that the network takes, or when the
            network's output is not finite.
        :raises InvalidSettingError: when the network and the vocabulary do not match.
        """
        wanted = set(self.modalities if keep is None else keep) & set(self.modalities)
        used = [m for m in source.modalities if m in wanted]
        if not used:
            raise InvalidSampleError(
                f'clip: got {subset_name(source.modalities)}; expected at least one of '
                f'{subset_name(wanted)}')
        self._used = True
        leave_one_out = leave_one_out and len(used) > 1
        if isinstance(source, Window) and self._tokens is not None:
            tokens = self._tokens.tokens(source, used)
        else:
            clip = source.clip(used) if isinstance(source, Window) else source
            inputs = {m: clip.inputs[m][None] for m in used}
            if not leave_one_out:
                return self._prediction(used, self.backend.infer(inputs))
            tokens = self.backend.encode_clip(inputs)
        subsets = {m: [other for other in used if other != m] for m in used if leave_one_out}
        return replace(self._fuse(tokens, used), without={
            m: self._fuse(tokens, others) for m, others in subsets.items()})

    def _fuse(self, tokens: Mapping[Modality, Tokens], used: Sequence[Modality]) -> Prediction:
        return self._prediction(used, self.backend.fuse({m: tokens[m] for m in used}))

    def _prediction(self, used: Sequence[Modality], logits: Logits) -> Prediction:
        for head, x in logits.items():
            self._check(head, x)
        output = self.calibration.apply(used, logits)
        return Prediction(output.probabilities, self.vocabulary, float(output.unknown_score),
                          bool(output.is_unknown), output.action_scale, output.sets)

    def hop(self, rate: float) -> int:
        """
        Return the frames from one window to the next that let a streaming network use its tokens.

        :param rate: results a second, at least, as far as chunks allow it.
        :returns: 0 for a network that encodes every window anew.
        """
        return hop_for(self.backend.parts.chunks, self.spec, rate) if self.backend.parts else 0

    def reset(self, modalities: Iterable[Modality] | None = None) -> None:
        """
        Discard what is cached of some modalities, or all, from one window to the next.

        The backend's buffers, which hold the last clip only, are overwritten completely.
        """
        if self._tokens is not None:
            self._tokens.reset(modalities)
        if self._used:
            self.backend.clear()
        self._used = False

    def warm_up(self) -> None:
        """Run silence once through all modalities together and each alone, to set up memory."""
        silence = {m: np.zeros(self.spec.input_shape(m), np.float32) for m in self.modalities}
        for subset in [self.modalities, *((m,) for m in self.modalities)]:
            self.recognise(Clip({m: silence[m] for m in subset}))
        self._used = False

    def _check(self, head: str, logits: NDArray[np.float32]) -> None:
        classes = len(self.vocabulary.heads.get(head, ()))
        if logits.shape != (classes,):
            raise InvalidSettingError(
                f'classes of head {head!r}', classes, f'{len(logits)}, as the network gives')
        if not np.isfinite(logits).all():
            raise InvalidSampleError(f'head {head!r}: the network gave NaN or infinity')
