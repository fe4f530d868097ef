"""
A model as a directory: weights, configuration and model card.

`model.safetensors` holds the weights, `config.json` the architecture, the classes and the
clip specification, `README.md` the model card, `calibration.json` the temperatures of those very
weights, if they were fitted, `class_statistics.safetensors` the means of its classes, to which
others can be added (`model.class_statistics`). Nothing in it is executed when it is loaded,
and no class outside this package, torchvision and timm is imported unless it is allowed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
import json
import math
import os
from pathlib import Path
import re
from typing import Any

from karmma_ros.calibration import Calibration
from karmma_ros.clip import ClipSpec
from karmma_ros.errors import BundleError, first_line, InvalidSettingError, printable
from karmma_ros.modality import ENTRY_POINTS, register, registered_by_location
from karmma_ros.model.builder import bounded_build, build, check_options, check_tensors
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.encoders import is_custom
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.untrusted_files import (
    digest_of_file,
    load_safetensors,
    MOST_JSON,
    open_safetensors,
    read_json,
)
from karmma_ros.prediction import Vocabulary
from karmma_ros.storage import write_atomically
from safetensors import SafetensorError
from safetensors.torch import save

FORMAT = 'karmma_ros/1'
WEIGHTS, CONFIG, CARD = 'model.safetensors', 'config.json', 'README.md'
CALIBRATION, STATISTICS = 'calibration.json', 'class_statistics.safetensors'
_MOST_INPUT = 2 * 2**30
"""Bytes that the inputs of one clip may take, fifty times those of the paper's networks."""
_MOST_CALIBRATION = 2**20
"""Bytes of the calibration of a model with a thousand subsets and ten heads."""
RECALIBRATE = 'fit it again with `karmma calibrate`, or delete it: the model runs without'
RETRIEVE = 'copy the whole model directory again, or train one with `karmma train`'


@dataclass(frozen=True)
class Bundle:
    """A network with everything needed to prepare its inputs and to interpret its outputs."""

    network: Karmma
    config: ModelConfig
    spec: ClipSpec
    vocabulary: Vocabulary
    name: str
    dataset: str
    """What it was trained on, in words."""
    metrics: Mapping[str, Any]
    """What was measured on it when it was made; empty if nothing was."""
    path: Path
    sha256: str
    """Digest of the weights file, hexadecimal."""
    calibration: Calibration = field(default_factory=Calibration)
    """Empty if none was fitted."""
    source: Mapping[str, Any] = field(default_factory=dict)
    """Of a model that was imported: where its weights come from, and their licence."""

    @property
    def model_id(self) -> str:
        """Return a short name for these very weights: `name@` and 8 digits of the digest."""
        return f'{printable(self.name)}@{self.sha256[:8]}'

    @property
    def licence(self) -> str:
        """Return the licence of imported weights; empty where none is stored."""
        return str(self.source.get('licence', ''))

    @property
    def commercial_use(self) -> bool:
        """Whether no licence is stored that forbids it."""
        return self.source.get('commercial_use') is not False


def named_directory(path: Path) -> Path:
    """Return a directory by a path that ends with its name, unlike `.`; models are called so."""
    return path if path.name not in ('', '..') else path.resolve()


def save_bundle(
    path: Path | str,
    network: Karmma,
    config: ModelConfig,
    spec: ClipSpec,
    vocabulary: Vocabulary,
    *,
    dataset: str,
    card: str,
    metrics: Mapping[str, Any] | None = None,
    calibration: Calibration | None = None,
    source: Mapping[str, Any] | None = None,
) -> None:
    """
    Write a model directory; it is called by the directory's name.

    :param card: the model card, Markdown.
    :param metrics: JSON-ready figures that the card rests on.
    :param calibration: fitted to these weights; None: one of earlier weights is removed.
    :param source: where imported weights come from, JSON-ready.
    """
    path = named_directory(Path(path))
    path.mkdir(parents=True, exist_ok=True)
    description = {
        'format': FORMAT,
        'name': path.name,
        'dataset': dataset,
        'architecture': config.to_dict(),
        'clip': spec.to_dict(),
        'classes': {head: list(names) for head, names in vocabulary.heads.items()},
        'metrics': dict(metrics or {}),
    }
    if vocabulary.background:
        description['background'] = vocabulary.background
    if vocabulary.activations:
        description['activations'] = dict(vocabulary.activations)
    if source:
        description['source'] = dict(source)
    types = registered_by_location(config.modalities)
    if types:
        description['modalities'] = types
    weights = {k: v.detach().cpu().contiguous() for k, v in network.state_dict().items()}
    # Not save_file: only the owner may read its files, and the robot runs as another user.
    # A full disk leaves the model that was there.
    write_atomically(path / WEIGHTS, save(weights))
    write_atomically(path / CONFIG, json.dumps(description, indent=1) + '\n')
    (path / CARD).write_text(card, encoding='utf-8')
    (path / STATISTICS).unlink(missing_ok=True)  # of earlier weights
    if calibration:
        save_calibration(path, calibration)
    else:
        (path / CALIBRATION).unlink(missing_ok=True)


def write_card_section(
    path: Path, title: str, text: str, begins: str | None = None,
) -> None:
    """
    Write a section `## title` into the card of a model, in place of an earlier one.

    :param begins: how the title of the earlier one begins; None for the same title.
    :raises OSError: when the card cannot be read or written.
    """
    card = path / CARD
    before = card.read_text(encoding='utf-8') if card.is_file() else ''
    sections = re.split(r'^(?=## )', before, flags=re.MULTILINE)
    earlier = [i for i, section in enumerate(sections)
               if section.startswith(f'## {title}\n' if begins is None else f'## {begins}')]
    # The classes follow all that was measured.
    position = next((i for i, section in enumerate(sections) if section.startswith('## Classes')),
                    len(sections))
    if earlier:
        position = earlier[0]
        del sections[position]
    sections.insert(position, f'## {title}\n\n{text.strip()}\n\n')
    write_atomically(card, ''.join(sections))


def save_metrics(path: Path, metrics: Mapping[str, Any]) -> None:
    """
    Write figures into a model directory, beside those of other names.

    :param metrics: JSON-ready figures that the card rests on.
    :raises BundleError: as `load_bundle` does for its configuration.
    """
    description = _read_description(path)
    earlier = _mapping(path, description, 'metrics')
    write_atomically(path / CONFIG, json.dumps(
        {**description, 'metrics': {**earlier, **metrics}}, indent=1) + '\n')


def stored_source(path: Path) -> Mapping[str, Any]:
    """
    Return what a model directory states about the weights it was made of, without loading it.

    :raises BundleError: as `load_bundle` does for its configuration.
    """
    return _mapping(path, _read_description(path), 'source')


def save_calibration(path: Path, calibration: Calibration) -> None:
    """Write the calibration of a model directory, atomically."""
    content = {'weights': digest_of_file(path / WEIGHTS).hex(), **calibration.to_dict()}
    write_atomically(path / CALIBRATION, json.dumps(content, indent=1) + '\n')


def load_bundle(
    path: Path | str, device: str = 'cpu', *, custom_encoders: bool = False,
    calibrated: bool = True,
) -> Bundle:
    """
    Read a model directory and put its network, in evaluation mode, on `device`.

    :param custom_encoders: allow encoders and types of modalities named
        `package.module:Class`, whose code then runs.
    :param calibrated: False does not read the calibration.
    :raises BundleError: when the directory is missing, damaged or does not fit together.

    >>> from karmma_ros.model.bundle import load_bundle
    >>> from karmma_ros.model.registry import find_model
    >>> bundle = load_bundle(find_model('synthetic_kitchen'))
    >>> bundle.vocabulary.sizes, bundle.spec.num_frames
    ({'verb': 9, 'noun': 11}, 16)
    """
    path = Path(path)
    if not path.is_dir():
        raise BundleError(path, 'no such directory', 'give the directory that holds ' + CONFIG)
    description = _read_description(path)
    try:
        _register_types(path, description.get('modalities', {}), custom_encoders)
        config = ModelConfig.from_dict(description['architecture'])
        if not custom_encoders:
            _refuse_custom(path, config)
        spec = ClipSpec.from_dict(description['clip'])
        vocabulary = Vocabulary({h: tuple(n) for h, n in description['classes'].items()},
                                description.get('background', ''),
                                description.get('activations', {}))
        _check_inputs(config, spec)
        if not custom_encoders:  # theirs may not know the meta device, and are trusted
            _check_shapes(path, config, spec, vocabulary)
        network = build(config, spec, vocabulary)
    except InvalidSettingError as error:
        raise BundleError(path / CONFIG, str(error), RETRIEVE) from error
    except (KeyError, TypeError, AttributeError, ValueError, ArithmeticError, RuntimeError
            ) as error:
        raise BundleError(
            path / CONFIG, f'lacks or garbles {first_line(error)}', RETRIEVE) from error
    _load_weights(path, network)
    digest = digest_of_file(path / WEIGHTS).hex()
    return Bundle(
        network.eval().to(device), config, spec, vocabulary,
        str(description.get('name', path.name)), str(description.get('dataset', '')),
        _mapping(path, description, 'metrics'), path, digest,
        replace(_read_calibration(path / CALIBRATION, digest, config, vocabulary)
                if calibrated else Calibration(), activations=vocabulary.activations),
        _mapping(path, description, 'source'),
    )


def _read_description(path: Path) -> Mapping[str, Any]:
    for name in (CONFIG, WEIGHTS):
        if not (path / name).is_file():
            raise BundleError(path, f'{name} is missing, or no regular file', RETRIEVE)
    size = (path / CONFIG).stat().st_size
    if size > MOST_JSON:
        raise BundleError(path / CONFIG, f'has {size} bytes, more than any model needs', RETRIEVE)
    try:
        description = read_json(path / CONFIG)
    except OSError as error:
        raise BundleError(path / CONFIG, f'cannot be read ({error})', RETRIEVE) from error
    except ValueError as error:
        raise BundleError(path / CONFIG, f'is not JSON ({error})', RETRIEVE) from error
    version = description.get('format') if isinstance(description, dict) else None
    if version != FORMAT:
        raise BundleError(
            path / CONFIG, f'format is {version!r}, this package reads {FORMAT!r}', RETRIEVE)
    return description


def _mapping(path: Path, description: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    value = description.get(key, {})
    if not isinstance(value, dict):
        raise BundleError(path / CONFIG, f'{key} is {value!r}, expected a mapping', RETRIEVE)
    return value


def _read_calibration(
    path: Path, digest: str, config: ModelConfig, vocabulary: Vocabulary
) -> Calibration:
    """Return the calibration of the weights of a digest; an empty one without a file."""
    if not os.path.lexists(path):
        return Calibration()
    try:
        content = read_json(path, _MOST_CALIBRATION)
        weights = content.pop('weights', None) if isinstance(content, dict) else None
        if weights != digest:
            raise InvalidSettingError('weights', weights, f'{digest}, those of {WEIGHTS}')
        return Calibration.from_dict(content, config.modalities, vocabulary.sizes)
    except (OSError, ValueError) as error:
        raise BundleError(path, f'cannot be used ({first_line(error)})', RECALIBRATE) from error


def _register_types(path: Path, types: Mapping[str, str], allowed: bool) -> None:
    """
    Register the types of modalities that no installed package registers.

    :raises BundleError: when the code of the model may not run.
    """
    for name, location in types.items():
        if not allowed:
            raise BundleError(
                path / CONFIG, f'names a class of its own for the modality {name}, {location}',
                f'install a package with the entry point {ENTRY_POINTS}: {name}, or if you trust '
                'the model, load it with load_bundle(..., custom_encoders=True)')
        register(name, location)


def _refuse_custom(path: Path, config: ModelConfig) -> None:
    for encoder in config.encoders.values():
        if is_custom(encoder.name):
            raise BundleError(
                path / CONFIG, f'names an encoder class of its own, {encoder.name}',
                'if you trust it, load it with load_bundle(..., custom_encoders=True)')


def _check_inputs(config: ModelConfig, spec: ClipSpec) -> None:
    """Refuse a clip that no memory holds; a window is prepared before the network sees it."""
    size = sum(4 * math.prod(spec.input_shape(m)) for m in config.modalities)
    if size > _MOST_INPUT:
        raise InvalidSettingError(
            'clip', f'{size} bytes of input', f'{_MOST_INPUT} bytes at most')


def _check_shapes(
    path: Path, config: ModelConfig, spec: ClipSpec, vocabulary: Vocabulary
) -> None:
    """Compare the architecture with the header of the weights, before either takes memory."""
    stored = _stored_shapes(path)
    for head, size in vocabulary.sizes.items():
        rows = stored.get(f'heads.classifiers.{head}.bias')
        if rows is not None and rows != [size]:
            raise BundleError(
                path / CONFIG, f'lists {size} classes for {head}, the weights have {rows[0]}',
                'restore the class list this model was trained with')
    check_options(config)
    with bounded_build(len(stored)):
        empty = build(config, spec, vocabulary)
    wanted = {name: list(tensor.shape) for name, tensor in empty.state_dict().items()}
    wrong = sorted(name for name in wanted.keys() | stored.keys()
                   if wanted.get(name) != stored.get(name))
    if wrong:
        name = wrong[0]
        raise BundleError(
            path / WEIGHTS, f'does not fit the architecture ({len(wrong)} tensors; {name} is '
            f'{stored.get(name, "missing")}, it should be {wanted.get(name, "missing")})',
            RETRIEVE)
    check_tensors(empty.eval())


def _stored_shapes(path: Path) -> dict[str, list[int]]:
    try:
        with open_safetensors(path / WEIGHTS, 'pt') as weights:
            return {name: weights.get_slice(name).get_shape() for name in weights.keys()}
    except (SafetensorError, OSError) as error:
        raise BundleError(path / WEIGHTS, f'cannot be read ({error})', RETRIEVE) from error


def _load_weights(path: Path, network: Karmma) -> None:
    try:
        weights = load_safetensors(path / WEIGHTS)
    except (SafetensorError, OSError) as error:
        raise BundleError(path / WEIGHTS, f'cannot be read ({error})', RETRIEVE) from error
    try:
        network.load_state_dict(weights)
    except RuntimeError as error:
        problem = ' '.join(str(error).split())[:200]  # its first line names no tensor
        raise BundleError(
            path / WEIGHTS, f'does not fit the architecture ({problem})', RETRIEVE) from error
