"""The whole reproduction in the smallest form, stopped, resumed, and written again."""

from dataclasses import replace
import json

from karmma_ros import reproduce
from karmma_ros.cli.main import main
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings
from karmma_ros.evaluation.robustness import POINTS
from karmma_ros.modality import Modality, subset_name, subsets
from karmma_ros.reproduce.cells import ExperimentRunner, key_of, make_all, with_needs
from karmma_ros.reproduce.results import dropped, Results
from karmma_ros.reproduce.systems import all_experiments, Budget, BUDGETS
import pytest

pytestmark = pytest.mark.timeout(1800)  # 67 small trainings, on however busy a machine

SMALLEST = Budget(
    KitchenSettings(64, 16, 32), KitchenSettings(96, 1, 1, seed=1), 2, 1, 1, 1, 2)


@pytest.fixture(scope='module')
def made(tmp_path_factory):
    """Return the folder of a finished reproduction."""
    folder = tmp_path_factory.mktemp('reproduce')
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(BUDGETS, 'smallest', SMALLEST)
        assert run(folder) == 0
    return folder


@pytest.fixture(autouse=True)
def smallest(monkeypatch):
    """Offer the smallest budget."""
    monkeypatch.setitem(BUDGETS, 'smallest', SMALLEST)


def run(folder, *more):
    return main(['reproduce', 'synthetic_kitchen', '--budget', 'smallest', '--out',
                 str(folder / 'out'), '--cache', str(folder / 'cache'), *more])


def test_every_table_and_figure_is_there(made):
    page = (made / 'out' / 'results.md').read_text()
    for title in ('Table I:', 'Fig. 4:', 'Table II:', 'Table III:', 'Table IV:', 'Table V:',
                  'Table VI:', 'Fig. 5:', 'Fig. 6:', 'the paper finds'):
        assert title in page
    assert 'nan' not in page
    for number in (4, 5, 6):
        assert (made / 'out' / 'images' / f'results_fig{number}.png').stat().st_size > 10_000
    names = [subset_name(s) for s in subsets(Modality)]
    assert all(f'| {name} |' in page for name in names)
    assert '43.00' in page and '41.81' in page  # the paper's


def test_from_its_results_alone_the_same_page_comes_out(made, tmp_path, monkeypatch):
    (tmp_path / 'out').mkdir()
    text = (made / 'out' / 'results.json').read_text()
    (tmp_path / 'out' / 'results.json').write_text(text)
    monkeypatch.setattr(reproduce, 'make_all', lambda *_: pytest.fail('made again'))
    assert run(tmp_path) == 0
    page = 'results.md'
    assert (tmp_path / 'out' / page).read_text() == (made / 'out' / page).read_text()
    assert not (tmp_path / 'cache').exists()


def test_a_cell_of_other_settings_is_left_out_of_the_same_page(made, tmp_path):
    content = json.loads((made / 'out' / 'results.json').read_text())
    content['cells']['karmma/7'] = {**content['cells']['karmma/1'], 'key': 'of other settings'}
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'results.json').write_text(json.dumps(content))
    assert run(tmp_path) == 0
    page = 'results.md'
    assert (tmp_path / 'out' / page).read_text() == (made / 'out' / page).read_text()


def test_a_lost_cell_alone_is_taken_from_the_cache(made, tmp_path, capsys):
    content = json.loads((made / 'out' / 'results.json').read_text())
    del content['cells']['karmma/1']
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'results.json').write_text(json.dumps(content))
    status = main(['reproduce', 'synthetic_kitchen', '--budget', 'smallest', '--out',
                   str(tmp_path / 'out'), '--cache', str(made / 'cache')])
    assert status == 0
    found = Results.load(tmp_path / 'out' / 'results.json')
    assert found.cells == Results.load(made / 'out' / 'results.json').cells


def test_only_one_table(made, tmp_path, capsys):
    status = main(['reproduce', 'synthetic_kitchen', '--budget', 'smallest', '--out',
                   str(tmp_path / 'out'), '--cache', str(made / 'cache'), '--only', 'table6'])
    assert status == 0
    assert 'Table VI' in capsys.readouterr().out
    names = {n.partition('/')[0] for n in Results.load(tmp_path / 'out' / 'results.json').cells}
    assert 'half_teacher_dropout_75' in names and 'karmma' not in names
    assert not (tmp_path / 'out' / 'results.md').exists()


def test_a_cell_is_the_same_only_if_all_that_decides_it_is():
    cells = all_experiments(SMALLEST)
    key = key_of(cells['karmma/0'], cells, SMALLEST.data)
    assert key == key_of(all_experiments(SMALLEST)['karmma/0'], cells, SMALLEST.data)
    longer = all_experiments(replace(SMALLEST, teacher_epochs=2))  # its teacher is another
    assert key != key_of(longer['karmma/0'], longer, SMALLEST.data)
    assert key_of(cells['delta/0'], cells, SMALLEST.data) == key_of(
        longer['delta/0'], longer, SMALLEST.data)
    assert key != key_of(cells['karmma/0'], cells, KitchenSettings(65, 16, 32))


def test_cells_come_after_what_they_need():
    cells = all_experiments(SMALLEST)
    names = with_needs(['karmma/1'], cells)
    assert set(names) == {
        'karmma/1', 'teacher/1', 'tokens', 'encoder_student/rgb', 'encoder_student/flow',
        *(f'encoder_teacher/{m}' for m in Modality)}
    assert names.index('tokens') < names.index('teacher/1') < names.index('karmma/1')


def test_a_failing_cell_ends_the_run(tmp_path):
    cells = all_experiments(SMALLEST)
    (tmp_path / 'blocked').write_text('a file where a folder should be')
    shop = ExperimentRunner(tmp_path / 'blocked', tmp_path / 'clips', cells, SMALLEST.data)
    with pytest.raises(OSError):
        make_all(shop, cells, ['encoder_student/rgb'], 1, lambda *_: None)


def test_the_curve_meets_the_column():
    column = {subset_name(s): len(s) / 4 for s in subsets(Modality)}
    assert dropped(column, 0.0) == 1.0
    assert dropped(column, 1.0) == pytest.approx(0.25)
    curve = [dropped(column, p) for p in POINTS]
    assert curve == sorted(curve, reverse=True)


def test_wrong_words_are_named(tmp_path, capsys):
    assert main(['reproduce', 'epic_kitchens']) == 2
    assert "data set is 'epic_kitchens'; expected synthetic_kitchen" in capsys.readouterr().err
    assert main(['reproduce', 'synthetic_kitchen', '--budget', 'vast']) == 2
    assert "budget is 'vast'; expected quick, cpu, gpu" in capsys.readouterr().err
    (tmp_path / 'results.json').write_text('{')
    assert main(['reproduce', 'synthetic_kitchen', '--out', str(tmp_path)]) == 2
    assert 'move the file away' in capsys.readouterr().err
