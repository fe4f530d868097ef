"""The tables of the paper in our numbers, beside the paper's, as Markdown."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
import math

from karmma_ros.evaluation import published
from karmma_ros.evaluation.dropping import POINTS
from karmma_ros.evaluation.robustness import average_ranks, relative_drop
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
    """Give mean and standard deviation over seeds, in percent; of those that have a value."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return LOST
    text = f'{100 * mean(values):.1f}'
    return f'{text} ± {100 * float(np.std(values, ddof=1)):.1f}' if len(values) > 1 else text


def table(head: Sequence[str], rows: Iterable[Sequence[str]], left: int = 1) -> str:
    """Set a Markdown table whose first `left` columns are words and the rest numbers."""
    lines = [head, ['---'] * left + ['---:'] * (len(head) - left), *rows]
    return '\n'.join('| ' + ' | '.join(row) + ' |' for row in lines) + '\n'


def table_1(results: Results) -> str:
    """Give the accuracy for every subset of the sensors."""
    columns = {system: results.columns(system) for system in MAIN}
    rows = [[subset, *(percent([c[subset] for c in columns[s]]) for s in MAIN)]
            for subset in columns['karmma'][0]]
    rows.append(['**mean**', *(percent(results.averages(s)) for s in MAIN)])
    return table(['sensors', *MAIN.values()], rows)


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
    return table(['gain, points', 'when', 'ours', *(f'paper, {s}' for s in SETS)], rows, 2)


def figure_4(results: Results) -> str:
    """Give the accuracy as sensors drop out."""
    systems = [s for s in MAIN if s != 'teacher']
    curves = {s: results.curves(s) for s in systems}
    rows = []
    for i, point in enumerate(POINTS):
        paper = [f'{published.DROPPING[d][s][i]:.1f}' for d in SETS for s in systems]
        rows.append([f'{100 * point:.0f}', *(percent([c[i] for c in curves[s]]) for s in systems),
                     *paper])
    short = {SETS[0]: 'EK', SETS[1]: 'SS'}
    head = [f'{short[d]} {MAIN[s]}' for d in SETS for s in systems]
    return table(['missing, %', *(MAIN[s] for s in systems), *head], rows, 0)


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
    return table(
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
    return table(
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
    return table(['γ', *HEADS, 'action, mean of all subsets',
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
    return table(
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
    return table(['modality dropout, %', 'mean accuracy, %', 'mean relative drop, %', 'mean rank',
                  'paper: mean accuracy', 'mean relative drop'], rows)


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
    return table(['the paper finds', 'here'],
                 [[claim, 'the same' if holds else '**not so**'] for claim, holds in
                  claims.items()], 2)
