"""The backend that is selected, and its reason."""

import json
import os
import shutil
import subprocess
import sys

from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.backends import choose, selection
from karmma_ros.model.backends.agreement import check_clip, difference, TOLERANCE
from karmma_ros.model.backends.exports import find_exports, read_eager_logits
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.bundle import load_bundle, save_bundle
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import save_file
import torch

A = Modality.AUDIO


class Clock:
    """Time that advances only when a test does: the load of the machine does not matter."""

    now = 0.0

    def perf_counter(self):
        return self.now


class Fake:
    """Eager that takes a given time, or is slightly wrong."""

    name, device = 'openvino', 'cpu'

    parts = None

    def __init__(self, bundle, clock, precision='fp32', seconds=0.001, off=0.0):
        self.eager, self.clock, self.precision, self.seconds, self.off = (
            Eager(bundle.network), clock, precision, seconds, off)
        self.modalities = self.eager.modalities

    def infer(self, inputs):
        self.clock.now += self.seconds
        return self.eager.infer(inputs)

    def encode(self, modality, x):
        return self.eager.encode(modality, x)

    def fuse(self, tokens):
        logits = self.eager.fuse(tokens)
        return {h: x + self.off * np.ptp(x) * (np.arange(len(x)) == 0)
                for h, x in logits.items()}


@pytest.fixture
def candidates(exported, monkeypatch):
    """Let `choose` find these instead of what is exported: label → arguments of `Fake`."""
    bundle, clock = exported('single'), Clock()

    class SlowEager(Eager):
        def infer(self, inputs):
            clock.now += 0.02
            return super().infer(inputs)

    def offer(**fakes):
        built = {label: lambda options=options: Fake(bundle, clock, **options)
                 for label, options in fakes.items()}
        monkeypatch.setattr(selection, 'time', clock)
        monkeypatch.setattr(selection, '_candidates', lambda *_: (built, []))
        monkeypatch.setattr(selection, 'Eager', lambda *_: SlowEager(bundle.network))
        return bundle

    return offer


def test_auto_takes_the_fastest_that_agrees(candidates):
    bundle = candidates(slow={'seconds': 0.01}, quick={}, wrong={'off': 0.1})
    backend, reason = choose(bundle)
    assert isinstance(backend, Fake) and backend.seconds == 0.001 and backend.off == 0.0
    assert reason.startswith('quick ')
    assert 'eager 20.0 ms' in reason and 'slow 10.0 ms' in reason
    assert 'wrong' in reason and 'differs by 10.00% (0.2% allowed): not used' in reason


def test_auto_stays_with_eager_when_nothing_is_faster(candidates):
    backend, reason = choose(candidates(slow={'seconds': 0.05}))
    assert isinstance(backend, Eager)
    assert reason.startswith('eager 20.0 ms: the fastest; slow 50.0 ms')


def test_a_lower_precision_may_differ_more(candidates):
    off = (TOLERANCE['fp32'] + TOLERANCE['bf16']) / 2
    backend, _ = choose(candidates(full={'off': off}, half={'precision': 'bf16', 'off': off}))
    assert backend.precision == 'bf16'


def test_a_requested_backend_that_disagrees_is_refused(candidates):
    with pytest.raises(BundleError, match='wrong .* differs by 50.00% .*: not used: export it '):
        choose(candidates(wrong={'off': 0.5}), 'cpu', 'openvino')


def test_auto_takes_what_lies_in_the_directory(exported):
    backend, reason = choose(exported('single'))
    assert 'eager' in reason and 'openvino fp32' in reason and 'onnxruntime fp32' in reason
    assert backend.name in reason.split(' ms')[0]


def test_the_eager_logits_of_a_large_network_come_with_the_export(exported, monkeypatch):
    monkeypatch.setattr(selection, 'LARGE', 0)

    def run(*_):
        raise AssertionError('eager was run')
    monkeypatch.setattr(Eager, 'encode', run)
    monkeypatch.setattr(Eager, 'infer', run)
    backend, reason = choose(exported('single'))
    assert backend.name != 'eager' and 'differs by 0.00%' in reason and 'eager not timed' in reason


def replaced_by(make):
    def damage(path):
        path.unlink()
        make(path)

    return damage


def change_logits(change):
    """Rewrite eager.safetensors after `change` has altered its tensors."""
    def damage(path):
        with safe_open(path, framework='np') as file:
            tensors = {key: file.get_tensor(key) for key in file.keys()}
            metadata = file.metadata()
        change(tensors)
        save_file(tensors, path, metadata)

    return damage


@pytest.mark.timeout(60)
@pytest.mark.parametrize('damage', [
    lambda path: path.unlink(), lambda path: path.write_bytes(b'no tensors'),
    replaced_by(os.mkfifo), replaced_by(lambda path: path.symlink_to('/dev/zero')),
    lambda path: os.truncate(path, 10**10),
    change_logits(lambda tensors: tensors.clear()),
    change_logits(lambda tensors: tensors.pop('audio/verb')),
    change_logits(lambda tensors: tensors.update({'rgb/verb': np.zeros(3, np.float32)})),
    change_logits(lambda tensors: tensors['audio/verb'].fill(np.nan)),
])
def test_without_its_logits_eager_is_run(exported, tmp_path, monkeypatch, damage):
    monkeypatch.setattr(selection, 'LARGE', 0)
    path = tmp_path / 'model'
    shutil.copytree(exported('single').path, path)
    for file in path.glob('exports/*/eager.safetensors'):
        damage(file)
    backend, reason = choose(load_bundle(path))
    assert 'eager not timed' not in reason and 'eager' in reason


def test_a_robot_keeps_the_weights_of_one_runtime_only(copied, monkeypatch):
    """Those of a large network's encoders are gone before another reads its own."""
    monkeypatch.setattr(selection, 'LARGE', 0)
    clip, gone = check_clip(copied.spec, copied.network.modalities), []
    wanted, read = Eager(copied.network).infer(clip), selection.read_export

    def watched(bundle, export):
        gone.append(all(weights.is_meta for weights in bundle.network.encoders.parameters()))
        return read(bundle, export)
    monkeypatch.setattr(selection, 'read_export', watched)
    backend, _ = choose(copied, keep_weights=False)
    assert backend.name != 'eager' and gone == [True, True]
    assert all(weights.is_meta for weights in copied.network.parameters())
    assert difference({(): backend.infer(clip)}, {(): wanted}) < TOLERANCE[backend.precision]


def test_eager_gets_back_what_was_let_go_for_exports_in_vain(copied, monkeypatch):
    monkeypatch.setattr(selection, 'LARGE', 0)
    clip = check_clip(copied.spec, copied.network.modalities)
    wanted = Eager(copied.network).infer(clip)
    for graph in copied.path.glob('exports/*/fusion.*'):
        graph.write_bytes(b'no graph')
    backend, reason = choose(copied, keep_weights=False)
    assert reason.startswith('eager not timed, nothing else can be used; ')
    assert difference({(): backend.infer(clip)}, {(): wanted}) == 0.0


def test_weights_written_meanwhile_are_not_taken_for_the_ones_that_were_read(
        copied, monkeypatch):
    monkeypatch.setattr(selection, 'LARGE', 0)
    others = load_bundle(copied.path)

    def write_others(bundle, export):
        with torch.no_grad():
            others.network.fusion.cls.add_(1.0)
        save_bundle(copied.path, others.network, others.config, others.spec, others.vocabulary,
                    dataset='random', card='')
        raise BundleError(export.folder, 'cannot be run', 'write it again')
    monkeypatch.setattr(selection, 'read_export', write_others)
    with pytest.raises(BundleError, match='has changed while it was being loaded: load it again'):
        choose(copied, keep_weights=False)


@pytest.mark.timeout(60)
@pytest.mark.parametrize('name', ['export.json', 'audio.xml', 'audio.bin', 'audio.onnx'])
@pytest.mark.parametrize('make', [
    os.mkfifo, lambda path: path.symlink_to('/dev/zero'), lambda path: path.symlink_to(path)])
def test_no_pipe_or_device_in_an_export_is_waited_for(copied, name, make):
    for path in copied.path.glob(f'exports/*/{name}'):
        replaced_by(make)(path)
    reason = choose(copied).reason
    if name == 'export.json':
        assert reason.startswith('eager')
    else:
        assert f'{name} is missing, or no regular file' in reason


def test_the_digest_of_an_export_does_not_wait_for_a_pipe(copied):
    export = find_exports(copied)[0][0]
    assert len(export.sha256) == 64
    os.mkfifo(export.folder / 'more')
    with pytest.raises(BundleError, match='more: cannot be read .it is a pipe'):
        export.sha256


def test_logits_of_another_clip_are_not_used(exported):
    bundle = exported('single')
    export = find_exports(bundle)[0][0]
    assert read_eager_logits(export, check_clip(bundle.spec, bundle.network.modalities))
    other = check_clip(bundle.spec, bundle.network.modalities, seed=1)
    assert read_eager_logits(export, other) is None


def test_without_an_export_auto_is_eager_at_once(exported, tmp_path):
    bundle = resaved(exported('single'), tmp_path)
    backend, reason = choose(bundle)
    assert backend.name == 'eager'
    assert reason == 'eager: nothing faster is exported (karmma export MODEL --to openvino)'


def resaved(bundle, path, change=None):
    """Write a model directory again, over what is there."""
    network = bundle.network
    if change is not None:
        with torch.no_grad():
            change(network)
    save_bundle(path, network, bundle.config, bundle.spec, bundle.vocabulary, dataset='', card='')
    return load_bundle(path)


def test_an_export_of_other_weights_is_stale(copied):
    bundle = resaved(copied, copied.path, lambda n: n.fusion.cls.add_(1.0))
    backend, reason = choose(bundle)
    assert backend.name == 'eager' and reason.count('was made from other weights') == 2
    with pytest.raises(BundleError, match='other weights.*karmma export .* --to openvino'):
        choose(bundle, 'cpu', 'openvino')


def test_an_export_of_another_configuration_is_stale(copied):
    config = copied.path / 'config.json'
    description = json.loads(config.read_text())
    description['clip']['audio']['mean'] = -20.0
    config.write_text(json.dumps(description))
    assert choose(load_bundle(copied.path)).backend.name == 'eager'
    description['clip']['audio']['mean'] = -28.1125
    config.write_text(json.dumps(description))
    assert choose(load_bundle(copied.path)).reason.count('other') == 0


@pytest.mark.parametrize('text', ['', '[]', '{', '[' * 100_000, '{"runtime": []}',
                                  '{"runtime": "numpy", "precision": "fp32"}'])
def test_a_damaged_description_is_reported_and_skipped(copied, text):
    (copied.path / 'exports' / 'onnxruntime_fp32' / 'export.json').write_text(text)
    backend, reason = choose(copied)
    assert 'onnxruntime_fp32/export.json: cannot be read' in reason
    assert 'openvino' in reason


def test_graphs_with_other_logits_are_refused(exported, copied):
    """An export may claim any weights; its logits are checked."""
    other = resaved(copied, copied.path, lambda n: n.fusion.cls.normal_(std=3.0))
    for runtime in ('openvino', 'onnxruntime'):
        path = copied.path / 'exports' / f'{runtime}_fp32' / 'export.json'
        description = json.loads(path.read_text())
        path.write_text(json.dumps({**description, 'weights_sha256': other.sha256}))
        with pytest.raises(BundleError, match='differs by'):
            choose(other, 'cpu', runtime)
    assert choose(other).backend.name == 'eager'


@pytest.mark.parametrize(('wanted', 'device', 'text'), [
    ('tensorrt', 'cpu', "backend is 'tensorrt'; expected auto, eager, compiled, onnxruntime, op"),
    ('openvino', 'cuda:0', "'openvino'; expected eager or compiled on cuda:0: .*device to cpu"),
])
def test_a_wrong_request_is_named(exported, wanted, device, text, monkeypatch):
    monkeypatch.setattr(torch.nn.Module, 'to', lambda module, device: module)
    with pytest.raises(InvalidSettingError, match=text):
        choose(exported('single'), device, wanted)


def test_an_export_that_does_not_exist_is_named_with_the_command(exported, tmp_path):
    bundle = resaved(exported('single'), tmp_path)
    with pytest.raises(BundleError, match=f'for openvino: karmma export {tmp_path} --to openvino'):
        choose(bundle, 'cpu', 'openvino')


@pytest.mark.parametrize(('runtime', 'module'), [
    ('openvino', 'openvino'), ('onnxruntime', 'onnxruntime')])
def test_a_runtime_that_is_not_installed_is_named_with_the_command(
        exported, monkeypatch, runtime, module):
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(InvalidSettingError, match=f'{runtime}.*pip install {module}'):
        choose(exported('single'), 'cpu', runtime)
    backend, reason = choose(exported('single'))
    assert backend.name != runtime and f'{runtime} fp32 failed' in reason


def test_neither_runtime_is_imported_for_eager_and_no_telemetry_is_sent(exported):
    path = exported('single').path
    code = (
        'import sys; from karmma_ros.model.bundle import load_bundle;'
        'from karmma_ros.model.backends import choose; b = load_bundle(sys.argv[1]);'
        'choose(b, "cpu", "eager");'
        'assert not {"openvino", "onnxruntime", "onnx"} & set(sys.modules);'
        'choose(b, "cpu", "openvino");'
        'assert not sys.modules["openvino_telemetry"]')
    done = subprocess.run([sys.executable, '-c', code, str(path)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_the_difference_is_a_fraction_of_the_range_of_the_logits():
    wanted = {(A,): {'verb': np.array([0.0, 10.0, 5.0])}}
    assert difference({(A,): {'verb': np.array([0.0, 9.0, 5.0])}}, wanted) == pytest.approx(0.1)
    assert difference({(A,): {'verb': np.array([0.0, np.nan, 5.0])}}, wanted) == np.inf
    assert difference({(A,): {'verb': np.zeros(2)}}, wanted) == np.inf
    assert difference({(A,): {}}, wanted) == np.inf
    assert difference(wanted, wanted) == 0


def test_the_check_clip_is_the_same_every_time_and_has_boxes_that_make_sense(exported):
    spec = exported('single').spec
    first, second = (check_clip(spec, PAPER_MODALITIES) for _ in range(2))
    assert all(np.array_equal(first[m], second[m]) for m in PAPER_MODALITIES)
    boxes = first[Modality.DETECTIONS]
    assert boxes.dtype == np.float32 and set(np.unique(boxes[..., 4])) <= {0, 1, 2}
    assert (boxes[..., :2] <= boxes[..., 2:4]).all() and boxes[..., :4].max() <= 1
