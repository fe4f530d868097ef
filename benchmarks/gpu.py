"""
The backends on a GPU: time of an inference, fraction of the card's peak rate, memory.

`python benchmarks/gpu.py` times eager PyTorch and CUDA graphs in bf16, in turns, for the shipped
architecture and the paper's student, from inputs in the host's memory to logits there; then the
paper's student on batches of 1 to 64 clips that lie on the card; and by how much the card's memory
grows for one inference of the paper's teacher and student. Weights are random. The card's
arithmetic is the rate at which it multiplies large bf16 matrices. Without a GPU it reports so and
measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
import json
from pathlib import Path
import statistics
import sys
import time
from typing import Any

from karmma_ros.evaluation.cost import cost_of, setting
from karmma_ros.modality import Modality, parse_subset, subset_name
from karmma_ros.model.backends.agreement import check_clip, difference, predict_subsets, TOLERANCE
from karmma_ros.model.backends.interface import Backend, BF16
from karmma_ros.model.backends.pytorch import Captured, Eager
from karmma_ros.model.backends.selection import compiled
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import only, preset
import torch
from torch import Tensor

STUDENT, TEACHER, SENSORS = 'karmma_student', 'karmma_teacher', 'V+F+A'
PRESETS = ('tiny', STUDENT)
BATCHES = (1, 2, 4, 8, 16, 32, 64)


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write, the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='few rounds, tiny alone')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    parser.add_argument('--device', default='cuda:0', help='cpu shows that it works [cuda:0]')
    options = parser.parse_args(arguments)
    available = options.device == 'cpu' or torch.cuda.is_available()
    results = measure(options.device, options.quick) if available else {'device': ''}
    print(json.dumps(results, indent=1) if available else 'no GPU was there')
    if options.json:
        options.json.write_text(json.dumps(results), encoding='utf-8')
    return 0


def measure(device: str, quick: bool) -> dict[str, Any]:
    """Return every figure of a device; memory is known of a GPU alone."""
    on_gpu, rounds = device != 'cpu', 3 if quick else 50
    names = PRESETS[:1] if quick else PRESETS
    return {
        'device': torch.cuda.get_device_name(device) if on_gpu else 'processor',
        'product_gflops_per_second': product_rate(device, 8192 if on_gpu else 512),
        'models': {name: _model(name, device, rounds) for name in names},
        'batches': {'network': names[-1], 'sizes': _batches(
            names[-1], device, BATCHES[:2] if quick else BATCHES, rounds)},
        'memory_mb': {name: _memory(name, device) for name in (TEACHER, STUDENT)}
        if on_gpu else {},
    }


def product_rate(device: str, side: int) -> float:
    """Measure how fast a device multiplies bf16 matrices, billions of operations a second."""
    a = torch.randn(side, side, device=device).bfloat16()
    return 2 * side**3 / _seconds(lambda: a @ a, device, 10) / 1e9


def _model(name: str, device: str, rounds: int) -> dict[str, Any]:
    """Return backend → subset → milliseconds and GFLOP/s; the difference from eager as well."""
    bundle = _bundle(name)
    backends: dict[str, Backend] = {'eager fp32': Eager(bundle.network, device)}
    if device != 'cpu':
        backends['CUDA graphs bf16'] = compiled(bundle, device)
    clip = check_clip(bundle.spec, bundle.network.modalities)
    wanted, gflops = predict_subsets(backends['eager fp32'], clip), cost_of(name).gflops
    results: dict[str, Any] = {}
    for label, backend in list(backends.items()):
        off = difference(predict_subsets(backend, clip), wanted)
        results[label] = {'difference': off, 'seconds': {}}
        if off > TOLERANCE[backend.precision]:  # what is wrong is not timed
            del backends[label]
    subsets = dict.fromkeys([subset_name(bundle.network.modalities), 'V'])
    times: dict[tuple[str, str], list[float]] = {(b, s): [] for b in backends for s in subsets}
    for _ in range(rounds):
        for label, subset in times:
            inputs = {m: clip[m] for m in parse_subset(subset)}
            started = time.perf_counter()
            backends[label].infer(inputs)  # logits are on the host when it returns
            times[label, subset].append(time.perf_counter() - started)
    for (label, subset), taken in times.items():
        results[label]['seconds'][subset] = _timed(statistics.median(taken), gflops[subset])
    return results


def _batches(
    name: str, device: str, sizes: Sequence[int], rounds: int
) -> dict[str, dict[int, dict[str, float]]]:
    """Return how it is run → clips in a batch → milliseconds and GFLOP/s, all sensors."""
    bundle, results = _bundle(name), {}
    network, modalities = bundle.network.to(device), bundle.network.modalities
    gflops = cost_of(name).gflops[subset_name(modalities)]
    for size in sizes:
        clip = check_clip(bundle.spec, modalities)
        x = [torch.from_numpy(clip[m]).to(device).repeat_interleave(size, 0) for m in modalities]
        for label, run in _ways(network, modalities, x, device):
            try:
                taken = _seconds(run, device, max(3, rounds // size))
            except torch.OutOfMemoryError:
                continue
            results.setdefault(label, {})[size] = _timed(taken, size * gflops)
        torch.cuda.empty_cache()
    return results


def _ways(
    network: Karmma, modalities: tuple[Modality, ...], inputs: list[Tensor], device: str
) -> Iterator[tuple[str, Callable[[], Any]]]:
    """Return the ways to classify a batch on the device."""
    def classify(*x: Tensor) -> Mapping[str, Tensor]:
        with torch.inference_mode():
            return network.fuse({m: network.encode(m, own) for m, own in zip(modalities, x)})

    def in_bf16() -> Mapping[str, Tensor]:
        with torch.autocast(torch.device(device).type, torch.bfloat16):
            return classify(*inputs)

    yield 'eager fp32', lambda: classify(*inputs)
    yield f'eager {BF16}', in_bf16
    if device != 'cpu':
        try:
            graph = Captured(classify, inputs)
        except RuntimeError as error:  # out of memory, or something in it waits for the GPU
            print(f'no CUDA graph of {len(inputs[0])} clips: {error}', file=sys.stderr)
            return
        yield f'CUDA graph {BF16}', graph.replay


def _memory(name: str, device: str) -> float:
    """Return by how much the card's memory grows at its most for one inference, fp32."""
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    before, chosen = torch.cuda.memory_allocated(device), parse_subset(SENSORS)
    bundle = _bundle(name, replace(only(preset(name), chosen), missing='omit'))
    Eager(bundle.network, device).infer(check_clip(bundle.spec, chosen))
    return (torch.cuda.max_memory_allocated(device) - before) / 1e6


def _seconds(run: Callable[[], Any], device: str, rounds: int) -> float:
    """Return the median time of one run, all work on the device done."""
    def wait() -> None:
        if device != 'cpu':
            torch.cuda.synchronize(device)

    run()
    times = []
    for _ in range(rounds):
        wait()
        started = time.perf_counter()
        run()
        wait()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def _timed(seconds: float, gflops: float) -> dict[str, float]:
    return {'ms': 1e3 * seconds, 'gflops_per_second': gflops / seconds}


def _bundle(name: str, config: ModelConfig | None = None) -> Bundle:
    torch.manual_seed(0)
    (spec, vocabulary), config = setting(name), config or preset(name)
    return Bundle(build(config, spec, vocabulary).eval(), config, spec, vocabulary, name,
                  'none: random weights', {}, Path(), '')


if __name__ == '__main__':
    sys.exit(main())
