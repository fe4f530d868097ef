"""
MoViNet-A0 and A2 of a stream with weights of Kinetics-600, in the port MoViNet-pytorch.

The port's tensors are the TensorFlow weights of the authors under other names.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.movinet import HORIZON
from karmma_ros.model.imports.class_names import check_count, read_class_names
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import (
    ACTION,
    classifier_config,
    RGB_CLASSIFIER,
)
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import Vocabulary

_PAGE = 'https://github.com/Atze00/MoViNet-pytorch'
_LICENCE = 'Apache-2.0 of the authors; MIT of the port, whose weights state none'
_STEM, _CLASSIFIER, _ENCODER = 'conv1.conv_1.conv2d.weight', 'classifier.3.conv_1.conv2d.', (
    'encoders.rgb.')
_RATE = 5.0
"""Frames a second."""
_VARIANTS = {8: ('a0', 172), 16: ('a2', 224)}
"""Channels of the first convolution → variant, and height of a frame."""
_ACCURACY = {'a0': (72.05, 90.63), 'a2': (78.40, 94.05)}
"""Variant → top-1 and top-5 on Kinetics-600."""
_NAMES = {each: f'model{each.upper()}_stream_statedict_v3' for each in _ACCURACY}
MOVINET_URLS = {f'movinet:{name}': f'{_PAGE}/blob/main/weights/{name}?raw=true'
                for name in _NAMES.values()}


def movinet_model(
    path: Path, weights: Weights, classes: Sequence[Path], duration: float = 0.0,
) -> PublishedModel:
    """
    Return a MoViNet of a stream.

    :param weights: tensors of the file.
    :param classes: one file with the names of the classes, such as kinetics_600_labels.txt.
    :param duration: seconds of a clip of 5 frames a second; 0: 10, as its authors measured.
    :raises InvalidSettingError: when the file is no such network, or the classes do not fit.
    """
    stem, bias = weights.get(_STEM), weights.get(f'{_CLASSIFIER}bias')
    variant = _VARIANTS.get(len(stem)) if stem is not None and stem.ndim else None
    if variant is None or bias is None:
        raise InvalidSettingError(
            'weights', str(path), 'a MoViNet-A0 or A2 of a stream, of MoViNet-pytorch',
            f'its {_STEM} has {len(stem) if stem is not None and stem.ndim else "no"} channels')
    if len(classes) != 1:
        raise InvalidSettingError(
            '--classes', [str(each) for each in classes],
            'one file, such as kinetics_600_labels.txt')
    names = read_class_names(classes[0])
    check_count(names, classes[0], len(bias))
    name, side = variant
    published = path.stem == _NAMES[name]
    return PublishedModel(
        Origin(
            source=f'movinet:{path.stem}', page=_PAGE, dataset='Kinetics-600', licence=_LICENCE,
            citation='Kondratyuk, Yuan, Li, Zhang, Tan, Brown, Gong: MoViNets: Mobile Video '
                     'Networks for Efficient Video Recognition, CVPR 2021, arXiv:2103.11511',
            accuracy=dict(zip(('top-1', 'top-5'), _ACCURACY[name])) if published else {},
            protocol='50 frames at 5 fps, one crop' if published else '',
            limits=f'It encodes each frame of a stream once. Its means are of {HORIZON} frames: '
                   'on a longer stream older ones fade, where those of its authors are of all.'),
        classifier_config(f'movinet:{name}', EncoderConfig('movinet', {
            'variant': name, 'classifier_tokens': True})),
        ClipSpec(duration or HORIZON / _RATE, max(1, round((duration or HORIZON / _RATE) * _RATE)),
                 VideoSpec(side, side, (0.0,) * 3, (1.0,) * 3)),
        Vocabulary({ACTION: names}), _convert)


def _convert(weights: Weights) -> Converted:
    converted = rename(weights, lambda name: (
        RGB_CLASSIFIER + name.removeprefix(_CLASSIFIER) if name.startswith(_CLASSIFIER)
        else _ENCODER + name))
    # The classifier is a convolution over one position.
    return Converted({name: x.flatten(1) if name == f'{RGB_CLASSIFIER}weight' else x
                      for name, x in converted.tensors.items()})
