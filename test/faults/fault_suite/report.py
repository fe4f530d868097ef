"""The page and its JSON file, written after each case, so that a run can be stopped."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
import json
import os
from pathlib import Path
import platform
import textwrap
from typing import Any

from karmma_ros.cli.options import processor
import torch

PAGE, FIGURES = 'reliability.md', 'reliability.json'
FIGURE = Path('images', 'reliability_soak.png')

HEAD = """\
# Reliability

This page is written by `make faults`; its data are in [reliability.json](reliability.json). The
cases in `test/faults/` inject faults into the node as it is installed. A requirement that does not
hold is marked **failed**. Nothing was tested on a robot: other processes of the same machine
publish the sensors over DDS or, where a case is *simulated*, messages are passed to the node's own
callbacks with a clock that the test sets.
"""

SOAK = """\
![CPU and memory of the node during the soak test](images/reliability_soak.png)
"""


def machine() -> dict[str, str]:
    """Return the machine and versions of the measurement."""
    return {
        'processor': processor(), 'cores': str(os.cpu_count()), 'system': platform.platform(),
        'python': platform.python_version(), 'torch': torch.__version__,
        'ros': os.environ.get('ROS_DISTRO') or _rclpy_version(),
    }


def _rclpy_version() -> str:
    from importlib.metadata import PackageNotFoundError, version
    for name in ('ros-rclpy', 'rclpy'):
        try:
            return f'rclpy {version(name)}'
        except PackageNotFoundError:
            continue
    return 'unknown'


def merge(folder: Path, entries: Mapping[str, Mapping[str, Any]], order: Iterable[str]) -> Path:
    """Merge new entries into the existing ones, and write JSON and page."""
    folder.mkdir(parents=True, exist_ok=True)
    file = folder / FIGURES
    known = json.loads(file.read_text(encoding='utf-8')) if file.exists() else {}
    known.update(entries)
    ordered = {name: known[name] for name in order if name in known}
    _write(file, json.dumps(ordered, indent=1, ensure_ascii=False) + '\n')
    page = folder / PAGE
    _write(page, render(ordered, (folder / FIGURE).exists()))
    return page


def _write(file: Path, text: str) -> None:
    """Replace a file in one step: a run that is killed leaves the old one."""
    fresh = file.with_suffix('.part')
    fresh.write_text(text, encoding='utf-8')
    fresh.replace(file)


def render(entries: Mapping[str, Mapping[str, Any]], figure: bool = False) -> str:
    """Return the page in Markdown."""
    parts = [HEAD, _machines(entries), _summary(entries)]
    for name, entry in entries.items():
        parts.append(_section(name, entry))
        if figure and name == 'soak':
            parts.append(SOAK)
    return '\n'.join(parts)


def _machines(entries: Mapping[str, Mapping[str, Any]]) -> str:
    """Return machine and date, once where they are the same for all."""
    facts = sorted({(_machine(e), e['date'], e['command']) for e in entries.values()})
    lines = [f'Measured {date} by `{command}`: {where}.' for where, date, command in facts]
    if any(entry['quick'] for entry in entries.values()):
        lines.append('Cases marked *short* were run in their short form, which tests less.')
    return '\n'.join(textwrap.fill(line, 98) for line in lines) + '\n'


def _machine(entry: Mapping[str, Any]) -> str:
    m = entry['machine']
    return (f'{m["processor"]}, {m["cores"]} cores, Python {m["python"]}, {m["ros"]}, '
            f'torch {m["torch"]}')


def _summary(entries: Mapping[str, Mapping[str, Any]]) -> str:
    rows = ['| fault | requirements | result | seconds |', '| --- | ---: | --- | ---: |']
    for name, entry in entries.items():
        passed = sum(r['passed'] for r in entry['requirements'])
        short = ' (*short*)' if entry['quick'] else ''
        rows.append(f'| [{entry["title"]}](#{name}){short} | {passed} of '
                    f'{len(entry["requirements"])} | '
                    f'{_verdict(entry["passed"])} | {entry["seconds"]:.0f} |')
    return '\n'.join(rows) + '\n'


def _section(name: str, entry: Mapping[str, Any]) -> str:
    rows = [f'<a id="{name}"></a>\n\n## {entry["title"]}\n',
            textwrap.fill(entry['description'], 98), '',
            '| requirement | observed | |', '| --- | --- | --- |']
    rows += [f'| {_cell(r["requirement"])} | {_cell(r["observed"])} | {_verdict(r["passed"])} |'
             for r in entry['requirements']]
    return '\n'.join(rows) + '\n'


def _verdict(passed: bool) -> str:
    return 'passed' if passed else '**failed**'


def _cell(text: str) -> str:
    """Keep a text within its cell of a Markdown table."""
    text = ' '.join(str(text).split()).replace('|', '\\|').replace('<', '&lt;')
    return text if len(text) <= 400 else text[:399] + '…'
