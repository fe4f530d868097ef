"""The script behind `make env`: its errors, and how it resumes."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
from pathlib import Path
import re
import subprocess
import sys
import sysconfig
from types import ModuleType

from packaging.requirements import Requirement
import pytest

ROOT = Path(__file__).resolve().parents[1]
SETS = ('torch.txt', 'ros.txt', 'runtime.txt', 'training.txt', 'cluster.txt', 'development.txt')


@pytest.fixture
def script(tmp_path, monkeypatch) -> ModuleType:
    """Load a copy of environment.py that would make its .venv below tmp_path."""
    source = ROOT / 'requirements' / 'environment.py'
    (tmp_path / 'requirements').mkdir()
    (tmp_path / 'requirements' / source.name).write_text(source.read_text())
    spec = importlib.util.spec_from_file_location(
        'environment', tmp_path / 'requirements' / source.name)
    assert spec and spec.loader
    module = importlib.util.module_from_spec(spec)
    # Dataclasses need their module in sys.modules.
    monkeypatch.setitem(sys.modules, 'environment', module)
    spec.loader.exec_module(module)
    assert module.VENV == tmp_path / '.venv'
    return module


def sentence(script, call) -> str:
    """Return the one sentence with which `call` stops."""
    with pytest.raises(script.EnvironmentProblem) as caught:
        call()
    text = str(caught.value)
    assert '\n' not in text and text.endswith('.')
    return text


def test_a_machine_with_everything_passes(script):
    script.check_python((3, 14))
    script.check_machine(None)


@pytest.mark.parametrize('version', [(2, 7), (3, 9), (3, 14), (4, 0)])
def test_another_python_is_refused(script, monkeypatch, version):
    monkeypatch.setattr(script.sys, 'version_info', (*version, 0))
    text = sentence(script, lambda: script.check_python((3, 13)))
    assert '{}.{}'.format(*version) in text and '3.10 to 3.13' in text and 'PYTHON=' in text


def test_missing_headers_name_the_package(script, monkeypatch, tmp_path):
    monkeypatch.setattr(script.sysconfig, 'get_paths', lambda: {'include': str(tmp_path)})
    assert f'install the package python{sysconfig.get_python_version()}-dev' in sentence(
        script, lambda: script.check_machine(None))


def test_a_missing_compiler_names_the_package(script, monkeypatch, tmp_path):
    monkeypatch.setenv('PATH', str(tmp_path))
    monkeypatch.delenv('CXX', raising=False)
    assert 'C++ compiler: install the package g++' in sentence(
        script, lambda: script.check_machine(None))


def test_a_missing_venv_module_names_the_package(script, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(script.importlib.util, 'find_spec',
                        lambda name: None if name == 'ensurepip' else find_spec(name))
    assert f'python{sysconfig.get_python_version()}-venv' in sentence(
        script, lambda: script.check_machine(None))


def test_another_type_of_machine_needs_a_distribution(script, monkeypatch):
    monkeypatch.setattr(script.platform, 'machine', lambda: 'aarch64')
    assert 'aarch64: install a ROS 2 distribution' in sentence(
        script, lambda: script.check_machine(None))
    monkeypatch.setattr(script.importlib.util, 'find_spec', lambda name: object())
    script.check_machine(script.Distribution('jazzy', ('/opt/ros/jazzy',)))


def test_a_distribution_without_colcon_names_the_package(script, monkeypatch):
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(script.importlib.util, 'find_spec',
                        lambda name: None if name == 'colcon_core' else find_spec(name))
    distribution = script.Distribution('jazzy', ('/opt/ros/jazzy',))
    assert 'python3-colcon-common-extensions' in sentence(
        script, lambda: script.check_machine(distribution))


@pytest.mark.parametrize('output, expected', [
    ('WARNING: Retrying after NewConnectionError(...): [Errno -3] Temporary failure in name '
     'resolution\nERROR: No matching distribution found', 'connect this machine to the network'),
    ('OSError: [Errno 28] No space left on device', 'The disk is full'),
    ('doing\nCMake Error at CMakeLists.txt:3\nstopped', 'CMake Error at CMakeLists.txt:3'),
    ('', 'no reason given'),
])
def test_a_failed_command_is_explained(script, tmp_path, output, expected):
    (tmp_path / 'log').mkdir()
    log = tmp_path / 'log' / 'pip.log'
    command = ['/bin/sh', '-c', f"printf '%s' '{output}'; exit 1"]
    text = sentence(script, lambda: script.call(command, log, os.environ, tmp_path))
    assert expected in text
    assert log.read_text() == output


def test_no_network_is_recognised_in_the_output_of_pip(script, tmp_path):
    """Nothing listens on this machine's discard port."""
    call = [sys.executable, '-m', 'pip', 'download', '--no-deps', '--retries', '1', '--isolated',
            '--index-url', 'http://127.0.0.1:9/simple', '--dest', tmp_path, 'six==1.16.0']
    assert 'connect this machine to the network' in sentence(
        script, lambda: script.call(call, tmp_path / 'pip.log', os.environ, tmp_path))


@pytest.fixture
def counted(script, monkeypatch) -> list[str]:
    """Replace what takes long by notes that it was done."""
    done: list[str] = []

    def make_venv(distribution):
        done.append('venv')
        script.shutil.rmtree(script.VENV, ignore_errors=True)
        (script.VENV / 'bin').mkdir(parents=True)
        script.venv_python().touch()

    monkeypatch.setattr(script, 'make_venv', make_venv)
    for name in ('install_packages', 'fix_wheels', 'build_interfaces', 'install_ourselves',
                 'write_variables'):
        monkeypatch.setattr(script, name, lambda *_, name=name: done.append(name))
    monkeypatch.setattr(script, 'find_distribution', lambda *_: None)
    for name in SETS:
        (script.ROOT / 'requirements' / name).write_text('six==1.16.0\n')
    (script.ROOT / 'karmma_msgs').mkdir()
    (script.ROOT / 'karmma_msgs' / 'A.msg').write_text('bool a\n')
    return done


def test_a_second_run_has_nothing_to_do(script, counted):
    script.make_environment()
    assert counted == ['venv', 'install_packages', 'fix_wheels', 'build_interfaces',
                       'install_ourselves', 'write_variables']
    counted.clear()
    script.make_environment()
    assert counted == []


def test_what_changed_is_done_again_and_no_more(script, counted):
    script.make_environment()
    counted.clear()
    (script.ROOT / 'karmma_msgs' / 'A.msg').write_text('bool b\n')
    script.make_environment()
    assert counted == ['build_interfaces', 'install_ourselves', 'write_variables']
    counted.clear()
    (script.ROOT / 'requirements' / 'runtime.txt').write_text('six==1.17.0\n')
    script.make_environment()
    assert counted == ['install_packages', 'fix_wheels']
    counted.clear()
    (script.ROOT / 'requirements' / 'ros.txt').write_text('six==1.17.0\n')
    script.make_environment()
    assert counted[0] == 'install_packages' and 'build_interfaces' in counted


def test_an_interrupted_install_starts_afresh(script, counted, monkeypatch):
    install = script.install_packages

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(script, 'install_packages', interrupted)
    with pytest.raises(KeyboardInterrupt):
        script.make_environment()
    monkeypatch.setattr(script, 'install_packages', install)
    script.make_environment()
    assert counted[:3] == ['venv', 'venv', 'install_packages']


def test_an_interrupted_build_is_repeated_alone(script, counted, monkeypatch):
    build = script.build_interfaces

    def interrupted(*_):
        raise script.EnvironmentProblem('The disk is full.')

    monkeypatch.setattr(script, 'build_interfaces', interrupted)
    with pytest.raises(script.EnvironmentProblem):
        script.make_environment()
    monkeypatch.setattr(script, 'build_interfaces', build)
    counted.clear()
    script.make_environment()
    assert counted == ['build_interfaces', 'install_ourselves', 'write_variables']


def test_a_damaged_note_of_what_was_done_counts_as_nothing_done(script, counted):
    script.make_environment()
    (script.VENV / 'karmma_environment.json').write_text('{"venv": ')
    counted.clear()
    script.make_environment()
    assert counted[0] == 'venv'


@pytest.mark.parametrize('target', ['.venv', 'removed'])
def test_a_link_that_leads_nowhere_is_named(script, counted, target):
    script.VENV.symlink_to(script.ROOT / target)
    text = sentence(script, script.make_environment)
    assert str(script.VENV) in text and 'remove it' in text
    assert counted == []


def test_the_builders_paths_are_replaced(script, monkeypatch):
    file = script.VENV / 'share' / 'a' / 'cmake' / 'export.cmake'
    file.parent.mkdir(parents=True)
    file.write_text('set(I "/opt/python/cp310-cp310/include/python3.10;/opt/python/cp310-cp310/'
                    'lib/python3.10/site-packages/numpy/_core/include;/usr/include")')
    monkeypatch.setattr(script, 'venv_python', lambda: sys.executable)
    script.fix_wheels()
    import numpy
    headers = sysconfig.get_paths()['include']
    assert file.read_text() == f'set(I "{headers};{numpy.get_include()};/usr/include")'


def test_a_distribution_is_detected_by_its_variables_and_its_rclpy(script, tmp_path):
    python = tmp_path / 'python'
    python.write_text('#!/bin/sh\nexit 0\n')
    python.chmod(0o755)
    ours = {'ROS_DISTRO': 'jazzy', 'AMENT_PREFIX_PATH': str(script.VENV)}
    sourced = {**ours, 'AMENT_PREFIX_PATH': f'{script.VENV}:/opt/ros/jazzy'}
    assert script.find_distribution({}, str(python)) is None
    assert script.find_distribution(ours, str(python)) is None
    assert script.find_distribution(sourced, str(python)) == script.Distribution(
        'jazzy', ('/opt/ros/jazzy',))
    python.write_text('#!/bin/sh\nexit 1\n')
    assert script.find_distribution(sourced, str(python)) is None


def test_stand_ins_are_built_only_for_what_is_missing(script, tmp_path):
    index = tmp_path / 'share' / 'ament_index' / 'resource_index' / 'packages'
    index.mkdir(parents=True)
    (index / 'vision_msgs').touch()
    distribution = script.Distribution('jazzy', (str(tmp_path),))
    assert script.missing_interfaces(distribution) == ('audio_common_msgs', 'yolo_msgs')
    assert script.missing_interfaces(None) == (
        'audio_common_msgs', 'vision_msgs', 'yolo_msgs')
    assert {path.parent.name for path in (ROOT / 'test' / 'interfaces').glob('*/package.xml')} \
        == set(script.STAND_INS)


def pins(name: str) -> dict[str, str]:
    """Read one set of requirements, each a pin; give those that are for this machine."""
    lines = (ROOT / 'requirements' / name).read_text().splitlines()
    texts = (line.partition('#')[0].strip() for line in lines)
    requirements = [Requirement(text) for text in texts if text]
    exact = [re.fullmatch(r'==([\w.]+)', str(each.specifier)) for each in requirements]
    assert requirements and all(exact), f'{name} has a line that is no pin'
    return {each.name: match[1] for each, match in zip(requirements, exact)
            if match and (each.marker is None or each.marker.evaluate())}


def test_every_requirement_is_pinned_once():
    sets = [pins(name) for name in SETS]
    names = [package.lower().replace('_', '-') for each in sets for package in each]
    assert len(names) == len(set(names))


needs_environment = pytest.mark.skipif(
    Path(sys.prefix) != ROOT / '.venv', reason='runs in the environment of make env only')


@needs_environment
def test_the_environment_holds_what_is_pinned():
    for name in SETS[:1] + SETS[2:]:
        for package, version in pins(name).items():
            assert importlib.metadata.version(package).partition('+')[0] == version


@needs_environment
def test_a_run_with_nothing_to_do_is_silent_and_quick():
    result = subprocess.run([sys.executable, 'requirements/environment.py'], cwd=ROOT,
                            capture_output=True, text=True, timeout=20)
    assert (result.returncode, result.stdout, result.stderr) == (0, '', '')


@needs_environment
def test_the_variables_can_be_sourced_twice_and_from_anywhere(tmp_path):
    script = (f'set -eu; . {ROOT}/.venv/karmma_env.sh; first=$PATH:$LD_LIBRARY_PATH; '
              f'. {ROOT}/.venv/karmma_env.sh; test "$first" = "$PATH:$LD_LIBRARY_PATH"; '
              'python -c "import karmma_ros; from karmma_msgs.msg import ModelInfo; '
              'print(karmma_ros.__file__)"; command -v karmma')
    kept = {name: value for name, value in os.environ.items() if name in ('ROS_DISTRO', 'HOME')}
    result = subprocess.run(['/bin/sh', '-c', script], cwd=tmp_path, capture_output=True,
                            text=True, env={'PATH': '/usr/bin:/bin', **kept})
    assert result.stdout.split() == [str(ROOT / 'karmma_ros' / '__init__.py'),
                                     str(ROOT / '.venv' / 'bin' / 'karmma')], result.stderr
