"""`karmma profile`: tables for a person, one object for a program."""

from dataclasses import replace
import json

from karmma_ros.cli import profile
from karmma_ros.cli.main import main
from karmma_ros.model.model_zoo import zoo_entry
from karmma_ros.model.registry import find_model
import pytest


def run(capsys, *arguments):
    assert main(['profile', *arguments]) == 0
    return capsys.readouterr().out


def test_the_table_sets_our_figures_beside_the_paper_s(capsys):
    out = run(capsys, 'karmma_student_v', '--token-caps', 'none,300')
    assert '## karmma_student_v: 29.636 M parameters, 29.636 M trainable, paper 29.64 M' in out
    assert '| V       | 176.38 |   176 |         +0 |' in out
    assert '| 300               | 176.38 |       |            |' in out


def test_json_is_one_object_by_preset(capsys):
    described = json.loads(run(capsys, 'tiny', 'radevski_student', '--json', '--token-caps', '8'))
    assert list(described) == ['tiny', 'radevski_student']
    tiny, ensemble = described.values()
    assert len(tiny['gflops']) == 15
    assert tiny['gflops']['V+F+A+D'] > tiny['gflops']['V'] > tiny['gflops']['D'] > 0
    assert tiny['parameters'] == tiny['trainable']
    assert list(tiny['gflops_by_token_cap']) == ['8']
    assert list(ensemble['gflops']) == ['V']
    assert 'gflops_by_token_cap' not in ensemble  # it fuses no tokens


def test_the_memory_of_the_student_is_compared_with_that_of_the_teacher(
    capsys, monkeypatch, tmp_path
):
    bytes_of = {'karmma_teacher': 2_000_000_000, 'karmma_student': 1_000_000_000}
    monkeypatch.setattr(profile, 'resident_bytes', lambda name, modalities: bytes_of[name])
    monkeypatch.setattr(profile, 'tensor_bytes', lambda name, modalities: bytes_of[name] // 2)
    chart = tmp_path / 'costs.png'
    out = run(capsys, 'karmma_teacher', 'karmma_student', '--memory', '--chart', str(chart))
    assert '| V+F+A   |       2.000 |       1.000 |     2.510 |' in out
    assert '| V+F+A   |     50% |     50% |   53% |' in out
    assert chart.read_bytes().startswith(b'\x89PNG')
    assert out.endswith(f'wrote {chart}\n')


def test_a_model_directory_has_a_cost(capsys, monkeypatch):
    path = str(find_model('synthetic_kitchen'))
    out = run(capsys, path)
    assert f'## {path}: ' in out and '| V+F+A+D |' in out
    entry = replace(zoo_entry('swin3d_t'), source='shop:kitchen')
    monkeypatch.setattr(profile, 'MODEL_ZOO', (entry,))
    bundle = replace(profile.open_model(path, 'MODEL'), source={'source': 'shop:kitchen'})
    monkeypatch.setattr(profile, 'open_model', lambda text, setting: bundle)
    assert run(capsys, path).endswith(
        'shop:kitchen is published with 43.88 billion multiply-accumulates, 87.76 GFLOPs, for 16 '
        'frames; here a clip has 16.\n')
    assert main(['profile', path, '--memory']) == 2
    assert '--memory is True; expected left out: ' in capsys.readouterr().err


@pytest.mark.parametrize(('arguments', 'text'), [
    (['hugo'], "preset is 'hugo'; expected tiny"),
    (['tiny', '--token-caps', 'few'], "--token-caps is 'few'; expected whole numbers and `none`"),
    (['tiny', '--token-caps', '0'], 'token_cap is 0'),
    (['tiny', '--chart', 'costs.tune'], 'a file that ends in .png'),
])
def test_wrong_arguments_are_named(capsys, arguments, text):
    assert main(['profile', *arguments]) == 2
    assert text in capsys.readouterr().err
