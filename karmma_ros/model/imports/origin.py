"""
Models that others published: where one comes from, and what its tensors become here.

`Origin` has the facts that are stored with an imported model and that its card states.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import count_text, InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import Vocabulary


@dataclass(frozen=True)
class Origin:
    """Where a published model comes from, and under which terms."""

    source: str
    """As `karmma model import` takes it."""
    page: str
    """URL of the page that publishes it."""
    dataset: str
    """What it was trained on."""
    licence: str
    """Of the weights, in words; where they have none of their own, that is stated."""
    citation: str
    """The paper."""
    url: str = ''
    """Of the file of weights; empty if it must be given."""
    commercial_use: bool = True
    """False where the licence forbids it."""
    accuracy: Mapping[str, float] = field(default_factory=dict)
    """What its publishers measured, such as `top-1` → percent; empty if they state nothing."""
    protocol: str = ''
    """How they measured it."""
    limits: str = ''
    """What its network does not get here, in sentences; empty if nothing."""

    @property
    def terms(self) -> str:
        """Return the licence and, where it forbids commercial use, that it does."""
        return self.licence if self.commercial_use else f'{self.licence}: no commercial use'


@dataclass(frozen=True)
class Converted:
    """The tensors of a published file under the names of this package."""

    tensors: Weights
    dropped: Mapping[str, str] = field(default_factory=dict)
    """Name in the file → why the tensor is not used."""


@dataclass(frozen=True)
class PublishedModel:
    """A published model as one of this package, without its weights."""

    origin: Origin
    config: ModelConfig
    spec: ClipSpec
    vocabulary: Vocabulary
    convert: Callable[[Weights], Converted]
    """From the tensors of the file to those of the network."""
    find: Callable[[bool], Path] | None = None
    """Return the file in a cache of its library, which may download it; None: it has a URL."""


_FRAME_BY_FRAME = ('x3d_continual', 'movinet')
"""Encoders that have a state."""


def in_chunks(model: PublishedModel, chunk: int) -> PublishedModel:
    """
    Return a model whose encoders see chunks of a clip, which can be encoded once on a stream.

    :param chunk: frames.
    :raises InvalidSettingError: when the model does not encode frames, or not so many.
    """
    frames = model.spec.num_frames
    for modality, encoder in model.config.encoders.items():
        if encoder.name in _FRAME_BY_FRAME:
            raise InvalidSettingError(
                '--chunk', chunk, 'left out', f'{encoder.name} encodes each frame once')
        fits = chunk > 0 and frames % chunk == 0 and chunk < frames
        if modality not in (Modality.RGB, Modality.FLOW) or not fits:
            raise InvalidSettingError(
                '--chunk', chunk, f'a number of frames that divides the {frames} of a clip of RGB '
                'or flow', f'this model takes {modality}')
    own = tuple(f'encoders.{m}.' for m in model.config.modalities)

    def convert(weights: Weights) -> Converted:
        converted = model.convert(weights)
        return Converted({
            name if not name.startswith(own) else
            '.'.join([*name.split('.')[:2], 'encoder', *name.split('.')[2:]]): x
            for name, x in converted.tensors.items()}, converted.dropped)
    encoders = {m: replace(each, chunk=chunk) for m, each in model.config.encoders.items()}
    origin = replace(model.origin, accuracy={}, protocol='', limits=(
        f'{model.origin.limits} It encodes {chunk} of the {frames} frames of a clip at a time and '
        'averages them, for streaming; the network of its authors sees all frames of a clip at '
        'once, and its accuracy is not that of this one.').strip())
    return replace(model, origin=origin, convert=convert, config=replace(
        model.config, encoders=encoders, token_cap=frames // chunk))


def rename(weights: Weights, name_of: Callable[[str], str | None], reason: str = '') -> Converted:
    """
    Return tensors under other names.

    :param name_of: from the name of a tensor to its name here; None drops it.
    :param reason: why those are dropped.
    """
    names = {name: name_of(name) for name in weights}
    return Converted(
        {new: weights[name] for name, new in names.items() if new is not None},
        {name: reason for name, new in names.items() if new is None})


def clip_text(spec: ClipSpec, modalities: Iterable[Modality]) -> str:
    """Return the length of a clip in words, with its frames where a modality has some."""
    frames = any('num_frames' in modality_type(m).clip_fields(spec) for m in modalities)
    return f'{count_text(spec.num_frames, "frame")} in {spec.duration:.4g} s' if frames else (
        f'{spec.duration:.4g} s')


def card(model: PublishedModel, name: str, stored: Mapping[str, Any], parameters: int) -> str:
    """
    Return the model card, Markdown.

    :param stored: what the model directory states about the import (`source` in its
        configuration).
    :param parameters: of the network.
    """
    origin = model.origin
    front = [
        '---', 'license: other', 'library_name: karmma_ros',
        'pipeline_tag: video-classification', '---', '']
    sections = [
        f'# {name}',
        f'`{origin.source}`, published at {origin.page}, as a model of karmma_ros: '
        f'{parameters / 1e6:.2f} M parameters, trained on {origin.dataset} by its authors. '
        'Nothing of it was trained or measured here.',
        f'## Licence\n\n{origin.terms}.',
        f'## Published accuracy\n\n{_accuracy(origin)}',
        '## Input\n\n' + '\n'.join(
            f'- {m}: {" x ".join(map(str, model.spec.input_shape(m)))}'
            for m in model.config.modalities)
        + f'\n\nA window has {clip_text(model.spec, model.config.modalities)}.',
        *([f'## Limits\n\n{origin.limits}'] if origin.limits else []),
        f'## Weights\n\n{_weights(stored)}',
        f'## Citation\n\n{origin.citation}',
        '## Classes\n\n' + '\n'.join(
            f'- {head} ({len(names)}): {", ".join(names)}'
            for head, names in model.vocabulary.heads.items()),
    ]
    return '\n'.join(front) + '\n\n'.join(sections) + '\n'


def _accuracy(origin: Origin) -> str:
    if not origin.accuracy:
        return 'None is stated.'
    figures = ', '.join(f'{name} {value:g} %' for name, value in origin.accuracy.items())
    return f'{figures} on {origin.dataset}' + (f'; {origin.protocol}.' if origin.protocol else '.')


def _weights(stored: Mapping[str, Any]) -> str:
    lines = [f'From the file `{stored["file"]}`, SHA-256 `{stored["sha256"]}`.']
    if stored['dropped']:
        lines += ['', 'Tensors of the file that are not used:', '']
        lines += [f'- `{name}`: {reason}' for name, reason in stored['dropped'].items()]
    return '\n'.join(lines)
