"""Files of a model directory: only regular ones of bounded size are read, and no pipe blocks."""

import json
import os
import socket
import struct

from karmma_ros.model import files
from karmma_ros.model.files import (
    digest_of_file,
    load_safetensors,
    open_regular_file,
    read_json,
    read_regular_file,
)
import pytest
from safetensors import SafetensorError
from safetensors.torch import save_file
import torch


def bind_socket(path):
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    listener.close()


SPECIAL = {
    'pipe': (os.mkfifo, 'it is a pipe .FIFO., expected a regular file'),
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
    lambda p: read_regular_file(p, 100), read_json, digest_of_file, load_safetensors])
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
        assert read_regular_file(tmp_path / name, 3) == b'abc'


def test_a_file_that_is_too_large_is_refused_unread(tmp_path):
    path = tmp_path / 'sparse'
    path.touch()
    os.truncate(path, 10**11)
    with pytest.raises(OSError, match='it has 100000000000 bytes, expected at most 100'):
        read_regular_file(path, 100)


def test_a_file_that_grows_while_it_is_read_is_refused(tmp_path, monkeypatch):
    path = tmp_path / 'growing'
    path.write_bytes(b'abc')
    check = files._check_type
    monkeypatch.setattr(
        files, '_check_type', lambda status: (check(status), path.write_bytes(b'abc' * 10)))
    with pytest.raises(OSError, match='it has'):
        read_regular_file(path, 3)


@pytest.mark.parametrize(('text', 'problem'), [
    ('[' * 200_000, '200000 objects and lists, expected at most 10000'),
    ('[' + '{},' * 20_000 + '1]', '20000|20001'),
    ('[' * 9000, 'nested too deeply|Expecting value'),
    ('9' * 10_000, 'integer string conversion|digits'),
    ('{', 'Expecting'),
])
def test_json_that_would_hold_the_parser_for_long_is_refused(tmp_path, text, problem):
    (tmp_path / 'a.json').write_text(text)
    with pytest.raises(ValueError, match=problem):
        read_json(tmp_path / 'a.json')


def test_a_configuration_with_100_000_classes_is_read(tmp_path):
    names = [f'the name of class number {i:06}' for i in range(100_000)]
    (tmp_path / 'a.json').write_text(json.dumps({'classes': {'noun': names}}, indent=1))
    assert read_json(tmp_path / 'a.json')['classes']['noun'] == names


def test_tensors_come_back_and_a_header_of_a_gigabyte_is_refused(tmp_path):
    path = tmp_path / 'a.safetensors'
    save_file({'a': torch.arange(3)}, path)
    assert load_safetensors(path)['a'].tolist() == [0, 1, 2]
    path.write_bytes(struct.pack('<Q', 10**9) + b'{}')
    os.truncate(path, 2 * 10**9)
    with pytest.raises(SafetensorError, match='its header has 1000000000 bytes'):
        load_safetensors(path)


def test_the_file_is_closed(tmp_path):
    (tmp_path / 'file').touch()
    with open_regular_file(tmp_path / 'file') as file:
        pass
    assert file.closed
