"""
Audio Spectrogram Transformers of Gong et al. that were trained on AudioSet.

Their network is DeiT of timm. Its sizes are read from the shapes of the tensors; the patches are
those of 128 mel bands and 1024 columns. The classes of AudioSet do not exclude each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from karmma_ros.clip import AudioSpec, ClipSpec, KALDI_FBANK
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.mel import PUBLISHED_INPUT, published_stride
from karmma_ros.model.imports.class_names import check_count, read_keys
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import classifier_config
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import Vocabulary

HEAD = 'audio_event'
_ENCODER, _CLASSIFIER = 'encoders.audio.', 'embeddings.audio.project.'
_BANDS, _COLUMNS = PUBLISHED_INPUT
_MEAN, _STD = -4.2677393, 2 * 4.5689974
"""Of the features of AudioSet; their code divides by twice the standard deviation."""
_RATE, _SECONDS = 16_000, 10.0
_WINDOW, _HOP, _FFT = 400, 160, 512
_HEAD_WIDTH = 64
"""Of the attention of every DeiT."""
_ACCURACY = {'audioset_0.4593': 45.93, 'audioset_10_10_0.4593': 45.93}
"""File of weights → mean average precision, in %."""
_IMAGENET = ('v.head.', 'v.head_dist.')
"""Before the names of the classifiers of DeiT, which AST does not use."""


def ast_model(
    path: Path, weights: Weights, classes: Sequence[Path], duration: float = 0.0,
) -> PublishedModel:
    """
    Return an AST of AudioSet.

    :param weights: tensors of the file.
    :param classes: class_labels_indices.csv of AudioSet.
    :param duration: seconds of a clip; 0: 10, as a clip of AudioSet has.
    :raises InvalidSettingError: when the file is no such network, or the names do not fit.
    """
    encoder = _encoder(path, weights)
    if len(classes) != 1:
        raise InvalidSettingError(
            '--classes', [str(each) for each in classes],
            'one file with the names of the classes, class_labels_indices.csv of AudioSet')
    names = read_keys(classes[0], 'index', 'display_name')
    check_count(names, classes[0], len(weights['mlp_head.1.bias']))
    longest = (_WINDOW + (_COLUMNS - 1) * _HOP) / _RATE
    if duration > longest:
        raise InvalidSettingError('--duration', duration, f'{longest} s or less',
                                  f'this network sees {_COLUMNS} columns')
    mean_precision = _ACCURACY.get(path.stem)
    return PublishedModel(
        Origin(
            source=f'ast:{path.stem}', page='https://github.com/YuanGongND/ast',
            dataset='AudioSet', licence='BSD-3-Clause',
            citation='Gong, Chung, Glass: AST: Audio Spectrogram Transformer, Interspeech 2021, '
                     'arXiv:2104.01778',
            accuracy={} if mean_precision is None else {'mAP': mean_precision}),
        classifier_config('ast', encoder, Modality.AUDIO),
        ClipSpec(duration or _SECONDS, audio=AudioSpec(
            _RATE, _FFT, _WINDOW, _HOP, _BANDS, tiles=1, tile_steps=_COLUMNS, mean=_MEAN,
            std=_STD, features=KALDI_FBANK)),
        Vocabulary({HEAD: names}, activations={HEAD: 'sigmoid'}), _convert)


def _encoder(path: Path, weights: Weights) -> EncoderConfig:
    """Return the encoder whose tensors have the shapes of a file's."""
    missing = [name for name in ('v.pos_embed', 'v.patch_embed.proj.weight', 'v.dist_token',
                                 'mlp_head.1.bias') if name not in weights]
    if missing:
        raise _other_file(path, f'it has no {missing[0]}')
    positions, patches = weights['v.pos_embed'], weights['v.patch_embed.proj.weight']
    if positions.ndim != 3 or patches.ndim != 4:
        raise _other_file(path, f'v.pos_embed is {list(positions.shape)}, '
                          f'v.patch_embed.proj.weight {list(patches.shape)}')
    dim, _, patch, _ = patches.shape
    count = positions.shape[1] - 2
    stride = published_stride(count, patch)
    if stride is None or dim % _HEAD_WIDTH:
        raise _other_file(path, f'it has {count} patches of {dim} channels')
    layers = len({name.split('.')[2] for name in weights if name.startswith('v.blocks.')})
    return EncoderConfig('ast', {
        'dim': dim, 'layers': layers, 'heads': dim // _HEAD_WIDTH, 'patch': patch,
        'stride': stride, 'classifier_tokens': True})


def _convert(weights: Weights) -> Converted:
    def name_of(name: str) -> str | None:
        if name.startswith(_IMAGENET):
            return None
        for theirs, ours in (('v.', f'{_ENCODER}model.'), ('mlp_head.0.', f'{_ENCODER}norm.'),
                             ('mlp_head.1.', _CLASSIFIER)):
            if name.startswith(theirs):
                return ours + name.removeprefix(theirs)
        return name
    return rename(weights, name_of, 'a classifier of ImageNet, which AST does not use')


def _other_file(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError(
        'weights', str(path), 'an AST of AudioSet, of 128 mel bands and 1024 columns', problem)
