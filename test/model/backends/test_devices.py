"""One set of device names for every command and for the node."""

from karmma_ros.cli.main import main
from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.backends import selection
from karmma_ros.model.backends.selection import choose_device
import pytest
import torch


@pytest.fixture
def cards(monkeypatch):
    """Let PyTorch find two CUDA devices."""
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 2)
    monkeypatch.setattr(torch.cuda, 'get_device_name', lambda i: f'Card {i}')


@pytest.fixture
def bare(monkeypatch):
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 0)


@pytest.mark.parametrize(('text', 'expected'), [
    ('auto', 'cuda:0'), ('cpu', 'cpu'), ('cuda', 'cuda:0'), ('cuda:1', 'cuda:1')])
def test_names_with_cards(cards, text, expected):
    assert choose_device(text) == expected


def test_names_without_a_card(bare):
    assert choose_device('auto') == choose_device('cpu') == 'cpu'


@pytest.mark.parametrize('text', ['cuda:2', 'tpu', '', 'cuda:-1', 'cuda:x', 'meta', 'CPU'])
def test_the_error_names_what_is_present(cards, text):
    with pytest.raises(InvalidSettingError) as caught:
        choose_device(text, '--device')
    assert str(caught.value) == (
        f'--device is {text!r}; expected auto, cpu, cuda:0, cuda:1, cuda: PyTorch finds 2 CUDA '
        'devices here: cuda:0 is Card 0, cuda:1 is Card 1')


@pytest.mark.parametrize(('version', 'reason'), [
    (None, 'this build of PyTorch has no CUDA support'),
    ('13.0', 'the NVIDIA driver reports none')])
def test_without_a_gpu_the_error_has_the_reason(bare, monkeypatch, version, reason):
    monkeypatch.setattr(torch.version, 'cuda', version)
    with pytest.raises(InvalidSettingError, match=f"'cuda'; expected auto, cpu: .*{reason}"):
        choose_device('cuda')


@pytest.mark.parametrize('words', [
    ['bag', 'evaluate', 'x.mcap', '--model', 'synthetic_kitchen', '--out', 'x'],
    ['evaluate', 'synthetic_kitchen', '--out', 'x'], ['predict', 'x.avi']])
def test_every_command_takes_the_same_names(capsys, bare, words):
    assert main([*words, '--device', 'toaster']) == 2
    assert "--device is 'toaster'; expected auto, cpu: PyTorch finds no CUDA" in (
        capsys.readouterr().err)
    with pytest.raises(SystemExit):
        main([words[0], *(['evaluate'] if words[0] == 'bag' else []), '--help'])
    assert selection.HELP[:40] in ' '.join(capsys.readouterr().out.split())
