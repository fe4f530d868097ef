"""Every request gets a response, and a rejection names the reason."""

from karmma_ros.node.lifecycle import KarmmaNode
from lifecycle_msgs.srv import ChangeState, GetState
import pytest
from rcl_interfaces.msg import Parameter as ParameterMsg
from rcl_interfaces.msg import ParameterType, ParameterValue
from rcl_interfaces.srv import DescribeParameters, SetParameters, SetParametersAtomically
from rclpy.parameter import Parameter
from std_srvs.srv import SetBool, Trigger


class Log:
    """Take the place of a node's logger."""

    def __init__(self):
        self.texts = []

    def info(self, text, **_):
        self.texts.append(text)

    warning = error = info


@pytest.fixture
def node(ros, bundle):
    node = KarmmaNode(parameter_overrides=[Parameter('model', value=str(bundle))])
    node.log = Log()
    node.get_logger = lambda: node.log
    yield node
    node.shut_down()
    node.destroy_node()


def call(node, service, request):
    """Call a service as the executor does."""
    server = next(s for s in node.services if s.srv_type is service)
    return server.callback(request, service.Response())


def text(name, value):
    return ParameterMsg(name=name, value=ParameterValue(
        type=ParameterType.PARAMETER_STRING, string_value=value))


UNUSABLE = ['x' * 5000, '~nosuchuser/x', 'a\0b', '/dev/zero', '\x1b[2J\nFAKE', 'é' * 3000, '',
            '/' + 'y' * 300, '\u202egpj']


@pytest.mark.parametrize('model', UNUSABLE, ids=range(len(UNUSABLE)))
def test_a_model_that_cannot_exist_is_rejected_with_a_reason(node, model):
    node.trigger_configure()
    result, = call(node, SetParameters, SetParameters.Request(
        parameters=[text('model', model)])).results
    assert not result.successful
    assert result.reason.startswith('model is ') and len(result.reason) < 2000
    assert result.reason.isprintable()


def test_each_parameter_of_a_request_has_a_result_of_its_own(node):
    strange = ParameterMsg(name='rate', value=ParameterValue(type=77))
    integer = ParameterMsg(name='score_threshold', value=ParameterValue(
        type=ParameterType.PARAMETER_INTEGER, integer_value=1))
    results = call(node, SetParameters, SetParameters.Request(parameters=[
        strange, text('rgb.enabld', 'false'), integer, ParameterMsg(name='top_k'),
        text('\x1b[2J\n' * 1000, '')])).results
    assert [r.successful for r in results] == [False, False, True, False, False]
    assert results[0].reason.startswith('rate: ') and '77' in results[0].reason
    assert results[1].reason == 'unknown parameter rgb.enabld (did you mean rgb.enabled?)'
    assert node.parameters['score_threshold'] == 1.0
    assert results[4].reason.startswith('unknown parameter \\x1b[2J\\n')
    assert len(results[4].reason) < 200


def test_an_atomic_request_is_rejected_at_once(node):
    request = SetParametersAtomically.Request(parameters=[
        ParameterMsg(name='rate', value=ParameterValue(type=77))])
    result = call(node, SetParametersAtomically, request).result
    assert not result.successful and '77' in result.reason


@pytest.mark.parametrize(('service', 'request_'), [
    (SetBool, SetBool.Request(data=False)), (Trigger, Trigger.Request())])
def test_a_service_that_fails_responds_with_the_reason(node, service, request_, monkeypatch):
    node.trigger_configure()
    node.trigger_activate()
    for method in ('pause', 'reset'):
        monkeypatch.setattr(node._session.worker, method, lambda *_: {}['no\nkey'])
    response = call(node, service, request_)
    assert not response.success and response.message == "KeyError: 'no\\nkey'"
    monkeypatch.undo()
    assert node.log.texts[-1] == f"{service.__name__} failed: KeyError: 'no\\nkey'"


def test_the_other_services_respond_too(node, monkeypatch):
    assert call(node, DescribeParameters, DescribeParameters.Request(names=['x' * 10**6]))
    assert call(node, GetState, GetState.Request()).current_state.label == 'unconfigured'
    assert not call(node, ChangeState, ChangeState.Request()).success


def test_a_misspelt_parameter_of_a_file_is_warned_about(ros, monkeypatch):
    log = Log()
    monkeypatch.setattr(KarmmaNode, 'get_logger', lambda self: log)
    values = {'rgb.enabeld': False, 'audio_enabled': False, 'use_sim_time': False, 'slop': 0.1,
              'qos_overrides./image.subscription.depth': 3, 'controller_frequency': 20.0}
    node = KarmmaNode(enable_communication_interface=False, parameter_overrides=[
        Parameter(name, value=value) for name, value in values.items()])
    warning, = log.texts
    assert warning.startswith(
        'unknown parameters are ignored: audio_enabled (did you mean audio.enabled?), '
        'controller_frequency, rgb.enabeld (did you mean rgb.enabled?): correct the names')
    node.destroy_node()
