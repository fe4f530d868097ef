"""
Check an ONNX graph of a foreign model before a runtime reads it.

A graph is refused unless it is made of the operators of our exports, has no graphs or functions
within it and no data in other files, and the size of every tensor in it is known and bounded.
Sizes are inferred node by node with ONNX's own rules. Where a size depends on the value of
another tensor, that value is computed too, if it is small; nothing large is ever computed.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
import math
from typing import Any

from karmma_ros.errors import first_line
from karmma_ros.model.backends.graph_memory import check_memory, Step
import numpy as np
from numpy.typing import NDArray

OPERATORS = frozenset("""
    Add And AveragePool BatchNormalization Cast Clip Concat Constant ConstantOfShape Conv
    DequantizeLinear Div Elu Equal Erf Exp Expand Flatten Gather Gelu Gemm GlobalAveragePool
    Greater HardSigmoid HardSwish Identity InstanceNormalization LayerNormalization LeakyRelu
    Less Log MatMul Max MaxPool Min Mod Mul Neg Not Or Pad Pow QuantizeLinear Reciprocal
    ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape Resize Shape Sigmoid Slice
    Softmax Softplus Split Sqrt Squeeze Sub Sum Tanh Tile Transpose Unsqueeze Where""".split())
"""Those of our exports and of further encoders; none of them holds a graph or waits."""
_DOMAINS = ('', 'ai.onnx')
_MOST_STRUCTURE = 8 * 2**20
"""Bytes of a graph without the values of its tensors; Swin-B's has about 3 MB."""
_SMALL = 4096
"""Elements of a tensor whose values are computed to find the sizes of others."""
_TENSORS: Mapping[tuple[int, ...], Mapping[int, tuple[int, ...]]] = {
    (): {7: (7,)}, (7,): {1: (7, 1), 5: (7, 5)}, (7, 1): {5: (7, 1, 5)},
    (7, 1, 5): {5: (7, 5)}, (7, 5): {}}
"""Protobuf fields that lead to tensors: graph; node, initializer; attribute; its tensor."""
_RAW = 9
_MESSAGE = 2


def check_onnx(content: bytes) -> None:
    """
    Refuse a graph that needs unbounded memory or time, reads other files, or is not fixed.

    :raises ValueError: what it holds that our exports never do.
    """
    from google.protobuf.message import DecodeError  # type: ignore[import-untyped]
    import onnx

    _check_structure(content)
    try:
        model = onnx.load_model_from_string(content)
    except DecodeError as error:
        raise ValueError('it is not ONNX') from error
    _check_content(model)
    check_memory(_Sizes(model).steps(), len(content))


def _check_structure(content: bytes) -> None:
    """Bound what the parser makes objects of, before it does."""
    left = _MOST_STRUCTURE

    def walk(view: memoryview, path: tuple[int, ...]) -> None:
        nonlocal left
        for number, value, size in _fields(view):
            inner = _TENSORS[path].get(number)
            if value is not None and inner is not None:
                left -= size - len(value)
                walk(value, inner)
            elif value is not None and path == (7, 5) and number == _RAW:
                left -= size - len(value)
            else:
                left -= size
            if left < 0:
                raise ValueError(f'it has more than {_MOST_STRUCTURE} bytes beside its weights')

    walk(memoryview(content), ())


def _fields(view: memoryview) -> Iterator[tuple[int, memoryview | None, int]]:
    """Yield the fields of a protobuf message: number, value if it is bytes, and size in all."""
    offset = 0
    while offset < len(view):
        start = offset
        key, offset = _varint(view, offset)
        value, wire = None, key & 7
        if wire == _MESSAGE:
            length, offset = _varint(view, offset)
            value = view[offset:offset + length]
            offset += length
        elif wire == 0:
            _, offset = _varint(view, offset)
        elif wire in (1, 5):
            offset += 8 if wire == 1 else 4
        else:
            raise ValueError('it is not ONNX')
        if offset > len(view):
            raise ValueError('it is cut off')
        if not key >> 3:
            raise ValueError('it is not ONNX')
        yield key >> 3, value, offset - start


def _varint(view: memoryview, offset: int) -> tuple[int, int]:
    number = 0
    for shift in range(0, 70, 7):
        if offset >= len(view):
            raise ValueError('it is cut off')
        byte = view[offset]
        offset += 1
        number |= (byte & 127) << shift
        if byte < 128:
            return number, offset
    raise ValueError('it is not ONNX')


def _check_content(model: Any) -> None:
    """Refuse functions, operators of others or with graphs in them, and data in other files."""
    from onnx import AttributeProto

    if model.functions:
        raise ValueError(f'it holds the function {model.functions[0].name}')
    if model.training_info or model.graph.sparse_initializer:
        raise ValueError('it holds training graphs or sparse weights')
    for node in model.graph.node:
        if node.domain not in _DOMAINS or node.op_type not in OPERATORS:
            raise ValueError(f'it holds the operator {node.domain} {node.op_type}')
        for attribute in node.attribute:
            if attribute.ref_attr_name or attribute.type in (
                    AttributeProto.GRAPH, AttributeProto.GRAPHS, AttributeProto.SPARSE_TENSOR,
                    AttributeProto.SPARSE_TENSORS, AttributeProto.TYPE_PROTO):
                raise ValueError(f'{node.op_type} has the attribute {attribute.name}')
            for tensor in (attribute.t, *attribute.tensors):
                _check_tensor(tensor)
    for tensor in model.graph.initializer:
        _check_tensor(tensor)


def _check_tensor(tensor: Any) -> None:
    if tensor.external_data or tensor.data_location:
        raise ValueError('its weights are in another file')
    if tensor.raw_data and len(tensor.raw_data) != _size(tensor.data_type, tensor.dims):
        raise ValueError(f'{tensor.name} has {len(tensor.raw_data)} bytes, expected '
                         f'{list(tensor.dims)}')


def _size(data_type: int, dims: Sequence[int]) -> int:
    """
    Return the bytes of a tensor.

    :raises ValueError: for a type that no backend of ours takes.
    """
    from onnx.helper import tensor_dtype_to_np_dtype

    try:
        width = np.dtype(tensor_dtype_to_np_dtype(data_type)).itemsize
    except (KeyError, TypeError) as error:
        raise ValueError(f'it holds the type {data_type}') from error
    if min(dims, default=0) < 0:
        raise ValueError(f'it holds a tensor {list(dims)}')
    return width * math.prod(dims)


class _Sizes:
    """The types, and the small values, of the tensors of a graph, found node by node."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._opsets = list(model.opset_import)
        self._types: dict[str, Any] = {}
        self._constant: set[str] = set()
        self._values: dict[str, NDArray[Any]] = {}
        self._tensors: dict[str, Any] = {}

    def steps(self) -> Iterator[Step]:
        """Yield what each node reads and the bytes of what it writes."""
        yield Step((), self._given(), constant=False)
        yield Step((), self._weights(), constant=True)
        for node in self._model.graph.node:
            yield self._step(node)

    def _given(self) -> dict[str, int]:
        weights = {tensor.name for tensor in self._model.graph.initializer}
        inputs = [port for port in self._model.graph.input if port.name not in weights]
        self._types.update((port.name, port.type) for port in inputs)
        return {port.name: _bytes_of(port.name, port.type) for port in inputs}

    def _weights(self) -> dict[str, int]:
        from onnx.helper import make_tensor_type_proto

        for tensor in self._model.graph.initializer:
            self._types[tensor.name] = make_tensor_type_proto(
                tensor.data_type, list(tensor.dims))
            self._constant.add(tensor.name)
            if math.prod(tensor.dims) <= _SMALL:
                self._keep(tensor.name, tensor)
        return {t.name: _size(t.data_type, t.dims) for t in self._model.graph.initializer}

    def _step(self, node: Any) -> Step:
        given = [name for name in node.input if name]
        unknown = [name for name in given if name not in self._types]
        if unknown:
            raise ValueError(f'{node.op_type} reads {unknown[0]}, which nothing has made')
        types = self._inferred(node, given)
        sizes = {name: _bytes_of(name, types.get(name)) for name in node.output if name}
        self._types.update(types)
        constant = node.op_type == 'Shape' or all(name in self._constant for name in given)
        if constant:
            self._constant.update(sizes)
        if node.op_type == 'Shape' or all(name in self._values for name in given):
            self._evaluate(node)
        return Step(tuple(given), sizes, constant)

    def _inferred(self, node: Any, given: Sequence[str]) -> dict[str, Any]:
        from onnx.defs import get_schema, SchemaError
        from onnx.shape_inference import infer_node_outputs, InferenceError

        version = next((o.version for o in self._opsets if o.domain in _DOMAINS), 0)
        try:
            return dict(infer_node_outputs(
                get_schema(node.op_type, version, ''), node,
                {name: self._types[name] for name in given},
                {name: self._tensors[name] for name in given if name in self._tensors},
                opset_imports=self._opsets, ir_version=self._model.ir_version))
        except (SchemaError, InferenceError, RuntimeError) as error:
            raise ValueError(
                f'{node.op_type} does not fit its inputs ({first_line(error)})') from error

    def _evaluate(self, node: Any) -> None:
        """Compute the values of a node whose inputs are small and known, if its outputs are."""
        if any(math.prod(_dims(self._types[name])) > _SMALL for name in node.output if name):
            return
        if node.op_type == 'Shape':
            first, last = (next((a.i for a in node.attribute if a.name == name), None)
                           for name in ('start', 'end'))
            values: Any = [np.array(_dims(self._types[node.input[0]])[first:last], np.int64)]
        elif node.op_type == 'Constant':
            values = [_constant_of(node)]
        else:
            from onnx.reference import ReferenceEvaluator

            opsets = {o.domain: o.version for o in self._opsets}
            values = ReferenceEvaluator(node, opsets=opsets).run(
                None, {name: self._values[name] for name in node.input if name})
        for name, value in zip(node.output, values):
            if name and value is not None:
                self._keep(name, value)

    def _keep(self, name: str, value: Any) -> None:
        from onnx import numpy_helper, TensorProto

        tensor = value if isinstance(value, TensorProto) else numpy_helper.from_array(
            np.asarray(value))
        self._tensors[name], self._values[name] = tensor, numpy_helper.to_array(tensor)


def _constant_of(node: Any) -> Any:
    from onnx.helper import get_attribute_value

    return get_attribute_value(node.attribute[0])


def _dims(type_proto: Any) -> list[int]:
    return [d.dim_value for d in type_proto.tensor_type.shape.dim]


def _bytes_of(name: str, type_proto: Any) -> int:
    """
    Return the bytes of a tensor of a type.

    :raises ValueError: for one whose size is not fixed.
    """
    tensor_type = type_proto.tensor_type if (
        type_proto is not None and type_proto.HasField('tensor_type')) else None
    if tensor_type is None or not tensor_type.HasField('shape') or not all(
            d.HasField('dim_value') for d in tensor_type.shape.dim):
        raise ValueError(f'{name} has no fixed size')
    return _size(tensor_type.elem_type, _dims(type_proto))
