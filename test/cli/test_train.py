"""From the shipped configuration to a model directory, in small."""

from pathlib import Path

from karmma_ros.cli.main import main
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.modality import Modality, subset_name, subsets
from karmma_ros.model.bundle import load_bundle
import pytest

CONFIG = Path(__file__).parents[2] / 'config' / 'train' / 'synthetic_kitchen_student.yaml'
SMALL = ['--data.train', '8', '--data.validation', '4', '--data.test', '4',
         '--run.epochs', '1', '--run.batch_size', '4']


def test_the_shipped_configuration_makes_a_bundle_with_its_card(tmp_path, capsys):
    out = tmp_path / 'kitchen'
    status = main(['train', 'student', '--config', str(CONFIG), *SMALL,
                   '--out', str(out), '--work', str(tmp_path / 'work')])
    assert status == 0
    bundle = load_bundle(out)
    assert bundle.config.preset == 'tiny'
    assert bundle.vocabulary == vocabulary()
    names = [subset_name(s) for s in subsets(Modality)]
    assert list(bundle.metrics['test_top1']) == names
    card = (out / 'README.md').read_text()
    assert all(f'| {name} |' in card for name in names)
    assert '--run.epochs 1' in card  # the command that was really given
    assert f'wrote {out}' in capsys.readouterr().out


@pytest.mark.parametrize(('wrong', 'text'), [
    (['--run.optimisation.learning_rate', '-1'], 'learning_rate is -1'),
    (['--run.epochs', '0'], 'epochs is 0'),
    (['--preset', 'vast'], "preset is 'vast'"),
])
def test_wrong_settings_are_named(tmp_path, capsys, wrong, text):
    arguments = ['train', 'student', '--config', str(CONFIG), *SMALL, '--out',
                 str(tmp_path / 'out'), '--work', str(tmp_path / 'work'), *wrong]
    try:
        assert main(arguments) == 2
    except SystemExit as stop:  # the argument parser itself has refused
        assert stop.code == 2
    assert text in capsys.readouterr().err
