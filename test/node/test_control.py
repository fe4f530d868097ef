"""Control of a running node: parameters, services, another model."""

import shutil
from threading import Event

from diagnostic_msgs.msg import DiagnosticArray
from karmma_msgs.msg import ActionEvent, ModalityStatus, ModelInfo
from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.vocabulary import NOUNS, VERBS, vocabulary
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import preset
from karmma_ros.node.messages import time_ns
from karmma_ros.prediction import Vocabulary
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from rclpy.qos import DurabilityPolicy, QoSProfile
from std_srvs.srv import SetBool, Trigger
import torch
from vision_msgs.msg import LabelInfo

SUCCESS = TransitionCallbackReturn.SUCCESS
LATCHED = QoSProfile(depth=1, durability=DurabilityPolicy.TRANSIENT_LOCAL)
ALL = ['rgb', 'flow', 'audio', 'detections']


@pytest.fixture(scope='module')
def another(tmp_path_factory):
    """Return a function that writes models which differ from the first one."""
    def write(name, duration=0.8, names=None, **architecture):
        torch.manual_seed(1)
        spec = ClipSpec(
            duration=duration, num_frames=8, video=VideoSpec(32, 32),
            audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=32, tiles=2,
                            tile_steps=40))
        path = tmp_path_factory.mktemp('other') / name
        config, names = preset('tiny'), names or vocabulary()
        save_bundle(path, build(config, spec, names), config, spec, names, dataset='none',
                    card='# Random weights\n')
        return path
    return write


def sensors(stage):
    return stage.periodic(
        25, stage.send_image, stage.send_audio, stage.send_audio, stage.send_boxes
    )


def used(result):
    return [s.name for s in result.modalities if s.used]


def put(node, **values):
    result, = node.set_parameters(
        [Parameter(n.replace('__', '.'), value=v) for n, v in values.items()])
    return result


def resting_on(stage, wanted):
    """Return whether the newest result rests on these inputs."""
    return lambda: bool(stage.results) and used(stage.results[-1]) == wanted


def newer(stage, stamp_ns):
    """Return the results of windows that end after a stamp."""
    return [r for r in stage.results if time_ns(r.window_end) > stamp_ns]


def listen(stage, message_type, topic, qos=10):
    received = []
    stage.node.create_subscription(message_type, topic, received.append, qos)
    return received


def call(stage, message_type, name, request):
    client = stage.node.create_client(message_type, name)
    assert client.wait_for_service(timeout_sec=5)
    future = client.call_async(request)
    assert stage.until(future.done)
    return future.result()


def test_privacy_a_muted_microphone_is_unsubscribed_and_its_audio_discarded(stage, perform):
    node, play = perform(), sensors(stage)
    assert stage.until(resting_on(stage, ALL), step=play)
    assert put(node, audio__enabled=False).successful
    assert stage.until(resting_on(stage, ['rgb', 'flow', 'detections']), step=play)
    assert stage.until(lambda: stage.audio.get_subscription_count() == 0, step=play)
    assert stage.status('audio').state == ModalityStatus.DISABLED
    assert put(node, audio__enabled=True).successful
    assert stage.until(resting_on(stage, ALL), step=play)


def test_the_availability_has_what_the_newest_result_rests_on(stage, perform):
    node, play = perform(), sensors(stage)

    def in_use():
        return [s.name for s in stage.availabilities[-1].modalities if s.used]

    assert stage.until(lambda: stage.availabilities)
    assert in_use() == []
    assert stage.until(resting_on(stage, ALL), step=play)
    assert stage.until(lambda: in_use() == ALL, step=play)
    assert put(node, audio__enabled=False).successful
    assert stage.until(lambda: in_use() == ['rgb', 'flow', 'detections'], step=play)
    node._on_enable(SetBool.Request(data=False), SetBool.Response())
    assert stage.until(lambda: in_use() == [], step=play)


def test_a_due_inference_runs_when_an_image_comes(stage, perform):
    """The timer of ten seconds is stopped; its callback is called by hand."""
    node, play = perform(rate=0.1), stage.periodic(40, stage.send_image)
    node._session._rate_timer.cancel()
    assert not stage.until(lambda: stage.results, 2.0, play)
    for number in range(1, 4):
        node._session._tick()
        assert stage.until(lambda: len(stage.results) >= number, step=play)
        assert not stage.until(lambda: len(stage.results) > number, 0.5, play)


def test_timeouts_and_rate_change_while_it_runs(stage, perform):
    node, play = perform(rate=0.5), sensors(stage)
    assert stage.until(resting_on(stage, ALL), step=play)
    assert put(node, audio__timeout=3.0).successful
    assert stage.until(lambda: stage.status('audio').timeout == 3.0, step=play)
    assert put(node, rate=20.0).successful
    stage.results.clear()
    # At the old rate, 10 results take at least 16 s.
    assert stage.until(lambda: len(stage.results) >= 10 and time_ns(
        stage.results[-1].window_end) - time_ns(stage.results[-10].window_end) < 4e9, step=play)


def test_a_change_that_contradicts_another_is_refused_with_the_reason(perform):
    node = perform()
    result = put(node, events__end=0.5)
    assert not result.successful and 'below events.start' in result.reason
    result = put(node, events__background='nothing at all')
    assert not result.successful and 'expected a class of' in result.reason
    result = put(node, audio__sample_format='mp3')
    assert not result.successful and 'audio.sample_format' in result.reason
    result = put(node, model='nowhere')
    assert not result.successful and 'expected the path of a model directory' in result.reason
    assert put(node, events__background=VERBS[0]).successful


def test_pause_and_go_on(stage, perform):
    perform()
    play = sensors(stage)
    assert stage.until(lambda: stage.results, step=play)
    response = call(stage, SetBool, 'karmma/enable', SetBool.Request(data=False))
    paused_ns = stage.now_ns()
    assert response.success and 'paused' in response.message
    stage.spin(0.5, play)
    assert stage.until(lambda: stage.status('rgb').state == ModalityStatus.AVAILABLE and
                       not stage.availabilities[-1].inference_possible, step=play)
    assert newer(stage, paused_ns) == []
    assert 'resumed' in call(stage, SetBool, 'karmma/enable', SetBool.Request(data=True)).message
    assert stage.until(lambda: newer(stage, paused_ns), step=play)


def test_a_pause_outlasts_the_transitions(stage, perform):
    node, play = perform(), sensors(stage)
    call(stage, SetBool, 'karmma/enable', SetBool.Request(data=False))
    paused_ns = stage.now_ns()
    for step in ('deactivate', 'cleanup', 'configure', 'activate'):
        assert getattr(node, f'trigger_{step}')() == SUCCESS
    stage.spin(1.5, play)
    assert newer(stage, paused_ns) == []


def test_reset_discards_every_sample(stage, perform):
    node, play = perform(), sensors(stage)
    assert stage.until(resting_on(stage, ALL), step=play)
    stage.drain()
    stage.availabilities.clear()
    assert call(stage, Trigger, 'karmma/reset', Trigger.Request()).success
    stage.results.clear()
    stage.spin(0.5)
    assert stage.results == []
    assert stage.until(lambda: stage.availabilities and
                       stage.status('rgb').state == ModalityStatus.NEVER_RECEIVED)
    assert stage.until(resting_on(stage, ALL), step=play)
    node.trigger_deactivate()
    response = call(stage, Trigger, 'karmma/reset', Trigger.Request())
    assert not response.success and 'the node is inactive' in response.message


def test_no_result_rests_on_what_was_discarded_while_the_network_ran(
        stage, perform, monkeypatch):
    node, play = perform(), sensors(stage)
    assert stage.until(resting_on(stage, ALL), step=play)
    recogniser, called, may_return = node._session.worker.engine.recogniser, Event(), Event()
    recognise = recogniser.recognise

    def slowly(window, **options):
        called.set()
        may_return.wait(20)
        return recognise(window, **options)
    monkeypatch.setattr(recogniser, 'recognise', slowly)
    assert stage.until(called.is_set, step=play)
    assert call(stage, Trigger, 'karmma/reset', Trigger.Request()).success
    stage.drain()
    stage.results.clear()
    may_return.set()
    stage.spin(0.5)
    assert stage.results == []


def test_another_model_is_used_without_a_pause(stage, perform, another):
    other = another('other')
    # No input is stale, however late its messages come.
    node = perform(rgb__timeout=60.0, audio__timeout=60.0, detections__timeout=60.0)
    play = stage.steady(25)
    infos = listen(stage, ModelInfo, 'karmma/model_info', LATCHED)
    assert stage.until(resting_on(stage, ALL), step=play)
    stage.results.clear()
    assert stage.until(lambda: stage.results, step=play)
    assert put(node, model=str(other)).successful
    assert stage.until(lambda: stage.results[-1].model_id.startswith('other@'), step=play)
    assert stage.until(lambda: infos[-1].model_id == stage.results[-1].model_id,
                       step=play)
    # Equal windows: the samples stay, and no result was lost to the change.
    ids = [r.model_id.partition('@')[0] for r in stage.results]
    assert ids == sorted(ids, reverse=True) and set(ids) == {'random', 'other'}
    numbers = [r.sequence for r in stage.results]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    assert all(used(r) == ALL for r in stage.results)


def test_a_model_with_another_window_and_other_classes(stage, perform, another):
    other = another('long', duration=1.6, names=Vocabulary({'verb': ('go', 'rest'),
                                                            'noun': ('home', 'work')}))
    node, play = perform(), sensors(stage)
    labels = listen(stage, LabelInfo, 'karmma/verbs/label_info', LATCHED)
    assert stage.until(resting_on(stage, ALL), step=play)
    assert put(node, model=str(other)).successful
    assert stage.until(lambda: stage.results[-1].model_id.startswith('long@') and
                       used(stage.results[-1]) == ALL, step=play)
    result = stage.results[-1]
    assert {label.class_name for label in result.verbs} == {'go', 'rest'}
    assert time_ns(result.window_end) - time_ns(result.window_start) == 1_600_000_000
    assert [c.class_name for c in labels[-1].class_map] == ['go', 'rest']


@pytest.mark.parametrize('harm', ['cut', 'background'])
def test_a_model_that_cannot_be_used_leaves_the_old_one_answering(
    stage, perform, another, tmp_path, harm
):
    bad = tmp_path / 'bad'
    shutil.copytree(another('good', names=Vocabulary({'verb': ('a', 'b'), 'noun': ('c', 'd')})),
                    bad)
    if harm == 'cut':
        weights = bad / 'model.safetensors'
        weights.write_bytes(weights.read_bytes()[:5000])
    node, play = perform(events__background=NOUNS[0]), sensors(stage)
    reports = listen(stage, DiagnosticArray, '/diagnostics')
    kept = node.parameters['model']
    assert stage.until(lambda: stage.results, step=play)
    assert put(node, model=str(bad)).successful
    assert stage.until(lambda: node.parameters['model'] == kept, step=play)
    stage.results.clear()
    assert stage.until(lambda: stage.results, step=play)
    assert stage.results[-1].model_id.startswith('random@')
    message = 'cannot be read' if harm == 'cut' else 'events.background'
    assert stage.until(lambda: any(
        s.name == 'karmma: model' and message in s.message and 'stays' in s.message
        for report in reports for s in report.status), step=play)


def test_the_classes_are_published_to_late_joiners(stage, perform):
    perform()
    verbs = listen(stage, LabelInfo, 'karmma/verbs/label_info', LATCHED)
    nouns = listen(stage, LabelInfo, 'karmma/nouns/label_info', LATCHED)
    assert stage.until(lambda: verbs and nouns)
    assert [(c.class_id, c.class_name) for c in verbs[0].class_map] == list(enumerate(VERBS))
    assert [c.class_name for c in nouns[0].class_map] == list(NOUNS)


def test_diagnostics_have_every_part_once_a_second(stage, perform):
    node, play = perform(), sensors(stage)
    reports = listen(stage, DiagnosticArray, '/diagnostics')
    assert stage.until(resting_on(stage, ALL), step=play)
    reports.clear()
    assert stage.until(lambda: len(reports) >= 4, step=play)
    stamps = [time_ns(report.header.stamp) for report in reports]
    assert stamps[3] - stamps[0] > 2e9
    assert stage.until(lambda: time_ns(reports[-1].header.stamp)
                       - time_ns(reports[-2].header.stamp) < 1.5e9, step=play)
    parts = ['lifecycle', 'model', *ALL, 'inference']
    assert [s.name for s in reports[-1].status] == [f'karmma: {part}' for part in parts]
    node.trigger_deactivate()
    reports.clear()
    # One that was published before may still be on its way.
    assert stage.until(lambda: reports and reports[-1].status[0].message == 'inactive')
    assert [s.name for s in reports[-1].status] == ['karmma: lifecycle', 'karmma: model']


def test_what_is_seen_for_long_is_an_event_that_starts_and_ends(stage, perform):
    node = perform(events__start=0.002, events__end=0.001, events__min_duration=0.2,
                   events__smoothing=0.2, events__max_gap=0.5, subject_id='anna')
    events = listen(stage, ActionEvent, 'karmma/action_events', 50)
    assert stage.until(lambda: stage.node.count_publishers('karmma/action_events'))
    assert stage.until(lambda: events, step=sensors(stage))
    started = events[0]
    assert (started.phase, started.event_id) == (ActionEvent.STARTED, 0)
    assert started.verb.class_name in VERBS and started.noun.class_name in NOUNS
    assert time_ns(started.start) < time_ns(started.header.stamp)
    assert started.subject_id == 'anna' and started.model_id.startswith('random@')
    # Silence of all sensors ends it.
    assert stage.until(lambda: events[-1].phase == ActionEvent.ENDED)
    ended = events[-1]
    assert ended.event_id == max(e.event_id for e in events)
    assert time_ns(ended.start) <= time_ns(ended.end) <= time_ns(ended.header.stamp)
    assert (ended.verb, ended.noun) == (events[-2].verb, events[-2].noun) or (
        ended.verb.class_id, ended.noun.class_id) == (
        events[-2].verb.class_id, events[-2].noun.class_id)
    # So does the end of the node's activity, and a new beginning has a new id.
    assert stage.until(lambda: events[-1].phase == ActionEvent.STARTED, step=sensors(stage))
    node.trigger_deactivate()
    assert stage.until(lambda: events[-1].phase == ActionEvent.ENDED)
    phases = [e.phase for e in events]
    assert phases == [ActionEvent.STARTED, ActionEvent.ENDED] * (len(phases) // 2)
    ids = [e.event_id for e in events]
    assert ids == [i for i in range(len(ids) // 2) for _ in 'se']
