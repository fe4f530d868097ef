"""`karmma data pack`, and a training and a check on what it wrote."""

from karmma_ros.cli import pack
from karmma_ros.cli.main import main
import numpy as np
import pytest
import soundfile


@pytest.fixture
def manifest(tmp_path):
    """Return the options of a data set of audio only, one of whose files is damaged."""
    rng = np.random.default_rng(0)
    for name in 'abcd':
        soundfile.write(tmp_path / f'{name}.wav', rng.normal(0, 0.1, 48_000), 16_000)
    (tmp_path / 'e.wav').write_bytes(b'RIFF')
    (tmp_path / 'kitchen.csv').write_text(
        'split,start,stop,verb,noun,audio\ntrain,0,3,cut,cup,a.wav\ntrain,0,3,stir,pan,b.wav\n'
        'train,0,1,cut,cup,e.wav\ntest,0,1,cut,cup,c.wav\ntest,0,1,stir,pan,d.wav\n')
    return ['--data.dataset', 'manifest', '--data.manifest.file', str(tmp_path / 'kitchen.csv')]


def packed(manifest, folder, *more):
    return main(['data', 'pack', *manifest, '--out', str(folder), '--jobs', '1', *more])


def test_a_pack_is_written_checked_and_described(manifest, tmp_path, capsys):
    assert packed(manifest, tmp_path / 'pack', '--data.windows', '2') == 0
    printed = capsys.readouterr()
    assert f'wrote {tmp_path / "pack"}: 5 clips in 9 windows and 2 shards, 0.001' in printed.out
    assert 'e.wav: it cannot be read' in printed.err
    assert main(['data', 'check', '--data.packed', str(tmp_path / 'pack'), '--decode', '9']) == 0
    text = capsys.readouterr().out
    assert 'kitchen' in text and 'train: 1 segments lack audio, such as clip 2' in text


def test_an_interrupt_is_status_130(manifest, tmp_path, monkeypatch, capsys):
    def stop(*given, **more):
        raise KeyboardInterrupt

    monkeypatch.setattr(pack, 'write_pack', stop)
    assert packed(manifest, tmp_path / 'pack') == 130
    assert 'karmma data pack: stopped; the same command continues' in capsys.readouterr().err


@pytest.mark.parametrize(('options', 'text'), [
    (['--quality', '101'], '--quality is 101; expected 1 to 100, or 0 for no loss'),
    (['--jobs', '0'], '--jobs is 0; expected a whole number above 0'),
    (['--data.packed', 'x'], "data.packed is 'x'; expected none: a pack is not packed"),
])
def test_options_that_cannot_be_used_are_refused(manifest, tmp_path, options, text, capsys):
    assert packed(manifest, tmp_path / 'pack', *options) == 2
    assert text in capsys.readouterr().err


def test_training_on_a_pack_of_the_kitchen_and_scoring_it(tmp_path, capsys):
    kitchen = ['--cache', str(tmp_path / 'cache'), '--data.synthetic_kitchen.train', '16',
               '--data.synthetic_kitchen.validation', '4', '--data.synthetic_kitchen.test', '4']
    assert packed(kitchen, tmp_path / 'pack') == 0
    assert '24 clips in 24 windows' in capsys.readouterr().out
    run = ['--preset', 'tiny', '--modalities', '[detections, audio]', '--run.epochs', '1',
           '--run.batch_size', '8', '--run.progress', 'false']
    assert main(['train', 'student', *run, '--data.packed', str(tmp_path / 'pack'), '--out',
                 str(tmp_path / 'ours'), '--run-dir', str(tmp_path / 'run')]) == 0
    assert main(['evaluate', str(tmp_path / 'ours'), '--data.packed', str(tmp_path / 'pack'),
                 '--out', str(tmp_path / 'scores')]) == 0
    scores = (tmp_path / 'scores' / 'scores.json').read_text()
    assert main(['train', 'student', *run, *kitchen, '--out', str(tmp_path / 'theirs'),
                 '--run-dir', str(tmp_path / 'run2')]) == 0
    ours, theirs = ((tmp_path / each / 'model.safetensors').read_bytes()
                    for each in ('ours', 'theirs'))
    assert ours == theirs
    assert 'Synthetic Kitchen' in scores
