"""A JSON object read member by member is what the json module reads whole."""

import json

from hypothesis import given, settings, strategies
from karmma_ros.data import something_else as module
from karmma_ros.data.something_else import json_members
from karmma_ros.errors import DataError
import pytest

VALUES = strategies.recursive(
    strategies.none() | strategies.booleans() | strategies.integers()
    | strategies.floats(allow_nan=False) | strategies.text(),
    lambda inner: strategies.lists(inner) | strategies.dictionaries(strategies.text(), inner),
    max_leaves=20)


@settings(deadline=None)
@given(members=strategies.dictionaries(strategies.text(), VALUES), chunk=strategies.integers(1, 9),
       indent=strategies.sampled_from([None, 1]), ascii=strategies.booleans())
def test_any_object_in_pieces_of_any_size(tmp_path_factory, members, chunk, indent, ascii):
    path = tmp_path_factory.mktemp('json') / 'file.json'
    text = json.dumps(members, indent=indent, ensure_ascii=ascii)
    path.write_text(text, encoding='utf-8', newline='')
    read = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, 'CHUNK', chunk)
        assert list(json_members(path, read.append)) == list(members.items())
    assert sum(read) == len(text)


def test_members_come_before_the_file_is_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(module, 'CHUNK', 100)
    path = tmp_path / 'file.json'
    path.write_text(json.dumps({str(i): [i] * 20 for i in range(1000)}))
    read = []
    assert next(json_members(path, read.append)) == ('0', [0] * 20)
    assert sum(read) <= 200


@pytest.mark.parametrize('text', [
    '{"1": [1, 2], "2": [3', '{"1": [1, 2]', '{"1": [1, 2],', '{"1"', '{', '', '{"1": "ab',
])
@pytest.mark.parametrize('chunk', [1, 1 << 20])
def test_a_truncated_file_is_reported(tmp_path, monkeypatch, text, chunk):
    monkeypatch.setattr(module, 'CHUNK', chunk)
    path = tmp_path / 'file.json'
    path.write_text(text)
    with pytest.raises(DataError, match=r'file\.json: it is no JSON object: .* write it again'):
        list(json_members(path))


@pytest.mark.parametrize(('text', 'complaint'), [
    ('[1]', "'{' was expected, at character 0"),
    ('{"a": 1} {', 'something follows the end of its object, at character 9'),
    ('{"a": 1,}', 'a member with a "name" was expected, at character 8'),
    ('{"a" 1}', "':' was expected, at character 5"),
    ('{"a": 1 "b": 2}', "'}' was expected, at character 8"),
    ('{"a": oh}', 'Expecting value, at character 6'),
    ('{"a": [1, oh]}', 'Expecting value, at character 10'),
])
def test_text_that_is_no_object_is_reported_with_its_position(tmp_path, text, complaint):
    path = tmp_path / 'file.json'
    path.write_text(text)
    with pytest.raises(DataError) as caught:
        list(json_members(path))
    assert complaint in str(caught.value)


def test_an_error_at_the_start_of_a_long_file_is_reported_without_reading_it_all(
    tmp_path, monkeypatch,
):
    monkeypatch.setattr(module, 'CHUNK', 1 << 16)
    path = tmp_path / 'file.json'
    path.write_text('{"a": [oh, ' + '1, ' * 1_000_000 + '1]}')
    read = []
    with pytest.raises(DataError, match='at character 7'):
        list(json_members(path, read.append))
    assert sum(read) <= 3 << 16


def test_other_files_are_reported(tmp_path):
    with pytest.raises(DataError, match='No such file or directory: check the path'):
        list(json_members(tmp_path / 'none.json'))
    (tmp_path / 'picture').write_bytes(b'{"\xff\xd8')
    with pytest.raises(DataError, match='it is no text'):
        list(json_members(tmp_path / 'picture'))
