"""
Does the loader keep up with the training? Both are timed side by side, in turns.

`python benchmarks/training.py` makes what it needs in a temporary folder: clips of the synthetic
kitchen as `karmma train` reads them, and a recording in EPIC-Kitchens' layout (JPEGs of 456 x 256,
flow images, a WAV file), also as a data pack (`packs.py` compares both in detail). The step is
that of the `tiny` student, and with `--full` that of the paper's student, forward and backward, at
the batch sizes of the paper. On a GPU the step runs in bf16 there; the fraction of the card's peak
is printed if `--peak` gives it.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path
import platform
import statistics
import tempfile
import time

import cv2
from karmma_ros.cli.pack import QUALITY
from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Batch, Clips
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.data.synthetic_kitchen.dataset import CachedKitchen, write_split
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.data.synthetic_kitchen.vocabulary import Split, vocabulary
from karmma_ros.evaluation.cost import cost_of, setting
from karmma_ros.media.audio_file import AudioFile
from karmma_ros.media.frames import FlowFolder, FrameFolder
from karmma_ros.media.sources import FlowFromVideo
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.builder import build
from karmma_ros.model.presets import preset
from karmma_ros.training.loaders import EpochSampler, training_loader
from karmma_ros.training.module import OptimizerSettings, RecognitionModule
import numpy as np
from packs import packed
import soundfile
import torch

ROUNDS = 5


def main() -> None:
    """Time loaders and steps in turns and print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=4.0, help='of each timing [4]')
    parser.add_argument('--workers', type=int, default=1, help='processes of a loader [1]')
    parser.add_argument('--full', action='store_true', help="time the paper's student, too")
    parser.add_argument('--peak', type=float, default=0.0, help='of the card, bf16 TFLOP/s')
    options = parser.parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    with tempfile.TemporaryDirectory() as folder:
        kitchen = CachedKitchen(
            write_split(Path(folder) / 'kitchen', Split.TRAIN, 128, 0, clip_spec(), workers=2))
        recorded, computed = (recording(Path(folder) / name, name == 'computed')
                              for name in ('files', 'computed'))
        subjects = {
            'loader, synthetic kitchen, V+F+A+D': loading(kitchen, 32, options.workers),
            'loader, EPIC-Kitchens files, V+F+A': loading(recorded, 6, options.workers),
            'loader, EPIC-Kitchens files, F computed': loading(computed, 6, options.workers),
            'loader, a pack of EPIC-Kitchens files': loading(
                packed(recorded, Path(folder) / 'pack', QUALITY), 6, options.workers),
            'step, tiny student': stepping('tiny', kitchen, 32, device)}
        if options.full:
            subjects["step, paper's student"] = stepping('karmma_student', recorded, 6, device)
        rates = measure(subjects, options.seconds)
        subjects.clear()  # ends the loaders before their files go
    name = torch.cuda.get_device_name() if device == 'cuda' else platform.machine()
    print(f'torch {torch.__version__}, {torch.get_num_threads()} threads, {name}, '
          f'{options.workers} worker(s) a loader; median of {ROUNDS} rounds\n')
    print('| what | clips/s | worst to best |\n|---|---:|---:|')
    for what, measured in rates.items():
        print(f'| {what} | {statistics.median(measured):.1f} | {min(measured):.1f} – '
              f'{max(measured):.1f} |')
    report(rates, options.peak, device)


def report(rates: dict[str, list[float]], peak: float, device: str) -> None:
    """Report what bounds the training, and how busy the card is."""
    middle = {what: statistics.median(measured) for what, measured in rates.items()}
    ratio = middle['loader, synthetic kitchen, V+F+A+D'] / middle['step, tiny student']
    print(f'\nOne loader process feeds {ratio:.1f} times what the tiny student takes: '
          f'{"the step" if ratio > 1 else "the loader"} bounds.')
    full = middle.get("step, paper's student")
    if full is None:
        return
    ratio = middle['loader, EPIC-Kitchens files, V+F+A'] / full
    print(f"One loader process feeds {ratio:.2f} times what the paper's student takes.")
    if device == 'cuda':
        gflops = 3 * cost_of('karmma_student').gflops['V+F+A']
        busy = f', {100 * full * gflops / 1e3 / peak:.0f} % of its peak' if peak else ''
        print(f'{full * gflops / 1e3:.0f} TFLOP/s of {torch.cuda.get_device_name()}{busy}, '
              f'{torch.cuda.max_memory_allocated() / 1e9:.1f} GB')


def measure(
    subjects: dict[str, Callable[[], int]], seconds: float
) -> dict[str, list[float]]:
    """Run each for some seconds, in turns, so that a busy moment of the machine meets all."""
    for run in subjects.values():
        run()  # warm up
    rates: dict[str, list[float]] = {what: [] for what in subjects}
    for _ in range(ROUNDS):
        for what, run in subjects.items():
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                done += run()
            rates[what].append(done / (time.perf_counter() - began))
    return rates


def loading(clips: Clips, batch_size: int, workers: int) -> Callable[[], int]:
    """Return a function that loads a batch and returns its number of clips."""
    def endless() -> Iterator[Batch]:
        order = EpochSampler(len(clips), batch_size, seed=0)
        batches = training_loader(clips, PAPER_MODALITIES, order, 1, workers)
        for epoch in range(1_000_000):
            order.set_epoch(epoch)
            yield from batches

    source = endless()
    return lambda: len(next(source))


def stepping(name: str, clips: Clips, batch_size: int, device: str) -> Callable[[], int]:
    """Return what trains a step on one batch, again and again."""
    classes = vocabulary() if name == 'tiny' else setting(name)[1]
    spec = clip_spec() if name == 'tiny' else ClipSpec()
    network = build(preset(name), spec, classes).train().to(device)
    module = RecognitionModule(network, OptimizerSettings())
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    optimiser = torch.optim.AdamW(network.parameters())
    order = EpochSampler(len(clips), batch_size, seed=0)
    batch = next(iter(training_loader(clips, network.modalities, order, 1, 0))).to(device)
    count = iter(range(1_000_000_000))

    def step() -> int:
        with torch.autocast(device, torch.bfloat16):
            loss = module.training_step(batch, next(count))
        optimiser.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 2.0)
        optimiser.step()
        if device == 'cuda':
            torch.cuda.synchronize()
        return len(batch)

    return step


def recording(folder: Path, computed: bool, seconds: int = 8, fps: int = 60) -> SegmentDataset:
    """Write a recording in EPIC-Kitchens' layout and give clips of it."""
    for name in ('rgb', 'flow/u', 'flow/v'):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    frame = cv2.resize(rng.integers(0, 255, (32, 57, 3), np.uint8), (456, 256))
    for i in range(seconds * fps):
        name = f'frame_{i + 1:010d}.jpg'
        cv2.imwrite(str(folder / 'rgb' / name), np.roll(frame, 2 * i, 1))
        if i % 2 == 0:
            for part in ('u', 'v'):
                cv2.imwrite(str(folder / 'flow' / part / f'frame_{i // 2 + 1:010d}.jpg'),
                            np.roll(frame[..., 0], 2 * i, 1))
    soundfile.write(folder / 'sound.wav', rng.normal(0, 0.1, 24_000 * seconds), 24_000)
    video = FrameFolder(folder / 'rgb', fps)
    flow = FlowFromVideo(video) if computed else FlowFolder(folder / 'flow', fps, stride=2)
    sources = {Modality.RGB: video, Modality.FLOW: flow,
               Modality.AUDIO: AudioFile(folder / 'sound.wav')}
    segments = [
        LabelledSegment(f's{i}', 0.1 * i, 0.1 * i + 3, {'verb': i % 8, 'noun': i % 10}, sources)
        for i in range(48)
    ]
    return SegmentDataset(segments, ClipSpec())


if __name__ == '__main__':
    main()
