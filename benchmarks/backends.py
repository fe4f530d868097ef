"""
The speed of the backends beside PyTorch eager, and the cost of their arithmetic.

`python benchmarks/backends.py` exports the included model and the paper's student (random weights)
in a temporary folder, compares the outputs of each backend with eager's, and only then times
them, in turns: one inference of each on one clip, round after round. Of the included model it also
scores Synthetic Kitchen's test split through every backend. `--profile` shows where OpenVINO's
time goes.
"""

from __future__ import annotations

import argparse
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from datetime import date
import json
import os
from pathlib import Path
import shutil
import statistics
import tempfile
import time
from typing import Any

from exported import calibration_of, exported, noise
from karmma_ros.cli.options import this_machine
from karmma_ros.data.samples import Splits
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings, open_splits
from karmma_ros.evaluation.classification import top1
from karmma_ros.evaluation.cost import cost_of, setting
from karmma_ros.evaluation.inference import BackendNetwork, collect
from karmma_ros.modality import Modality, parse_subset, subset_name
from karmma_ros.model.backends.agreement import check_clip, difference, predict_subsets, TOLERANCE
from karmma_ros.model.backends.exports import find_exports
from karmma_ros.model.backends.graphs import feeds
from karmma_ros.model.backends.interface import Backend
from karmma_ros.model.backends.pytorch import Eager
from karmma_ros.model.backends.selection import compiled, read_export
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle, load_bundle, save_bundle
from karmma_ros.model.presets import preset
from karmma_ros.training.loaders import scoring_loader
import torch

SHIPPED = 'synthetic_kitchen'
MODELS = Path(__file__).resolve().parents[1] / 'models'
EXPORTS = ('openvino bf16', 'openvino int8', 'openvino fp32', 'onnx fp32', 'onnx int8')


def main() -> None:
    """Print a Markdown table for each model and write all figures to a file."""
    options = _options()
    report: dict[str, Any] = {
        'date': date.today().isoformat(), 'machine': machine(), 'load_before': os.getloadavg(),
        'models': {}}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(options.folder or temporary)
        for name in options.models:
            results = measure(name, folder / Path(name).name, options)
            print(f'\n## {name}\n\n{table(results)}', flush=True)
            report['models'][name] = {label: summary(own) for label, own in results.items()}
    report['load_after'] = os.getloadavg()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    options.out.write_text(json.dumps(report, indent=1) + '\n')
    print(f'\n{report["date"]}, {report["machine"]}; load average {report["load_before"][0]:.1f} '
          f'before, {report["load_after"][0]:.1f} after; wrote {options.out}')


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('models', nargs='*', default=[SHIPPED, 'karmma_student'],
                        help=f'{SHIPPED} (the included model), presets or model directories '
                             '[the two above]')
    parser.add_argument('--exports', nargs='+', default=EXPORTS, metavar='FORMAT PRECISION',
                        help=f'[{", ".join(map(repr, EXPORTS))}]')
    parser.add_argument('--compiled', action='store_true', help='torch.compile, too: minutes')
    parser.add_argument('--subsets', nargs='+', metavar='SUBSET', help='[all, and each alone]')
    parser.add_argument('--rounds', type=int, default=7, help='turns, at least [7]')
    parser.add_argument('--seconds', type=float, default=10.0,
                        help='duration of the turns for a small model [10]')
    parser.add_argument('--no-accuracy', action='store_true', help='time only')
    parser.add_argument('--profile', action='store_true', help='time the operators of OpenVINO')
    parser.add_argument('--folder', type=Path, help='keep the exports here, and use them again')
    parser.add_argument('--out', type=Path,
                        default=Path(__file__).parent / 'results' / 'backends.json')
    return parser.parse_args()


def measure(name: str, path: Path, options: argparse.Namespace) -> dict[str, Any]:
    """Compare, time and score all backends of one model."""
    bundle = _bundle(name, path)
    kitchen = _kitchen(bundle) if name == SHIPPED else None
    _export(bundle, options.exports, kitchen)
    clip = check_clip(bundle.spec, bundle.network.modalities)
    makes = dict(_makes(bundle, options.compiled))
    wanted = predict_subsets(makes['eager'](), clip)
    backends, results = {}, {}
    for label, make in makes.items():
        backend = make()
        off = difference(predict_subsets(backend, clip), wanted)
        results[label] = {'difference': off, 'allowed': TOLERANCE[backend.precision]}
        if off <= TOLERANCE[backend.precision]:  # what is wrong is not timed
            backends[label] = backend
    chosen = [parse_subset(s) for s in options.subsets] if options.subsets else list(wanted)
    for label, (times, busy) in _times(backends, clip, chosen, options).items():
        results[label] |= {'seconds': times, 'cpu_seconds': busy}
    if kitchen is not None and not options.no_accuracy:
        for label, backend in backends.items():
            results[label]['accuracy'] = _accuracy(backend, kitchen, chosen)
    if options.profile:
        results['openvino bf16']['profile'] = _profile(bundle)
    return results


def _bundle(name: str, path: Path) -> Bundle:
    """Copy a model directory, or write a preset with random weights."""
    given = MODELS / name if name == SHIPPED else Path(name)
    if given.is_dir() and not path.exists():
        shutil.copytree(given, path, ignore=shutil.ignore_patterns('exports'))
    if not path.exists():
        torch.manual_seed(0)
        (spec, vocabulary), config = setting(name), preset(name)
        save_bundle(path, build(config, spec, vocabulary), config, spec, vocabulary,
                    dataset='none: random weights', card='')
    return load_bundle(path)


def _kitchen(bundle: Bundle) -> Splits:
    """Open the kitchen as `karmma evaluate` and `karmma train` render it."""
    return open_splits(KitchenSettings(), bundle.spec, Path('.cache') / SHIPPED)


def _export(bundle: Bundle, wanted: Sequence[str], kitchen: Splits | None) -> None:
    for words in wanted:
        started = time.perf_counter()
        exported(bundle, words, lambda: noise(bundle) if kitchen is None
                 else calibration_of(bundle, kitchen.train))
        print(f'exported {bundle.path.name}, {words}: {time.perf_counter() - started:.0f} s',
              flush=True)


def _makes(bundle: Bundle, with_compiled: bool) -> Iterator[tuple[str, Callable[[], Backend]]]:
    eager = Eager(bundle.network)
    yield 'eager', lambda: eager
    if with_compiled:
        yield 'compiled', lambda: compiled(bundle, 'cpu')
    for each in find_exports(bundle)[0]:
        yield each.label, lambda each=each: read_export(bundle, each)


def _times(
    backends: dict[str, Backend], clip: Any, chosen: Sequence[tuple[Modality, ...]],
    options: argparse.Namespace,
) -> dict[str, tuple[dict[str, list[float]], dict[str, list[float]]]]:
    """
    Time one inference of each backend in turns.

    :returns: label → subset → a figure for each round: the seconds that went by, and those that
        the processor worked, on all cores together.
    """
    names = [subset_name(s) for s in chosen]
    times = {label: ({n: [] for n in names}, {n: [] for n in names}) for label in backends}
    started, rounds = time.perf_counter(), 0
    while rounds < options.rounds or time.perf_counter() - started < options.seconds:
        for subset in chosen:
            inputs = {m: clip[m] for m in subset}
            for label, backend in backends.items():
                before = time.perf_counter(), time.process_time()
                backend.infer(inputs)
                after = time.perf_counter(), time.process_time()
                for figures, a, b in zip(times[label], after, before):
                    figures[subset_name(subset)].append(a - b)
        rounds += 1
    return times


def _accuracy(
    backend: Backend, kitchen: Splits, chosen: Sequence[tuple[Modality, ...]]
) -> dict[str, float]:
    """Return subset → actions of the test split that are right, percent."""
    batches = scoring_loader(kitchen.test, backend.modalities, 1)
    predictions = collect(BackendNetwork(backend), batches, chosen=chosen)
    return {name: 100 * right['action'] for name, right in top1(predictions).items()}


def _profile(bundle: Bundle) -> dict[str, Any]:
    """
    Return where the time of each encoder goes in OpenVINO bf16, on one core.

    Operator type → milliseconds, beside the time that this core would take for the
    encoder's products alone at the rate that torch multiplies large matrices in bf16.
    """
    import openvino

    rate = _product_rate()
    network, name = bundle.network, bundle.config.preset
    costs = cost_of(name).gflops if name != 'tiny' else {}
    clip, results = check_clip(bundle.spec, network.modalities), {}
    export_ = next(e for e in find_exports(bundle)[0] if e.label == 'openvino bf16')
    for modality in network.modalities:
        request = openvino.Core().compile_model(export_.graph(modality.value), 'CPU', {
            'INFERENCE_PRECISION_HINT': 'bf16', 'NUM_STREAMS': 1, 'INFERENCE_NUM_THREADS': 1,
            'PERF_COUNT': True}).create_infer_request()
        fed, runs = next(feeds(network, modality, [clip[modality]])), []
        for _ in range(4 if costs else 100):
            request.infer(fed)
            runs.append(request.get_profiling_info())
        # The best of each operator: what others did on this machine meanwhile is not in it.
        spent: Counter[str] = Counter()
        for same in zip(*runs):
            spent[same[0].node_type] += min(op.real_time.total_seconds() for op in same)
        gflops = costs.get(modality.letter, 0.0)
        results[modality.value] = {
            'ms': {op_type: 1e3 * t for op_type, t in spent.most_common(8)},
            'all_ms': 1e3 * sum(spent.values()), 'products_alone_ms': 1e3 * gflops / rate}
    return {'gflops_per_second': rate, 'encoders': results}


def _product_rate(side: int = 2048) -> float:
    """Measure how fast one core multiplies bf16 matrices, billions of operations a second."""
    a = torch.randn(side, side).bfloat16()
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    times = []
    for _ in range(12):
        started = time.process_time()
        a @ a
        times.append(time.process_time() - started)
    torch.set_num_threads(threads)
    return 2 * side**3 / min(times) / 1e9


def summary(own: dict[str, Any]) -> dict[str, Any]:
    """Return what is kept of the figures of a backend: not every round."""
    return own | {
        key: {subset: {'median': statistics.median(x), 'least': min(x), 'most': max(x),
                       'rounds': len(x)} for subset, x in own[key].items()}
        for key in ('seconds', 'cpu_seconds') if key in own}


def table(results: dict[str, Any]) -> str:
    """Set the figures of a model as a Markdown table: a row for each backend and subset."""
    scored = 'accuracy' in results['eager']
    head = ['backend', 'sensors', 'ms', 'times eager', 'CPU ms', 'differs by',
            *(['correct, %', 'loss'] if scored else [])]
    lines = ['| ' + ' | '.join(head) + ' |', '|---|---|' + '---:|' * (len(head) - 2)]
    for label, own in results.items():
        for subset, times in own.get('seconds', {}).items():
            cells = [label, subset, *_speed(times, results['eager']['seconds'][subset]),
                     f'{1e3 * statistics.median(own["cpu_seconds"][subset]):.3g}',
                     f'{own["difference"]:.2%}']
            if scored:
                right, before = (x['accuracy'][subset] for x in (own, results['eager']))
                cells += [f'{right:.2f}', f'{before - right + 0.0:.2f}']
            lines.append('| ' + ' | '.join(cells) + ' |')
        if 'seconds' not in own:
            lines.append(f'| {label} | not timed: differs by {own["difference"]:.2%}, '
                         f'{own["allowed"]:.1%} are allowed |')
    return '\n'.join([*lines, *_profiles(results)])


def _speed(times: list[float], eager: list[float]) -> list[str]:
    """Return the median, and the median of the ratios within a round."""
    ratio = statistics.median(e / t for e, t in zip(eager, times))
    return [f'{1e3 * statistics.median(times):.3g}', f'{ratio:.1f}']


def _profiles(results: dict[str, Any]) -> Iterator[str]:
    profile = results.get('openvino bf16', {}).get('profile')
    if profile is None:
        return
    yield (f'\nOpenVINO bf16, one core; torch multiplies {profile["gflops_per_second"]:.0f} '
           'GFLOP/s there:\n')
    for name, own in profile['encoders'].items():
        parts = ', '.join(f'{op_type} {ms:.3g}' for op_type, ms in own['ms'].items())
        yield (f'- {name}: {own["all_ms"]:.3g} ms ({parts}); its products alone would take '
               f'{own["products_alone_ms"]:.3g} ms')


def machine() -> str:
    """Name processor, cores and torch."""
    return f'{this_machine()} with {torch.get_num_threads()} threads'


if __name__ == '__main__':
    main()
