"""
A clip's frames in chunks, each encoded on its own.

Shape legend: b batch, c channels, t frames, p chunks, h height, w width, n tokens of a chunk,
e token width.
"""

from __future__ import annotations

from torch import nn, Tensor


class ChunkedEncoder(nn.Module):
    """
    Run an encoder on each chunk of a clip; the tokens follow each other in the clip's order.

    The chunks know nothing of each other, nor of their place: live, the tokens of a chunk stay
    as they are while the window moves on (`karmma_ros.stream.token_cache`).

    :param encoder: takes `[b, c, t / p, h, w]`.
    :param parts: chunks of a clip (p).
    :param skips_first: the second frame of each chunk is shown in place of its first. Flow
        needs this: its first picture tells of a frame that is not in the chunk.
    """

    def __init__(self, encoder: nn.Module, parts: int, skips_first: bool) -> None:
        super().__init__()
        self.encoder = encoder
        self.parts = parts
        self.skips_first = skips_first

    def forward(self, x: Tensor) -> Tensor:
        """Encode `[b, c, t, h, w]` into tokens `[b, p · n, e]`, the oldest chunk's first."""
        chunks = x.unflatten(2, (self.parts, -1)).transpose(1, 2).flatten(0, 1)
        tokens = self.encode_chunks(chunks)  # [b · p, n, e]
        return tokens.unflatten(0, (len(x), self.parts)).flatten(1, 2)

    def encode_chunks(self, chunks: Tensor) -> Tensor:
        """Encode chunks `[b, c, t / p, h, w]` into tokens `[b, n, e]`."""
        if self.skips_first:
            # Picked, not joined: OpenVINO computes an int8 graph wrongly that joins slices.
            chunks = chunks[:, :, [1, *range(1, int(chunks.shape[2]))]]
        tokens: Tensor = self.encoder(chunks)
        return tokens
