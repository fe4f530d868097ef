"""Exported graphs in ONNX Runtime, on the processor."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
import logging
from pathlib import Path
import platform
from typing import Any

from karmma_ros.errors import BundleError, first_line, InvalidSettingError
from karmma_ros.files import read_regular
from karmma_ros.model.backends.exported import (
    assemble,
    Exported,
    most_bytes,
    with_threads,
)
from karmma_ros.model.backends.exports import Export, remedy
from karmma_ros.model.backends.interface import Graph, ONNXRUNTIME
from karmma_ros.model.backends.onnx_check import check_onnx
from karmma_ros.model.karmma import Karmma
import numpy as np
from numpy.typing import NDArray

_TYPES = {'tensor(float)': np.float32, 'tensor(bool)': np.bool_}
_ERRORS_ONLY = 3


def load_onnx(export: Export, network: Karmma, threads: int) -> Exported:
    """
    Open an export of a network; the encoders run in parallel.

    :raises InvalidSettingError: when ONNX Runtime or onnx is not installed.
    :raises BundleError: when the graphs cannot be read, or are not of this network.
    """
    _require()
    beside = ThreadPoolExecutor(len(network.modalities), 'karmma encoder')
    most = most_bytes(network)

    def graph(path: Path, threads: int) -> Graph:
        content = _checked(path, most)
        return with_threads(lambda n: _OnnxGraph(path, content, n, beside), threads)

    return assemble(export, network, graph, threads)


def quantise(
    source: Path, target: Path, feeds: Iterable[Mapping[str, NDArray[np.float32]]]
) -> None:
    """
    Turn the products with weights of a graph into int8.

    Ranges are the largest values met: symmetric and per channel for weights, asymmetric for
    activations, since half of a symmetric range would be unused behind a ReLU. Where the
    products of this processor saturate, seven of the eight bits are used.

    :param feeds: name of an input → its value, for each calibration run.

    :raises InvalidSettingError: when ONNX Runtime or onnx is not installed.
    """
    _require()
    import onnx
    from onnxruntime.quantization import (  # type: ignore[import-untyped]
        CalibrationDataReader,
        QuantFormat,
        quantize_static,
        QuantType,
    )

    graph = onnx.load(str(source)).graph
    weights = {tensor.name for tensor in graph.initializer}

    class Reader(CalibrationDataReader):
        left = iter(feeds)

        def get_next(self) -> Mapping[str, NDArray[np.float32]] | None:
            return next(self.left, None)

    products = [node.name for node in graph.node if node.op_type in ('Conv', 'Gemm', 'MatMul')
                and any(given in weights for given in node.input)]
    logging.disable(logging.WARNING)  # it advises every user to prepare the graph, in vain here
    try:
        quantize_static(
            str(source), str(target), Reader(), quant_format=QuantFormat.QDQ, per_channel=True,
            activation_type=QuantType.QUInt8, weight_type=QuantType.QInt8,
            reduce_range=_products_saturate(),
            nodes_to_quantize=products,
            extra_options={'ActivationSymmetric': False, 'WeightSymmetric': True})
    finally:
        logging.disable(logging.NOTSET)


def _products_saturate() -> bool:
    """
    Whether sums of two int8 products are cut to 16 bits, as on x86 without VNNI.

    ONNX Runtime documents it, and OpenVINO computes likewise: with full ranges a small network
    was 124 % off on a processor with AVX2 alone.
    """
    if platform.machine().lower() not in ('x86_64', 'amd64'):
        return False
    try:
        return 'vnni' not in Path('/proc/cpuinfo').read_text(encoding='utf-8')
    except OSError:  # an unknown processor: seven bits are right on all
        return True


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # type: ignore[import-untyped] # noqa: F401
    except ImportError as error:
        raise InvalidSettingError(
            'backend', ONNXRUNTIME, 'eager, compiled, or one that is installed',
            f'pip install onnxruntime onnx ({error})') from error


class _OnnxGraph:
    def __init__(
        self, path: Path, content: bytes, threads: int, beside: ThreadPoolExecutor
    ) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = threads, _ERRORS_ONLY
        # Threads that spin between two runs would take the processor from the other encoders.
        options.add_session_config_entry('session.intra_op.allow_spinning', '0')
        try:
            self._session = onnxruntime.InferenceSession(
                content, options, providers=['CPUExecutionProvider'])
            self._beside = beside
            self._bind({})
        except Exception as error:  # its own classes are not public
            raise _refused(path, error) from error

    def on(self, buffers: Mapping[str, NDArray[Any]]) -> Graph:
        other = _OnnxGraph.__new__(_OnnxGraph)
        other._session, other._beside = self._session, self._beside
        other._bind({**self.inputs, **self.outputs, **buffers})
        return other

    def _bind(self, given: Mapping[str, NDArray[Any]]) -> None:
        """Bind these buffers, and new ones for ports without."""
        self._running: Future[None] | None = None
        self._binding = self._session.io_binding()
        self.inputs: dict[str, NDArray[Any]] = {}
        self.outputs: dict[str, NDArray[Any]] = {}
        for ports, buffers, bind in (
                (self._session.get_inputs(), self.inputs, self._binding.bind_input),
                (self._session.get_outputs(), self.outputs, self._binding.bind_output)):
            for port in ports:
                x = given.get(port.name)
                buffers[port.name] = x = _buffer(port) if x is None else x
                bind(port.name, 'cpu', 0, x.dtype, x.shape, x.ctypes.data)

    def start(self) -> None:
        self._running = self._beside.submit(self._session.run_with_iobinding, self._binding)

    def wait(self) -> None:
        if self._running is not None:
            self._running.result()
            self._running = None

    def run(self) -> None:
        self._session.run_with_iobinding(self._binding)


def _buffer(port: Any) -> NDArray[Any]:
    if not all(isinstance(side, int) for side in port.shape):
        raise ValueError(f'{port.name} has the size {port.shape}')
    return np.zeros(port.shape, _TYPES[port.type])


def _checked(path: Path, most: int = 2**31) -> bytes:
    """
    Read a graph of at most `most` bytes, and refuse what `write_graphs` does not make.

    A model from elsewhere shall neither stop a robot nor make it read other files.
    """
    try:
        content = read_regular(path, most)
        check_onnx(content)
    except Exception as error:  # the parser's own classes are not public
        raise _refused(path, error) from error
    return content


def _refused(path: Path, error: Exception) -> BundleError:
    return BundleError(path, f'cannot be run ({first_line(error)})', remedy(ONNXRUNTIME))
