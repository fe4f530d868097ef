"""A backend in the place of a network, to score what an export costs as models are scored."""

from __future__ import annotations

from collections.abc import Mapping

from karmma_ros.modality import Modality
from karmma_ros.model.backends.exports import FORMATS
from karmma_ros.model.backends.interface import Backend
import torch
from torch import Tensor


class BackendNetwork:
    """
    Ask a backend about batches, one clip after the other: it takes no more at once.

    Shape legend: b samples, m modalities, n tokens, d fusion width, c classes.
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self.modalities = backend.modalities
        self._takes_arrays = backend.name in FORMATS.values()

    def eval(self) -> None:
        """Do nothing: a backend never trains."""

    def encode_present(
        self, inputs: Mapping[Modality, Tensor], present: Tensor
    ) -> dict[Modality, Tensor]:
        """
        Encode as `Karmma.encode_present`.

        :param inputs: modality → `[b, ...]` as `ClipSpec.input_shape` says.
        :param present: bool `[b, m]`.
        :returns: modality → `[b, n, d]`, zero where a sample lacks it; a modality absent from
            the whole batch has no entry.
        """
        tokens = {}
        for column, modality in enumerate(self.modalities):
            rows = present[:, column].nonzero().squeeze(1).tolist()
            if rows:
                encoded = torch.cat([self._encode(modality, inputs[modality][r]) for r in rows])
                tokens[modality] = encoded.new_zeros(len(present), *encoded.shape[1:])
                tokens[modality][rows] = encoded
        return tokens

    def fuse(self, tokens: Mapping[Modality, Tensor]) -> dict[str, Tensor]:
        """Answer from tokens `[b, n, d]` of the modalities that are there: head → `[b, c]`."""
        count = len(next(iter(tokens.values())))
        own = {m: x.numpy() for m, x in tokens.items()} if self._takes_arrays else tokens
        answers = [self._backend.fuse({m: x[row:row + 1] for m, x in own.items()})
                   for row in range(count)]
        return {head: torch.stack([torch.from_numpy(answer[head]) for answer in answers])
                for head in answers[0]}

    def _encode(self, modality: Modality, x: Tensor) -> Tensor:
        return torch.as_tensor(self._backend.encode(modality, x[None].numpy()))
