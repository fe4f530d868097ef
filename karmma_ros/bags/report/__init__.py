"""
The report on bags: `report.html`, `report.json` and `report.md` in one folder.

With the same bags, model and settings the files are equal byte for byte but for the provenance:
date, machine, command and measured times, the last member of the JSON (`provenance`), the last
section of the other two. `karmma_ros.bags.report.bag_report` describes the JSON.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
import json
from pathlib import Path
from typing import Any

from karmma_ros.bags.bag_run import BagRun
from karmma_ros.bags.report.bag_report import FailureCase
from karmma_ros.bags.report.findings import condition_with_errors, failure_cases, images
from karmma_ros.bags.report.markdown import markdown
from karmma_ros.bags.report.page import page
from karmma_ros.bags.report.summary import (
    describe,
    histogram,
    percentiles,
    ReportFigures,
    score_bag,
)
from karmma_ros.bags.report.timeline import MOST_RUNS, over_time
from karmma_ros.evaluation.schema import to_json
from karmma_ros.evaluation.segmentation import event_heads
from karmma_ros.storage import write_atomically
from karmma_ros.stream.events import EventSettings

HTML, JSON, MARKDOWN = 'report.html', 'report.json', 'report.md'


def write(
    out: Path, runs: Sequence[BagRun], model: Mapping[str, Any], provenance: Mapping[str, Any],
    events: EventSettings | None = None,
) -> dict[str, Any]:
    """
    Score the runs and write the three files; each is complete or as it was before.

    :param model: facts, JSON-ready; its `id` names it.
    :param provenance: what another run would change, JSON-ready: command, date, machine, … and
        `real_time`, seconds of the bags for each second of the evaluation.
    :returns: what `report.json` holds.
    :raises InvalidSettingError: when there is no run, or they differ in conditions or classes.
    """
    settings = events or EventSettings()
    if runs:
        settings = settings.of(runs[0].vocabulary)
    figures = describe(runs, model, settings)
    condition, cases = _failure_cases(runs, figures, settings)
    typed = replace(figures.report, failure_cases_condition=condition, failure_cases=cases)
    report: dict[str, Any] = to_json(typed)
    jpegs = images(runs, [(each.bag, each.window_ns) for each in cases])
    recorded = [next(iter(run.predictions.values())) for run in runs]
    drawn = [_named(over_time(run, each, scored, report, i, MOST_RUNS // len(runs)), run)
             for i, (run, each, scored) in enumerate(zip(runs, recorded, figures.first))]
    facts: dict[str, Any] = to_json({
        **provenance, 'latency_s': percentiles(figures.latency_s),
        'latency_histogram': histogram(figures.latency_s)})
    out.mkdir(parents=True, exist_ok=True)
    write_atomically(out / HTML, page(report, drawn, jpegs, facts))
    write_atomically(out / MARKDOWN, markdown(report, facts))
    report = to_json(replace(typed, provenance=facts))
    write_atomically(out / JSON, _json(report))
    return report


def _failure_cases(
    runs: Sequence[BagRun], figures: ReportFigures, settings: EventSettings
) -> tuple[str, list[FailureCase]]:
    report = to_json(figures.report)
    name = condition_with_errors(report)
    condition = next(c for c in runs[0].predictions if c.name == name)
    predictions = [run.predictions[condition] for run in runs]
    scored = figures.first if condition == next(iter(runs[0].predictions)) else [
        score_bag(run, each, settings) for run, each in zip(runs, predictions)]
    return name, failure_cases(report, runs, predictions, scored)


def _named(drawn: dict[str, Any], run: BagRun) -> dict[str, Any]:
    """Put names in place of class ids."""
    names = [run.vocabulary.heads[head] for head in event_heads(run.vocabulary)]
    for row in ('predicted', 'events'):
        for entry in drawn[row]:
            entry[2] = None if entry[2] == -1 else [n[i] for n, i in zip(names, entry[2])]
    return drawn


def _json(report: Mapping[str, Any]) -> str:
    """Write a line for each member: few enough to read, long enough to stay small."""
    lines = [f'{json.dumps(key)}: {json.dumps(value, separators=(",", ":"))}'
             for key, value in report.items()]
    return '{\n' + ',\n'.join(lines) + '\n}\n'
