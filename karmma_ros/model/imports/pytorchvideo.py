"""
X3D of PyTorchVideo with its weights of Kinetics-400: of a clip, or of a stream (CoX3D).

The names of the classes are those of the installed torchvision, which has the same ids.
"""

from __future__ import annotations

from typing import NamedTuple

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import (
    ACTION,
    classifier_config,
    RGB_CLASSIFIER,
    torchvision_model,
)
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import Vocabulary

_PAGE = 'https://github.com/facebookresearch/pytorchvideo/blob/main/docs/source/model_zoo.md'
_FILES = 'https://dl.fbaipublicfiles.com/pytorchvideo/model_zoo/kinetics/'
_LICENCE = 'Apache-2.0 of PyTorchVideo; the weights have no licence of their own'
_X3D = ('Feichtenhofer: X3D: Expanding Architectures for Efficient Video Recognition, CVPR 2020, '
        'arXiv:2004.04730')
_CONTINUAL = ('Hedegaard, Iosifidis: Continual 3D Convolutional Neural Networks for Real-time '
              'Processing of Videos, ECCV 2022, arXiv:2106.00050')
_CLASSIFIER = 'blocks.5.proj.'
_ENCODER = 'encoders.rgb.'


class _Model(NamedTuple):
    """How the clips of a model are sampled, and what its publishers measured."""

    file: str
    frames: int
    rate: float
    side: int
    short: int
    """Shorter side of a frame before the crop, pixels."""
    accuracy: dict[str, float]
    protocol: str


_MODELS = {
    'x3d_s': _Model('X3D_S', 13, 5, 160, 182, {'top-1': 73.33, 'top-5': 91.27},
                    '10 clips of a video in 3 crops of 182 x 182'),
    'x3d_m': _Model('X3D_M', 16, 6, 224, 256, {'top-1': 75.94, 'top-5': 92.72},
                    '10 clips of a video in 3 crops of 256 x 256'),
    'cox3d_s': _Model('X3D_S', 64, 5, 160, 182, {'top-1': 67.33},
                      'one frame of a stream, a mean of 64 frames; X3D-S has 64.71 with one clip'),
    'cox3d_m': _Model('X3D_M', 64, 6, 224, 256, {'top-1': 71.03},
                      'one frame of a stream, a mean of 64 frames; X3D-M has 67.24 with one clip'),
}
_LIMITS = (
    'It encodes each frame of a stream once. Its output is that of 28 frames ago, {seconds:.1f} '
    's, since the convolutions of its authors see as many frames after as before. A window that '
    'nothing precedes, such as a clip of a data set, has black frames before it; on a stream the '
    'mean of 64 frames fades, where theirs has none of earlier ones.')


def pytorchvideo_model(name: str) -> PublishedModel:
    """
    Return an X3D of PyTorchVideo.

    :param name: `x3d_s`, `x3d_m`, or `cox3d_s` and `cox3d_m`: the same weights on a stream.
    :raises InvalidSettingError: when there is no such model.
    """
    if name not in _MODELS:
        raise InvalidSettingError(
            'SOURCE', f'pytorchvideo:{name}',
            ', '.join(f'pytorchvideo:{each}' for each in _MODELS))
    own, continual = _MODELS[name], name.startswith('co')
    return PublishedModel(
        Origin(
            source=f'pytorchvideo:{name}', page=_PAGE, url=f'{_FILES}{own.file}.pyth',
            dataset='Kinetics-400', licence=_LICENCE,
            citation=f'{_X3D}; {_CONTINUAL}' if continual else _X3D, accuracy=own.accuracy,
            protocol=own.protocol,
            limits=_LIMITS.format(seconds=28 / own.rate) if continual else ''),
        classifier_config(f'pytorchvideo:{name}', EncoderConfig(
            'x3d_continual' if continual else 'x3d', {'classifier_tokens': True})),
        ClipSpec(own.frames / own.rate, own.frames, VideoSpec(
            own.side, own.side, (0.45,) * 3, (0.225,) * 3, (own.short,))),
        Vocabulary({ACTION: torchvision_model('swin3d_t').vocabulary.heads[ACTION]}), _convert)


def _convert(weights: Weights) -> Converted:
    return rename(weights, lambda name: (
        RGB_CLASSIFIER + name.removeprefix(_CLASSIFIER) if name.startswith(_CLASSIFIER)
        else _ENCODER + name))
