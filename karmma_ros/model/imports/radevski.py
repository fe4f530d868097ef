"""
Networks of Radevski et al. (ICCV 2023): Video Swin-T of RGB, flow or audio, STLT of boxes.

Beside a file of theirs lies the configuration of its experiment, `config.yaml`, which has the
length of the clips and what they consist of. Their students have RGB alone, whatever modalities
taught them; their teachers have one modality each.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from karmma_ros.clip import AudioSpec, ClipSpec, DetectionSpec, VideoSpec
from karmma_ros.errors import first_line, InvalidSettingError
from karmma_ros.files import read_regular
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.imports.class_names import check_count, read_class_names, read_keys
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.imports.stlt import layers_of, renamed
from karmma_ros.model.imports.torchvision_video import ACTION, classifier_config
from karmma_ros.model.imports.video_swin import swin_encoder, torchvision_name
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import NOUN, VERB, Vocabulary
import torch
import yaml

CONFIG_FILE = 'config.yaml'
_HEADS = {'ACTION': ACTION, 'VERB': VERB, 'NOUN': NOUN}
"""Their names of the heads and ours."""
_CLASSIFIERS = 'classifiers.'
_NETWORKS = {'video': ('swin', Modality.RGB), 'flow': ('swin', Modality.FLOW),
          'audio': ('swin', Modality.AUDIO), 'layout': ('stlt', Modality.DETECTIONS)}
"""Type of data → the network it has, and the modality."""
_RGB = 'video_'
"""How the types of data of students begin, such as `video_flow_audio`: their network has RGB."""
_MOST = 2**20
"""Bytes of a configuration."""
_RATE, _TILE_S = 16_000, 1.116
"""Of audio: Hz, and seconds around each frame."""
_SIDE = 224
_BOXES, _ATTENTION_HEADS, _EPS = 14, 8, 0.1
"""Of STLT: most boxes of a frame, and what is not in its tensors."""
_TIME = 'temporal_transformer.'
_SPACE = f'{_TIME}layout_embedding.'
_EMBEDDING = f'{_SPACE}category_box_embeddings.'
_CATEGORIES, _POSITIONS = f'{_EMBEDDING}category_embeddings.weight', f'{_TIME}position_embeddings.'
_CLASS_TOKENS = f'{_SPACE}cls_token', f'{_TIME}cls_token'
_CATEGORY_ORDER = [0, 2, 1]
"""Of pad, hand and object: they have objects before hands."""
_CONSTANT = {f'{_EMBEDDING}side_embedding.weight': 'the side of a hand is not known here',
             f'{_EMBEDDING}state_embedding.weight': 'the contact of a hand is not known here'}
"""Embeddings of which our boxes have only the first entry."""
_BOX_ENCODER = 'encoders.detections.'
_BOX_LIMITS = (
    'Its network saw the score of each box, the side of each hand and whether it is in contact. '
    'Here every box has the score 1, as an annotated box, and hands are of no side and in no '
    'contact: expect less than the published accuracy.')
_BOX_NAMES = {
    _CATEGORIES: f'{_BOX_ENCODER}category.weight',
    f'{_EMBEDDING}box_embedding.': f'{_BOX_ENCODER}box.',
    f'{_EMBEDDING}score_embedding.': f'{_BOX_ENCODER}score.',
    f'{_EMBEDDING}layer_norm.': f'{_BOX_ENCODER}norm.',
    f'{_SPACE}transformer.': f'{_BOX_ENCODER}spatial.',
    f'{_POSITIONS}weight': f'{_BOX_ENCODER}frame',
    f'{_TIME}layer_norm.': f'{_BOX_ENCODER}temporal_norm.',
    f'{_TIME}transformer.': f'{_BOX_ENCODER}temporal.',
}
"""How their names of tensors of STLT begin, and ours."""


def radevski_model(
    path: Path, weights: Weights, classes: Sequence[Path], duration: float = 0.0,
) -> PublishedModel:
    """
    Return a network of Radevski et al.

    :param weights: tensors of the file.
    :param classes: labels.json of Something-Something; or of Epic-Kitchens-100
        EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv.
    :param duration: seconds of a clip; 0: as configured.
    :raises InvalidSettingError: when the file is no such network, or the classes do not fit.
    """
    settings, modality = _settings(path.with_name(CONFIG_FILE))
    theirs = [head for head in _HEADS if {
        f'{_CLASSIFIERS}{head}.{part}' for part in ('weight', 'bias')} <= weights.keys()]
    if not theirs:
        raise InvalidSettingError(
            'weights', str(path), 'a network of Radevski et al.', 'it has no classifier')
    origin = Origin(
        source=f'radevski:{path.stem}',
        page='https://github.com/gorjanradevski/multimodal-distillation',
        dataset=str(settings.get('TRAIN_DATASET_NAME')),
        licence='MIT of the code; the weights state none',
        citation='Radevski, Grujicic, Blaschko, Moens, Tuytelaars: Multimodal Distillation for '
                 'Egocentric Action Recognition, ICCV 2023, arXiv:2307.07483',
        limits=_BOX_LIMITS if modality is Modality.DETECTIONS else '')
    encoder = (_box_encoder(path, weights) if modality is Modality.DETECTIONS
               else _swin(path, weights, modality))
    return PublishedModel(
        origin, classifier_config('radevski', encoder, modality),
        _clip(path.with_name(CONFIG_FILE), settings, modality, duration),
        _vocabulary(weights, theirs, classes),
        lambda weights: _convert(weights, theirs, modality))


def _settings(path: Path) -> tuple[Mapping[str, Any], Modality]:
    try:
        content = yaml.safe_load(read_regular(path, _MOST))
        wrong = [f'{name} is {content[name]!r}' for name in ('NUM_FRAMES', 'STRIDE', 'VIDEO_FPS')
                 if not (isinstance(content[name], int) and content[name] > 0)]
        data = content['DATASET_TYPE']
        network, modality = _NETWORKS.get('video' if data.startswith(_RGB) else data, ('', None))
        if content['MODEL_NAME'] != network:
            wrong.append(f'it is of {content["MODEL_NAME"]} for {data}')
    except OSError as error:
        raise _other(path, f'{error.strerror or error}: put it beside the weights') from error
    except (ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise _other(path, first_line(error)) from error
    if wrong or modality is None:
        raise _other(path, wrong[0])
    assert isinstance(content, Mapping)
    return content, modality


def _other(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError(
        'SOURCE', str(path), 'the configuration that comes with the weights, of MODEL_NAME swin '
        'for video, flow or audio, or stlt for layout', problem)


def _clip(
    path: Path, settings: Mapping[str, Any], modality: Modality, duration: float,
) -> ClipSpec:
    frames = settings['NUM_FRAMES']
    clip = ClipSpec(duration or _duration(settings), frames, VideoSpec())
    if modality is Modality.DETECTIONS:
        return ClipSpec(clip.duration, frames, detections=DetectionSpec(_BOXES))
    if modality is not Modality.AUDIO:
        return clip
    rate = settings.get('AUDIO_RESAMPLE_RATE') or settings.get('AUDIO_SAMPLE_RATE')
    if (rate, settings.get('AUDIO_SEGMENT_LENGTH')) != (_RATE, _TILE_S):
        raise _other(path, f'audio of {rate} Hz around frames, of '
                     f'{settings.get("AUDIO_SEGMENT_LENGTH")} s; expected {_RATE} Hz, {_TILE_S} s')
    return ClipSpec(clip.duration, frames, audio=AudioSpec(tiles=frames, tile_duration=_TILE_S))


def _duration(settings: Mapping[str, Any]) -> float:
    if settings.get('FRAME_UNIFORM'):
        raise InvalidSettingError(
            '--duration', 0, 'the seconds of a clip', 'this network saw frames of whole videos, '
            'however long')
    return float(settings['NUM_FRAMES'] * settings['STRIDE'] / settings['VIDEO_FPS'])


def _swin(path: Path, weights: Weights, modality: Modality) -> EncoderConfig:
    encoder = swin_encoder(path, weights)
    if modality is not Modality.AUDIO:
        return encoder
    return EncoderConfig(encoder.name, {
        **encoder.options, 'size': [_SIDE, _SIDE], 'interpolation': 'nearest'})


def _box_encoder(path: Path, weights: Weights) -> EncoderConfig:
    missing = [name for name in (_CATEGORIES, f'{_EMBEDDING}box_embedding.bias', *_CLASS_TOKENS,
                                 *_CONSTANT) if name not in weights]
    categories = weights.get(_CATEGORIES)
    if missing or categories is None or categories.ndim != 2 or len(categories) != 3:
        raise InvalidSettingError(
            'weights', str(path), 'an STLT of Radevski et al., of 3 categories',
            f'it has no {missing[0]}' if missing or categories is None
            else f'{_CATEGORIES} is {list(categories.shape)}')
    return EncoderConfig('stlt', {
        'dim': categories.shape[1], 'heads': _ATTENTION_HEADS, **layers_of(weights, {
            'spatial_layers': f'{_SPACE}transformer.', 'temporal_layers': f'{_TIME}transformer.'}),
        'causal': True, 'norm': True, 'score': True, 'learned_class': True,
        'classifier_tokens': True, 'norm_eps': _EPS})


def _vocabulary(weights: Weights, theirs: Sequence[str], classes: Sequence[Path]) -> Vocabulary:
    if len(classes) != len(theirs):
        raise InvalidSettingError(
            '--classes', [str(each) for each in classes],
            f'{len(theirs)} files with the names of the classes of {", ".join(theirs)}')
    names = {}
    for head, path in zip(theirs, classes):
        names[_HEADS[head]] = read_class_names(path) if head == 'ACTION' else read_keys(path)
        check_count(names[_HEADS[head]], path, len(weights[f'{_CLASSIFIERS}{head}.bias']))
    return Vocabulary(names)


def _convert(weights: Weights, theirs: Sequence[str], modality: Modality) -> Converted:
    heads = [f'{_CLASSIFIERS}{head}.{part}' for head in theirs for part in ('weight', 'bias')]
    trunk = {name: x for name, x in weights.items() if name not in heads}
    converted = _convert_boxes(trunk) if modality is Modality.DETECTIONS else rename(
        trunk, lambda name: f'encoders.{modality}.model.{torchvision_name(name)}')
    return Converted({**converted.tensors, **{
        f'embeddings.{modality}.project.{part}': torch.cat([
            weights[f'{_CLASSIFIERS}{head}.{part}'] for head in theirs])
        for part in ('weight', 'bias')}}, converted.dropped)


def _convert_boxes(weights: Weights) -> Converted:
    """
    Return the tensors of STLT under our names.

    What its embeddings of sides and states add to every box is part of our bias.
    """
    used = {name: x for name, x in weights.items() if name not in (*_CONSTANT, *_CLASS_TOKENS)}
    bias = f'{_EMBEDDING}box_embedding.bias'
    used[bias] = used[bias] + sum(weights[name][0] for name in _CONSTANT)
    used[_CATEGORIES] = used[_CATEGORIES][_CATEGORY_ORDER]
    tokens = torch.cat([weights[name].flatten(0, -2) for name in _CLASS_TOKENS])
    return Converted(
        {**rename(used, lambda name: renamed(name, _BOX_NAMES)).tensors,
         f'{_BOX_ENCODER}class_tokens': tokens},
        {f'{name}[1:]': reason for name, reason in _CONSTANT.items()})
