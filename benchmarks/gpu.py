"""
The backends on a GPU: time of an answer, and what of the card's arithmetic is reached.

`python benchmarks/gpu.py` times eager PyTorch and CUDA graphs in bf16, in turns, for the shipped
architecture and the paper's student, both with random weights, from inputs in the host's memory
to logits there. Without a GPU it says so and measures nothing.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
import json
from pathlib import Path
import statistics
import sys
import time
from typing import Any

from karmma_ros.evaluation.cost import cost_of, setting
from karmma_ros.modality import parse_subset, subset_name
from karmma_ros.model.backends.agreement import answers, check_clip, difference, TOLERANCE
from karmma_ros.model.backends.eager import Eager
from karmma_ros.model.backends.interface import Backend
from karmma_ros.model.backends.selection import compiled
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.presets import preset
import torch

PRESETS = ('tiny', 'karmma_student')


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write, the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='few rounds')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    parser.add_argument('--device', default='cuda:0', help='cpu shows that it works [cuda:0]')
    options = parser.parse_args(arguments)
    found: dict[str, Any] = {'device': ''}
    if options.device == 'cpu' or torch.cuda.is_available():
        rounds = 3 if options.quick else 50
        found['device'] = 'processor' if options.device == 'cpu' else (
            torch.cuda.get_device_name(options.device))
        found['models'] = {name: _model(name, options.device, rounds) for name in PRESETS}
    print(json.dumps(found, indent=1) if found['device'] else 'no GPU was there')
    if options.json:
        options.json.write_text(json.dumps(found), encoding='utf-8')
    return 0


def _model(name: str, device: str, rounds: int) -> dict[str, Any]:
    """Give backend → subset → milliseconds and GFLOP/s; the difference from eager as well."""
    bundle = _bundle(name)
    backends: dict[str, Backend] = {'eager fp32': Eager(bundle.network, device)}
    if device != 'cpu':
        backends['CUDA graphs bf16'] = compiled(bundle, device)
    clip = check_clip(bundle.spec, bundle.network.modalities)
    wanted, gflops = answers(backends['eager fp32'], clip), cost_of(name).gflops
    found: dict[str, Any] = {}
    for label, backend in backends.items():
        off = difference(answers(backend, clip), wanted)
        found[label] = {'difference': off, 'agrees': off <= TOLERANCE[backend.precision]}
    names = dict.fromkeys([subset_name(bundle.network.modalities), 'V'])
    times: dict[tuple[str, str], list[float]] = {(b, s): [] for b in backends for s in names}
    for _ in range(rounds):
        for label, subset in times:
            inputs = {m: clip[m] for m in parse_subset(subset)}
            started = time.perf_counter()
            backends[label].infer(inputs)  # logits are on the host when it returns
            times[label, subset].append(time.perf_counter() - started)
    for (label, subset), taken in times.items():
        seconds = statistics.median(taken)
        found[label][subset] = {'ms': 1e3 * seconds, 'gflops_per_second': gflops[subset] / seconds}
    return found


def _bundle(name: str) -> Bundle:
    torch.manual_seed(0)
    (spec, vocabulary), config = setting(name), preset(name)
    return Bundle(build(config, spec, vocabulary).eval(), config, spec, vocabulary, name,
                  'none: random weights', {}, Path(), '')


if __name__ == '__main__':
    sys.exit(main())
