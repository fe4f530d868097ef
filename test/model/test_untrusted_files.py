"""Files of a model directory: JSON and tensors are read within bounds."""

import json
import os
import struct

from karmma_ros.model.untrusted_files import load_safetensors, read_json
import pytest
from safetensors import SafetensorError
from safetensors.torch import save_file
import torch


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
