"""Which package may import which, module names that are unique: every file is checked."""

from __future__ import annotations

import ast
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
import subprocess
import sys

import pytest

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / 'karmma_ros'
NOUNS = frozenset({'calibration', 'modality', 'errors', 'clip', 'prediction', 'files', 'storage'})

TABLE = {
    'nouns': {'nouns'},
    'cluster': {'nouns'},
    'preprocess': {'nouns'},
    'media': {'nouns', 'preprocess'},
    'modalities': {'nouns', 'preprocess', 'media'},
    'model': {'nouns', 'modalities'},
    'data': {'nouns', 'cluster', 'preprocess', 'media', 'modalities'},
    'training': {'nouns', 'modalities', 'model', 'data'},
    'stream': {'nouns', 'modalities', 'model'},
    'evaluation': {'nouns', 'media', 'model', 'data', 'stream'},
    'bags': {
        'nouns', 'cluster', 'preprocess', 'media', 'modalities', 'model', 'stream', 'evaluation',
        'data.labels', 'data.recordings',
    },
    'labelling': {
        'nouns', 'preprocess', 'media', 'modalities', 'model', 'stream', 'evaluation', 'data',
        'bags',
    },
    'reproduce': {'nouns', 'cluster', 'model', 'data', 'training', 'evaluation'},
    'cli': {
        'nouns',
        'cluster',
        'preprocess',
        'media',
        'modalities',
        'model',
        'data',
        'training',
        'stream',
        'evaluation',
        'bags',
        'labelling',
        'reproduce',
    },
    'node': {
        'nouns',
        'modalities',
        'stream',
        'model.bundle',
        'model.backends',
        'model.registry',
        'bags.corrupted_messages',
        'bags.faults',
        'bags.reader',
    },
    'overlay': {'nouns', 'modalities', 'stream', 'preprocess', 'node'},
}
"""Package → packages, or single modules of a package, that it may import besides itself."""

ROS = frozenset({
    'ament_index_python', 'builtin_interfaces', 'cv_bridge', 'launch', 'launch_ros',
    'message_filters', 'rclpy', 'rosidl_runtime_py', 'tf2_ros',
})
NOUN_LIBRARIES = frozenset({'numpy', 'filelock'})
"""What the nouns may import besides the standard library."""


def imported_modules(source: str, package: str) -> Iterator[tuple[int, str]]:
    """Return line and full name of every module that `source`, inside `package`, imports."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            base = node.module or ''
            if node.level:
                parents = package.split('.')[:len(package.split('.')) - node.level + 1]
                base = '.'.join([*parents, base] if base else parents)
            # `from karmma_ros import clip` names a module; `from karmma_ros.clip import Clip` not.
            yield from ((node.lineno, f'{base}.{alias.name}') for alias in node.names)
        elif isinstance(node, ast.Call) and _is_import_call(node):
            yield node.lineno, node.args[0].value  # type: ignore[attr-defined]


def _is_import_call(node: ast.Call) -> bool:
    name = getattr(node.func, 'attr', getattr(node.func, 'id', ''))
    literal = node.args and isinstance(node.args[0], ast.Constant)
    return bool(name in ('import_module', '__import__') and literal
                and isinstance(node.args[0].value, str))  # type: ignore[attr-defined]


def package_of(module: str) -> str:
    """Return the subpackage of a module; modules of karmma_ros itself count as nouns."""
    second = module.split('.')[1] if '.' in module else ''
    return second if second in TABLE and second != 'nouns' else 'nouns'


def is_ros(module: str) -> bool:
    """Return whether a module belongs to ROS: its libraries and every message package."""
    top = module.split('.')[0]
    return top in ROS or top.endswith(('_msgs', '_interfaces', '_srvs'))


def import_violation(package: str, module: str) -> str | None:
    """Return what is wrong with an import of `module` in `package`, None if it is allowed."""
    top = module.split('.')[0]
    if top == 'karmma_ros':
        target = package_of(module)
        single = any(f'{module}.'.startswith(f'karmma_ros.{name}.') for name in TABLE[package])
        if target != package and target not in TABLE[package] and not single:
            return f'{package} may not import {target} ({module})'
    elif is_ros(module):
        return None if package in ('node', 'overlay') else f'only node may import ROS ({module})'
    elif package == 'nouns' and top not in sys.stdlib_module_names | NOUN_LIBRARIES:
        return f'the shared nouns may import numpy and filelock only ({module})'
    elif package == 'preprocess' and top in ('torch', 'torchvision'):
        return f'preprocess runs without torch ({module})'
    elif top == 'ray' and package != 'cluster':
        return f'only cluster may import Ray ({module})'
    return None


def import_violations(package: Path) -> tuple[list[Path], list[str]]:
    """Return the files below `package` that were read, and every import that is not allowed."""
    files = sorted(package.rglob('*.py'))
    problems = []
    for path in files:
        parts = path.relative_to(package.parent).with_suffix('').parts
        subpackage = package_of('.'.join(parts))
        for line, module in imported_modules(path.read_text(), '.'.join(parts[:-1])):
            problem = import_violation(subpackage, module)
            if problem:
                problems.append(f'{path.relative_to(package.parent)}:{line}: {problem}')
    return files, problems


def test_imports_keep_to_the_table():
    files, problems = import_violations(PACKAGE)
    assert {package_of('.'.join(f.relative_to(ROOT).with_suffix('').parts)) for f in files} \
        == set(TABLE), 'the packages of the table are not those of karmma_ros'
    assert not problems, '\n'.join(problems)


def test_the_table_has_every_package():
    folders = {path.name for path in PACKAGE.iterdir() if any(path.glob('*.py'))}
    modules = {path.stem for path in PACKAGE.glob('*.py')} - {'__init__'}
    assert folders == set(TABLE) - {'nouns'}
    assert modules == NOUNS


@pytest.mark.parametrize('file, source, expected', [
    ('stream/window.py', 'import rclpy', 'only node may import ROS'),
    ('stream/window.py', 'from karmma_msgs.msg import ModelInfo', 'only node may import ROS'),
    ('data/bag.py', 'import importlib\nimportlib.import_module("std_msgs.msg")', 'only node'),
    ('evaluation/score.py', 'def late():\n    from karmma_ros.node import worker', 'node'),
    ('preprocess/resize.py', 'from ..model import karmma', 'preprocess may not import model'),
    ('preprocess/resize.py', 'from karmma_ros import stream', 'preprocess may not import stream'),
    ('preprocess/resize.py', 'import torch.nn', 'without torch'),
    ('node/worker.py', 'from karmma_ros.model.karmma import Karmma', 'node may not import model'),
    ('clip.py', 'import cv2', 'numpy and filelock only'),
    ('bags/parallel.py', 'def late():\n    import ray', 'only cluster may import Ray'),
    ('clip.py', 'import karmma_ros.data.samples', 'nouns may not import data'),
])
def test_a_planted_violation_is_detected(tmp_path, file, source, expected):
    path = tmp_path / 'karmma_ros' / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    files, problems = import_violations(tmp_path / 'karmma_ros')
    assert files == [path]
    assert len(problems) == 1 and expected in problems[0], problems


@pytest.mark.parametrize('file, source', [
    ('node/worker.py', 'import rclpy\nfrom karmma_ros.model.bundle import load_bundle'),
    ('node/worker.py',
     'from karmma_ros.stream.sensor_stream import SensorStream\nfrom . import inputs'),
    ('clip.py', 'from karmma_ros.modality import Modality\nimport numpy as np\nimport enum'),
    ('data/batch.py', 'from karmma_ros.preprocess import video\nimport torch'),
])
def test_what_the_table_allows_passes(tmp_path, file, source):
    path = tmp_path / 'karmma_ros' / file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(source)
    assert import_violations(tmp_path / 'karmma_ros') == ([path], [])


SAME_NAME_ALLOWED = {
    'evaluate': 'the commands, and what `karmma bag evaluate` runs',
    'compare': 'the command, and what it runs',
    'export': 'the command, and what it runs',
    'replay': 'the command of the player, and the replay of a bag in evaluation',
}
"""Module name → why it occurs more than once."""


def test_names_of_modules_and_public_classes_are_unique():
    modules, classes = defaultdict(list), defaultdict(list)
    for path in sorted(PACKAGE.rglob('*.py')):
        name = path.relative_to(ROOT).as_posix()
        if not path.stem.startswith('__'):
            modules[path.stem].append(name)
        for node in ast.walk(ast.parse(path.read_text())):
            if isinstance(node, ast.ClassDef) and not node.name.startswith('_'):
                classes[node.name].append(name)
    repeated = {name: paths for name, paths in modules.items()
                if len(paths) > 1 and name not in SAME_NAME_ALLOWED}
    repeated |= {name: paths for name, paths in classes.items() if len(paths) > 1}
    assert not repeated, f'one name, one module or class; rename: {repeated}'
    assert len(modules) > 100 and len(classes) > 200


def test_importing_the_package_loads_neither_torch_nor_ros():
    script = 'import sys, karmma_ros; print(*sorted({m.split(".")[0] for m in sys.modules}))'
    loaded = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True,
                            check=True, cwd=ROOT).stdout.split()
    assert 'karmma_ros' in loaded
    assert not {'torch', 'rclpy', 'cv2'} & set(loaded)


def test_the_types_of_modalities_load_no_reader_of_recordings():
    script = """
import sys
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality, registered_types
for name in registered_types():
    modality_type(Modality(name))
print(*sys.modules)
"""
    loaded = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True,
                            check=True, cwd=ROOT).stdout.split()
    assert 'karmma_ros.modalities.rgb' in loaded
    assert not {'karmma_ros.media', 'torch', 'av', 'h5py', 'soundfile'} & set(loaded)
