"""The README is true: links, commands, numbers and the example."""

import json
import os
from pathlib import Path
import re
import subprocess
import sys
import time

from karmma_msgs.msg import ActionRecognition, ActionScore, ModalityStatus
from karmma_ros.cli.main import COMMANDS
from karmma_ros.evaluation.model_card import accuracy_table
from karmma_ros.model.bundle import load_bundle
from karmma_ros.node.declarations import DECLARATIONS
from karmma_ros.reproduce.paper_tables import orderings
from karmma_ros.reproduce.results import Results
import pytest
import rclpy

ROOT = Path(__file__).parents[1]
README = (ROOT / 'README.md').read_text(encoding='utf-8')
PAGES = [ROOT / 'README.md', ROOT / 'CONTRIBUTING.md', *sorted((ROOT / 'docs').glob('*.md'))]
MODEL = ROOT / 'models' / 'synthetic_kitchen'


@pytest.fixture(scope='module')
def accuracies():
    """Return the accuracies of the included model by subset of sensors."""
    return load_bundle(MODEL).metrics['test_top1']


def loaded(path):
    return json.loads((ROOT / path).read_text(encoding='utf-8'))


def words(text):
    """Return a text on one line."""
    return ' '.join(text.split())


def test_it_is_read_in_three_minutes():
    assert len(README.splitlines()) <= 150


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_every_link_leads_somewhere(page):
    links = re.findall(r'\]\((?!http|#)([^)#]+)', page.read_text(encoding='utf-8'))
    assert links or page.name == 'CONTRIBUTING.md'
    missing = [link for link in links if not (page.parent / link).exists()]
    assert missing == []


def test_every_parameter_that_is_set_exists():
    named = re.findall(r'ros2 param set /karmma (\S+)', README)
    assert named and set(named) <= {declaration.name for declaration in DECLARATIONS}


def test_every_command_exists():
    given = set(re.findall(r'^karmma (\w+)', README, re.MULTILINE))
    assert given and given <= set(COMMANDS)


def test_every_make_target_exists():
    makefile = (ROOT / 'Makefile').read_text(encoding='utf-8')
    targets = set(re.findall(r'make (\w+)  ', README))
    assert targets >= {'demo', 'test'}
    assert all(f'\n{target}:' in makefile for target in targets)


def test_the_card_has_the_accuracies_of_the_model(accuracies):
    assert accuracy_table(accuracies).strip() in (MODEL / 'README.md').read_text(encoding='utf-8')


def test_the_second_paragraph_limits_the_model(accuracies):
    paragraph = words(README.split('\n\n')[2])
    for subset, claim in (('V+F+A+D', 'with all sensors'), ('V', 'with the camera alone'),
                          ('A', 'with audio alone')):
        accuracy = 100 * accuracies[subset]['action']
        assert re.search(rf'{accuracy:.1f} % (of the actions )?{claim}', paragraph)
    assert 'It cannot recognise anything in real images' in paragraph


def test_the_evidence_is_what_was_measured():
    text = words(README)
    rows = orderings(Results.load(ROOT / 'docs/results.json')).strip().splitlines()[2:]
    same = sum('the same' in row for row in rows)
    assert f'{same} of {len(rows)} orderings' in text

    requirements = [each for case in loaded('docs/reliability.json').values()
                    for each in case['requirements']]
    passed = sum(each['passed'] for each in requirements)
    assert f'{passed} of {len(requirements)} requirements hold' in text

    measured = loaded('benchmarks/results.json')
    phase, = (p for p in measured['node']['figures']['phases']
              if p['run'] == 'complete node' and p['rate'] == 5)
    assert f'is {phase["ages_ms"]["newest image received"]["p95"]:.1f} ms' in text


def test_the_speed_is_that_of_the_pages():
    text = words(README)
    performance, streaming = ((ROOT / 'docs' / f'{name}.md').read_text(encoding='utf-8')
                              for name in ('performance', 'streaming'))
    student = re.search(r"the paper's student, V\+F\+A.*\n?.*?\| ([\d.]+) x eager \|", performance)
    assert f'student {float(student[1]):.1f} times' in text
    factors = [float(f) for f in re.findall(r' ([\d.]+) × \| [\d.]+ \| [\d.]+ × ', streaming)]
    assert f'up to {max(factors):.0f} times' in text


def test_the_installation_is_that_of_the_manual():
    block = re.search(r'^```sh\nmkdir -p ws/src.*?^```', README, re.MULTILINE | re.DOTALL)[0]
    assert block in (ROOT / 'docs' / 'installation.md').read_text(encoding='utf-8')


def test_the_subscriber_prints_what_is_published(ros_domain, tmp_path, monkeypatch):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    script = tmp_path / 'subscriber.py'
    script.write_text(re.search(r'^```python\n(.*?)^```', README, re.MULTILINE | re.DOTALL)[1])
    context = rclpy.Context()
    rclpy.init(context=context, domain_id=ros_domain)
    process = subprocess.Popen(
        [sys.executable, script], stdout=subprocess.PIPE, text=True,
        env={**os.environ, 'ROS_DOMAIN_ID': str(ros_domain)})
    try:
        node = rclpy.create_node('publisher', context=context)
        publisher = node.create_publisher(ActionRecognition, 'action_recognition', 10)
        deadline = time.monotonic() + 20
        while not publisher.get_subscription_count() and time.monotonic() < deadline:
            time.sleep(0.05)
        publisher.publish(ActionRecognition(
            actions=[ActionScore(verb='cut', noun='tomato', score=0.9)],
            modalities=[ModalityStatus(name='rgb', used=True), ModalityStatus(name='audio')]))
        assert process.stdout.readline() == "cut tomato (0.90) from ['rgb']\n"
        node.destroy_node()
    finally:
        process.terminate()
        process.wait(10)
        process.stdout.close()
        rclpy.try_shutdown(context=context)
