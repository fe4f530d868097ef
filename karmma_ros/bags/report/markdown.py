"""The report as Markdown, for a repository or a message: the verdict and its tables."""

from __future__ import annotations

from collections.abc import Mapping
import re
from typing import Any

from karmma_ros.bags.report.findings import clock, percent, scored_key, seconds, sentences
from karmma_ros.errors import printable, SENTENCE_LENGTH
from karmma_ros.evaluation.tables import markdown_table


def markdown(report: Mapping[str, Any], provenance: Mapping[str, Any]) -> str:
    """Set verdict, conditions, events, bags, warnings; last what another run would change."""
    key = scored_key(report)
    names = ', '.join(word(bag['name']) for bag in report['bags'][:6])
    title = word(str(report['model'].get('id', 'the model')))
    parts = [f'# {title} on {len(report["bags"])} bag{"s" * (len(report["bags"]) > 1)}',
             names + (', …' if len(report['bags']) > 6 else ''),
             '\n'.join(f'- {word(text)}' for text in sentences(report)),
             '## When sensors fail', _conditions(report, key)]
    if any(each['parameters'].get('subset') for each in report['conditions']):
        parts += ['## Subsets of the sensors', _subsets(report, key)]
    if 'f1' in report['conditions'][0]['events']:
        parts += ['## As a stream of events', _events(report)]
    if report['robustness']:
        parts += ['## Accuracy with missing sensors', _curve(report)]
    parts += ['## Bags', _bags(report, key)]
    if report['warnings']:
        parts += ['## Warnings',
                  '\n'.join(f'- {word(text)}' for text in report['warnings'])]
    parts += ['## Provenance', '\n'.join(
        f'- {word(str(name).replace("_", " "))}: {word(_flat(value))}'
        for name, value in provenance.items() if name != 'latency_histogram')]
    return '\n\n'.join(parts) + '\n'


def word(text: str) -> str:
    """Escape what Markdown and HTML would take for their own."""
    flat = printable(re.sub(r'\s+', ' ', text), SENTENCE_LENGTH)
    flat = flat.replace('&', '&amp;').replace('<', '&lt;').replace('>', '&gt;')
    return re.sub(r'([\\`*_\[\]|#])', r'\\\1', flat)


def _conditions(report: Mapping[str, Any], key: str | None) -> str:
    names = list(report['conditions'][0]['actions'])
    header = ['condition', 'windows', *(f'{word(n)} top-1, %' for n in names),
              *(['with prediction, %', 'F1@25, %', 'delay, s'] if key else ['events']),
              'unknown, %', 'same prediction, %']
    rows = []
    for each in report['conditions']:
        if each['parameters'].get('subset'):
            continue
        events = each['events']
        row = [word(each['name']), f'{each["windows"]:,}',
               *(percent(each['actions'].get(n, {}).get('top1')) for n in names)]
        row += [percent(each['actions'].get(key, {}).get('coverage')),
                percent(events.get('f1', {}).get('25')),
                seconds(events.get('delay_s', {}).get('p50'))] if key else [
                    f'{events["count"]:,}']
        rows.append([*row, percent(each['unknown']),
                     percent((each.get('agreement') or {}).get('same'))])
    return markdown_table(header, rows)


def _subsets(report: Mapping[str, Any], key: str | None) -> str:
    """Set Table I: each subset on the actions that have it."""
    names = list(report['conditions'][0]['actions'])
    rows = []
    for each in report['conditions']:
        if each['parameters'].get('subset'):
            scored = each['actions'].get(key)
            rows.append([
                word(each['name']), f'{each["windows"]:,}',
                f'{round(scored["coverage"] * scored["count"]):,}' if scored else '0',
                *(percent(each['actions'].get(n, {}).get('top1_covered')) for n in names),
                percent((each.get('agreement') or {}).get('same'))])
    header = ['sensors', 'windows', 'actions', *(f'{word(n)} top-1, %' for n in names),
              'same prediction, %']
    return markdown_table(header, rows)


def _events(report: Mapping[str, Any]) -> str:
    events, tious = report['conditions'][0]['events'], report['settings']['tious']
    f1 = ', '.join(f'F1@{o} {percent(x)} %' for o, x in events['f1'].items())
    return (f'{f1}; edit {percent(events["edit"])} %.\n\n' + markdown_table(
        ['mean average precision, %', *(f'tIoU {t:g}' for t in tious)],
        [[word(name), *map(percent, values)]
         for name, values in events['mean_average_precision'].items()]))


def _curve(report: Mapping[str, Any]) -> str:
    robustness = report['robustness']
    return markdown_table(
        ['each sensor missing, %', *(f'{100 * p:.0f}' for p in robustness['probability'])],
        [[word(key), *map(percent, robustness[key])]
         for key in dict.fromkeys((report['joint_head'], *report['heads'])) if key in robustness])


def _bags(report: Mapping[str, Any], key: str | None) -> str:
    rows = []
    for bag, each in zip(report['bags'], report['conditions'][0]['by_bag']):
        right, count = each['top1'].get(key, (0, 0))
        rows.append([word(bag['name']), clock(bag['seconds']), f'{each["windows"]:,}',
                     f'{(bag["truth"] or {}).get("actions", 0):,}',
                     percent(right / count if count else None),
                     word(_flat(bag['missing_messages']) or 'nothing')])
    header = ['bag', 'length', 'windows', 'true actions', 'top-1, %', 'missing']
    return markdown_table(header, rows)


def _flat(value: Any) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {_flat(x)}' for name, x in value.items())
    if isinstance(value, (list, tuple)):
        return ', '.join(map(_flat, value))
    return f'{value:.4g}' if isinstance(value, float) else str(value)
