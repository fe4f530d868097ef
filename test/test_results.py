"""The results that are committed: made by the present settings, and the page is theirs."""

from pathlib import Path
import shutil

from karmma_ros import reproduce
from karmma_ros.cli.main import main
from karmma_ros.reproduce.experiments import key_of
from karmma_ros.reproduce.results import mean, Results
from karmma_ros.reproduce.systems import all_experiments, budget
import pytest

DOCS = Path(__file__).parents[1] / 'docs'


@pytest.fixture(scope='module')
def results():
    """Return the results that are committed."""
    return Results.load(DOCS / 'results.json')


def test_they_are_of_these_very_settings(results):
    plan = budget(results.budget)
    experiments = all_experiments(plan)
    assert {name: result.key for name, result in results.experiments.items()} == {
        name: key_of(each, experiments, plan.data) for name, each in experiments.items()}


def test_the_page_and_its_figures_are_written_without_training(
    results, tmp_path, monkeypatch
):
    for name in ('results.json', 'results_remarks.md'):
        shutil.copy(DOCS / name, tmp_path)
    monkeypatch.setattr(reproduce, 'run_all', lambda *_: pytest.fail('trained'))
    assert main(['reproduce', 'synthetic_kitchen', '--budget', results.budget, '--out',
                 str(tmp_path)]) == 0
    assert (tmp_path / 'results.md').read_text() == (DOCS / 'results.md').read_text()
    assert {p.name for p in (tmp_path / 'images').iterdir()} <= {
        p.name for p in (DOCS / 'images').iterdir()}


def test_three_seeds_keep_the_order_of_the_paper(results):
    systems = ('karmma', 'delta', 'baseline')
    assert all(len(results.seeds(system)) >= 3 for system in systems)
    averages = [mean(results.averages(system)) for system in systems]
    at_90 = [mean([curve[-1] for curve in results.curves(system)]) for system in systems]
    assert averages == sorted(averages, reverse=True)
    assert at_90 == sorted(at_90, reverse=True)
