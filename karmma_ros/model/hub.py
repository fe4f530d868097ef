"""
Models on the Hugging Face Hub: `hf://ORGANISATION/NAME@REVISION`.

What is downloaded is a model directory as any other from strangers: weights as safetensors, JSON
and the card, of bounded sizes, and nothing else of the repository. A branch or tag means the same
commit from its first use on: the commit is written into the Hub's cache. What is in the cache is
used without a request to the Hub.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
import re
from typing import Any
from urllib.parse import quote

from karmma_ros.errors import BundleError, first_line, InvalidSettingError
from karmma_ros.files import read_regular
from karmma_ros.model.bundle import CALIBRATION, CARD, CONFIG, load_bundle, STATISTICS, WEIGHTS
from karmma_ros.model.class_statistics import MOST_STATISTICS
from karmma_ros.model.untrusted_files import digest_of_file, MOST_JSON
from karmma_ros.storage import write_atomically

SCHEME = 'hf://'
MOST_BYTES: Mapping[str, int] = {
    CONFIG: MOST_JSON, CALIBRATION: 2**20, CARD: 2**22, STATISTICS: MOST_STATISTICS,
    WEIGHTS: 2**33}
"""The files that are downloaded, the largest last → the bytes that each may have."""
_REQUIRED = (CONFIG, WEIGHTS)
_NAME = r'[A-Za-z0-9][A-Za-z0-9._-]{0,95}'
_REFERENCE = re.compile(
    rf'{SCHEME}(?P<repository>{_NAME}/{_NAME})'
    r'(?:@(?P<revision>[A-Za-z0-9][A-Za-z0-9._/-]{0,199}))?')
_COMMIT = re.compile(r'[0-9a-f]{40}')
_BRANCH = 'main'
"""Of a reference without a revision."""
_PINS = 'karmma_ros_pins'
"""Folder of a repository in the Hub's cache: a file for each branch or tag, with its commit."""
_TIMEOUT_S = 20.0
Report = Callable[[str], object]


@dataclass(frozen=True)
class HubReference:
    """A model on the Hub, at a branch, a tag or a commit."""

    repository: str
    """`ORGANISATION/NAME`."""
    revision: str = _BRANCH

    @classmethod
    def parse(cls, text: str, setting: str = 'model') -> HubReference:
        """
        Read a reference as a user writes it.

        :raises InvalidSettingError: when it is none.

        >>> from karmma_ros.model.hub import HubReference
        >>> HubReference.parse('hf://somebody/kitchen@v1').revision
        'v1'
        """
        match = _REFERENCE.fullmatch(text)
        if match is None or '..' in text:
            raise InvalidSettingError(setting, text, f'{SCHEME}ORGANISATION/NAME@REVISION')
        return cls(match['repository'], match['revision'] or _BRANCH)

    def __str__(self) -> str:
        return f'{SCHEME}{self.repository}@{self.revision}'

    @property
    def is_commit(self) -> bool:
        """Whether the revision is a commit, which never changes."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def folder(self) -> Path:
        """Return the folder of the repository in the Hub's cache."""
        from huggingface_hub import constants

        return Path(constants.HF_HUB_CACHE) / f'models--{self.repository.replace("/", "--")}'

    @property
    def page(self) -> str:
        """Return the URL of the repository."""
        from huggingface_hub import constants

        return f'{constants.ENDPOINT}/{self.repository}'


def is_hub_reference(text: str) -> bool:
    """Whether a text names a model on the Hub, well-formed or not."""
    return text.startswith(SCHEME)


def fetch_model(text: str, setting: str = 'model', report: Report = lambda line: None) -> Path:
    """
    Return the model directory of a reference, in the Hub's cache; download it if it is not there.

    :param setting: what the user set to this text.
    :param report: called with a line about a revision that is pinned, and before a download.
    :raises InvalidSettingError: when the text is no reference.
    :raises BundleError: when there is no such model, it may not be read, has files that are not
        taken, or is neither in the cache nor can be downloaded.
    """
    reference = HubReference.parse(text, setting)
    commit = reference.revision if reference.is_commit else _pinned(reference)
    if commit and _is_complete(folder := _snapshot(reference, commit)):
        return folder
    try:
        with _explained(reference):
            commit, files = _files(reference, commit)
            report(f'{reference}: downloads {sum(files.values()) / 1e6:.1f} MB, {reference.page}')
            for name in files:
                _download(reference, commit, name)
    except UnreachableError:
        commit = _cached_commit(reference)
        if not commit:
            raise
    _pin(reference, commit, report)
    return _snapshot(reference, commit)


class UnreachableError(BundleError):
    """A model is not in the cache of the Hub, and the Hub cannot be reached."""


def push_model(path: Path, text: str, api: Any = None, *, private: bool = False) -> HubReference:
    """
    Upload a model directory with its card.

    :param text: `hf://ORGANISATION/NAME`, with a branch if it is not the main one.
    :param api: `huggingface_hub.HfApi`, or an object with its methods; None: a new one.
    :param private: of a repository that does not exist yet.
    :returns: the commit.
    :raises InvalidSettingError: when the text is no reference.
    :raises BundleError: when the directory is no model, has no card, or is refused by the Hub.
    """
    reference = HubReference.parse(text, 'hf://…')
    if reference.is_commit:
        raise InvalidSettingError('hf://…', text, 'a reference without a commit')
    bundle = load_bundle(path)  # whoever downloads it loads it in the same way
    if not (path / CARD).is_file():
        raise BundleError(path, f'it has no {CARD}', 'write a model card: data, metrics, licence')
    if api is None:
        from huggingface_hub import HfApi

        api = HfApi(library_name='karmma_ros')
    with _explained(reference, uploads=True):
        api.create_repo(reference.repository, private=private, exist_ok=True)
        commit = api.upload_folder(
            repo_id=reference.repository, folder_path=path, revision=reference.revision,
            allow_patterns=list(MOST_BYTES), commit_message=f'Upload {bundle.model_id}',
            # What an earlier model had there is not of these weights.
            delete_patterns=[n for n in MOST_BYTES if not (path / n).is_file()])
    return HubReference(reference.repository, str(commit.oid))


def _snapshot(reference: HubReference, commit: str) -> Path:
    return reference.folder / 'snapshots' / commit


def _is_complete(folder: Path) -> bool:
    return all((folder / name).is_file() for name in _REQUIRED)


def _read_commit(path: Path) -> str:
    """Return the commit that a file of the cache names; empty if it names none."""
    try:
        text = read_regular(path, 100).decode('ascii').strip()
    except (OSError, ValueError):
        return ''
    return text if _COMMIT.fullmatch(text) else ''


def _pin_file(reference: HubReference) -> Path:
    return reference.folder / _PINS / quote(reference.revision, safe='')


def _pinned(reference: HubReference) -> str:
    return _read_commit(_pin_file(reference))


def _pin(reference: HubReference, commit: str, report: Report) -> None:
    if reference.is_commit or _pinned(reference) == commit:
        return
    path = _pin_file(reference)
    try:
        write_atomically(path, commit + '\n')
    except OSError as error:
        raise BundleError(
            str(reference), f'its commit cannot be written to {path} ({first_line(error)})',
            f'name the commit: {HubReference(reference.repository, commit)}') from error
    report(f'{reference} is commit {commit} from now on; delete {path} to take a newer one')


def _cached_commit(reference: HubReference) -> str:
    """Return the commit of a revision that another program downloaded, if it is complete."""
    commit = _read_commit(reference.folder / 'refs' / reference.revision)
    return commit if commit and _is_complete(_snapshot(reference, commit)) else ''


def _files(reference: HubReference, commit: str) -> tuple[str, dict[str, int]]:
    """
    Return the commit of a revision, and the files to download with their sizes.

    :raises BundleError: when files are missing or too large.
    """
    from huggingface_hub import HfApi

    info = HfApi(library_name='karmma_ros').model_info(
        reference.repository, revision=commit or reference.revision, files_metadata=True,
        timeout=_TIMEOUT_S)
    sizes = {each.rfilename: each.size for each in info.siblings or ()}
    refused = sorted(name for name in sizes if not name.endswith(('.md', '.json', '.safetensors')))
    for name in _REQUIRED:
        if name not in sizes:
            others = f'; it has {", ".join(refused[:5])}, which are not downloaded' if any(
                not name.startswith('.') for name in refused) else ''
            raise BundleError(str(reference), f'it has no {name}{others}',
                              'a model of karmma_ros is uploaded by `karmma model push`')
    if info.sha is None or not _COMMIT.fullmatch(info.sha):
        raise BundleError(str(reference), f'the Hub returned the commit {info.sha!r}',
                          'report it to the Hub')
    files = {name: size for name in MOST_BYTES if (size := sizes.get(name)) is not None}
    for name, size in files.items():
        if size > MOST_BYTES[name]:
            raise BundleError(
                str(reference), f'{name} has {size:,} bytes; expected at most '
                f'{MOST_BYTES[name]:,}', 'no model of karmma_ros is as large')
    return info.sha, files


def _download(reference: HubReference, commit: str, name: str) -> None:
    """Download a file into the cache, and compare its digest where the Hub states one."""
    from huggingface_hub import hf_hub_download

    path = Path(hf_hub_download(
        reference.repository, name, revision=commit, library_name='karmma_ros'))
    size, blob = path.stat().st_size, path.resolve()
    digest = blob.name if re.fullmatch(r'[0-9a-f]{64}', blob.name) else ''
    if size > MOST_BYTES[name] or digest and digest_of_file(path).hex() != digest:
        path.unlink()
        blob.unlink(missing_ok=True)
        raise BundleError(
            str(reference), f'what was downloaded of {name} is damaged: {size:,} bytes',
            'give the same command again')


@contextmanager
def _explained(reference: HubReference, uploads: bool = False) -> Iterator[None]:
    """Turn the errors of the Hub into ones that state what to do."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        HTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )
    text, page = str(reference), reference.page
    try:
        yield
    except BundleError:
        raise
    except GatedRepoError as error:
        raise BundleError(text, 'access to it is restricted',
                          f'accept its terms at {page}, then run `hf auth login`') from error
    except RepositoryNotFoundError as error:
        raise BundleError(
            text, 'there is no such repository, or it is private',
            f'check the name at {page}; for a private one run `hf auth login`') from error
    except RevisionNotFoundError as error:
        raise BundleError(text, f'it has no revision {reference.revision}',
                          f'its commits are at {page}/commits/main') from error
    except HFValidationError as error:
        raise BundleError(text, first_line(error), 'correct the name') from error
    except (OSError, HTTPError) as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code < 500:
            raise BundleError(
                text, f'the Hub refused it ({first_line(error)})', f'see {page}') from error
        if uploads:
            raise UnreachableError(
                text, f'the Hub cannot be reached ({first_line(error)})', 'connect this machine'
            ) from error
        raise UnreachableError(
            text, f'it is not in the cache, and the Hub cannot be reached ({first_line(error)})',
            f'connect this machine, or copy {reference.folder} from one that has it') from error
