"""The README tells the truth about what is here."""

from pathlib import Path
import re

from karmma_ros.cli.main import COMMANDS
from karmma_ros.evaluation.subsets import markdown
from karmma_ros.model.bundle import load_bundle
from karmma_ros.node.declarations import DECLARATIONS
import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r'\]\((?!http|#)([^)#]+)', page.read_text(encoding='utf-8'))
    assert links or page.name == 'CONTRIBUTING.md'
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_every_parameter_that_is_set_exists():
    named = re.findall(r'ros2 param set /karmma (\S+)', README)
    assert named and set(named) <= {declaration.name for declaration in DECLARATIONS}


def test_every_command_exists():
    given = set(re.findall(r'^karmma (\w+)', README, re.MULTILINE))
    assert given and given <= set(COMMANDS)


def test_every_make_target_exists():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = set(re.findall(r'make (\w+)  ', README))
    assert targets >= {'demo', 'test'}
    assert all(f'\n{target}:' in makefile for target in targets)


@pytest.mark.parametrize('page', [ROOT / 'README.md',
                                  ROOT / 'models' / 'synthetic_kitchen' / 'README.md'])
def test_the_accuracy_is_that_of_the_model_shipped(page):
    metrics = load_bundle(ROOT / 'models' / 'synthetic_kitchen').metrics
    assert markdown(metrics['test_top1']).strip() in page.read_text(encoding='utf-8')
