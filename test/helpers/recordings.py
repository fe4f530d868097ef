"""Clips whose samples can be read before they are prepared."""

from karmma_ros.data.samples import Sample
from karmma_ros.modalities import make_clip, modality_type
from karmma_ros.modality import PAPER_MODALITIES
import numpy as np

V, F, A, D = PAPER_MODALITIES


class Recordings:
    """Clips of moving patterns and noise; every third lacks the audio."""

    def __init__(self, spec, count, modalities=PAPER_MODALITIES, reads=None):
        self.spec, self.count, self.modalities = spec, count, modalities
        self.reads = [] if reads is None else reads

    def __len__(self):
        return self.count

    def with_modalities(self, modalities):
        return Recordings(self.spec, self.count, tuple(modalities), self.reads)

    def arrays(self, index, delay_s=0.0):
        self.reads.append((index, delay_s))
        rng = np.random.default_rng((index, round(100 * delay_s)))
        t = self.spec.num_frames
        rgb = rng.integers(0, 255, (t, 16, 16, 3), dtype=np.uint8)
        boxes = np.sort(rng.random((t, 2, 4)), axis=2)[:, :, [0, 1, 2, 3]]
        arrays = {
            V: rgb, F: modality_type(F).recomputed(rgb, self.spec),
            A: rng.normal(0, 0.1, 16_000).astype(np.float32),
            D: [np.column_stack([b, [1, 2]]).astype(np.float32) for b in boxes]}
        return {m: x for m, x in arrays.items()
                if m in self.modalities and (m is not A or index % 3)}

    def computed(self, index):
        return frozenset({F} & {*self.modalities})

    def labels(self, index):
        return {'verb': index % 3, 'noun': index % 4}

    def __getitem__(self, index):
        return Sample(make_clip(self.spec, self.arrays(index)), self.labels(index), index)
