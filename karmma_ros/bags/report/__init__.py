"""
The report on bags: `report.html`, `report.json` and `report.md` in one folder.

With the same bags, model and settings the files are equal byte for byte but for `made`: date,
machine, command and measured times, the last member of the JSON, the last section of the other
two.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import json
import os
from pathlib import Path
from typing import Any

from karmma_ros.bags.report.findings import condition_with_errors, failure_cases, pictures
from karmma_ros.bags.report.markdown import markdown
from karmma_ros.bags.report.page import page
from karmma_ros.bags.report.summary import describe, histogram, look, ReportFigures, without_nan
from karmma_ros.bags.report.timeline import MOST_RUNS, over_time
from karmma_ros.evaluation.bag_predictions import BagRun
from karmma_ros.evaluation.segmentation import event_heads, percentiles
from karmma_ros.stream.events import EventSettings

HTML, JSON, MARKDOWN = 'report.html', 'report.json', 'report.md'


def write(
    out: Path, runs: Sequence[BagRun], model: Mapping[str, Any], made: Mapping[str, Any],
    events: EventSettings | None = None,
) -> dict[str, Any]:
    """
    Score the runs and write the three files; each is there whole or as it was before.

    :param model: facts, JSON-ready; its `id` names it.
    :param made: what another run would change, JSON-ready: command, date, machine, … and
        `real_time`, seconds of the bags for each second of the evaluation.
    :returns: what `report.json` holds.
    :raises InvalidSettingError: when there is no run, or they differ in conditions or classes.
    """
    settings = events or EventSettings()
    figures = describe(runs, model, settings)
    report = figures.report
    first = next(iter(runs[0].answers))
    answers = [run.answers[first] for run in runs]
    report |= _moments(runs, figures, settings)
    jpegs = pictures(runs, [(each['bag'], each['window_ns']) for each in report['moments']])
    drawn = [_named(over_time(run, a, looked, report, i, MOST_RUNS // len(runs)), run)
             for i, (run, a, looked) in enumerate(zip(runs, answers, figures.first))]
    facts = _made(made, figures)
    out.mkdir(parents=True, exist_ok=True)
    _write(out / HTML, page(report, drawn, jpegs, facts))
    _write(out / MARKDOWN, markdown(report, facts))
    report['made'] = facts
    _write(out / JSON, _json(report))
    return report


def _moments(
    runs: Sequence[BagRun], figures: ReportFigures, settings: EventSettings
) -> dict[str, Any]:
    name = condition_with_errors(figures.report)
    condition = next(c for c in runs[0].answers if c.name == name)
    answers = [run.answers[condition] for run in runs]
    looked = figures.first if condition == next(iter(runs[0].answers)) else [
        look(run, a, settings) for run, a in zip(runs, answers)]
    found = failure_cases(figures.report, runs, answers, looked)
    return {'moments_of': name, 'moments': without_nan(found)}


def _made(made: Mapping[str, Any], figures: ReportFigures) -> dict[str, Any]:
    facts: dict[str, Any] = without_nan({
        **made, 'latency_s': percentiles(figures.latency_s),
        'latency_histogram': histogram(figures.latency_s)})
    return facts


def _named(drawn: dict[str, Any], run: BagRun) -> dict[str, Any]:
    """Put names in place of class ids."""
    names = [run.vocabulary.heads[head] for head in event_heads(run.vocabulary)]
    for kind in ('said', 'events'):
        for entry in drawn[kind]:
            entry[2] = None if entry[2] == -1 else [n[i] for n, i in zip(names, entry[2])]
    return drawn


def _json(report: Mapping[str, Any]) -> str:
    """Write a line for each member: few enough to read, long enough to stay small."""
    lines = [f'{json.dumps(key)}: {json.dumps(value, separators=(",", ":"))}'
             for key, value in report.items()]
    return '{\n' + ',\n'.join(lines) + '\n}\n'


def _write(path: Path, text: str) -> None:
    partial = path.with_name(path.name + '.partial')
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, path)
