"""
Inject faults into the node and report which requirements hold.

Each case runs in a process of its own, which is killed when it hangs; its outcome is written at
once into reliability.json and reliability.md, beside those of other cases.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from datetime import date
import json
import os
from pathlib import Path
import signal
import subprocess
import sys
import tempfile
from typing import Any

SUITE = Path(__file__).resolve().parent
ROOT = SUITE.parents[1]
sys.path.insert(0, str(SUITE))

from fault_suite.case import Case, entry, Trial  # noqa: E402
from fault_suite.registry import CASES  # noqa: E402
from fault_suite.report import machine, merge  # noqa: E402

COMMAND, QUICK_COMMAND = 'make faults', 'python test/faults/run.py --quick'


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the given cases; 0 when every requirement holds."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--only', nargs='+', metavar='NAME', choices=CASES, default=list(CASES),
                        help=f'cases to run [all]: {", ".join(CASES)}')
    parser.add_argument('--quick', action='store_true', help='scale every case down')
    parser.add_argument('--out', type=Path, help='folder of the page, its data and figures '
                        '[docs; with --quick build/faults]')
    parser.add_argument('--child', metavar='FILE', type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.child:
        return run_here(CASES[options.only[0]], options.quick, options.child)
    out = options.out or ROOT / ('build/faults' if options.quick else 'docs')
    passed = [run_case(CASES[name], options.quick, out) for name in options.only]
    print(f'{sum(passed)} of {len(passed)} cases passed; {out / "reliability.md"}')
    return 0 if all(passed) else 1


def run_here(case: Case, quick: bool, file: Path) -> int:
    """Run a case in this process and leave its entry in a file."""
    result = case.record(quick)
    file.write_text(json.dumps(result), encoding='utf-8')
    # Whatever a case left behind, a thread in a hanging call above all, must not keep it here.
    sys.stdout.flush()
    os._exit(0)


def run_case(case: Case, quick: bool, out: Path) -> bool:
    """Run a case in a process of its own and merge its outcome; return whether it passed."""
    print(f'{case.name}: {case.title} …', flush=True)
    with tempfile.TemporaryDirectory() as folder:
        result = _supervise(case, quick, out, Path(folder))
    result.update(machine=machine(), date=date.today().isoformat(),
                 command=QUICK_COMMAND if quick else COMMAND)
    merge(out, {case.name: result}, CASES)
    for each in result['requirements']:
        print(f'  {"passed" if each["passed"] else "FAILED"} {each["requirement"]}: '
              f'{each["observed"]}')
    print(f'  {result["seconds"]:.0f} s', flush=True)
    return bool(result['passed'])


def _supervise(case: Case, quick: bool, out: Path, folder: Path) -> dict[str, Any]:
    """Run the child; kill it, and all that it started, when it takes too long."""
    file = folder / 'entry.json'
    # Its own log, so that the report stays readable; shown when the case fails.
    with open(folder / 'log', 'w+', encoding='utf-8', errors='replace') as log:
        child = subprocess.Popen(
            [sys.executable, __file__, '--only', case.name, '--child', str(file),
             *(['--quick'] if quick else [])],
            stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            env={**os.environ, 'KARMMA_FAULTS_OUT': str(out.resolve())})
        try:
            child.wait(case.limit_s)
        except subprocess.TimeoutExpired:
            pass
        _end_group(child)
        if file.exists():
            result = json.loads(file.read_text(encoding='utf-8'))
        else:
            result = _broken(case, quick, child.returncode)
        if not result['passed']:
            log.seek(0)
            print(''.join(f'  | {line}' for line in log.readlines()[-40:]))
    return dict(result)


def _end_group(child: subprocess.Popen[bytes]) -> None:
    """Kill what the case started, and the case itself if it still runs."""
    try:
        os.killpg(child.pid, signal.SIGKILL)
    except ProcessLookupError:
        pass
    child.wait()


def _broken(case: Case, quick: bool, status: int) -> dict[str, Any]:
    trial = Trial(description=case.description.format(**case.settings(quick)))
    trial.require(f'the case ends within {case.limit_s:g} s', False, f'exit {status}')
    return entry(case, trial, quick, case.limit_s, case.settings(quick))


if __name__ == '__main__':
    sys.exit(main())
