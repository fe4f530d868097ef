"""
KARMMA: encoders, token reduction, embedding, fusion and heads in one network.

Shape legend: b batch, m modalities, n tokens, p chunks of a clip, d fusion width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality, subset_name
from karmma_ros.model.encoders.causal import Past, StatefulEncoder
from karmma_ros.model.encoders.video import ChunkedEncoder
from karmma_ros.model.tokens import TokenEmbedding
import torch
from torch import nn, Tensor


class Karmma(nn.Module):
    """
    Recognise an action from any subset of the modalities (paper, Fig. 2).

    An absent modality's encoder never runs and its input is never read.

    :param encoders: modality → module `[b, ...]` → `[b, n, e]`.
    :param embeddings: modality → embedding of that encoder's reduced tokens.
    :param fusion: modality → embedded tokens, and which are present → tokens for the heads.
    :param heads: tokens, and which of them count → head → logits.
    :param token_cap: at most this many tokens a modality (τ).
    :param fill_missing: fill an absent modality with its learned tokens; else leave it out.
    :param reduce: `[b, n, e]` and the cap → `[b, at most cap, e]`; None leaves tokens alone.
    :param freeze_encoders: never train the encoders, nor let them behave as in training.
    :param input_shapes: modality → shape of its input without the batch.

    >>> from karmma_ros.data.synthetic_kitchen.episode import clip_spec
    >>> from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
    >>> from karmma_ros.modality import Modality
    >>> from karmma_ros.model.builder import build
    >>> from karmma_ros.model.presets import preset
    >>> import torch
    >>> network, spec = build(preset('tiny'), clip_spec(), vocabulary()).eval(), clip_spec()
    >>> audio = torch.zeros(1, *spec.input_shape(Modality.AUDIO))
    >>> present = torch.tensor([[m is Modality.AUDIO for m in network.modalities]])
    >>> logits = network({Modality.AUDIO: audio}, present)
    >>> {head: tuple(values.shape) for head, values in logits.items()}
    {'verb': (1, 8), 'noun': (1, 10)}
    """

    def __init__(
        self,
        encoders: Mapping[Modality, nn.Module],
        embeddings: Mapping[Modality, TokenEmbedding],
        fusion: nn.Module,
        heads: nn.Module,
        token_cap: int,
        *,
        fill_missing: bool,
        reduce: Callable[[Tensor, int], Tensor] | None,
        freeze_encoders: bool,
        input_shapes: Mapping[Modality, tuple[int, ...]],
    ) -> None:
        super().__init__()
        self.modalities = in_order(encoders)
        self.encoders = nn.ModuleDict({m.value: encoders[m] for m in self.modalities})
        self.embeddings = nn.ModuleDict({m.value: embeddings[m] for m in self.modalities})
        self.fusion = fusion
        self.heads = heads
        self.token_cap = token_cap
        self.fill_missing = fill_missing
        self.reduce = reduce
        self.freeze_encoders = freeze_encoders
        self.input_shapes = dict(input_shapes)
        if freeze_encoders:
            self.encoders.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Karmma:
        """Switch between training and evaluation; frozen encoders stay as in evaluation."""
        super().train(mode)
        if self.freeze_encoders:
            self.encoders.eval()
        return self

    def forward(self, inputs: Mapping[Modality, Tensor], present: Tensor) -> dict[str, Tensor]:
        """
        Classify a batch whose samples may lack different modalities.

        :param inputs: modality → float `[b, ...]` shaped as `ClipSpec.input_shape`. A modality
            absent from the whole batch needs no entry.
        :param present: bool `[b, m]`, columns in the order of `self.modalities`.
        :returns: head → logits `[b, classes]`.
        :raises InvalidSettingError: for a mask of another shape, a sample without any
            modality, or a modality that is present without an input.
        """
        tokens = self.encode_present(inputs, present)
        columns = [i for i, modality in enumerate(self.modalities) if modality in tokens]
        return self.fuse(tokens, present[:, columns])

    def encode_present(
        self, inputs: Mapping[Modality, Tensor], present: Tensor
    ) -> dict[Modality, Tensor]:
        """
        Encode each modality of the samples that have it, and of no other.

        The arguments are those of `forward`.

        :returns: modality → `[b, n, d]`, zero where a sample lacks it; a modality absent from
            the whole batch has no entry.
        """
        self._check(inputs, present)
        tokens = {}
        for i, modality in enumerate(self.modalities):
            rows = present[:, i].nonzero().squeeze(1)
            if len(rows) == len(present):
                tokens[modality] = self.encode(modality, inputs[modality])
            elif len(rows):
                encoded = self.encode(modality, inputs[modality][rows])  # [rows, n, d]
                empty = encoded.new_zeros(len(present), *encoded.shape[1:])
                tokens[modality] = empty.index_copy(0, rows, encoded)
        return tokens

    def fuse(
        self, tokens: Mapping[Modality, Tensor], present: Tensor | None = None
    ) -> dict[str, Tensor]:
        """
        Classify from embedded tokens, which can be computed once and fused repeatedly.

        :param tokens: modality → `[b, n, d]` as `encode` gives them; at least one entry.
        :param present: bool `[b, len(tokens)]`, columns in canonical order: which of them each
            sample has; the others' are not read. None: each has all that is given.
        :returns: head → logits `[b, classes]`.
        """
        logits: dict[str, Tensor] = self.heads(*self.fuse_tokens(tokens, present))
        return logits

    def fuse_tokens(
        self, tokens: Mapping[Modality, Tensor], present: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """
        Return what the heads take, so that it can be computed once for frozen weights.

        The arguments are those of `fuse`.

        :returns: the output of the fusion, and which of its tokens count; None: all.
        """
        if present is not None and bool(present.all()):
            present = None
        columns = {m: i for i, m in enumerate(in_order(tokens))}
        like = next(iter(tokens.values()))
        given = {}
        for m in self.modalities:
            if m not in tokens:
                if self.fill_missing:
                    given[m] = self._absent(m, like)
            elif present is None or not self.fill_missing:
                given[m] = tokens[m]
            else:
                here = present[:, columns[m], None, None]
                given[m] = torch.where(here, tokens[m], self._absent(m, like))
        mask = None if self.fill_missing else present
        counted = None  # of the output tokens; [CLS] always counts
        if mask is not None:
            counted = nn.functional.pad(mask, (0, 1), value=True)
        return self.fusion(given, mask), counted

    def encode(self, modality: Modality, x: Tensor) -> Tensor:
        """Encode, reduce and embed one present modality: `[b, ...]` → `[b, n, d]`."""
        return self.embed(modality, self.encoders[modality.value](x))

    def embed(self, modality: Modality, tokens: Tensor) -> Tensor:
        """
        Reduce and embed the output of an encoder: `[b, n, e]` → `[b, at most the cap, d]`.

        Separate from `encode`, so that features of frozen encoders can be cached.
        """
        parts = self.embedding(modality).parts
        split = tokens.unflatten(1, (parts, -1)).flatten(0, 1)  # [b · p, n / p, e]
        embedded = self.embed_part(modality, split).unflatten(0, (len(tokens), parts))
        return self.embedding(modality).in_order(embedded)

    def embed_part(self, modality: Modality, tokens: Tensor) -> Tensor:
        """
        Reduce and embed the tokens of one chunk, independent of its position in the clip.

        :param tokens: `[b, n, e]`.
        :returns: `[b, at most its part of the cap, d]`; `TokenEmbedding.in_order` joins them.
        """
        embedding = self.embedding(modality)
        if self.reduce is not None:
            tokens = self.reduce(tokens, self.token_cap // embedding.parts)
        embedded: Tensor = embedding(tokens)
        return embedded

    def encode_chunks(self, modality: Modality, chunks: Tensor) -> Tensor:
        """
        Encode, reduce and embed chunks of a modality, independent of their position.

        :param chunks: `[b, c, t / p, h, w]`, for a `ChunkedEncoder`.
        :returns: `[b, n / p, d]`; `TokenEmbedding.in_order` makes a clip of p of them.
        """
        encoder = self.encoders[modality.value]
        assert isinstance(encoder, ChunkedEncoder)
        return self.embed_part(modality, encoder.encode_chunks(chunks))

    def encode_next(
        self, modality: Modality, x: Tensor, past: Past | None
    ) -> tuple[Tensor, Past]:
        """
        Encode, reduce and embed the next frames of one stream of a modality.

        :param x: `[1, c, t, h, w]`, any number of frames, for a `StatefulEncoder`.
        :param past: the state after the previous frames; None: start of the stream.
        :returns: the tokens of each frame, `[t, n / p, d]`, and the next state.
        """
        encoder = self.encoders[modality.value]
        assert isinstance(encoder, StatefulEncoder)
        tokens, past = encoder.step(x, past)
        return self.embed_part(modality, tokens.reshape(x.shape[2], -1, tokens.shape[-1])), past

    def embedding(self, modality: Modality) -> TokenEmbedding:
        """Return what embeds the tokens of a modality."""
        embedding = self.embeddings[modality.value]
        assert isinstance(embedding, TokenEmbedding)
        return embedding

    def _absent(self, modality: Modality, like: Tensor) -> Tensor:
        return self.embedding(modality).absent(len(like)).to(like.dtype)

    def _check(self, inputs: Mapping[Modality, Tensor], present: Tensor) -> None:
        columns = len(self.modalities)
        wanted = f'a bool tensor [batch, {columns}] for {subset_name(self.modalities)}'
        if present.ndim != 2 or present.shape[1] != columns:
            raise InvalidSettingError('present', list(present.shape), wanted)
        if present.dtype != torch.bool:
            raise InvalidSettingError('present', present.dtype, wanted)
        if not bool(present.any(1).all()):
            raise InvalidSettingError(
                'present', 'a sample without any modality', 'at least one modality a sample')
        for i, modality in enumerate(self.modalities):
            if bool(present[:, i].any()):
                self._check_input(modality, inputs.get(modality), len(present))

    def _check_input(self, modality: Modality, x: Tensor | None, batch: int) -> None:
        if x is None:
            raise InvalidSettingError(
                'inputs', f'no {modality}', f'an entry for {modality}, which is present')
        wanted = (batch, *self.input_shapes[modality])
        if x.shape != wanted:
            raise InvalidSettingError(
                f'inputs.{modality}', list(x.shape), f'a tensor {list(wanted)}',
                'prepare it by the clip specification that the network was built with')
