"""The whole reproduction in the smallest form, stopped, resumed, and written again."""

from contextlib import suppress
from dataclasses import replace
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import time

from conforming import conforms
from karmma_ros import reproduce
from karmma_ros.cli.main import main
from karmma_ros.cluster.engine import ONE, WorkerStoppedError
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings
from karmma_ros.errors import KarmmaError
from karmma_ros.evaluation.robustness import curve_of_column
from karmma_ros.evaluation.schema import json_schema
from karmma_ros.modality import PAPER_MODALITIES, subset_name, subsets
from karmma_ros.model.bundle import load_bundle
from karmma_ros.reproduce.experiments import ExperimentRunner, key_of, run_all, with_dependencies
from karmma_ros.reproduce.results import Results, SCHEMA_ID
from karmma_ros.reproduce.systems import all_experiments, Budget, BUDGETS
import pytest

pytestmark = pytest.mark.timeout(1800)  # 67 small trainings, on however busy a machine

SMALLEST = Budget(
    KitchenSettings(64, 16, 32), KitchenSettings(96, 1, 1, seed=1),
    KitchenSettings(96, 16, 16, seed=1, domain='garage'), 2, 1, 1, 1, 2)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
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


def test_every_table_and_figure_is_present(finished):
    page = (finished / 'out' / 'results.md').read_text()
    for title in ('Table I:', 'Fig. 4:', 'Table II:', 'Table III:', 'Table IV:', 'Table V:',
                  'Table VI:', 'Fig. 5:', 'Fig. 6:', 'the paper finds'):
        assert title in page
    assert 'nan' not in page
    for number in (4, 5, 6):
        assert (finished / 'out' / 'images' / f'results_fig{number}.png').stat().st_size > 10_000
    names = [subset_name(s) for s in subsets(PAPER_MODALITIES)]
    assert all(f'| {name} |' in page for name in names)
    assert '43.00' in page and '41.81' in page  # the paper's


def test_the_schema_describes_the_results(finished):
    content = json.loads((finished / 'out' / 'results.json').read_text())
    schema = json_schema(Results, SCHEMA_ID)
    assert conforms(content, schema)
    assert not conforms({**content, 'cells': {}}, schema)


def test_from_its_results_alone_the_same_page_comes_out(finished, tmp_path, monkeypatch):
    (tmp_path / 'out').mkdir()
    text = (finished / 'out' / 'results.json').read_text()
    (tmp_path / 'out' / 'results.json').write_text(text)
    monkeypatch.setattr(reproduce, 'run_all', lambda *_: pytest.fail('run again'))
    assert run(tmp_path) == 0
    page = 'results.md'
    assert (tmp_path / 'out' / page).read_text() == (finished / 'out' / page).read_text()
    assert not (tmp_path / 'cache').exists()


def test_an_experiment_of_other_settings_is_left_out_of_the_same_page(finished, tmp_path):
    content = json.loads((finished / 'out' / 'results.json').read_text())
    other = {**content['experiments']['karmma/1'], 'key': 'of other settings'}
    content['experiments']['karmma/7'] = other
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'results.json').write_text(json.dumps(content))
    assert run(tmp_path) == 0
    page = 'results.md'
    assert (tmp_path / 'out' / page).read_text() == (finished / 'out' / page).read_text()


def test_a_missing_result_alone_is_taken_from_the_cache(finished, tmp_path, capsys):
    content = json.loads((finished / 'out' / 'results.json').read_text())
    del content['experiments']['karmma/1']
    (tmp_path / 'out').mkdir()
    (tmp_path / 'out' / 'results.json').write_text(json.dumps(content))
    status = main(['reproduce', 'synthetic_kitchen', '--budget', 'smallest', '--out',
                   str(tmp_path / 'out'), '--cache', str(finished / 'cache')])
    assert status == 0
    results = Results.load(tmp_path / 'out' / 'results.json')
    assert results.experiments == Results.load(finished / 'out' / 'results.json').experiments


def test_only_one_table(finished, tmp_path, capsys):
    status = main(['reproduce', 'synthetic_kitchen', '--budget', 'smallest', '--out',
                   str(tmp_path / 'out'), '--cache', str(finished / 'cache'), '--only', 'table6'])
    assert status == 0
    assert 'Table VI' in capsys.readouterr().out
    results = Results.load(tmp_path / 'out' / 'results.json')
    names = {n.partition('/')[0] for n in results.experiments}
    assert 'half_teacher_dropout_75' in names and 'karmma' not in names
    assert not (tmp_path / 'out' / 'results.md').exists()


def test_an_experiment_is_the_same_only_if_all_that_decides_it_is():
    experiments = all_experiments(SMALLEST)
    key = key_of(experiments['karmma/0'], experiments, SMALLEST.data)
    assert key == key_of(all_experiments(SMALLEST)['karmma/0'], experiments, SMALLEST.data)
    longer = all_experiments(replace(SMALLEST, teacher_epochs=2))  # its teacher is another
    assert key != key_of(longer['karmma/0'], longer, SMALLEST.data)
    assert key_of(experiments['delta/0'], experiments, SMALLEST.data) == key_of(
        longer['delta/0'], longer, SMALLEST.data)
    assert key != key_of(experiments['karmma/0'], experiments, KitchenSettings(65, 16, 32))


def test_experiments_come_after_what_they_need():
    experiments = all_experiments(SMALLEST)
    names = with_dependencies(['karmma/1'], experiments)
    assert set(names) == {
        'karmma/1', 'teacher/1', 'tokens', 'garage_student/rgb', 'garage_student/flow',
        *(f'garage_teacher/{m}' for m in PAPER_MODALITIES)}
    assert names.index('tokens') < names.index('teacher/1') < names.index('karmma/1')


def test_encoders_of_the_garage_are_trained_and_scored_on_it(finished):
    experiments = all_experiments(SMALLEST)
    runner = ExperimentRunner(finished / 'cache' / 'reproduce',
                              finished / 'cache' / 'synthetic_kitchen', experiments, SMALLEST.data)
    nouns = {}
    for name in ('garage_student/rgb', 'expert/rgb', 'karmma/0'):
        model = load_bundle(runner.folder(name) / 'model')
        nouns[name] = model.vocabulary.heads['noun']
        assert ('garage' in model.dataset) == name.startswith('garage')
    assert 'hammer' in nouns['garage_student/rgb'] and 'spoon' in nouns['expert/rgb']
    assert nouns['expert/rgb'] == nouns['karmma/0']
    garage, expert = (runner._splits(experiments[f'{name}/rgb'])
                      for name in ('garage_student', 'expert'))
    assert [len(garage.train), len(garage.validation), len(garage.test)] == [96, 16, 16]
    assert [len(expert.train), len(expert.validation), len(expert.test)] == [96, 16, 32]


def test_a_failing_experiment_ends_the_run(tmp_path):
    experiments = all_experiments(SMALLEST)
    (tmp_path / 'blocked').write_text('a file where a folder should be')
    (tmp_path / 'clips').mkdir()
    runner = ExperimentRunner(tmp_path / 'blocked', tmp_path / 'clips', experiments, SMALLEST.data)
    with pytest.raises(OSError):
        run_all(runner, experiments, ['expert/rgb'], ONE, lambda *_: None)


def test_a_worker_that_ends_is_an_error_that_names_the_experiment(tmp_path, monkeypatch):
    def stopped(*_, on_result, **__):
        on_result(0, WorkerStoppedError('the processes that ran it ended, twice: no memory'))

    monkeypatch.setattr('karmma_ros.reproduce.experiments.map_tasks', stopped)
    experiments = all_experiments(SMALLEST)
    runner = ExperimentRunner(tmp_path, tmp_path, experiments, SMALLEST.data)
    with pytest.raises(KarmmaError, match='experiment expert/rgb: the processes that ran '
                       'it ended, twice: no memory; free some memory, or give a smaller --jobs'):
        run_all(runner, experiments, ['expert/rgb'], ONE, lambda *_: None)


def test_an_interrupt_ends_the_workers_and_keeps_what_is_done(tmp_path):
    pytest.importorskip('ray', reason='pip install -r requirements/cluster.txt')
    script = tmp_path / 'run.py'
    script.write_text(
        'import signal\n'
        'signal.signal(signal.SIGINT, signal.default_int_handler)  # pytest-xdist ignores it\n'
        'from karmma_ros.cli.main import main\n'
        'from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings\n'
        'from karmma_ros.reproduce.systems import Budget, BUDGETS\n'
        f'BUDGETS["smallest"] = {SMALLEST!r}\n'
        'if __name__ == "__main__":\n'
        '    raise SystemExit(main(["reproduce", "synthetic_kitchen", "--budget", "smallest", '
        f'"--only", "table6", "--out", {str(tmp_path)!r}, "--cache", {str(tmp_path)!r}]))\n')
    process = subprocess.Popen([sys.executable, script], stdout=subprocess.DEVNULL,
                               stderr=subprocess.PIPE, text=True, start_new_session=True)
    path, deadline = tmp_path / 'results.json', time.monotonic() + 120
    while process.poll() is None and not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    errors = process.communicate(timeout=60)[1]
    assert process.returncode == 130, errors
    assert 'karmma reproduce: stopped; the same command resumes' in errors
    assert 'Traceback' not in errors
    experiments = all_experiments(SMALLEST)
    done = Results.load(path).experiments
    runner = ExperimentRunner(tmp_path / 'reproduce', tmp_path / 'synthetic_kitchen', experiments,
                              SMALLEST.data)
    assert done and {name: runner.run(name) for name in done} == done
    deadline = time.monotonic() + 10
    while left := processes_below(process.pid):
        assert time.monotonic() < deadline, f'processes of the command are left: {left}'
        time.sleep(0.1)


def processes_below(session):
    """Return the processes that a command has left in its session, also those of Ray."""
    left = []
    for path in Path('/proc').glob('[0-9]*/stat'):
        with suppress(OSError):
            text = path.read_text().rpartition(') ')[2].split()
            if int(text[3]) == session and text[0] != 'Z':
                left.append(path.parent.name)
    return left


def test_the_curve_meets_the_column():
    column = {subset_name(s): len(s) / 4 for s in subsets(PAPER_MODALITIES)}
    curve = curve_of_column(column)
    assert curve[0] == 1.0
    assert curve_of_column(column, [1.0]) == [pytest.approx(0.25)]
    assert curve == sorted(curve, reverse=True)


def test_wrong_words_are_named(tmp_path, capsys):
    assert main(['reproduce', 'epic_kitchens']) == 2
    assert "data set is 'epic_kitchens'; expected synthetic_kitchen" in capsys.readouterr().err
    assert main(['reproduce', 'synthetic_kitchen', '--budget', 'vast']) == 2
    assert "budget is 'vast'; expected quick, cpu, gpu" in capsys.readouterr().err
    (tmp_path / 'results.json').write_text('{')
    assert main(['reproduce', 'synthetic_kitchen', '--out', str(tmp_path)]) == 2
    assert 'move the file away' in capsys.readouterr().err
