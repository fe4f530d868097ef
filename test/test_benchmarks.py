"""The page of the benchmarks: its tables are those of the figures that are committed."""

import importlib.util
import json
from pathlib import Path
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]


def load(name):
    spec = importlib.util.spec_from_file_location(
        f'benchmarks_{name}', ROOT / 'benchmarks' / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks up its own
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def page():
    return load('page')


@pytest.fixture(scope='module')
def results(page):
    return json.loads((ROOT / page.FIGURES).read_text(encoding='utf-8'))


@pytest.fixture(scope='module')
def text(page):
    return (ROOT / page.PAGE).read_text(encoding='utf-8')


def test_the_page_has_the_figures_that_are_committed(page, results, text):
    assert page.written(text, results) == text, 'run `python benchmarks/run.py --only page`'


def test_no_figure_on_the_page_is_of_a_quick_run(results):
    assert [name for name, part in results.items() if part['quick']] == []


def test_a_part_that_was_not_measured_leaves_its_table_as_it_is(page, results, text):
    others = {name: part for name, part in results.items() if name != 'memory'}
    marked = text.replace('karmma_teacher, eager |', 'karmma_teacher, once |')
    assert marked != text
    kept = page.written(marked, others)
    assert 'karmma_teacher, once |' in kept
    assert page.written(marked, results) == text


@pytest.mark.parametrize('change', [
    lambda text: text.replace('<!-- bench: memory -->', ''),
    lambda text: text + '<!-- bench: weather -->\n<!-- end -->\n',
])
def test_a_place_too_few_or_too_many_is_refused(page, results, text, change):
    with pytest.raises(ValueError, match='one is due for each of .*memory'):
        page.written(change(text), results)


@pytest.mark.parametrize('figure, more, said', [
    (10, False, 'aim reached'), (20, False, 'aim reached'), (30, False, 'met'),
    (35, False, 'met'), (36, False, '**missed**'),
])
def test_less_is_better(page, figure, more, said):
    target = page.Target('x', ' %', 35, 20, lambda _: figure, more)
    assert target.row({}) == ['x', f'{figure} %', '35 %', '20 %', said]


@pytest.mark.parametrize('figure, said', [
    (9, '**missed**'), (10, 'met'), (20, 'aim reached')])
def test_more_is_better(page, figure, said):
    assert page.Target('x', '', 10, 20, lambda _: figure, True).row({})[-1] == said


def test_every_stage_has_a_place_in_the_table(page, results):
    found = results['live_path']['figures']['stages']['stages']
    assert [n for n, _ in page._ordered(found)] and (
        {n for n, _ in page._ordered(found)} == set(found))


def test_the_chart_is_drawn_from_the_figures(page, results, tmp_path):
    page.draw(results, tmp_path / 'images' / 'chart.png')
    assert (tmp_path / 'images' / 'chart.png').stat().st_size > 10_000


def test_a_gpu_that_was_not_there_is_said(page, results):
    gone = {'gpu': {**results['gpu'], 'figures': {'device': ''}}}
    assert '**No GPU was there.**' in page.gpu(gone)


def test_the_figures_of_a_device_are_set(page, results):
    """A processor in the place of the card: nothing of CUDA is run."""
    found = json.loads(json.dumps(load('gpu').measure('cpu', quick=True)))
    set_ = page.gpu({'gpu': {**results['gpu'], 'figures': found}})
    assert 'On processor, which multiplies' in set_
    assert set_.count('| tiny | eager fp32 |') == 2
    assert [line.split(' | ')[:2] for line in set_.splitlines() if '| 2 |' in line] == [
        ['| 2', 'eager fp32'], ['| 2', 'eager bf16']]
