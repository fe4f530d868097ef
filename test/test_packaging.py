"""The two packages: manifests, entry points, installed files, and what colcon makes of them."""

from __future__ import annotations

import ast
import importlib.metadata
import os
from pathlib import Path
import re
import runpy
import subprocess
import sys
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).resolve().parents[1]
MESSAGES = ROOT / 'karmma_msgs' / 'msg'
MANIFESTS = [ROOT / 'package.xml', ROOT / 'karmma_msgs' / 'package.xml',
             *sorted((ROOT / 'test' / 'interfaces').glob('*/package.xml'))]


@pytest.fixture(scope='module')
def setup_arguments() -> dict[str, object]:
    """Catch what setup.py hands to setuptools."""
    import setuptools

    given: dict[str, object] = {}
    before, setuptools.setup = setuptools.setup, lambda **arguments: given.update(arguments)
    folder = Path.cwd()
    os.chdir(ROOT)
    try:
        runpy.run_path(str(ROOT / 'setup.py'))
    finally:
        os.chdir(folder)
        setuptools.setup = before
    return given


def colcon(*arguments: str, cwd: Path = ROOT) -> str:
    """Run colcon and give what it prints; without a log."""
    pytest.importorskip('colcon_core')
    done = subprocess.run(
        [sys.executable, '-m', 'colcon', *arguments], cwd=cwd, capture_output=True, text=True,
        env={**os.environ, 'COLCON_LOG_PATH': os.devnull}, timeout=120,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_a_plain_colcon_call_finds_both_packages():
    lines = [line.split('\t') for line in colcon('list').splitlines()]
    assert {(name, build_type) for name, _, build_type in lines} == {
        ('karmma_ros', '(ros.ament_python)'), ('karmma_msgs', '(ros.ament_cmake)'),
    }


def test_in_a_workspace_the_readme_s_way_finds_both(tmp_path):
    (tmp_path / 'src').mkdir()
    (tmp_path / 'src' / 'karmma_ros').symlink_to(ROOT)
    names = colcon('list', '--names-only', '--base-paths', 'src', 'src/*/*_msgs', cwd=tmp_path)
    assert set(names.split()) == {'karmma_ros', 'karmma_msgs'}


def prefixes_without(package: str) -> dict[str, str]:
    """Return the environment without the prefixes that hold a package."""
    marker = Path('share', 'ament_index', 'resource_index', 'packages', package)
    kept = {name: os.pathsep.join(
        path for path in os.environ.get(name, '').split(os.pathsep)
        if path and not (Path(path) / marker).exists() and not (Path(path) / package).exists())
        for name in ('AMENT_PREFIX_PATH', 'CMAKE_PREFIX_PATH', 'COLCON_PREFIX_PATH')}
    return {**os.environ, **kept}


@pytest.fixture
def workspace(tmp_path):
    """Return a workspace with all of karmma_ros but its code, and an empty karmma_msgs inside."""
    package = tmp_path / 'src' / 'karmma_ros'
    for name in ('setup.py', 'setup.cfg', 'package.xml', 'resource/karmma_ros',
                 'karmma_ros/__init__.py', 'karmma_msgs/package.xml'):
        (package / name).parent.mkdir(parents=True, exist_ok=True)
        (package / name).write_bytes((ROOT / name).read_bytes())
    (package / 'karmma_msgs' / 'CMakeLists.txt').write_text(
        'cmake_minimum_required(VERSION 3.8)\nproject(karmma_msgs NONE)\n'
        'find_package(ament_cmake REQUIRED)\nament_package()\n')
    manifest = package / 'karmma_msgs' / 'package.xml'
    manifest.write_text(re.sub(r'.*rosidl.*\n', '', manifest.read_text()))
    return tmp_path


def build(workspace: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run `colcon build` where no karmma_msgs is sourced."""
    pytest.importorskip('colcon_core')
    return subprocess.run(
        [sys.executable, '-m', 'colcon', 'build', *arguments], cwd=workspace, text=True,
        capture_output=True, timeout=240, env={
            **prefixes_without('karmma_msgs'), 'COLCON_LOG_PATH': os.devnull,
            'COLCON_DEFAULTS_FILE': os.devnull})


@pytest.mark.parametrize('arguments', [[], ['--symlink-install']], ids=['install', 'symlink'])
def test_without_its_messages_the_package_is_not_built(workspace, arguments):
    done = build(workspace, *arguments)
    assert done.returncode != 0 and 'Failed   <<< karmma_ros' in done.stdout + done.stderr
    assert 'karmma_msgs is neither in this workspace nor in a sourced one' in done.stderr
    assert 'ln -s karmma_ros/karmma_msgs karmma_msgs' in done.stderr
    assert 'Traceback' not in done.stderr


@pytest.mark.parametrize('arguments', [['--symlink-install'], ['--merge-install']],
                         ids=['symlink', 'merge'])
def test_with_the_link_of_the_readme_both_are_built(workspace, arguments):
    (workspace / 'src' / 'karmma_msgs').symlink_to('karmma_ros/karmma_msgs')
    done = build(workspace, *arguments)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '2 packages finished' in done.stdout + done.stderr


def test_messages_that_were_built_before_are_enough(workspace):
    (workspace / 'src' / 'karmma_msgs').symlink_to('karmma_ros/karmma_msgs')
    for package in ('karmma_msgs', 'karmma_ros'):
        done = build(workspace, '--packages-select', package)
        assert done.returncode == 0, done.stdout + done.stderr


def test_setup_py_can_be_asked_about_the_package_without_its_messages(workspace):
    done = subprocess.run(
        [sys.executable, 'setup.py', '--version'], cwd=workspace / 'src' / 'karmma_ros',
        capture_output=True, text=True, env=prefixes_without('karmma_msgs'))
    assert done.returncode == 0 and done.stdout.split()[-1] == '0.1.0'


@pytest.mark.parametrize('path', MANIFESTS, ids=lambda path: path.parent.name)
def test_manifest_is_valid(path):
    """An invalid one is taken in silence, and the package for something else."""
    package = pytest.importorskip('catkin_pkg.package')
    warnings: list[str] = []
    parsed = package.parse_package(str(path), warnings=warnings)
    assert parsed.package_format == 3 and not warnings
    assert '<?xml-model href=' in path.read_text()
    assert parsed.licenses == ['Apache-2.0']


KEYS = {
    'PIL': 'python3-pil', 'cv2': 'python3-opencv', 'filelock': 'python3-filelock',
    'huggingface_hub': 'python3-huggingface-hub-pip', 'jinja2': 'python3-jinja2',
    'matplotlib': 'python3-matplotlib', 'numpy': 'python3-numpy', 'rich': 'python3-rich',
    'rosbags': 'python3-rosbags-pip', 'soundfile': 'python3-soundfile', 'timm': 'python3-timm-pip',
    'torch': 'python3-torch', 'torchvision': 'python3-torchvision', 'yaml': 'python3-yaml',
}
"""Third-party import → its rosdep key."""


def imports_of(folder: Path) -> set[str]:
    """Return what the files below a folder import, but for the standard library and ours."""
    names: set[str] = set()
    for path in folder.rglob('*.py'):
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.Import):
                names |= {alias.name.partition('.')[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and not node.level:
                names.add(str(node.module).partition('.')[0])
    newer = {'compression'}  # of the standard library from Python 3.14 on
    return names - sys.stdlib_module_names - newer - {'karmma_ros'}


def declared(*tags: str) -> set[str]:
    tree = ElementTree.parse(ROOT / 'package.xml')
    return {str(element.text) for tag in tags for element in tree.iter(tag)}


def pinned(*names: str) -> set[str]:
    """Return the distributions that requirements files pin, and what those require, normalised."""
    lines = '\n'.join((ROOT / 'requirements' / name).read_text() for name in names)
    own = {normal(name) for name in re.findall(r'^[\w.-]+', lines, re.MULTILINE)}
    needed = set()
    for name in own:
        try:
            needed |= {normal(re.match(r'[\w.-]+', text)[0])  # type: ignore[index]
                       for text in importlib.metadata.requires(name) or ()}
        except importlib.metadata.PackageNotFoundError:
            pass  # a runtime of another processor or Python
    return own | needed


def normal(name: str) -> str:
    return re.sub(r'[-_.]+', '-', name).lower()


def test_every_import_has_a_rosdep_key_or_a_pip_line():
    page = (ROOT / 'docs' / 'installation.md').read_text()
    files = ('torch.txt', 'runtime.txt', 'training.txt', 'cluster.txt')
    assert all(f'-r src/karmma_ros/requirements/{name}' in page for name in files)
    by_pip, providers = pinned(*files), importlib.metadata.packages_distributions()
    depends, names = declared('exec_depend'), imports_of(ROOT / 'karmma_ros')
    assert {'rclpy', 'rich', 'rosbags', 'numpy', 'torch', 'lightning'} <= names
    without = [name for name in names if name not in depends and KEYS.get(name) not in depends
               and not {normal(d) for d in providers.get(name, [name])} & by_pip]
    assert without == []
    assert [name for name in KEYS if name in names and KEYS[name] not in depends] == []


def test_every_library_of_the_tests_has_a_key():
    used = imports_of(ROOT / 'test')
    keys = {'pytest': 'python3-pytest', 'hypothesis': 'python3-hypothesis'}
    assert set(keys) <= used
    assert {*keys.values(), 'python3-pytest-timeout'} <= declared('test_depend')


def test_no_key_is_declared_without_an_import():
    names = imports_of(ROOT / 'karmma_ros') | imports_of(ROOT / 'launch')
    used = {KEYS.get(name, name) for name in names}
    extra = {key for key in declared('exec_depend') if key.startswith('python3-')} - used
    assert extra == set()


def test_both_packages_are_of_one_version(setup_arguments):
    import karmma_ros

    versions = {ElementTree.parse(path).findtext('version') for path in MANIFESTS[:2]}
    assert versions == {setup_arguments['version']} == {karmma_ros.__version__}


def test_every_file_that_is_no_module_is_package_data(setup_arguments):
    patterns = setup_arguments['package_data']['karmma_ros']
    package = ROOT / 'karmma_ros'
    shipped = {path for pattern in patterns for path in package.glob(pattern)}
    tracked = subprocess.run(['git', 'ls-files', 'karmma_ros'], cwd=ROOT, capture_output=True,
                             text=True, check=True).stdout.split()
    assert {path.name for path in shipped} >= {'py.typed', 'page.html.jinja', 'page.css'}
    assert [name for name in tracked
            if not name.endswith('.py') and ROOT / name not in shipped] == []


def test_no_link_is_tracked():
    modes = subprocess.run(['git', 'ls-files', '--stage'], cwd=ROOT, capture_output=True,
                           text=True, check=True).stdout.splitlines()
    assert len(modes) > 400
    assert [line for line in modes if not line.startswith('100')] == []


def test_entry_points_lead_to_functions(setup_arguments):
    scripts = setup_arguments['entry_points']['console_scripts']
    points = [importlib.metadata.EntryPoint(*re.split(r'\s*=\s*', text), 'console_scripts')
              for text in scripts]
    assert {point.name for point in points} == {
        'karmma', 'karmma_node', 'overlay', 'replay', 'watch'}
    for point in points:
        path = ROOT.joinpath(*point.module.split('.')).with_suffix('.py')
        functions = [n.name for n in ast.parse(path.read_text()).body
                     if isinstance(n, ast.FunctionDef)]
        assert point.attr in functions, point


def test_every_shared_file_is_installed(setup_arguments):
    installed = {name for _, names in setup_arguments['data_files'] for name in names}
    for target, names in setup_arguments['data_files']:
        assert not Path(target).is_absolute() and all((ROOT / name).is_file() for name in names)
    present = {str(path.relative_to(ROOT)) for folder in ('launch', 'config', 'models')
             for path in (ROOT / folder).rglob('*')
             if path.is_file() and '__pycache__' not in path.parts}
    assert {'launch/karmma.launch.py', 'config/node/karmma.yaml'} <= present <= installed
    assert ('share/karmma_ros/config/node' in dict(setup_arguments['data_files']))


def test_every_folder_with_code_is_a_package(setup_arguments):
    folders = {path.parent for path in (ROOT / 'karmma_ros').rglob('*.py')}
    names = {'.'.join(folder.relative_to(ROOT).parts) for folder in folders}
    assert names and names == set(setup_arguments['packages'])


def test_every_message_is_built_and_can_be_read_without_more_than_std_msgs():
    listed = re.findall(r'"(msg/\w+\.msg)"', (MESSAGES.parent / 'CMakeLists.txt').read_text())
    files = sorted(MESSAGES.glob('*.msg'))
    assert files and sorted(listed) == [f'msg/{path.name}' for path in files]
    ours = {path.stem for path in files}
    for path in files:
        for line in path.read_text().splitlines():
            field_type = line.partition('#')[0].strip().partition(' ')[0].partition('[')[0]
            package, slash, _ = field_type.rpartition('/')
            assert package in ('std_msgs', 'builtin_interfaces') if slash else (
                field_type in ours or field_type in (
                    '', 'bool', 'string', 'float32', 'int32', 'uint8', 'uint32', 'uint64')), line


def test_the_messages_that_are_installed_are_those_of_the_source():
    """A stale build would be found on a robot otherwise."""
    package = pytest.importorskip('karmma_msgs.msg')
    for path in sorted(MESSAGES.glob('*.msg')):
        fields = re.findall(r'^([\w/\[\]]+) +(\w+)(?: *#.*)?$', path.read_text(), re.MULTILINE)
        built = getattr(package, path.stem).get_fields_and_field_types()
        assert list(built) == [name for _, name in fields], path.name


def fast_dds_complains(profile: Path) -> str:
    """Start a node with `profile` and return what Fast DDS prints about it."""
    script = ('import rclpy; rclpy.init(); rclpy.create_node("profiled"); rclpy.shutdown(); '
              'print("started")')
    done = subprocess.run(
        [sys.executable, '-c', script], text=True, timeout=60, stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        env={**os.environ, 'ROS_AUTOMATIC_DISCOVERY_RANGE': 'LOCALHOST',
             'RMW_IMPLEMENTATION': 'rmw_fastrtps_cpp',
             'FASTRTPS_DEFAULT_PROFILES_FILE': str(profile),
             'FASTDDS_DEFAULT_PROFILES_FILE': str(profile)})
    before, started, _ = done.stdout.rpartition('started')
    assert started, done.stdout
    return before


def test_the_fast_dds_profile_is_valid_and_fits_an_image(tmp_path):
    prefixes = os.environ.get('AMENT_PREFIX_PATH', sys.prefix).split(os.pathsep)
    if not any(Path(prefix, 'share', 'rmw_fastrtps_cpp').is_dir() for prefix in prefixes):
        pytest.skip('this machine has another middleware than Fast DDS')
    profile = ROOT / 'config' / 'node' / 'fastdds.xml'
    assert fast_dds_complains(profile) == ''
    tree = ElementTree.parse(profile)
    sizes = {node.tag.rpartition('}')[2]: int(node.text or 0) for node in tree.iter()
             if node.tag.endswith(('segment_size', 'maxMessageSize'))}
    full_hd = 1920 * 1080 * 3
    assert full_hd < sizes['maxMessageSize'] and 3 * full_hd < sizes['segment_size']
    misspelt = tmp_path / 'misspelt.xml'
    misspelt.write_text(profile.read_text().replace('<type>SHM<', '<type>SHARED<'))
    assert fast_dds_complains(misspelt), 'Fast DDS takes anything: this test shows nothing'


@pytest.fixture(scope='module')
def release_notes():
    """Return the functions of docs/release_notes.py."""
    return runpy.run_path(str(ROOT / 'docs' / 'release_notes.py'))


def test_the_notes_of_a_release_are_its_part_of_the_changelog(release_notes):
    changelog = ('Forthcoming\n-----------\n\n* later\n\n'
                 '0.2.0 (2026-12-01)\n------------------\n\n* ``a`` new\n\n'
                 '0.1.0 (2026-11-01)\n------------------\n\n* first\n')
    assert release_notes['notes'](changelog, '0.2.0') == '* `a` new\n'
    with pytest.raises(ValueError, match='no section 0.3.0; expected a heading such as'):
        release_notes['notes'](changelog, '0.3.0')


def test_a_tag_is_the_version_of_both_packages(release_notes):
    version = ElementTree.parse(MANIFESTS[0]).getroot().findtext('version')
    release_notes['check_version'](version)
    with pytest.raises(ValueError, match=f'package.xml states version {version}; expected 9.9.9'):
        release_notes['check_version']('9.9.9')
