"""`karmma data labels`, from bags and files to one label file that scores a bag."""

import json

from karmma_ros.bags.limits import zstd
from karmma_ros.cli.main import main
from karmma_ros.data.labels.label_file import read_label_file
import pytest


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('labels') / 'monday.mcap'
    words = ['--episodes', '3', '--seconds', '1', '--rate', '10', '--size', '32x24']
    assert main(['bag', 'synthetic', str(path), *words]) == 0
    return path


def convert(*words):
    return main(['data', 'labels', *map(str, words)])


def test_annotations_of_a_bag_are_labels(bag, tmp_path, capsys):
    out = tmp_path / 'labels.csv'
    assert convert(bag, '--out', out) == 0
    assert 'labels.csv: 3 labels of 1 recording' in capsys.readouterr().out
    lines = out.read_text().splitlines()
    assert lines[0] == 'recording,start,stop,verb,noun'
    assert [line.split(',')[:3] for line in lines[1:]] == [
        ['monday', str(i), str(i + 1)] for i in range(3)]


def test_the_label_file_is_ground_truth(bag, tmp_path):
    out, report = tmp_path / 'labels.csv', tmp_path / 'report'
    convert(bag, '--out', out)
    words = ['--model', 'synthetic_kitchen', '--ground-truth', str(out), '--out', str(report)]
    assert main(['bag', 'evaluate', str(bag), *words]) == 0
    scored = json.loads((report / 'report.json').read_text())
    names = [f'{a}/{b}' for a, b in zip(*scored['segments']['names'].values())]
    assert names == [x.text for x in read_label_file(out).labels]


def test_several_sources_become_one_file_and_back(bag, tmp_path, capsys):
    (tmp_path / 'tuesday.txt').write_text('0\t1\tcut/bread\n1\t1\t\n')
    out, track = tmp_path / 'labels.csv', tmp_path / 'track.txt'
    assert convert(bag, tmp_path / 'tuesday.txt', '--out', out) == 1
    printed = capsys.readouterr().out
    assert 'tuesday.txt: line 2: got no class' in printed
    assert '4 labels of 2 recordings, 1 not used' in printed
    assert convert(out, '--only', 'tuesday', '--out', track) == 0
    assert track.read_text() == '0.000000\t1.000000\tcut/bread\n'


def test_bags_of_a_folder_are_recordings_and_damage_is_printed(bag, tmp_path, capsys, monkeypatch):
    folder, out = tmp_path / 'kitchen', tmp_path / 'labels.csv'
    content = bag.read_bytes()
    (folder / 'tue').mkdir(parents=True)
    for name in ('day_1.mcap', 'day_2.MCAP', 'tue/tue_0.mcap'):
        (folder / name).write_bytes(content)
    (folder / 'day_3.mcap.zstd').write_bytes(zstd.compress(content))
    (folder / 'day_1.mp4').touch()
    assert convert(folder, '--out', out) == 1
    printed = capsys.readouterr().out
    assert '12 labels of 4 recordings, 1 not used' in printed
    assert 'tue: metadata.yaml is missing: read without it: tue_0.mcap' in printed
    assert {x.recording for x in read_label_file(out).labels} == {'day_1', 'day_2', 'day_3', 'tue'}
    monkeypatch.chdir(folder / 'tue')
    convert('.', '--out', out)
    assert {x.recording for x in read_label_file(out).labels} == {'tue'}
    assert convert(folder / 'day_3.mcap.zstd', '--out', out) == 0
    assert convert(folder, '--recording', 'x', '--out', out) == 2
    assert "--recording is 'x'; expected none for the 4 bags in" in capsys.readouterr().err
    (folder / 'day_1.mcap').write_bytes(content[:len(content) * 6 // 10])
    assert convert(folder, '--out', out) == 1
    assert '\nday_1.mcap is damaged (' in f'\n{capsys.readouterr().out}'


@pytest.mark.parametrize(('words', 'sentence'), [
    (['--from', 'word'], "--from is 'word'; expected audacity, boris"),
    (['--frame-rate', '-1'], '--frame-rate is -1.0; expected frames a second'),
    (['--only', 'x'], "--only is 'x'; expected one of monday"),
    (['--to', 'word'], "--to is 'word'; expected audacity, csv"),
    (['--classes-map', 'none.csv'], 'none.csv'),
])
def test_wrong_options_are_named(bag, tmp_path, capsys, words, sentence):
    assert convert(bag, '--out', tmp_path / 'out.csv', *words) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / 'out.csv').exists()
