"""
Networks of Radevski et al. (ICCV 2023) that recognise an action from RGB: Video Swin-T.

Beside a file of theirs lies the configuration of its experiment, `config.yaml`, which has the
length of the clips. Their students have RGB alone, whatever modalities taught them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import first_line, InvalidSettingError
from karmma_ros.files import read_regular
from karmma_ros.model.imports.class_names import check_count, read_class_names, read_keys
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import (
    ACTION,
    classifier_config,
    RGB_CLASSIFIER,
    RGB_ENCODER,
)
from karmma_ros.model.imports.video_swin import swin_encoder, torchvision_name
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import NOUN, VERB, Vocabulary
import torch
import yaml

CONFIG_FILE = 'config.yaml'
_HEADS = {'ACTION': ACTION, 'VERB': VERB, 'NOUN': NOUN}
"""Their names of the heads and ours."""
_CLASSIFIERS = 'classifiers.'
_RGB = 'video'
"""How the types of data begin of which a network gets RGB, such as `video_flow_audio`."""
_MOST = 2**20
"""Bytes of a configuration."""


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
    settings = _settings(path.with_name(CONFIG_FILE))
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
                 'Egocentric Action Recognition, ICCV 2023, arXiv:2307.07483')
    frames = settings['NUM_FRAMES']
    return PublishedModel(
        origin, classifier_config('radevski', swin_encoder(path, weights)),
        ClipSpec(duration or _duration(settings), frames, VideoSpec()),
        _vocabulary(weights, theirs, classes), lambda weights: _convert(weights, theirs))


def _settings(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(read_regular(path, _MOST))
        wrong = [f'{name} is {content[name]!r}' for name in ('NUM_FRAMES', 'STRIDE', 'VIDEO_FPS')
                 if not (isinstance(content[name], int) and content[name] > 0)]
        if content['MODEL_NAME'] != 'swin' or not content['DATASET_TYPE'].startswith(_RGB):
            wrong.append(f'it is of {content["MODEL_NAME"]} for {content["DATASET_TYPE"]}')
    except (OSError, ValueError, yaml.YAMLError, LookupError, TypeError, AttributeError) as error:
        raise _other(path, first_line(error)) from error
    if wrong:
        raise _other(path, wrong[0])
    assert isinstance(content, Mapping)
    return content


def _other(path: Path, problem: str) -> InvalidSettingError:
    return InvalidSettingError(
        'SOURCE', str(path), 'the configuration that comes with the weights, of MODEL_NAME swin '
        'and a DATASET_TYPE that begins with video', problem)


def _duration(settings: Mapping[str, Any]) -> float:
    if settings.get('FRAME_UNIFORM'):
        raise InvalidSettingError(
            '--duration', 0, 'the seconds of a clip', 'this network saw frames of whole videos, '
            'however long')
    return float(settings['NUM_FRAMES'] * settings['STRIDE'] / settings['VIDEO_FPS'])


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


def _convert(weights: Weights, theirs: Sequence[str]) -> Converted:
    heads = [f'{_CLASSIFIERS}{head}.{part}' for head in theirs for part in ('weight', 'bias')]
    trunk = rename({name: x for name, x in weights.items() if name not in heads},
                   lambda name: RGB_ENCODER + torchvision_name(name))
    return Converted({**trunk.tensors, **{
        RGB_CLASSIFIER + part: torch.cat([
            weights[f'{_CLASSIFIERS}{head}.{part}'] for head in theirs])
        for part in ('weight', 'bias')}})
