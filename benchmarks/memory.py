"""
Memory for one inference: the paper's student beside its teacher, each in a fresh process.

`python benchmarks/memory.py` measures by how much a process grows at its largest while it builds
the network and runs it once, on V, F and A, in eager PyTorch (as `karmma profile --memory`
does); the student as the node loads it, with its OpenVINO export, which is made first; and what
one of its compiled encoders holds. Weights are random: memory does not depend on them.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from importlib.util import find_spec
import json
from pathlib import Path
import subprocess
import sys
from typing import Any

from karmma_ros.clip import Clip
from karmma_ros.evaluation.cost import resident_bytes, setting, tensor_bytes
from karmma_ros.modality import parse_subset
from karmma_ros.model.backends.export import export
from karmma_ros.model.backends.exports import Export
from karmma_ros.model.backends.interface import BF16, OPENVINO
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import preset
from karmma_ros.node.model_loader import load_model
import numpy as np
import torch

STUDENT, TEACHER, SENSORS = 'karmma_student', 'karmma_teacher', 'V+F+A'
FOLDER = Path(__file__).resolve().parents[1] / 'build' / 'bench' / 'models'


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write, bytes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='audio alone, and no export')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    parser.add_argument('--child', choices=[*_CHILDREN], help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        print(json.dumps(_CHILDREN[options.child]()))
        return 0
    results = measure('A' if options.quick else SENSORS, with_node=not options.quick)
    print(json.dumps(results, indent=1))
    if options.json:
        options.json.write_text(json.dumps(results), encoding='utf-8')
    return 0


def measure(subset: str, with_node: bool) -> dict[str, Any]:
    """Return megabytes: of the process at its most, of tensors alone; `kept` stays afterwards."""
    modalities = parse_subset(subset)
    results: dict[str, Any] = {'sensors': subset, 'peak_mb': {}, 'tensors_mb': {}}
    for name in (TEACHER, STUDENT):
        print(f'memory: {name} …', file=sys.stderr, flush=True)
        results['peak_mb'][name] = resident_bytes(name, modalities) / 1e6
        results['tensors_mb'][name] = tensor_bytes(name, modalities) / 1e6
    if with_node:
        for step in ('write', 'export') if find_spec('openvino') else ('write',):
            print(f'memory: {STUDENT}, {step} …', file=sys.stderr, flush=True)
            _apart(step)
        results['node'] = _apart('node')
        if find_spec('openvino'):
            results['graph'] = _apart('graph')
    return results


def _apart(child: str) -> Any:
    """Run one measurement in a fresh process, so that its memory is its own."""
    done = subprocess.run([sys.executable, __file__, '--child', child], check=True, text=True,
                          stdout=subprocess.PIPE)
    return json.loads(done.stdout.splitlines()[-1])


def _write() -> None:
    """Write the student with random weights, unless it is there."""
    if (FOLDER / STUDENT).exists():
        return
    torch.manual_seed(0)
    (spec, vocabulary), config = setting(STUDENT), preset(STUDENT)
    save_bundle(FOLDER / STUDENT, build(config, spec, vocabulary), config, spec, vocabulary,
                dataset='none: random weights', card='')


def _export() -> None:
    export(load_bundle(FOLDER / STUDENT), 'openvino', 'bf16', None)


def _node() -> dict[str, Any]:
    """Load the student as the node does and run it once."""
    from fault_suite.proc import peak_bytes, usage

    (spec, vocabulary), config = setting(STUDENT), preset(STUDENT)
    with torch.device('meta'):  # what it imports is no part of the network
        build(config, spec, vocabulary)
    before = usage().rss
    model = load_model(str(FOLDER / STUDENT), 'cpu', 'auto')
    model.recogniser.recognise(Clip({
        m: np.zeros(spec.input_shape(m), np.float32) for m in model.recogniser.modalities}))
    return {'backend': f'{model.recogniser.backend.name} {model.recogniser.backend.precision}',
            'peak_mb': (peak_bytes() - before) / 1e6, 'kept_mb': (usage().rss - before) / 1e6}


def _graph() -> dict[str, float]:
    """Measure what one compiled encoder of the student holds, and what it takes to run."""
    from fault_suite.proc import usage
    import openvino

    path = Export(OPENVINO, BF16, FOLDER / STUDENT / 'exports' / 'openvino_bf16').graph('rgb')
    core = openvino.Core()
    core.get_property('CPU', 'FULL_DEVICE_NAME')  # what it loads for that is no part of the graph
    before = usage().rss
    compiled = core.compile_model(
        path, 'CPU', {'INFERENCE_PRECISION_HINT': 'bf16', 'NUM_STREAMS': 1})
    loaded_bytes = usage().rss
    compiled.create_infer_request().infer()
    sizes = {'f16': 0, 'f32': 0}
    for operator in compiled.get_runtime_model().get_ops():
        info = operator.get_rt_info()
        if info['layerType'].astype(str) == 'Const':
            precision = info['runtimePrecision'].astype(str)
            size = sum(np.prod(o.get_shape()) * o.get_element_type().size
                       for o in operator.outputs())
            sizes[precision] = sizes.get(precision, 0) + int(size)
    return {'held_mb': (loaded_bytes - before) / 1e6,
            'inference_mb': (usage().rss - loaded_bytes) / 1e6,
            'weights_mb': sizes['f16'] / 1e6, 'biases_mb': sizes['f32'] / 1e6}


_CHILDREN = {'graph': _graph, 'write': _write, 'export': _export, 'node': _node}

if __name__ == '__main__':
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / 'test' / 'faults'))
    sys.exit(main())
