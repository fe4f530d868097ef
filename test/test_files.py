"""Only regular files of a bounded size are opened, and no pipe blocks whoever opens it."""

import os
import socket

from karmma_ros import files
from karmma_ros.errors import DataError
from karmma_ros.files import (
    file_problem,
    open_data_file,
    open_regular,
    read_data_file,
    read_regular,
)
from karmma_ros.model.untrusted_files import digest_of_file, load_safetensors, read_json
import pytest


def bind_socket(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()


SPECIAL = {
    'pipe': (os.mkfifo, 'it is a pipe .FIFO.; expected a regular file'),
    'link to a pipe': (
        lambda p: (os.mkfifo(p.with_suffix('.pipe')), p.symlink_to(p.with_suffix('.pipe'))),
        'it is a pipe'),
    'device': (lambda p: p.symlink_to('/dev/zero'), 'it is a character device'),
    'directory': (os.mkdir, 'it is a directory'),
    'socket': (bind_socket, 'it is a socket'),
    'link to itself': (lambda p: p.symlink_to(p), 'Too many levels of symbolic links'),
    'nothing': (lambda p: None, 'No such file'),
}


@pytest.mark.timeout(30)
@pytest.mark.parametrize(('make', 'text'), SPECIAL.values(), ids=list(SPECIAL))
@pytest.mark.parametrize('read', [
    lambda p: read_regular(p, 100), open_regular, read_json, digest_of_file,
    load_safetensors])
def test_what_is_no_regular_file_is_refused_without_waiting(
        tmp_path, monkeypatch, read, make, text):
    monkeypatch.chdir(tmp_path)  # the name of a socket must be short
    path = tmp_path / 'file'
    make(path)
    with pytest.raises(OSError, match=text):
        read(path)


def test_a_regular_file_and_a_link_to_one_are_read(tmp_path):
    (tmp_path / 'file').write_bytes(b'abc')
    (tmp_path / 'link').symlink_to(tmp_path / 'file')
    for name in ('file', 'link'):
        assert read_regular(tmp_path / name, 3) == b'abc'


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / 'sparse'
    path.touch()
    os.truncate(path, 10**11)
    with pytest.raises(OSError, match='it has 100,000,000,000 bytes; expected at most 100'):
        read_regular(path, 100)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / 'growing'
    path.write_bytes(b'abc')
    check = files._check_type
    monkeypatch.setattr(
        files, '_check_type', lambda status: (check(status), path.write_bytes(b'abc' * 10)))
    with pytest.raises(OSError, match='it has'):
        read_regular(path, 3)


def test_the_file_is_closed(tmp_path):
    (tmp_path / 'file').touch()
    with open_regular(tmp_path / 'file') as file:
        pass
    assert file.closed


@pytest.mark.timeout(30)
@pytest.mark.parametrize(('make', 'text'), [
    item for name, item in SPECIAL.items() if name != 'nothing'])
@pytest.mark.parametrize('read', [open_data_file, lambda path: read_data_file(path, 100)])
def test_of_a_data_set_it_is_refused_with_its_path(tmp_path, monkeypatch, read, make, text):
    monkeypatch.chdir(tmp_path)
    make(tmp_path / 'file')
    with pytest.raises(DataError, match=f'^data .*file: .*{text}.*: check the path'):
        read(tmp_path / 'file')
    assert file_problem(tmp_path / 'file').startswith(f"{tmp_path / 'file'}: ")


def test_a_file_of_a_data_set_has_a_bound(tmp_path):
    (tmp_path / 'file').write_bytes(b'abc')
    assert read_data_file(tmp_path / 'file', 3) == b'abc'
    assert file_problem(tmp_path / 'file') is None
    with pytest.raises(DataError, match='it has 3 bytes; expected at most 2'):
        read_data_file(tmp_path / 'file', 2)
    with pytest.raises(FileNotFoundError):
        read_data_file(tmp_path / 'other', 2)
    with pytest.raises(DataError, match='null'):
        open_data_file(tmp_path / 'a\0b')
