"""The page and the figures: written anew after each case, so that a run can be broken off."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import json
import os
from pathlib import Path
import platform
import textwrap
from typing import Any

import torch

PAGE, FIGURES = 'reliability.md', 'reliability.json'
PICTURE = Path('images', 'reliability_soak.png')

HEAD = """\
# What was done to the node, and how it bore it

This page is written by `make faults`; the figures are in [reliability.json](reliability.json).
Each fault is done on purpose, by the cases in `test/faults/`, to the node as it is shipped. A
demand that did not hold says so here. Nothing was done on a robot: sensors are played by other
processes of the same machine over DDS, or, where it says *simulated*, by calling the node's own
callbacks with a clock that is set by hand.
"""

SOAK = """\
![CPU and memory of the node over the soak](images/reliability_soak.png)
"""


def machine() -> dict[str, str]:
    """Name what the figures were measured on."""
    return {
        'processor': _processor(), 'cores': str(os.cpu_count()), 'system': platform.platform(),
        'python': platform.python_version(), 'torch': torch.__version__,
        'ros': os.environ.get('ROS_DISTRO') or _rclpy_version(),
    }


def _processor() -> str:
    try:
        lines = Path('/proc/cpuinfo').read_text(encoding='utf-8').splitlines()
        return next(line.split(':')[1].strip() for line in lines if line.startswith('model name'))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def _rclpy_version() -> str:
    from importlib.metadata import PackageNotFoundError, version
    for name in ('ros-rclpy', 'rclpy'):
        try:
            return f'rclpy {version(name)}'
        except PackageNotFoundError:
            continue
    return 'unknown'


def merge(folder: Path, entries: Mapping[str, Mapping[str, Any]], order: Iterable[str]) -> Path:
    """Put new entries among those that are there, and write figures and page."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FIGURES
    known = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}
    known.update(entries)
    ordered = {name: known[name] for name in order if name in known}
    _write(file, json.dumps(ordered, indent=1, ensure_ascii=False) + '\n')
    page = folder / PAGE
    _write(page, render(ordered, (folder / PICTURE).exists()))
    return page


def _write(file: Path, text: str) -> None:
    """Replace a file in one step: a run that is killed leaves the old one."""
    fresh = file.with_suffix('.part')
    fresh.write_text(text, encoding='utf-8')
    fresh.replace(file)


def render(entries: Mapping[str, Mapping[str, Any]], picture: bool = False) -> str:
    """Return the page in Markdown."""
    parts = [HEAD, _machines(entries), _summary(entries)]
    for name, entry in entries.items():
        parts.append(_section(name, entry))
        if picture and name == 'soak':
            parts.append(SOAK)
    return '\n'.join(parts)


def _machines(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Say on what and when, once where it is the same for all."""
    facts = sorted({(_machine(e), e['date'], e['command']) for e in entries.values()})
    lines = [f'Measured {date} by `{command}`: {where}.' for where, date, command in facts]
    if any(entry['quick'] for entry in entries.values()):
        lines.append('Cases marked *short* were run in their short form, which shows less.')
    return '\n'.join(textwrap.fill(line, 98) for line in lines) + '\n'


def _machine(entry: Mapping[str, Any]) -> str:
    m = entry['machine']
    return (f'{m["processor"]}, {m["cores"]} cores, Python {m["python"]}, {m["ros"]}, '
            f'torch {m["torch"]}')


def _summary(entries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ['| fault | demands that held | result | seconds |', '| --- | ---: | --- | ---: |']
    for name, entry in entries.items():
        held = sum(d['held'] for d in entry['demands'])
        short = ' (*short*)' if entry['quick'] else ''
        rows.append(f'| [{entry["title"]}](#{name}){short} | {held} of {len(entry["demands"])} | '
                    f'{_verdict(entry["held"])} | {entry["seconds"]:.0f} |')
    return '\n'.join(rows) + '\n'


def _section(name: str, entry: Mapping[str, Any]) -> str:
    rows = [f'<a id="{name}"></a>\n\n## {entry["title"]}\n', textwrap.fill(entry['done'], 98), '',
            '| demanded | came out | |', '| --- | --- | --- |']
    rows += [f'| {_cell(d["what"])} | {_cell(d["came"])} | {_verdict(d["held"])} |'
             for d in entry['demands']]
    return '\n'.join(rows) + '\n'


def _verdict(held: bool) -> str:
    return 'held' if held else '**failed**'


def _cell(text: str) -> str:
    """Keep a text within its cell of a Markdown table."""
    text = ' '.join(str(text).split()).replace('|', '\\|').replace('<', '&lt;')
    return text if len(text) <= 400 else text[:399] + '…'
