"""The manual, its examples and the container files agree with the code and with each other."""

from __future__ import annotations

import ast
from fnmatch import fnmatch
import importlib.util
import os
from pathlib import Path
import re
import subprocess
import sys
import time
from types import SimpleNamespace

from karmma_msgs.msg import ActionEvent, ActionRecognition, LabelScore, ModalityStatus
from karmma_ros.clip import ClipSpec
from karmma_ros.modality import Modality, PAPER_MODALITIES, REGISTRY, subset_name
from karmma_ros.model.presets import only, preset
import pytest
import rclpy
from rclpy.executors import SingleThreadedExecutor
from std_msgs.msg import String
import yaml

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / 'docs'
INSTALLATION = DOCS / 'installation.md'
PAGES = [INSTALLATION, *(DOCS / name for name in (
    'node.md', 'modalities.md', 'hri.md', 'docker.md', 'security.md'))]
DOCKERFILES = sorted((ROOT / 'docker').glob('*.Dockerfile'))
NOT_IN_HUMBLE = {'~/get_type_description'}
WORKFLOW = ROOT / '.github' / 'workflows' / 'test.yml'


def text(path):
    return path.read_text(encoding='utf-8')


def blocks(path, language):
    """Return the code blocks of a page in one language."""
    return re.findall(rf'^```{language}\n(.*?)^```', text(path), re.MULTILINE | re.DOTALL)


def section(page, title):
    """Return a section of a page, without its heading."""
    return re.split(rf'^## {title}\n', page, maxsplit=1, flags=re.MULTILINE)[1].split('\n## ')[0]


def rows(part):
    """Return the cells of the tables in a text, without headings."""
    lines = [line for line in part.splitlines() if line.startswith('| `')]
    return [[cell.strip() for cell in line.strip('|').split(' | ')] for line in lines]


def load(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def full_name(name):
    return name.replace('~', '/karmma') if name[0] in '/~' else f'/{name}'


def test_the_manual_has_exactly_the_table_of_the_parameters():
    table = load(DOCS / 'node_parameters.py').table()
    page = text(DOCS / 'node.md')
    assert table in page, 'put there what `python docs/node_parameters.py` prints'
    num_rows = section(page, 'Parameters').count('\n| `')
    assert num_rows == len(table.splitlines()) - 2


def test_the_page_of_modalities_has_exactly_their_tables():
    tables, page = load(DOCS / 'modality_tables.py'), text(DOCS / 'modalities.md')
    missing = [part for part in tables.page_parts() if part not in page]
    assert not missing, 'put there what `python docs/modality_tables.py` prints'
    assert [own.name for own in tables.types()] == list(tables.FILES) == [
        name for name, entry in REGISTRY.items() if entry.location.startswith('karmma_ros.')]
    assert page.count('\n### ') == len(tables.FILES) - len(PAPER_MODALITIES)


def test_the_inputs_on_the_page_of_modalities_make_a_model():
    given, = (yaml.safe_load(block) for block in blocks(DOCS / 'modalities.md', 'yaml'))
    clip = ClipSpec.from_dict(given['data']['clip'])
    config = only(preset(given['preset']), given['modalities'])
    assert subset_name(config.modalities) == 'V+V_wrist+F_wrist+I+J'
    columns = re.search(r'# (split,.*)', text(DOCS / 'modalities.md'))[1].split(',')
    assert columns[5:] == given['modalities']
    assert clip.input_shape(Modality('joint_state')) == (6, 64)
    assert clip.input_shape(Modality('rgb_head')) == (3, 16, 112, 112)
    assert clip.input_shape(Modality('flow_wrist')) == (3, 16, 96, 128)


def test_the_manual_has_every_topic_and_no_other(node_graph):
    inputs, outputs = section(text(DOCS / 'node.md'), 'Topics').split('\nOut:\n')
    for part, role in ((inputs, 'subscribe'), (outputs, 'publish')):
        documented = {(full_name(row[0].strip('`')), row[1].strip('`')) for row in rows(part)}
        # The type of the audio is a parameter; its default is what the graph shows.
        documented = {(n, 'audio_common_msgs/msg/AudioDataStamped' if t == 'audio.type' else t)
                      for n, t in documented}
        assert documented == {(name, type_name) for k, name, type_name in node_graph if k == role}


def test_the_manual_has_every_service_and_no_other(node_graph):
    documented = {(row[0].strip('`'), row[1].strip('`'))
                  for row in rows(section(text(DOCS / 'node.md'), 'Services'))}
    has = {(name, type_name) for role, name, type_name in node_graph if role == 'serve'}
    missing = {row for row in documented if (full_name(row[0]), row[1]) not in has}
    assert {name for name, _ in missing} <= NOT_IN_HUMBLE
    assert has == {(full_name(n), t) for n, t in documented - missing}


def test_the_manual_has_every_state_of_an_input():
    documented = [row[0].strip('`') for row in rows(
        section(text(DOCS / 'node.md'), 'What makes an input usable'))]
    numbers = [getattr(ModalityStatus, name) for name in documented]
    assert numbers == [0, 1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_code_in_the_pages_is_code(page):
    for block in blocks(page, 'python'):
        ast.parse(block)
    for block in blocks(page, 'yaml'):
        assert yaml.safe_load(block)
    for block in blocks(page, 'sh'):
        assert subprocess.run(['bash', '-n'], input=block, text=True).returncode == 0


def test_every_language_has_code():
    assert all(blocks(DOCS / 'node.md', language) for language in ('python', 'yaml', 'sh'))
    assert len(blocks(DOCS / 'hri.md', 'python')) == 2


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_links_to_headings_lead_to_headings(page):
    for file, heading in re.findall(r'\]\(([^):]*)#([^)]+)\)', text(page)):
        target = text(page.parent / file if file else page)
        headings = re.findall(r'^#+ (.+)$', target, re.MULTILINE)
        anchors = {re.sub(r'[^\w\- ]', '', h.lower()).replace(' ', '-') for h in headings}
        assert heading in anchors, f'{file}#{heading}'


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.name)
def test_every_parameter_given_on_a_command_line_exists(page):
    from karmma_ros.node.declarations import DECLARATIONS
    known = {d.name for d in DECLARATIONS} | {'use_sim_time'}
    commands = [line for block in blocks(page, 'sh') for line in
                block.replace('\\\n', ' ').splitlines() if 'react_to_action' not in line]
    given = {name for line in commands for name in re.findall(r'-p ([\w.]+):=', line)}
    given |= {name for line in commands
              for name in re.findall(r'ros2 param set /karmma ([\w.]+)', line)}
    assert given <= known


def test_boxes_of_yolo_ros_become_boxes_of_vision_msgs():
    namespace = {}
    exec(next(b for b in blocks(DOCS / 'hri.md', 'python') if 'as_detections' in b), namespace)
    number = SimpleNamespace
    detection = number(class_name='cup', score=0.5, bbox=number(
        center=number(position=number(x=10.0, y=20.0)), size=number(x=4.0, y=6.0)))
    from std_msgs.msg import Header
    message = namespace['as_detections'](
        number(header=Header(frame_id='c'), detections=[detection]))
    box, = message.detections
    assert message.header.frame_id == 'c'
    assert (box.results[0].hypothesis.class_id, box.results[0].hypothesis.score) == ('cup', 0.5)
    assert (box.bbox.center.position.x, box.bbox.center.position.y) == (10.0, 20.0)
    assert (box.bbox.size_x, box.bbox.size_y) == (4.0, 6.0)


class ExampleMonitor:
    """Publish to the example, which runs as a process of its own, and store its sentences."""

    def __init__(self, domain, *arguments):
        self.context = rclpy.Context()
        rclpy.init(context=self.context, domain_id=domain)
        self.node = rclpy.create_node('monitor', context=self.context)
        self.executor = SingleThreadedExecutor(context=self.context)
        self.executor.add_node(self.node)
        self.sentences = []
        self.node.create_subscription(String, 'say', lambda m: self.sentences.append(m.data), 10)
        self.results = self.node.create_publisher(ActionRecognition, 'action_recognition', 10)
        self.events = self.node.create_publisher(ActionEvent, 'karmma/action_events', 50)
        self.process = subprocess.Popen(
            [sys.executable, DOCS / 'examples' / 'react_to_action.py', '--ros-args', *arguments],
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})

    def close(self):
        self.process.terminate()
        self.process.wait(10)
        self.executor.shutdown()
        self.node.destroy_node()
        rclpy.try_shutdown(context=self.context)

    def spin_until(self, condition, seconds=20.0):
        deadline = time.monotonic() + seconds
        while not condition() and time.monotonic() < deadline:
            self.executor.spin_once(timeout_sec=0.02)
        return condition()

    def show(self, **used):
        """Publish results that rest on the sensors given, and give them time to arrive."""
        for _ in range(6):  # the first may be sent before the example can receive
            self.results.publish(ActionRecognition(modalities=[
                ModalityStatus(name=name, used=value) for name, value in used.items()]))
            self.spin_until(lambda: False, 0.1)

    def publish_event(self, verb, phase=ActionEvent.STARTED):
        self.events.publish(ActionEvent(
            phase=phase, verb=LabelScore(class_name=verb), noun=LabelScore(class_name='cup')))


@pytest.fixture
def monitor(monkeypatch, ros_domain):
    monkeypatch.setenv('ROS_AUTOMATIC_DISCOVERY_RANGE', 'LOCALHOST')
    monitor = ExampleMonitor(ros_domain, '-p', 'pause:=1.0')
    try:
        assert monitor.spin_until(lambda: monitor.results.get_subscription_count()
                                  and monitor.events.get_subscription_count()
                                  and monitor.node.count_publishers('say'))
        yield monitor
    finally:
        monitor.close()


def test_the_example_speaks_once_and_as_a_question_without_the_camera(monitor):
    monitor.show(rgb=True, audio=True)
    monitor.publish_event('cut')
    monitor.publish_event('wash', ActionEvent.ENDED)
    monitor.publish_event('wash')
    monitor.publish_event('wash')
    assert monitor.spin_until(lambda: monitor.sentences)
    monitor.spin_until(lambda: False, 1.2)
    assert monitor.sentences == ['You wash the cup.']
    monitor.show(rgb=False, audio=True)
    monitor.publish_event('wash')
    assert monitor.spin_until(lambda: len(monitor.sentences) == 2)
    assert monitor.sentences[1] == 'Do you wash the cup?'


def test_the_example_is_short():
    assert len(text(DOCS / 'examples' / 'react_to_action.py').splitlines()) <= 80


def instructions(path):
    """Return (name, rest) of each instruction of a Dockerfile, continued lines joined."""
    joined = re.sub(r'\\\n', ' ', re.sub(r'^#.*\n', '', text(path), flags=re.MULTILINE))
    return [tuple(line.split(maxsplit=1)) for line in joined.splitlines() if line.strip()]


def copied(path):
    """Return what a Dockerfile copies from the repository."""
    sources = []
    for name, rest in instructions(path):
        if name == 'COPY':
            sources += [part for part in rest.split()[:-1] if not part.startswith('--')]
    return sources


def sent(source):
    """Return whether .dockerignore lets a path through: the last line that fits decides."""
    verdict = True
    for line in text(ROOT / '.dockerignore').splitlines():
        pattern = line.lstrip('!').rstrip('/')
        parents = [source, *map(str, Path(source).parents)]
        if line and not line.startswith('#') and any(
                fnmatch(part, pattern) for part in parents if part != '.'):
            verdict = line.startswith('!')
    return verdict


def test_two_images_exist():
    assert [p.name for p in DOCKERFILES] == ['cpu.Dockerfile', 'cuda.Dockerfile']


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda p: p.name)
def test_an_image_copies_files_that_exist_and_are_sent(path):
    sources = copied(path)
    assert {'requirements/torch.txt', 'requirements/runtime.txt', 'karmma_ros'} <= set(sources)
    assert [s for s in sources if not (ROOT / s).exists()] == []
    assert [s for s in sources if not sent(s)] == []


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda p: p.name)
def test_an_image_has_all_that_setup_py_installs(path):
    setup = text(ROOT / 'setup.py')
    shared = ast.literal_eval(re.search(r'^SHARED = (\(.+?\))$', setup, re.MULTILINE)[1])
    assert {'package.xml', 'setup.py', 'setup.cfg', 'resource', *shared} <= set(copied(path))


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda p: p.name)
def test_an_image_stands_on_a_pinned_distribution_and_runs_as_nobody_special(path):
    steps = instructions(path)
    assert [rest for name, rest in steps if name == 'FROM'] == ['ros:jazzy-ros-base-noble']
    users = [rest for name, rest in steps if name == 'USER']
    assert users and users[-1] != 'root'
    assert ('STOPSIGNAL', 'SIGINT') in steps


@pytest.mark.parametrize('path', DOCKERFILES, ids=lambda p: p.name)
def test_an_image_leaves_the_same_keys_to_pip_as_ci(path):
    assert skipped_keys(path) == skipped_keys(WORKFLOW)


def skipped_keys(path):
    """Return the keys of the only `rosdep install` of a file that are left to pip."""
    keys, = re.findall(r'--skip-keys[\s\\]+"([^"]+)"', text(path))
    return set(keys.replace('\\\n', ' ').split())


def commands(path, word):
    """Return the lines with a word, continued lines joined."""
    joined = re.sub(r'\s*\\\n\s*', ' ', text(path))
    return [line.partition('#')[0].strip() for line in joined.splitlines() if word in line]


def test_the_installation_leaves_the_same_keys_to_pip_as_ci():
    keys = skipped_keys(INSTALLATION)
    assert keys == skipped_keys(WORKFLOW)
    declared = re.findall(r'<exec_depend>(.+?)</exec_depend>', text(ROOT / 'package.xml'))
    # Those that rosdep would install by pip, which Ubuntu 24.04 refuses, and PyTorch.
    assert keys == {key for key in declared if key.endswith('-pip')} | {
        'python3-torch', 'python3-torchvision'}


def test_the_installation_installs_what_ci_and_the_images_do():
    rosdep, = [c for c in commands(INSTALLATION, 'rosdep install') if c.startswith('rosdep')]
    theirs, = commands(WORKFLOW, 'rosdep install')
    options = [set(re.findall(r'(?<=\s)-{1,2}[a-z][a-z-]*', c)) for c in (rosdep, theirs)]
    assert options[0] == options[1] - {'--rosdistro'}  # sourced on a robot
    pip, = [c for c in commands(INSTALLATION, 'pip install') if c.startswith('pip install')]
    assert {'torch.txt', 'runtime.txt'} == {Path(p).name for p in re.findall(r'-r (\S+)', pip)}
    assert "'setuptools<80'" in pip and "'numpy<2'" in pip
    pinned = re.search(r'^setuptools==(\d+)', text(ROOT / 'requirements' / 'ros.txt'), re.M)
    assert int(pinned[1]) < 80
    assert all('numpy<2' in text(path) for path in DOCKERFILES)  # Jazzy


def test_the_installation_has_a_line_for_every_distribution_of_ci():
    tested = yaml.safe_load(text(WORKFLOW))['jobs']['distribution']['strategy']['matrix']['ros']
    table = [line for line in text(INSTALLATION).splitlines()
             if re.match(r'\| (Humble|Jazzy|Lyrical)', line)]
    named = [name.lower() for line in table for name in line.split('|')[1].split(', ')]
    assert set(tested) <= {name.strip() for name in named}
    for line in table:
        python = line.split('|')[2].split()[-1]
        # NumPy 1 has no build for Python 3.13 and later.
        numpy_1 = line.split('|')[4].strip().startswith("with `'numpy<2'`")
        assert numpy_1 is (int(python.split('.')[1]) < 13), line


def test_the_repository_list_is_one_of_vcstool():
    listed = yaml.safe_load(text(ROOT / 'karmma_ros.repos'))['repositories']
    assert list(listed) == ['karmma_ros']  # the folder of src/ that the link goes to
    assert set(listed['karmma_ros']) == {'type', 'url', 'version'}
    assert listed['karmma_ros']['type'] == 'git'
    assert 'vcs import src < karmma_ros.repos' in text(INSTALLATION)


def test_the_shell_commands_parse():
    for path in DOCKERFILES:
        for name, rest in instructions(path):
            if name == 'RUN':
                assert subprocess.run(['bash', '-n'], input=rest, text=True).returncode == 0
    entrypoint = ROOT / 'docker' / 'entrypoint.sh'
    assert subprocess.run(['bash', '-n', entrypoint]).returncode == 0
    assert os.access(entrypoint, os.X_OK)


def test_the_images_differ_in_the_graphics_card_only():
    cpu, cuda = (instructions(path) for path in DOCKERFILES)
    assert [step for step in cuda if step not in cpu] == [
        ('ENV', 'NVIDIA_VISIBLE_DEVICES=all'),
        ('ENV', 'NVIDIA_DRIVER_CAPABILITIES=compute,utility')]
    assert [step for step in cpu if step not in cuda] == []


def test_compose_builds_these_images_and_launches_existing_files():
    compose = yaml.safe_load(text(ROOT / 'docker' / 'compose.yaml'))
    built = {Path(s['build']['dockerfile']).name for s in compose['services'].values()}
    assert built == {path.name for path in DOCKERFILES}
    for service in compose['services'].values():
        assert (service['network_mode'], service['ipc']) == ('host', 'host')
        profile = service['environment']['FASTRTPS_DEFAULT_PROFILES_FILE']
        assert (ROOT / profile.partition('share/karmma_ros/')[2]).is_file()
        launch = text(ROOT / 'launch' / service['command'][3])
        arguments = [a.partition(':=')[0] for a in service['command'][4:]]
        assert arguments and all(f"'{name}'" in launch for name in arguments)
