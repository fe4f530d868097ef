"""The predictions for a bag are those of the recogniser, by window and subset."""

from dataclasses import replace
import os
from pathlib import Path
import re
from types import SimpleNamespace

from karmma_ros.bags import evaluate
from karmma_ros.bags.bag_message import BagFrames
from karmma_ros.bags.bag_run import AS_RECORDED, Condition
from karmma_ros.bags.collect import bag_digest, ResumableRun
from karmma_ros.bags.evaluate import evaluate_bag, Settings
from karmma_ros.bags.faults import Delay, Mute
from karmma_ros.bags.message_definitions import TypeReader
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.recorded import (
    compare_recorded,
    read_recorded,
    recorded_prediction,
    RecordedPredictions,
)
from karmma_ros.bags.replay import Replay, Run
from karmma_ros.bags.topics import choose_topics
from karmma_ros.errors import BagError, InvalidSampleError
from karmma_ros.evaluation.predictions import (
    BagPredictions,
    load_conditions,
    PredictionsError,
    save_conditions,
)
from karmma_ros.evaluation.window_inference import BatchInference
from karmma_ros.modality import Modality, PAPER_MODALITIES, parse_subset, subset_name
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import preset
from karmma_ros.model.registry import find_model
from karmma_ros.storage import fingerprint
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.settings import node_parameters
import numpy as np
import pytest
from rosbags.interfaces import MessageDefinition, MessageDefinitionFormat
from rosbags.typesys import get_types_from_msg, get_typestore, Stores
import torch

V, A = Modality.RGB, Modality.AUDIO
TYPE = 'karmma_msgs/msg/ActionRecognition'
MESSAGES = Path(__file__).parents[2] / 'karmma_msgs' / 'msg'


@pytest.fixture(scope='module')
def bundle():
    return load_bundle(find_model('synthetic_kitchen'))


def evaluated(path, bundle, run_dir=None, **settings):
    return evaluate_bag(path, bundle, Settings(node_parameters(), **settings), run_dir)


@pytest.fixture(scope='module')
def result(kitchen, bundle):
    return evaluated(kitchen, bundle, subsets=True)


def equal(a, b):
    """Compare everything but the time it took."""
    return (np.array_equal(a.states, b.states) and np.array_equal(a.present, b.present)
            and all(np.array_equal(getattr(a, n), getattr(b, n))
                    for n in ('start_ns', 'end_ns', 'inference_ns'))
            and all(np.array_equal(p, b.probabilities[h]) for h, p in a.probabilities.items()))


def test_every_prediction_is_that_of_the_recogniser(kitchen, bundle, result):
    assert bundle.calibration
    network = Recogniser(bundle.network, bundle.vocabulary, bundle.spec,
                         calibration=bundle.calibration)
    modalities = bundle.network.modalities
    with Bag(kitchen) as bag:
        requests = list(Replay(bag, choose_topics(bag, {}, modalities), bundle.spec, modalities,
                           node_parameters(), [Run()]).windows())
    recorded = result.predictions[Condition()]
    assert len(recorded) == len(requests) > 20
    for condition, predictions in result.predictions.items():
        keep = parse_subset(condition.subset) if condition.subset else modalities
        rows = [
            c for c in requests if not condition.subset or set(keep) <= set(c.window.modalities)
        ]
        assert [c.inference_ns for c in rows] == predictions.inference_ns.tolist()
        for row in range(0, len(rows), 7):
            expected = network.recognise(rows[row].window, keep)
            for head, p in expected.probabilities.items():
                np.testing.assert_allclose(
                    predictions.probabilities[head][row], p, atol=1e-5)
            assert predictions.is_unknown[row] == expected.is_unknown


def test_predictions_without_each_sensor_are_those_of_the_recogniser(kitchen, bundle):
    network = Recogniser(bundle.network, bundle.vocabulary, bundle.spec,
                         calibration=bundle.calibration)
    modalities = bundle.network.modalities
    with Bag(kitchen) as bag:
        requests = list(Replay(bag, choose_topics(bag, {}, modalities), bundle.spec, modalities,
                           node_parameters(), [Run()]).windows())
    predictions = evaluated(kitchen, bundle, leave_one_out=True).predictions
    assert [c.name for c in predictions] == ['as recorded', *(f'without {m}' for m in modalities)]
    live = [network.recognise(request.window, leave_one_out=True) for request in requests]
    for modality in modalities:
        table = predictions[Condition.leaving_out(modality)]
        rows = [(request, each.without[modality]) for request, each in zip(requests, live)
                if modality in each.without]
        assert [request.inference_ns for request, _ in rows] == table.inference_ns.tolist()
        assert len(table) > 10 and not table.present[:, modalities.index(modality)].any()
        for head, p in table.probabilities.items():
            np.testing.assert_allclose(
                p, [each.probabilities[head] for _, each in rows], atol=1e-5)


@pytest.mark.parametrize('condition, own, used', [
    (Condition(), 'V+A', 'V+A'), (Condition.of_subset((A,)), 'V+A', 'A'),
    (Condition.of_subset((V, A)), 'A+D', 'none'), (Condition.leaving_out(A), 'V+A', 'V'),
    (Condition.leaving_out(A), 'V+D', 'none'), (Condition.leaving_out(A), 'A', 'none'),
])
def test_what_a_condition_uses_of_a_window(condition, own, used):
    assert subset_name(condition.used(parse_subset(own))) == used


@pytest.fixture(scope='module')
def causal(tmp_path_factory, bundle):
    """Return a stateful network with random weights: it uses frames before the window."""
    torch.manual_seed(0)
    config, spec, vocabulary = preset('tiny_causal'), bundle.spec, bundle.vocabulary
    path, network = tmp_path_factory.mktemp('models') / 'causal', build(config, spec, vocabulary)
    with torch.no_grad():
        for (
            weights
        ) in network.encoders.parameters():  # with its initial weights the state has no effect
            weights.add_(0.1 * torch.randn_like(weights))
    save_bundle(path, network, config, spec, vocabulary, dataset='none', card='')
    return load_bundle(path)


def test_a_stateful_network_predicts_what_it_predicts_in_the_node(kitchen, causal):
    node, modalities = (lambda: Recogniser(causal.network, causal.vocabulary, causal.spec),
                        causal.network.modalities)
    values, runs = node_parameters(), [Run(), Run((Mute('audio'),))]
    with Bag(kitchen) as bag:
        requests = list(Replay(bag, choose_topics(bag, {}, modalities), causal.spec, modalities,
                           values, runs, hop=node().hop(values['rate'])).windows())
    result = evaluated(kitchen, causal, subsets=True, faults=(runs[1].faults,))
    recorded, muted = result.predictions[Condition()], list(result.predictions.values())[-1]
    for run_index, predictions in enumerate((recorded, muted)):
        stateful, windows = (
            node(),
            [request.window for request in requests if request.run_index == run_index],
        )
        assert len(predictions) == len(windows) > 20
        expected = [stateful.recognise(window).probabilities for window in windows]
        for head, p in predictions.probabilities.items():
            np.testing.assert_allclose(p, [each[head] for each in expected], atol=1e-5)
    anew = [
        node().recognise(request.window).probabilities['verb']
        for request in requests
        if not request.run_index
    ]
    assert np.abs(recorded.probabilities['verb'] - anew).max() > 1e-4


def test_a_stopped_run_of_a_stateful_network_resumes(
    kitchen, causal, tmp_path, monkeypatch
):
    monkeypatch.setattr(evaluate, '_PART_BATCHES', 1)
    complete = evaluated(kitchen, causal, tmp_path / 'complete')
    add, calls = ResumableRun.add, []

    def stopped(work, *part):
        calls.append(add(work, *part))
        if len(calls) == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ResumableRun, 'add', stopped)
        evaluated(kitchen, causal, tmp_path / 'stopped')
    resumed = evaluated(kitchen, causal, tmp_path / 'stopped')
    assert not resumed.fresh
    assert all(equal(a, resumed.predictions[c]) for c, a in complete.predictions.items())


def test_a_resumed_run_counts_the_windows_that_were_left_out_before(
    kitchen, bundle, tmp_path, monkeypatch
):
    prepare, add = BatchInference.prepare, ResumableRun.add
    left_out = []

    def prepared(inference, run_index, window):
        if not left_out or window.end_ns == left_out[0]:
            left_out.append(window.end_ns)
            raise InvalidSampleError('damaged')
        return prepare(inference, run_index, window)

    def stopped(work, *part):
        add(work, *part)
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluate, '_PART_BATCHES', 1)
    monkeypatch.setattr(BatchInference, 'prepare', prepared)
    complete = evaluated(kitchen, bundle, tmp_path / 'complete')
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(ResumableRun, 'add', stopped)
        evaluated(kitchen, bundle, tmp_path / 'stopped')
    resumed = evaluated(kitchen, bundle, tmp_path / 'stopped')
    assert complete.info.missing_messages['windows that cannot be prepared: damaged'] >= 1
    assert resumed.info == complete.info


def test_conditions_are_named_and_masked(result):
    names = [condition.name for condition in result.predictions]
    assert names[:3] == [AS_RECORDED, 'V+F+A+D', 'V+F+A'] and len(names) == 16
    for condition, predictions in result.predictions.items():
        if condition.subset:
            assert {subset_name(m for m, present in zip(PAPER_MODALITIES, row) if present)
                    for row in predictions.present} == {condition.name}
        for p in predictions.probabilities.values():
            assert p.dtype == np.float32
            np.testing.assert_allclose(p.sum(axis=1), 1, atol=1e-5)


def test_the_actions_are_recognised(bundle, result):
    predictions = result.predictions[Condition()]
    for start_ns, end_ns, verb, noun, *_ in result.truths:
        inside = (predictions.start_ns >= start_ns) & (predictions.end_ns < end_ns)
        best = {h: bundle.vocabulary.heads[h][p[inside].mean(axis=0).argmax()]
                for h, p in predictions.probabilities.items()}
        assert (best['verb'], best['noun']) == (verb, noun)


def test_results_are_loaded_from_the_run_folder(kitchen, bundle, tmp_path, monkeypatch):
    first = evaluated(kitchen, bundle, tmp_path)
    monkeypatch.setattr(Replay, 'windows', lambda *_: pytest.fail('the bag was read again'))
    second = evaluated(kitchen, bundle, tmp_path)
    assert first.fresh and not second.fresh
    assert first.info == second.info and list(first.truths) == list(second.truths)
    assert all(equal(a, second.predictions[c]) for c, a in first.predictions.items())


def test_a_modified_bag_is_evaluated_again(kitchen, bundle, tmp_path):
    path, work = tmp_path / 'kitchen.mcap', tmp_path / 'work'
    path.write_bytes(kitchen.read_bytes())
    before, digest = path.stat(), bag_digest([path])
    first = evaluated(path, bundle, work)
    (tmp_path / 'moved').mkdir()
    moved = path.rename(tmp_path / 'moved' / path.name)
    os.utime(moved)
    assert bag_digest([moved]) == digest and not evaluated(moved, bundle, work).fresh
    data = moved.read_bytes()
    for offset in (0, 8, len(data) // 7, len(data) // 2, len(data) - 1):
        other = bytearray(data)
        other[offset] ^= 1
        moved.write_bytes(other)
        assert bag_digest([moved]) != digest, offset
    frame = data.index(b'rgb8')
    moved.write_bytes(data[:frame + 2000] + bytes(4) + data[frame + 2004:])
    os.utime(moved, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (moved.stat().st_size, moved.stat().st_mtime_ns) == (
        before.st_size, before.st_mtime_ns)
    second = evaluated(moved, bundle, work)
    assert first.fresh and second.fresh


def test_the_run_folder_depends_on_the_metadata_and_the_model(kitchen, bundle, tmp_path):
    folder = tmp_path / 'bag'
    folder.mkdir()
    (folder / 'kitchen.mcap').write_bytes(kitchen.read_bytes())
    keys = []

    def note(model=bundle, **settings):
        with Bag(folder) as bag:
            keys.append(fingerprint(evaluate._key_facts(
                bag, model, Settings(node_parameters(), **settings), {})))
    note()
    note()
    assert len(set(keys)) == 1
    (folder / 'kitchen.mcap').touch()
    note()
    assert len(set(keys)) == 1
    metadata = folder / 'metadata.yaml'
    for text in ('kitchen.mcap]', 'kitchen.mcap]\n  message_count: 9', 'kitchen.mcap, b.mcap]'):
        metadata.write_text(
            f'rosbag2_bagfile_information:\n  relative_file_paths: [{text}\n')
        note()
    note(replace(bundle, name='other'))
    note(replace(bundle, sha256='0' * 64))
    note(replace(bundle, config=replace(bundle.config, token_cap=3)))
    note(subsets=True)
    note(seed=1, faults=((Mute('audio'),),))
    (folder / 'kitchen.mcap').rename(folder / 'pantry.mcap')
    note()
    assert len(set(keys)) == len(keys) - 2


def test_results_of_a_bag_that_changes_while_it_is_read_are_removed(
    kitchen, bundle, tmp_path, monkeypatch
):
    path, work = tmp_path / 'kitchen.mcap', tmp_path / 'work'
    path.write_bytes(kitchen.read_bytes())
    run = evaluate._Evaluation.run

    def changing(*arguments):
        result = run(*arguments)
        os.utime(path)
        return result
    monkeypatch.setattr(evaluate._Evaluation, 'run', changing)
    with pytest.raises(BagError, match='its files changed while they were read'):
        evaluated(path, bundle, work)
    assert not list(work.glob('*'))


@pytest.mark.parametrize('change', [
    {'seed': 1, 'faults': ((Mute('audio'),),)}, {'subsets': True}, {'batch_size': 4}])
def test_other_settings_have_another_run_folder(kitchen, bundle, tmp_path, change):
    evaluated(kitchen, bundle, tmp_path)
    evaluated(kitchen, bundle, tmp_path, **change)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_damaged_part_is_computed_again(kitchen, bundle, tmp_path):
    first = evaluated(kitchen, bundle, tmp_path)
    (folder,) = tmp_path.iterdir()
    (folder / 'predictions.npz').write_bytes(b'not predictions')
    (folder / 'part_000000_3.npz').write_bytes(b'request off')
    second = evaluated(kitchen, bundle, tmp_path)
    assert all(equal(a, second.predictions[c]) for c, a in first.predictions.items())


def test_stamps_of_another_clock_are_shifted_to_that_of_the_bag(kitchen, bundle, bags, tmp_path):
    """The drivers' clock began at 1970, as on a computer without a battery."""
    def moved_back(stamp):
        return replace(stamp, sec=stamp.sec - bags.start_ns // 10**9 + 5)

    def since_boot(topic, time_ns, message):
        if hasattr(message, 'header'):
            message.header = replace(message.header, stamp=moved_back(message.header.stamp))
        if hasattr(message, 'end'):
            message.end = moved_back(message.end)
        return topic, time_ns, message
    moved = evaluated(bags.rewrite(kitchen, tmp_path / 'bag', since_boot), bundle)
    predictions = moved.predictions[Condition()]
    assert len(predictions) > 20
    assert (abs(predictions.inference_ns - predictions.end_ns) < 10**9).all()
    assert any('the stamps are' in warning for warning in moved.info.warnings)
    assert all(start >= bags.start_ns - 10**9 for start, *_ in moved.truths)


def test_faults_are_a_run_of_their_own(kitchen, bundle):
    faulty = evaluated(kitchen, bundle, faults=((Mute('audio'),), (Delay('rgb', 0.2),)), seed=3)
    recorded, muted, delayed = faulty.predictions.values()
    assert equal(recorded, evaluated(kitchen, bundle).predictions[Condition()])
    assert not muted.present[:, 2].any() and muted.present[:, 0].any()
    assert len(delayed) > 20
    names = [(c.name, c.parameters.get('seed')) for c in faulty.predictions]
    assert names == [(AS_RECORDED, None), ('audio muted', 3), ('rgb delayed 0.2 s', 3)]


def newest_stamps(path, bundle):
    """Return end of a window → the newest stamp of each sensor."""
    with Bag(path) as bag:
        modalities = bundle.network.modalities
        requests = Replay(bag, choose_topics(bag, {}, modalities), bundle.spec, modalities,
                      node_parameters(), [Run()]).windows()
        return {
            request.window.end_ns: [s.last_stamp_ns for s in request.window.statuses]
            for request in requests
        }


def recognitions(path, bundle, predictions, change=lambda scores: scores):
    """Yield messages as the node would have published them, for every other window."""
    newest = newest_stamps(path, bundle)
    store = TypeReader(TYPE, None)._store
    types = store.types

    def time(time_ns):
        return types['builtin_interfaces/msg/Time'](*divmod(int(time_ns), 10**9))

    for row in range(0, len(predictions), 2):
        end = time(predictions.end_ns[row])
        labels = {head: [types['karmma_msgs/msg/LabelScore'](int(i), '', float(p[row][i]))
                         for i in np.argsort(-p[row])[:3]]
                  for head, p in predictions.probabilities.items()}
        statuses = [
            types['karmma_msgs/msg/ModalityStatus'](
                name, 5, bool(used), time(stamp_ns), 0.0, 0.0, 0, 0.0, 0, ''
            )
            for name, used, stamp_ns in zip(
                ('rgb', 'flow', 'audio', 'detections'),
                predictions.present[row],
                newest[predictions.end_ns[row]],
            )
        ]
        message = types[TYPE](
            types['std_msgs/msg/Header'](end, ''), time(0), end, row, '', change(labels['verb']),
            labels['noun'], [], statuses, True, 0.01, 0.01, bundle.model_id, [],
            unknown_score=0.0, is_unknown=False, leave_one_out=[], prediction_sets=[])
        yield ('/action_recognition', TYPE, store, int(predictions.inference_ns[row]) + 10_000_000,
               store.serialize_cdr(message, TYPE))


def test_recorded_predictions_are_compared(kitchen, bundle, bags, result, tmp_path):
    predictions = result.predictions[Condition()]
    more = list(recognitions(kitchen, bundle, predictions))
    path = bags.rewrite(kitchen, tmp_path / 'bag', lambda *message: message, more)
    recorded = evaluated(path, bundle).recorded
    assert recorded.predictions == recorded.same_window == recorded.same_prediction == len(more)
    assert recorded.largest_difference < 1e-5 and recorded.topic == '/action_recognition'
    assert result.recorded is None


def test_recorded_predictions_that_differ_are_counted(kitchen, bundle, bags, result, tmp_path):
    def swapped(labels):
        return [replace(labels[1], score=labels[0].score), replace(labels[0], score=0.0)]
    more = list(recognitions(kitchen, bundle, result.predictions[Condition()], swapped))
    path = bags.rewrite(kitchen, tmp_path / 'bag', lambda *message: message, more)
    recorded = evaluated(path, bundle).recorded
    assert recorded.same_window == len(more)
    assert recorded.same_prediction == recorded.same_best == 0


@pytest.mark.parametrize(('verbs', 'same', 'without'), [
    ([(1, 0.7), (0, 0.3)], 1, 0), ([(1, 0.6), (0, 0.4)], 0, 0), ([(7, 0.7)], 0, 0), ([], 0, 1)])
def test_a_recorded_prediction_of_one_head_is_compared_or_counted_as_empty(verbs, same, without):
    status = SimpleNamespace(name='rgb', used=True, last_stamp=SimpleNamespace(sec=2, nanosec=0))
    message = SimpleNamespace(
        window_end=SimpleNamespace(sec=2, nanosec=0), end_to_end_latency=0.1, model_id='waves@1',
        inference_latency=0.1, modalities=[status], nouns=[],
        verbs=[SimpleNamespace(class_id=i, score=p) for i, p in verbs])
    second = np.array([10**9])
    predictions = BagPredictions(
        second,
        2 * second,
        2 * second,
        np.array([[True, False, False, False]]),
        {'gesture': np.array([[0.3, 0.7]], np.float32)},
        np.zeros(1, bool),
        np.zeros(1, np.float32),
        np.zeros((0, 5), np.int64),
    )
    recorded_predictions = RecordedPredictions(
        '/action_recognition', (recorded_prediction(message, 2 * 10**9, ('gesture',)),)
    )
    recorded = compare_recorded(
        recorded_predictions, predictions, SimpleNamespace(model_id='waves@1')
    )
    assert recorded.same_window == recorded.same_sensors == 1
    assert recorded.same_prediction == same and recorded.without_classes == without
    assert recorded.same_best == (verbs[:1] in ([(1, 0.7)], [(1, 0.6)]))


@pytest.mark.parametrize(('score', 'same'), [(0.8, 1), (0.7, 0)])
def test_a_recorded_head_beyond_verb_and_noun_is_compared(score, same):
    def labels(score):
        return [SimpleNamespace(class_id=1, score=score)]
    message = SimpleNamespace(
        window_end=SimpleNamespace(sec=2, nanosec=0), end_to_end_latency=0.1, model_id='tools@1',
        inference_latency=0.1, modalities=[], verbs=labels(0.7), nouns=labels(0.6), other_heads=[
            SimpleNamespace(head='tool', labels=labels(score)),
            SimpleNamespace(head='unknown', labels=labels(0.5)),
            SimpleNamespace(head='verb', labels=labels(0.1))])  # the field verbs counts
    prediction = recorded_prediction(message, 2 * 10**9, ('tool', 'noun', 'verb'))
    second = np.array([10**9])
    predictions = BagPredictions(second, 2 * second, 2 * second, np.zeros((1, 4), bool),
                      {head: np.array([[1 - p, p]], np.float32)
                       for head, p in (('tool', 0.8), ('noun', 0.6), ('verb', 0.7))},
                      np.zeros(1, bool), np.zeros(1, np.float32), np.zeros((0, 5), np.int64))
    recorded = compare_recorded(
        RecordedPredictions('/action_recognition', (prediction,)),
        predictions,
        SimpleNamespace(model_id='tools@1'),
    )
    assert recorded.same_prediction == same and recorded.same_best == 1


@pytest.mark.parametrize('model_id', ['waves@1', 'waves@12', 'waves@123', 'waves@1234'])
@pytest.mark.parametrize('defined', [True, False])
@pytest.mark.parametrize(('first_missing', 'heads'), [
    ('HeadScores[]', ()), ('float32 unknown_score', ()), ('float32 unknown_score', ('tool',)),
    ('LeaveOneOutScore[]', ()), ('LeaveOneOutScore[]', ('tool',)),
    ('HeadScores[] prediction_sets', ()), ('HeadScores[] prediction_sets', ('tool',))])
def test_results_recorded_before_fields_were_added_are_read(
        model_id, defined, first_missing, heads):
    texts = {path.stem: path.read_text() for path in MESSAGES.glob('*.msg')}
    old = texts['ActionRecognition'].partition(first_missing)[0]
    assert old != texts['ActionRecognition']
    store = get_typestore(Stores.ROS2_HUMBLE)
    for name in ('LabelScore', 'ActionScore', 'ModalityStatus', 'HeadScores',
                 'LeaveOneOutScore'):
        store.register(get_types_from_msg(texts[name], f'karmma_msgs/msg/{name}'))
    store.register(get_types_from_msg(old, TYPE))
    types = store.types
    second = types['builtin_interfaces/msg/Time'](2, 0)
    others = [types['karmma_msgs/msg/HeadScores'](head, []) for head in heads]
    later = {'HeadScores[]': [], 'float32 unknown_score': [others],
             'LeaveOneOutScore[]': [others, 0.5, True],
             'HeadScores[] prediction_sets': [others, 0.5, True, []]}
    message = types[TYPE](
        types['std_msgs/msg/Header'](second, ''), second, second, 1, '',
        [types['karmma_msgs/msg/LabelScore'](1, 'point', 0.5)], [], [], [], True, 0.01, 0.02,
        model_id, *later[first_missing])
    data = bytes(store.serialize_cdr(message, TYPE))
    definition = MessageDefinition(
        MessageDefinitionFormat.MSG, store.generate_msgdef(TYPE, ros_version=2)[0])
    bag = SimpleNamespace(
        reader=lambda topic: TypeReader(TYPE, definition if defined else None),
        messages=lambda topics: [(None, 0, data), (None, 0, data[:40])])
    recorded_predictions = read_recorded(
        bag, SimpleNamespace(name='/action_recognition'), ('gesture',)
    )
    prediction, = recorded_predictions.predictions
    assert prediction.scores == {'gesture': {1: 0.5}, **{head: {} for head in heads}}
    assert prediction.model_id == model_id
    assert recorded_predictions.unreadable == 1


def test_frames_are_read_by_their_times(kitchen, result, bags):
    camera = result.info.topics['rgb']
    frames = BagFrames(kitchen, camera['topic'], camera['type'])
    first, last, none = frames([bags.start_ns, bags.start_ns + 5 * 10**9, bags.start_ns - 10**10])
    assert first.shape == last.shape == (48, 64, 3) and none is None
    assert not np.array_equal(first, last)
    assert list(BagFrames(kitchen, '', '')([1])) == [None]
    gone = BagFrames(kitchen.with_name('gone.mcap'), '/image', camera['type'])
    assert list(gone([1])) == [None]


def test_a_bag_without_a_window_has_a_warning_with_the_reason(bags, bundle, tmp_path):
    path = bags.kitchen(tmp_path / 'short.mcap', episodes=1, seconds=0.5)
    short = evaluated(path, bundle)
    assert len(short.predictions[Condition()]) == 0
    assert 'there is no window' in short.info.warnings
    assert any(re.match(r'rgb is in no window: \d of 16 frames; it needs 8', warning)
               for warning in short.info.warnings)


def test_a_sensor_with_another_clock_has_a_warning(kitchen, bundle, bags, tmp_path):
    def late(topic, time_ns, message):
        if topic == '/detections':
            stamp = replace(message.header.stamp, sec=message.header.stamp.sec - 1000)
            message.header = replace(message.header, stamp=stamp)
        return topic, time_ns, message
    result = evaluated(bags.rewrite(kitchen, tmp_path / 'bag', late), bundle)
    assert len(result.predictions[Condition()]) > 20
    assert any(re.match(r'detections is in no window: .* behind the others: their clocks differ',
                        warning) for warning in result.info.warnings)


def test_a_file_that_is_no_bag_is_a_sentence(bundle, tmp_path):
    (tmp_path / 'bag.mcap').write_bytes(b'')
    with pytest.raises(BagError, match='there is no message in it .*empty.*record again'):
        evaluated(tmp_path / 'bag.mcap', bundle)


def test_predictions_are_written_and_read(result, tmp_path):
    predictions = result.predictions[Condition()]
    save_conditions(tmp_path / 'a.npz', {'': predictions})
    assert equal(predictions, load_conditions(tmp_path / 'a.npz')[''])
    save_conditions(tmp_path / 'b.npz', {'x/V+A': predictions, 'y': predictions.select(slice(3))})
    assert len(load_conditions(tmp_path / 'b.npz')['y']) == 3
    complete = BagPredictions.concatenate(
        [predictions.select(slice(5)), predictions.select(slice(5, None))]
    )
    assert equal(complete, predictions)
    (tmp_path / 'c.npz').write_bytes((tmp_path / 'a.npz').read_bytes()[:500])
    for name in ('c.npz', 'none.npz'):
        with pytest.raises(PredictionsError, match='run the evaluation'):
            load_conditions(tmp_path / name)
