"""The pages of the benchmarks agree with the committed measurements."""

import importlib
import json
from pathlib import Path
import sys

from karmma_ros.model.bundle import load_bundle
import pytest

ROOT = Path(__file__).resolve().parents[1]
BENCHMARKS = ROOT / 'benchmarks'


@pytest.fixture(scope='module', autouse=True)
def importable():
    """Let the benchmarks import each other, as when one is run; unload them afterwards."""
    sys.path.insert(0, str(BENCHMARKS))
    known = set(sys.modules)
    yield
    sys.path.remove(str(BENCHMARKS))
    for name in set(sys.modules) - known:
        if Path(getattr(sys.modules[name], '__file__', None) or '.').parent == BENCHMARKS:
            del sys.modules[name]


@pytest.fixture(scope='module')
def pages(importable):
    return {page.path.stem: page for page in importlib.import_module('pages').PAGES}


@pytest.fixture(scope='module')
def performance(importable):
    return importlib.import_module('performance_page')


@pytest.fixture(scope='module')
def target(importable):
    return importlib.import_module('targets').Target


@pytest.fixture(scope='module')
def results(pages):
    figures = importlib.import_module('pages').FIGURES
    return json.loads((ROOT / figures).read_text(encoding='utf-8'))


@pytest.mark.parametrize('name', sorted(path.stem for path in BENCHMARKS.glob('*.py')))
def test_every_program_can_be_imported(importable, name):
    importlib.import_module(name)


def text_of(page):
    return (ROOT / page.path).read_text(encoding='utf-8')


@pytest.mark.parametrize('name', ['performance', 'streaming', 'peers'])
def test_a_page_has_the_figures_that_are_committed(pages, results, name):
    text = text_of(pages[name])
    assert pages[name].written(text, results) == text, (
        'run `python benchmarks/run.py --only page`')


def test_the_page_on_real_data_has_the_figures_that_are_committed(importable):
    page = importlib.import_module('utd_mhad_page')
    text = (ROOT / 'docs' / 'real_data.md').read_text(encoding='utf-8')
    assert page.written(text, page.load_runs()) == text, 'run python benchmarks/utd_mhad.py'


def test_a_further_run_replaces_the_rows_that_it_has(importable):
    page = importlib.import_module('utd_mhad_page')

    def run(validated, **systems):
        models = [{'system': name, 'seed': seed} for name, seed in systems.items()]
        return {'scores': {'clips': 4, 'models': models},
                'validation': [{'models': models}] if validated else []}

    first, second = run(True, karmma=1, causal=1), run(False, causal=2)
    kept, new = page.add_run([first], second)
    assert kept['scores'] == {'clips': 4, 'models': [{'system': 'karmma', 'seed': 1}]}
    assert kept['validation'] == first['validation'] and new is second
    assert page.scores_of([kept, new])['models'] == [
        {'system': 'karmma', 'seed': 1}, {'system': 'causal', 'seed': 2}]
    kept, _ = page.add_run([first], run(True, causal=2))
    assert kept['validation'] == [{'models': [{'system': 'karmma', 'seed': 1}]}]
    third = run(True, karmma=3, causal=3)
    assert page.add_run([kept, second], third) == [third]


def test_the_worst_fall_is_of_a_subset_below_one_that_it_contains(importable):
    worst = importlib.import_module('utd_mhad_page').worst_fall
    assert worst({'I': 90, 'S': 80, 'I+S': 89}) == 1
    assert worst({'I': 90, 'S': 80, 'I+S': 95}) == -5


def test_no_figure_on_the_page_is_of_a_quick_run(results):
    assert [name for name, part in results.items() if part['quick']] == []


def test_a_part_that_was_not_measured_leaves_its_table_as_it_is(pages, results):
    page, text = pages['performance'], text_of(pages['performance'])
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
def test_missing_or_surplus_markers_are_refused(pages, results, change):
    page = pages['performance']
    with pytest.raises(ValueError, match='one is due for each of .*memory'):
        page.written(change(text_of(page)), results)


@pytest.mark.parametrize('figure, more, verdict', [
    (10, False, 'aim reached'), (20, False, 'aim reached'), (30, False, 'met'),
    (35, False, 'met'), (36, False, '**missed**'),
])
def test_less_is_better(target, figure, more, verdict):
    row = target('x', ' %', 35, 20, lambda _: figure, more).row({})
    assert row == ['x', f'{figure} %', '35 %', '20 %', verdict]


@pytest.mark.parametrize('figure, verdict', [
    (9, '**missed**'), (10, 'met'), (20, 'aim reached')])
def test_more_is_better(target, figure, verdict):
    assert target('x', '', 10, 20, lambda _: figure, True).row({})[-1] == verdict


def test_a_bound_that_must_not_be_reached(target):
    assert [target('x', '', 0.5, None, lambda _, n=n: n, below=True).row({})[-1]
            for n in (0.4, 0.5)] == ['met', '**missed**']


def test_what_was_not_measured_is_reported(target):
    assert target('x', ' ms', 8, None, lambda _: None).row({}) == [
        'x', '–', '8 ms', '–', 'not measured']


def test_a_target_without_an_aim_and_an_aim_without_a_target(target):
    assert target('x', '', 0, None, lambda _: 0).row({})[-1] == 'met'
    assert [target('x', '', None, 5, lambda _, n=n: n, True).row({})[-1] for n in (4, 5)] == [
        'aim not reached', 'aim reached']


def test_a_backend_that_disagrees_with_eager_leaves_the_targets_complete(importable, results):
    """It is neither timed nor scored; on a card, CUDA graphs may be the one."""
    changed = json.loads(json.dumps(results))
    changed['student']['figures']['models']['karmma_student']['openvino int8'] = {'difference': 1}
    changed['backends']['figures']['models']['synthetic_kitchen']['onnxruntime int8'] = {
        'difference': 1}
    changed['gpu']['figures'] = {'device': 'a card', 'product_gflops_per_second': 8e5, 'models': {
        'karmma_student': {'CUDA graphs bf16': {'difference': 1, 'seconds': {}}}}}
    assert '| not measured |' in importlib.import_module('targets').targets(changed)
    changed['gpu']['figures']['models']['karmma_student']['CUDA graphs bf16']['seconds'] = {
        'V+F+A': {'gflops_per_second': 2e5}}
    assert '| 4 x the time of its products alone |' in (
        importlib.import_module('targets').targets(changed))


def test_every_stage_is_in_the_table(performance, results):
    stages = results['live_path']['figures']['stages']['stages']
    ordered = {name for name, _ in performance._ordered(stages)}
    assert ordered and ordered == set(stages)


@pytest.mark.parametrize('name', ['performance', 'streaming', 'peers'])
def test_page_and_chart_are_written_elsewhere(pages, results, tmp_path, name):
    pages[name].write(results, tmp_path, ROOT)
    assert (tmp_path / pages[name].path).read_text(encoding='utf-8') == text_of(pages[name])
    assert (tmp_path / pages[name].chart).stat().st_size > 10_000


def test_every_network_beside_ours_has_a_published_accuracy(importable, results):
    page, peers = (importlib.import_module(name) for name in ('peers_page', 'peers'))
    names = [peer.name for peer in peers.peers()]
    assert names == list(page.PUBLISHED)
    assert [name for name in names if page.accuracy(name) is None] == [
        name for name in names if name.startswith('karmma_')]
    assert page.accuracy('movinet_a2_stream')[:2] == (78.4, 'Kinetics-600')


def test_a_missing_gpu_is_reported(performance, results):
    without = {'gpu': {**results['gpu'], 'figures': {'device': ''}}}
    assert '**No GPU was available.**' in performance.gpu(without)


def test_the_figures_of_a_device_are_in_the_tables(performance, results):
    """A processor instead of the card: nothing of CUDA is run."""
    figures = json.loads(json.dumps(importlib.import_module('gpu').measure('cpu', quick=True)))
    text = performance.gpu({'gpu': {**results['gpu'], 'figures': figures}})
    assert 'On processor, which multiplies' in text
    assert text.count('| tiny | eager fp32 |') == 2
    assert [line.split(' | ')[:2] for line in text.splitlines() if line.startswith('| 2 |')] == [
        ['| 2', 'eager fp32'], ['| 2', 'eager bf16']]


def test_the_included_model_is_scored_in_a_video(importable, tmp_path):
    streaming_bag = importlib.import_module('streaming_bag')
    bundle = load_bundle(ROOT / 'models' / 'synthetic_kitchen')
    video = streaming_bag.video(tmp_path / 'video.mcap', episodes=2)
    accuracies = streaming_bag.recognised(video, bundle, hop=2)
    assert accuracies == streaming_bag.recognised(video, bundle, hop=2, independent=True)
    assert len(accuracies) == 15 and accuracies['V+F+A+D'] > 80 > accuracies['D']


def test_a_pack_gives_five_times_the_clips_at_no_more_than_the_disk():
    page = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
    rows = {cells[1].strip(): [float(cell) if cell.strip() else None for cell in cells[2:6]]
            for cells in (line.split('|') for line in page.split('\n'))
            if len(cells) == 7 and cells[1].startswith((' flow ', ' pack'))}
    assert rows['pack, quality 90'][1] >= 5  # the default of karmma data pack
    assert rows['pack, quality 90'][2] <= rows['flow from files'][2]
    assert rows['pack of computed flow, quality 90'][1] >= 5
