"""
Models of different sensors as one model directory.

Where each has a classifier of the same classes, the joined model is their ensemble: the mean of
the logits of the sensors that are present. Otherwise it has their encoders below a fusion block
that is not trained: the start of a training.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modality import in_order, Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import (
    Bundle,
    CONFIG,
    load_bundle,
    named_directory,
    save_bundle,
)
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.licences import merged_licence, terms
from karmma_ros.model.weights_file import Weights
import torch

Parts = Mapping[Modality, Bundle]
"""Modality → the model that it is taken from."""
UNTRAINED = 'untrained'
"""Key of `Bundle.source`: what of a model has random weights, in words."""
_SINGLE = 'classifier_tokens'
"""Option of encoders: only the tokens that a classifier of their own gets."""


def join_models_of_sensors(parts: Parts, out: Path) -> Bundle:
    """
    Write one model of the encoders of several, and load it.

    :param out: the new directory.
    :raises InvalidSettingError: when a model lacks its modality, clips conflict, or `out` has a
        model already.
    """
    out = named_directory(out)
    if (out / CONFIG).exists():
        raise InvalidSettingError('--out', str(out), 'a directory that holds no model yet')
    if len(parts) < 2:
        raise InvalidSettingError('MODALITY=DIR', ', '.join(parts), 'two modalities or more')
    for modality, bundle in parts.items():
        if modality not in bundle.network.modalities:
            raise InvalidSettingError(
                str(modality), str(bundle.path), f'a model that takes {modality}',
                f'this one takes {", ".join(bundle.network.modalities)}')
    spec = joined_spec(parts)
    first = next(iter(parts.values()))
    problem = ensemble_problem(parts)
    config = _base(parts) if problem else _ensemble(parts)
    torch.manual_seed(0)  # of a fusion block that is not trained
    network = build(config, spec, first.vocabulary).eval()
    _fill(network, parts, everything=not problem)
    source = _source(parts, problem)
    save_bundle(out, network, config, spec, first.vocabulary, dataset=_dataset(parts, problem),
                card=_card(out.name, parts, network, source), source=source)
    return load_bundle(out)


def with_fusion_block(bundle: Bundle) -> Bundle:
    """Return a model of classifiers of single sensors, with a fusion block in their place."""
    parts: Parts = dict.fromkeys(bundle.network.modalities, bundle)
    config = replace(_base(parts), preset=bundle.config.preset)
    torch.manual_seed(0)  # of a fusion block that is not trained
    network = build(config, bundle.spec, bundle.vocabulary).eval()
    _fill(network, parts, everything=False)
    return replace(bundle, network=network, config=config, source={
        **bundle.source, UNTRAINED: 'the fusion and the classifiers'})


def ensemble_problem(parts: Parts) -> str:
    """Return why models are no ensemble; empty if they are."""
    first, *others = parts.items()
    for modality, bundle in parts.items():
        if bundle.config.fusion != 'logit_mean':
            return f'{bundle.name} has no classifier of {modality} alone'
    for modality, bundle in others:
        if bundle.config.token_cap != first[1].config.token_cap:
            return f'{modality} and {first[0]} are encoded in another number of chunks'
        if (bundle.vocabulary, bundle.config.pairs) != (
                first[1].vocabulary, first[1].config.pairs):
            return f'the classes of {modality} are others than those of {first[0]}'
    return ''


def joined_spec(parts: Parts) -> ClipSpec:
    """
    Return the clips of the joined model.

    :raises InvalidSettingError: when the windows of two models differ in length, frames, or what
        both read.
    """
    spec = next(iter(parts.values())).spec
    for modality, bundle in parts.items():
        own = modality_type(modality)
        if 'num_frames' in own.clip_fields(bundle.spec):
            spec = replace(spec, num_frames=bundle.spec.num_frames)
        if own.spec_field and not modality.suffix:
            spec = replace(spec, **{own.spec_field: own.spec(bundle.spec)})
        else:
            spec = replace(spec, inputs={**spec.inputs, modality: own.spec(bundle.spec)})
        if modality is Modality.FLOW and Modality.RGB not in parts:
            spec = replace(spec, video=bundle.spec.video)
    for modality, bundle in parts.items():
        wanted = modality_type(modality).clip_fields(bundle.spec)
        joined = modality_type(modality).clip_fields(spec)
        wrong = [f'{name} is {value}, and {joined[name]} for the others'
                 for name, value in wanted.items() if joined[name] != value]
        if wrong:
            raise InvalidSettingError(
                f'clips of {modality}', '; '.join(wrong), 'models of the same clips',
                'import one of them again, with --duration, or train both on the same clips')
    return spec


def _ensemble(parts: Parts) -> ModelConfig:
    first = next(iter(parts.values())).config
    return replace(
        first, preset='joined', encoders={m: b.config.encoders[m] for m, b in parts.items()},
        votes={m: b.config.votes.get(m, 1.0) for m, b in parts.items()})


def _base(parts: Parts) -> ModelConfig:
    """Return the architecture with the fusion block of the paper's student."""
    return ModelConfig('joined', {m: _all_tokens(m, bundle) for m, bundle in parts.items()})


def _all_tokens(modality: Modality, bundle: Bundle) -> EncoderConfig:
    """Return the encoder with all its tokens, if it has the same weights then."""
    encoder = bundle.config.encoders[modality]
    options = {name: value for name, value in encoder.options.items() if name != _SINGLE}
    changed = replace(encoder, options=options)
    config = ModelConfig('joined', {modality: changed})
    with torch.device('meta'):
        wanted = _encoder_shapes(build(config, bundle.spec, bundle.vocabulary), modality)
    own = _encoder_shapes(bundle.network, modality)
    return changed if all(own.get(name) == shape for name, shape in wanted.items()) else encoder


def _encoder_shapes(network: Karmma, modality: Modality) -> dict[str, torch.Size]:
    return {name: x.shape for name, x in network.encoders[modality.value].state_dict().items()}


def _fill(network: Karmma, parts: Parts, everything: bool) -> None:
    """Copy the encoders, and all that belongs to a modality if `everything` is wanted."""
    own = network.state_dict()
    given: dict[str, Any] = {}
    for modality, bundle in parts.items():
        kept = (f'encoders.{modality}.', *([f'embeddings.{modality}.'] if everything else []))
        theirs: Weights = bundle.network.state_dict()
        given |= {name: theirs[name] for name in own if name.startswith(kept)}
    network.load_state_dict({**own, **given})


def _source(parts: Parts, problem: str) -> dict[str, Any]:
    """Return what the directory states about the models, JSON-ready."""
    source: dict[str, Any] = {
        'joined': {str(m): {'name': bundle.name, 'sha256': bundle.sha256,
                            'dataset': bundle.dataset, 'source': dict(bundle.source)}
                   for m, bundle in parts.items()},
        **merged_licence(bundle.source for bundle in parts.values())}
    return (
        {**source, UNTRAINED: f'the fusion and the classifiers: {problem}'} if problem else source
    )


def _dataset(parts: Parts, problem: str) -> str:
    own = '; '.join(f'{m}: {parts[m].dataset}' for m in in_order(parts))
    return f'not trained as a whole, fine-tune it first; {own}' if problem else own


def _card(name: str, parts: Parts, network: Karmma, source: Mapping[str, Any]) -> str:
    rows = '\n'.join(
        f'- {m}: `{bundle.model_id}`, {bundle.dataset}' for m, bundle in parts.items()
    )
    state = source.get(UNTRAINED)
    text = (f'**Not trained**: {state}. Its predictions mean nothing until it is fine-tuned, by '
            '`karmma train student --base`.' if state else
            'Its logits are the mean of those of the sensors that are present. Together they were '
            'not measured, and not calibrated.')
    parameters = sum(p.numel() for p in network.parameters())
    return (
        '---\nlicense: other\nlibrary_name: karmma_ros\npipeline_tag: video-classification\n---\n'
        f'\n# {name}\n\nModels of different sensors as one, '
        f'{parameters / 1e6:.2f} M parameters:\n\n{rows}'
        f'\n\n{text}\n\n## Licence\n\n{terms(source) or "none is stored"}.\n'
    )
