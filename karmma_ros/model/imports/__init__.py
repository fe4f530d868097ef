"""
Published weights of others as model directories of this package.

Each source states what its network is here, which clips and classes it has, and the names of its
tensors. `import_model` then fills the network: every tensor of it from the file, and every tensor
of the file is used, or dropped by name. Anything else is another model, and is refused.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
import re
from tempfile import TemporaryDirectory
from typing import Any

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import (
    Bundle,
    CONFIG,
    load_bundle,
    named_directory,
    save_bundle,
)
from karmma_ros.model.imports.ast import ast_model
from karmma_ros.model.imports.lavila import lavila_model, LAVILA_URLS
from karmma_ros.model.imports.movinet_stream import movinet_model, MOVINET_URLS
from karmma_ros.model.imports.origin import (
    card,
    Converted,
    in_chunks,
    PublishedModel,
)
from karmma_ros.model.imports.pytorchvideo import pytorchvideo_model
from karmma_ros.model.imports.radevski import radevski_model
from karmma_ros.model.imports.stlt import stlt_model
from karmma_ros.model.imports.timm_image import split_file, timm_model
from karmma_ros.model.imports.torchvision_video import torchvision_model
from karmma_ros.model.imports.video_swin import omnivore_model, video_swin_model
from karmma_ros.model.joined import ensemble_problem, join_models_of_sensors
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.untrusted_files import digest_of_file
from karmma_ros.model.weights_file import (
    cache_path,
    download,
    known_digest,
    MissingWeightsError,
    named_digest,
    read_weights,
    remember_digest,
    Weights,
)
import torch
from torch import Tensor


@dataclass(frozen=True)
class ImportSettings:
    """The options of an import besides its source."""

    file: Path | None = None
    """File of the weights; None: that of the source, or the published one in torch's cache."""
    weights: str = ''
    """Name of the weights, where a model has several; empty: the first."""
    classes: Sequence[Path] = ()
    """Files with the names of the classes, for a source that does not know them."""
    duration: float = 0.0
    """Seconds of a clip, for a source whose network saw clips of any length; 0: as it states."""
    chunk: int = 0
    """Frames that are encoded at a time, for streaming; 0: all of a clip, as published."""
    download: bool = False
    """Download the file if it is not there."""
    sha256: str = ''
    """Digest that the file must have, hexadecimal; empty: the one in the name of the published
    file, if it has one."""


SOURCES: dict[str, Callable[[str, ImportSettings], PublishedModel]] = {
    'torchvision': lambda name, settings: torchvision_model(name, settings.weights),
    'timm': lambda name, settings: timm_model(name),
    'pytorchvideo': lambda name, settings: pytorchvideo_model(name),
}
"""What stands before the colon of a source, of a model whose name follows; `NAME=FILE` names its
file as well."""

FILE_SOURCES: dict[str, Callable[[Path, Weights, ImportSettings], PublishedModel]] = {
    'video-swin': lambda path, weights, settings: video_swin_model(
        path, weights, settings.classes, settings.duration),
    'radevski': lambda path, weights, settings: radevski_model(
        path, weights, settings.classes, settings.duration),
    'omnivore': lambda path, weights, settings: omnivore_model(
        path, weights, settings.classes, settings.duration),
    'lavila': lambda path, weights, settings: lavila_model(
        path, weights, settings.classes, settings.duration),
    'movinet': lambda path, weights, settings: movinet_model(
        path, weights, settings.classes, settings.duration),
    'stlt': lambda path, weights, settings: stlt_model(
        path, weights, settings.classes, settings.duration),
    'ast': lambda path, weights, settings: ast_model(
        path, weights, settings.classes, settings.duration),
}
"""What stands before the colon of a source, of a file of weights that follows."""

SEPARATOR = ','
"""Between the files of a source."""

URLS = {
    'omnivore:swinB_epic':
        'https://dl.fbaipublicfiles.com/omnivore/models/swinB_epic_checkpoint.torch',
    'video-swin:swin_base_patch244_window1677_sthv2':
        'https://github.com/SwinTransformer/storage/releases/download/v1.0.4/'
        'swin_base_patch244_window1677_sthv2.pth',
    'ast:audioset_0.4593': 'https://www.dropbox.com/s/cv4knew8mvbrnvq/audioset_0.4593.pth?dl=1',
    **LAVILA_URLS,
    **MOVINET_URLS,
}
"""Files that a name stands for."""


def import_model(source: str, out: Path, settings: ImportSettings = ImportSettings()) -> Bundle:
    """
    Write a published model as a model directory, and load it.

    :param source: such as `torchvision:swin3d_t`; see `SOURCES` and `FILE_SOURCES`. Several
        files of one modality each, separated by commas, are imported and joined
        (`join_models_of_sensors`).
    :param out: the new directory.
    :raises InvalidSettingError: for an unknown source, or a file that is not its weights.
    :raises MissingWeightsError: when the file is not here.
    """
    out = named_directory(out)
    if (out / CONFIG).exists():
        raise InvalidSettingError('--out', str(out), 'a directory that holds no model yet')
    library, _, name = source.partition(':')
    _refuse_unused(library, settings)
    if library in SOURCES:
        name, file = split_file(name)
        if file is not None and settings.file is not None:
            raise InvalidSettingError(
                '--file', str(settings.file), 'left out', f'the source has the file {file}')
        settings = replace(settings, file=file or settings.file)
        model = SOURCES[library](name, settings)
        if model.find is not None and settings.file is None:
            settings = replace(settings, file=model.find(settings.download))
        given = _read(model.origin.url, settings)
    elif library in FILE_SOURCES:
        names = name.split(SEPARATOR)
        if len(names) > 1:
            _refuse_one_file_options(names, settings)
            return _import_several(library, names, out, settings)
        given = _read(URLS.get(source, ''), settings, source)
        model = FILE_SOURCES[library](given.path, given.weights, settings)
    else:
        raise InvalidSettingError('SOURCE', source, ', '.join(
            [*(f'{each}:NAME' for each in SOURCES), *(f'{each}:FILE' for each in FILE_SOURCES)]))
    if settings.chunk:
        model = in_chunks(model, settings.chunk)
    converted = model.convert(given.weights)
    network = build(model.config, model.spec, model.vocabulary).eval()
    fill(network, converted, str(given.path), model.origin.source)
    stored = _description(model, given, converted)
    save_bundle(
        out, network, model.config, model.spec, model.vocabulary,
        dataset=f'{model.origin.dataset}; weights {model.origin.source}, {model.origin.terms}',
        card=card(model, out.name, stored, sum(p.numel() for p in network.parameters())),
        source=stored)
    return load_bundle(out)


def _import_several(
    library: str, names: Sequence[str], out: Path, settings: ImportSettings,
) -> Bundle:
    """Import each file, and write their ensemble; the parameters are as of `import_model`."""
    parts: dict[Modality, Bundle] = {}
    with TemporaryDirectory() as folder:
        for i, name in enumerate(names):
            own = Path(folder, str(i), Path(name).parent.name or 'model')
            bundle = import_model(f'{library}:{name}', own, settings)
            for modality in bundle.network.modalities:
                if modality in parts:
                    raise InvalidSettingError(
                        'SOURCE', name, 'files of one modality each',
                        f'another one has {modality}')
                parts[modality] = bundle
        if problem := ensemble_problem(parts):
            raise InvalidSettingError(
                'SOURCE', SEPARATOR.join(names), 'files of the same classes', problem)
        return join_models_of_sensors(parts, out)


@dataclass(frozen=True)
class _File:
    """A file of weights."""

    path: Path
    url: str
    digest: str
    weights: Weights


def _read(url: str, settings: ImportSettings, name: str = '') -> _File:
    path = _find(url, settings, name)
    return _File(path, url, _checked_digest(path, url, settings.sha256), read_weights(path))


def fill(network: Karmma, converted: Converted, path: str, source: str) -> None:
    """
    Load the tensors of a file into the network they belong to.

    :raises InvalidSettingError: unless every tensor of the network is in the file, with its
        shape and finite, and every tensor that is not dropped belongs to the network.
    """
    own, given = network.state_dict(), converted.tensors
    problems = [_problem(name, own.get(name), given.get(name))
                for name in sorted(own.keys() | given.keys())]
    wrong = [problem for problem in problems if problem]
    if wrong:
        unknown = [problem for problem in wrong if problem.startswith(_UNKNOWN)]
        others = [problem for problem in wrong if problem not in unknown]
        shown = [*others[:2 if unknown else 3], *unknown][:3]
        raise InvalidSettingError(
            'weights', path, f'the weights of {source}',
            f'{len(wrong)} of {len(problems)} tensors do not fit: {"; ".join(shown)}'
            f'{" …" if len(wrong) > 3 else ""}')
    network.load_state_dict(given)


_UNKNOWN = 'the network has no'


def _problem(name: str, ours: Tensor | None, theirs: Tensor | None) -> str:
    if ours is None:
        return f'{_UNKNOWN} {name}'
    if theirs is None:
        return f'{name} is missing'
    if ours.shape != theirs.shape:
        return f'{name} is {list(theirs.shape)}, expected {list(ours.shape)}'
    if ours.is_floating_point() != theirs.is_floating_point():
        return f'{name} is {theirs.dtype}, expected {ours.dtype}'
    return '' if bool(torch.isfinite(theirs).all()) else f'{name} has NaN or infinity'


def _refuse_unused(library: str, settings: ImportSettings) -> None:
    named = {'--weights': settings.weights}
    for_files = {'--classes': [str(each) for each in settings.classes],
                 '--duration': settings.duration}
    for option, value in (for_files if library in SOURCES else named).items():
        if value:
            raise InvalidSettingError(option, value, 'left out', f'{library} has no use for it')
    if settings.sha256 and not re.fullmatch(r'[0-9a-fA-F]{1,64}', settings.sha256):
        raise InvalidSettingError(
            '--sha256', settings.sha256, 'hexadecimal digits, at most 64')


def _refuse_one_file_options(names: Sequence[str], settings: ImportSettings) -> None:
    given = {'--file': settings.file, '--sha256': settings.sha256}
    for option, value in given.items():
        if value:
            raise InvalidSettingError(
                option, str(value), 'left out', f'the source has {len(names)} files')


def _find(url: str, settings: ImportSettings, name: str = '') -> Path:
    """
    Return the file of the weights.

    :param url: of the published file; empty: none is known.
    :param name: the source, with the path of the file where no URL is known.
    """
    library, _, file = name.partition(':')
    given = settings.file or (None if url else Path(file).expanduser())
    if given is not None:
        if not given.is_file():
            known = [each for each in URLS if each.startswith(f'{library}:')]
            problem = 'it is no file' if given.exists() else 'there is no such file'
            if settings.file is not None:
                raise InvalidSettingError('--file', str(given), 'a file of weights', problem)
            raise InvalidSettingError(
                'SOURCE', name, ' or '.join([f'{library}:FILE', *known]), problem)
        return given
    if settings.download:
        return download(url, 'name a local file by --file')
    path = cache_path(url)
    if not path.is_file():
        raise MissingWeightsError(
            path.name, url, path, 'there is no such file',
            'add --download, or name a local file by --file')
    return path


def _checked_digest(path: Path, url: str, wanted: str) -> str:
    """Return the SHA-256 of a file, after a comparison with what is known of it."""
    try:
        digest = digest_of_file(path).hex()
    except OSError as error:
        raise InvalidSettingError('weights', str(path), 'a readable file', str(error)) from error
    if not wanted and path.name == cache_path(url).name:
        wanted = named_digest(path) or known_digest(path)
    if wanted and not digest.startswith(wanted.lower()):
        raise InvalidSettingError(
            'weights', str(path), f'a file whose SHA-256 begins with {wanted}',
            f'that of this one is {digest}: it is damaged or another file')
    if path == cache_path(url):
        remember_digest(path, digest)
    return digest


def _description(
    model: PublishedModel, given: _File, converted: Converted
) -> Mapping[str, Any]:
    """Return what the directory states about the import, JSON-ready."""
    origin = model.origin
    return {
        'source': origin.source, 'page': origin.page,
        'url': given.url, 'file': given.path.name, 'sha256': given.digest,
        'licence': origin.licence, 'commercial_use': origin.commercial_use,
        'citation': origin.citation, 'accuracy': dict(origin.accuracy),
        'protocol': origin.protocol, 'dropped': dict(converted.dropped)}
