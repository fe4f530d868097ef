"""The report of the reproduction: one Markdown page with the paper's tables and figures."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from karmma_ros.evaluation import published
from karmma_ros.evaluation.cost import cost_of, fusion_training_bytes, gflops_by_cap, tensor_bytes
from karmma_ros.evaluation.cost_chart import draw_costs
from karmma_ros.evaluation.plots import draw_dropping, draw_subsets
from karmma_ros.modality import Modality, parse_subset
from karmma_ros.model.presets import ensemble, preset, tiny, unimodal
from karmma_ros.reproduce import tables
from karmma_ros.reproduce.results import Results
from karmma_ros.reproduce.systems import dropout_name, DROPOUTS, TOKEN_CAPS

PAGE, REMARKS, PICTURES = 'results.md', 'results_remarks.md', 'images'
WHERE = 'Synthetic Kitchen, test split'
ROOT = 'karmma reproduce synthetic_kitchen'

PARTS: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    'table1': ('Table I: action accuracy by sensors, %', tables.table_1),
    'margins': ('What the enhancements gain', tables.margins),
    'fig4': ('Fig. 4: action accuracy as sensors drop out, %', tables.figure_4),
    'table2': ('Table II: against distillation into one modality', tables.table_2),
    'table3': ('Table III: the enhancements one by one, all sensors, %', tables.table_3),
    'table4': ('Table IV: labels against teacher, all sensors, %', tables.table_4),
    'table5': ("Table V: the teacher's token reduction", tables.table_5),
    'table6': ("Table VI: the teacher's modality dropout", tables.table_6),
}
"""What `--only` knows, besides the figures: title and maker."""


def costs() -> dict[str, Any]:
    """Compute what the systems cost; nothing of it depends on training."""
    gflops, memory = gflops_by_cap('tiny_teacher', TOKEN_CAPS), fusion_training_bytes(
        'tiny_teacher', TOKEN_CAPS)
    found: dict[str, Any] = {
        name: {'gflops': dict(cost_of(name).gflops),
               'bytes': {s: tensor_bytes(name, parse_subset(s)) for s in cost_of(name).gflops}}
        for name in ('tiny_teacher', 'tiny')}
    alone = unimodal(preset('tiny'), Modality.RGB)
    found['radevski_student'] = {'gflops': dict(cost_of('tiny', alone).gflops)}
    found['radevski'] = {'gflops': dict(cost_of('tiny', ensemble(preset('tiny'))).gflops)}
    found['tokens'] = {
        str(cap): {'gflops': gflops[cap], 'fusion_bytes': memory[cap]} for cap in TOKEN_CAPS}
    return found


def write_report(results: Results, folder: Path) -> list[Path]:
    """Draw the figures and write the page; give the files."""
    pictures = folder / PICTURES
    pictures.mkdir(parents=True, exist_ok=True)
    drawn = [pictures / f'results_fig{number}.png' for number in (4, 5, 6)]
    systems = [s for s in tables.MAIN if s != 'teacher']
    draw_dropping(
        drawn[0], {tables.MAIN[s]: results.curves(s) for s in systems}, where=WHERE,
        references={f'{tables.MAIN[s]}, paper ({tables.SETS[0]})':
                    [v / 100 for v in published.DROPPING[tables.SETS[0]][s]] for s in systems})
    draw_subsets(
        drawn[1], {f'dropout {100 * p:.0f} %': results.columns(dropout_name(p))
                   for p in DROPOUTS}, where=f'teacher, {WHERE}')
    names = {'tiny_teacher': 'teacher', 'tiny': 'student'}
    draw_costs(drawn[2], {
        'operations a clip, GFLOPs': (
            {names[n]: results.costs[n]['gflops'] for n in names}, {}),
        'tensors at inference, MB': (
            {names[n]: {s: b / 1e6 for s, b in results.costs[n]['bytes'].items()}
             for n in names}, {})})
    page = folder / PAGE
    page.write_text(_page(results, folder), encoding='utf-8')
    return [page, *drawn]


def _page(results: Results, folder: Path) -> str:
    figures = {'fig4': ('4', 'accuracy as sensors drop out'),
               'table6': ('5', "the teacher's accuracy by sensors and modality dropout")}
    parts = [_head(results)]
    parts += ['## The orderings of the paper\n', tables.orderings(results)]
    remarks = folder / REMARKS
    if remarks.is_file():
        parts.append(remarks.read_text(encoding='utf-8'))
    for name, (title, make) in PARTS.items():
        parts += [f'## {title}\n', make(results)]
        if name in figures:
            number, what = figures[name]
            parts.append(f'![Fig. {number}: {what}]({PICTURES}/results_fig{number}.png)\n')
    parts += ['## Fig. 6: what teacher and student cost\n',
              f'![Fig. 6: operations and memory]({PICTURES}/results_fig6.png)\n',
              _ratio(results), '## How it was made\n', _making(results)]
    return '\n'.join(parts)


def _head(results: Results) -> str:
    data, plan = results.settings['data'], results.settings
    train, test, others = data['train'], data['test'], plan['pretraining']['train']
    seeds = plan['seeds']
    return f"""\
# The paper's experiments in small

Every system of the paper at tiny size (`tiny` and `tiny_teacher`), trained and scored on the
Synthetic Kitchen: {train:,} training clips, {others:,} others to pretrain encoders on, {test:,}
test clips of other objects, {seeds} seeds, mean ± standard deviation. Absolute numbers mean
nothing beside EPIC-Kitchens' (EK) or Something-Something's (SS): 8 verbs × 10 nouns, four
sensors, small encoders. What can be compared is which system is better, and by how much. A
figure that the paper's text has lost is a dash. This page is written by `{ROOT}`;
every number in it rests on [results.json](results.json).
"""


def _ratio(results: Results) -> str:
    ours = [{name: results.costs[name][quantity] for name in ('tiny', 'tiny_teacher')}
            for quantity in ('gflops', 'bytes')]
    paper = published.GFLOPS, published.MEMORY_GB

    def shares(figures: Sequence[Mapping[str, Any]], student: str, teacher: str, subset: str
               ) -> str:
        return ' and '.join(
            f'{100 * f[student][subset] / f[teacher][subset]:.0f} %' for f in figures)

    tiny_ones, full_ones = ('tiny', 'tiny_teacher'), ('karmma_student', 'karmma_teacher')
    return (f"Of the teacher's operations and memory the student takes "
            f'{shares(ours, *tiny_ones, tables.FULL)} with all sensors, '
            f'{shares(ours, *tiny_ones, "V")} with V alone. The paper: '
            f'{shares(paper, *full_ones, "V+F+A")} with V+F+A, {shares(paper, *full_ones, "V")} '
            'with V. Computed from shapes; those of the full-size networks are in '
            '[model.md](model.md).\n')


def _making(results: Results) -> str:
    minutes = sum(cell['minutes'] for cell in results.cells.values())
    lines = [f'    {results.made["command"]}\n',
             f'{results.made["date"]}, {results.made["machine"]}: {len(results.cells)} cells, '
             f'{minutes:.0f} minutes of work, {results.settings["jobs"]} at a time.\n',
             'Pretrained encoders alone, action accuracy, %:\n']
    rows = []
    for size in ('student', 'teacher'):
        alone = [results.cells[f'encoder_{size}/{m}']['top1'][m.letter]['action']
                 for m in tiny().modalities]
        rows.append([size, *(f'{100 * value:.1f}' for value in alone)])
    lines.append(tables.table(['encoders', *(m.letter for m in tiny().modalities)], rows))
    return '\n'.join(lines)
