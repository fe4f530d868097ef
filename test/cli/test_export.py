"""`karmma export`: from a model directory to graphs in it."""

from karmma_ros.cli import export
from karmma_ros.cli.main import COMMANDS, main
from karmma_ros.clip import Clip
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.modality import Modality
from karmma_ros.model.backends import choose, selection
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import only
import numpy as np
import pytest
import torch

F, A = Modality.FLOW, Modality.AUDIO


class Toy:
    """Clips of noise that note which of them were read; the audio may be missing."""

    def __init__(self, spec, count, deaf=False):
        self.spec, self.count, self.served, self.deaf = spec, count, [], deaf

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        self.served.append(index)
        rng = np.random.default_rng(index)
        given = {m: rng.random(self.spec.input_shape(m), np.float32) for m in (F, A)}
        return Sample(Clip({m: x for m, x in given.items() if m is F or not self.deaf}),
                      {'verb': 0, 'noun': 0}, index)


@pytest.fixture
def model(tmp_path, config, spec, vocabulary):
    torch.manual_seed(0)
    chosen = only(config, [F, A])
    save_bundle(tmp_path / 'small', build(chosen, spec, vocabulary), chosen, spec, vocabulary,
                dataset='Toys', card='')
    return tmp_path / 'small'


@pytest.fixture
def toys(monkeypatch, spec, vocabulary):
    """Return the training split that the command will find."""
    clips = Toy(spec, 40)
    monkeypatch.setattr(export, 'open_data', lambda *_: Splits(
        'Toys', spec, vocabulary, clips, Toy(spec, 0), Toy(spec, 0)))
    return clips


def run(*arguments):
    return main(['export', *map(str, arguments)])


@pytest.fixture(autouse=True)
def known(monkeypatch):
    monkeypatch.setitem(COMMANDS, 'export', '')


def test_it_writes_what_the_node_then_takes(model, capsys):
    assert run(model, '--to', 'openvino') == 0
    out = capsys.readouterr().out
    assert out.startswith(f'wrote {model}/exports/openvino_bf16: openvino bf16 ')
    assert '(5.0% allowed), eager ' in out
    assert choose(load_bundle(model), 'cpu', 'openvino').backend.precision in ('bf16', 'fp32')


def test_fp32_is_written_where_bf16_differs_too_much(model, capsys, monkeypatch):
    monkeypatch.setitem(selection.TOLERANCE, 'bf16', -1.0)
    assert run(model, '--to', 'openvino', '--precision', 'bf16') == 2
    assert 'the export is not kept' in capsys.readouterr().err
    assert run(model, '--to', 'openvino') == 0
    out = capsys.readouterr().out
    assert 'the export is not kept: openvino bf16' in out and 'fp32 is written instead\n' in out
    assert f'wrote {model}/exports/openvino_fp32: openvino fp32 ' in out


def test_int8_takes_its_ranges_from_clips_of_the_training_split(model, toys, capsys):
    assert run(model, '--to', 'onnx', '--precision', 'int8', '--calibration', '4') == 0
    assert set(toys.served) == {0, 10, 20, 30}
    assert 'onnxruntime int8' in capsys.readouterr().out


@pytest.mark.parametrize(('arguments', 'text'), [
    (['--to', 'tensorrt'], "--to is 'tensorrt'; expected openvino or onnx"),
    (['--to', 'onnx', '--precision', 'bf16'], "--precision is 'bf16'; expected fp32, int8"),
    (['--to', 'onnx', '--precision', 'int8', '--calibration', '0'], 'limit is 0'),
])
def test_a_wrong_request_is_named(model, toys, capsys, arguments, text):
    assert run(model, *arguments) == 2
    assert text in capsys.readouterr().err
    assert not (model / 'exports').exists()


def test_clips_without_a_modality_of_the_model_are_not_enough(model, toys, capsys):
    toys.deaf = True
    assert run(model, '--to', 'onnx', '--precision', 'int8') == 2
    assert "'32 clips without audio'" in capsys.readouterr().err
