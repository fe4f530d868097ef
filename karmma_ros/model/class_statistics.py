"""
Means and covariances of what the heads of a model take, by class: a file of the model directory.

New classes are added to a model without the data of its old ones by drawing from these. They are
of the weights that the file names, and are read as untrusted data.

Shape legend: u subsets of the modalities, c classes, e width that the classifiers take.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from karmma_ros.errors import BundleError
from karmma_ros.modality import main_subsets, subset_name
from karmma_ros.model.bundle import Bundle, STATISTICS, WEIGHTS
from karmma_ros.model.fusion import MultiHeadMLP
from karmma_ros.model.untrusted_files import digest_of_file, open_safetensors
from karmma_ros.storage import write_atomically
from safetensors import SafetensorError
from safetensors.torch import save
import torch
from torch import Tensor

MOST_STATISTICS = 2**30
"""Bytes; those of 400 classes, 31 subsets and a width of 768 are 40 million."""
COMPUTE = 'compute them from its validation clips with `karmma calibrate`'
_MEAN, _COUNT, _COVARIANCE = 'mean', 'count', 'covariance'


@dataclass(frozen=True)
class ClassStatistics:
    """What is known of the classes of a model, by head."""

    means: Mapping[str, Tensor]
    """Head → `[u, c, e]`, of each of `main_subsets` of the model's modalities."""
    counts: Mapping[str, Tensor]
    """Head → windows `[u, c]`; 0 where a mean is unknown."""
    covariances: Mapping[str, Tensor]
    """Head → covariance within the classes, `[e, e]`."""


def save_statistics(path: Path, statistics: ClassStatistics) -> None:
    """Write the statistics of the weights of a model directory, atomically."""
    tensors = {f'{part}.{head}': x.float().contiguous() for part, own in (
        (_MEAN, statistics.means), (_COUNT, statistics.counts),
        (_COVARIANCE, statistics.covariances)) for head, x in own.items()}
    weights = digest_of_file(path / WEIGHTS).hex()
    write_atomically(path / STATISTICS, save(tensors, {'weights': weights}))


def load_statistics(bundle: Bundle) -> ClassStatistics:
    """
    Read the statistics of a model.

    :raises BundleError: when there are none, or they are of other weights, damaged or of another
        shape.
    """
    path = bundle.path / STATISTICS
    if not path.is_file():
        raise BundleError(bundle.path, f'it has no {STATISTICS}, which the old classes are drawn '
                          'from', COMPUTE)
    assert isinstance(bundle.network.heads, MultiHeadMLP)
    try:
        with open_safetensors(path, 'pt', MOST_STATISTICS) as file:
            weights = (file.metadata() or {}).get('weights')
            tensors = {name: file.get_tensor(name) for name in file.keys()}
    except (SafetensorError, OSError) as error:
        raise BundleError(path, f'cannot be read ({error})', COMPUTE) from error
    if weights != bundle.sha256:
        raise BundleError(path, 'is of other weights', COMPUTE)
    width = bundle.network.heads.width
    subsets = main_subsets(bundle.network.modalities)
    for head, size in bundle.vocabulary.sizes.items():
        for part, shape in ((_MEAN, (len(subsets), size, width)), (_COUNT, (len(subsets), size)),
                            (_COVARIANCE, (width, width))):
            x = tensors.get(f'{part}.{head}')
            if x is None or x.shape != shape or not torch.isfinite(x).all():
                got = 'missing' if x is None else f'{list(x.shape)}'
                raise BundleError(
                    path, f'{part}.{head} is {got}; expected finite numbers {list(shape)}, of '
                    f'{subset_name(bundle.network.modalities)}', COMPUTE)
    heads = bundle.vocabulary.heads
    return ClassStatistics(*(
        {head: tensors[f'{part}.{head}'] for head in heads}
        for part in (_MEAN, _COUNT, _COVARIANCE)))
