"""What the tests of several packages need: a small network, a ROS domain of one's own."""

import array
from collections import deque
import gc
import json
import os
from pathlib import Path
import subprocess
import sys
import threading

from karmma_ros.clip import AudioSpec, ClipSpec, DetectionSpec, FlowSpec, VideoSpec
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.backends.encoder_state import EncoderState
from karmma_ros.model.builder import build
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent / 'helpers'))

from ros_domains import claimed_domain  # noqa: E402

DOMAINS = range(1, 101)


@pytest.fixture
def spec() -> ClipSpec:
    """Return a clip of 4 small frames and one small tile."""
    return ClipSpec(
        duration=1.0, num_frames=4, video=VideoSpec(16, 16), flow=FlowSpec(4.0),
        audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1,
                        tile_steps=100),
        detections=DetectionSpec(3))


@pytest.fixture(scope='session')
def ros_domain():
    """Return the ROS domain of this run of the tests."""
    with claimed_domain(DOMAINS) as domain:
        yield domain


@pytest.fixture(scope='session')
def ros(ros_domain):
    """Return a running rclpy in a domain of its own, for this process and those it starts."""
    os.environ['ROS_DOMAIN_ID'] = str(ros_domain)
    os.environ['ROS_AUTOMATIC_DISCOVERY_RANGE'] = 'LOCALHOST'
    # As Humble always does: refuse fields of a wrong type in the processes that are started.
    os.environ['ROS_PYTHON_CHECK_FIELDS'] = '1'
    import rclpy  # only where ROS is used: every other test runs without it
    rclpy.init()
    yield
    rclpy.try_shutdown()


@pytest.fixture(scope='session')
def node_graph():
    """Return (role, name, type) for every topic and service that docs/node_graph.py finds."""
    with claimed_domain(DOMAINS) as domain:
        run = subprocess.run(
            [sys.executable, Path(__file__).parents[1] / 'docs' / 'node_graph.py'],
            capture_output=True, text=True, timeout=120,
            env={**os.environ, 'ROS_DOMAIN_ID': str(domain)})
    assert run.returncode == 0, run.stderr
    lines = map(json.loads, run.stdout.splitlines())
    return {(line['role'], line['name'], line['type']) for line in lines}


@pytest.fixture
def vocabulary() -> Vocabulary:
    """Return three verbs and four nouns."""
    return Vocabulary({'verb': ('cut', 'stir', 'wash'), 'noun': ('cup', 'pan', 'lid', 'egg')})


def small_config(**changes) -> ModelConfig:
    """Return a network of four modalities, about 30,000 weights."""
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
    """Return the small architecture with learned tokens."""
    return small_config()


@pytest.fixture(params=['tokens', 'omit'])
def network(request, spec, vocabulary):
    """Return the small network in evaluation mode, once for each missing-modality strategy."""
    torch.manual_seed(0)
    return build(small_config(missing=request.param), spec, vocabulary).eval()


@pytest.fixture
def inputs(spec):
    """Return a batch of three random clips with boxes that make sense."""
    generator = torch.Generator().manual_seed(1)
    batch = {
        m: torch.rand(3, *spec.input_shape(m), generator=generator) for m in PAPER_MODALITIES
    }
    boxes = batch[Modality.DETECTIONS]
    boxes[..., 4] = torch.randint(0, 3, boxes.shape[:-1], generator=generator).float()
    return batch


_MARK, _MARKS = 48, 24
"""Bytes of a mark, and marks kept of each kind of data."""
_BUFFERS = (np.ndarray, torch.Tensor, torch.nn.Parameter, array.array, bytes, bytearray)


class Traces:
    """
    Recognise data again wherever this process can still reach it.

    Of each array that is noted some bytes are kept, in a form in which they do not find
    themselves; then every buffer that the garbage collector or a thread can reach is searched.
    """

    def __init__(self) -> None:
        self._marks: dict[str, deque[bytes]] = {}

    def note(self, what: str, data) -> None:
        """Keep marks of an array, a tensor or bytes, the newest; what is constant leaves none."""
        content = _bytes_of(data)
        for start in np.linspace(0, max(len(content) - _MARK, 0), 4).astype(int) // 4 * 4:
            mark = content[start:start + _MARK]
            if len(set(mark)) > 12:
                self._marks.setdefault(what, deque(maxlen=_MARKS)).append(
                    bytes(b ^ 0x5a for b in mark))

    def noted(self) -> set[str]:
        """Return what there are marks of."""
        return set(self._marks)

    def left(self) -> list[str]:
        """Return what is still in memory, by name and where."""
        gc.collect()
        buffers = list(_reachable())
        marks = [(what, bytes(b ^ 0x5a for b in mark))
                 for what, marks in self._marks.items() for mark in marks]
        matches = set()
        for buffer in buffers:
            content = _bytes_of(buffer)
            if len(content) > _MARK:
                matches |= {f'{what} in {type(buffer).__name__} of {len(content)} bytes'
                          for what, mark in marks if mark in content}
        return sorted(matches)


def _reachable():
    """Return each buffer that something refers to, threads included."""
    tracked = gc.get_objects()
    for number, frame in sys._current_frames().items():
        while frame is not None and number != threading.get_ident():
            tracked.append(frame)
            frame = frame.f_back
    yield from (each for each in tracked if type(each) in _BUFFERS)
    seen: set[int] = set()
    while tracked:
        inner = []
        for each in gc.get_referents(*tracked):
            if type(each) in _BUFFERS:
                if id(each) not in seen:
                    seen.add(id(each))
                    yield each
            elif type(each) in (tuple, dict) and not gc.is_tracked(each):
                inner.append(each)  # the collector has no list of these
        tracked = inner


def _bytes_of(data) -> bytes:
    """Return the memory behind a buffer, all of it where this is a view of a part."""
    if isinstance(data, torch.Tensor):
        if data.device.type == 'meta':  # a network that was only counted has shapes, not bytes
            return b''
        storage = data.detach().untyped_storage()
        return torch.empty(0, dtype=torch.uint8).set_(storage).numpy().tobytes()
    while isinstance(data, np.ndarray) and isinstance(data.base, np.ndarray):
        data = data.base
    return data.tobytes() if hasattr(data, 'tobytes') else bytes(data)


@pytest.fixture
def traces():
    """Return something that finds data again in memory."""
    return Traces()


def note_calls(traces, target, names=('infer', 'encode', 'fuse', 'encode_chunk', 'encode_next')):
    """Note all that goes into and comes out of the methods of a backend or of its parts."""
    def noting(name, method):
        def call(*arguments):
            result = method(*arguments)
            _note_all(traces, f'{name} input', arguments)
            if name not in ('infer', 'fuse'):
                _note_all(traces, f'{name} output', result)
            return result
        return call

    for name in names:
        if hasattr(target, name):
            setattr(target, name, noting(name, getattr(target, name)))


def _note_all(traces, what, data):
    if isinstance(data, (np.ndarray, torch.Tensor)):
        traces.note(what, data)
    elif isinstance(data, dict):
        for key, each in data.items():
            _note_all(traces, f'{what} {key}', each)
    elif isinstance(data, (tuple, list)):
        for each in data:
            _note_all(traces, what, each)
    elif isinstance(data, EncoderState):
        _note_all(traces, what, list(data._rings.values()))


@pytest.fixture
def noting(traces):
    """Return a function that notes what a backend computes with."""
    def note(backend):
        note_calls(traces, backend)
        if backend.parts not in (None, backend):
            note_calls(traces, backend.parts)
    return note
