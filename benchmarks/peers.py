"""
Time video networks of others beside our students: one live prediction from a camera alone.

Random weights, each network at its own input size, in PyTorch eager and exported, one process,
in turns. A network of clips encodes its complete clip for each prediction; one of a stream its new
frames: a robot that predicts 8 times a second gives our students two of their 16 frames a second,
and CoX3D and MoViNet, which see 5 or 6 frames a second, one. Decoding and preparing the frames
are left out. The weights do not change what is timed; accuracies are those that are published.

`--prepare` only makes what is timed, which takes minutes; networks and exports are kept in
`.cache/peers`.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
import gc
import json
from pathlib import Path
import statistics
import time
from typing import Any

from exported import exported, noise
from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.evaluation.cost import count_operations, setting
from karmma_ros.modality import Modality
from karmma_ros.model.backends.agreement import check_clip
from karmma_ros.model.backends.interface import Backend, EAGER, Input
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.backends.selection import read_export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle, load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.imports.pytorchvideo import pytorchvideo_model
from karmma_ros.model.imports.torchvision_video import classifier_config
from karmma_ros.model.presets import only, preset
from karmma_ros.model.streaming import EagerParts, newest
from karmma_ros.prediction import Vocabulary
import torch

V = Modality.RGB
CACHE = Path('.cache/peers')
EXPORTS = ('openvino fp32', 'openvino bf16')
KINETICS_400, KINETICS_600 = (
    Vocabulary({'action': tuple(map(str, range(n)))}) for n in (400, 600))
_STREAM = 8
"""Frames of a clip of a network of a stream, whose next frame is timed; a step does not depend on
them."""
_TRIAL_S = 0.3
"""A fast network is run repeatedly for so long in each turn."""


@dataclass(frozen=True)
class Peer:
    """A network of RGB alone, and the new frames of one prediction."""

    name: str
    config: ModelConfig
    spec: ClipSpec
    vocabulary: Vocabulary
    hop: int = 1
    exports: Sequence[str] = EXPORTS


def peers() -> list[Peer]:
    """Return the networks, ours last."""
    return [*_of_torchvision(), _resnet(), *_x3d(), *_movinets(), *_students()]


def _of_torchvision() -> Iterator[Peer]:
    for name, frames, side in (
            ('swin3d_t', 32, 224), ('mvit_v2_s', 16, 224), ('s3d', 16, 224),
            ('r2plus1d_18', 16, 112)):
        encoder = EncoderConfig(f'torchvision:{name}', {'classifier_tokens': True})
        yield Peer(
            name, classifier_config(name, encoder), _spec(frames, 15, side), KINETICS_400,
            exports=() if name.startswith('mvit') else EXPORTS)  # its attention is no graph


def _resnet() -> Peer:
    """Return TSM's network of one frame: shifted channels cost no operations."""
    encoder = EncoderConfig('timm:resnet50', {'classifier_tokens': True})
    return Peer('tsm_resnet50', classifier_config('tsm', encoder), _spec(1, 8, 224), KINETICS_400)


def _x3d() -> Iterator[Peer]:
    for name in ('x3d_s', 'x3d_m', 'cox3d_s', 'cox3d_m'):
        model = pytorchvideo_model(name)
        own, streams = model.spec, name.startswith('co')
        spec = _spec(_STREAM, own.num_frames / own.duration, own.video.height) if streams else own
        yield Peer(name, model.config, spec, KINETICS_400)


def _movinets() -> Iterator[Peer]:
    for variant, side in (('a0', 172), ('a2', 224)):
        encoder = EncoderConfig('movinet', {'variant': variant, 'classifier_tokens': True})
        name = f'movinet_{variant}_stream'
        yield Peer(name, classifier_config(name, encoder), _spec(_STREAM, 5, side), KINETICS_600)


def _students() -> Iterator[Peer]:
    spec, vocabulary = setting('karmma_student')
    for name in ('karmma_student', 'karmma_student_stream', 'karmma_student_causal',
                 'karmma_student_movinet'):
        yield Peer(name, only(preset(name), [V]), spec, vocabulary, hop=2)


def _spec(frames: int, rate: float, side: int) -> ClipSpec:
    return ClipSpec(frames / rate, frames, VideoSpec(side, side))


class Subject:
    """
    What runs a network.

    :param clip: an input; streams were given it before.
    """

    def __init__(self, backend: Backend, clip: dict[Modality, Input], hop: int) -> None:
        self._backend, self._clip = backend, clip
        self._newest = None if backend.parts is None else newest(backend.parts, clip, hop)

    def predict(self) -> None:
        """Make one prediction from prepared frames."""
        if self._newest is None:
            self._backend.infer(self._clip)
        else:
            self._backend.fuse(self._newest())


def main() -> None:
    """Make what is timed, or time it; print or write the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--prepare', action='store_true', help='make networks and exports only')
    parser.add_argument('--rounds', type=int, default=5, help='turns of each network [5]')
    parser.add_argument('--peers', nargs='+', metavar='NAME', choices=[p.name for p in peers()],
                        help='these only [all]')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    options = parser.parse_args()
    chosen = [p for p in peers() if not options.peers or p.name in options.peers]
    for peer in chosen:
        for words in peer.exports:
            bundle = _bundle(peer)
            exported(bundle, words, lambda bundle=bundle: noise(bundle))
            print(f'{peer.name}, {words}: exported', flush=True)
            gc.collect()
    if options.prepare:
        return
    figures = measure(chosen, options.rounds)
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures), encoding='utf-8')


def measure(chosen: Sequence[Peer], rounds: int) -> dict[str, Any]:
    """
    Time all in turns, so that other load of the machine affects all.

    :returns: `networks`: name → GFLOPs of a prediction, parameters, and what runs it →
        milliseconds, the median.
    """
    subjects = {(peer.name, label): subject
                for peer in chosen for label, subject in _subjects(peer)}
    times: dict[tuple[str, str], list[float]] = {key: [] for key in subjects}
    for subject in subjects.values():
        subject.predict()
    for _ in range(rounds):
        for key, subject in subjects.items():
            times[key].append(_seconds(subject.predict))
    networks = {}
    for peer in chosen:
        operations, parameters = cost_of(peer)
        networks[peer.name] = {
            'gflops': operations / 1e9, 'parameters_m': parameters / 1e6,
            'input': f'{peer.spec.num_frames} x {peer.spec.video.height}',
            'ms': {label: 1e3 * statistics.median(own)
                   for (name, label), own in times.items() if name == peer.name}}
    return {'networks': networks, 'threads': torch.get_num_threads()}


def _seconds(predict: Callable[[], None]) -> float:
    """Return the median time of predictions for a moment, at least of one."""
    own: list[float] = []
    while not own or sum(own) < _TRIAL_S:
        before = time.perf_counter()
        predict()
        own.append(time.perf_counter() - before)
    return statistics.median(own)


def _subjects(peer: Peer) -> Iterator[tuple[str, Subject]]:
    bundle = _bundle(peer)
    clip = check_clip(bundle.spec, [V])
    yield EAGER, Subject(Eager(bundle.network), clip, peer.hop)
    for words in peer.exports:
        export_ = exported(bundle, words, lambda: noise(bundle))
        yield export_.label, Subject(read_export(bundle, export_), clip, peer.hop)


def _bundle(peer: Peer) -> Bundle:
    """Read a network, or write one with random weights."""
    path = CACHE / peer.name
    if not (path / 'config.json').is_file():
        torch.manual_seed(0)
        network = build(peer.config, peer.spec, peer.vocabulary)
        with torch.no_grad():
            for name, weights in network.named_parameters():
                if name.endswith('.alpha'):  # MoViNet's start is zero, which a runtime may skip
                    weights.fill_(0.5)
        save_bundle(path, network, peer.config, peer.spec, peer.vocabulary,
                    dataset='none: random weights', card='')
    return load_bundle(path)


def cost_of(peer: Peer) -> tuple[int, int]:
    """Count the operations of one prediction, and the parameters."""
    with torch.device('meta'):
        network = build(peer.config, peer.spec, peer.vocabulary).eval()
    clip = check_clip(peer.spec, [V])
    parts = EagerParts(network, 'meta')
    tokens = newest(parts, clip, peer.hop)
    operations, _ = count_operations(lambda: network.fuse(tokens()))
    return operations, sum(p.numel() for p in network.parameters())


if __name__ == '__main__':
    main()
