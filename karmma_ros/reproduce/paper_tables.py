"""The tables of the paper in our numbers, beside the paper's, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import math
from pathlib import Path
from typing import Any

from karmma_ros.evaluation import published
from karmma_ros.evaluation.cost import cost_of, fusion_training_bytes, gflops_by_cap, tensor_bytes
from karmma_ros.evaluation.plots import plot_costs, plot_dropout_curve, plot_subsets
from karmma_ros.evaluation.robustness import average_ranks, POINTS, relative_drop
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.modality import Modality, parse_subset
from karmma_ros.model.presets import ensemble, preset, unimodal
from karmma_ros.reproduce import paper_tables
from karmma_ros.reproduce.results import FULL, mean, Results
from karmma_ros.reproduce.systems import (
    cap_name,
    dropout_name,
    DROPOUTS,
    gamma_name,
    GAMMAS,
    HALF_TEACHER,
    TOKEN_CAPS,
)
import numpy as np

MAIN = {'teacher': 'Teacher', 'baseline': 'Baseline', 'delta': 'Baseline w/ δ',
        'karmma': 'KARMMA'}
"""System → its name in the paper's Table I."""
LOST = '–'
"""Stands where the paper's text has lost a figure."""
HEADS = ('noun', 'verb', 'action')
SETS = tuple(published.DROPPING)


def percent(values: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds, in percent; of those that have a value."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return LOST
    text = f'{100 * mean(values):.1f}'
    return f'{text} ± {100 * float(np.std(values, ddof=1)):.1f}' if len(values) > 1 else text


def table_1(results: Results) -> str:
    """Return the accuracy for every subset of the sensors."""
    columns = {system: results.columns(system) for system in MAIN}
    rows = [[subset, *(percent([c[subset] for c in columns[s]]) for s in MAIN)]
            for subset in columns['karmma'][0]]
    rows.append(['**mean**', *(percent(results.averages(s)) for s in MAIN)])
    return markdown_table(['sensors', *MAIN.values()], rows)


def margins(results: Results) -> str:
    """Tell what modality dropout with learned tokens, and then distillation, are worth."""
    def ours(better: str, worse: str, of: Callable[[str], list[float]]) -> str:
        gains = [100 * (b - w) for b, w in zip(of(better), of(worse))]
        return f'{mean(gains):+.1f} ± {float(np.std(gains, ddof=1)) if len(gains) > 1 else 0:.1f}'

    def theirs(better: str, worse: str, of: Callable[[Sequence[float]], float]) -> list[str]:
        return [f'{of(published.DROPPING[s][better]) - of(published.DROPPING[s][worse]):+.1f}'
                for s in SETS]

    measures: dict[str, tuple[Callable[[str], list[float]], Callable[[Sequence[float]], float]]]
    measures = {
        'all sensors': (results.full, lambda c: c[0]),
        'each missing with 50 %': (lambda s: [c[5] for c in results.curves(s)], lambda c: c[5]),
        'each missing with 90 %': (lambda s: [c[-1] for c in results.curves(s)],
                                   lambda c: c[-1])}
    rows = []
    for better, worse in (('delta', 'baseline'), ('karmma', 'delta')):
        gain = f'{MAIN[better]} over {MAIN[worse]}'
        rows.append([gain, 'mean of all subsets', ours(better, worse, results.averages),
                     *[LOST] * len(SETS)])
        rows += [[gain, what, ours(better, worse, mine), *theirs(better, worse, paper)]
                 for what, (mine, paper) in measures.items()]
    return markdown_table(
        ['gain, points', 'when', 'ours', *(f'paper, {s}' for s in SETS)], rows, 2
    )


def figure_4(results: Results) -> str:
    """Return the accuracy as sensors drop out."""
    systems = [s for s in MAIN if s != 'teacher']
    curves = {s: results.curves(s) for s in systems}
    rows = []
    for i, point in enumerate(POINTS):
        paper = [f'{published.DROPPING[d][s][i]:.1f}' for d in SETS for s in systems]
        rows.append([f'{100 * point:.0f}', *(percent([c[i] for c in curves[s]]) for s in systems),
                     *paper])
    short = {SETS[0]: 'EK', SETS[1]: 'SS'}
    head = [f'{short[d]} {MAIN[s]}' for d in SETS for s in systems]
    return markdown_table(['missing, %', *(MAIN[s] for s in systems), *head], rows, 0)


def table_2(results: Results) -> str:
    """Compare with Radevski et al."""
    teacher, ensemble = results.seeds('teacher')[0]['trained'], results.cells['radevski']
    gflops = {name: results.costs[name]['gflops'] for name in ('tiny', 'radevski_student')}

    def row(name: str, sees: str, asked: str, taught: int, system: str, accuracy: list[float],
            cost: float, paper: str) -> list[str]:
        trained = results.seeds(system)[0]['trained']
        return [name, sees, asked, f'{taught / 1e6:.2f}', f'{trained / 1e6:.2f}',
                percent(accuracy), f'{cost:.2f}', paper]

    alone = [column['V'] for column in results.columns('karmma')]
    return markdown_table(
        ['method', 'trained on', 'asked with', "teacher's trained parameters, M",
         "student's, M", 'action, %', 'GFLOPs', 'paper, action, %'],
        [['their teacher: an ensemble', FULL, FULL, '', f'{ensemble["trained"] / 1e6:.2f}',
          percent([ensemble['top1'][FULL]['action']]),
          f'{results.costs["radevski"]["gflops"][FULL]:.2f}', LOST],
         row('Radevski et al.', 'V', 'V', ensemble['trained'], 'radevski_student',
             results.full('radevski_student'), gflops['radevski_student']['V'],
             f'{published.RADEVSKI_STUDENT:.2f}'),
         row('KARMMA, V alone', 'V', 'V', teacher, 'karmma_v', results.full('karmma_v'),
             gflops['tiny']['V'], LOST),
         row('KARMMA', FULL, 'V', teacher, 'karmma', alone, gflops['tiny']['V'], LOST),
         row('KARMMA', FULL, FULL, teacher, 'karmma', results.full('karmma'),
             gflops['tiny'][FULL], f'{published.DROPPING[SETS[0]]["karmma"][0]:.2f}')], 3)


def table_3(results: Results) -> str:
    """Tell what each enhancement adds, with all sensors."""
    rows = {'baseline': ('Baseline', 'half_baseline'),
            'dropout': ('+ modality dropout', 'half_dropout'),
            'missing': ('+ missing modality strategy', gamma_name(1.0)),
            'distillation': ('+ knowledge distillation', gamma_name(0.7)),
            'longer': ('+ longer training', 'karmma')}
    return markdown_table(
        ['', *HEADS, 'action, mean of all subsets', *(f'paper, {h}' for h in HEADS)],
        [[title, *(percent(results.full(system, head)) for head in HEADS),
          percent(results.averages(system)),
          *(f'{value:.2f}' for value in published.ENHANCEMENTS[row])]
         for row, (title, system) in rows.items()])


def table_4(results: Results) -> str:
    """Weigh labels against the teacher."""
    rows = []
    for gamma in GAMMAS:
        paper = published.GAMMA.get(gamma)
        rows.append([
            f'{gamma:.1f}', *(percent(results.full(gamma_name(gamma), h)) for h in HEADS),
            percent(results.averages(gamma_name(gamma))),
            *(f'{value:.2f}' for value in paper or ()), *([] if paper else [LOST] * 3)])
    return markdown_table(['γ', *HEADS, 'action, mean of all subsets',
                  *(f'paper, {h}' for h in HEADS)], rows)


def table_5(results: Results) -> str:
    """Tell what the teacher's token reduction costs and saves."""
    rows = []
    for cap, paper in zip(TOKEN_CAPS, (None, 500, 300, 100)):
        cost = results.costs['tokens'][str(cap)]
        accuracy = published.TOKEN_CAP_ACCURACY.get(paper)
        gigabytes = published.FUSION_MEMORY_GB.get(paper)
        rows.append([
            'none' if cap is None else 'τ-average', str(cap or 36), f'{cost["gflops"]:.3f}',
            f'{cost["fusion_bytes"] / 1e6:.0f}', percent(results.full(cap_name(cap))),
            str(paper or 785),
            f'{published.TOKEN_CAP_GFLOPS["karmma_teacher"][paper]:.0f}',
            LOST if gigabytes is None else f'{1000 * gigabytes:.0f}',
            LOST if accuracy is None else f'{accuracy:.2f}'])
    return markdown_table(
        ['reduction', 'tokens', 'GFLOPs', 'fusion in training, MB', 'action, %', 'paper: tokens',
         'GFLOPs', 'fusion, MB', 'action, %'], rows)


def table_6(results: Results) -> str:
    """Put the teacher's rates of modality dropout into three numbers."""
    columns = {p: results.columns(dropout_name(p)) for p in DROPOUTS}
    ranks: dict[float, list[float]] = {p: [] for p in DROPOUTS}
    for seed in range(min(map(len, columns.values()))):
        found = average_ranks({str(p): columns[p][seed] for p in DROPOUTS})
        for p in DROPOUTS:
            ranks[p].append(found[str(p)])
    rows = []
    for p in DROPOUTS:
        paper = published.DROPOUT_AVERAGE.get(p), published.DROPOUT_DROP.get(p)
        rows.append([
            f'{100 * p:.0f}', percent(results.averages(dropout_name(p))),
            percent([relative_drop(c, FULL) for c in columns[p]]), f'{mean(ranks[p]):.2f}',
            *(LOST if value is None else f'{value:.2f}' for value in paper)])
    return markdown_table(
        [
            'modality dropout, %',
            'mean accuracy, %',
            'mean relative drop, %',
            'mean rank',
            'paper: mean accuracy',
            'mean relative drop',
        ],
        rows,
    )


def orderings(results: Results) -> str:
    """Hold the paper's orderings against ours."""
    def above(better: list[float], worse: list[float], slack: float = 0.0) -> bool:
        return mean(better) >= mean(worse) - slack

    at_90 = {s: [c[-1] for c in results.curves(s)] for s in MAIN}
    average, full = results.averages, results.full
    gammas = {g: mean(full(gamma_name(g))) for g in GAMMAS}
    dropouts = {p: mean(average(dropout_name(p))) for p in DROPOUTS}
    stages = ['half_baseline', 'half_dropout', gamma_name(1.0), gamma_name(0.7), 'karmma']
    claims: Mapping[str, bool] = {
        'KARMMA ≥ Baseline w/ δ ≥ Baseline, mean of all subsets':
            above(average('karmma'), average('delta'))
            and above(average('delta'), average('baseline')),
        'KARMMA ≥ Baseline w/ δ ≥ Baseline, each sensor missing with 90 %':
            above(at_90['karmma'], at_90['delta']) and above(at_90['delta'], at_90['baseline']),
        'KARMMA ≥ Baseline w/ δ ≥ Baseline, all sensors (Table I)':
            above(full('karmma'), full('delta')) and above(full('delta'), full('baseline')),
        'the student is better than its teacher with all sensors (Table I)':
            above(full('karmma'), full('teacher')),
        "KARMMA with all sensors is better than Radevski et al.'s student (Table II)":
            above(full('karmma'), full('radevski_student')),
        "on V alone Radevski et al.'s student is better than KARMMA (Table II)":
            above(full('radevski_student'), [c['V'] for c in results.columns('karmma')]),
        'every enhancement raises action accuracy with all sensors (Table III)':
            all(above(full(b), full(a)) for a, b in zip(stages, stages[1:])),
        'the best γ is 0.7 (Table IV)': max(gammas, key=lambda g: gammas[g]) == 0.7,
        'no reduction is best, and our cap costs less than a point (Table V)':
            above(full(cap_name(None)), full(HALF_TEACHER))
            and above(full(HALF_TEACHER), full(cap_name(None)), 0.01),
        'modality dropout of 50 % has the best mean accuracy (Table VI)':
            max(dropouts, key=lambda p: dropouts[p]) == 0.5,
    }
    return markdown_table(['the paper finds', 'here'],
                 [[claim, 'the same' if holds else '**not so**'] for claim, holds in
                  claims.items()], 2)


PAGE, REMARKS, PICTURES = 'results.md', 'results_remarks.md', 'images'
WHERE = 'Synthetic Kitchen, test split'
ROOT = 'karmma reproduce synthetic_kitchen'

PARTS: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    'table1': ('Table I: action accuracy by sensors, %', paper_tables.table_1),
    'margins': ('What the enhancements gain', paper_tables.margins),
    'fig4': ('Fig. 4: action accuracy as sensors drop out, %', paper_tables.figure_4),
    'table2': ('Table II: against distillation into one modality', paper_tables.table_2),
    'table3': ('Table III: the enhancements one by one, all sensors, %', paper_tables.table_3),
    'table4': ('Table IV: labels against teacher, all sensors, %', paper_tables.table_4),
    'table5': ("Table V: the teacher's token reduction", paper_tables.table_5),
    'table6': ("Table VI: the teacher's modality dropout", paper_tables.table_6),
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
    systems = [s for s in paper_tables.MAIN if s != 'teacher']
    plot_dropout_curve(
        drawn[0],
        {paper_tables.MAIN[s]: results.curves(s) for s in systems},
        where=WHERE,
        references={
            f'{paper_tables.MAIN[s]}, paper ({paper_tables.SETS[0]})': [
                v / 100 for v in published.DROPPING[paper_tables.SETS[0]][s]
            ]
            for s in systems
        },
    )
    plot_subsets(
        drawn[1], {f'dropout {100 * p:.0f} %': results.columns(dropout_name(p))
                   for p in DROPOUTS}, where=f'teacher, {WHERE}')
    names = {'tiny_teacher': 'teacher', 'tiny': 'student'}
    plot_costs(drawn[2], {
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
    parts += ['## The orderings of the paper\n', f'{paper_tables.orderings(results)}\n']
    remarks = folder / REMARKS
    if remarks.is_file():
        parts.append(remarks.read_text(encoding='utf-8'))
    for name, (title, make) in PARTS.items():
        parts += [f'## {title}\n', f'{make(results)}\n']
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
            f'{shares(ours, *tiny_ones, paper_tables.FULL)} with all sensors, '
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
                 for m in preset('tiny').modalities]
        rows.append([size, *(f'{100 * value:.1f}' for value in alone)])
    lines.append(
        markdown_table(['encoders', *(m.letter for m in preset('tiny').modalities)], rows)
    )
    return '\n'.join(lines) + '\n'
