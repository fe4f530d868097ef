"""
Where the files of a data pack are: a folder, or a bucket (s3://, gs://, az://, https://).

Buckets are reached by obstore, which reads the usual environment variables (AWS_ENDPOINT_URL,
GOOGLE_SERVICE_ACCOUNT and so on). Each request has a time limit and is tried again.
"""

from __future__ import annotations

from datetime import timedelta
from functools import cached_property
import os
from pathlib import Path
import re
from typing import Any

from karmma_ros.errors import DataError, DISK_FULL, first_line
from karmma_ros.storage import write_atomically

TIMEOUT_S = 60.0
"""Default limit of one request."""
RETRIES = 3
_URL = re.compile(r'[a-z][a-z0-9+.-]+://', re.IGNORECASE)
_REQUIREMENTS = 'pip install -r requirements/training.txt'


def is_remote(location: str) -> bool:
    """Whether a location is a URL instead of a folder."""
    return bool(_URL.match(location))


class ShardStore:
    """
    The files of a pack by name; cheap to pickle.

    :param location: a folder or a URL.
    :param timeout_s: limit of one request to a bucket, which is repeated `RETRIES` times.
    """

    def __init__(self, location: str, timeout_s: float = TIMEOUT_S) -> None:
        self.location, self.timeout_s = location.rstrip('/'), timeout_s
        self.remote = is_remote(location)

    def __getstate__(self) -> dict[str, Any]:
        return {k: v for k, v in self.__dict__.items() if k != '_bucket'}

    def path(self, name: str) -> str:
        """Return the path or URL of a file."""
        return f'{self.location}/{name}'

    def read(self, name: str) -> bytes | None:
        """
        Return the content of a file; None when there is no such file.

        :raises DataError: when it cannot be read.
        """
        try:
            if not self.remote:
                return Path(self.location, name).read_bytes()
            import obstore
            return bytes(obstore.get(self._bucket, name).bytes())
        except FileNotFoundError:
            return None
        except NotADirectoryError:
            return None
        except Exception as error:
            raise self.problem(name, 'read', error) from error

    def size(self, name: str) -> int | None:
        """
        Return the size of a file; None when there is no such file.

        :raises DataError: when that cannot be known.
        """
        try:
            if not self.remote:
                return Path(self.location, name).stat().st_size
            import obstore
            return int(obstore.head(self._bucket, name)['size'])
        except (FileNotFoundError, NotADirectoryError):
            return None
        except Exception as error:
            raise self.problem(name, 'read', error) from error

    def write(self, name: str, content: bytes | Path) -> None:
        """
        Write a file, complete or not at all.

        :param content: bytes, or a file, which is moved where both are on one disk.
        :raises DataError: when it cannot be written.
        """
        try:
            if self.remote:
                import obstore
                obstore.put(self._bucket, name, content)
            elif isinstance(content, Path):
                os.replace(content, Path(self.location, name))
            else:
                write_atomically(Path(self.location, name), content)
        except Exception as error:
            raise self.problem(name, 'written', error) from error

    @cached_property
    def _bucket(self) -> Any:
        try:
            from obstore.store import from_url
        except ImportError as error:
            raise DataError(self.location, f'buckets are reached by obstore, which is missing '
                            f'({error})', _REQUIREMENTS) from error
        endpoint = os.environ.get('AWS_ENDPOINT_URL', '')
        plain = (endpoint or self.location).lower().startswith('http://')
        return from_url(self.location, client_options={
            'timeout': timedelta(seconds=self.timeout_s), 'allow_http': plain,
            'connect_timeout': timedelta(seconds=min(10.0, self.timeout_s))}, retry_config={
                'max_retries': RETRIES,
                'retry_timeout': timedelta(seconds=(RETRIES + 1) * self.timeout_s)})

    def problem(self, name: str, done: str, error: Exception) -> DataError:
        """
        Return the error of a file.

        :param done: what failed: read or written.
        """
        if isinstance(error, DataError):
            return error
        text = getattr(error, 'strerror', None) or first_line(error)
        if getattr(error, 'errno', None) in DISK_FULL:
            remedy = 'free some space and give the same command again: what is written is kept'
        elif not self.remote:
            remedy = 'check the folder and its permissions'
        else:
            remedy = (f'check the address, the credentials and the network; each of {RETRIES + 1} '
                      f'attempts may take {self.timeout_s:g} s')
        return DataError(self.path(name), f'it cannot be {done} ({text})', remedy)
