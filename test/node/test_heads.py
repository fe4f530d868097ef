"""A model with one head, with three, or with heads of other names publishes what it recognises."""

from dataclasses import replace
from types import SimpleNamespace

from karmma_msgs.msg import (
    ActionAnnotation,
    ActionEvent,
    ActionRecognition,
    HeadScores,
    LabelScore,
    ModelInfo,
)
from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import preset
from karmma_ros.node import messages
from karmma_ros.node.demo import DemoScore
from karmma_ros.node.messages import (
    event_message,
    heads_note,
    model_info_message,
    Publishing,
    recognition_message,
)
from karmma_ros.node.watch import event_line, recognition_line
from karmma_ros.overlay.drawing import draw, load_fonts, placeholder
from karmma_ros.overlay.status import NodeStatus
from karmma_ros.prediction import Prediction, Vocabulary
from karmma_ros.stream.events import ActionEvents, EventSettings, Phase
import numpy as np
import pytest
from rcl_interfaces.msg import Log
from rclpy.lifecycle import LifecycleNode
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
import torch
from vision_msgs.msg import LabelInfo

LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
WAVES = {'gesture': ('wave', 'point', 'nod')}
TOOLS = {'tool': ('knife', 'fork'), 'noun': ('bread', 'cup'), 'verb': ('cut', 'wash')}
HANDS = {'gesture': ('wave', 'point'), 'hand': ('left', 'right')}
SCORES = {'gesture': (0.1, 0.7, 0.2), 'tool': (0.3, 0.7), 'verb': (0.9, 0.1), 'noun': (0.4, 0.6),
          'hand': (0.8, 0.2)}


def predicted(classes):
    return Prediction({h: np.array(SCORES[h][:len(names)]) for h, names in classes.items()},
                      Vocabulary(classes))


def result(classes, threshold=0.0, top_k=2):
    window = SimpleNamespace(start_ns=1_000_000_000, end_ns=2_000_000_000, statuses=(),
                             modalities=())
    return recognition_message(
        predicted(classes), window, Publishing(top_k, threshold, 'me', 'model@1'))


def words(message):
    return ([s.class_name for s in message.verbs], [s.class_name for s in message.nouns],
            [(a.verb, a.verb_id, a.noun, a.noun_id) for a in message.actions])


def others(message):
    return {each.head: [(s.class_name, s.class_id, round(s.score, 6)) for s in each.labels]
            for each in message.other_heads}


def test_one_head_is_published_as_verbs_and_as_actions_without_a_noun():
    message = result(WAVES)
    assert words(message) == (['point', 'nod'], [], [('point', 1, '', -1), ('nod', 2, '', -1)])
    assert [a.score for a in message.actions] == pytest.approx([0.7, 0.2])


def test_verb_and_noun_go_by_name_and_a_third_head_is_no_part_of_the_action():
    message = result(TOOLS)
    assert words(message)[:2] == (['cut', 'wash'], ['cup', 'bread'])
    assert words(message)[2] == [('cut', 0, 'cup', 1), ('cut', 0, 'bread', 0)]
    assert message.actions[0].score == pytest.approx(0.54)


def test_the_heads_that_are_no_part_of_the_action_have_a_field_of_their_own():
    classes = {**HANDS, **TOOLS}
    message = result(classes)
    assert words(message)[:2] == (['cut', 'wash'], ['cup', 'bread'])
    assert others(message) == {
        'gesture': [('point', 1, 0.7), ('wave', 0, 0.1)],
        'hand': [('left', 0, 0.8), ('right', 1, 0.2)],
        'tool': [('fork', 1, 0.7), ('knife', 0, 0.3)]}
    assert [len(each.labels) for each in result(classes, top_k=1).other_heads] == [1, 1, 1]
    assert not result(WAVES).other_heads and not result(HANDS).other_heads


def test_above_threshold_does_not_cover_other_heads(monkeypatch):
    monkeypatch.setitem(SCORES, 'tool', (0.5, 0.5))
    assert result(TOOLS, 0.55).above_threshold


def test_two_heads_of_other_names_go_by_their_order():
    assert words(result(HANDS, top_k=1)) == (['point'], ['left'], [('point', 1, 'left', 0)])


@pytest.mark.parametrize(('classes', 'best'), [(WAVES, 0.7), (TOOLS, 0.6), (HANDS, 0.7)])
def test_above_threshold_needs_every_part_of_the_action(classes, best):
    assert result(classes, best - 0.01).above_threshold
    assert not result(classes, best + 0.01).above_threshold


@pytest.mark.parametrize('classes', [WAVES, TOOLS, HANDS])
def test_an_event_has_the_classes_of_the_result(classes):
    events = ActionEvents(EventSettings(0.0, 0.4, 0.2, 0.0), Vocabulary(classes))
    message, best = result(classes), predicted(classes)
    event, = events.push(2_000_000_000, 1_000_000_000, best)
    assert event.phase is Phase.STARTED
    message_of_event = event_message(event, Publishing(1, 0.0, '', ''), '')
    assert (message_of_event.verb.class_name, message_of_event.noun.class_name) == (
        message.actions[0].verb, message.actions[0].noun)
    assert message_of_event.noun.class_id == message.actions[0].noun_id


@pytest.mark.parametrize(('classes', 'verbs', 'nouns', 'note'), [
    (WAVES, ['wave', 'point', 'nod'], [], 'verbs has the classes of head gesture, nouns is empty'),
    (TOOLS, ['cut', 'wash'], ['bread', 'cup'],
     'verbs has the classes of head verb, nouns those of noun, other_heads those of tool; '
     'actions, above_threshold, action_events and label_info have verbs and nouns only'),
    (HANDS, ['wave', 'point'], ['left', 'right'],
     'verbs has the classes of head gesture, nouns those of hand'),
    ({'noun': ('cup',), 'verb': ('cut',)}, ['cut'], ['cup'], ''),
])
def test_the_model_is_described_by_the_classes_that_are_published(classes, verbs, nouns, note):
    network = SimpleNamespace(modalities=())
    bundle = SimpleNamespace(
        network=network, vocabulary=Vocabulary(classes), model_id='m@1', path='m', sha256='1',
        dataset='none', spec=ClipSpec(), commercial_use=True)
    info = model_info_message(bundle, 'cpu', 0)
    assert (list(info.verbs), list(info.nouns)) == (verbs, nouns)
    assert [(each.head, list(each.classes)) for each in info.other_heads] == (
        [('tool', ['knife', 'fork'])] if classes is TOOLS else [])
    assert heads_note(Vocabulary(classes)) == note


@pytest.mark.parametrize(('classes', 'text'), [
    (WAVES, '   1.0 s    point                    0.70  1500 ms'),
    (TOOLS, '   1.0 s    cut cup                  0.54  1500 ms  tool: fork 0.70'),
    ({**HANDS, **TOOLS}, '   1.0 s    cut cup                  0.54  1500 ms'
     '  gesture: point 0.70  hand: left 0.80  tool: fork 0.70'),
])
def test_watch_prints_every_head(classes, text):
    message = result(classes)
    message.end_to_end_latency = 1.5
    assert recognition_line(message, 1.0) == text
    event = ActionEvent(verb=LabelScore(class_name='point'), noun=LabelScore(class_id=-1))
    assert event_line(event, 0.0) == '   0.0 s  point started (0.00)'


def test_an_unknown_action_is_published_and_watched():
    window = SimpleNamespace(start_ns=1_000_000_000, end_ns=2_000_000_000, statuses=(),
                             modalities=())
    prediction = replace(predicted(WAVES), unknown_score=-2.5, is_unknown=True)
    message = recognition_message(prediction, window, Publishing(2, 0.0, 'me', 'model@1'))
    assert message.unknown_score == -2.5 and message.is_unknown
    assert message.above_threshold and message.verbs[0].class_name == 'point'
    assert recognition_line(message, 0.0).endswith('  unknown action')
    assert not result(WAVES).is_unknown and 'unknown' not in recognition_line(result(WAVES), 0.0)


@pytest.mark.parametrize(('classes', 'other', 'text'), [
    (WAVES, {'gesture': (0.9, 0.05, 0.05)}, '  without A 0.05 (wave)'),
    (TOOLS, {'tool': (1.0, 0.0), 'verb': (0.5, 0.5), 'noun': (0.2, 0.8)}, '  without A 0.40'),
    (TOOLS, {'tool': (1.0, 0.0), 'verb': (0.5, 0.5), 'noun': (0.8, 0.2)},
     '  without A 0.10 (cut bread)'),
])
def test_what_a_result_would_be_without_an_input_is_published_and_watched(classes, other, text):
    window = SimpleNamespace(start_ns=1_000_000_000, end_ns=2_000_000_000, statuses=(),
                             modalities=())
    prediction = predicted(classes)
    left_out = Prediction({head: np.array(p) for head, p in other.items()}, Vocabulary(classes))
    message = recognition_message(replace(prediction, without={Modality.AUDIO: left_out}), window,
                                  Publishing(2, 0.0, 'me', 'model@1'))
    own, = message.leave_one_out
    assert own.name == 'audio' and own.score == pytest.approx(float(text.split()[2]))
    assert own.action.score == pytest.approx(left_out.top_actions()[0].score)
    assert recognition_line(message, 0.0).endswith(text)
    assert not result(classes).leave_one_out and 'without' not in recognition_line(
        result(classes), 0.0)


def test_prediction_sets_are_published_best_first():
    window = SimpleNamespace(start_ns=1_000_000_000, end_ns=2_000_000_000, statuses=(),
                             modalities=())
    sets = {'verb': np.array([True, False]), 'noun': np.array([True, True])}
    message = recognition_message(replace(predicted(TOOLS), sets=sets), window,
                                  Publishing(1, 0.0, 'me', 'model@1'))
    assert {each.head: [label.class_name for label in each.labels]
            for each in message.prediction_sets} == {'noun': ['cup', 'bread'], 'verb': ['cut']}
    assert not result(TOOLS).prediction_sets


def test_watch_leaves_out_a_head_without_classes():
    message = ActionRecognition(other_heads=[HeadScores(head='tool')])
    assert 'tool' not in recognition_line(message, 0.0)


def test_watch_reports_when_a_message_has_no_class():
    assert '(no class in this message)' in recognition_line(ActionRecognition(), 0.0)


@pytest.mark.parametrize(('classes', 'columns'), [
    (WAVES, [['point', 'nod']]), (TOOLS, [['cut', 'wash'], ['cup', 'bread']])])
def test_the_overlay_draws_a_column_for_each_part(classes, columns, tmp_path):
    status = NodeStatus()
    status.add_result(result(classes), 1.0)
    status.add_event(
        ActionEvent(verb=LabelScore(class_name='point'), noun=LabelScore(class_id=-1))
    )
    view = status.view(1.0)
    assert [[label.name for label in labels] for labels in view.labels] == columns
    assert view.action == 'point' and not view.notice
    drawn = draw(placeholder(), view, load_fonts(''))
    # The bar of the best class is as long as it is likely, over the share of its column.
    green = (np.abs(drawn.astype(int) - (0, 158, 115)).max(2) < 6)
    bar = max(green[380:], key=np.sum)
    width = 640 - 24 if len(columns) == 1 else (640 - 24 - 20) // 2
    best = 0.7 if len(columns) == 1 else 0.9
    assert bar[:12 + width + 5].sum() == pytest.approx(best * width, abs=3)


def test_the_demo_scores_a_model_with_one_head():
    truth = ActionAnnotation(verb='cut', noun='bread')
    truth.header.stamp.sec, truth.end.sec = 0, 9
    for classes, right in (({'verb': ('wash', 'cut')}, True), ({'noun': ('cup', 'bread')}, True),
                           ({'action': ('wash cup', 'cut bread')}, True),
                           ({'action': ('wash cup', 'cut cup')}, False),
                           ({'verb': ('cut', 'wash'), 'noun': ('cup', 'bread')}, True),
                           ({'verb': ('wash', 'cut'), 'noun': ('cup', 'bread')}, False)):
        scores = {'verb': (0.4, 0.6) if len(classes) == 1 else (0.9, 0.1), 'noun': (0.4, 0.6),
                  'action': (0.4, 0.6)}
        window = SimpleNamespace(start_ns=10 ** 9, end_ns=2 * 10 ** 9, statuses=(), modalities=())
        message = recognition_message(
            Prediction({h: np.array(scores[h]) for h in classes}, Vocabulary(classes)), window,
            Publishing(1, 0.0, '', ''))
        assert DemoScore(truths=[truth]).add(message) is right, classes
    assert DemoScore(truths=[truth]).add(ActionRecognition()) is not True


def test_a_node_with_one_head_and_then_with_three(stage, perform, tmp_path):
    infos, verbs, nouns, logs = [], [], [], []
    stage.node.create_subscription(Log, '/rosout', logs.append, 100)
    for message_type, topic, received in ((ModelInfo, 'model_info', infos),
                               (LabelInfo, 'verbs/label_info', verbs),
                               (LabelInfo, 'nouns/label_info', nouns)):
        stage.node.create_subscription(message_type, f'karmma/{topic}', received.append, LATCHED)
    node = perform(model=str(write(tmp_path / 'waves', WAVES)), top_k=3, score_threshold=0.01)
    play = stage.periodic(
        25, stage.send_image, stage.send_audio, stage.send_audio, stage.send_boxes
    )
    assert stage.until(lambda: stage.results and nouns, 20, play)
    message = stage.results[-1]
    assert sorted(s.class_name for s in message.verbs) == ['nod', 'point', 'wave']
    assert not message.nouns and message.above_threshold
    assert [(a.verb, a.noun, a.noun_id) for a in message.actions] == [
        (s.class_name, '', -1) for s in message.verbs]
    assert list(infos[-1].verbs) == ['wave', 'point', 'nod'] and not infos[-1].nouns
    assert [c.class_name for c in verbs[-1].class_map] == ['wave', 'point', 'nod']
    assert not nouns[-1].class_map

    node.set_parameters([Parameter('model', value=str(write(tmp_path / 'tools', TOOLS)))])
    assert stage.until(lambda: stage.results[-1].model_id.startswith('tools@'), 30, play)
    message = stage.results[-1]
    assert {s.class_name for s in message.verbs} == {'cut', 'wash'}
    assert {s.class_name for s in message.nouns} == {'bread', 'cup'}
    assert {s.class_name for s in message.other_heads[0].labels} == {'knife', 'fork'}
    assert stage.until(lambda: infos[-1].other_heads, 5)
    assert list(infos[-1].other_heads[0].classes) == ['knife', 'fork']
    assert stage.until(lambda: nouns[-1].class_map, 5)
    assert [c.class_name for c in nouns[-1].class_map] == ['bread', 'cup']
    assert stage.until(lambda: any(
        log.level == 30 and 'other_heads those of tool' in log.msg for log in logs), 5)


def test_a_node_without_vision_msgs_logs_that_it_publishes_no_label_info(ros, monkeypatch, capfd):
    monkeypatch.setattr(messages, '_label_info_type', lambda: None)
    node = LifecycleNode('bare')
    outputs = messages.Outputs(node)
    assert 'no label_info is published; model_info has the class names' in capfd.readouterr().err
    assert node.count_publishers('/bare/model_info') == 1
    assert not node.count_publishers('/bare/verbs/label_info')
    outputs.destroy()
    node.destroy_node()


def write(path, classes):
    """Write a model with random weights, a window of 0.8 s and these classes."""
    torch.manual_seed(0)
    spec = ClipSpec(
        duration=0.8, num_frames=8, video=VideoSpec(32, 32),
        audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2,
                        tile_steps=40))
    config, names = preset('tiny'), Vocabulary(classes)
    save_bundle(path, build(config, spec, names), config, spec, names, dataset='none', card='x')
    return path
