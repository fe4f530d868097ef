"""`karmma bag evaluate`, run as a person types it, on a short bag of the synthetic kitchen."""

import json
import os
from pathlib import Path
import re
import shutil
import struct
import subprocess
import sys

from karmma_ros.bags import evaluate as evaluate_bags
from karmma_ros.bags import parallel
from karmma_ros.bags.bag_run import BagInfo
from karmma_ros.bags.collect import Collector
from karmma_ros.cli.bag.evaluate import TRAINING_LABELS
from karmma_ros.cli.finetune.run_record import LABELS, RUN
from karmma_ros.cli.main import main
from karmma_ros.evaluation.ground_truth import Truth
from karmma_ros.evaluation.predictions import load_conditions
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.registry import find_model
import pytest

SECONDS, EPISODES = 3, 3
MODEL = ['--model', 'synthetic_kitchen']


@pytest.fixture(scope='module')
def bag(tmp_path_factory):
    path = tmp_path_factory.mktemp('bags') / 'kitchen.mcap'
    assert main(['bag', 'synthetic', str(path), '--episodes', str(EPISODES), '--seconds',
                 str(SECONDS), '--size', '64x48', '--rate', '15']) == 0
    return path


@pytest.fixture(scope='module')
def table(bag, tmp_path_factory):
    """Return a ground-truth table, made from the report on the topic."""
    out = tmp_path_factory.mktemp('truth')
    assert evaluate(bag, out) == 0
    segments = read_report(out)['segments']
    names = read_report(out)['vocabulary']
    lines = ['start,stop,verb,noun']
    for i in range(EPISODES):
        words = [names[head][segments['truth'][head][i]] for head in ('verb', 'noun')]
        lines.append(','.join([str(i * SECONDS), str((i + 1) * SECONDS), *words]))
    path = out / 'truth.csv'
    path.write_text('\n'.join(lines) + '\n')
    return path


def evaluate(bag, out, *words):
    bags = [bag] if isinstance(bag, Path) else bag
    return main(['bag', 'evaluate', *map(str, bags), *MODEL, '--out', str(out), *words])


def read_report(out):
    return json.loads((out / 'report.json').read_text())


def without_provenance(out):
    result = read_report(out)
    assert result.pop('provenance')
    return result


def predictions(out):
    (path,) = out.glob('work/*/predictions.npz')
    return load_conditions(path)


def test_a_bag_with_a_truth_topic_is_scored(bag, tmp_path, capsys):
    assert evaluate(bag, tmp_path) == 0
    result, printed = read_report(tmp_path), capsys.readouterr().out
    assert result['conditions'][0]['actions']['action']['top1'] == 1
    assert result['bags'][0]['truth']['actions'] == EPISODES
    assert result['model']['id'].startswith('synthetic_kitchen@')
    assert len(result['model']['sha256']) == 64
    assert result['provenance']['real_time'] > 0 and 'torch' in result['provenance']['machine']
    for words in ('rgb: /image', 'audio: /audio', 'detections: /detections', '3 actions from',
                  'as recorded', 'report.html'):
        assert words in printed
    for name in ('report.html', 'report.md'):
        assert (tmp_path / name).stat().st_size > 1000


def test_a_table_gives_the_same_scores_as_the_topic(bag, table, tmp_path):
    assert evaluate(bag, tmp_path, '--ground-truth', str(table)) == 0
    result = read_report(tmp_path)
    assert result['bags'][0]['truth']['source'] == table.name
    assert result['conditions'][0]['actions']['action']['top1'] == 1


def test_a_recording_that_trained_the_model_is_noted(bag, tmp_path, capsys):
    assert TRAINING_LABELS == Path(RUN, LABELS)
    shutil.copytree(find_model('synthetic_kitchen'), tmp_path / 'model')
    (tmp_path / 'model' / 'run').mkdir(exist_ok=True)
    for split, count in (('train', 1), ('test', 0)):
        (tmp_path / 'model' / TRAINING_LABELS).write_text(
            f'recording,start,stop,verb,noun,split\nkitchen,0,2,cut,onion,{split}\n')
        assert evaluate(bag, tmp_path / split, '--model', str(tmp_path / 'model')) == 0
        noted = 'trained on a recording of this name, kitchen: if it is this one'
        assert capsys.readouterr().out.count(noted) == count
        assert (noted in (tmp_path / split / 'report.json').read_text()) == bool(count)


def test_a_wrong_table_is_scored_as_wrong(bag, table, tmp_path):
    lines = table.read_text().splitlines()
    rows = [line.split(',') for line in lines[1:]]
    moved = [row[:2] + rows[i - 1][2:] for i, row in enumerate(rows)]
    wrong = tmp_path / 'wrong.csv'
    wrong.write_text('\n'.join([lines[0], *map(','.join, moved)]))
    assert evaluate(bag, tmp_path, '--ground-truth', str(wrong)) == 0
    assert read_report(tmp_path)['conditions'][0]['actions']['action']['top1'] < 0.5


class Stopped(KeyboardInterrupt):
    """What Ctrl-C does."""


def test_a_stopped_run_resumes_and_gives_the_same_report(bag, tmp_path, monkeypatch):
    words = ['--drop-messages', '10%', '--subsets']
    assert evaluate(bag, tmp_path / 'whole', *words) == 0
    monkeypatch.setattr(evaluate_bags, '_PART_BATCHES', 1)
    calls, predict = [], Collector.predict

    def stop_at_third(self, *arguments, **named):
        calls.append(1)
        if len(calls) == 3:
            raise Stopped
        return predict(self, *arguments, **named)
    monkeypatch.setattr(Collector, 'predict', stop_at_third)
    assert evaluate(bag, tmp_path / 'stopped', *words) == 130
    assert not (tmp_path / 'stopped' / 'report.json').exists()
    assert len(list((tmp_path / 'stopped').glob('work/*/part_*.npz'))) == 2

    before = len(calls)
    assert evaluate(bag, tmp_path / 'stopped', *words) == 0
    batches = len(calls) - before
    windows = [len(a) for name, a in predictions(tmp_path / 'whole').items()
               if name == '0/as recorded' or name.startswith('1/')]
    # Predictions on disk are not computed again.
    assert batches == sum(-(-each // evaluate_bags.BATCH) for each in windows) - 2
    assert without_provenance(tmp_path / 'stopped') == without_provenance(tmp_path / 'whole')
    assert 'real_time' not in read_report(tmp_path / 'stopped')['provenance']


@pytest.mark.parametrize(('words', 'columns'), [
    (['--mute', 'audio'], [2]), (['--drop-intervals', 'detections=1'], [3]),
    (['--drop-messages', 'video=100%'], [0, 1]),
])
def test_a_fault_takes_its_sensor_out_of_the_windows(bag, tmp_path, words, columns):
    # Boxes in pixels need the size of an image, which is unknown without any.
    parameters = tmp_path / 'robot.yaml'
    parameters.write_text('/**:\n  ros__parameters:\n    detections:\n'
                          '      image_width: 64\n      image_height: 48\n')
    assert evaluate(bag, tmp_path, *words, '--params', str(parameters)) == 0
    result = predictions(tmp_path)
    recorded = result.pop('0/as recorded')
    (faulty,) = result.values()
    assert len(faulty) > 10 and recorded.present[:, columns].any(0).all()
    assert not faulty.present[:, columns].any()
    others = [i for i in range(4) if i not in columns]
    assert faulty.present[:, others].any(0).all()


def test_mute_for_some_time_drops_only_that_time(bag, tmp_path):
    assert evaluate(bag, tmp_path, '--mute', 'audio@3s..6s') == 0
    (faulty,) = (a for name, a in predictions(tmp_path).items() if name.startswith('1/'))
    seconds = (faulty.inference_ns - faulty.inference_ns[0]) / 1e9
    assert not faulty.present[(seconds > 3.5) & (seconds < 5), 2].any()
    assert faulty.present[(seconds > 1) & (seconds < 2), 2].all()


def test_a_sweep_gives_all_subsets_nine_replays_and_the_curve(bag, tmp_path):
    assert evaluate(bag, tmp_path, '--sweep', '--interval', '1', '--rate', '2') == 0
    result = read_report(tmp_path)
    names = [condition['name'] for condition in result['conditions']]
    assert sum('dropped' in name for name in names) == 9 and len(names) == 1 + 15 + 9
    assert len(result['robustness']['probability']) > 5
    dropped = {name: c['windows'] for name, c in zip(names, result['conditions'])
               if 'dropped' in name}
    assert list(dropped.values())[-1] < list(dropped.values())[0]


@pytest.mark.parametrize('by', ['option', 'parameter'])
def test_each_sensor_is_left_out_in_turn(bag, tmp_path, by):
    parameters = tmp_path / 'robot.yaml'
    parameters.write_text('/**:\n  ros__parameters:\n    leave_one_out: true\n')
    words = ['--leave-one-out'] if by == 'option' else ['--params', str(parameters)]
    assert evaluate(bag, tmp_path, *words, '--rate', '2') == 0
    assert [each['name'] for each in read_report(tmp_path)['conditions']] == [
        'as recorded', 'without rgb', 'without flow', 'without audio', 'without detections']


def test_an_interrupt_is_status_130(bag, tmp_path, monkeypatch, capsys):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr('karmma_ros.cli.bag.evaluate.evaluate_all', stop)
    assert evaluate(bag, tmp_path) == 130
    assert 'karmma bag evaluate: stopped; the same command resumes' in capsys.readouterr().err


def test_the_other_bags_are_evaluated_beside_a_bad_one(bag, tmp_path, capsys):
    bad = tmp_path / 'bad.mcap'
    bad.write_bytes(b'no bag')
    assert evaluate([bad, bag], tmp_path / 'out') == 1
    assert 'left out' in capsys.readouterr().err
    result = read_report(tmp_path / 'out')
    assert len(result['bags']) == 1 and 'bad.mcap' in result['provenance']['left out'][0]


def test_a_truncated_bag_is_scored_up_to_its_end(bag, tmp_path, capsys):
    data = bag.read_bytes()
    (tmp_path / 'cut.mcap').write_bytes(data[:len(data) // 2])
    assert evaluate(tmp_path / 'cut.mcap', tmp_path / 'out') == 1
    assert 'missing: ' in capsys.readouterr().out
    result = read_report(tmp_path / 'out')
    assert result['conditions'][0]['windows'] > 5 and result['bags'][0]['missing_messages']


def test_missing_messages_and_reports_without_a_window_end_with_1(bag, tmp_path, capsys):
    data = bytearray(bag.read_bytes())
    start = data.rindex(b'\x0b' + (46 + 10 * 4).to_bytes(8, 'little'))
    count = int.from_bytes(data[start + 9:start + 17], 'little')
    data[start + 9:start + 17] = (count + 5).to_bytes(8, 'little')
    short = tmp_path / 'short.mcap'
    short.write_bytes(data)
    assert evaluate(short, tmp_path / 'out') == 1
    printed = capsys.readouterr()
    assert "missing: messages counted by the file's statistics, but not in it: 5" in printed.out
    assert 'short.mcap: 5 of its messages or parts could not be read' in printed.err
    assert read_report(tmp_path / 'out')['bags'][0]['missing'] == 5

    never = tmp_path / 'robot.yaml'
    never.write_text('/**:\n  ros__parameters:\n    rgb:\n      enabled: false\n'
                     '    flow:\n      enabled: false\n    audio:\n      enabled: false\n'
                     '    detections:\n      enabled: false\n')
    capsys.readouterr()
    assert evaluate([bag, short], tmp_path / 'no_window', '--params', str(never)) == 1
    printed = capsys.readouterr().err
    assert 'kitchen.mcap: there is no window: nothing was recognised' in printed
    assert read_report(tmp_path / 'no_window')['conditions'][0]['windows'] == 0


def test_after_any_error_in_one_bag_the_others_are_evaluated(
    bag, tmp_path, monkeypatch, capsys
):
    bad = tmp_path / 'bad.mcap'
    bad.write_bytes(bag.read_bytes())
    evaluate_bag = parallel.evaluate_bag

    def broken(path, *arguments):
        if path == bad:
            raise struct.error('unpack requires a buffer of 6 bytes')
        return evaluate_bag(path, *arguments)
    monkeypatch.setattr(parallel, 'evaluate_bag', broken)
    assert evaluate([bad, bag], tmp_path / 'out') == 1
    printed = capsys.readouterr().err
    assert re.search(r'left out: bag .*bad.mcap: it cannot be evaluated \(error: unpack requires '
                     r'a buffer of 6 bytes, in test_bag_evaluate.py:\d+\)', printed)
    assert len(read_report(tmp_path / 'out')['bags']) == 1


def test_a_bag_whose_name_is_not_utf_8_is_evaluated(bag, tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b'/K\xfcche.mcap'))
    path.write_bytes(bag.read_bytes())
    words = ['bag', 'evaluate', path, *MODEL, '--out', tmp_path / 'out']
    run = subprocess.run([sys.executable, '-m', 'karmma_ros.cli.main', *words],
                         capture_output=True, text=True, encoding='utf-8')
    assert run.returncode == 0 and 'K\ufffdche.mcap' in run.stdout, run.stderr
    assert 'K\ufffdche' in read_report(tmp_path / 'out')['bags'][0]['name']
    assert 'K\ufffdche' in (tmp_path / 'out' / 'report.html').read_text(encoding='utf-8')


def test_bags_evaluated_in_parallel_give_the_same_predictions(bag, tmp_path):
    copy = tmp_path / 'copy.mcap'
    copy.write_bytes(bag.read_bytes())
    assert evaluate([bag, copy], tmp_path / 'out', '--jobs', '2') == 0
    result = read_report(tmp_path / 'out')
    assert [b['name'] for b in result['bags']] == ['kitchen', 'copy']
    assert result['conditions'][0]['actions']['action']['top1'] == 1


@pytest.mark.parametrize(
    ('words', 'sentence'),
    [
        (['--drop-intervals', 'nose=0.5'], '--drop-intervals'),
        (['--mute', 'audio@9..1'], '--mute'),
        (['--delay', 'audio=-1'], '--delay'),
        (['--drop-messages', '200%'], '--drop-messages'),
        (['--rate', '0'], '--rate'),
        (['--jobs', '0'], '--jobs'),
        (['--interval', '0'], '--interval'),
        (['--topics', 'rgb'], '--topics'),
        (['--topics', 'rgb=/no'], 'a topic of the bag'),
        (['--ground-truth', '/no_topic'], 'a topic of the bag'),
        (['--ground-truth', 'no.csv'], '--ground-truth'),
        (['--device', 'toaster'], '--device'),
        (['--params', 'no.yaml'], '--params'),
        (['--mute', 'flow'], 'computed from the camera'),
        (['--topics', 'nose=/image'], 'roles are rgb'),
        (['--out', __file__], '--out is'),
        (['--ground-truth', '/image'], '--ground-truth is'),
    ],
)
def test_what_cannot_be_done_is_a_sentence(bag, tmp_path, capsys, words, sentence):
    assert evaluate(bag, tmp_path, *words) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / 'report.json').exists()


def test_an_unknown_model_is_an_error_that_lists_the_models(bag, tmp_path, capsys):
    assert main(['bag', 'evaluate', str(bag), '--model', 'no', '--out', str(tmp_path)]) == 2
    assert 'synthetic_kitchen' in capsys.readouterr().err


def test_the_table_in_the_manual_is_read(tmp_path):
    page = (Path(__file__).resolve().parents[2] / 'docs' / 'bags.md').read_text()
    example = re.search(r'^```csv\n(.*?)^```', page, re.MULTILINE | re.DOTALL).group(1)
    (tmp_path / 'truth.csv').write_text(example)
    vocabulary = load_bundle(find_model('synthetic_kitchen')).vocabulary
    start_ns = 1_700_000_000_000_000_000
    info = BagInfo('bag', start_ns, start_ns + 20 * 10**9, 'mcap', 0, {}, {}, [])
    truth = Truth.read(tmp_path / 'truth.csv', info, vocabulary)
    assert not truth.left_out and all(action.known for action in truth.actions)
    assert [(a.start_ns - start_ns) / 1e9 for a in truth.actions] == [0, 3.5, 12]
    assert [(a.end_ns - start_ns) / 1e9 for a in truth.actions] == [3.5, 8.2, 15]
