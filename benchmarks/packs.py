"""
What a data pack gains: clips a second and core from recordings and from packs, in one run.

`python benchmarks/packs.py` makes a recording in EPIC-Kitchens' layout in a temporary folder
(JPEGs of 456 x 256 with its 13.6 kB on average, 60 a second and 30 of flow, a WAV file) and packs
it. Both are read by the loader of `karmma train`, in turns. A rate is per second of processor time
of the loader's process and of the one that receives, so that other programs matter little.
How far JPEG changes images is measured on a photograph that moves. `--write` puts the tables
into docs/training.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
import multiprocessing
import os
from pathlib import Path
import re
import statistics
import tempfile
import time
from typing import Any

import cv2
from karmma_ros.cli.options import this_machine
from karmma_ros.cli.pack import QUALITY, WINDOWS
from karmma_ros.clip import ClipSpec
from karmma_ros.data.packs.pack_writer import write_pack
from karmma_ros.data.packs.packed_clips import open_pack
from karmma_ros.data.packs.shard_store import ShardStore
from karmma_ros.data.samples import Batch, Clips, Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.media.audio_file import AudioFile
from karmma_ros.media.frames import FlowFolder, FrameFolder
from karmma_ros.media.sources import FlowFromVideo
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality
from karmma_ros.prediction import Vocabulary
from karmma_ros.training.loaders import EpochSampler, training_loader
from matplotlib.cbook import get_sample_data
import numpy as np
from numpy.typing import NDArray
import soundfile
import torch

V, F, A = Modality.RGB, Modality.FLOW, Modality.AUDIO
LENGTHS = (1.0, 1.4, 1.7, 2.4, 3.2, 6.0)
"""Seconds of the segments in turn: half are shorter than the window, as of EPIC-KITCHENS-100."""
BATCH = 6
CLIPS_EPIC, EPOCHS, CORES = 67_217, 100, 8
PAGE = Path(__file__).resolve().parents[1] / 'docs' / 'training.md'


def main() -> None:
    """Measure, print the tables, and write them if that is wanted."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--rounds', type=int, default=3, help='of each measurement [3]')
    parser.add_argument('--clips', type=int, default=18, help='of the recording [18]')
    parser.add_argument('--write', action='store_true', help='write docs/training.md')
    options = parser.parse_args()
    cv2.setNumThreads(1)
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        rates, tables = measure_all(Path(folder), options.clips, options.rounds)
        tables.append(image_errors(Path(folder) / 'photograph'))
    when = (f'`python benchmarks/packs.py`, {date.today()}: {this_machine()}; medians of '
            f'{options.rounds} rounds in turns, {options.clips} clips.')
    texts = {'hours': hours(rates), 'packs': '\n\n'.join([*tables, when])}
    print('\n\n'.join(texts.values()))
    if options.write:
        for name, text in texts.items():
            write_page(name, text)


def write_page(name: str, text: str) -> None:
    """Write what was measured between its markers in docs/training.md."""
    page = PAGE.read_text(encoding='utf-8')
    marked = re.compile(f'(<!-- {name} -->\n).*?(<!-- end -->)', re.DOTALL)
    assert marked.search(page), f'{PAGE} lacks <!-- {name} -->'
    PAGE.write_text(marked.sub(lambda m: f'{m[1]}{text}\n{m[2]}', page), encoding='utf-8')


def measure_all(folder: Path, count: int, rounds: int) -> tuple[dict[str, float], list[str]]:
    """Return the rates, and tables: both sides, their disk, and how the cost grows."""
    recorded = recording(folder / 'recording', count)
    computed = of_computed_flow(recorded)
    packs = {name: packed(clips, folder / name, quality) for name, clips, quality in (
        ('q95', recorded, 95), ('q90', recorded, 90), ('raw', recorded, 0),
        ('computed', computed, QUALITY))}
    rates = measure({
        'flow from files': (recorded, (V, F, A)), 'flow computed': (computed, (V, F, A)),
        'pack, quality 95': (packs['q95'], (V, F, A)),
        'pack, quality 90': (packs['q90'], (V, F, A)),
        'pack without loss': (packs['raw'], (V, F, A)),
        'pack of computed flow, quality 90': (packs['computed'], (V, F, A))}, rounds)
    sizes = {'flow from files': of_segments(folder / 'recording', recorded)}
    sizes |= {title: size_of(folder / name) for title, name in (
        ('pack, quality 95', 'q95'), ('pack, quality 90', 'q90'), ('pack without loss', 'raw'),
        ('pack of computed flow, quality 90', 'computed'))}
    return rates, [sides(rates, sizes, count), preparation(packs['q90'], rounds),
                   growth(folder, recorded, packs['q90'], rounds)]


def epic_hours(rate: float) -> float:
    """Return the hours that the cores need for a training, from clips a second and core."""
    return CLIPS_EPIC * EPOCHS / rate / CORES / 3600


def hours(rates: Mapping[str, float]) -> str:
    """Return what the loader of a training costs, as a sentence."""
    files, computed, pack = (epic_hours(rates[name]) for name in (
        'flow from files', 'flow computed', 'pack, quality 90'))
    return (f'From the recordings {EPOCHS} epochs of the student need {files:.0f} hours of '
            f'{CORES} cores, {computed:.0f} with computed flow, while the card waits; from a pack '
            f'of quality 90 {pack:.1f}.')


def preparation(pack: Clips, rounds: int) -> str:
    """Return what preparing a packed clip costs where there is no card, as a sentence."""
    seconds = []
    with loader(pack, (V, F, A)) as load:
        for _ in range(4 * rounds):
            batch = load()
            began = time.process_time()
            batch.to('cpu')
            seconds.append((time.process_time() - began) / len(batch))
    return ('Preparing images and audio on the device is not in the rates: a card does it in no '
            'time; without one it costs the training process '
            f'{1e3 * statistics.median(seconds):.0f} ms of a core for each clip.')


def image_errors(folder: Path) -> str:
    """Return the table of how far JPEG changes the images of a moving photograph."""
    photograph = cv2.imread(get_sample_data('grace_hopper.jpg', asfileobj=False))
    recorded = recording(folder / 'recording', 3, scene=cv2.resize(
        photograph, (456, 256), interpolation=cv2.INTER_AREA))
    computed = of_computed_flow(recorded)
    lines = ['| difference from no loss, levels of 255 | quality | mean | 99 % within | largest |',
             '|---|---:|---:|---:|---:|']
    for title, modality, clips in (('RGB', V, recorded), ('flow from files', F, recorded),
                                   ('flow computed', F, computed)):
        wanted = levels(packed(clips, folder / f'{title} 0', 0), modality)
        for quality in (95, 90):
            changed = levels(packed(clips, folder / f'{title} {quality}', quality), modality)
            error = np.abs(changed - wanted)
            lines.append(f'| {title} | {quality} | {error.mean():.1f} | '
                         f'{np.percentile(error, 99):.0f} | {error.max()} |')
    return '\n'.join(lines)


def levels(clips: Clips, modality: Modality) -> NDArray[np.int64]:
    """Return the 8-bit images of all clips."""
    own = modality_type(modality)
    return np.concatenate([own.restore(clips[i].clip.inputs[modality], clips.spec)
                           for i in range(len(clips))]).astype(np.int64)


def sides(rates: Mapping[str, float], sizes: Mapping[str, float], count: int) -> str:
    """Return the table of recordings and packs."""
    lines = ['| V+F+A | clips/s a core | × | MB a clip on disk | hours of 8 cores |',
             '|---|---:|---:|---:|---:|']
    for name, rate in rates.items():
        base = rates['flow computed' if 'computed' in name else 'flow from files']
        size = f'{sizes[name] / count / 1e6:.2f}' if name in sizes else ''
        lines.append(f'| {name} | {rate:.1f} | {rate / base:.1f} | {size} | '
                     f'{epic_hours(rate):.1f} |')
    return '\n'.join(lines)


def growth(folder: Path, recorded: SegmentDataset, pack: Clips, rounds: int) -> str:
    """Return the table of how the milliseconds of a clip grow."""
    subjects: dict[str, tuple[Clips, Sequence[Modality]]] = {}
    for name, modalities in (('V', [V]), ('V+F', [V, F]), ('V+F+A', [V, F, A])):
        subjects[f'{name}, recording'] = recorded, modalities
        subjects[f'{name}, pack'] = pack, modalities
    for frames in (8, 16):
        clips = recut(recorded, frames)
        subjects[f'{frames} frames, recording'] = clips, [V, F, A]
        pack_of = packed(clips, folder / f'frames{frames}', QUALITY)
        subjects[f'{frames} frames, pack'] = pack_of, [V, F, A]
    third = SegmentDataset(recorded.segments[:len(recorded) // 3], recorded.spec)
    subjects['a third of the clips, recording'] = third, [V, F, A]
    subjects['a third of the clips, pack'] = packed(third, folder / 'third', QUALITY), [V, F, A]
    rates = measure(subjects, rounds)
    lines = ['| ms of one core a clip | recording | pack |', '|---|---:|---:|']
    for name in dict.fromkeys(name.rpartition(', ')[0] for name in rates):
        ours, theirs = (1e3 / rates[f'{name}, {side}'] for side in ('pack', 'recording'))
        lines.append(f'| {name} | {theirs:.1f} | {ours:.1f} |')
    return '\n'.join(lines)


def measure(
    subjects: Mapping[str, tuple[Clips, Sequence[Modality]]], rounds: int,
) -> dict[str, float]:
    """Return the clips a second of processor time of each, in turns."""
    rates: dict[str, list[float]] = {name: [] for name in subjects}
    for _ in range(rounds):
        for name, (clips, modalities) in subjects.items():
            with loader(clips, modalities) as load:
                load()  # warm up
                used, done = cpu_seconds(), 0
                while cpu_seconds() - used < 1.5:
                    done += len(load())
                rates[name].append(done / (cpu_seconds() - used))
    return {name: statistics.median(each) for name, each in rates.items()}


def cpu_seconds() -> float:
    """Return the processor time of this process and of the loaders that it has started."""
    ticks = 0
    for child in multiprocessing.active_children():
        values = Path(f'/proc/{child.pid}/stat').read_text().rpartition(') ')[2].split()
        ticks += int(values[11]) + int(values[12])
    return time.process_time() + ticks / os.sysconf('SC_CLK_TCK')


@contextmanager
def loader(
    clips: Clips, modalities: Sequence[Modality], size: int = BATCH,
) -> Iterator[Callable[[], Batch]]:
    """Yield a function that returns a batch, which another process loads."""
    order = EpochSampler(len(clips), size, seed=0)
    batches = training_loader(clips, modalities, order, 1, 1)

    def endless() -> Iterator[Batch]:
        for epoch in range(1_000_000):
            order.set_epoch(epoch)
            yield from batches

    source = endless()
    yield lambda: next(source)
    source.close()
    iterator: Any = batches._iterator
    iterator._shutdown_workers()


def packed(clips: SegmentDataset, folder: Path, quality: int) -> Clips:
    """Return the training clips of a pack of a recording."""
    splits = Splits('Recording', clips.spec, Vocabulary({'verb': ('a', 'b')}), clips, clips, clips)
    write_pack(splits, ShardStore(str(folder)), WINDOWS, quality, {})
    return open_pack(str(folder), None, folder, 60).train


def size_of(folder: Path) -> float:
    """Return the bytes of the files of a folder."""
    return sum(path.stat().st_size for path in folder.rglob('*') if path.is_file())


def of_segments(folder: Path, clips: SegmentDataset) -> float:
    """Return the bytes of the images of the segments, without what lies between them."""
    total = size_of(folder / 'rgb') + size_of(folder / 'flow')
    end = clips.segments[-1].stop_s
    return total * sum(s.stop_s - s.start_s for s in clips.segments) / end


def of_computed_flow(clips: SegmentDataset) -> SegmentDataset:
    """Return the same clips with flow computed from the frames."""
    return SegmentDataset([
        replace(s, sources={**s.sources, F: FlowFromVideo(s.sources[V])})  # type: ignore[arg-type]
        for s in clips.segments], clips.spec)


def recut(clips: SegmentDataset, frames: int) -> SegmentDataset:
    """Return the same clips with so many frames."""
    return SegmentDataset(clips.segments, replace(clips.spec, num_frames=frames))


def recording(
    folder: Path, count: int, fps: int = 60, scene: NDArray[Any] | None = None,
) -> SegmentDataset:
    """Write a recording in EPIC-Kitchens' layout; return clips of it, one after the other."""
    for name in ('rgb', 'flow/u', 'flow/v'):
        (folder / name).mkdir(parents=True)
    rng = np.random.default_rng(0)
    ends = np.cumsum([LENGTHS[i % len(LENGTHS)] + 0.5 for i in range(count)])
    if scene is None:
        scene = cv2.resize(rng.integers(0, 255, (12, 21, 3), np.uint8), (456, 256),
                           interpolation=cv2.INTER_CUBIC)
    for i in range(round((ends[-1] + 2) * fps)):
        name = f'frame_{i + 1:010d}.jpg'
        frame = np.roll(scene, 2 * i, 1)
        cv2.imwrite(str(folder / 'rgb' / name), frame, [cv2.IMWRITE_JPEG_QUALITY, 80])
        if i % 2 == 0:
            for part, channel in (('u', 0), ('v', 1)):
                cv2.imwrite(str(folder / 'flow' / part / f'frame_{i // 2 + 1:010d}.jpg'),
                            frame[..., channel], [cv2.IMWRITE_JPEG_QUALITY, 80])
    soundfile.write(folder / 'audio.wav', rng.normal(0, 0.1, round(16_000 * (ends[-1] + 2))),
                    16_000)
    sources = {V: FrameFolder(folder / 'rgb', fps), F: FlowFolder(folder / 'flow', fps, stride=2),
               A: AudioFile(folder / 'audio.wav')}
    return SegmentDataset([
        LabelledSegment(f's{i}', float(end - LENGTHS[i % len(LENGTHS)]), float(end),
                        {'verb': i % 2}, sources)
        for i, end in enumerate(ends)], ClipSpec())


if __name__ == '__main__':
    main()
