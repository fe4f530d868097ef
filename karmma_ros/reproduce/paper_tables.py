"""The paper's tables in our numbers, beside the paper's, and the page that shows them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
import math
from pathlib import Path

from karmma_ros.evaluation import published
from karmma_ros.evaluation.cost import cost_of, fusion_training_bytes, gflops_by_cap, tensor_bytes
from karmma_ros.evaluation.plots import plot_costs, plot_dropout_curve, plot_subsets
from karmma_ros.evaluation.robustness import average_ranks, POINTS, relative_drop
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.modality import Modality, parse_subset
from karmma_ros.model.presets import ensemble, preset, unimodal
from karmma_ros.reproduce.experiments import ExperimentResult
from karmma_ros.reproduce.results import (
    Costs,
    FULL,
    mean,
    Results,
    SystemCost,
    TokenCapCost,
)
from karmma_ros.reproduce.systems import (
    cap_name,
    dropout_name,
    DROPOUTS,
    EXPERT,
    gamma_name,
    GAMMAS,
    GARAGE_STUDENT,
    GARAGE_TEACHER,
    HALF_TEACHER,
    TOKEN_CAPS,
)
import numpy as np

MAIN = {'teacher': 'Teacher', 'baseline': 'Baseline', 'delta': 'Baseline w/ δ',
        'karmma': 'KARMMA'}
"""System → its name in the paper's Table I."""
MISSING = '–'
"""Stands where the paper's text lacks a figure."""
HEADS = ('noun', 'verb', 'action')
SETS = tuple(published.DROPOUT_CURVES)


def percent(values: Sequence[float]) -> str:
    """Return mean and standard deviation over seeds, in percent; of those that have a value."""
    values = [value for value in values if math.isfinite(value)]
    if not values:
        return MISSING
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
    """Return the gains of modality dropout with learned tokens, and then of distillation."""
    def ours(better: str, worse: str, of: Callable[[str], list[float]]) -> str:
        gains = [100 * (b - w) for b, w in zip(of(better), of(worse))]
        return f'{mean(gains):+.1f} ± {float(np.std(gains, ddof=1)) if len(gains) > 1 else 0:.1f}'

    def theirs(better: str, worse: str, of: Callable[[Sequence[float]], float]) -> list[str]:
        curves = [published.DROPOUT_CURVES[s] for s in SETS]
        return [f'{of(each[better]) - of(each[worse]):+.1f}' for each in curves]

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
                     *[MISSING] * len(SETS)])
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
        paper = [f'{published.DROPOUT_CURVES[d][s][i]:.1f}' for d in SETS for s in systems]
        rows.append([f'{100 * point:.0f}', *(percent([c[i] for c in curves[s]]) for s in systems),
                     *paper])
    short = {SETS[0]: 'EK', SETS[1]: 'SS'}
    head = [f'{short[d]} {MAIN[s]}' for d in SETS for s in systems]
    return markdown_table(['missing, %', *(MAIN[s] for s in systems), *head], rows, 0)


def table_2(results: Results) -> str:
    """Compare with Radevski et al."""
    ensemble = results.experiments['radevski']
    gflops = {name: cost.gflops for name, cost in results.costs.systems.items()}

    def millions(result: ExperimentResult) -> str:
        return f'{(result.trainable_parameters or 0) / 1e6:.2f}'

    def row(name: str, trained_on: str, given: str, teacher: ExperimentResult, system: str,
            accuracy: list[float], cost: float, paper: str) -> list[str]:
        return [name, trained_on, given, millions(teacher), millions(results.seeds(system)[0]),
                percent(accuracy), f'{cost:.2f}', paper]

    teacher = results.seeds('teacher')[0]
    alone = [column['V'] for column in results.columns('karmma')]
    return markdown_table(
        ['method', 'trained on', 'given', "teacher's trained parameters, M",
         "student's, M", 'action, %', 'GFLOPs', 'paper, action, %'],
        [['their teacher: an ensemble', FULL, FULL, '', millions(ensemble),
          percent([ensemble.accuracy(FULL)]), f'{gflops["radevski"][FULL]:.2f}', MISSING],
         row('Radevski et al.', 'V', 'V', ensemble, 'radevski_student',
             results.full('radevski_student'), gflops['radevski_student']['V'],
             f'{published.RADEVSKI_STUDENT:.2f}'),
         row('KARMMA, V alone', 'V', 'V', teacher, 'karmma_v', results.full('karmma_v'),
             gflops['tiny']['V'], MISSING),
         row('KARMMA', FULL, 'V', teacher, 'karmma', alone, gflops['tiny']['V'], MISSING),
         row('KARMMA', FULL, FULL, teacher, 'karmma', results.full('karmma'),
             gflops['tiny'][FULL], f'{published.DROPOUT_CURVES[SETS[0]]["karmma"][0]:.2f}')], 3)


def table_3(results: Results) -> str:
    """Return the gain of each enhancement, with all sensors."""
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
    """Return the accuracy for each weight of the labels against the teacher."""
    rows = []
    for gamma in GAMMAS:
        paper = published.GAMMA.get(gamma)
        rows.append([
            f'{gamma:.1f}', *(percent(results.full(gamma_name(gamma), h)) for h in HEADS),
            percent(results.averages(gamma_name(gamma))),
            *(f'{value:.2f}' for value in paper or ()), *([] if paper else [MISSING] * 3)])
    return markdown_table(['γ', *HEADS, 'action, mean of all subsets',
                  *(f'paper, {h}' for h in HEADS)], rows)


def table_5(results: Results) -> str:
    """Return the cost of the teacher's token reduction in accuracy, and what it saves."""
    rows = []
    for cap, paper in zip(TOKEN_CAPS, (None, 500, 300, 100)):
        cost = results.costs.token_caps[_cap_key(cap)]
        accuracy = published.TOKEN_CAP_ACCURACY.get(paper)
        gigabytes = published.FUSION_MEMORY_GB.get(paper)
        rows.append([
            'none' if cap is None else 'τ-average', str(cap or 36), f'{cost.gflops:.3f}',
            f'{cost.fusion_bytes / 1e6:.0f}', percent(results.full(cap_name(cap))),
            str(paper or 785),
            f'{published.TOKEN_CAP_GFLOPS["karmma_teacher"][paper]:.0f}',
            MISSING if gigabytes is None else f'{1000 * gigabytes:.0f}',
            MISSING if accuracy is None else f'{accuracy:.2f}'])
    return markdown_table(
        ['reduction', 'tokens', 'GFLOPs', 'fusion in training, MB', 'action, %', 'paper: tokens',
         'GFLOPs', 'fusion, MB', 'action, %'], rows)


def table_6(results: Results) -> str:
    """Return three numbers for each rate of the teacher's modality dropout."""
    columns = {p: results.columns(dropout_name(p)) for p in DROPOUTS}
    ranks: dict[float, list[float]] = {p: [] for p in DROPOUTS}
    for seed in range(min(map(len, columns.values()))):
        of_seed = average_ranks({str(p): columns[p][seed] for p in DROPOUTS})
        for p in DROPOUTS:
            ranks[p].append(of_seed[str(p)])
    rows = []
    for p in DROPOUTS:
        paper = published.DROPOUT_AVERAGE.get(p), published.DROPOUT_DROP.get(p)
        rows.append([
            f'{100 * p:.0f}', percent(results.averages(dropout_name(p))),
            percent([relative_drop(c, FULL) for c in columns[p]]), f'{mean(ranks[p]):.2f}',
            *(MISSING if value is None else f'{value:.2f}' for value in paper)])
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
    """Compare the paper's orderings with ours."""
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
    return markdown_table(
        ['the paper finds', 'here'],
        [[claim, 'the same' if holds else '**not so**'] for claim, holds in claims.items()], 2)


PAGE, REMARKS, IMAGES = 'results.md', 'results_remarks.md', 'images'
WHERE = 'Synthetic Kitchen, test split'
ROOT = 'karmma reproduce synthetic_kitchen'

PARTS: Mapping[str, tuple[str, Callable[[Results], str]]] = {
    'table1': ('Table I: action accuracy by sensors, %', table_1),
    'margins': ('What the enhancements gain', margins),
    'fig4': ('Fig. 4: action accuracy as sensors drop out, %', figure_4),
    'table2': ('Table II: against distillation into one modality', table_2),
    'table3': ('Table III: the enhancements one by one, all sensors, %', table_3),
    'table4': ('Table IV: labels against teacher, all sensors, %', table_4),
    'table5': ("Table V: the teacher's token reduction", table_5),
    'table6': ("Table VI: the teacher's modality dropout", table_6),
}
"""Part that `--only` prints → its title and what writes it."""


def costs() -> Costs:
    """Compute the costs of the systems."""
    systems = {}
    for name in ('tiny_teacher', 'tiny'):
        gflops = cost_of(name).gflops
        systems[name] = SystemCost(
            gflops, {subset: tensor_bytes(name, parse_subset(subset)) for subset in gflops})
    for name, config in (('radevski_student', unimodal(preset('tiny'), Modality.RGB)),
                         ('radevski', ensemble(preset('tiny')))):
        systems[name] = SystemCost(cost_of('tiny', config).gflops)
    by_cap = gflops_by_cap('tiny_teacher', TOKEN_CAPS)
    memory = fusion_training_bytes('tiny_teacher', TOKEN_CAPS)
    return Costs(systems, {
        _cap_key(cap): TokenCapCost(by_cap[cap], memory[cap]) for cap in TOKEN_CAPS})


def _cap_key(cap: int | None) -> str:
    return 'none' if cap is None else str(cap)


def write_report(results: Results, folder: Path) -> list[Path]:
    """Plot the figures and write the page; return the files."""
    images = folder / IMAGES
    images.mkdir(parents=True, exist_ok=True)
    figures = [images / f'results_fig{number}.png' for number in (4, 5, 6)]
    systems = [s for s in MAIN if s != 'teacher']
    paper = {f'{MAIN[s]}, paper ({SETS[0]})': published.DROPOUT_CURVES[SETS[0]][s]
             for s in systems}
    plot_dropout_curve(
        figures[0], {MAIN[s]: results.curves(s) for s in systems}, where=WHERE,
        references={name: [v / 100 for v in curve] for name, curve in paper.items()})
    plot_subsets(
        figures[1], {f'dropout {100 * p:.0f} %': results.columns(dropout_name(p))
                     for p in DROPOUTS}, where=f'teacher, {WHERE}')
    costs_of = {title: results.costs.systems[name]
                for name, title in (('tiny_teacher', 'teacher'), ('tiny', 'student'))}
    plot_costs(figures[2], {
        'operations a clip, GFLOPs': ({name: c.gflops for name, c in costs_of.items()}, {}),
        'tensors at inference, MB': (
            {name: {s: b / 1e6 for s, b in (c.bytes or {}).items()}
             for name, c in costs_of.items()}, {})})
    page = folder / PAGE
    page.write_text(_page(results, folder), encoding='utf-8')
    return [page, *figures]


def _page(results: Results, folder: Path) -> str:
    figures = {'fig4': ('4', 'accuracy as sensors drop out'),
               'table6': ('5', "the teacher's accuracy by sensors and modality dropout")}
    parts = [_head(results)]
    parts += ['## The orderings of the paper\n', f'{orderings(results)}\n']
    remarks = folder / REMARKS
    if remarks.is_file():
        parts.append(remarks.read_text(encoding='utf-8'))
    for name, (title, make) in PARTS.items():
        parts += [f'## {title}\n', f'{make(results)}\n']
        if name in figures:
            number, what = figures[name]
            parts.append(f'![Fig. {number}: {what}]({IMAGES}/results_fig{number}.png)\n')
    parts += ['## Fig. 6: what teacher and student cost\n',
              f'![Fig. 6: operations and memory]({IMAGES}/results_fig6.png)\n',
              _ratio(results), '## How it was made\n', _provenance(results)]
    return '\n'.join(parts)


def _head(results: Results) -> str:
    data, plan = results.settings['data'], results.settings
    train, test, seeds = data['train'], data['test'], plan['seeds']
    garage, experts = plan['garage']['train'], plan['pretraining']['train']
    return f"""\
# The paper's experiments in small

Every system of the paper at tiny size (`tiny` and `tiny_teacher`), trained and scored on the
Synthetic Kitchen: {train:,} training clips, {test:,} test clips of other objects, {garage:,}
clips of the garage, its other domain, to pretrain encoders on, {experts:,} others of the kitchen
for the experts of Table II, {seeds} seeds, mean ± standard deviation. Absolute numbers mean
nothing beside EPIC-Kitchens' (EK) or Something-Something's (SS): 8 verbs × 10 nouns, four
sensors, small encoders. What can be compared is which system is better, and by how much. A
figure that the paper's text lacks is a dash. This page is written by `{ROOT}`;
every number in it is from [results.json](results.json)
([schema](schemas/results.schema.json)).
"""


def _ratio(results: Results) -> str:
    costs_of = results.costs.systems
    ours = ({name: cost.gflops for name, cost in costs_of.items()},
            {name: cost.bytes or {} for name, cost in costs_of.items()})
    paper = published.GFLOPS, published.MEMORY_GB

    def fractions(
        figures: Sequence[Mapping[str, Mapping[str, float]]], student: str, teacher: str,
        subset: str,
    ) -> str:
        return ' and '.join(
            f'{100 * f[student][subset] / f[teacher][subset]:.0f} %' for f in figures)

    tiny_ones, full_ones = ('tiny', 'tiny_teacher'), ('karmma_student', 'karmma_teacher')
    return (f"Of the teacher's operations and memory the student takes "
            f'{fractions(ours, *tiny_ones, FULL)} with all sensors, '
            f'{fractions(ours, *tiny_ones, "V")} with V alone. The paper: '
            f'{fractions(paper, *full_ones, "V+F+A")} with V+F+A, '
            f'{fractions(paper, *full_ones, "V")} with V. Computed from shapes; those of the '
            'full-size networks are in [model.md](model.md).\n')


def _provenance(results: Results) -> str:
    minutes = sum(each.minutes for each in results.experiments.values())
    facts, jobs = results.provenance, results.settings['jobs']
    lines = [f'    {facts["command"]}\n',
             f'{facts["date"]}, {facts["machine"]}: {len(results.experiments)} experiments, '
             f'{minutes:.0f} minutes of work, {jobs or "as many as fit"} at a time.\n',
             'Encoders alone, action accuracy on the domain that they were trained on, %:\n']
    modalities = preset('tiny').modalities
    rows = []
    for name, title in ((EXPERT, 'student, kitchen'), (GARAGE_STUDENT, 'student, garage'),
                        (GARAGE_TEACHER, 'teacher, garage')):
        alone = [results.experiments.get(f'{name}/{m}') for m in modalities]
        rows.append([title, *(percent([] if each is None else [each.accuracy()])
                              for each in alone)])
    lines.append(markdown_table(['encoders', *(m.letter for m in modalities)], rows))
    return '\n'.join(lines) + '\n'
