"""OpenVINO, ONNX Runtime and torch.compile: the logits of eager, for every subset."""

import gc
import subprocess
import sys
from threading import Thread
import time
import tracemalloc

from karmma_ros.calibration import Calibration, SubsetCalibration
from karmma_ros.clip import Clip
from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.modality import PAPER_MODALITIES, subset_name, subsets
from karmma_ros.model.backends import choose
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.exported import Exported, Inline, with_threads
from karmma_ros.model.backends.graphs import INPUT, LOGITS, PRESENT, TOKENS
from karmma_ros.model.backends.pytorch import CompiledCPU, Eager
from karmma_ros.stream.recogniser import Recogniser
import numpy as np
import pytest

RUNTIMES = ('openvino', 'onnxruntime')
V, F, A, D = PAPER_MODALITIES


@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('missing', [
    'tokens', 'concatenated', 'omit', 'ensemble', 'pairs', 'single'])
def test_every_subset_is_answered_as_by_eager(exported, missing, runtime):
    bundle = exported(missing)
    backend, eager = choose(bundle, 'cpu', runtime).backend, Eager(bundle.network)
    assert (backend.name, backend.precision, backend.device) == (runtime, 'fp32', 'cpu')
    assert backend.modalities == eager.modalities
    clip = check_clip(bundle.spec, eager.modalities, seed=7)
    for subset in subsets(eager.modalities):
        ours, theirs = (b.infer({m: clip[m] for m in subset}) for b in (backend, eager))
        assert list(ours) == list(theirs) == ['verb', 'noun']
        for head, logits in theirs.items():
            np.testing.assert_allclose(ours[head], logits, atol=1e-4, err_msg=subset_name(subset))


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_a_calibration_is_applied_to_the_logits_of_every_backend(exported, runtime):
    bundle = exported('tokens')
    inputs = {m: x[0] for m, x in check_clip(bundle.spec, [V, A]).items()}
    calibration = Calibration({(V, A): SubsetCalibration({'verb': 0.2}, -99.0),
                               (A,): SubsetCalibration({'noun': 5.0}, 99.0)})
    ours, theirs, plain = (
        Recogniser(backend, bundle.vocabulary, bundle.spec, calibration=each)
        for backend, each in ((choose(bundle, 'cpu', runtime).backend, calibration),
                              (bundle.network, calibration), (bundle.network, Calibration())))
    for subset, head in (((V, A), 'verb'), ((A,), 'noun')):
        a, b, c = (r.recognise(Clip(inputs), subset) for r in (ours, theirs, plain))
        np.testing.assert_allclose(a.probabilities[head], b.probabilities[head], atol=1e-3)
        assert not np.allclose(b.probabilities[head], c.probabilities[head], atol=1e-3)
        assert a.unknown_score == pytest.approx(b.unknown_score, abs=1e-3)
        assert a.is_unknown == b.is_unknown == (subset == (V, A)) and not c.is_unknown


@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('missing', ['tokens', 'concatenated', 'omit'])
def test_every_backend_leaves_one_out(exported, runtime, missing):
    bundle = exported(missing)
    clip = Clip({m: x[0] for m, x in check_clip(bundle.spec, bundle.network.modalities).items()})
    ours, eager = (
        Recogniser(backend, bundle.vocabulary, bundle.spec) for backend in (
            choose(bundle, 'cpu', runtime).backend, bundle.network))
    complete = ours.recognise(clip, leave_one_out=True)
    assert len(complete.without) == len(bundle.network.modalities)
    for modality, without in {None: complete, **complete.without}.items():
        expected = eager.recognise(clip, [m for m in clip.modalities if m != modality])
        for head, scores in expected.probabilities.items():
            np.testing.assert_allclose(without.probabilities[head], scores, atol=1e-4)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_tokens_are_encoded_once_and_fused_often(exported, runtime):
    bundle = exported('tokens')
    backend, eager = choose(bundle, 'cpu', runtime).backend, Eager(bundle.network)
    first, second = (check_clip(bundle.spec, [V, A], seed) for seed in (1, 2))
    tokens = {m: backend.encode(m, x) for m, x in first.items()}
    for m, x in second.items():
        backend.encode(m, x)  # what was given before is not overwritten by it
    for subset in ([V, A], [A], [V]):
        ours = backend.fuse({m: tokens[m] for m in subset})
        theirs = eager.infer({m: first[m] for m in subset})
        np.testing.assert_allclose(ours['verb'], theirs['verb'], atol=1e-4)


@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('missing', ['tokens', 'omit'])
def test_logits_do_not_depend_on_earlier_clips(exported, missing, runtime):
    bundle = exported(missing)
    backend = choose(bundle, 'cpu', runtime).backend
    clip = check_clip(bundle.spec, bundle.network.modalities)
    before = backend.infer({A: clip[A]})
    backend.infer({**clip, F: np.full_like(clip[F], np.nan)})
    after = backend.infer({A: clip[A]})
    np.testing.assert_array_equal(before['noun'], after['noun'])


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_a_clip_of_another_shape_is_refused(exported, runtime):
    backend = choose(exported('single'), 'cpu', runtime).backend
    with pytest.raises(InvalidSettingError, match=r'inputs.audio is \[1, 1, 1, 1\]; expected an'):
        backend.infer({A: np.zeros((1, 1, 1, 1), np.float32)})


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_memory_does_not_grow_with_the_windows(exported, runtime):
    bundle = exported('tokens')
    recogniser = Recogniser(choose(bundle, 'cpu', runtime).backend, bundle.vocabulary, bundle.spec)
    clip = Clip({m: x[0] for m, x in check_clip(bundle.spec, recogniser.modalities).items()})
    buffers = {id(g.outputs[TOKENS]) for g in recogniser.backend._encoders.values()}
    for _ in range(20):
        recogniser.recognise(clip)
    tracemalloc.start()
    recogniser.recognise(clip)
    gc.collect()
    before = tracemalloc.get_traced_memory()[0]
    for _ in range(200):
        recogniser.recognise(clip)
    gc.collect()
    after = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert after - before < 20_000  # an input alone has more
    assert {id(g.outputs[TOKENS]) for g in recogniser.backend._encoders.values()} == buffers


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_it_is_loaded_in_one_thread_and_used_in_another(exported, runtime):
    """As the node does, which loads a model beside the worker."""
    bundle, backends, logits = exported('tokens'), [], []
    clip = check_clip(bundle.spec, bundle.network.modalities)
    for work in (lambda: backends.append(choose(bundle, 'cpu', runtime).backend),
                 lambda: logits.append(backends[0].infer(clip))):
        thread = Thread(target=work)
        thread.start()
        thread.join()
    np.testing.assert_allclose(
        logits[0]['verb'], Eager(bundle.network).infer(clip)['verb'], atol=1e-4)


def test_compiled_equals_eager(exported):
    bundle = exported('single')
    backend, reason = choose(bundle, 'cpu', 'compiled')
    assert isinstance(backend, CompiledCPU) and 'compiled' in reason
    clip = check_clip(bundle.spec, [A], seed=3)
    np.testing.assert_allclose(
        backend.infer(clip)['noun'], Eager(bundle.network).infer(clip)['noun'], atol=1e-4)


class Recorded:
    """A graph that notes when it is started and waited for."""

    def __init__(self, name, log, inputs, outputs):
        self.name, self.log = name, log
        self.inputs = {k: np.zeros(shape, np.float32) for k, shape in inputs.items()}
        self.outputs = {k: np.zeros(shape, np.float32) for k, shape in outputs.items()}

    def start(self):
        self.log.append(f'start {self.name}')

    def wait(self):
        self.log.append(f'wait {self.name}')

    def run(self):
        self.log.append(f'run {self.name}')


def test_encoders_overlap_and_that_of_an_absent_modality_never_runs():
    log = []
    encoders = {m: Recorded(m.letter, log, {INPUT: (1, 2)}, {TOKENS: (1, 3, 4)})
                for m in (V, F, A)}
    fusion = Recorded('fusion', log, {PRESENT: (1, 3), **{m: (1, 3, 4) for m in (V, F, A)}},
                      {f'{LOGITS}verb': (1, 2)})
    backend = Exported('recorded', 'fp32', encoders, fusion)
    backend.infer({V: np.ones((1, 2), np.float32), A: np.ones((1, 2), np.float32)})
    assert log == ['start V', 'start A', 'wait A', 'wait V', 'run fusion']
    assert fusion.inputs[PRESENT].tolist() == [[1, 0, 1]]


def test_a_small_encoder_runs_in_our_thread_while_the_large_ones_run_in_theirs():
    log = []
    encoders = {m: Recorded(m.letter, log, {INPUT: (1, 2)}, {TOKENS: (1, 3, 4)})
                for m in (V, F, A)}
    encoders[V] = Inline(encoders[V])
    fusion = Recorded('fusion', log, {m: (1, 3, 4) for m in (V, F, A)}, {f'{LOGITS}verb': (1, 2)})
    Exported('recorded', 'fp32', encoders, fusion).infer(
        {m: np.ones((1, 2), np.float32) for m in (V, F, A)})
    assert log == ['start F', 'start A', 'run V', 'wait A', 'wait F', 'run fusion']


def test_only_a_graph_that_takes_long_gets_several_threads():
    tried = []

    class Timed(Recorded):
        def run(self):
            time.sleep(self.seconds)

    def make(seconds, threads):
        tried.append(threads)
        graph = Timed('timed', [], {}, {})
        graph.seconds = seconds
        return graph

    assert isinstance(with_threads(lambda n: make(0.0, n), 4), Inline) and tried == [1]
    assert isinstance(with_threads(lambda n: make(0.02, n), 4), Timed) and tried == [1, 1, 4]
    assert isinstance(with_threads(lambda n: make(0.02, n), 1), Timed) and tried == [1, 1, 4, 1]


def replace_graph(bundle, runtime, content):
    folder = bundle.path / 'exports' / f'{runtime}_fp32'
    for path in folder.glob('audio.*'):
        path.write_bytes(content)


@pytest.mark.parametrize('runtime', RUNTIMES)
@pytest.mark.parametrize('content', [b'', b'no graph', b'<?xml version="1.0"?><net/>'])
def test_a_damaged_graph_is_named_with_its_remedy(copied, runtime, content):
    replace_graph(copied, runtime, content)
    with pytest.raises(BundleError, match='audio.*cannot be run.*karmma export MODEL --to'):
        choose(copied, 'cpu', runtime)


@pytest.mark.parametrize('runtime', RUNTIMES)
def test_a_missing_graph_is_named(copied, runtime):
    for path in (copied.path / 'exports' / f'{runtime}_fp32').glob('fusion.*'):
        path.unlink()
    with pytest.raises(BundleError, match='fusion.* is missing, or no regular file'):
        choose(copied, 'cpu', runtime)


def test_a_signal_after_a_model_was_replaced_in_another_thread_is_handled(exported):
    code = (
        'import gc, signal, sys, threading; from karmma_ros.model.bundle import load_bundle;'
        'from karmma_ros.model.backends import choose; b = load_bundle(sys.argv[1]);'
        'backends = [choose(b, "cpu", "openvino")]; seen = [];'
        'signal.signal(signal.SIGINT, lambda *_: seen.append(1));'
        't = threading.Thread(target=lambda: (backends.clear(), gc.collect())); t.start();'
        't.join(); signal.raise_signal(signal.SIGINT);'
        'assert seen')
    done = subprocess.run([sys.executable, '-c', code, str(exported('single').path)],
                          capture_output=True, text=True)
    assert done.returncode == 0, (done.returncode, done.stderr)
