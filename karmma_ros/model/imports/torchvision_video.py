"""
Video classifiers of torchvision with its weights of Kinetics-400.

Classes, size and normalisation of the frames, accuracy and file come from the installed
torchvision; the length and the rate of the clips are those its documentation states.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import Vocabulary

ACTION = 'action'
"""Head of a model whose classes are whole actions."""
RGB_ENCODER = 'encoders.rgb.model.'
"""Before the names of the tensors of an RGB encoder of a library."""
RGB_CLASSIFIER = 'embeddings.rgb.project.'
"""Before the names of the tensors of the classifier of RGB."""
_PAGE = 'https://pytorch.org/vision/stable/models.html'
_LICENCE = 'BSD-3-Clause of torchvision; the weights have no licence of their own'
VIDEO_SWIN_PAPER = ('Liu, Ning, Cao, Wei, Zhang, Lin, Hu: Video Swin Transformer, CVPR 2022, '
        'arXiv:2106.13230')


class _Video(NamedTuple):
    """How the clips of a model are sampled, and its paper."""

    frames: int
    rate: float
    classifier: str
    """Before the names of the tensors of its classifier."""
    citation: str


_TRAN = ('Tran, Wang, Torresani, Ray, LeCun, Paluri: A Closer Look at Spatiotemporal Convolutions '
         'for Action Recognition, CVPR 2018, arXiv:1711.11248')
_MODELS = {
    'swin3d_t': _Video(32, 15, 'head.', VIDEO_SWIN_PAPER),
    'swin3d_s': _Video(32, 15, 'head.', VIDEO_SWIN_PAPER),
    'swin3d_b': _Video(32, 15, 'head.', VIDEO_SWIN_PAPER),
    'mvit_v1_b': _Video(16, 7.5, 'head.1.', (
        'Fan, Xiong, Mangalam, Li, Yan, Malik, Feichtenhofer: Multiscale Vision Transformers, '
        'ICCV 2021, arXiv:2104.11227')),
    'mvit_v2_s': _Video(16, 7.5, 'head.1.', (
        'Li, Wu, Fan, Mangalam, Xiong, Malik, Feichtenhofer: MViTv2, CVPR 2022, '
        'arXiv:2112.01526')),
    's3d': _Video(128, 15, 'classifier.1.', (
        'Xie, Sun, Huang, Tu, Murphy: Rethinking Spatiotemporal Feature Learning, ECCV 2018, '
        'arXiv:1712.04851')),
    'r3d_18': _Video(16, 15, 'fc.', _TRAN),
    'mc3_18': _Video(16, 15, 'fc.', _TRAN),
    'r2plus1d_18': _Video(16, 15, 'fc.', _TRAN),
}


def torchvision_model(name: str, weights: str = '') -> PublishedModel:
    """
    Return a video classifier of torchvision.

    :param name: such as `swin3d_t`.
    :param weights: torchvision's name of the weights; empty: the first it has.
    :raises InvalidSettingError: when there is no such model, or it has no such weights.
    """
    if name not in _MODELS:
        raise InvalidSettingError(
            'SOURCE', f'torchvision:{name}', ', '.join(f'torchvision:{each}' for each in _MODELS))
    entry, video = _weights_entry(name, weights), _MODELS[name]
    categories = tuple(entry.meta['categories'])
    figures = entry.meta.get('_metrics', {}).get('Kinetics-400', {})
    return PublishedModel(
        Origin(
            source=f'torchvision:{name}', page=_PAGE, url=entry.url, dataset='Kinetics-400',
            licence=_LICENCE, citation=video.citation,
            accuracy={f'top-{key.removeprefix("acc@")}': value for key, value in figures.items()},
            protocol=_protocol(entry.meta.get('_docs', ''))),
        classifier_config(f'torchvision:{name}', EncoderConfig(
            f'torchvision:{name}', {'classifier_tokens': True})),
        ClipSpec(video.frames / video.rate, video.frames, _video_spec(entry.transforms)),
        Vocabulary({ACTION: categories}),
        lambda weights: _convert(weights, video.classifier))


def classifier_config(
    name: str, encoder: EncoderConfig, modality: Modality = Modality.RGB, **changes: Any,
) -> ModelConfig:
    """Return an encoder with a linear classifier on its mean token, as a network."""
    return ModelConfig(
        name, {modality: encoder}, token_cap=1, missing='omit', fusion='logit_mean', **changes)


def _weights_entry(name: str, weights: str) -> Any:
    prepare_torchvision()
    from torchvision import models  # type: ignore[import-untyped]

    entries = models.get_model_weights(name).__members__
    if weights and weights not in entries:
        raise InvalidSettingError('--weights', weights, ', '.join(entries))
    return entries[weights] if weights else next(iter(entries.values()))


def _video_spec(transforms: Any) -> VideoSpec:
    """Return the specification of the preprocessing that comes with the weights."""
    preset = transforms()
    height, width = preset.crop_size
    return VideoSpec(
        height, width, tuple(preset.mean), tuple(preset.std), tuple(preset.resize_size))


def _protocol(text: str) -> str:
    """Return the sentence of torchvision on how the accuracy was measured, without markup."""
    sentence = text.replace('`', '').partition('The accuracies are ')[2].strip().rstrip('.')
    return sentence


def _convert(weights: Weights, classifier: str) -> Converted:
    def name_of(name: str) -> str:
        if name.startswith(classifier):
            return RGB_CLASSIFIER + name.removeprefix(classifier)
        return RGB_ENCODER + name
    converted = rename(weights, name_of)
    # The classifier of S3D is a convolution over one position.
    return Converted({name: x.flatten(1) if name == f'{RGB_CLASSIFIER}weight' else x
                      for name, x in converted.tensors.items()})
