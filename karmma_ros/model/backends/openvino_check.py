"""
Check an OpenVINO graph (IR) of a foreign model before OpenVINO reads it.

OpenVINO computes the values that sizes depend on while it reads a graph, whatever memory that
takes. So the XML is read here first: only operators of our exports, no graphs within it, no
document type (entities), weights within the .bin file, and nothing but small tensors where a
size depends on a value. The sizes themselves are checked in the graph that OpenVINO has read.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
import math
from pathlib import Path
import struct
from typing import Any, NamedTuple
from xml.parsers import expat

from karmma_ros.files import open_regular, read_regular
from karmma_ros.model.backends.graph_memory import MOST_STEPS, Step

_SAME = frozenset({'Convert', 'Slice', 'Split', 'VariadicSplit', 'Reshape',
                   'Squeeze', 'Unsqueeze', 'Transpose', 'LogicalNot', 'ReduceProd', 'ReduceSum',
                   'ReduceMin', 'ReduceMax'})
"""Operators whose outputs have no more elements than their first input."""
_ELEMENTWISE = frozenset({'Add', 'Subtract', 'Multiply', 'Divide', 'FloorMod', 'Mod', 'Maximum',
                          'Minimum', 'Select', 'Equal', 'Less', 'Greater', 'LogicalAnd',
                          'LogicalOr', 'Power'})
"""Operators that broadcast their inputs to one size."""
OPERATORS = _SAME | _ELEMENTWISE | frozenset("""
    AvgPool BatchNormInference Broadcast Clamp Concat Const Convolution Elu Erf Exp
    FakeQuantize Gather Gelu GroupConvolution HSigmoid HSwish HardSigmoid Interpolate Log
    MVN MatMul MaxPool Negative NormalizeL2 PReLU Pad Parameter ReLU ReduceL2 ReduceMean
    Result ScaledDotProductAttention ShapeOf Sigmoid SoftMax SoftPlus Sqrt SquaredDifference
    Swish Tanh Tile""".split())
_FIRST_SHAPE_INPUT = {
    'Gather': 2, **dict.fromkeys((
        'Broadcast', 'Interpolate', 'MVN', 'NormalizeL2', 'Pad', 'ReduceL2', 'ReduceMax',
        'ReduceMean', 'ReduceMin', 'ReduceProd', 'ReduceSum', 'Reshape', 'Slice', 'Split',
        'Squeeze', 'Tile', 'Transpose', 'Unsqueeze', 'VariadicSplit'), 1)}
"""Operator → its first input whose values, not only its size, decide the output's size."""
_WIDTHS = {'boolean': 1, 'bf16': 2, 'f16': 2, 'f32': 4, 'f64': 8, 'i8': 1, 'u8': 1, 'i16': 2,
           'u16': 2, 'i32': 4, 'u32': 4, 'i64': 8, 'u64': 8}
"""Element type → bytes."""
_INTEGERS = {'i32': 'i', 'i64': 'q', 'u64': 'Q'}
_MOST_XML = 16 * 2**20
"""Bytes; our largest graph has less than 4 MiB."""
_MOST_RANK, _MOST_DEPTH = 16, 20
_SMALL = 2**16
"""Elements of a tensor that a size is computed from."""
_ELEMENTS = {
    ('net',), ('net', 'layers'), ('net', 'edges'), ('net', 'edges', 'edge'),
    ('net', 'layers', 'layer'), ('net', 'layers', 'layer', 'data'),
    *((*('net', 'layers', 'layer'), side, *more) for side in ('input', 'output')
      for more in ((), ('port',), ('port', 'dim')))}
"""Elements of our graphs, each with those that it is in; any may be within `rt_info`."""


@dataclass
class _Layer:
    type: str
    data: Mapping[str, str] = field(default_factory=dict)
    inputs: dict[int, str] = field(default_factory=dict)
    """Port → id of the layer that it comes from."""


def check_ir(path: Path, weights: Path, most: int) -> int:
    """
    Refuse a graph that may take unbounded memory or time while it is read.

    :param path: the .xml file.
    :param weights: the .bin file.
    :param most: bytes that it may have.
    :returns: the bytes of both files.
    :raises ValueError: what it holds that our exports never do.
    :raises OSError: for a file that is not regular, or too large.
    """
    content = read_regular(path, _MOST_XML)
    text = content.decode('utf-8')
    if '<!' in text:
        raise ValueError('it holds a document type')
    layers = _Reader().read(text)
    with open_regular(weights, most) as file:
        size = file.seek(0, 2)
        for layer in layers.values():
            _check_weights(layer, size)
        _check_sizes(layers, file)
    return size + len(content)


class _Reader:
    """Collects the layers of a graph; it keeps nothing else of the XML."""

    def __init__(self) -> None:
        self._path: tuple[str, ...] = ()
        self._layers: dict[str, _Layer] = {}
        self._current = _Layer('')
        self._ports: dict[str, list[str]] = {}

    def read(self, text: str) -> dict[str, _Layer]:
        parser = expat.ParserCreate('utf-8')
        parser.StartElementHandler, parser.EndElementHandler = self._start, self._end
        try:
            parser.Parse(text, True)
        except expat.ExpatError as error:
            raise ValueError(f'it is not XML ({error})') from error
        return self._layers

    def _start(self, name: str, attributes: dict[str, str]) -> None:
        self._path = (*self._path, name)
        if len(self._path) > _MOST_DEPTH:
            raise ValueError('it is nested too deeply')
        if 'rt_info' in self._path:
            return
        if self._path not in _ELEMENTS:
            raise ValueError(f'it holds the element {"/".join(self._path)}')
        if name == 'layer':
            if attributes['type'] not in OPERATORS:
                raise ValueError(f'it holds the operator {attributes["type"]}')
            self._current = self._layers[attributes['id']] = _Layer(attributes['type'])
            self._ports[attributes['id']] = self._own = []
            if len(self._layers) > MOST_STEPS:
                raise ValueError(f'it has more than {MOST_STEPS} operators')
        elif name == 'data':
            self._current.data = attributes
        elif name == 'port' and self._path[3] == 'input':
            self._own.append(attributes['id'])
        elif name == 'edge':
            self._connect(**{key.replace('-', '_'): value for key, value in attributes.items()})

    def _connect(self, from_layer: str, from_port: str, to_layer: str, to_port: str) -> None:
        if from_layer not in self._layers or to_port not in self._ports.get(to_layer, ()):
            raise ValueError(f'it has an edge to layer {to_layer} that is not there')
        self._layers[to_layer].inputs[self._ports[to_layer].index(to_port)] = from_layer

    def _end(self, name: str) -> None:
        self._path = self._path[:-1]


def _check_weights(layer: _Layer, size: int) -> None:
    """Refuse weights outside the file."""
    if layer.type == 'Const':
        offset, length = int(layer.data['offset']), int(layer.data['size'])
        width = _WIDTHS.get(layer.data['element_type'])
        if width is None:
            raise ValueError(f'it holds the type {layer.data["element_type"]}')
        shape = _shape(layer)
        if offset < 0 or offset + length > size or length != width * math.prod(shape):
            raise ValueError(f'its weights {shape} of {length} bytes at {offset} do not fit the '
                             f'{size} bytes of the .bin file')


def _shape(layer: _Layer) -> list[int]:
    shape = [int(side) for side in layer.data['shape'].split(',') if side.strip()]
    if len(shape) > _MOST_RANK or min(shape, default=0) < 0:
        raise ValueError(f'it holds weights of shape {shape[:_MOST_RANK]}')
    return shape


class _Bound(NamedTuple):
    """What a tensor has at most."""

    elements: float
    """Infinite where nothing depends on its values."""
    rank: int


def _check_sizes(layers: Mapping[str, _Layer], file: Any) -> None:
    """Refuse a graph in which a size depends on the values of a tensor that may be large."""
    needed = _needed(layers)
    bounds: dict[str, _Bound] = {}
    for name, layer in layers.items():
        if any(source not in bounds for source in layer.inputs.values()):
            raise ValueError(f'its layer {name} stands before one that it reads')
        given = [bounds[layer.inputs[port]] for port in sorted(layer.inputs)]
        rank = _rank(layer, given)
        elements = _elements(layer, given, layers, file) if name in needed else math.inf
        bounds[name] = _Bound(elements, rank)
        if name in needed and elements > _SMALL:
            raise ValueError(f'a size depends on the values of a {layer.type} of up to '
                             f'{elements} elements, expected at most {_SMALL}')


def _needed(layers: Mapping[str, _Layer]) -> set[str]:
    """Return the layers whose values may decide the size of another."""
    needed: set[str] = set()
    left = [source for layer in layers.values() for port, source in layer.inputs.items()
            if port >= _FIRST_SHAPE_INPUT.get(layer.type, math.inf)]
    while left:
        name = left.pop()
        if name not in needed:
            needed.add(name)
            if layers[name].type != 'ShapeOf':
                left.extend(layers[name].inputs.values())
    return needed


def _rank(layer: _Layer, given: Sequence[_Bound]) -> int:
    """Return how many sides a layer's outputs have at most."""
    if layer.type in ('Const', 'Parameter'):
        return len(_shape(layer))
    if layer.type == 'ShapeOf':
        return 1
    if layer.type in ('Reshape', 'Broadcast'):
        return int(given[1].elements)
    if layer.type == 'Unsqueeze':
        return given[0].rank + int(given[1].elements)
    if layer.type == 'Gather':
        return max(0, given[0].rank - 1) + given[1].rank
    return max((bound.rank for bound in given), default=0)


def _elements(
    layer: _Layer, given: Sequence[_Bound], layers: Mapping[str, _Layer], file: Any
) -> float:
    """Return how many elements each output of a layer has at most."""
    elements = [bound.elements for bound in given]
    if layer.type == 'Const':
        return math.prod(_shape(layer))
    if layer.type == 'ShapeOf':
        return given[0].rank
    if layer.type == 'Parameter':
        return 1  # it has no values yet: what depends on them is not computed
    if layer.type == 'Broadcast':
        return _product_of(layers[layer.inputs[1]], file)
    if layer.type in _SAME:
        return elements[0]
    if layer.type == 'Concat':
        return sum(elements)
    if layer.type in _ELEMENTWISE:  # lists of one side are as long as the longest
        return max(elements) if max(b.rank for b in given) <= 1 else math.prod(elements)
    if layer.type == 'Gather':  # of a list it takes as many as it has indices
        return elements[1] if given[0].rank <= 1 else elements[0] * elements[1]
    raise ValueError(f'a size depends on the values of a {layer.type}')


def _product_of(layer: _Layer, file: Any) -> int:
    """Return the product of the values of a constant shape."""
    code = _INTEGERS.get(layer.data.get('element_type', '')) if layer.type == 'Const' else None
    if code is None or math.prod(_shape(layer)) > _MOST_RANK:
        raise ValueError('a size depends on the values of a Broadcast to no constant size')
    file.seek(int(layer.data['offset']))
    values = file.read(int(layer.data['size']))
    return math.prod(struct.unpack(f'<{len(values) // struct.calcsize(code)}{code}', values))


def steps_of(model: Any) -> Iterator[Step]:
    """
    Yield the operators of a graph that OpenVINO has read, with the sizes of their outputs.

    :raises ValueError: for a size that is not fixed.
    """
    constant: set[str] = set()
    for operator in model.get_ordered_ops():
        name = operator.get_name()
        reads = tuple(f'{source.get_node().get_name()}/{source.get_index()}'
                      for source in (port.get_source_output() for port in operator.inputs()))
        writes = {}
        for output in operator.outputs():
            shape = output.get_partial_shape()
            if shape.is_dynamic:
                raise ValueError(f'{operator.get_friendly_name()} has the size {shape}')
            width = output.get_element_type().size
            writes[f'{name}/{output.get_index()}'] = width * math.prod(shape.to_shape())
        type_name = operator.get_type_name()
        fixed = type_name != 'Parameter' and (
            type_name == 'ShapeOf' or all(source in constant for source in reads))
        if fixed:
            constant.update(writes)
        yield Step(reads, writes, fixed)
