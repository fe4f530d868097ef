"""
Measure all figures of docs/performance.md, streaming.md and peers.md, and write them there.

Each part runs in a process of its own; what it finds is merged into benchmarks/results.json at
once, so that a run can be broken off and gone on with. Then tables and charts are made anew from
all that is there. `--quick` writes into build/bench instead: figures that are not worth keeping.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date
from importlib import metadata
import json
import os
from pathlib import Path
import shlex
import subprocess
import sys
from tempfile import TemporaryDirectory
import time
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
sys.path.insert(0, str(ROOT / 'test' / 'faults'))

from fault_suite.report import machine  # noqa: E402
from pages import FIGURES, PAGES  # noqa: E402

_LIBRARIES = ('numpy', 'opencv-python-headless', 'openvino', 'onnxruntime')


@dataclass(frozen=True)
class Part:
    """A program beside this one that measures something and writes it as JSON."""

    command: tuple[str, ...]
    """Its file and arguments, without where to write."""
    quick: tuple[str, ...]
    """The same where there is little time; empty leaves it out."""
    option: str = '--json'
    """What is followed by the file to write."""
    environment: Mapping[str, str] = field(default_factory=dict)
    limit_s: float = 900.0
    only_if_named: bool = False
    """It is run only if it is named."""


def _own(name: str) -> Part:
    return Part((name,), (name, '--quick'))


PARTS = {
    'live_path': _own('live_path.py'),
    'node': _own('node.py'),
    'memory': _own('memory.py'),
    'backends': Part(
        ('backends.py', 'synthetic_kitchen'),
        ('backends.py', 'synthetic_kitchen', '--exports', 'openvino bf16', '--rounds', '3',
         '--seconds', '1', '--no-accuracy'),
        '--out', {'OMP_NUM_THREADS': '1'}, 1800.0),
    'student': Part(
        ('backends.py', 'karmma_student', '--exports', 'openvino bf16', 'openvino int8',
         'openvino fp32', 'onnx fp32', '--subsets', 'V+F+A', 'V', 'A', '--profile'),
        (), '--out', limit_s=3600.0),
    'streaming': Part(
        ('streaming.py', '--rows', 'clip_tau', 'clip_even', 'chunks_half', 'chunks_quarter'),
        (), limit_s=3600.0),
    'causal': Part(('streaming.py', '--rows', 'clip_tau', 'causal'), (), limit_s=3600.0),
    'trained': Part(
        ('streaming.py', '--train', '--seeds', '3', '--teacher', 'models/synthetic_kitchen'),
        (), limit_s=6 * 3600.0, only_if_named=True),
    'peers': Part(('peers.py', '--rounds', '3'), (), limit_s=3600.0),
    'gpu': _own('gpu.py'),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure the named parts and write all that is known; 1 when one of them failed."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='little of each')
    parser.add_argument('--only', nargs='+', metavar='PART', choices=[*PARTS, 'page'],
                        help=f'of {", ".join(PARTS)}; page measures nothing [all but '
                        'trained, which takes two hours]')
    parser.add_argument('--out', type=Path, help='root of what is written [this repository; '
                        'with --quick build/bench]')
    options = parser.parse_args(arguments)
    out = options.out or (ROOT / 'build' / 'bench' if options.quick else ROOT)
    chosen = [name for name, part in PARTS.items()
              if (name in options.only if options.only else not part.only_if_named)]
    failed = []
    for name in chosen:
        try:
            part = measure(name, PARTS[name], options.quick)
            if part:
                _merge(out / FIGURES, {name: part})
        except (subprocess.SubprocessError, OSError, ValueError) as error:
            failed.append(name)
            print(f'{name}: failed: {error}', flush=True)
    results = _known(out / FIGURES)
    for page in PAGES:
        page.write(results, out, ROOT)
        print(f'wrote {out / page.path}')
    print(f'failed: {", ".join(failed)}' if failed else 'done')
    return 1 if failed else 0


def measure(name: str, part: Part, quick: bool) -> dict[str, Any]:
    """Run a part and give its figures with all that they depend on; nothing if it is left out."""
    command = part.quick if quick else part.command
    if not command:
        print(f'{name}: left out, it is not quick', flush=True)
        return {}
    setting = [f'{key}={value}' for key, value in part.environment.items()]
    command_line = shlex.join(['python', f'benchmarks/{command[0]}', *command[1:]])
    print(f'{name}: {" ".join([*setting, command_line])} …', flush=True)
    load, started = os.getloadavg(), time.monotonic()
    with TemporaryDirectory() as folder:
        file = Path(folder, 'found.json')
        log = Path(folder, 'log')
        with log.open('w', encoding='utf-8') as stdout:
            done = subprocess.run(
                [sys.executable, str(HERE / command[0]), *command[1:], part.option, str(file)],
                cwd=ROOT, env={**os.environ, **part.environment}, stdout=stdout,
                timeout=part.limit_s, check=False)
        if done.returncode:
            raise ValueError(f'exit {done.returncode}: {log.read_text(encoding="utf-8")[-500:]}')
        figures = json.loads(file.read_text(encoding='utf-8'))
    print(f'  {time.monotonic() - started:.0f} s', flush=True)
    return {
        'date': date.today().isoformat(), 'machine': machine(), 'amx': _has_amx(),
        'versions': _versions(),
        'command': ' '.join([*setting, command_line]), 'quick': quick,
        'seconds': round(time.monotonic() - started, 1),
        'load': [round(load[0], 2), round(os.getloadavg()[0], 2)],
        'figures': figures,
    }


def _has_amx() -> bool:
    """Whether the processor multiplies matrices in tiles, on which targets depend."""
    cpuinfo = Path('/proc/cpuinfo')
    return cpuinfo.is_file() and 'amx_tile' in cpuinfo.read_text(encoding='utf-8')


def _versions() -> dict[str, str]:
    versions = {}
    for name in _LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def _merge(file: Path, entries: Mapping[str, Any]) -> None:
    """Put entries among those that are there, in one step."""
    known = {**_known(file), **entries}
    file.parent.mkdir(parents=True, exist_ok=True)
    fresh = file.with_suffix('.part')
    ordered = {name: known[name] for name in PARTS if name in known}
    fresh.write_text(json.dumps(ordered, indent=1) + '\n', encoding='utf-8')
    fresh.replace(file)


def _known(file: Path) -> dict[str, Any]:
    return dict(json.loads(file.read_text(encoding='utf-8'))) if file.exists() else {}


if __name__ == '__main__':
    sys.exit(main())
