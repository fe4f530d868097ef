"""
Does the loader keep up with the training? Both are measured in one run.

`python benchmarks/training.py` makes what it needs in a temporary folder: clips of the synthetic
kitchen as `karmma train` reads them, and a recording in EPIC-Kitchens' layout (JPEGs of 456 x 256,
flow images, a WAV file), also as a data pack (`packs.py` compares both in detail). A loader's rate
is per second of processor time, as in `packs.py`; that of a step is per second, of the `tiny`
student and with `--full` of the paper's student, forward and backward, at the batch sizes of the
paper. On a GPU the step runs in bf16 there; the fraction of the card's peak is printed if `--peak`
gives it. `--write` puts the table into docs/training.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from datetime import date
from pathlib import Path
import statistics
import tempfile
import time

import cv2
from karmma_ros.cli.options import this_machine
from karmma_ros.cli.pack import QUALITY
from karmma_ros.clip import ClipSpec
from karmma_ros.data.samples import Clips
from karmma_ros.data.synthetic_kitchen.dataset import CachedKitchen, write_split
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.data.synthetic_kitchen.vocabulary import Split, vocabulary
from karmma_ros.evaluation.cost import cost_of, setting
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.model.builder import build
from karmma_ros.model.presets import preset
from karmma_ros.training.module import OptimizerSettings, RecognitionModule
import packs
from packs import A, epic_hours, F, loader, of_computed_flow, packed, recording, V, write_page
import torch

ROUNDS = 5
KITCHEN, FILES = 'loader, synthetic kitchen, V+F+A+D', 'loader, EPIC-Kitchens files, V+F+A'
TINY, FULL = 'step, tiny student', "step, paper's student"


def main() -> None:
    """Measure loaders and steps, print a table, and write it if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--seconds', type=float, default=4.0, help='of each timing of a step [4]')
    parser.add_argument('--full', action='store_true', help="time the paper's student, too")
    parser.add_argument('--peak', type=float, default=0.0, help='of the card, bf16 TFLOP/s')
    parser.add_argument('--write', action='store_true', help='write docs/training.md')
    options = parser.parse_args()
    device = 'cuda' if torch.cuda.is_available() else 'cpu'
    cv2.setNumThreads(1)
    with tempfile.TemporaryDirectory() as folder:
        kitchen = CachedKitchen(
            write_split(Path(folder) / 'kitchen', Split.TRAIN, 128, 0, clip_spec(), workers=2))
        recorded = recording(Path(folder) / 'files', 18)
        loaders = packs.measure({
            KITCHEN: (kitchen, PAPER_MODALITIES), FILES: (recorded, (V, F, A)),
            'loader, EPIC-Kitchens files, F computed': (of_computed_flow(recorded), (V, F, A)),
            'loader, a pack of EPIC-Kitchens files': (
                packed(recorded, Path(folder) / 'pack', QUALITY), (V, F, A))}, ROUNDS)
        subjects = {TINY: stepping('tiny', kitchen, 32, device)}
        if options.full:
            subjects[FULL] = stepping('karmma_student', recorded, 6, device)
        steps = measure(subjects, options.seconds)
    name = (torch.cuda.get_device_name() if device == 'cuda'
            else f'{torch.get_num_threads()} threads')
    text = (f'{table(loaders, steps)}\n\n`python benchmarks/training.py`, {date.today()}: '
            f'{this_machine()}, steps on {name}; medians of {ROUNDS} rounds in turns.')
    print(text)
    report({**loaders, **steps}, options.peak, device)
    if options.write:
        write_page('loaders', text)


def table(loaders: Mapping[str, float], steps: Mapping[str, float]) -> str:
    """Return the rates, and the hours of the cores for the loaders of EPIC-Kitchens."""
    lines = ['| what | clips/s, of a loader for each core | hours of 8 cores |', '|---|---:|---:|']
    lines += [f'| {name} | {rate:.1f} | '
              f'{f"{epic_hours(rate):.1f}" if "EPIC" in name else ""} |'
              for name, rate in loaders.items()]
    return '\n'.join([*lines, *(f'| {name} | {rate:.1f} | |' for name, rate in steps.items())])


def report(rates: Mapping[str, float], peak: float, device: str) -> None:
    """Report what bounds the training, and how busy the card is."""
    ratio = rates[KITCHEN] / rates[TINY]
    print(f'\nOne loader process feeds {ratio:.1f} times what the tiny student takes: '
          f'{"the step" if ratio > 1 else "the loader"} bounds.')
    full = rates.get(FULL)
    if full is None:
        return
    print(f"One loader process feeds {rates[FILES] / full:.2f} times what the paper's student "
          'takes.')
    if device == 'cuda':
        gflops = 3 * cost_of('karmma_student').gflops['V+F+A']
        busy = f', {100 * full * gflops / 1e3 / peak:.0f} % of its peak' if peak else ''
        print(f'{full * gflops / 1e3:.0f} TFLOP/s of {torch.cuda.get_device_name()}{busy}, '
              f'{torch.cuda.max_memory_allocated() / 1e9:.1f} GB')


def measure(subjects: Mapping[str, Callable[[], int]], seconds: float) -> dict[str, float]:
    """Run each for some seconds, in turns; return the clips a second."""
    for run in subjects.values():
        run()  # warm up
    rates: dict[str, list[float]] = {what: [] for what in subjects}
    for _ in range(ROUNDS):
        for what, run in subjects.items():
            done, began = 0, time.perf_counter()
            while time.perf_counter() - began < seconds:
                done += run()
            rates[what].append(done / (time.perf_counter() - began))
    return {what: statistics.median(each) for what, each in rates.items()}


def stepping(name: str, clips: Clips, batch_size: int, device: str) -> Callable[[], int]:
    """Return what trains a step on one batch, again and again."""
    classes = vocabulary() if name == 'tiny' else setting(name)[1]
    spec = clip_spec() if name == 'tiny' else ClipSpec()
    network = build(preset(name), spec, classes).train().to(device)
    module = RecognitionModule(network, OptimizerSettings())
    module.log = lambda *_, **__: None  # type: ignore[method-assign]
    optimiser = torch.optim.AdamW(network.parameters())
    with loader(clips, network.modalities, batch_size) as load:
        batch = load().to(device)
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


if __name__ == '__main__':
    main()
