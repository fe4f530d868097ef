"""
Fusion and heads: a transformer over all tokens, queries on them, or the mean of logits.

The mean of logits is the ensemble of Radevski et al. (ICCV 2023), which the paper compares with:
one classifier for each modality, trained on its own, averaged with a weight each. Their classifier
is the embedding of `Karmma`, and `LogitMean` and `SplitHeads` stand where the fusion block and the
heads are, so that it trains, distils, scores and ships like every other network.

Shape legend: b batch, m modalities, n_i tokens of modality i, s = 1 + Σ n_i, d width, l layers,
c classes of all heads together, p pairs of classes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import in_order, Modality
import torch
from torch import nn, Tensor


class FusionBlock(nn.Module):
    """
    Mix [CLS] and the tokens of every modality; return one token each (Sec. III-B).

    The layers are PyTorch's post-norm ones without a final norm: only so does the count of
    trainable parameters of the paper's teacher come out (11.247 M).
    """

    def __init__(
        self, dim: int, layers: int, heads: int, feedforward: int, attention_dropout: float
    ) -> None:
        super().__init__()
        self.cls = nn.Parameter(torch.empty(dim))
        nn.init.trunc_normal_(self.cls, std=0.02)
        stack = [
            nn.TransformerEncoderLayer(dim, heads, feedforward, dropout=0.0, batch_first=True)
            for _ in range(layers)
        ]
        for layer in stack:
            # The paper drops attention weights only; the layer's own argument would also
            # drop activations.
            layer.self_attn.dropout = attention_dropout
        self.layers = nn.ModuleList(stack)

    def forward(
        self, tokens: Mapping[Modality, Tensor], present: Tensor | None = None
    ) -> Tensor:
        """
        Fuse the modalities' tokens.

        :param tokens: modality → `[b, n_i, d]`, in canonical order.
        :param present: bool `[b, m]`; the tokens of an absent modality are not attended to.
            None: attend to all.
        :returns: `[b, m + 1, d]`: the mean token of each modality, then [CLS].
        """
        sizes = [t.shape[1] for t in tokens.values()]
        batch = next(iter(tokens.values())).shape[0]
        x = torch.cat([*tokens.values(), self.cls.expand(batch, 1, -1)], dim=1)  # [b, s, d]
        ignore = None
        if present is not None:
            repeats = torch.tensor(sizes, device=present.device)
            ignore = ~present.repeat_interleave(repeats, dim=1)  # [b, s - 1]
            ignore = nn.functional.pad(ignore, (0, 1), value=False)  # [b, s]
        for layer in self.layers:
            x = layer(x, src_key_padding_mask=ignore)
        parts = x.split([*sizes, 1], dim=1)
        return torch.stack([part.mean(1) for part in parts], dim=1)


class QueryFusion(nn.Module):
    """
    Attend from a learned query for each modality, and [CLS], to all tokens. Ours, for streams.

    Tokens do not attend to each other. What a token is here are its keys and values, of each
    layer: its embedding computes them once, when it is new, and those of absent modalities are
    learned. A window then costs the queries alone, whatever the number of its tokens.

    :param modalities: that the network takes, each with a query.
    """

    def __init__(
        self, modalities: Sequence[Modality], dim: int, layers: int, heads: int,
        feedforward: int, attention_dropout: float,
    ) -> None:
        super().__init__()
        self.modalities = in_order(modalities)
        self.queries = nn.Parameter(torch.empty(len(self.modalities), dim))
        self.cls = nn.Parameter(torch.empty(dim))
        for parameter in (self.queries, self.cls):
            nn.init.trunc_normal_(parameter, std=0.02)
        self.layers = nn.ModuleList(
            _QueryLayer(dim, heads, feedforward, attention_dropout) for _ in range(layers))

    @staticmethod
    def token_width(dim: int, layers: int) -> int:
        """Return the width of a token: a key and a value for each layer."""
        return 2 * layers * dim

    def forward(
        self, tokens: Mapping[Modality, Tensor], present: Tensor | None = None
    ) -> Tensor:
        """
        Fuse the modalities' tokens.

        :param tokens: modality → `[b, n_i, 2 · l · d]` for l layers, in canonical order.
        :param present: bool `[b, m]`; the tokens of an absent modality are not attended to.
            None: attend to all.
        :returns: `[b, m + 1, d]`: the output of each given modality's query, then of [CLS].
        """
        own = self.queries[[self.modalities.index(m) for m in tokens]]
        joined = torch.cat(list(tokens.values()), dim=1)
        x = torch.cat([own, self.cls[None]]).expand(len(joined), -1, -1)  # [b, m + 1, d]
        ignored = None
        if present is not None:
            sizes = torch.tensor([t.shape[1] for t in tokens.values()], device=present.device)
            ignored = ~present.repeat_interleave(sizes, dim=1)  # [b, s - 1]
        for layer, part in zip(self.layers, joined.chunk(len(self.layers), dim=2)):
            x = layer(x, *part.chunk(2, dim=2), ignored)
        return x


class _QueryLayer(nn.Module):
    """A post-norm layer as those of `FusionBlock`, whose keys and values are given."""

    def __init__(self, dim: int, heads: int, feedforward: int, attention_dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.out = nn.Linear(dim, dim), nn.Linear(dim, dim)
        self.dropout = nn.Dropout(attention_dropout)
        self.norm1, self.norm2 = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.linear1, self.linear2 = nn.Linear(dim, feedforward), nn.Linear(feedforward, dim)

    def forward(
        self, x: Tensor, keys: Tensor, values: Tensor, ignored: Tensor | None
    ) -> Tensor:
        """Map queries `[b, m + 1, d]` by keys and values `[b, s - 1, d]`, to the same shape."""
        q, k, v = (each.unflatten(2, (self.heads, -1)).transpose(1, 2)
                   for each in (self.query(x), keys, values))  # [b, heads, …, d / heads]
        scores = q @ k.transpose(2, 3) * q.shape[3] ** -0.5
        if ignored is not None:
            scores = scores.masked_fill(ignored[:, None, None], -torch.inf)
        mixed = self.dropout(scores.softmax(3)) @ v
        x = self.norm1(x + self.out(mixed.transpose(1, 2).flatten(2)))
        mapped: Tensor = self.norm2(x + self.linear2(torch.relu(self.linear1(x))))
        return mapped


class MultiHeadMLP(nn.Module):
    """
    Classify every output token of the fusion block and average (Sec. III-B).

    The paper averages "the predictions" and does not define them; here the logits are
    averaged. Its hidden activation is not given either: GELU.
    """

    def __init__(self, dim: int, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.shared = nn.Linear(dim, 2 * dim)
        self.activation = nn.GELU()
        self.classifiers = _classifiers(2 * dim, classes)

    @property
    def width(self) -> int:
        """Return the number of values that the linear classifiers take."""
        return self.shared.out_features

    def forward(self, tokens: Tensor, counted: Tensor | None = None) -> dict[str, Tensor]:
        """
        Return the logits of each head.

        :param tokens: `[b, m + 1, d]`.
        :param counted: bool `[b, m + 1]`, the tokens to average over; None: all.
        :returns: head → `[b, classes]`.
        """
        mean = self.pool(tokens, counted)
        return {head: classify(mean) for head, classify in self.classifiers.items()}

    def pool(self, tokens: Tensor, counted: Tensor | None = None) -> Tensor:
        """
        Return what the linear classifiers take, `[b, 2d]`; the arguments are those of `forward`.

        A linear classifier of the mean is the mean of the classifiers, at 1 / (m + 1) the cost.
        """
        hidden: Tensor = self.activation(self.shared(tokens))  # [b, m + 1, 2d]
        if counted is None:
            return hidden.mean(1)
        weights = counted.to(hidden.dtype).unsqueeze(-1)
        return (hidden * weights).sum(1) / weights.sum(1)


def _classifiers(width: int, classes: Mapping[str, int]) -> nn.ModuleDict:
    """
    Return a linear classifier for each head.

    :raises InvalidSettingError: for a head whose name PyTorch cannot give to a module.
    """
    for head in classes:
        if '.' in head or hasattr(nn.ModuleDict, head) or head in vars(nn.ModuleDict()):
            raise InvalidSettingError(
                'head', head, 'a name without a dot that is no attribute of a module of PyTorch, '
                'such as verb', f'rename the head, for example to {head.replace(".", "_")}_class')
    return nn.ModuleDict({head: nn.Linear(width, size) for head, size in classes.items()})


class ConcatenatedHeads(MultiHeadMLP):
    """
    Classify all output tokens side by side, linearly. Ours, not the paper's.

    A mean over the tokens loses which modality they are of; few clips of new classes are
    distinguished far better by the tokens themselves.

    :param width: d times the number of output tokens, m + 1.
    """

    def __init__(self, width: int, classes: Mapping[str, int]) -> None:
        nn.Module.__init__(self)
        self._width = width
        self.classifiers = _classifiers(width, classes)

    @property
    def width(self) -> int:
        """Return the number of values that the linear classifiers take."""
        return self._width

    def pool(self, tokens: Tensor, counted: Tensor | None = None) -> Tensor:
        """Return all output tokens of a clip in a row, `[b, (m + 1) d]`."""
        return tokens.flatten(1)


class LogitMean(nn.Module):
    """
    Average the modalities' logits, each with its weight; the weights of those present count.

    :param votes: modality → weight above 0.
    """

    def __init__(self, votes: Mapping[Modality, float]) -> None:
        super().__init__()
        self.modalities = in_order(votes)
        self.votes: Tensor
        self.register_buffer(
            'votes', torch.tensor([float(votes[m]) for m in self.modalities]), persistent=False)

    def forward(
        self, logits: Mapping[Modality, Tensor], present: Tensor | None = None
    ) -> Tensor:
        """
        Average.

        :param logits: modality → `[b, p, c]`, in canonical order; at least one. Live, p is the
            chunks of a clip, whose mean counts.
        :param present: bool `[b, len(logits)]`; None: all are.
        :returns: `[b, 1, c]`.
        """
        stacked = torch.cat([x.mean(1, keepdim=True) if x.shape[1] > 1 else x
                             for x in logits.values()], dim=1)  # [b, m, c]
        votes = self.votes[[self.modalities.index(m) for m in logits]].to(stacked.dtype)
        weights = votes.expand(stacked.shape[:2]).unsqueeze(-1)  # [b, m, 1]
        if present is not None:
            weights = weights * present.unsqueeze(-1)
        return (stacked * weights).sum(1, keepdim=True) / weights.sum(1, keepdim=True)


class SplitHeads(nn.Module):
    """Split one row of logits into those of each head."""

    def __init__(self, classes: Mapping[str, int]) -> None:
        super().__init__()
        self.classes = dict(classes)

    def forward(self, logits: Tensor, counted: Tensor | None = None) -> dict[str, Tensor]:
        """
        Split.

        :param logits: `[b, 1, c]`.
        :param counted: unused: absent modalities have no weight.
        :returns: head → `[b, classes]`.
        """
        parts = logits.squeeze(1).split(list(self.classes.values()), dim=1)
        return dict(zip(self.classes, parts))


class PairHeads(nn.Module):
    """
    Turn the logits of pairs of classes into those of each head.

    A class of a head has the probability of the pairs it is in, summed. Its logarithm is the
    logit, so that the softmax gives that probability; a class in no pair has nearly none.

    :param pairs: head → its class in each pair.
    :param classes: head → number of its classes.
    """

    def __init__(self, pairs: Mapping[str, Sequence[int]], classes: Mapping[str, int]) -> None:
        super().__init__()
        self.heads = tuple(classes)
        for i, (head, size) in enumerate(classes.items()):
            members = torch.zeros(len(pairs[head]), size)  # [p, classes]
            members[torch.arange(len(pairs[head])), torch.tensor(pairs[head])] = 1
            self.register_buffer(f'members_{i}', members, persistent=False)

    def forward(self, logits: Tensor, counted: Tensor | None = None) -> dict[str, Tensor]:
        """
        Sum.

        :param logits: `[b, 1, p]`.
        :param counted: unused: absent modalities have no weight.
        :returns: head → `[b, classes]`.
        """
        p = logits.squeeze(1).softmax(1)
        least = torch.finfo(p.dtype).tiny
        return {head: (p @ self.get_buffer(f'members_{i}').to(p.dtype)).clamp_min(least).log()
                for i, head in enumerate(self.heads)}
