"""ONNX graphs made to do harm are refused before ONNX Runtime reads them, in little memory."""

import json
import os
import resource
import subprocess
import sys
import textwrap
import time

from karmma_ros.errors import BundleError
from karmma_ros.model.backends.exports import Export
from karmma_ros.model.backends.onnx_check import check_onnx
from karmma_ros.model.backends.onnx_runtime import load_onnx
import numpy as np
import onnx
from onnx import helper, numpy_helper, TensorProto
import pytest

node = helper.make_node


def constant(name, value):
    return node('Constant', [], [name], value=numpy_helper.from_array(np.array(value)))


def port(name, shape=(1, 8)):
    return helper.make_tensor_value_info(name, TensorProto.FLOAT, shape)


def graph(nodes, shape=(1, 8), weights=(), **more):
    built = helper.make_graph(
        nodes, 'g', [port('input')], [port('tokens', shape)], list(weights))
    opsets = [helper.make_opsetid('', 17), helper.make_opsetid('own', 1)]
    return helper.make_model(
        built, opset_imports=opsets, ir_version=9, **more).SerializeToString()


def function(domain):
    """Return a graph of one function, in which there is a loop of a million million rounds."""
    ints, bools = TensorProto.INT64, TensorProto.BOOL
    body = helper.make_graph(
        [node('Identity', ['c'], ['d']), node('Identity', ['v'], ['w'])], 'body',
        [helper.make_tensor_value_info('i', ints, []),
         helper.make_tensor_value_info('c', bools, []), port('v')],
        [helper.make_tensor_value_info('d', bools, []), port('w')])
    loop = [constant('n', np.int64(10**12)), constant('t', True),
            node('Loop', ['n', 't', 'x'], ['y'], body=body)]
    relu = helper.make_function(
        domain, 'Relu', ['x'], ['y'], loop, [helper.make_opsetid('', 17)])
    return graph([node('Relu', ['input'], ['tokens'], domain=domain)], functions=[relu])


def outside(attribute):
    tensor = helper.make_tensor('k', TensorProto.FLOAT, [8], bytes(32), raw=True)
    tensor.ClearField('raw_data')
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key='location', value='/etc/passwd')
    if attribute:
        return graph([node('Constant', [], ['k'], value=tensor),
                      node('Add', ['input', 'k'], ['tokens'])])
    return graph([node('Add', ['input', 'k'], ['tokens'])], weights=[tensor])


def sparse():
    model = onnx.ModelProto()
    model.ParseFromString(graph([node('Add', ['input', 'k'], ['tokens'])]))
    values = helper.make_tensor('k', TensorProto.FLOAT, [1], [1.0])
    indices = helper.make_tensor('p', TensorProto.INT64, [1], [0])
    model.graph.sparse_initializer.append(
        helper.make_sparse_tensor(values, indices, [2**40]))
    return model.SerializeToString()


def expanded(size, *more):
    """Return a graph whose tensor `b` is of a size, and the rest of it."""
    return graph([constant('s', size), node('Expand', ['input', 's'], ['b']), *more,
                  node('ReduceMax', ['b'], ['m'], keepdims=1),
                  node('Add', ['input', 'm'], ['tokens'])])


def at_once():
    """Return a graph that needs a hundred tensors of 128 MB at the same time."""
    names = [f'b{i}' for i in range(100)]
    return graph([constant('s', [2**22, 8]), constant('two', np.float32(2)),
                  *(node('Expand', ['input', 's'], [name]) for name in names),
                  node('Sum', names, ['all']), node('ReduceMax', ['all'], ['m'], keepdims=1),
                  node('Add', ['input', 'm'], ['tokens'])])


def folded():
    """Return a graph that a runtime would fold into constants of 12.8 GB, from a few bytes."""
    names = [f'b{i}' for i in range(100)]
    return graph([constant('s', [2**25]),
                  *(node('ConstantOfShape', ['s'], [name]) for name in names),
                  node('Sum', names, ['all']), node('ReduceMax', ['all'], ['m'], keepdims=1),
                  node('Add', ['input', 'm'], ['tokens'])])


HOSTILE = {
    'function in the standard domain': (function(''), 'it holds the function Relu'),
    'function in ai.onnx': (function('ai.onnx'), 'it holds the function Relu'),
    'function of its own': (function('own'), 'it holds the function Relu'),
    'constant in another file': (outside(True), 'its weights are in another file'),
    'weights in another file': (outside(False), 'its weights are in another file'),
    'sparse weights': (sparse(), 'sparse weights'),
    'expand': (expanded([2**31]), 'b has the size of|does not fit'),
    'expand to 16 GB': (expanded([2**29, 8]), 'b has the size of 17179869184 bytes'),
    'size from arithmetic': (
        graph([constant('a', [2**20, 1]), constant('c', [2**12, 8]),
               node('Mul', ['a', 'c'], ['s']), node('Expand', ['input', 's'], ['b']),
               node('ReduceMax', ['b'], ['m'], keepdims=1),
               node('Add', ['input', 'm'], ['tokens'])]), 'b has the size of'),
    'size from a shape': (
        graph([node('Shape', ['input'], ['a']), constant('c', [2**30, 1]),
               node('Mul', ['a', 'c'], ['s']), node('Expand', ['input', 's'], ['b']),
               node('ReduceMax', ['b'], ['m'], keepdims=1),
               node('Add', ['input', 'm'], ['tokens'])]), 'b has the size of'),
    'tile': (graph([constant('r', [2**30, 1]), node('Tile', ['input', 'r'], ['b']),
                    node('ReduceMax', ['b'], ['m'], keepdims=1),
                    node('Add', ['input', 'm'], ['tokens'])]), 'b has the size of'),
    'constant of shape': (
        graph([constant('s', [2**33]), node('ConstantOfShape', ['s'], ['b']),
               node('ReduceMax', ['b'], ['m'], keepdims=1),
               node('Add', ['input', 'm'], ['tokens'])]), 'b has the size of'),
    'outer product': (
        graph([constant('s', [2**18, 1]), constant('t', [1, 2**18]),
               node('ConstantOfShape', ['s'], ['a']), node('ConstantOfShape', ['t'], ['c']),
               node('MatMul', ['a', 'c'], ['b']), node('ReduceMax', ['b'], ['m'], keepdims=1),
               node('Add', ['input', 'm'], ['tokens'])]), 'b has the size of'),
    'size from the input': (
        graph([node('Cast', ['input'], ['i'], to=TensorProto.INT64),
               constant('flat', [8]), node('Reshape', ['i', 'flat'], ['s']),
               node('ConstantOfShape', ['s'], ['b']), node('ReduceMax', ['b'], ['m'], keepdims=0),
               node('Add', ['input', 'm'], ['tokens'])]), 'b has no fixed size'),
    'a hundred large tensors at once': (at_once(), 'bytes at the same time'),
    'constants that are folded': (folded(), 'bytes of constants'),
    'a range': (graph([constant('a', 0), constant('e', 2**40), constant('d', 1),
                       node('Range', ['a', 'e', 'd'], ['b'])]), 'it holds the operator  Range'),
    'a name that nothing made': (graph([node('Relu', ['x'], ['tokens'])]), 'which nothing has'),
    'a million operators': (
        b'\x08\x09\x3a\x80\x80\x80\x02' + b'\x0a\x02\x22\x00' * 2**20, 'more than|operator'),
    'four million operators': (
        b'\x08\x09\x3a\x80\x80\x80\x08' + b'\x0a\x00' * 2**23, 'bytes beside its weights'),
    'cut off': (expanded([4, 8])[:-20], 'cut off|not ONNX'),
    'zeros': (bytes(2**20), 'it is not ONNX'),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(('content', 'text'), HOSTILE.values(), ids=list(HOSTILE))
def test_it_is_refused_before_memory_of_its_size_is_allocated(content, text):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(ValueError, match=text):
        check_onnx(content)
    assert time.process_time() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 500_000  # kB


def test_what_is_small_and_plain_passes():
    check_onnx(expanded([4, 8]))


@pytest.mark.parametrize('content', [HOSTILE['expand to 16 GB'][0], bytes(100)])
def test_the_error_names_the_file_and_the_remedy(tmp_path, copied, content):
    (tmp_path / 'fusion.onnx').write_bytes(content)
    with pytest.raises(BundleError, match='fusion.onnx: cannot be run .*karmma export MODEL'):
        load_onnx(Export('onnxruntime', 'fp32', tmp_path), copied.network, 1)


def test_a_file_far_larger_than_the_network_is_not_read(tmp_path, copied):
    (tmp_path / 'fusion.onnx').touch()
    os.truncate(tmp_path / 'fusion.onnx', 10**11)
    with pytest.raises(BundleError, match='has 100,000,000,000 bytes; expected at most'):
        load_onnx(Export('onnxruntime', 'fp32', tmp_path), copied.network, 1)


def test_another_thread_goes_on_meanwhile(tmp_path):
    """As results of the present model do: no pause of a second while a graph is checked."""
    names = ('four million operators', 'a million operators', 'constants that are folded')
    for number, name in enumerate(names):
        (tmp_path / str(number)).write_bytes(HOSTILE[name][0])
    script = textwrap.dedent("""
        import json, sys, threading, time
        from pathlib import Path
        from karmma_ros.model.backends.onnx_check import check_onnx
        import onnx.reference
        gaps, last, done = [0.0], time.monotonic(), []
        def work():
            for path in sorted(Path(sys.argv[1]).iterdir()):
                try:
                    check_onnx(path.read_bytes())
                except ValueError as error:
                    done.append(str(error))
        thread = threading.Thread(target=work)
        thread.start()
        while thread.is_alive():
            time.sleep(0.01)
            now = time.monotonic()
            gaps.append(now - last)
            last = now
        print(json.dumps([max(gaps), len(done)]))
        """)
    run = subprocess.run([sys.executable, '-c', script, str(tmp_path)], capture_output=True,
                         text=True, timeout=120, check=True)
    gap, refused = json.loads(run.stdout)
    assert refused == len(names)
    assert gap < 1.0
