"""
Whether the outputs of a backend agree with those of PyTorch.

Both run a check clip of noise, with all modalities and with each alone. The difference is the
largest of any logit, as a fraction of the range of eager's logits: it is comparable between
confident and unconfident networks.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from karmma_ros.clip import ClipSpec
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.model.backends.interface import Backend, BF16, FP32, Input, INT8, Logits
import numpy as np

TOLERANCE = {FP32: 0.002, BF16: 0.05, INT8: 0.2}
"""The largest difference allowed, as a fraction of the range of a head's logits."""

Subset = tuple[Modality, ...]


def check_clip(spec: ClipSpec, modalities: Iterable[Modality], seed: int = 0) -> dict[
        Modality, Input]:
    """Make a clip of noise, with valid boxes; the same for the same seed."""
    rng = np.random.default_rng(seed)
    return {m: modality_type(m).noise(spec, rng)[None] for m in modalities}


def predict_subsets(
    backend: Backend, clip: Mapping[Modality, Input]
) -> dict[Subset, Logits]:
    """Return the logits from all modalities and from each alone; each is encoded once."""
    tokens = {m: backend.encode(m, x) for m, x in clip.items()}
    chosen = dict.fromkeys([tuple(clip), *((m,) for m in clip)])
    return {subset: backend.fuse({m: tokens[m] for m in subset}) for subset in chosen}


def difference(ours: Mapping[Subset, Logits], eager: Mapping[Subset, Logits]) -> float:
    """Return the largest difference of a logit, as a fraction of eager's range; maybe inf."""
    worst = 0.0
    for subset, heads in eager.items():
        for head, wanted in heads.items():
            got = ours[subset].get(head)
            if got is None or got.shape != wanted.shape or not np.isfinite(got).all():
                return float('inf')
            span = float(np.ptp(wanted)) or float(np.abs(wanted).max()) or 1.0
            worst = max(worst, float(np.abs(got - wanted).max()) / span)
    return worst
