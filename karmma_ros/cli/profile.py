"""`karmma profile`: cost of the networks of the paper, beside the figures of the paper."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
import json
from pathlib import Path
from typing import Any

from jsonargparse import Namespace
from karmma_ros.cli.options import command_parser, CommandParser, open_model, to_path
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation import published
from karmma_ros.evaluation.cost import (
    Cost,
    cost_of,
    cost_of_model,
    gflops_by_cap,
    NEW_FRAMES,
    resident_bytes,
    tensor_bytes,
)
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.modality import parse_subset
from karmma_ros.model.bundle import Bundle
from karmma_ros.model.hub import is_hub_reference
from karmma_ros.model.model_zoo import MODEL_ZOO
from karmma_ros.model.presets import preset, PRESETS

PAPER = ('karmma_teacher', 'karmma_student', 'karmma_student_v', 'radevski', 'radevski_student')
TEACHER, STUDENT = 'karmma_teacher', 'karmma_student'
TABLE_V = 'none,500,300,100'
Memory = Mapping[str, Mapping[str, float]]
"""Subset → `tensors` and `resident` → GB."""


def main(arguments: Sequence[str]) -> int:
    """Print the cost of presets."""
    options = _parser().parse_args(list(arguments))
    names = list(dict.fromkeys(options.presets or PAPER))
    models = {name: open_model(name, 'MODEL') for name in names if _is_model(name)}
    for name in names:
        if name not in models:
            preset(name)  # report a misspelt name before the work
    caps = _caps(options.token_caps)
    _refuse_for_models(models, {'--token-caps': options.token_caps, '--memory': options.memory})
    costs = {name: cost_of_model(b.config, b.spec, b.vocabulary) if (b := models.get(name))
             else cost_of(name) for name in names}
    fusing = [name for name in names
              if name not in models and preset(name).fusion != 'logit_mean']
    by_cap = {name: gflops_by_cap(name, caps) for name in fusing} if caps else {}
    memory = {name: _memory(name, costs[name]) for name in names} if options.memory else {}
    if options.chart:
        _chart(options.chart, costs, memory)
    if options.json:
        print(_json(costs, by_cap, memory))
    else:
        lines = [line for bundle in models.values() if (line := _published(bundle))]
        print('\n\n'.join([_text(costs, by_cap, memory, options), *lines]))
    return 0


def _is_model(name: str) -> bool:
    return name not in PRESETS and (is_hub_reference(name) or Path(name).is_dir())


def _refuse_for_models(models: Mapping[str, Bundle], given: Mapping[str, object]) -> None:
    for option, value in given.items():
        if models and value:
            raise InvalidSettingError(
                option, value, 'left out', f'{next(iter(models))} is a model directory, and it is '
                'for presets')


def _published(bundle: Bundle) -> str:
    """Return what the publishers of an imported model state; empty if nothing is known."""
    for entry in MODEL_ZOO:
        if entry.source == bundle.source.get('source') and entry.published_gmacs:
            return (f'{bundle.name}: {entry.source} is published with {entry.published_gmacs:.2f} '
                    f'billion multiply-accumulates, {2 * entry.published_gmacs:.2f} GFLOPs, for '
                    f'{entry.published_frames} frames; here a clip has {bundle.spec.num_frames}.')
    return ''


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma profile', 'Operations, parameters and memory of presets, beside the figures of '
        'the paper, and of model directories. Computed from shapes, in seconds, unless --memory '
        'is given.',
        '[PRESET|MODEL ...] [OPTION ...]')
    parser.add_argument(
        'presets', nargs='*', type=str, metavar='PRESET|MODEL', help=f'presets, of '
        f'{", ".join(PRESETS)}, or model directories (default: {" ".join(PAPER)})')
    parser.add_argument('--json', action='store_true', help='print JSON instead of tables')
    parser.add_argument(
        '--chart', type=to_path, metavar='FILE', help='also draw bars as in Fig. 6'
    )
    parser.add_argument(
        '--token-caps', type=str, metavar='CAPS', nargs='?', const=TABLE_V, default='',
        help=f'also the operations for other token caps (Table V), such as {TABLE_V}')
    parser.add_argument(
        '--memory', action='store_true', help='also run every subset in a process of its own and '
        'measure its memory: minutes')
    return parser


def _caps(text: str) -> list[int | None]:
    try:
        return [None if part == 'none' else int(part) for part in text.split(',') if part]
    except ValueError:
        raise InvalidSettingError(
            '--token-caps', text, f'whole numbers and `none`, as in {TABLE_V}') from None


def _memory(name: str, cost: Cost) -> Memory:
    return {
        subset: {
            'tensors': tensor_bytes(name, parse_subset(subset)) / 1e9,
            'resident': resident_bytes(name, parse_subset(subset)) / 1e9,
        }
        for subset in cost.gflops
    }


def _json(
    costs: Mapping[str, Cost], by_cap: Mapping[str, Mapping[int | None, float]],
    memory: Mapping[str, Memory],
) -> str:
    described: dict[str, dict[str, Any]] = {name: asdict(cost) for name, cost in costs.items()}
    for name, figures in by_cap.items():
        described[name]['gflops_by_token_cap'] = {_cap(cap): g for cap, g in figures.items()}
    for name, measured in memory.items():
        described[name]['memory_gb'] = measured
    return json.dumps(described, indent=1)


def _chart(path: Path, costs: Mapping[str, Cost], memory: Mapping[str, Memory]) -> None:
    # A robot has no matplotlib, and needs it for nothing else.
    from karmma_ros.evaluation.plots import Bars, plot_costs

    panels: dict[str, tuple[Bars, Bars]] = {'GFLOPs a clip': (
        {name: cost.gflops for name, cost in costs.items()}, published.GFLOPS)}
    if memory:
        resident = {
            name: {subset: gb['resident'] for subset, gb in measured.items()}
            for name, measured in memory.items()
        }
        panels['Memory at inference, GB'] = (resident, published.MEMORY_GB)
    plot_costs(path, panels)


def _text(
    costs: Mapping[str, Cost], by_cap: Mapping[str, Mapping[int | None, float]],
    memory: Mapping[str, Memory], options: Namespace,
) -> str:
    parts = []
    for name, cost in costs.items():
        parts += [_headline(name, cost), _gflops_table(name, cost)]
        if name in by_cap:
            parts.append(_caps_table(name, by_cap[name]))
        if name in memory:
            parts.append(_memory_table(name, memory[name]))
    if TEACHER in memory and STUDENT in memory:
        parts.append(_memory_ratios(memory))
    if options.chart:
        parts.append(f'wrote {options.chart}')
    return '\n\n'.join(parts)


def _headline(name: str, cost: Cost) -> str:
    paper = published.TRAINABLE_MILLIONS.get(name)
    beside = f', paper {paper:.2f} M' if paper else ''
    return (f'## {name}: {cost.parameters / 1e6:.3f} M parameters, '
            f'{cost.trainable / 1e6:.3f} M trainable{beside}')


def _gflops_table(name: str, cost: Cost) -> str:
    paper = published.GFLOPS.get(name, {})
    header = ['sensors', 'GFLOPs', 'paper', 'difference']
    rows = [[subset, f'{ours:.2f}', *_beside(ours, paper.get(subset))]
            for subset, ours in cost.gflops.items()]
    if cost.gflops_filled:
        header.append('absent filled in')
        for row, filled in zip(rows, cost.gflops_filled.values()):
            row.append(f'{filled:.2f}')
    if cost.gflops_live:
        header.append(f'live, {NEW_FRAMES} new frames')
        for row, live in zip(rows, cost.gflops_live.values()):
            row.append(f'{live:.2f}')
    return _table(header, rows)


def _caps_table(name: str, figures: Mapping[int | None, float]) -> str:
    paper = published.TOKEN_CAP_GFLOPS.get(name, {})
    rows = [[_cap(cap), f'{ours:.2f}', *_beside(ours, paper.get(cap))]
            for cap, ours in figures.items()]
    return _table(['tokens a modality', 'GFLOPs', 'paper', 'difference'], rows)


def _memory_table(name: str, measured: Memory) -> str:
    paper = published.MEMORY_GB.get(name, {})
    rows = [
        [subset, f'{gb["resident"]:.3f}', f'{gb["tensors"]:.3f}',
         f'{paper[subset]:.3f}' if subset in paper else '']
        for subset, gb in measured.items()
    ]
    return _table(['sensors', 'GB, process', 'GB, tensors', 'GB, paper'], rows)


def _memory_ratios(memory: Mapping[str, Memory]) -> str:
    rows = []
    for subset, student in memory[STUDENT].items():
        teacher, paper = memory[TEACHER][subset], published.MEMORY_GB
        rows.append([
            subset, *(f'{student[name] / teacher[name]:.0%}' for name in ('resident', 'tensors')),
            f'{paper[STUDENT][subset] / paper[TEACHER][subset]:.0%}'])
    return "The student's share of the teacher's memory\n\n" + _table(
        ['sensors', 'process', 'tensors', 'paper'], rows)


def _beside(ours: float, paper: float | None) -> list[str]:
    """Return the paper's figure and the difference, in as many digits as the paper gives."""
    if paper is None:
        return ['', '']
    digits = 0 if paper.is_integer() else 2
    difference = round(round(ours, digits) - paper, digits) + 0.0  # never a negative zero
    return [f'{paper:.{digits}f}', f'{difference:+.{digits}f}']


def _cap(cap: int | None) -> str:
    return 'none' if cap is None else str(cap)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return markdown_table(header, rows, aligned=True)
