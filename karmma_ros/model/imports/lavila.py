"""
TimeSformers of LaViLa (Zhao et al., CVPR 2023) for Epic-Kitchens-100.

Those with classifiers of verbs, nouns and actions; sizes are read from the shapes of the tensors.
"""

from __future__ import annotations

from collections.abc import Sequence
import math
from pathlib import Path

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.imports.class_names import check_count, read_keys
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel
from karmma_ros.model.imports.torchvision_video import classifier_config, RGB_CLASSIFIER
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import NOUN, VERB, Vocabulary
import torch

_ENCODER, _VISUAL = 'encoders.rgb.', 'visual.'
_MEAN = (108.3272985, 116.7460125, 104.09373615)
_STD = (68.5005327, 66.6321579, 70.32316305)
"""Of pixels of 0 to 255."""
_HEADS = {VERB: 'fc_cls.0.', NOUN: 'fc_cls.1.'}
_ACTIONS = 'fc_cls.2.'
_SECONDS = 2.0
_HEAD_WIDTH = 64
_BASE = 'clip_openai_timesformer_base.ft_ek100_cls.ep_0100.md5sum_4e3575'
_LARGE = 'clip_openai_timesformer_large.ft_ek100_cls.ep_0090.md5sum_4a2509'
_ACCURACY = {_BASE: (69.0, 58.4), _LARGE: (72.0, 62.9)}
"""File of weights → top-1 of verb and noun."""
_FOLDER = 'https://dl.fbaipublicfiles.com/lavila/checkpoints/dual_encoders/ek100_cls'
LAVILA_URLS = {f'lavila:{name}': f'{_FOLDER}/{name}.pth' for name in _ACCURACY}


def lavila_model(
    path: Path, weights: Weights, classes: Sequence[Path], duration: float = 0.0,
) -> PublishedModel:
    """
    Return a TimeSformer of LaViLa.

    :param weights: tensors of the file.
    :param classes: EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv.
    :param duration: seconds of a clip; 0: 2. The network saw frames of whole segments.
    :raises InvalidSettingError: when the file is no such network, or the classes do not fit.
    """
    frames, side, encoder = _encoder(path, weights)
    if len(classes) != len(_HEADS):
        raise InvalidSettingError(
            '--classes', [str(each) for each in classes],
            'two files: EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv')
    names = {head: read_keys(each) for head, each in zip(_HEADS, classes)}
    for (head, theirs), file in zip(_HEADS.items(), classes):
        check_count(names[head], file, len(weights[f'{theirs}bias']))
    accuracy = _ACCURACY.get(path.stem)
    return PublishedModel(
        Origin(
            source=f'lavila:{path.stem}', page='https://github.com/facebookresearch/LaViLa',
            dataset='Epic-Kitchens-100', licence='MIT of the code; the weights state none',
            citation='Zhao, Misra, Kraehenbuehl, Girdhar: Learning Video Representations from '
                     'Large Language Models, CVPR 2023, arXiv:2212.04501',
            accuracy={} if accuracy is None else {
                'verb top-1': accuracy[0], 'noun top-1': accuracy[1]}),
        classifier_config('lavila', encoder),
        ClipSpec(duration or _SECONDS, frames, VideoSpec(
            side, side, _scaled(_MEAN), _scaled(_STD))),
        Vocabulary(names), _convert)


def _scaled(values: Sequence[float]) -> tuple[float, float, float]:
    red, green, blue = (value / 255 for value in values)
    return red, green, blue


def _encoder(path: Path, weights: Weights) -> tuple[int, int, EncoderConfig]:
    """Return frames, height of a frame, and the encoder of a file's shapes."""
    heads = [f'{each}bias' for each in (*_HEADS.values(), _ACTIONS)]
    shapes = {name: tuple(weights[f'{_VISUAL}{name}'].shape) for name in (
        'pos_embed', 'temporal_embed', 'patch_embed.proj.weight', 'ln_pre.weight')
        if f'{_VISUAL}{name}' in weights}
    try:
        missing = [name for name in heads if name not in weights]
        if missing:
            raise ValueError(f'it has no {missing[0]}')
        _, positions, dim = shapes['pos_embed']
        frames, patch = shapes['temporal_embed'][1], shapes['patch_embed.proj.weight'][3]
        rows = math.isqrt(positions - 1)
        if rows ** 2 != positions - 1 or not rows or dim % _HEAD_WIDTH:
            raise ValueError(f'its pos_embed is {list(shapes["pos_embed"])}')
    except (KeyError, ValueError, IndexError) as error:
        problem = f'it has no {_VISUAL}{error.args[0]}' if isinstance(error, KeyError) else str(
            error)
        raise InvalidSettingError(
            'weights', str(path), 'a TimeSformer of LaViLa with classifiers of verbs, nouns and '
            'actions', problem) from error
    layers = len({name.split('.')[2] for name in weights if name.startswith('visual.blocks.')})
    return frames, rows * patch, EncoderConfig('timesformer', {
        'dim': dim, 'layers': layers, 'heads': dim // _HEAD_WIDTH, 'patch': patch,
        'clip': 'ln_pre.weight' in shapes, 'classifier_tokens': True})


def _convert(weights: Weights) -> Converted:
    used = {name: x for name, x in weights.items() if not name.startswith('fc_cls.')}
    heads = {name: x for name, x in weights.items()
             if name.startswith('fc_cls.') and not name.startswith((*_HEADS.values(), _ACTIONS))}
    return Converted(
        {**{_ENCODER + name.removeprefix(_VISUAL) if name.startswith(_VISUAL) else name: x
            for name, x in used.items()}, **heads,
         **{RGB_CLASSIFIER + part: torch.cat([
             weights[f'{head}{part}'] for head in _HEADS.values()])
            for part in ('weight', 'bias')}},
        {f'{_ACTIONS}{part}': 'the classifier of pairs; verb and noun have their own'
         for part in ('weight', 'bias')})
