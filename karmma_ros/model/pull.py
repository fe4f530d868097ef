"""Models of the model zoo as model directories."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from karmma_ros.errors import count_text, InvalidSettingError
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.imports import import_model, ImportSettings
from karmma_ros.model.model_zoo import zoo_entry
from karmma_ros.model.weights_file import MissingWeightsError


def pull_model(name: str, out: Path, settings: ImportSettings = ImportSettings()) -> Bundle:
    """
    Download a model of the model zoo, unless its file is here, and import it.

    :param name: such as `swin3d_t`.
    :param out: the new directory.
    :param settings: which weights is known, and `download` need not be set.
    :raises InvalidSettingError: for an unknown name, or a model that cannot be imported.
    :raises MissingWeightsError: when the file cannot be downloaded; it names the file, its URL
        and where to put it.
    """
    entry = zoo_entry(name)
    if entry.obstacle:
        raise InvalidSettingError(
            'NAME', name, 'a model that can be imported', f'this one cannot: {entry.obstacle}')
    if len(settings.classes) != len(entry.class_files):
        raise InvalidSettingError(
            '--classes', [str(each) for each in settings.classes],
            count_text(len(entry.class_files), 'file') if entry.class_files else 'left out',
            f'get {" and ".join(entry.class_files)}' if entry.class_files else
            'the names of its classes are known')
    if not entry.url and settings.file is None:
        raise MissingWeightsError(
            f'of {name}', entry.page, 'any folder', 'they can be downloaded in a browser only',
            'name the file you have by --file')
    return import_model(
        entry.source, out, replace(settings, weights=entry.weights, download=True))
