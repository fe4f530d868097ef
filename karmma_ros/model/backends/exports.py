"""
The files that `karmma export` writes into a model directory, and whether they match the model.

`exports/RUNTIME_PRECISION/` holds one graph for each encoder, one for the fusion,
`export.json` with the digests of the weights they were made from, and PyTorch's logits for the
check clip: to compute these on a robot would take more memory than everything else.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
import hashlib
import json
from pathlib import Path
from typing import Any

from karmma_ros.errors import BundleError
from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import Subset
from karmma_ros.model.backends.interface import (
    BF16,
    FP32,
    Input,
    INT8,
    Logits,
    ONNXRUNTIME,
    OPENVINO,
)
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.untrusted_files import digest_of_file, open_safetensors, read_json
from safetensors import SafetensorError
from safetensors.numpy import save

FORMAT = 'karmma_ros_export/1'
FOLDER, MANIFEST, EAGER_LOGITS = 'exports', 'export.json', 'eager.safetensors'
FORMATS = {'openvino': OPENVINO, 'onnx': ONNXRUNTIME}
"""What can be written → the backend that reads it."""
PRECISIONS = {OPENVINO: (BF16, FP32, INT8), ONNXRUNTIME: (FP32, INT8)}
"""The first is the default. ONNX Runtime computes nothing in bf16 on a processor."""
SUFFIX = {OPENVINO: '.xml', ONNXRUNTIME: '.onnx'}
_MOST_MANIFEST = 2**20
_MOST_LOGITS = 2**26
"""Bytes; those of 100,000 classes, from four modalities and each alone, take 2 MB."""


@dataclass(frozen=True)
class Export:
    """Graphs on disk that belong to a model."""

    runtime: str
    """The backend that reads them."""
    precision: str
    folder: Path

    @property
    def label(self) -> str:
        """Return runtime and precision for a reader."""
        return f'{self.runtime} {self.precision}'

    @property
    def sha256(self) -> str:
        """
        Return the digest of all its files: another export may give other predictions.

        :raises BundleError: for one that cannot be read, as a pipe.
        """
        digest = hashlib.sha256()
        try:
            for path in sorted(self.folder.iterdir()):
                digest.update(path.name.encode())
                digest.update(digest_of_file(path))
        except OSError as error:
            raise BundleError(path, f'cannot be read ({error})', remedy(self.runtime)) from error
        return digest.hexdigest()

    def graph(self, name: str) -> Path:
        """
        Locate the graph of a modality, or of the fusion.

        :raises BundleError: when it is missing.
        """
        path = self.folder / f'{name}{SUFFIX[self.runtime]}'
        for part in (path, path.with_suffix('.bin')) if self.runtime == OPENVINO else (path,):
            if not part.is_file():
                raise BundleError(self.folder, f'{part.name} is missing, or no regular file',
                                  remedy(self.runtime))
        return path


def remedy(runtime: str) -> str:
    """Return how to write graphs of a runtime again."""
    name = next(name for name, reader in FORMATS.items() if reader == runtime)
    return f'write it again: karmma export MODEL --to {name}'


def export_folder(bundle: Bundle, runtime: str, precision: str) -> Path:
    """Return the folder of an export in a model directory."""
    return bundle.path / FOLDER / f'{runtime}_{precision}'


def write_manifest(bundle: Bundle, export: Export, facts: dict[str, Any]) -> None:
    """
    Write what an export was made from.

    :param facts: JSON-ready; for a reader.
    """
    description = {
        'format': FORMAT, 'runtime': export.runtime, 'precision': export.precision,
        **_source(bundle), **facts}
    (export.folder / MANIFEST).write_text(json.dumps(description, indent=1) + '\n')


def find_exports(bundle: Bundle) -> tuple[list[Export], list[str]]:
    """Return the exports that belong to a model, and a sentence for each that cannot be used."""
    exports, problems = [], []
    for path in sorted((bundle.path / FOLDER).glob(f'*/{MANIFEST}')):
        try:
            exports.append(_read(bundle, path))
        except BundleError as error:
            problems.append(str(error))
    return exports, problems


def write_eager_logits(
    export: Export, clip: Mapping[Modality, Input], outputs: Mapping[Subset, Logits]
) -> None:
    """Save the logits of eager for a clip."""
    logits = {f'{"+".join(subset)}/{head}': x
              for subset, heads in outputs.items() for head, x in heads.items()}
    # Not save_file: only the owner may read its files, and the robot runs as another user.
    content = save(logits, metadata={'clip_sha256': _digest(clip)})
    (export.folder / EAGER_LOGITS).write_bytes(content)


def read_eager_logits(
    export: Export, clip: Mapping[Modality, Input]
) -> dict[Subset, Logits] | None:
    """Return the saved logits of eager for this very clip; None if there are none."""
    outputs: dict[Subset, Logits] = {}
    try:
        with open_safetensors(export.folder / EAGER_LOGITS, 'np', _MOST_LOGITS) as file:
            if (file.metadata() or {}).get('clip_sha256') != _digest(clip):
                return None
            for key in file.keys():
                names, _, head = key.partition('/')
                subset = tuple(Modality(name) for name in names.split('+'))
                outputs.setdefault(subset, {})[head] = file.get_tensor(key)
    except (SafetensorError, OSError, ValueError, TypeError):
        return None
    return outputs


def _digest(clip: Mapping[Modality, Input]) -> str:
    digest = hashlib.sha256()
    for modality, x in clip.items():
        digest.update(f'{modality} {x.shape}'.encode())
        digest.update(x.tobytes())
    return digest.hexdigest()


def _read(bundle: Bundle, path: Path) -> Export:
    try:
        description = read_json(path, _MOST_MANIFEST)
        runtime, precision = description['runtime'], description['precision']
        if description['format'] != FORMAT or precision not in PRECISIONS[runtime]:
            raise ValueError(f'{description["format"]!r}, {runtime!r}, {precision!r}')
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise BundleError(
            path, f'cannot be read ({error})', 'delete its folder, or export again') from error
    if any(description.get(key) != value for key, value in _source(bundle).items()):
        raise BundleError(path.parent, 'was made from other weights or another configuration',
                          remedy(runtime))
    return Export(runtime, precision, path.parent)


def _source(bundle: Bundle) -> dict[str, str]:
    """Return the digests of what decides the graphs."""
    settings = [bundle.config.to_dict(), bundle.spec.to_dict(), bundle.vocabulary.sizes]
    text = json.dumps(settings, sort_keys=True)
    return {'weights_sha256': bundle.sha256,
            'configuration_sha256': hashlib.sha256(text.encode()).hexdigest()}
