"""Exported graphs in OpenVINO, on the processor."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from pathlib import Path
import sys
from typing import Any

from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.modality import is_modality
from karmma_ros.model.backends.exported import (
    assemble,
    Exported,
    most_bytes,
    with_threads,
)
from karmma_ros.model.backends.exports import Export, remedy
from karmma_ros.model.backends.graph_memory import check_memory
from karmma_ros.model.backends.graphs import FUSION, INPUT, KEPT, LOGITS, PAST, PRESENT, TOKENS
from karmma_ros.model.backends.interface import BF16, FP32, Graph, OPENVINO
from karmma_ros.model.backends.openvino_check import check_ir, steps_of
from karmma_ros.model.fusion import ConcatenatedHeads
from karmma_ros.model.karmma import Karmma
import numpy as np
from numpy.typing import NDArray

_HINT = {FP32: 'f32', BF16: 'bf16'}


def load_openvino(
    export: Export, network: Karmma, threads: int, full: bool = False
) -> Exported:
    """
    Compile an export of a network for this processor.

    A processor without bf16 computes such graphs in fp32. One with it uses it also for what is
    not quantised in int8 graphs.

    :param full: compute in fp32, whatever the export's weights are stored in.
    :raises InvalidSettingError: when OpenVINO is not installed.
    :raises BundleError: when the graphs cannot be read, or are not of this network.
    """
    core = _core()
    wanted = FP32 if full or export.precision == FP32 else _fastest(core)
    most = most_bytes(network)

    def graph(path: Path, threads: int) -> Graph:
        model = _read(core, path, most)
        hint = _HINT[FP32 if is_sensitive(path.stem, network) else wanted]
        return with_threads(lambda n: _OpenVinoGraph(core, model, path, hint, n), threads)

    return assemble(export, network, graph, threads)


def is_sensitive(name: str, network: Karmma) -> bool:
    """
    Return whether a graph stays in fp32: that of a fusion block below concatenated heads.

    Those of nearest class means subtract large numbers: bf16 changed logits by 5 % of their range.
    """
    return name == FUSION and isinstance(network.heads, ConcatenatedHeads)


def compile_graph(source: Path, threads: int, precision: str = BF16) -> Graph:
    """
    Compile an ONNX graph that this process has just written, in bf16 where the processor has it.

    :param precision: or fp32.
    :raises InvalidSettingError: when OpenVINO is not installed.
    """
    core = _core()
    import openvino  # type: ignore[import-untyped]

    model = openvino.convert_model(source)
    hint = _HINT[precision if precision == FP32 else _fastest(core)]
    return with_threads(lambda n: _OpenVinoGraph(core, model, source, hint, n), threads)


def _fastest(core: Any) -> str:
    return BF16 if 'BF16' in core.get_property('CPU', 'OPTIMIZATION_CAPABILITIES') else FP32


def write_openvino(source: Path, target: Path, half: bool) -> None:
    """
    Translate an ONNX graph.

    :param half: store weights in 16 bits: bf16 uses no more, and the file has half the size.
    """
    _core()  # raises when it is not installed
    import openvino

    # Not Core.read_model: what can be computed here once need not be at every start of a robot.
    model = openvino.convert_model(source)
    openvino.save_model(model, target, compress_to_fp16=half)


def _core() -> Any:
    # On import OpenVINO sends telemetry to its makers; a robot shall send none.
    sys.modules.setdefault('openvino_telemetry', None)  # type: ignore[arg-type]
    try:
        import openvino
    except ImportError as error:
        raise InvalidSettingError(
            'backend', OPENVINO, 'eager, compiled, or one that is installed',
            f'pip install openvino ({error})') from error
    return _one_core(openvino)


@cache
def _one_core(openvino: Any) -> Any:
    # One for the whole process. OpenVINO gives the thread that loads its first core another stack
    # for signals, and frees it with the last core, in whichever thread that is. A node whose model
    # was changed would crash at the next SIGINT.
    return openvino.Core()


class _OpenVinoGraph:
    def __init__(self, core: Any, model: Any, path: Path, hint: str, threads: int) -> None:
        config = {'INFERENCE_PRECISION_HINT': hint, 'NUM_STREAMS': 1,
                  'INFERENCE_NUM_THREADS': threads, 'ENABLE_CPU_PINNING': False}
        try:
            compiled = core.compile_model(model, 'CPU', config)
        except (RuntimeError, ValueError) as error:
            raise _refused(path, error) from error
        self._bind(compiled, {})

    def on(self, buffers: Mapping[str, NDArray[Any]]) -> Graph:
        other = _OpenVinoGraph.__new__(_OpenVinoGraph)
        other._bind(self._compiled, {**self.inputs, **self.outputs, **buffers})
        return other

    def _bind(self, compiled: Any, given: Mapping[str, NDArray[Any]]) -> None:
        """Make a request on these buffers, and on new ones for ports without."""
        self._compiled, self._request = compiled, compiled.create_infer_request()
        self.inputs: dict[str, NDArray[Any]] = {}
        self.outputs: dict[str, NDArray[Any]] = {}
        for ports, buffers in (
                (compiled.inputs, self.inputs), (compiled.outputs, self.outputs)):
            for port in ports:
                name = _name(port)
                buffer = given.get(name)
                if buffer is None:
                    buffer = np.zeros(tuple(port.shape), port.element_type.to_dtype())
                buffers[name] = buffer
                self._request.set_tensor(port, _shared(buffer))

    def start(self) -> None:
        self._request.start_async()

    def wait(self) -> None:
        self._request.wait()

    def run(self) -> None:
        self._request.infer(share_outputs=True)  # copies nothing


def _shared(buffer: NDArray[Any]) -> Any:
    import openvino

    return openvino.Tensor(buffer, shared_memory=True)


def _name(port: Any) -> str:
    """Find the name that we gave among those that OpenVINO adds, which are numbers or paths."""
    names = port.get_names()
    ours = {n for n in names if n in (INPUT, TOKENS, PRESENT) or is_modality(n)}
    ours = ours or {n for n in names if n.startswith((LOGITS, PAST, KEPT))}
    return next(iter(ours), port.any_name)


def _read(core: Any, path: Path, most: int) -> Any:
    """
    Read a graph, and refuse what `write_graphs` does not make.

    A model from elsewhere shall not stop a robot: the file is checked before OpenVINO reads it,
    and the sizes that it has found before anything is computed.
    """
    try:
        size = check_ir(path, path.with_suffix('.bin'), most)
        model = core.read_model(path)
        check_memory(steps_of(model), size)
    except (RuntimeError, ValueError, ArithmeticError, OSError, LookupError, TypeError) as error:
        raise _refused(path, error) from error
    return model


def _refused(path: Path, error: Exception) -> BundleError:
    first = (str(error).strip() or type(error).__name__).splitlines()[-1]
    return BundleError(path, f'cannot be run ({first})', remedy(OPENVINO))
