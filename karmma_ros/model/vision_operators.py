"""
Make torchvision importable beside a CPU-only torch.

The Python package index has torchvision only as a CUDA build. Beside a CPU build of torch
its compiled operators do not load, and its import fails where it describes two of them.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

_LIBRARIES: list[torch.library.Library] = []
"""A library's definitions live as long as the object that made them."""


def prepare_torchvision() -> None:
    """
    Define the two operators that the import describes, where the real ones cannot load.

    With a matching pair of builds, or without torchvision, nothing is done. Call it before
    the first import of torchvision, or of timm or torchmetrics, which import it.
    """
    spec = find_spec('torchvision')
    if spec is None or spec.origin is None or _LIBRARIES:
        return
    try:
        torch.ops.load_library(next(Path(spec.origin).parent.glob('_C*.so')))
    except (StopIteration, OSError, RuntimeError):
        library = torch.library.Library('torchvision', 'DEF')
        library.define('nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        library.define('qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor')
        _LIBRARIES.append(library)
