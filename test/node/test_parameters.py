"""Wrong values wait for configure as sentences; the shipped YAML repeats the declarations."""

from pathlib import Path

from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.node.declarations import DECLARATIONS, input_declarations
from karmma_ros.node.parameters import Parameters
import pytest
import rclpy
from rclpy.node import Node
from rclpy.parameter import Parameter
import yaml

CONFIG = Path(__file__).parents[2] / 'config' / 'node' / 'karmma.yaml'


@pytest.fixture
def declared(ros):
    nodes = []

    def declare(*watching, **overrides):
        node = rclpy.create_node('parameters', parameter_overrides=[
            Parameter(name.replace('__', '.'), value=value) for name, value in overrides.items()])
        nodes.append(node)
        return node, Parameters(node, *watching)

    yield declare
    for node in nodes:
        node.destroy_node()


def test_defaults_are_the_declared_ones_and_have_no_problem(declared):
    _, parameters = declared()
    assert {d.name: parameters[d.name] for d in DECLARATIONS} == {
        d.name: d.default for d in DECLARATIONS}
    assert parameters.problems == []


def test_every_declaration_is_described_and_its_default_allowed(declared):
    node, _ = declared()
    for declaration in DECLARATIONS:
        assert len(node.describe_parameter(declaration.name).description) > 20
        assert declaration.check(declaration.default) == declaration.default


def test_an_integer_serves_for_a_double(declared):
    node, parameters = declared(rate=2, audio__timeout=1)
    assert parameters.problems == []
    assert (parameters['rate'], parameters['audio.timeout']) == (2.0, 1.0)
    assert node.get_parameter('rate').type_ == Parameter.Type.DOUBLE


@pytest.mark.parametrize(('overrides', 'sentence'), [
    ({'rate': 'fast'}, "rate is 'fast'; expected a number from 0.1 to 60.0: "
                       'write it as in `rate: 5.0`'),
    ({'rate': 0.0}, 'rate is 0.0; expected a number from 0.1 to 60.0'),
    ({'rate': float('nan')}, 'rate is nan; expected a number from 0.1 to 60.0'),
    ({'top_k': 2.5}, 'top_k is 2.5; expected a whole number from 1 to 100: '
                     'write it as in `top_k: 5`'),
    ({'rgb__enabled': 1}, 'rgb.enabled is 1; expected true or false: '
                          'write it as in `rgb.enabled: true`'),
    ({'audio__qos': 'sure'},
     "audio.qos is 'sure'; expected auto or sensor_data or reliable"),
    ({'model': 7}, "model is 7; expected text: write it as in `model: 'synthetic_kitchen'`"),
])
def test_a_wrong_value_becomes_a_sentence_that_fixes_it(declared, overrides, sentence):
    _, parameters = declared(**overrides)
    assert [str(p) for p in parameters.problems] == [sentence]


def test_setting_a_parameter_right_takes_its_problem_away(declared):
    node, parameters = declared(rate=0.0)
    result, = node.set_parameters([Parameter('rate', value=4.0)])
    assert result.successful and parameters.problems == []


def test_a_change_out_of_range_is_refused_with_the_reason(declared):
    node, parameters = declared()
    result, = node.set_parameters([Parameter('audio.qos', value='sure')])
    assert not result.successful and 'sensor_data or reliable' in result.reason
    assert parameters['audio.qos'] == 'auto'


def test_what_configure_has_read_may_not_change_but_live_ones_may(declared):
    node, parameters = declared()
    parameters.frozen = True
    result, = node.set_parameters([Parameter('threads', value=4)])
    assert not result.successful and 'deactivate and clean up' in result.reason
    assert node.set_parameters([Parameter('threads', value=0)])[0].successful
    result, = node.set_parameters([Parameter('top_k', value=3)])
    assert result.successful and parameters['top_k'] == 3


def test_checks_see_all_values_as_they_would_be_and_may_refuse(declared):
    def refuse(values, changed):
        if changed == {'top_k', 'rate'} and values['top_k'] * values['rate'] > 10:
            raise InvalidSettingError('top_k', values['top_k'], f'less at {values["rate"]:g} Hz')

    changes = []
    node, parameters = declared([refuse], changes.append)
    result = node.set_parameters_atomically(
        [Parameter('top_k', value=6), Parameter('rate', value=2.0)])
    assert not result.successful and result.reason == 'top_k is 6; expected less at 2 Hz'
    assert (parameters['top_k'], changes) == (5, [])
    assert node.set_parameters_atomically(
        [Parameter('top_k', value=4), Parameter('rate', value=2.0)]).successful
    assert (parameters['top_k'], parameters['rate']) == (4, 2.0)
    assert changes == [{'top_k', 'rate'}]


def test_only_new_values_are_reported(declared):
    changes = []
    node, _ = declared([], changes.append)
    node.set_parameters([Parameter('top_k', value=5)])
    assert changes == []


def test_parameters_of_others_are_left_alone(declared):
    node, parameters = declared()
    node.declare_parameter('of_a_user', 1)
    assert node.set_parameters([Parameter('of_a_user', value=2)])[0].successful
    assert 'of_a_user' not in parameters and len(parameters) == len(DECLARATIONS)


def test_the_shipped_file_holds_every_parameter_with_its_default():
    shipped = yaml.safe_load(CONFIG.read_text())['/**']['ros__parameters']
    flat = {}
    for name, value in shipped.items():
        nested = value if isinstance(value, dict) else None
        flat.update({f'{name}.{k}': v for k, v in nested.items()} if nested else {name: value})
    assert flat == {d.name: d.default for d in DECLARATIONS}
    assert all(type(flat[d.name]) is type(d.default) for d in DECLARATIONS)


DOUBLES = [d for d in DECLARATIONS if isinstance(d.default, float)]


@pytest.mark.parametrize('humble', [False, True])
def test_an_integer_can_be_set_for_every_double(declared, monkeypatch, humble):
    if humble:
        monkeypatch.delattr(Node, 'add_pre_set_parameters_callback')
    node, parameters = declared()
    for declaration in DOUBLES:
        value = round(declaration.range[1])
        result, = node.set_parameters([Parameter(declaration.name, value=value)])
        assert result.successful, result.reason
        assert type(parameters[declaration.name]) is float
        assert parameters[declaration.name] == value
        if not humble:
            assert node.get_parameter(declaration.name).type_ is Parameter.Type.DOUBLE
    for name, value in (('top_k', 2.0), ('rate', True), ('rgb.enabled', 1), ('rate', 61)):
        result, = node.set_parameters([Parameter(name, value=value)])
        assert not result.successful and result.reason


def test_a_check_that_fails_is_a_rejection_with_the_reason(declared):
    node, parameters = declared([lambda values, changed: Path(values['model']).stat()])
    result, = node.set_parameters([Parameter('model', value='x' * 4000)])
    assert not result.successful
    assert result.reason.startswith('model: OSError: [Errno 36]') and len(result.reason) <= 1000
    assert parameters['model'] == 'synthetic_kitchen'


@pytest.mark.parametrize(('name', 'value', 'allowed'), [
    ('subject_id', 'A' * 257, 'text of at most 256 characters; it has 257'),
    ('subject_id', '\x1b[31mred', 'printable text'), ('subject_id', 'a\u202eb', 'printable text'),
    ('model', 'x' * 4097, 'text of at most 4096 characters; it has 4097'),
    ('events.background', 'a\nb', 'printable text'),
    ('detections.hand_classes', ['x'] * 1001, 'a list of at most 1000 texts; it has 1001'),
    ('detections.ignored_classes', ['\0'], 'printable text'),
])
def test_texts_are_printable_and_bounded(declared, name, value, allowed):
    node, _ = declared()
    result, = node.set_parameters([Parameter(name, value=value)])
    assert not result.successful and f'; expected {allowed}' in result.reason
    assert len(result.reason) < 500 and result.reason.isprintable()


def test_a_text_as_long_as_it_may_be_is_taken(declared):
    node, parameters = declared()
    assert node.set_parameters([Parameter('subject_id', value='é' * 256)])[0].successful
    assert parameters['subject_id'] == 'é' * 256


def test_a_wrong_value_of_a_further_input_is_refused_until_it_is_set(declared):
    node, parameters = declared(imu__timeout='soon')
    assert parameters.problems == []
    for _ in range(2):
        with pytest.raises(InvalidSettingError, match="imu.timeout is 'soon'"):
            parameters.declare(input_declarations([Modality('imu')]))
        assert parameters.problems == [], 'another model is not concerned'
    parameters.declare(input_declarations([Modality('depth')]))
    assert node.set_parameters([Parameter('imu.timeout', value=0.7)])[0].successful
    parameters.declare(input_declarations([Modality('imu')]))
    assert parameters['imu.timeout'] == 0.7
