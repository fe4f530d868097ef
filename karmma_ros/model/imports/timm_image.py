"""
Image classifiers of timm, as starts of the encoder `timm:NAME`: they classify single frames.

Classes of ImageNet-1k, size and normalisation of the frames and licence come from the installed
timm.
"""

from __future__ import annotations

from collections import Counter
import math
from pathlib import Path
from typing import Any

from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports.origin import Converted, Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import (
    classifier_config,
    RGB_CLASSIFIER,
    RGB_ENCODER,
)
from karmma_ros.model.pretrained import timm_config, timm_file
from karmma_ros.model.weights_file import Weights
from karmma_ros.prediction import Vocabulary

HEAD = 'object'
_CLASSES = 1000
_FRAME_S = 0.2
"""Seconds of a clip, which has one frame."""
_NO_LICENCE = 'Apache-2.0 of timm; the weights state none'


def timm_model(name: str) -> PublishedModel:
    """
    Return an image classifier of timm.

    :param name: such as `mobilenetv3_large_100.ra_in1k`; without a tag, timm's first.
    :raises InvalidSettingError: when there is no such model, or none of ImageNet-1k with one
        linear classifier.
    """
    config = _config(name)
    classifier = config.classifier
    licence = str(config.license or '')
    return PublishedModel(
        Origin(
            source=f'timm:{config.architecture}.{config.tag}' if config.tag else f'timm:{name}',
            page=f'https://huggingface.co/{config.hf_hub_id}' if config.hf_hub_id
            else 'https://github.com/huggingface/pytorch-image-models',
            dataset='ImageNet-1k', licence=licence or _NO_LICENCE,
            commercial_use='-nc' not in licence.lower(),
            citation=str(config.paper_name or 'Wightman: PyTorch Image Models, 2019, '
                         'doi:10.5281/zenodo.4414861')),
        classifier_config(f'timm:{config.architecture}', EncoderConfig(
            f'timm:{config.architecture}', {'classifier_tokens': True})),
        ClipSpec(_FRAME_S, 1, _video_spec(config)), Vocabulary({HEAD: _class_names()}),
        lambda weights: _convert(weights, f'{classifier}.'),
        find=lambda online: timm_file(
            name, online, 'add --download, or name a local file as timm:NAME=FILE'))


def split_file(name: str) -> tuple[str, Path | None]:
    """Return the model and the file of `NAME` or `NAME=FILE`."""
    model, _, file = name.partition('=')
    return model, Path(file).expanduser() if file else None


def _config(name: str) -> Any:
    prepare_torchvision()
    import timm

    config = timm_config(name)
    if config is None:
        known = timm.list_pretrained(f'{name.partition(".")[0]}.*') if timm.is_model(name) else []
        raise InvalidSettingError(
            'SOURCE', f'timm:{name}', ', '.join(f'timm:{each}' for each in known)
            or 'timm:NAME, with a name of timm.list_pretrained()')
    if config.num_classes != _CLASSES or not isinstance(config.classifier, str):
        raise InvalidSettingError(
            'SOURCE', f'timm:{name}', 'a model of ImageNet-1k with one linear classifier',
            f'it has {config.num_classes} classes; start an encoder from it by its `weights`')
    return config


def _video_spec(config: Any) -> VideoSpec:
    """Return the specification of the preprocessing that comes with the weights."""
    _, height, width = config.test_input_size or config.input_size
    crop = config.test_crop_pct or config.crop_pct
    short = math.floor(min(height, width) / crop)
    sides = (math.floor(height / crop), math.floor(width / crop))
    return VideoSpec(height, width, tuple(config.mean), tuple(config.std),
                     sides if config.crop_mode == 'squash' or height != width else (short,))


def _class_names() -> tuple[str, ...]:
    """Return the names of ImageNet's classes; those that occur twice with their synset."""
    from timm.data import ImageNetInfo

    info = ImageNetInfo()
    names = [info.index_to_description(i) for i in range(_CLASSES)]
    count = Counter(names)
    return tuple(name if count[name] == 1 else f'{name} ({info.index_to_label_name(i)})'
                 for i, name in enumerate(names))


def _convert(weights: Weights, classifier: str) -> Converted:
    converted = rename(weights, lambda name: (
        RGB_CLASSIFIER + name.removeprefix(classifier) if name.startswith(classifier)
        else RGB_ENCODER + name))
    # The classifier of some models is a convolution over one position.
    return Converted({name: x.flatten(1) if name == f'{RGB_CLASSIFIER}weight' else x
                      for name, x in converted.tensors.items()})
