"""What several rooms need: a small network that builds in no time, a ROS domain of one's own."""

from contextlib import contextmanager
import fcntl
import json
import os
from pathlib import Path
import subprocess
import sys
import tempfile

from karmma_ros.clip import AudioSpec, ClipSpec, DetectionSpec, FlowSpec, VideoSpec
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.prediction import Vocabulary
import pytest
import torch


@pytest.fixture
def spec() -> ClipSpec:
    """Give a clip of 4 small frames and one small tile."""
    return ClipSpec(
        duration=1.0, num_frames=4, video=VideoSpec(16, 16), flow=FlowSpec(4.0),
        audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1,
                        tile_steps=100),
        detections=DetectionSpec(3))


@contextmanager
def claimed_domain():
    """Claim a ROS domain that no other run of the tests on this machine has."""
    start = os.getpid() % 100
    for domain in (1 + (start + offset) % 100 for offset in range(100)):
        with (Path(tempfile.gettempdir()) / f'karmma_ros_test_domain_{domain}').open('w') as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                continue
            yield domain
            return
    pytest.fail('every ROS domain is taken by another run of the tests')


@pytest.fixture(scope='session')
def ros_domain():
    """Give the ROS domain of this run of the tests."""
    with claimed_domain() as domain:
        yield domain


@pytest.fixture(scope='session')
def node_graph():
    """Give (kind, name, type) for every topic and service that docs/node_graph.py finds."""
    with claimed_domain() as domain:
        run = subprocess.run(
            [sys.executable, Path(__file__).parents[1] / 'docs' / 'node_graph.py'],
            capture_output=True, text=True, timeout=120,
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
    assert run.returncode == 0, run.stderr
    lines = map(json.loads, run.stdout.splitlines())
    return {(line['kind'], line['name'], line['type']) for line in lines}


@pytest.fixture
def vocabulary() -> Vocabulary:
    """Give three verbs and four nouns."""
    return Vocabulary({'verb': ('cut', 'stir', 'wash'), 'noun': ('cup', 'pan', 'lid', 'egg')})


def small_config(**changes) -> ModelConfig:
    """Give a network of four modalities, about 30,000 weights."""
    values = {
        'preset': 'small',
        'encoders': {
            Modality.RGB: EncoderConfig('r2plus1d', {'widths': [4, 8, 8]}),
            Modality.FLOW: EncoderConfig('r2plus1d', {'widths': [4, 8, 8]}),
            Modality.AUDIO: EncoderConfig('mel_cnn', {'widths': [4, 8]}),
            Modality.DETECTIONS: EncoderConfig(
                'stlt', {'dim': 8, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 1}),
        },
        'dim': 16, 'layers': 1, 'heads': 2, 'feedforward': 16, 'token_cap': 10,
    }
    return ModelConfig(**{**values, **changes})


@pytest.fixture
def config() -> ModelConfig:
    """Give the small architecture with learned tokens."""
    return small_config()


@pytest.fixture(params=['tokens', 'omit'])
def network(request, spec, vocabulary):
    """Give the small network in evaluation mode, once for each missing-modality strategy."""
    torch.manual_seed(0)
    return build(small_config(missing=request.param), spec, vocabulary).eval()


@pytest.fixture
def inputs(spec):
    """Give a batch of three random clips with boxes that make sense."""
    generator = torch.Generator().manual_seed(1)
    batch = {
        m: torch.rand(3, *spec.input_shape(m), generator=generator) for m in Modality
    }
    boxes = batch[Modality.DETECTIONS]
    boxes[..., 4] = torch.randint(0, 3, boxes.shape[:-1], generator=generator).float()
    return batch
