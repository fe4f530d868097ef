"""
How fast recorded bags are evaluated, as times real time, and which stage bounds it.

`python benchmarks/bags.py` writes a bag of the synthetic kitchen (VGA at 30 Hz, audio at 16 kHz,
boxes at 10 Hz), evaluates it with the included model, then runs each stage by itself.
Ratios to real time are printed; the stages' are CPU time, which other work on the machine
changes less. `--gigabytes N` also replays that much of a generated bag and prints the memory
used; `--page docs/bags.md` writes the measurements into the page.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import date
import os
from pathlib import Path
import struct
import tempfile
import time
from typing import Any

from karmma_ros.bags import report
from karmma_ros.bags.bag_message import BagFrames
from karmma_ros.bags.bag_run import BagRun
from karmma_ros.bags.evaluate import BATCH, evaluate_bag, EvaluatedBag, Settings
from karmma_ros.bags.reader import Bag, Message
from karmma_ros.bags.replay import Replay, Run
from karmma_ros.bags.topics import choose_topics
from karmma_ros.cli.main import main as karmma
from karmma_ros.cli.options import this_machine
from karmma_ros.clip import Clip, NANOSECONDS
from karmma_ros.evaluation.ground_truth import Truth
from karmma_ros.evaluation.inference import Subset
from karmma_ros.evaluation.window_inference import BatchInference
from karmma_ros.modality import subsets
from karmma_ros.model.bundle import Bundle, load_bundle
from karmma_ros.model.registry import find_model
from karmma_ros.stream.settings import node_parameters
import numpy as np
import torch

VALUES = node_parameters()
BEGIN, END = '<!-- measured -->', '<!-- /measured -->'


def main() -> None:
    """Measure, print, and write into a page if one is named."""
    options = _parser().parse_args()
    torch.set_num_threads(options.threads)
    bundle = load_bundle(find_model(options.model))
    with tempfile.TemporaryDirectory(prefix='karmma_bench_') as folder:
        path = options.bag or kitchen(Path(folder) / 'kitchen.mcap', options)
        with Bag(path) as bag:
            length_s = (bag.end_ns - bag.start_ns) / NANOSECONDS
        lines = [
            f'{this_machine()}; torch with {torch.get_num_threads()} thread(s); '
            f'{bundle.model_id}; a bag of {length_s:.0f} s with images of {options.size}; '
            f'{date.today().isoformat()}.', '',
            *evaluation(path, bundle, length_s, options.rounds, Path(folder) / 'report'), '',
            *stages(path, bundle, length_s)]
        if options.gigabytes:
            lines += ['', endless(path, bundle, options.gigabytes)]
    text = '\n'.join(lines)
    print(text)
    if options.page is not None:
        put(options.page, text)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--bag', type=Path, help='one of your own [one of the kitchen]')
    parser.add_argument('--model', default='synthetic_kitchen')
    parser.add_argument('--size', default='640x480', help='of the images [640x480]')
    parser.add_argument('--seconds', type=int, default=60, help='of the bag [60]')
    parser.add_argument('--rounds', type=int, default=3, help='of which the fastest counts [3]')
    parser.add_argument('--threads', type=int, default=max(1, (os.cpu_count() or 1) - 1),
                        help='of torch [one less than cores, as `karmma bag evaluate` does]')
    parser.add_argument('--gigabytes', type=float, default=0, help='of a generated bag [none]')
    parser.add_argument('--page', type=Path, help='to write the measurements into [none]')
    return parser


def put(page: Path, text: str) -> None:
    """Put a text between the marks of a page."""
    before, mark, rest = page.read_text(encoding='utf-8').partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (mark and end):
        raise SystemExit(f'benchmarks/bags.py: {page} has no text between {BEGIN} and {END}')
    page.write_text(f'{before}{BEGIN}\n{text}\n{END}{after}', encoding='utf-8')


def kitchen(path: Path, options: argparse.Namespace) -> Path:
    """Write the bag."""
    karmma(['bag', 'synthetic', str(path), '--size', options.size, '--seconds', '4',
            '--episodes', str(-(-options.seconds // 4))])
    return path


def evaluation(path: Path, bundle: Bundle, length_s: float, rounds: int, out: Path) -> list[str]:
    """Return the speed of `karmma bag evaluate`, and the fraction of time for its report."""
    lines = ['| evaluated | wall time, x real time | CPU s for a minute | report, s '
             '| report, % of all |', '|---|---:|---:|---:|---:|']
    evaluate_bag(path, bundle, Settings(VALUES), None)  # the first one sets up memory
    for name, with_subsets in (('as recorded', False), ('with all subsets', True)):
        settings = Settings(VALUES, subsets=with_subsets)
        taken = [measured(lambda: evaluate_bag(path, bundle, settings, None))
                 for _ in range(rounds)]
        wall_s, cpu_s, result = min(taken, key=lambda each: each[0])
        report_s = min(measured(lambda: write(path, bundle, result, out))[0]
                       for _ in range(rounds))
        lines.append(f'| {name} | {length_s / wall_s:.1f} | {60 * cpu_s / length_s:.2f} '
                     f'| {report_s:.2f} | {100 * report_s / (report_s + wall_s):.1f} |')
    return lines


def write(path: Path, bundle: Bundle, result: EvaluatedBag, out: Path) -> None:
    """Write the report."""
    camera = result.info.topics.get('rgb', {'topic': '', 'type': ''})
    truth = Truth.from_messages(
        result.truths, result.info, bundle.vocabulary, result.truth_topic)
    report.write(out, [BagRun(
        result.info, result.predictions, truth, bundle.vocabulary, bundle.spec,
        BagFrames(path, camera['topic'], camera['type']))], {'id': bundle.model_id}, {})


def stages(path: Path, bundle: Bundle, length_s: float) -> list[str]:
    """Return the CPU time of each stage, one after another, and the thread that bounds all."""
    modalities = bundle.network.modalities
    with Bag(path) as bag:
        choice = choose_topics(bag, {}, modalities)
        used = list(choice.topics.values())
        reading = measured(lambda: sum(1 for _ in bag.messages(used)))[1]
        values = {**VALUES, 'rgb.check_content': False}  # all of its images are equal
        replay = Replay(bag, choice, bundle.spec, modalities, values, [Run()])
        _, replaying, requests = measured(lambda: list(replay.windows()))
    _, preparing, clips = measured(lambda: [request.window.clip() for request in requests])
    inference = BatchInference(bundle)

    def inference_time(of: Callable[[Clip], list[Subset]]) -> float:
        return measured(lambda: [
            inference(clips[i:i + BATCH], [of(clip) for clip in clips[i:i + BATCH]])
            for i in range(0, len(clips), BATCH)])[1]
    own = inference_time(lambda clip: [clip.modalities])
    rows = (('reading the bag', reading), ('decoding, buffers, windows', replaying - reading),
            ('preparing clips (flow, spectrogram, …)', preparing), ('network', own),
            ('network, all subsets', inference_time(lambda clip: subsets(clip.modalities))))
    lines = ['| stage, by itself | CPU s for a minute | x real time on one core |',
             '|---|---:|---:|']
    lines += [f'| {name} | {60 * cpu_s / length_s:.2f} | {length_s / max(cpu_s, 1e-9):.0f} |'
              for name, cpu_s in rows]
    threads = {'reading and decoding': replaying, 'preparing clips and the network':
               preparing + own}
    slower = max(threads, key=lambda name: threads[name])
    return [*lines, '', f'Reading and decoding are one thread, preparing clips and the network '
            f'the other; as recorded, {slower} take longer: {length_s / threads[slower]:.0f} x '
            'real time by these times.']


def measured(work: Callable[[], Any]) -> tuple[float, float, Any]:
    """Return wall time and CPU time in seconds, and what came of it."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = work()
    return time.perf_counter() - wall, time.process_time() - cpu, result


def endless(path: Path, bundle: Bundle, gigabytes: float) -> str:
    """Replay a long generated bag; return the memory used."""
    modalities, used = bundle.network.modalities, []
    with Bag(path) as bag:
        choice = choose_topics(bag, {}, modalities)
        stream, sizes = image_stream(bag, choice.topics['rgb'], gigabytes)
        bag.messages = stream  # type: ignore[method-assign]
        replay = Replay(bag, choice, bundle.spec, modalities, VALUES, [Run()])
        for number, _ in enumerate(replay.windows()):
            if number % 250 == 20:
                used.append(resident_mb())
    return (f'{sizes[0] / 1e9:.1f} GB of images replayed, generated one by one: {used[0]:.0f} MB '
            f'of memory after the first windows, {max(used):.0f} MB at most after that.')


def image_stream(
    bag: Bag, topic: Any, gigabytes: float,
) -> tuple[Callable[..., Iterator[Message]], list[int]]:
    """Return messages of VGA images, generated one by one, and a count of their bytes."""
    read, sizes = bag.reader(topic), [0]
    store = read._store
    first = read(next(iter(bag.messages([topic]))).data)
    large = replace(first, height=480, width=640, step=1920, encoding='rgb8',
                    data=np.zeros(480 * 1920, np.uint8))
    template = bytes(store.serialize_cdr(large, topic.type))
    start_ns = bag.start_ns

    def stream(*_: Any) -> Iterator[Message]:
        number = 0
        while sizes[0] < gigabytes * 1e9:
            time_ns = start_ns + number * 33_333_333
            stamp = struct.pack('<iI', *divmod(time_ns, NANOSECONDS))
            data = template[:4] + stamp + template[12:]
            sizes[0] += len(data)
            number += 1
            yield Message(topic, time_ns, data)
    return stream, sizes


def resident_mb() -> float:
    """Return the memory of this process."""
    with open('/proc/self/statm', encoding='ascii') as file:
        return int(file.read().split()[1]) * os.sysconf('SC_PAGE_SIZE') / 1e6


if __name__ == '__main__':
    main()
