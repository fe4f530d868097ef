"""The page about the model: its names exist, its figures are those that the command draws."""

from importlib import import_module
from pathlib import Path
import re
import subprocess
import sys

from karmma_ros.model.fusion import FusionBlock
from karmma_ros.model.presets import PRESETS
from karmma_ros.model.tokens import TokenEmbedding
import pytest

DOCS = Path(__file__).parents[2] / 'docs'
PAGE = (DOCS / 'model.md').read_text()
PARTS = {'TokenEmbedding': TokenEmbedding(2, 2, 2), 'FusionBlock': FusionBlock(2, 1, 1, 2, 0.0)}
NAMES = sorted(set(re.findall(r'`(karmma_ros\.[\w.]+)(?:\(.*?\))?`', PAGE)))
ATTRIBUTES = sorted(set(re.findall(rf'`({"|".join(PARTS)})\.(\w+)`', PAGE)))


def test_the_page_names_something():
    assert len(NAMES) > 12 and len(ATTRIBUTES) == 4


@pytest.mark.parametrize('name', NAMES)
def test_a_name_on_the_page_exists(name):
    module, _, last = name.rpartition('.')
    imported = import_module(module)
    assert hasattr(imported, last) or import_module(name)


@pytest.mark.parametrize(('part', 'attribute'), ATTRIBUTES)
def test_an_attribute_on_the_page_exists(part, attribute):
    assert getattr(PARTS[part], attribute) is not None


def test_every_preset_is_on_the_page():
    assert [name for name in PRESETS if f'| `{name}` |' not in PAGE] == []


def texts(path):
    """Return the words of a drawing."""
    return re.findall(r'<text[^>]*>([^<]+)</text>', path.read_text())


def test_the_figures_are_those_that_the_command_draws(tmp_path):
    names = [path.stem for path in (DOCS / 'images').glob('karmma_*.svg')]
    shown = set(re.findall(r'\((images/\S+)\)', PAGE))
    assert {f'images/{name}.svg' for name in names} == {s for s in shown if s.endswith('.svg')}
    assert all((DOCS / path).is_file() for path in shown)
    words = [word for name in names for word in (name, str(tmp_path / f'{name}.svg'))]
    subprocess.run([sys.executable, str(DOCS / 'draw_model.py'), *words], check=True)
    for name in names:
        drawn = texts(tmp_path / f'{name}.svg')
        assert drawn == texts(DOCS / 'images' / f'{name}.svg')
        assert any('Fusion block' in word for word in drawn)
