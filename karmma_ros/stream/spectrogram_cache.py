"""
The spectrogram of a window, of which only what is new is computed.

Shape legend: n samples, s spectrogram columns, f mel bands.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from karmma_ros.clip import AudioSpec
from karmma_ros.preprocess.spectrogram import columns_of, log_mel, touching_gaps
import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class _Known:
    """The columns of one window."""

    first: int
    bands: NDArray[np.float32]
    lasting: NDArray[np.bool_]
    """Bool `[s]`: those that look at nothing but sound that was heard, inside the window."""


class SpectrogramCache:
    """
    Remember the columns of the last window, so that overlapping windows compute each once.

    Sound that was heard stays as it is (`AudioBuffer`), and so do the columns that look at nothing
    else. One thread may use it at a time: it belongs to the worker that prepares the windows.
    """

    def __init__(self, spec: AudioSpec) -> None:
        self._spec = spec
        self._known: _Known | None = None

    def log_mel(
        self, sound: NDArray[np.float32], valid_mask: NDArray[np.bool_], first: int,
    ) -> NDArray[np.float32]:
        """
        Return `preprocess.audio.log_mel` of a window's sound `[n]`, float32 `[f, s]`.

        Columns that touch a gap hold anything: nobody is to look at them.

        :param valid_mask: bool `[n]`, false where the sound holds zeros for a gap.
        :param first: place of the first sample in the stream. Windows whose places differ by
            whole hops share their columns.
        """
        count = columns_of(len(sound), self._spec)
        bands = np.zeros((self._spec.n_mels, count), np.float32)
        gaps = touching_gaps(valid_mask, self._spec)
        lasting = ~gaps & self._inside(count, len(sound))
        missing = ~(self._recall(bands, first) & lasting | gaps)
        for start, stop in _runs(missing):
            bands[:, start:stop] = log_mel(sound, self._spec, start, stop)
        self._known = _Known(first, bands, lasting)
        return bands

    def _recall(self, bands: NDArray[np.float32], first: int) -> NDArray[np.bool_]:
        """Fill in what is known, and mark it, bool `[s]`."""
        recalled = np.zeros(bands.shape[1], np.bool_)
        known = self._known
        if known is not None:
            moved, rest = divmod(first - known.first, self._spec.hop_length)
            if rest == 0 and 0 <= moved < len(recalled):
                lasting = known.lasting[moved:]
                bands[:, :len(lasting)][:, lasting] = known.bands[:, moved:][:, lasting]
                recalled[:len(lasting)] = lasting
        return recalled

    def _inside(self, count: int, samples: int) -> NDArray[np.bool_]:
        """Mark the columns, bool `[s]`, that do not look beyond the window."""
        centres = np.arange(count) * self._spec.hop_length
        half = (self._spec.win_length + 1) // 2
        inside: NDArray[np.bool_] = (centres >= half) & (centres + half <= samples)
        return inside


def _runs(marks: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    """Return start and end of each run of marks."""
    edges = np.flatnonzero(np.diff(marks.astype(np.int8), prepend=0, append=0))
    yield from zip(edges[::2].tolist(), edges[1::2].tolist())
