"""
Video Swin Transformers in the form of their authors: Liu et al., and Omnivore's for Epic-Kitchens.

Their network is torchvision's `SwinTransformer3d` under other names. Its sizes are read from the
shapes of the tensors.

Shape legend: c channels, t frames, h height, w width, n tokens of a window, r relative positions,
a attention heads.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
import re
from typing import Any

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.imports.class_names import check_count, read_class_names, read_pairs
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import (
    ACTION,
    classifier_config,
    RGB_CLASSIFIER,
    RGB_ENCODER,
    VIDEO_SWIN_PAPER,
)
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import Vocabulary

_GIRDHAR = ('Girdhar, Singh, Ravi, van der Maaten, Joulin, Misra: Omnivore: A Single Model for '
            'Many Visual Modalities, CVPR 2022, arXiv:2201.08377')
_DATASETS = {174: 'Something-Something V2', 400: 'Kinetics-400', 600: 'Kinetics-600'}
"""Data set of a number of classes."""
_SSV2 = 'swin_base_patch244_window1677_sthv2'
_FRAMES, _RATE = 32, 15
_FC, _HEAD = 'cls_head.fc_cls.', 'heads.1.'
"""Before the names of the tensors of the classifier: of Liu et al., of Omnivore."""
_TRUNKS = ('backbone.', 'trunk.')
"""Before the names of the network; the classifier has others."""
_LAYER = re.compile(r'layers\.(\d+)\.(blocks|downsample)\.(.*)')
_INDEX = 'relative_position_index'
_TABLE = 'relative_position_bias_table'


def video_swin_model(
    path: Path, weights: Weights, classes: Sequence[Path], duration: float = 0.0,
) -> PublishedModel:
    """
    Return a Video Swin of Liu et al., in mmaction's names.

    :param weights: tensors of the file.
    :param classes: a file with the names of the classes.
    :param duration: seconds of a clip; 0: 32 frames at 15 a second.
    :raises InvalidSettingError: when the file is no Video Swin, or the names do not fit.
    """
    count = _classes(path, weights, _FC)
    if len(classes) != 1:
        raise InvalidSettingError(
            '--classes', [str(each) for each in classes], 'one file with the names of the '
            'classes, such as labels.json of Something-Something')
    names = read_class_names(classes[0])
    check_count(names, classes[0], count)
    dataset = _DATASETS.get(
        count, f'{count} classes of {classes[0].name}')
    accuracy = {'top-1': 69.6, 'top-5': 92.7} if path.stem == _SSV2 else {}
    origin = Origin(
        source=f'video-swin:{path.stem}', page='https://github.com/SwinTransformer/Video-Swin-Transformer',
        dataset=dataset, licence='Apache-2.0', citation=VIDEO_SWIN_PAPER, accuracy=accuracy,
        protocol='3 crops of 32 frames' if accuracy else '')
    return PublishedModel(
        origin, classifier_config('video-swin', swin_encoder(path, weights)),
        ClipSpec(duration or _FRAMES / _RATE, _FRAMES, VideoSpec(resize=(256,))),
        Vocabulary({ACTION: names}), lambda weights: _convert(weights, _FC))


def omnivore_model(
    path: Path, weights: Weights, classes: Sequence[Path], duration: float = 0.0,
) -> PublishedModel:
    """
    Return Omnivore's Swin-B of Epic-Kitchens-100, which classifies pairs of verb and noun.

    :param classes: the pairs, EPIC_100_verb_classes.csv and EPIC_100_noun_classes.csv.
    :param duration: seconds of a clip; 0: 2.
    :raises InvalidSettingError: when the file is no such network, or the classes do not fit.
    """
    count = _classes(path, weights, _HEAD)
    if len(classes) != 3:
        raise InvalidSettingError(
            '--classes', [str(each) for each in classes], 'three files: epic_action_classes.csv '
            'of Omnivore, EPIC_100_verb_classes.csv, EPIC_100_noun_classes.csv')
    vocabulary, pairs = read_pairs(*classes)
    check_count(pairs[next(iter(pairs))], classes[0], count)
    origin = Origin(
        source=f'omnivore:{path.stem}', page='https://github.com/facebookresearch/omnivore',
        dataset='Epic-Kitchens-100', licence='CC BY-NC 4.0', commercial_use=False,
        citation=_GIRDHAR)
    return PublishedModel(
        origin, classifier_config('omnivore', swin_encoder(path, weights), pairs=pairs),
        ClipSpec(duration or 2.0, _FRAMES, VideoSpec()), vocabulary,
        lambda weights: _convert(weights, _HEAD))


def _classes(path: Path, weights: Weights, classifier: str) -> int:
    for name in (f'{classifier}bias', f'{classifier}weight'):
        if name not in weights:
            raise _other_file(path, f'it has no {name}')
    return len(weights[f'{classifier}bias'])


def swin_encoder(path: Path, weights: Weights) -> EncoderConfig:
    """
    Return the network whose tensors have the shapes of a file's.

    :raises InvalidSettingError: when they are not those of a Video Swin.
    """
    shapes = {_trunk_name(name): tuple(x.shape) for name, x in weights.items()}
    try:
        width, _, *patch = shapes['patch_embed.proj.weight']
        depths: list[int] = []
        heads, windows = [], set()
        while f'layers.{len(depths)}.blocks.0.attn.{_TABLE}' in shapes:
            block = f'layers.{len(depths)}.blocks.0.attn.'
            rows, layer_heads = shapes[block + _TABLE]
            windows.add(_window(shapes[block + _INDEX][0], rows))
            heads.append(layer_heads)
            depths.append(len({name.split('.')[3] for name in shapes if name.startswith(
                f'layers.{len(depths)}.blocks.')}))
        window, = windows
    except (KeyError, ValueError, IndexError) as error:
        raise _other_file(path, f'its {error} is not as of one') from error
    options: dict[str, Any] = {
        'patch_size': patch, 'embed_dim': width, 'depths': depths, 'num_heads': heads,
        'window_size': list(window)}
    return EncoderConfig('torchvision:SwinTransformer3d', options)


def _window(tokens: int, rows: int) -> tuple[int, int, int]:
    """
    Return frames, height and width of the windows, which are square.

    :param tokens: of a window, n.
    :param rows: relative positions, r = (2 t - 1) (2 h - 1) (2 w - 1).
    """
    for side in range(1, int(tokens ** 0.5) + 1):
        frames = tokens // side ** 2
        if frames * side ** 2 == tokens and (2 * frames - 1) * (2 * side - 1) ** 2 == rows:
            return frames, side, side
    raise ValueError(f'window of {tokens} tokens')


def _convert(weights: Weights, classifier: str) -> Converted:
    def name_of(name: str) -> str:
        if name.startswith(classifier):
            return RGB_CLASSIFIER + name.removeprefix(classifier)
        return RGB_ENCODER + torchvision_name(name)
    return rename(weights, name_of)


def _trunk_name(name: str) -> str:
    for prefix in _TRUNKS:
        name = name.removeprefix(prefix)
    return name


def torchvision_name(name: str) -> str:
    """Return torchvision's name of a tensor of the authors' network."""
    name = _trunk_name(name)
    match = _LAYER.fullmatch(name)
    if match is None:
        return name
    layer, part, rest = int(match[1]), match[2], match[3]
    if part == 'downsample':
        return f'features.{2 * layer + 1}.{rest}'
    return f'features.{2 * layer}.' + rest.replace('mlp.fc1.', 'mlp.0.').replace(
        'mlp.fc2.', 'mlp.3.')


def _other_file(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError('weights', str(path), 'a Video Swin Transformer', problem)
