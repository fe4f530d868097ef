"""OpenVINO graphs made to do harm: refused before OpenVINO reads them, or computes their sizes."""

import os
import resource
import time

from karmma_ros.errors import BundleError
from karmma_ros.model.backends.exports import Export
from karmma_ros.model.backends.openvino_runtime import _core, load_openvino
import numpy as np
import pytest

HEAD, TAIL = '<?xml version="1.0"?><net name="g" version="11"><layers>', '</layers></net>'


@pytest.fixture
def opset():
    """Return OpenVINO's operators."""
    _core()  # it sees to it that OpenVINO reports to nobody
    import openvino.opset13

    return openvino.opset13


def ints(opset, *values):
    return opset.constant(np.array(values, np.int64))


def sized_by(opset, x, side):
    """Reshape `x` `[1, 8]` to `[side, 8]`: OpenVINO computes `side` when it reads the graph."""
    shape = opset.concat([side, ints(opset, 8)], 0)
    return opset.reshape(x, shape, special_zero=False)


def broadcast(opset, x):
    """Take the largest of 8 million ones, to save the graph in little time, as a size."""
    ones = opset.broadcast(opset.constant(np.array(1, np.int64)), ints(opset, 2**23))
    return sized_by(opset, x, opset.reduce_max(ones, ints(opset, 0), keep_dims=True))


def outer(opset, x):
    column = opset.constant(np.ones((2048, 1), np.int64))
    row = opset.constant(np.ones((1, 2048), np.int64))
    largest = opset.reduce_max(opset.multiply(column, row), ints(opset, 0, 1), keep_dims=True)
    return sized_by(opset, x, opset.reshape(largest, ints(opset, 1), special_zero=False))


def from_shape(opset, x):
    side = opset.gather(opset.shape_of(x), ints(opset, 0), ints(opset, 0))
    ones = opset.broadcast(side, ints(opset, 2**23))
    return sized_by(opset, x, opset.reduce_max(ones, ints(opset, 0), keep_dims=True))


def tiled(opset, x):
    ones = opset.tile(ints(opset, 1), ints(opset, 2**23))
    return sized_by(opset, x, opset.reduce_max(ones, ints(opset, 0), keep_dims=True))


def at_once(opset, x):
    """Need a hundred tensors of 64 MB at the same time."""
    large = [opset.broadcast(x, ints(opset, 2**21, 8)) for _ in range(100)]
    return opset.reduce_max(opset.concat(large, 1), ints(opset, 0), keep_dims=True)


GRAPHS = {
    'broadcast': (broadcast, 'values of a Broadcast of up to 8388608 elements'),
    'outer product': (outer, 'values of a (Multiply|ReduceMax) of up to 4194304 elements'),
    'from a shape': (from_shape, 'values of a Broadcast of up to 8388608 elements'),
    'tiled': (tiled, 'values of a Tile'),
    'at once': (at_once, 'has the size of 6710886400 bytes'),
}


def save(opset, folder, make):
    import openvino

    x = opset.parameter([1, 8], np.float32, name='input')
    model = openvino.Model([opset.result(make(opset, x))], [x], 'hostile')
    openvino.save_model(model, folder / 'fusion.xml', compress_to_fp16=False)


def load(folder, network):
    return load_openvino(Export('openvino', 'fp32', folder), network, 1)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(('make', 'text'), GRAPHS.values(), ids=list(GRAPHS))
def test_a_graph_that_needs_much_memory_is_refused(tmp_path, opset, copied, make, text):
    save(opset, tmp_path, make)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    began = time.process_time()
    with pytest.raises(BundleError, match=f'cannot be run .*{text}'):
        load(tmp_path, copied.network)
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 200_000  # kB


def layer(layer_type='Const', data='', more=''):
    return f'<layer id="0" name="a" type="{layer_type}" version="opset1">{data}{more}</layer>'


def weights(shape='2', offset=0, size=8, element_type='f32'):
    return layer(data=f'<data element_type="{element_type}" shape="{shape}" offset="{offset}" '
                      f'size="{size}"/>')


LAUGHS = '<!DOCTYPE net [<!ENTITY a "ha"><!ENTITY b "&a;&a;"><!ENTITY c "&b;&b;">]>'
XML = {
    'entities': (f'<?xml version="1.0"?>{LAUGHS}<net name="&c;"/>', 'a document type'),
    'a document elsewhere': (
        '<!DOCTYPE net SYSTEM "file:///etc/passwd"><net/>', 'a document type'),
    'nested': ('<net><rt_info>' + '<a>' * 100_000, 'nested too deeply'),
    'a body': (HEAD + layer('ReLU', more='<body><layers/></body>') + TAIL,
               'holds the element net/layers/layer/body'),
    'a loop': (HEAD + layer('Loop') + TAIL, 'holds the operator Loop'),
    'if': (HEAD + layer('If') + TAIL, 'holds the operator If'),
    'of others': (HEAD + layer('Spy') + TAIL, 'holds the operator Spy'),
    'behind the file': (HEAD + weights(offset=2**40) + TAIL, 'do not fit the 64 bytes'),
    'before the file': (HEAD + weights(offset=-8) + TAIL, 'do not fit the 64 bytes'),
    'more than the file': (HEAD + weights('1000000', size=4_000_000) + TAIL, 'do not fit'),
    'a shape that is not there': (HEAD + weights('1000000') + TAIL, 'do not fit the 64 bytes'),
    'texts': (HEAD + weights(element_type='string') + TAIL, 'holds the type string'),
    'many sides': (HEAD + weights(','.join('1' * 40), size=4) + TAIL, 'weights of shape'),
    'no size': (HEAD + layer(data='<data/>') + TAIL, 'offset'),
    'an edge to nothing': (
        f'{HEAD}</layers><edges><edge from-layer="8" from-port="0" to-layer="9" to-port="0"/>'
        '</edges></net>', 'an edge to layer 9'),
    'many layers': (HEAD + ''.join(layer('ReLU').replace('id="0"', f'id="{i}"')
                                   for i in range(60_000)) + TAIL, 'more than 50000 operators'),
    'other text': ('hello', 'it is not XML'),
    'another encoding': ('<net/>'.encode('utf-16'), "can't decode"),
}


@pytest.mark.timeout(60)
@pytest.mark.parametrize(('text', 'problem'), XML.values(), ids=list(XML))
def test_a_file_that_is_none_of_ours_is_refused_unread(tmp_path, copied, text, problem):
    path = tmp_path / 'fusion.xml'
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    path.with_suffix('.bin').write_bytes(bytes(64))
    with pytest.raises(BundleError, match=f'cannot be run .*{problem}.*karmma export MODEL'):
        load(tmp_path, copied.network)


@pytest.mark.parametrize(('name', 'size'), [('fusion.xml', 10**9), ('fusion.bin', 10**11)])
def test_a_file_that_is_too_large_is_refused_unread(tmp_path, copied, name, size):
    for each in ('fusion.xml', 'fusion.bin'):
        (tmp_path / each).write_text(HEAD + TAIL)
    os.truncate(tmp_path / name, size)
    with pytest.raises(BundleError, match=f'it has {size:,} bytes; expected at most'):
        load(tmp_path, copied.network)
