"""`karmma model list` and `karmma model info`: published models, and model directories."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
from pathlib import Path
import re
from typing import Any

from karmma_ros.cli.options import command_parser, CommandParser, MODEL_HELP, open_model
from karmma_ros.errors import printable
from karmma_ros.evaluation.tables import markdown_table
from karmma_ros.files import read_regular
from karmma_ros.model.model_zoo import (
    accuracy_text,
    classes_text,
    FORBIDDEN,
    MODEL_ZOO,
    zoo_entry,
    ZooEntry,
)

_MOST_CARD = 2**20
"""Bytes."""
_TEXT_COLUMNS = 5
"""Of a table of the model zoo: the others are numbers."""


def list_models(arguments: Sequence[str]) -> int:
    """Run `karmma model list`."""
    given = _list_parser().parse_args(list(arguments))
    if given.json:
        print(json.dumps([entry.to_dict() for entry in MODEL_ZOO], indent=1))
    else:
        print(zoo_table() if given.markdown else _short_table())
    return 0


def _list_parser() -> CommandParser:
    parser = command_parser(
        'karmma model list', 'List the published models that are known: what each recognises, '
        'its published accuracy, its cost and its licence. `karmma model pull NAME` gets one.',
        '[OPTION ...]')
    parser.add_argument('--json', action='store_true', help='print everything as JSON')
    parser.add_argument('--markdown', action='store_true',
                        help='print the table of docs/models.md instead')
    return parser


def zoo_table() -> str:
    """Return the model zoo as the Markdown table of docs/models.md."""
    rows = [
        [f'[`{entry.name}`]({entry.paper})', entry.dataset, classes_text(entry), entry.clip,
         accuracy_text(entry), *_figures(entry, published=True), entry.terms,
         f'**not imported**: {entry.obstacle}' if entry.obstacle else entry.use]
        for entry in MODEL_ZOO]
    header = ['name', 'trained on', 'classes', 'clip', 'accuracy', 'M parameters', 'GFLOPs',
              'GFLOPs, published', 'MiB']
    return markdown_table([*header, 'licence', 'good for'], rows, _TEXT_COLUMNS)


def _short_table() -> str:
    rows = [
        [entry.name, ' '.join(entry.modalities), entry.dataset, classes_text(entry),
         accuracy_text(entry), *_figures(entry),
         entry.licence.partition(';')[0] if entry.commercial_use else FORBIDDEN]
        for entry in MODEL_ZOO if not entry.obstacle]
    header = ['name', 'sensors', 'trained on', 'classes', 'accuracy', 'M param.', 'GFLOPs', 'MiB']
    others = ', '.join(entry.name for entry in MODEL_ZOO if entry.obstacle)
    return '\n\n'.join([
        markdown_table([*header, 'licence'], rows, _TEXT_COLUMNS, aligned=True),
        *([f'known, but not imported: {others}'] if others else []),
        '`karmma model info NAME` has everything about one, `karmma model pull NAME --out DIR` '
        'gets it. Accuracy is as published.'])


def _figures(entry: ZooEntry, published: bool = False) -> list[str]:
    stated = f'{2 * entry.published_gmacs:.0f} for {entry.published_frames} frames'
    return [
        f'{entry.parameters / 1e6:.1f}' if entry.parameters else '',
        f'{entry.gflops:.0f}' if entry.gflops else '',
        *([stated if entry.published_gmacs else ''] if published else []),
        f'{entry.file_mib:.0f}' if entry.file_mib else '']


def info(arguments: Sequence[str]) -> int:
    """Run `karmma model info MODEL`."""
    given = _info_parser().parse_args(list(arguments))
    if given.model in {entry.name for entry in MODEL_ZOO}:
        facts = _entry_facts(zoo_entry(given.model))
    else:
        facts = _bundle_facts(given.model)
    if given.json:
        print(json.dumps(facts, indent=1))
    else:
        width = max(map(len, facts))
        print('\n'.join(f'{name:<{width}}  {printable(_text(value), 4000)}'
                        for name, value in facts.items()))
    return 0


def _info_parser() -> CommandParser:
    parser = command_parser(
        'karmma model info', 'Print everything that is known about a published model of `karmma '
        'model list`, or about a model directory: heads, classes, clip, licence, calibration, '
        'exports.', 'MODEL [OPTION ...]')
    parser.add_argument('model', type=str, metavar='MODEL', help='name of a published model, '
                        + MODEL_HELP)
    parser.add_argument('--json', action='store_true', help='print JSON instead of lines')
    return parser


def _text(value: Any) -> str:
    if isinstance(value, Mapping):
        return ', '.join(f'{name} {_text(each)}' for name, each in value.items()) or 'none'
    if isinstance(value, list):
        return ', '.join(map(_text, value)) or 'none'
    if isinstance(value, bool):
        return 'yes' if value else 'no'
    return f'{value:g}' if isinstance(value, float) else str(value) or 'none'


def _entry_facts(entry: ZooEntry) -> dict[str, Any]:
    """Return what is known about a published model, JSON-ready."""
    from karmma_ros.model.weights_file import cache_path

    costs: dict[str, Any] = {}
    if entry.parameters:
        costs['parameters'] = entry.parameters
    if entry.gflops:
        costs['GFLOPs'] = entry.gflops
    if entry.published_gmacs:
        costs['published GMACs'] = entry.published_gmacs
        costs['published for frames'] = entry.published_frames
    if entry.file_mib:
        costs['file, MiB'] = entry.file_mib
    return {
        'name': entry.name, 'good for': entry.use, 'page': entry.page, 'paper': entry.paper,
        'licence': entry.licence, 'commercial use': entry.commercial_use,
        'trained on': entry.dataset, 'sensors': list(entry.modalities),
        'classes': dict(entry.classes), 'clip': entry.clip,
        'published accuracy, %': dict(entry.accuracy), 'protocol': entry.protocol,
        'stated at': entry.accuracy_page, **costs,
        'file': entry.url, 'file here': str(cache_path(entry.url)) if entry.url else '',
        'files of class names': list(entry.class_files), 'source': entry.source,
        'importable': not entry.obstacle, **(
            {'obstacle': entry.obstacle} if entry.obstacle else {})}


def _bundle_facts(text: str) -> dict[str, Any]:
    """Return what a model directory states, JSON-ready."""
    from karmma_ros.model.backends.exports import find_exports
    from karmma_ros.model.imports.origin import clip_text

    bundle = open_model(text, 'MODEL')
    exports, problems = find_exports(bundle)
    spec, calibration = bundle.spec, bundle.calibration
    return {
        'name': bundle.name, 'id': bundle.model_id, 'directory': str(bundle.path),
        'SHA-256': bundle.sha256, 'trained on': bundle.dataset,
        'licence': bundle.licence or _card_licence(bundle.path),
        **({'commercial use': bundle.commercial_use} if bundle.licence else {}),
        'source': dict(bundle.source),
        'sensors': [str(m) for m in bundle.network.modalities],
        'heads': bundle.vocabulary.sizes,
        'classes': {head: list(names) for head, names in bundle.vocabulary.heads.items()},
        'clip': clip_text(spec, bundle.network.modalities),
        'inputs': {str(m): ' x '.join(map(str, spec.input_shape(m)))
                   for m in bundle.network.modalities},
        'architecture': bundle.config.preset,
        'parameters': sum(p.numel() for p in bundle.network.parameters()),
        'calibration': calibration.fitted_on if calibration else '',
        'exports': [export.label for export in exports], 'unusable exports': problems,
        'metrics': dict(bundle.metrics)}


def _card_licence(path: Path) -> str:
    """Return the licence in the front matter of a model card; empty if there is none."""
    try:
        text = read_regular(path / 'README.md', _MOST_CARD).decode('utf-8')
    except (OSError, ValueError):
        return ''
    match = re.match(r'---\n(?:.*\n)*?license: (\S+)\n', text)
    return match[1] if match and match[1] != 'other' else ''
