"""The SROS 2 policy: it allows what the node has, whoever operates and listens, and no more."""

from __future__ import annotations

import importlib.util
from pathlib import Path
import re
from xml.etree import ElementTree

import pytest
import rclpy

ROOT = Path(__file__).resolve().parents[1]
POLICY = ROOT / 'config' / 'security' / 'karmma.policy.xml'
NODE, OPERATOR, LISTENER = '/karmma/node', '/karmma/operator', '/karmma/listener'
NEWER_THAN_HUMBLE = {('reply', '/karmma/get_type_description')}
CLI_NODES = '/_ros2cli_*/get_type_description'


def full_name(profile, name):
    """Resolve a name of the policy as sros2 does."""
    space = profile.get('ns').rstrip('/')
    if name.startswith('~'):
        return f'{space}/{profile.get("node")}{name[1:]}'
    return name if name.startswith('/') else f'{space}/{name}'


def allowed(enclave):
    """Return (verb, name) for everything that the policy allows an enclave."""
    element = ElementTree.parse(POLICY).find(f'enclaves/enclave[@path="{enclave}"]')
    return {
        (verb, full_name(profile, expression.text))
        for profile in element.iter('profile') for rule in profile
        for verb, qualifier in rule.attrib.items() if qualifier == 'ALLOW'
        for expression in rule
    }


def names(rules, *verbs):
    return {name for verb, name in rules if verb in verbs}


@pytest.fixture(scope='module')
def node_has(node_graph):
    """Return (verb, name) for every topic and service of a running node."""
    verbs = {'publish': 'publish', 'subscribe': 'subscribe', 'serve': 'reply'}
    return {(verbs[role], name) for role, name, _ in node_graph}


@pytest.fixture
def example(ros_domain):
    """Return the example node, in a context of its own."""
    path = ROOT / 'docs' / 'examples' / 'react_to_action.py'
    spec = importlib.util.spec_from_file_location('react_to_action', path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    node = module.ReactToAction(context=context)
    yield node
    node.destroy_node()
    rclpy.try_shutdown(context=context)


SCHEMA = {
    'policy': ({'enclaves'}, {'version'}), 'enclaves': ({'enclave'}, set()),
    'enclave': ({'profiles'}, {'path'}), 'profiles': ({'profile'}, set()),
    'profile': ({'topics', 'services'}, {'ns', 'node'}),
    'topics': ({'topic'}, {'publish', 'subscribe'}), 'topic': (set(), set()),
    'services': ({'service'}, {'request', 'reply'}), 'service': (set(), set()),
}
"""Element of a policy of sros2 → its children and its attributes, as far as we use them."""
RULES = {'topics', 'services'}
NAME = re.compile(r'(~/|/)?[A-Za-z_*][\w*]*(/[A-Za-z_*][\w*]*)*')


def complaints(element, parent=''):
    """Return what of a policy sros2 would refuse or misread, one line for each."""
    tag, here = element.tag, f'{parent}/{element.tag}'
    children, attributes = SCHEMA.get(tag, (set(), set()))
    problems = [] if tag in SCHEMA else [f'{here}: unknown element']
    problems += [f'{here}: unknown attribute {name}' for name in set(element.attrib) - attributes]
    if tag in RULES:
        if len(element.attrib) != 1 or set(element.attrib.values()) - {'ALLOW', 'DENY'}:
            problems.append(f'{here}: expected one of {sorted(attributes)}, ALLOW or DENY')
    else:
        problems += [f'{here}: no {name}' for name in attributes - set(element.attrib)]
    if children:
        if not len(element) or (element.text or '').strip():
            problems.append(f'{here}: expected elements {sorted(children)}')
        problems += [f'{here}: {child.tag} is not one of {sorted(children)}'
                  for child in element if child.tag not in children]
        texts = [child.text for child in element if not len(child)]
        problems += [f'{here}: {text} twice' for text in set(texts) if texts.count(text) > 1]
    elif not NAME.fullmatch(element.text or ''):
        problems.append(f'{here}: {element.text!r} is no name')
    for path in (element.get('path'), element.get('ns')):
        if path is not None and not path.startswith('/'):
            problems.append(f'{here}: {path} does not begin with /')
    for child in element:
        problems += complaints(child, here)
    return problems


def test_the_policy_keeps_to_the_schema_of_sros2():
    policy = ElementTree.parse(POLICY).getroot()
    assert policy.tag == 'policy' and policy.get('version') == '0.2.0'
    assert complaints(policy) == []
    rules = [rule for tag in RULES for rule in policy.iter(tag)]
    assert rules and {value for rule in rules for value in rule.attrib.values()} == {'ALLOW'}


@pytest.mark.parametrize(('old', 'new', 'text'), [
    ('<topics publish="ALLOW">', '<topics publishes="ALLOW">', 'unknown attribute publishes'),
    ('<topics publish="ALLOW">', '<topics publish="allow">', 'expected one of'),
    ('<topics publish="ALLOW">', '<topics>', 'expected one of'),
    ('<topics publish="ALLOW">', '<topics publish="ALLOW" subscribe="ALLOW">', 'expected one of'),
    ('<topic>/clock</topic>', '<topic> /clock</topic>', "' /clock' is no name"),
    ('<topic>/clock</topic>', '<topic></topic>', 'None is no name'),
    ('<topic>/clock</topic>', '<topic>a//b</topic>', "'a//b' is no name"),
    ('<topic>/clock</topic>', '<topic>image</topic>', 'image twice'),
    ('<topic>/clock</topic>', '<service>clock</service>', "service is not one of ['topic']"),
    ('<topic>/clock</topic>', '<topik>clock</topik>', 'unknown element'),
    (' node="karmma">', '>', 'no node'), (' ns="/"', ' ns=""', 'does not begin with /'),
    ('path="/karmma/node"', 'path="karmma/node"', 'does not begin with /'),
])
def test_a_planted_fault_of_a_policy_is_detected(old, new, text):
    content = POLICY.read_text(encoding='utf-8')
    assert old in content
    assert any(text in line for line in complaints(
        ElementTree.fromstring(content.replace(old, new, 1))))


def test_the_policy_has_an_enclave_for_each_part():
    paths = [e.get('path') for e in ElementTree.parse(POLICY).iter('enclave')]
    assert paths == [NODE, OPERATOR, LISTENER]


def test_the_node_may_have_what_it_has_and_nothing_more(node_has):
    rules = allowed(NODE)
    assert node_has - rules == set()
    assert rules - node_has <= NEWER_THAN_HUMBLE


def test_the_node_requests_no_service():
    assert names(allowed(NODE), 'request') == set()


def test_the_operator_may_call_every_service_and_read_every_output(node_has):
    rules, node = allowed(OPERATOR), allowed(NODE)
    assert names(rules, 'request') == names(node, 'reply')
    assert names(rules, 'subscribe') == names(node, 'publish')
    assert names(rules, 'reply') == {CLI_NODES}


@pytest.mark.parametrize('enclave', [OPERATOR, LISTENER])
def test_nobody_else_may_feed_or_pose_as_the_node(enclave):
    node = allowed(NODE)
    common = {'/rosout', '/parameter_events'}
    written = names(allowed(enclave), 'publish') - common
    assert not written & (names(node, 'subscribe') | names(node, 'publish'))
    assert not names(allowed(enclave), 'reply') & names(node, 'reply')


def test_neither_operator_nor_listener_receives_images_or_audio():
    raw = names(allowed(NODE), 'subscribe') - {'/clock'}
    for enclave in (OPERATOR, LISTENER):
        assert not raw & names(allowed(enclave), 'subscribe')


def test_the_listener_changes_nothing():
    assert names(allowed(LISTENER), 'request') == set()


def test_the_example_fits_into_the_listeners_enclave(example):
    here = example.get_name(), example.get_namespace()
    has = {('publish', n) for n, _ in example.get_publisher_names_and_types_by_node(*here)}
    has |= {('subscribe', n) for n, _ in example.get_subscriber_names_and_types_by_node(*here)}
    has |= {('reply', n) for n, _ in example.get_service_names_and_types_by_node(*here)}
    assert ('publish', '/say') in has
    assert has <= allowed(LISTENER)


def dds_topics(rules):
    """Return (verb, topic) as DDS names what the policy allows."""
    topics = set()
    for verb, name in rules:
        if verb in ('publish', 'subscribe'):
            topics.add((verb, f'rt{name}'))
        else:
            sent, received = ('publish', 'subscribe') if verb == 'request' else (
                'subscribe', 'publish')
            topics |= {(sent, f'rq{name}Request'), (received, f'rr{name}Reply')}
    return topics


@pytest.mark.parametrize('enclave', [NODE, OPERATOR, LISTENER])
def test_sros2_makes_permissions_of_it(enclave, tmp_path, monkeypatch):
    keystore = pytest.importorskip('sros2.keystore', reason='SROS 2 comes with a distribution')
    monkeypatch.setenv('ROS_DOMAIN_ID', '7')
    keystore_path = tmp_path / 'keystore'
    keystore.create_keystore(keystore_path)
    keystore.create_enclave(keystore_path, enclave)
    keystore.create_permission(keystore_path, enclave, POLICY)
    folder = keystore_path / 'enclaves' / enclave.lstrip('/')
    assert {'cert.pem', 'key.pem', 'governance.p7s', 'permissions.p7s'} <= {
        path.name for path in folder.iterdir()}
    grant = ElementTree.parse(folder / 'permissions.xml').find('permissions/grant')
    assert grant.find('subject_name').text == f'CN={enclave}'
    assert grant.find('default').text == 'DENY'
    assert {e.text for e in grant.iter('id')} == {'7'}
    topics = {(verb, topic.text) for verb in ('publish', 'subscribe')
              for topic in grant.findall(f'allow_rule/{verb}/topics/topic')}
    discovery = {('publish', 'ros_discovery_info'), ('subscribe', 'ros_discovery_info')}
    assert topics - discovery == dds_topics(allowed(enclave))


def test_the_page_names_every_enclave():
    page = (ROOT / 'docs' / 'security.md').read_text(encoding='utf-8')
    created = set(re.findall(r'create_enclave \S+ (\S+)', page))
    assert created == {NODE, OPERATOR, LISTENER}
    assert set(re.findall(r'create_permission \S+ (\S+)', page)) == created
