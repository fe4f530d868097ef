"""The example of a modality of one's own, installed into a folder of its own."""

from __future__ import annotations

import json
import os
from pathlib import Path
import re
import shutil
import subprocess
import sys

from karmma_ros.cli.main import main
from karmma_ros.errors import BundleError
from karmma_ros.modality import ENTRY_POINTS, registered_types
from karmma_ros.model.bundle import load_bundle
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[1]
EXAMPLE = ROOT / 'docs' / 'examples' / 'gaze_modality'
STREAM = """
import json
from pathlib import Path
import sys

import numpy as np
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.media.sources import SharedFrames, SourceOptions
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality, registered_types, subset_name
from modality_rig import header, ModalityRig, recorded, STORE, T0_NS

TYPE = 'geometry_msgs/msg/PointStamped'
folder, = sys.argv[1:]
spec = ClipSpec(duration=1.0, num_frames=8, inputs={'gaze': {'samples': 16, 'unit': 0.5}})
gaze = Modality('gaze')
own = modality_type(gaze)
rig = ModalityRig(spec, 'gaze', gaze__scale=0.001)
points = np.loadtxt(f'{folder}/gaze.csv', delimiter=',', skiprows=1)
problems = set()
for time, *xyz in points:
    stamp_ns = T0_NS + round(time * NANOSECONDS)
    rig.now_ns = stamp_ns
    millimetres = STORE.types['geometry_msgs/msg/Point'](*(1000 * each for each in xyz))
    problems.add(rig.take('gaze', TYPE, recorded(
        TYPE, STORE.types[TYPE](header(stamp_ns), millimetres))))
unseen = STORE.types['geometry_msgs/msg/Point'](float('nan'), 0.0, 0.0)
refused = rig.take('gaze', TYPE, recorded(TYPE, STORE.types[TYPE](header(1), unseen)))
live = rig.stream.window(rig.now_ns).clip().inputs[gaze]
source = own.open_source(Path(folder, 'gaze.csv'), SourceOptions(clip=spec))
frames = SharedFrames()
window = own.read_window(source, points[-1, 0] - spec.duration, spec, frames)
np.savez(f'{folder}/windows.npz', live=live, recorded=own.prepare(window, spec))
print(json.dumps({
    'last': list(registered_types())[-1], 'letters': subset_name([gaze, Modality.RGB]),
    'problems': sorted(problems), 'refused': refused, 'topic': own.topic_name,
    'available': rig.available}))
"""
TRAIN = """
import sys
from karmma_ros.cli.main import main
from karmma_ros.model.bundle import load_bundle

*arguments, out = sys.argv[1:]
assert main(['train', 'student', *arguments, '--out', out]) == 0
assert main(['export', out, '--to', 'onnx']) == 0
bundle = load_bundle(out)
print([str(m) for m in bundle.network.modalities], bundle.spec.inputs)
"""


def run(installed, code, *arguments):
    """Run code where the example is installed."""
    path = os.pathsep.join(map(str, (installed, ROOT, ROOT / 'test' / 'helpers',
                                     *filter(None, [os.environ.get('PYTHONPATH')]))))
    done = subprocess.run([sys.executable, '-c', code, *map(str, arguments)], text=True,
                          capture_output=True, env={**os.environ, 'PYTHONPATH': path})
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout


@pytest.fixture(scope='module')
def installed(tmp_path_factory):
    """Install the example as its page states, but without a network and into a folder."""
    folder = tmp_path_factory.mktemp('own')
    shutil.copytree(EXAMPLE, folder / 'source')
    subprocess.run(
        [sys.executable, '-m', 'pip', 'install', '--quiet', '--no-deps', '--no-build-isolation',
         '--no-index', '--target', folder / 'installed', folder / 'source'], check=True)
    return folder / 'installed'


@pytest.fixture(scope='module')
def recordings(tmp_path_factory):
    """Write gaze of 3 s, a manifest of two actions, and the example's configuration."""
    folder = tmp_path_factory.mktemp('recordings')
    rng = np.random.default_rng(0)
    times = np.arange(0, 3.01, 1 / 60)
    for name in ('gaze', 'read', 'search'):
        points = rng.normal(0, 0.01 if name == 'read' else 0.3, (len(times), 3))
        np.savetxt(folder / f'{name}.csv', np.column_stack([times, points]), delimiter=',',
                   header='time,x,y,z', comments='', fmt='%.6f')
    lines = [f'{split},{start},{start + 2},{action},{action}.csv' for action in ('read', 'search')
             for split, start in [*(('train', i / 8) for i in range(8)), ('test', 1)]]
    (folder / 'segments.csv').write_text('\n'.join(['split,start,stop,action,gaze', *lines]))
    shutil.copy(EXAMPLE / 'train.yaml', folder)
    return folder


def test_its_messages_are_read_as_its_files_are(installed, recordings):
    result = json.loads(run(installed, STREAM, recordings))
    assert (result['last'], result['letters'], result['topic']) == ('gaze', 'V+G', 'gaze')
    assert result['problems'] == [''] and result['available'] == 'G'
    assert 'gaze: got NaN or infinity; expected finite numbers' in result['refused']
    windows = np.load(recordings / 'windows.npz')
    assert windows['live'].shape == (6, 16)
    np.testing.assert_allclose(windows['live'], windows['recorded'], atol=2e-5)


def test_a_model_of_it_is_trained_and_needs_the_package(
    installed, recordings, tmp_path, monkeypatch,
):
    out = tmp_path / 'gaze'
    printed = run(installed, TRAIN, '--config', recordings / 'train.yaml',
                  '--data.manifest.file', recordings / 'segments.csv', '--run.epochs', 1, out)
    assert "['gaze']" in printed and 'GazeSpec(samples=32' in printed
    assert 'gaze' not in registered_types()
    with pytest.raises(BundleError, match=f"'gaze'; expected .* an entry point {ENTRY_POINTS}"):
        load_bundle(out)
    assert main(['export', str(out), '--to', 'onnx']) != 0


def test_the_example_is_short_and_its_page_is_right():
    page = (EXAMPLE / 'README.md').read_text(encoding='utf-8')
    code = (EXAMPLE / 'gaze_modality.py').read_text(encoding='utf-8')
    assert len(page.splitlines()) <= 20 and len(code.splitlines()) <= 80
    package = (EXAMPLE / 'pyproject.toml').read_text(encoding='utf-8')
    assert f"[project.entry-points.'{ENTRY_POINTS}']\ngaze = 'gaze_modality:Gaze'\n" in package
    assert '--config train.yaml' in page and (EXAMPLE / 'train.yaml').is_file()
    assert set(re.findall(r'`gaze\.(\w+)`', page)) == {'enabled', 'scale'}
