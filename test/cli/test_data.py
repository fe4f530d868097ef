"""`karmma data check` from a configuration to its table, file and exit status."""

import json
import re

from karmma_ros.cli.main import main
import numpy as np
import pytest
import soundfile
import yaml

HEADER = 'split,start,stop,verb,noun,rgb,audio\n'


@pytest.fixture
def manifest(tmp_path):
    """Return a data set of audio only, complete."""
    for name in 'abc':
        soundfile.write(tmp_path / f'{name}.wav', np.zeros(16_000, np.float32), 16_000)
    path = tmp_path / 'kitchen.csv'
    path.write_text(HEADER + 'train,0,1,cut,cup,,a.wav\ntrain,0,1,stir,pan,,b.wav\n'
                    'test,0,1,cut,cup,,c.wav\n')
    return path


def check(path, *more):
    return main(['data', 'check', '--data.dataset', 'manifest', '--data.manifest.file',
                 str(path), *more])


def rows(text):
    """Return the cells of the table's rows, in which numbers follow the sensor."""
    lines = [re.split(r' {2,}', line.strip()) for line in text.split('\n')]
    return [cells for cells in lines if len(cells) >= 6 and cells[-1].isdecimal()]


def test_a_complete_data_set_is_status_0(manifest, capsys):
    assert check(manifest) == 0
    text = capsys.readouterr().out
    assert 'kitchen' in text and 'missing or damaged' not in text
    assert rows(text) == [['train', 'audio', '2', '0', '0', '0', '0'],
                          ['validation, test', 'audio', '1', '0', '0', '0', '0']]


def test_a_missing_file_is_status_1_and_named(manifest, capsys):
    (manifest.parent / 'b.wav').unlink()
    assert check(manifest) == 1
    text = capsys.readouterr().out
    assert rows(text)[0] == ['train', 'audio', '1', '0', '1', '0', '0']
    assert f'train: audio of line 3: {manifest.parent / "b.wav"}: there is no such file' in text
    assert 'something is missing or damaged' in text


def test_a_damaged_file_is_detected_by_decoding(manifest, capsys):
    (manifest.parent / 'c.wav').write_bytes(b'RIFF')
    assert check(manifest) == 0
    capsys.readouterr()
    assert check(manifest, '--decode', '5') == 1
    text = capsys.readouterr().out
    assert rows(text) == [['train', 'audio', '2', '0', '0', '2', '0'],
                          ['validation, test', 'audio', '1', '0', '0', '1', '1']]
    assert 'c.wav: it cannot be read' in text


def test_what_a_segment_lacks_counts_only_when_asked_for(manifest, capsys):
    soundfile.write(manifest.parent / 'film.avi.wav', np.zeros(9), 16_000)
    (manifest.parent / 'film.avi').write_bytes(b'')
    manifest.write_text(manifest.read_text() + 'train,0,1,cut,cup,film.avi,\n')
    assert check(manifest) == 0
    assert 'train: 1 segments lack audio, such as line 5' in capsys.readouterr().out
    assert check(manifest, '--complete') == 1


def test_a_segment_without_any_recording_is_status_1(manifest, capsys):
    manifest.write_text(manifest.read_text() + 'train,0,1,cut,cup,,\n')
    assert check(manifest) == 1
    assert 'train: 1 segments have no recording at all' in capsys.readouterr().out


def test_the_report_is_written(manifest, tmp_path, capsys):
    (manifest.parent / 'a.wav').unlink()
    assert check(manifest, '--json', str(tmp_path / 'report.json')) == 1
    report = json.loads((tmp_path / 'report.json').read_text())
    assert report['splits']['train']['modalities']['audio']['missing'] == 1
    assert check(manifest, '--json', str(tmp_path / 'none' / 'report.json')) == 2
    assert '--json is' in capsys.readouterr().err


def test_the_data_section_of_a_configuration_is_read_and_options_outrank_it(
    manifest, tmp_path, capsys,
):
    config = tmp_path / 'config.yaml'
    config.write_text(yaml.safe_dump({
        'preset': 'tiny', 'run': {'epochs': 3},
        'data': {'dataset': 'manifest', 'manifest': {
            'file': str(manifest), 'title': 'Of the file'}}}))
    assert main(['data', 'check', '--config', str(config)]) == 0
    assert 'Of the file' in capsys.readouterr().out
    assert main(['data', 'check', '--config', str(config), '--data.manifest.title', 'Mine']) == 0
    assert 'Mine' in capsys.readouterr().out


def test_the_synthetic_kitchen_is_checked_by_its_clips(tmp_path, capsys):
    assert main(['data', 'check', '--data.synthetic_kitchen.train', '3',
                 '--data.synthetic_kitchen.validation', '2', '--data.synthetic_kitchen.test', '2',
                 '--cache', str(tmp_path)]) == 0
    report = rows(capsys.readouterr().out)
    assert report[0] == ['train', 'rgb', '3', '0', '0', '1', '0']
    assert [row[-6] for row in report[:4]] == ['rgb', 'flow', 'audio', 'detections']
    assert len(report) == 12


@pytest.mark.parametrize(('arguments', 'text'), [
    (['--data.dataset', 'youtube'], "data.dataset is 'youtube'; expected synthetic_kitchen"),
    (['--data.dataset', 'something_something'], 'name that of Something-Something V2 with'),
    (['--data.dataset', 'manifest'], 'there is no manifest: name one with manifest.file'),
    (['--data.dataset', 'manifest', '--data.manifest.frame_rate', '0'], 'frame_rate is 0'),
    (['--decode', '-1'], '--decode is -1; expected a whole number from 0 on'),
    (['--config', 'none.yaml'], "--config is 'none.yaml'; expected a YAML file that can be read"),
    (['--decode', 'many'], 'decode'),
])
def test_wrong_options_are_named(tmp_path, capsys, arguments, text):
    try:
        assert main(['data', 'check', '--cache', str(tmp_path), *arguments]) == 2
    except SystemExit as stop:  # the argument parser itself has refused
        assert stop.code == 2
    assert text in capsys.readouterr().err


@pytest.mark.parametrize('content', ['preset: tiny\n', 'data: 5\n', '- 1\n', '{'])
def test_a_configuration_without_data_is_named(tmp_path, capsys, content):
    path = tmp_path / 'config.yaml'
    path.write_text(content)
    assert main(['data', 'check', '--config', str(path)]) == 2
    assert f"--config is '{path}'; expected a" in capsys.readouterr().err
