"""Exports that are written into a model directory, and exports that are refused."""

import json
import shutil

from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.model.backends import choose, onnx_runtime
from karmma_ros.model.backends import export as export_module
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.export import export
from karmma_ros.model.backends.exports import Export
from karmma_ros.model.backends.graphs import TOKENS
from karmma_ros.model.backends.onnx_runtime import load_onnx
from karmma_ros.model.backends.openvino_runtime import load_openvino
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.bundle import load_bundle
import numpy as np
import onnx
from onnx import helper, TensorProto
import pytest
import torch


def calibration(bundle):
    return {m: [check_clip(bundle.spec, [m], seed)[m] for seed in (1, 2)]
            for m in bundle.network.modalities}


@pytest.mark.parametrize(('target', 'precision', 'reads'), [
    ('openvino', 'bf16', 'openvino'), ('openvino', 'int8', 'openvino'),
    ('onnx', 'int8', 'onnxruntime')])
def test_lower_precisions_agree_within_their_tolerance(copied, target, precision, reads):
    written, trials = export(copied, target, precision, calibration(copied))
    assert written.folder == copied.path / 'exports' / f'{reads}_{precision}'
    assert [t.label for t in trials] == ['eager', f'{reads} {precision}']
    assert trials[1].agrees and trials[1].difference > 1e-5  # it is not fp32 in disguise
    assert f'{reads} {precision}' in choose(copied).reason


@pytest.mark.parametrize(('saturates', 'largest'), [(True, 64), (False, 127)])
def test_int8_uses_seven_bits_where_products_saturate(copied, monkeypatch, saturates, largest):
    kept = []
    monkeypatch.setattr(onnx_runtime, '_products_saturate', lambda: saturates)
    monkeypatch.setattr(export_module, '_check', lambda *_: None)  # full ranges fail on AVX2
    written, _ = export(copied, 'onnx', 'int8', calibration(copied))
    for tensor in onnx.load(str(written.folder / 'audio.onnx')).graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        if values.dtype == np.int8 and values.ndim > 1:
            kept.append(int(np.abs(values.astype(int)).max()))
    assert kept and max(kept) == largest


@pytest.mark.parametrize(('machine', 'flags', 'saturates'), [
    ('x86_64', 'avx avx2', True), ('x86_64', 'avx512f avx512_vnni', False),
    ('AMD64', 'avx2 avx_vnni', False), ('aarch64', 'asimddp', False)])
def test_products_saturate_on_x86_without_vnni(monkeypatch, machine, flags, saturates):
    monkeypatch.setattr('platform.machine', lambda: machine)
    monkeypatch.setattr(onnx_runtime.Path, 'read_text', lambda *_, **__: f'flags : {flags}')
    assert onnx_runtime._products_saturate() is saturates


def test_its_description_has_the_weights_and_versions(copied):
    description = json.loads(
        (copied.path / 'exports' / 'openvino_fp32' / 'export.json').read_text())
    assert description['weights_sha256'] == copied.sha256
    assert description['torch'] == torch.__version__


def test_bf16_weights_take_half_the_space(copied):
    written, _ = export(copied, 'openvino', 'bf16')
    half, full = ((folder / 'audio.bin').stat().st_size for folder in (
        written.folder, copied.path / 'exports' / 'openvino_fp32'))
    assert half < 0.6 * full


def test_the_fusion_below_concatenated_heads_stays_in_fp32(exported, tmp_path):
    for name, size in (('concatenated', 4), ('tokens', 2)):
        shutil.copytree(exported(name).path, tmp_path / name)
        bundle = load_bundle(tmp_path / name)
        written, _ = export(bundle, 'openvino', 'bf16')
        weights = sum(x.numel() for x in (
            *bundle.network.fusion.parameters(), *bundle.network.heads.parameters()))
        bytes_of_file = (written.folder / 'fusion.bin').stat().st_size
        assert bytes_of_file == pytest.approx(size * weights, rel=0.3), name


def test_the_network_is_left_as_it_was(copied):
    before = {k: v.clone() for k, v in copied.network.state_dict().items()}
    fast = torch.backends.mha.get_fastpath_enabled()
    export(copied, 'onnx')
    after = copied.network.state_dict()
    assert all(torch.equal(before[k], after[k]) for k in before)
    assert torch.backends.mha.get_fastpath_enabled() == fast


def test_an_export_that_disagrees_does_not_replace_the_old_one(copied, monkeypatch):
    folder = copied.path / 'exports' / 'onnxruntime_fp32'
    before = {p.name: p.read_bytes() for p in folder.iterdir()}
    real = export_module.write_graphs

    def write_others(bundle, folder):
        with torch.no_grad():
            bundle.network.fusion.cls.add_(3.0)
        try:
            return real(bundle, folder)
        finally:
            with torch.no_grad():
                bundle.network.fusion.cls.sub_(3.0)

    monkeypatch.setattr(export_module, 'write_graphs', write_others)
    with pytest.raises(BundleError, match='the export is not kept: onnxruntime fp32 .* differs'):
        export(copied, 'onnx')
    assert {p.name: p.read_bytes() for p in folder.iterdir()} == before
    assert sorted(p.name for p in folder.parent.iterdir()) == ['onnxruntime_fp32', 'openvino_fp32']


@pytest.mark.parametrize(('target', 'precision', 'text'), [
    ('tensorrt', None, "--to is 'tensorrt'; expected openvino or onnx"),
    ('onnx', 'bf16', "--precision is 'bf16'; expected fp32, int8 with --to onnx"),
    ('openvino', 'int4', "--precision is 'int4'; expected bf16, fp32, int8 with"),
    ('openvino', 'int8', 'calibration is None; expected clips that int8 takes its ranges from'),
])
def test_a_wrong_request_is_named(copied, target, precision, text):
    with pytest.raises(InvalidSettingError, match=text):
        export(copied, target, precision)


def write_hostile(path, nodes, shape=(1, 8), weights=()):
    """Write a graph from `input` to `tokens` that is none of ours."""
    port = helper.make_tensor_value_info
    graph = helper.make_graph(
        nodes, 'hostile', [port('input', TensorProto.FLOAT, (1, 8))],
        [port(TOKENS, TensorProto.FLOAT, shape)], list(weights))
    opsets = [helper.make_opsetid('', 17), helper.make_opsetid('evil', 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)


def endless():
    """Return a loop without an end, and what it needs."""
    port = helper.make_tensor_value_info
    body = helper.make_graph(
        [helper.make_node('Identity', ['go'], ['on']), helper.make_node('Neg', ['x'], ['y'])],
        'body', [port('i', TensorProto.INT64, ()), port('go', TensorProto.BOOL, ()),
                 port('x', TensorProto.FLOAT, (1, 8))],
        [port('on', TensorProto.BOOL, ()), port('y', TensorProto.FLOAT, (1, 8))])
    true = helper.make_tensor('true', TensorProto.BOOL, [], [True])
    return [helper.make_node('Loop', ['', 'true', 'input'], [TOKENS], body=body)], [true]


def outside():
    """Return an addition of what is in a file elsewhere."""
    weight = helper.make_tensor('w', TensorProto.FLOAT, [1, 8], [0.0] * 8)
    weight.ClearField('float_data')
    weight.data_location = TensorProto.EXTERNAL
    weight.external_data.add(key='location', value='/etc/passwd')
    return [helper.make_node('Add', ['input', 'w'], [TOKENS])], [weight]


@pytest.mark.parametrize(('nodes', 'weights', 'text'), [
    (*endless(), 'holds the operator  Loop'),
    (*outside(), 'its weights are in another file'),
    ([helper.make_node('Spy', ['input'], [TOKENS], domain='evil')], [], 'operator evil Spy'),
])
def test_a_hostile_onnx_graph_is_refused_before_it_is_run(tmp_path, copied, nodes, weights, text):
    write_hostile(tmp_path / 'fusion.onnx', nodes, weights=weights)
    with pytest.raises(BundleError, match=text):
        load_onnx(Export('onnxruntime', 'fp32', tmp_path), copied.network, 1)


def test_a_hostile_openvino_graph_is_refused_before_it_is_run(tmp_path, copied):
    nodes, weights = endless()
    for case, (nodes, weights, shape, text) in enumerate((
            (nodes, weights, (1, 8), 'operator Loop'),
            ([helper.make_node('Expand', ['input', 'size'], [TOKENS])],
             [helper.make_tensor('size', TensorProto.INT64, [3], [2**20, 2**20, 8])],
             (2**20, 2**20, 8), 'has the size'))):
        folder = tmp_path / str(case)
        folder.mkdir()
        write_hostile(folder / 'fusion.onnx', nodes, shape, weights)
        import openvino
        openvino.save_model(
            openvino.Core().read_model(folder / 'fusion.onnx'), folder / 'fusion.xml')
        with pytest.raises(BundleError, match=text):
            load_openvino(Export('openvino', 'fp32', folder), copied.network, 1)


def test_exported_graphs_are_those_of_the_network_in_evaluation_mode(copied):
    eager = Eager(copied.network)
    clip = check_clip(copied.spec, eager.modalities, seed=5)
    copied.network.train()
    written, _ = export(copied, 'onnx')
    backend = load_onnx(written, copied.network, 1)
    np.testing.assert_allclose(
        backend.infer(clip)['verb'], Eager(copied.network).infer(clip)['verb'], atol=1e-4)


@pytest.mark.parametrize('target', ['openvino', 'onnx'])
def test_pairs_of_classes_stand_lower_precisions(exported, tmp_path, target):
    shutil.copytree(exported('pairs').path, tmp_path / 'pairs')
    bundle = load_bundle(tmp_path / 'pairs')
    for precision in ('bf16', 'int8') if target == 'openvino' else ('int8',):
        _, trials = export(bundle, target, precision, calibration(bundle))
        assert trials[1].agrees
