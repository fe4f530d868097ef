"""
Layout transformers (STLT) of Radevski et al. (BMVC 2021) for Something-Something.

They recognise an action from boxes of hands and objects alone. Sizes are read from the shapes of
the tensors.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import re
from typing import Any

from karmma_ros.clip import ClipSpec, DetectionSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.layout import CATEGORIES
from karmma_ros.model.imports.class_names import check_count, read_class_names
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import ACTION, classifier_config
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import Vocabulary

BOX_ENCODER, BOX_CLASSIFIER = 'encoders.detections.', 'embeddings.detections.project.'
_FRAMES, _BOXES = 16, 7
"""Frames of a clip, and most boxes of a frame."""
_HEAD_WIDTH = 64
_EPS = 1e-12
_FRAME, _SPACE = 'backbone.frames_embeddings.', 'backbone.frames_embeddings.layout_embedding.'
_EMBEDDING = f'{_SPACE}category_box_embeddings.'
_POSITIONS = f'{_FRAME}position_embeddings.weight'
_NAMES = {
    f'{_EMBEDDING}category_embeddings.': f'{BOX_ENCODER}category.',
    f'{_EMBEDDING}box_embedding.': f'{BOX_ENCODER}box.',
    f'{_EMBEDDING}layer_norm.': f'{BOX_ENCODER}norm.',
    f'{_SPACE}transformer.': f'{BOX_ENCODER}spatial.',
    f'{_FRAME}frame_type_embedding.': f'{BOX_ENCODER}frame_type.',
    f'{_FRAME}layer_norm.': f'{BOX_ENCODER}temporal_norm.',
    'backbone.transformer.': f'{BOX_ENCODER}temporal.',
    'prediction_head.fc1.': f'{BOX_ENCODER}hidden.0.',
    'prediction_head.layer_norm.': f'{BOX_ENCODER}hidden.2.',
    'prediction_head.fc2.': BOX_CLASSIFIER,
}
"""How their names of tensors begin, and ours."""
_DROPPED = {
    f'{_EMBEDDING}score_embeddings.': 'scores are used for Action Genome only',
    f'{_SPACE}encoder_layer.': 'a layer that was copied, and is not used itself',
    f'{_FRAME}position_ids': 'the numbers of the frames',
}
"""How the names begin of tensors that are not used, and why."""


def stlt_model(
    path: Path, weights: Weights, classes: Sequence[Path], duration: float = 0.0,
) -> PublishedModel:
    """
    Return an STLT of Something-Something or Something-Else.

    :param weights: tensors of the file.
    :param classes: labels.json of the data set.
    :param duration: seconds of a clip; the network saw frames of whole videos.
    :raises InvalidSettingError: when the file is no such network, or the classes do not fit.
    """
    config = _encoder(path, weights)
    if len(classes) != 1:
        raise InvalidSettingError(
            '--classes', [str(each) for each in classes], 'one file with the names of the '
            'classes, labels.json of Something-Something or Something-Else')
    names = read_class_names(classes[0])
    check_count(names, classes[0], len(weights['prediction_head.fc2.bias']))
    if not duration:
        raise InvalidSettingError(
            '--duration', duration, 'the seconds of a clip', 'this network saw frames of whole '
            'videos, however long')
    return PublishedModel(
        Origin(
            source=f'stlt:{path.stem}',
            page='https://github.com/gorjanradevski/revisiting-spatial-temporal-layouts',
            dataset=f'{len(names)} classes of {classes[0].name}',
            licence='none stated, of code or weights',
            citation='Radevski, Moens, Tuytelaars: Revisiting spatio-temporal layouts for '
                     'compositional action recognition, BMVC 2021, arXiv:2111.01936',
            limits='It uses no scores of boxes. In training boxes below a score of 0.5 were left '
                   'out, as the parameter `detections.min_score: 0.5` of the node does.'),
        classifier_config('stlt', config, Modality.DETECTIONS),
        ClipSpec(duration, _FRAMES, detections=DetectionSpec(_BOXES)),
        Vocabulary({ACTION: names}), _convert)


def _encoder(path: Path, weights: Weights) -> EncoderConfig:
    """Return the encoder whose tensors have the shapes of a file's."""
    needed = (f'{_EMBEDDING}category_embeddings.weight', _POSITIONS, 'prediction_head.fc2.bias')
    missing = [name for name in needed if name not in weights]
    if missing:
        raise _other_file(path, f'it has no {missing[0]}')
    categories, positions = weights[needed[0]], weights[_POSITIONS]
    if categories.ndim != 2 or len(categories) != CATEGORIES or categories.shape[1] % _HEAD_WIDTH:
        raise _other_file(
            path, f'{needed[0]} is {list(categories.shape)}; others are of other objects')
    if positions.ndim != 2 or len(positions) <= _FRAMES:
        raise _other_file(path, f'{_POSITIONS} is {list(positions.shape)}')
    dim = categories.shape[1]
    return EncoderConfig('stlt', {
        'dim': dim, 'heads': dim // _HEAD_WIDTH,
        **layers_of(weights, {'spatial_layers': f'{_SPACE}transformer.',
                              'temporal_layers': 'backbone.transformer.'}),
        'causal': True, 'frame_type': True, 'norm': True, 'classifier_tokens': True,
        'norm_eps': _EPS})


def layers_of(weights: Weights, prefixes: Mapping[str, str]) -> dict[str, Any]:
    """Return option → number of layers of the transformer whose tensors begin so."""
    return {option: len({match[1] for name in weights if (match := re.match(
        rf'{re.escape(prefix)}layers\.(\d+)\.', name))}) for option, prefix in prefixes.items()}


def _convert(weights: Weights) -> Converted:
    used = {name: x for name, x in weights.items() if not name.startswith(tuple(_DROPPED))}
    converted = rename(used, lambda name: renamed(name, _NAMES))
    positions = weights[_POSITIONS]
    return Converted(
        {**{name: x for name, x in converted.tensors.items() if name != _POSITIONS},
         f'{BOX_ENCODER}frame': positions[:_FRAMES + 1]},
        {**{name: reason for name in weights for prefix, reason in _DROPPED.items()
            if name.startswith(prefix)},
         f'{_POSITIONS}[{_FRAMES + 1}:]': 'positions after the last frame'})


def renamed(name: str, names: Mapping[str, str]) -> str:
    """Return a name with another beginning, by the first of some that fits."""
    for theirs, ours in names.items():
        if name.startswith(theirs):
            return ours + name.removeprefix(theirs)
    return name


def _other_file(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError(
        'weights', str(path), 'an STLT of Something-Something with its classifier', problem)
