"""The table and the chart of docs/peers.md, from the measurements of `peers.py`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from figures import measured, Results, three_digits
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.model.model_zoo import zoo_entry

PAGE = Path('docs', 'peers.md')
CHART = Path('docs', 'images', 'peers.png')
RUNS = ('eager', 'openvino fp32', 'openvino bf16')
_TSM = 'https://github.com/mit-han-lab/temporal-shift-module'


class Published(NamedTuple):
    """What is published of a network."""

    label: str
    new: str
    """What it encodes for a prediction."""
    zoo: str = ''
    """Its name in the model zoo, which has the accuracy; empty: it is here."""
    top1: float = 0.0
    page: str = ''
    epic: float = 0.0
    """Action accuracy on Epic-Kitchens-100."""


PUBLISHED = {
    'swin3d_t': Published('Video Swin-T', 'clip', 'swin3d_t'),
    'mvit_v2_s': Published('MViTv2-S', 'clip', 'mvit_v2_s'),
    's3d': Published('S3D', 'clip', 's3d'),
    'r2plus1d_18': Published('R(2+1)D-18', 'clip', 'r2plus1d_18'),
    'tsm_resnet50': Published('ResNet-50 of TSM', 'frame', '', 74.1, _TSM, 35.75),
    'x3d_s': Published('X3D-S', 'clip', 'x3d_s'),
    'x3d_m': Published('X3D-M', 'clip', 'x3d_m'),
    'cox3d_s': Published('CoX3D-S', 'frame', 'cox3d_s'),
    'cox3d_m': Published('CoX3D-M', 'frame', 'cox3d_m'),
    'movinet_a0_stream': Published('MoViNet-A0 stream', 'frame', 'movinet_a0_stream'),
    'movinet_a2_stream': Published('MoViNet-A2 stream', 'frame', 'movinet_a2_stream', epic=41.2),
    'karmma_student': Published('**karmma_student** of V', 'clip'),
    'karmma_student_stream': Published('**karmma_student_stream** of V', '8 frames'),
    'karmma_student_causal': Published('**karmma_student_causal** of V', '2 frames'),
    'karmma_student_movinet': Published('**karmma_student_movinet** of V', '2 frames'),
}


def networks(results: Results) -> Mapping[str, Any]:
    """Return name → figures, in the order of the table."""
    own = results['peers']['figures']['networks']
    return {name: own[name] for name in PUBLISHED if name in own}


def accuracy(name: str) -> tuple[float, str, str] | None:
    """Return the published top-1 of Kinetics, its data set and the page; None without one."""
    own = PUBLISHED[name]
    if own.zoo:
        entry = zoo_entry(own.zoo)
        return entry.accuracy['top-1'], entry.dataset, entry.accuracy_page
    return (own.top1, 'Kinetics-400', own.page) if own.top1 else None


def fastest(figures: Mapping[str, Any]) -> float:
    """Return the predictions a second in what runs it fastest."""
    return 1e3 / min(figures['ms'].values())


def peers(results: Results) -> str:
    """Return the table of all networks."""
    lines = []
    for name, figures in networks(results).items():
        own, known = PUBLISHED[name], accuracy(name)
        lines.append([
            own.label, figures['input'], own.new, three_digits(figures['gflops']),
            f'{figures["parameters_m"]:.1f}',
            *(three_digits(figures['ms'][run]) if run in figures['ms'] else '–' for run in RUNS),
            f'{fastest(figures):.1f}',
            f'[{known[0]:.1f}]({known[2]}) {known[1].replace("Kinetics-", "K")}' if known else '–',
            f'{own.epic:g}' if own.epic else '–'])
    return f'{measured(results["peers"])}\n\n' + markdown_table(
        ['network', 'clip', 'encodes', 'GFLOPs', 'parameters, M', *(f'{run}, ms' for run in RUNS),
         'predictions/s', 'published top-1, %', 'EPIC-100 action, %'], lines, 3)


def draw(results: Results, path: Path) -> None:
    """Draw published accuracy against predictions a second; ours, without one, as lines."""
    import matplotlib

    matplotlib.use('Agg')
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(8.5, 4.6), layout='constrained')
    colours, seen = {'Kinetics-400': '#4c78a8', 'Kinetics-600': '#54a24b'}, set()
    for name, figures in networks(results).items():
        own, known, rate = PUBLISHED[name], accuracy(name), fastest(figures)
        if known is None:
            axis.axvline(rate, color='#e45756', linewidth=1.2, linestyle='--')
            axis.annotate(own.label.replace('**', '').replace(' of V', ''), (rate, 0.02),
                          xycoords=('data', 'axes fraction'), rotation=90, fontsize=7,
                          color='#e45756', ha='right', va='bottom')
            continue
        top1, dataset, _ = known
        axis.plot(rate, top1, 's' if own.new == 'clip' else 'o', color=colours[dataset],
                  label=None if dataset in seen else dataset, markersize=7)
        seen.add(dataset)
        axis.annotate(own.label, (rate, top1), xytext=(6, 4), textcoords='offset points',
                      fontsize=8)
    axis.set(xscale='log', xlabel='predictions a second on this machine, of the fastest backend',
             ylabel='published top-1, %')
    axis.xaxis.set_major_formatter('{x:g}')
    axis.margins(x=0.12, y=0.12)
    axis.set_title('One camera: squares encode a clip for each prediction, circles a frame; '
                   'dashed: ours', loc='left', fontsize=9)
    axis.legend(fontsize=8, frameon=False, loc='lower right')
    axis.spines[['top', 'right']].set_visible(False)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=130)
    plt.close(figure)
