"""
The graph of the causal encoder: with its state as one tensor a stage, and frame by frame.

`python benchmarks/causal_graphs.py` times the video encoder of `karmma_student_causal` in
OpenVINO, random weights, two new frames: as exports had it before, where each stage joins its past
with the frame and slices the sum, one run for each frame; and as `karmma export` writes it, where
each frame of the past is an input of its own, in one run for both. Turns alternate.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from functools import reduce
import json
from pathlib import Path
import statistics
import tempfile
from typing import Any

from karmma_ros.evaluation.cost import count_operations, setting
from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.encoder_state import EncoderState
from karmma_ros.model.backends.graphs import (
    FRAMES_AT_ONCE,
    graph_name,
    write_encoder,
    write_stateful,
)
from karmma_ros.model.backends.interface import BF16, FP32
from karmma_ros.model.backends.openvino_runtime import compile_graph
from karmma_ros.model.builder import build
from karmma_ros.model.karmma import Karmma
from karmma_ros.model.presets import only, preset
from streaming_live import seconds
import torch
from torch import nn, Tensor

_NEW = 2
"""New frames of a prediction: 8 a second at the paper's 16 frames."""


class _Joined(nn.Module):
    """The encoder for one frame, its state joined to one tensor a stage, as exports had it."""

    def __init__(self, network: Karmma) -> None:
        super().__init__()
        self.network = network
        self.encoder: Any = network.encoders['rgb']

    def forward(self, x: Tensor, *past: Tensor) -> tuple[Tensor, ...]:
        x, kept = self.encoder._stem(x[:, :, 0]), []
        for stage, mixer, before in zip(self.encoder._stages(), self.encoder.mixers, past):
            x = stage(x)[:, None]  # [1, 1, c, h, w]
            seen = torch.cat([before, x], dim=1)
            mixed = reduce(torch.add, (
                seen[:, i:i + 1] * weight[:, None, None]
                for i, weight in enumerate(mixer.weight)))
            x = (x + mixer.spread(torch.relu(mixer.norm(mixed[:, 0])))[:, None])[:, 0]
            kept.append(seen[:, 1:])
        tokens = self.encoder.pool(x).flatten(2).transpose(1, 2)
        return self.network.embed_part(Modality.RGB, tokens), *kept


def main() -> None:
    """Time both and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=40, help='turns [40]')
    parser.add_argument('--threads', type=int, default=torch.get_num_threads())
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    options = parser.parse_args()
    torch.manual_seed(0)
    spec, vocabulary = setting('karmma_student_causal')
    network = build(only(preset('karmma_student_causal'), ['rgb']), spec, vocabulary).eval()
    figures = measure(network, check_clip(spec, [Modality.RGB])[Modality.RGB], options)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures), encoding='utf-8')


@torch.no_grad()
def measure(network: Karmma, clip: Any, options: argparse.Namespace) -> dict[str, Any]:
    """Return the operations and milliseconds for two frames, by graph and precision."""
    frames = torch.from_numpy(clip[:, :, :_NEW])
    _, past = network.encode_next(Modality.RGB, frames, None)
    operations, _ = count_operations(lambda: network.encode_next(Modality.RGB, frames, past))
    with tempfile.TemporaryDirectory() as folder:
        runs = dict(_subjects(network, clip, Path(folder), options.threads))
    times: dict[str, list[float]] = {label: [] for label in runs}
    for _ in range(options.rounds):
        for label, run in runs.items():
            times[label].append(seconds(run)[0])
    medians = {label: 1e3 * statistics.median(each) for label, each in times.items()}
    faster = {precision: medians[f'joined {precision}'] / medians[f'frames {precision}']
              for precision in (BF16, FP32)}
    return {'gflops': operations / 1e9, 'threads': options.threads, 'ms': medians,
            'times_as_fast': faster}


def _subjects(
    network: Karmma, clip: Any, folder: Path, threads: int
) -> Iterator[tuple[str, Callable[[], Any]]]:
    frames = clip[:, :, :_NEW]
    zeros = [torch.stack(part, 1).zero_()
             for part in network.encode_next(Modality.RGB, torch.from_numpy(frames), None)[1]]
    write_encoder(_Joined(network), joined := folder / 'joined.onnx',
                  torch.from_numpy(clip[:, :, :1]), *zeros)
    for count in FRAMES_AT_ONCE:
        write_stateful(network, Modality.RGB, clip, folder, count)
    for precision in (BF16, FP32):
        graph = compile_graph(joined, threads, precision)
        yield f'joined {precision}', lambda graph=graph: [graph.run() for _ in range(_NEW)]
        state = EncoderState({count: compile_graph(
            folder / f'{graph_name(Modality.RGB, count)}.onnx', threads, precision)
            for count in FRAMES_AT_ONCE})
        yield f'frames {precision}', lambda state=state: state.encode(frames)


if __name__ == '__main__':
    main()
