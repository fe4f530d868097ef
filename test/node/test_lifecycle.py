"""Transitions without middleware communication: what they return, log and leave behind."""

import gc
import json
import shutil
import threading
import weakref

from karmma_ros.model.bundle import load_bundle
from karmma_ros.node import session
from karmma_ros.node.lifecycle import KarmmaNode
from karmma_ros.node.messages import model_info_message
from lifecycle_msgs.msg import Transition
from lifecycle_msgs.srv import ChangeState
import pytest
import rclpy
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger
import torch

SUCCESS, FAILURE = TransitionCallbackReturn.SUCCESS, TransitionCallbackReturn.FAILURE


class Log:
    """Take the place of a node's logger."""

    def __init__(self):
        self.texts = []

    def info(self, text, **_):
        self.texts.append(text)

    warning = error = info


@pytest.fixture
def make(ros, bundle):
    nodes = []

    def make_node(**overrides):
        overrides = {'model': str(bundle), **overrides}
        node = KarmmaNode(
            enable_communication_interface=False,
            parameter_overrides=[Parameter(n.replace('__', '.'), value=v)
                                 for n, v in overrides.items()])
        node.log = Log()
        node.get_logger = lambda: node.log
        nodes.append(node)
        return node

    yield make_node
    for node in nodes:
        node.shut_down()
        node.destroy_node()


def managed(node):
    return len(node._managed_entities)


def test_it_goes_all_the_way_round_again_and_again(make):
    node = make()
    before = managed(node), len(list(node.publishers)), len(list(node.subscriptions))
    for _ in range(5):
        assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS
        assert node.trigger_deactivate() == SUCCESS
        assert node.trigger_cleanup() == SUCCESS
    after = managed(node), len(list(node.publishers)), len(list(node.subscriptions))
    assert after == before
    assert node.trigger_shutdown() == SUCCESS


def test_activation_can_be_repeated_without_configuring(make):
    node = make()
    node.trigger_configure()
    for _ in range(3):
        assert node.trigger_activate() == SUCCESS
        assert {s.topic_name for s in node.subscriptions} >= {'/image', '/audio', '/detections'}
        assert node.trigger_deactivate() == SUCCESS
        assert not {s.topic_name for s in node.subscriptions} & {'/image', '/audio'}


@pytest.mark.parametrize('steps', [
    [], ['configure'], ['configure', 'activate'], ['configure', 'activate', 'deactivate'],
    ['configure', 'cleanup'],
])
def test_shutdown_from_every_state_frees_everything(make, steps):
    node = make()
    for step in steps:
        assert getattr(node, f'trigger_{step}')() == SUCCESS
    assert node.trigger_shutdown() == SUCCESS
    assert managed(node) == 0
    assert not any(thread.name == 'karmma worker' for thread in threading.enumerate())
    assert node._state_machine.current_state[1] == 'finalized'


@pytest.mark.parametrize(('overrides', 'sentence'), [
    ({'model': 'no/such'}, "configure failed: model is 'no/such'; expected the path of"),
    ({'model': ''}, "configure failed: model is ''; expected the path of"),
    ({'model': 'hf://somebody/kitchen'}, "configure failed: model is 'hf://somebody/kitchen'; "
     'expected a model on this machine: the node downloads models of the Hub only with allow_hub'),
    ({'model': 'hf://kitchen', 'allow_hub': True}, "configure failed: model is 'hf://kitchen'; "
     'expected hf://ORGANISATION/NAME@REVISION'),
    ({'device': 'tpu'}, "configure failed: device is 'tpu'; expected auto, cpu"),
    ({'rate': 'fast'}, "configure failed: rate is 'fast'; expected a number from 0.1 to 60.0: "
                       'write it as in `rate: 5.0`'),
    ({'audio__sample_format': 'mp3'}, "configure failed: audio.sample_format is 'mp3'"),
    ({'events__start': 0.1}, 'configure failed: events.end is 0.2; expected a score above 0 and '
                             'below events.start = 0.1'),
    ({'events__background': 'rest'}, "configure failed: events.background is 'rest'; expected"),
])
def test_a_wrong_setting_fails_configure_with_a_sentence(make, overrides, sentence):
    node = make(**overrides)
    assert node.trigger_configure() == FAILURE
    assert any(text.startswith(sentence) for text in node.log.texts), node.log.texts
    assert managed(node) == 0


COMMIT = 'a1' * 20


def test_a_model_of_the_hub_is_used_from_the_cache_where_it_is_allowed(
    make, bundle, tmp_path, monkeypatch,
):
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    folder = tmp_path / 'models--somebody--kitchen'
    shutil.copytree(bundle, folder / 'snapshots' / COMMIT)
    (folder / 'refs').mkdir()
    (folder / 'refs' / 'v1').write_text(COMMIT)
    node = make(model='hf://somebody/kitchen@v1', allow_hub=True)
    assert node.trigger_configure() == SUCCESS
    assert any(text.startswith(f'hf://somebody/kitchen@v1 is commit {COMMIT} from now on')
               for text in node.log.texts)
    other, = node.set_parameters([Parameter('model', value='hf://somebody')])
    assert not other.successful and 'expected hf://ORGANISATION/NAME@REVISION' in other.reason


def test_no_request_allows_downloads_in_any_state(make, bundle):
    node = make(model=str(bundle))
    for change in (lambda: None, node.trigger_configure, node.trigger_cleanup):
        change()
        result, = node.set_parameters([Parameter('allow_hub', value=True)])
        assert not result.successful and 'read-only' in result.reason
        assert not node.get_parameter('allow_hub').value


def test_a_licence_that_forbids_commercial_use_is_logged(make, bundle, tmp_path):
    shutil.copytree(bundle, tmp_path / 'model')
    path = tmp_path / 'model' / 'config.json'
    stored = json.loads(path.read_text())
    stored['source'] = {'licence': 'CC BY-NC 4.0', 'commercial_use': False,
                        'untrained': 'the fusion'}
    path.write_text(json.dumps(stored))
    node = make(model=str(tmp_path / 'model'))
    assert node.trigger_configure() == SUCCESS
    texts = '\n'.join(node.log.texts)
    assert 'its licence, CC BY-NC 4.0, forbids commercial use' in texts
    assert 'is not trained: the fusion' in texts
    message = model_info_message(load_bundle(tmp_path / 'model'), 'cpu', 0)
    assert message.dataset.endswith('; CC BY-NC 4.0: no commercial use')


def test_a_setting_mended_after_a_failure_lets_configure_succeed(make, bundle):
    node = make(model='no/such', rate=-1.0)
    assert node.trigger_configure() == FAILURE
    node.set_parameters([Parameter('rate', value=2.0), Parameter('model', value=str(bundle))])
    assert node.trigger_configure() == SUCCESS


@pytest.mark.parametrize(('harm', 'sentence'), [
    (lambda d: (d / 'config.json').unlink(), 'config.json is missing'),
    (lambda d: (d / 'config.json').write_text('{'), 'is not JSON'),
    (lambda d: (d / 'model.safetensors').write_bytes(b'\0' * 100), 'cannot be read'),
    (lambda d: (d / 'config.json').write_text(
        (d / 'config.json').read_text().replace('"wash",', '')), 'lists 7 classes for verb'),
])
def test_a_damaged_model_fails_configure_with_a_sentence(make, bundle, tmp_path, harm, sentence):
    damaged = tmp_path / 'damaged'
    shutil.copytree(bundle, damaged)
    harm(damaged)
    node = make(model=str(damaged))
    assert node.trigger_configure() == FAILURE
    assert any(str(damaged) in text and sentence in text for text in node.log.texts)


def test_what_configure_read_is_frozen_until_cleanup(make):
    node = make()
    node.trigger_configure()
    result, = node.set_parameters([Parameter('threads', value=2)])
    assert not result.successful
    node.trigger_cleanup()
    result, = node.set_parameters([Parameter('threads', value=2)])
    assert result.successful


def test_cleanup_frees_the_network(make):
    node = make()
    node.trigger_configure()
    network = weakref.ref(node._session.model.bundle.network)
    node.trigger_activate()
    node.trigger_deactivate()
    assert network() is not None
    node.trigger_cleanup()
    gc.collect()
    assert network() is None


def test_an_input_that_is_switched_off_has_no_subscription(make):
    node = make(audio__enabled=False)
    node.trigger_configure()
    node.trigger_activate()
    topics = {s.topic_name for s in node.subscriptions}
    assert '/image' in topics and '/audio' not in topics


def test_an_exception_in_a_transition_is_logged_and_not_swallowed(make, monkeypatch):
    monkeypatch.setattr('karmma_ros.node.session.load_model', lambda *_, **__: 1 / 0)
    node = make()
    assert node.trigger_configure() == FAILURE
    assert 'configure failed: ZeroDivisionError: division by zero' in node.log.texts


@pytest.mark.parametrize(('steps', 'failing', 'state'), [
    (['configure'], 'activate', 'inactive'),
    (['configure', 'activate'], 'deactivate', 'unconfigured'),
    (['configure'], 'cleanup', 'unconfigured'),
    (['configure', 'activate'], 'shutdown', 'finalized'),
])
def test_a_transition_that_breaks_half_way_leaves_a_node_that_can_be_used(
    make, monkeypatch, steps, failing, state
):
    node = make()
    for step in steps:
        assert getattr(node, f'trigger_{step}')() == SUCCESS
    method = {'activate': 'start', 'cleanup': 'close'}.get(failing, 'stop')
    broken = [True]
    original = getattr(node._session, method)

    def breaks():
        if broken:
            broken.pop()
            raise OSError('no such device')
        original()

    monkeypatch.setattr(node._session, method, breaks)
    assert getattr(node, f'trigger_{failing}')() != SUCCESS
    assert f'{failing} failed: OSError: no such device' in node.log.texts
    assert node.state_label == state
    assert not any(thread.name == 'karmma worker' for thread in threading.enumerate())
    if state != 'finalized':
        if state == 'unconfigured':
            assert node.trigger_configure() == SUCCESS
        assert node.trigger_activate() == SUCCESS


def test_an_invalid_transition_gets_a_response(ros, bundle, capfd):
    node = KarmmaNode(parameter_overrides=[Parameter('model', value=str(bundle))])
    node.log = Log()
    node.get_logger = lambda: node.log
    change = node._service_change_state.callback
    for wrong in (Transition.TRANSITION_ACTIVATE, Transition.TRANSITION_CLEANUP, 77):
        request = ChangeState.Request(transition=Transition(id=wrong))
        assert not change(request, ChangeState.Response()).success
        assert node.log.texts[-1] == (
            'invalid transition from unconfigured: got transition 3; expected 1 (configure) or '
            '5 (shutdown)'), 'once for all of them'
    assert 'rcl_lifecycle' not in capfd.readouterr().err
    request = ChangeState.Request(transition=Transition(id=Transition.TRANSITION_CONFIGURE))
    assert change(request, ChangeState.Response()).success
    node.shut_down()
    node.shut_down()
    assert node.state_label == 'finalized'
    node.destroy_node()


def test_services_respond_in_every_state(make):
    node = make()
    for step in ('configure', 'activate', 'deactivate', 'cleanup', 'shutdown'):
        response = node._on_enable(SetBool.Request(data=True), SetBool.Response())
        assert response.success and response.message
        response = node._on_reset(Trigger.Request(), Trigger.Response())
        assert response.success == (node.state_label == 'active') and response.message
        assert getattr(node, f'trigger_{step}')() == SUCCESS


def test_one_line_names_the_inputs_at_activate_pause_and_deactivate(make):
    node = make(detections__enabled=False, rgb__transport='compressed')
    node.trigger_configure()
    node.log.texts.clear()
    inputs = ('/image/compressed (sensor_msgs/msg/CompressedImage), '
              '/audio (audio_common_msgs/msg/AudioDataStamped)')
    node.trigger_activate()
    node._on_enable(SetBool.Request(data=False), SetBool.Response())
    node._on_enable(SetBool.Request(data=True), SetBool.Response())
    node.trigger_deactivate()
    assert node.log.texts == [
        f'active: receives {inputs}', f'recognition paused; receives {inputs}',
        f'recognition resumed; receives {inputs}', f'inactive: no longer receives {inputs}']
    node._on_enable(SetBool.Request(data=False), SetBool.Response())
    node.trigger_activate()
    assert node.log.texts[-1] == f'active: receives {inputs}; paused by ~/enable'


def test_shut_down_in_a_dead_context_frees_the_node(ros, bundle):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = KarmmaNode(context=context, enable_communication_interface=True,
                      parameter_overrides=[Parameter('model', value=str(bundle))])
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    context.try_shutdown()
    node.shut_down()
    assert node._session is None
    assert not any(thread.name == 'karmma worker' for thread in threading.enumerate())
    node.destroy_node()


def test_a_context_that_ends_during_the_shutdown_is_no_error(ros, bundle, monkeypatch, capfd):
    context = rclpy.Context()
    rclpy.init(context=context)
    node = KarmmaNode(context=context, enable_communication_interface=True,
                      parameter_overrides=[Parameter('model', value=str(bundle))])
    assert node.trigger_configure() == SUCCESS and node.trigger_activate() == SUCCESS
    session = node._session
    stop = session.stop
    monkeypatch.setattr(session, 'stop', lambda: (stop(), context.try_shutdown()))
    node.shut_down()
    assert node._session is None
    assert 'shutdown failed' not in capfd.readouterr().err
    node.destroy_node()


def test_no_number_of_threads_is_torch_s_choice_again(monkeypatch):
    def fail(device):
        raise LookupError(device)

    before = torch.get_num_threads()
    monkeypatch.setattr(session, '_THREADS', 2)
    monkeypatch.setattr(session, 'choose_device', fail)
    values = {'allow_hub': False, 'model': 'm', 'device': 'cpu', 'backend': 'auto'}
    try:
        for given, used in ((3, 3), (0, 2)):
            with pytest.raises(LookupError):
                session.Session(None, {**values, 'threads': given})
            assert torch.get_num_threads() == used
    finally:
        torch.set_num_threads(before)
