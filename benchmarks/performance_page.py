"""The tables and the chart of docs/performance.md, from the measurements."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from figures import measured, Results, three_digits
from karmma_ros.evaluation.tables import markdown_table

PAGE = Path('docs', 'performance.md')
CHART = Path('docs', 'images', 'performance.png')
FRAME_AGE, IMAGE_AGE = 'newest frame in the clip', 'newest image received'


def phases(results: Results) -> list[Mapping[str, Any]]:
    """Return the measurements of the node, one rate after another."""
    return list(results['node']['figures']['phases'])


def phase(results: Results, run: str, rate: float) -> Mapping[str, Any]:
    """Return one of them."""
    return next(p for p in phases(results) if (p['run'], p['rate']) == (run, rate))


def dropped(phase: Mapping[str, Any]) -> float:
    """Return the fraction of the images that the node never received."""
    return float(phase['images']['dropped'] / max(1, phase['images']['sent']))


# -- the node --------------------------------------------------------------------------------

def node(results: Results) -> str:
    """Return the tables of ages and costs of the complete node."""
    figures = phases(results)
    ages = markdown_table(
        ['run', 'rate', 'results a second', f'{FRAME_AGE}: p50', 'p95', 'p99',
         f'{IMAGE_AGE}: p50', 'p95', 'newest sample: p50', 'p95', 'network: p50', 'p95'],
        [[*_name(p), f'{p["results_per_second"]:.1f}',
          *_ms(p['ages_ms'][FRAME_AGE], 'p50', 'p95', 'p99'),
          *_ms(p['ages_ms'][IMAGE_AGE], 'p50', 'p95'),
          *_ms(p['ages_ms']['newest sample'], 'p50', 'p95'), *_ms(p['network_ms'], 'p50', 'p95')]
         for p in figures])
    costs = markdown_table(
        ['run', 'rate', 'node, % of a core', 'executor', 'worker', 'other threads',
         'sensors, % of a core', 'images sent', 'dropped', 'results with camera, %',
         'memory, MB'],
        [[*_name(p), f'{p["cpu_percent"]["node"]:.1f}',
          *(f'{p["node_threads_percent"][t]:.1f}' for t in ('executor', 'worker', 'others')),
          f'{p["cpu_percent"]["sensors"]:.1f}', str(p['images']['sent']),
          _dropped(p),
          f'{100 * p["with_camera"]:.0f}', f'{p["rss_mb"]:.0f}'] for p in figures])
    return f'{measured(results["node"])}\n\n{ages}\n\n{costs}'


def _dropped(phase: Mapping[str, Any]) -> str:
    number = phase['images']['dropped']
    return f'{number} ({100 * dropped(phase):.1f} %)' if number else '0'


def _name(phase: Mapping[str, Any]) -> list[str]:
    return [phase['run'], phase['requested']]


def _ms(percentiles: Mapping[str, float], *names: str) -> list[str]:
    return [f'{percentiles[name]:.1f}' if percentiles else '–' for name in names]


# -- stages ----------------------------------------------------------------------------------

GROUPS = ('image', 'audio', 'boxes', 'window', 'clip', 'network', 'result')
"""The first word of a stage's name, in the order of the path."""


def stages(results: Results) -> str:
    """Return the table of the cost of each stage, and the sum."""
    figures = results['live_path']['figures']['stages']
    rows = [[name, f'{s["ms"]:.3f}', f'{s["per_second"]:.1f}', f'{s["percent"]:.2f}']
            for name, s in _ordered(figures['stages'])]
    total = sum(s['percent'] for s in figures['stages'].values())
    network = sum(s['percent'] for n, s in figures['stages'].items() if _group(n) == 'network')
    rows.append(['**all stages**', '', '', f'**{total:.2f}**'])
    rows.append(['**without the network**', '', '', f'**{total - network:.2f}**'])
    parts = markdown_table(['stage', 'ms a call', 'calls a second', '% of a core'], rows)
    decoding = results['live_path']['figures']['decoding']
    images = markdown_table(
        ['a VGA image', 'ms'], [[n, f'{ms:.3f}'] for n, ms in decoding.items()]
    )
    checks = results['live_path']['figures']['content_checks']
    return (f'{measured(results["live_path"])} The network is run by {figures["backend"]}.\n\n'
            f'{parts}\n\nOf that the [content checks](node.md#diagnostics) take '
            f'{checks["percent"]:.2f} % of a core, {checks["ms_per_result"]:.2f} ms a result: the '
            f'difference to the same messages without them.\n\n{images}')


def _ordered(figures: Mapping[str, Mapping[str, float]]) -> Iterator[tuple[str, Any]]:
    for group in GROUPS:
        yield from ((name, s) for name, s in figures.items() if _group(name) == group)


def _group(stage: str) -> str:
    return stage.split(':')[0]


def growth(results: Results) -> str:
    """Return the table of what grows with window, rate and sensors."""
    return markdown_table(
        ['', '', 'results a second', 'ms per result', '% of a core',
         'buffered samples and flow, MB', 'clip, MB'],
        [[case['what'], case['label'], f'{case["rate"]:g}', f'{case["ms_per_result"]:.2f}',
          f'{case["percent"]:.1f}', f'{case["kept_mb"]:.2f}', f'{case["clip_mb"]:.2f}']
         for case in results['live_path']['figures']['growth']], 2)


# -- memory, backends, GPU -------------------------------------------------------------------

def memory(results: Results) -> str:
    """Return the table of the memory of the networks for one inference."""
    figures = results['memory']['figures']
    teacher, tensors = (figures[name]['karmma_teacher'] for name in ('peak_mb', 'tensors_mb'))
    rows = [[f'{name}, eager', f'{mb:.0f}', f'{100 * mb / teacher:.0f} %',
             f'{own:.0f}', f'{100 * own / tensors:.0f} %']
            for (name, mb), own in zip(figures['peak_mb'].items(), figures['tensors_mb'].values())]
    if 'node' in figures:
        loaded = figures['node']
        rows.append([f'karmma_student, loaded by the node, {loaded["backend"]}',
                     f'{loaded["peak_mb"]:.0f}', f'{100 * loaded["peak_mb"] / teacher:.0f} %',
                     '', ''])
        rows.append(['the same, afterwards', f'{loaded["kept_mb"]:.0f}',
                     f'{100 * loaded["kept_mb"] / teacher:.0f} %', '', ''])
    text = f'{measured(results["memory"])}\n\n' + markdown_table(
        [f'{figures["sensors"]}, one inference', 'process, MB', "of the teacher's",
         'tensors alone, MB',
         "of the teacher's"], rows)
    return text + (_of_a_graph(figures['graph']) if 'graph' in figures else '')


def _of_a_graph(graph: Mapping[str, float]) -> str:
    return ('\n\nOne of the two Swin encoders, compiled by OpenVINO, holds '
            f'{graph["held_mb"]:.0f} MB, of which {graph["biases_mb"]:.0f} are constants in '
            f'fp32 and {graph["weights_mb"]:.0f} weights in 16 bits (kept in a second order as '
            f'well), and takes {graph["inference_mb"]:.0f} MB more for inference.')


def backends(results: Results) -> str:
    """Return the table of the backends of the included model."""
    return _backends(results['backends'], 'synthetic_kitchen')


def student(results: Results) -> str:
    """Return the table of the backends of the paper's student."""
    return _backends(results['student'], 'karmma_student')


def _backends(part: Mapping[str, Any], name: str) -> str:
    figures = part['figures']['models'][name]
    eager = figures['eager']
    head = ['backend', 'sensors', 'ms', 'times eager', 'CPU ms', 'differs by']
    head += ['correct, %', 'loss'] if 'accuracy' in eager else []
    rows = []
    for label, own in figures.items():
        for subset, seconds in own.get('seconds', {}).items():
            median_s = seconds['median']
            row = [label, subset, three_digits(1e3 * median_s),
                   f'{eager["seconds"][subset]["median"] / median_s:.1f}',
                   three_digits(1e3 * own['cpu_seconds'][subset]['median']),
                   f'{100 * own["difference"]:.2f} %']
            if 'accuracy' in eager:
                right, before = (x['accuracy'][subset] for x in (own, eager))
                row += [f'{right:.2f}', f'{before - right + 0.0:.2f}']
            rows.append(row)
    return f'{measured(part)}\n\n{markdown_table(head, rows, 2)}'


def gpu(results: Results) -> str:
    """Return the tables of the backends on a GPU, or that there was none."""
    part = results['gpu']
    figures = part['figures']
    if not figures['device']:
        return f'{measured(part)}\n\n**No GPU was available.**'
    peak = figures['product_gflops_per_second']

    def timed(own: Mapping[str, float]) -> list[str]:
        rate = own['gflops_per_second']
        return [three_digits(own['ms']), f'{rate:.0f}', f'{100 * rate / peak:.2g} %']
    inferences = markdown_table(
        ['network', 'backend', 'sensors', 'ms', 'GFLOP/s', "of the card's", 'differs by'],
        [[name, label, subset, *timed(own), f'{100 * backend["difference"]:.2f} %']
         for name, by_label in figures['models'].items() for label, backend in by_label.items()
         for subset, own in backend['seconds'].items()], text_columns=3)
    batches = markdown_table(
        [f'{figures["batches"]["network"]}, a batch of', 'runs in', 'ms', 'GFLOP/s',
         "of the card's", 'ms a clip'],
        [[str(size), label, *timed(own), three_digits(own['ms'] / int(size))]
         for label, sizes in figures['batches']['sizes'].items() for size, own in sizes.items()],
        text_columns=2)
    memory = '; '.join(f'{name} {mb:.0f} MB' for name, mb in figures['memory_mb'].items())
    return (f'{measured(part)} On {figures["device"]}, which multiplies large bf16 matrices at '
            f'{peak / 1e3:.3g} TFLOP/s.\n\n{inferences}\n\n{batches}'
            + (f'\n\nMemory of the card for one inference in fp32: {memory}.' if memory else ''))


# -- the chart -------------------------------------------------------------------------------

_COLOURS = dict(zip((*GROUPS, 'rest'), (
    '#4c78a8', '#72b7b2', '#54a24b', '#b9b9b9', '#eeca3b', '#e45756', '#b279a2', '#d8d8d8')))
_LABELS = {'image': 'images', 'window': 'window', 'clip': 'flow, spectrogram, clip',
           'result': 'result, events', 'rest': 'rclpy, DDS, timers'}


def draw(results: Results, path: Path) -> None:
    """Draw where the node's time goes, how old results are and what grows."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    figure, (cpu, ages, grown) = pyplot.subplots(
        3, 1, figsize=(8.5, 8.4), layout='constrained', height_ratios=(0.7, 1.3, 2.0))
    _draw_cpu(cpu, results)
    _draw_ages(ages, results)
    _draw_growth(grown, results)
    for axes in (cpu, ages, grown):
        axes.spines[['top', 'right']].set_visible(False)
        axes.grid(axis='x', alpha=0.25)
        axes.set_axisbelow(True)
        axes.tick_params(labelsize=8)
        axes.xaxis.label.set_size(8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    pyplot.close(figure)


def _draw_cpu(axes: Any, results: Results) -> None:
    """Stack the stages, and what the whole process takes besides."""
    figures = results['live_path']['figures']['stages']['stages']
    parts = {group: sum(s['percent'] for n, s in figures.items() if _group(n) == group)
             for group in GROUPS}
    total = phase(results, 'complete node', 10)['cpu_percent']['node']
    parts['rest'] = max(0.0, total - sum(parts.values()))
    left = 0.0
    for group, percent in parts.items():
        label = f'{_LABELS.get(group, group)} {percent:.1f}'
        axes.barh(0, percent, left=left, color=_COLOURS[group], label=label)
        left += percent
    axes.set(yticks=[], xlabel='% of a core', xlim=(0, left))
    axes.set_title(f'The complete node takes {total:.1f} % of a core: VGA at 30 Hz, audio, boxes, '
                   '10 results a second', loc='left', fontsize=9)
    axes.legend(ncols=4, fontsize=8, loc='upper center', bbox_to_anchor=(0.5, -0.45),
                frameon=False)


def _draw_ages(axes: Any, results: Results) -> None:
    """Draw a line from p5 to p95 for each run, thick from p25 to p75."""
    figures = phases(results)
    for y, each in enumerate(figures):
        ages = each['ages_ms'][FRAME_AGE]
        if ages:
            axes.hlines(y, ages['p5'], ages['p95'], color='#4c78a8', linewidth=1.5)
            axes.hlines(y, ages['p25'], ages['p75'], color='#4c78a8', linewidth=7)
            axes.plot(ages['p50'], y, 'o', color='white', markersize=4)
            axes.plot(ages['p99'], y, '|', color='#4c78a8', markersize=9)
    axes.set_yticks(range(len(figures)), [f'{p["run"]}, {p["requested"]}' for p in figures])
    axes.set(xlabel='ms', ylim=(len(figures) - 0.4, -0.6), xscale='log')
    lowest, highest = axes.get_xlim()
    ticks = [t * power for power in (1, 10, 100, 1000) for t in (1, 2, 5)]
    axes.set_xticks([t for t in ticks if lowest < t < highest])
    axes.minorticks_off()
    axes.xaxis.set_major_formatter('{x:g}')
    axes.set_title('Age of the newest frame of the clip at receipt of the result: p5 to p95, '
                   'p25 to p75, median, p99', loc='left', fontsize=9)


def _draw_growth(axes: Any, results: Results) -> None:
    """Draw a bar for each case, and write the memory beside it."""
    cases = results['live_path']['figures']['growth']
    groups = list(dict.fromkeys(case['what'] for case in cases))
    colours = dict(zip(groups, ('#4c78a8', '#eeca3b', '#54a24b', '#e45756')))
    for y, case in enumerate(cases):
        axes.barh(y, case['percent'], color=colours[case['what']])
        axes.annotate(f' {case["percent"]:.1f} %, {case["kept_mb"]:.1f} MB kept',
                      (case['percent'], y), va='center', fontsize=7.5)
    axes.set_yticks(range(len(cases)), [f'{case["what"]}: {case["label"]}' for case in cases])
    axes.set(xlabel='% of a core', ylim=(len(cases) - 0.4, -0.6),
             xlim=(0, 1.2 * max(case['percent'] for case in cases)))
    axes.set_title('Callbacks and preparation alone, 10 results a second unless stated otherwise',
                   loc='left', fontsize=9)
