"""All cases, in the order in which they are run and reported."""

from __future__ import annotations

from fault_suite import (
    churn,
    churn_dds,
    clocks,
    cycles,
    day,
    disk,
    dropped_audio,
    fuzz,
    hostile_files,
    lies,
    misconfigured,
    model_files,
    pressure,
    publishers,
    restart,
    signals,
    soak,
    swap,
)
from fault_suite.case import Case

CASES: dict[str, Case] = {
    case.name: case for case in (
        churn.run, churn_dds.run, lies.run, dropped_audio.run, misconfigured.run, fuzz.run,
        model_files.run, hostile_files.run, swap.run, publishers.run, clocks.run, pressure.run,
        disk.run, signals.run, restart.run, cycles.run, day.run, soak.run)
}
