"""
The report as one HTML file that needs nothing else: style, script, images and data are in it.

The templates escape every value. A content security policy lets no script run but the page's own,
whatever a bag or a table contains. The block between the comments `provenance` is all that
differs when the same bags are evaluated again.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
import re
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from karmma_ros.bags.report import timeline
from karmma_ros.bags.report.findings import clock, percent, scored_key, seconds, sentences
from karmma_ros.errors import printable, SENTENCE_LENGTH
from karmma_ros.evaluation.segmentation import SegmentCounts
from karmma_ros.prediction import action_heads
from karmma_ros.stream.availability import ModalityState
from markupsafe import escape, Markup

TEMPLATES = Path(__file__).parent / 'templates'
SECTIONS = (
    ('timeline', 'Timeline', 'long'), ('sensors', 'When sensors fail', 'long'),
    ('stream', 'Events', ''), ('failure-cases', 'Failure cases', 'long'),
    ('confusion', 'Confusions', 'long'), ('calibration', 'Confidence', 'long'),
    ('age', 'Age of the data', ''), ('bags', 'Bags', 'long'), ('model', 'Model', ''),
    ('definitions', 'Definitions', ''))
"""Id, heading and CSS class; the id names the template."""
MOST_CLASSES = 18
_DROPPED = re.compile(r'all dropped (\d+)% of')
Report = Mapping[str, Any]


def page(
    report: Report, timelines: Sequence[Mapping[str, Any]], jpegs: Sequence[Sequence[bytes]],
    provenance: Mapping[str, Any],
) -> str:
    """
    Return the page.

    :param timelines: of each bag, as `over_time` returns it, with names of classes.
    :param jpegs: images of each failure case.
    """
    from karmma_ros.bags.report import charts  # matplotlib is imported where charts are drawn

    key, actions = scored_key(report), report['conditions'][0]['actions']
    dropout_heads = [head for head in dict.fromkeys((report['joint_head'], *report['heads']))
                     if head in (report['robustness'] or ())]
    scored_heads = sorted(actions, key=lambda name: name != key)
    model, settings = report['model'], report['settings']
    script = (TEMPLATES / 'page.js').read_text(encoding='utf-8')
    return environment().get_template('page.html.jinja').render(
        report=report, first=report['conditions'][0], sections=SECTIONS,
        style=Markup((TEMPLATES / 'page.css').read_text(encoding='utf-8')), script=Markup(script),
        digest=b64encode(sha256(script.encode()).digest()).decode(),
        data=_script_data(timelines), charts=charts, dropout_heads=dropout_heads,
        measured=list(_measured(report, dropout_heads)),
        main_head=key, scored_heads=scored_heads,
        top1_names=[f'{name} top-1, %' for name in scored_heads],
        tiou_names=[f'tIoU {t:g}' for t in settings['tious']],
        overlap_names=[f'{x:g}' for x in settings['overlaps']],
        model_name=str(model.get('id') or model.get('name') or 'the model'),
        model_facts={**model, **{f'setting {name}': x for name, x in settings.items()}},
        sentences=list(sentences(report)), bags=list(map(_strip, timelines)),
        columns=timeline.OVERVIEW_COLUMNS, event_heads=action_heads(report['heads']),
        states=_states(), confusions=list(_confusions(report)), provenance=provenance,
        provenance_facts={name: x for name, x in provenance.items()
                          if name not in ('latency_s', 'latency_histogram')},
        images=[[Markup(f'data:image/jpeg;base64,{b64encode(data).decode()}') for data in each]
                for each in jpegs])


def environment() -> Environment:
    """Return templates that escape each value, control and bidi characters as well."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES), autoescape=True, undefined=StrictUndefined,
        trim_blocks=True, lstrip_blocks=True, keep_trailing_newline=True, finalize=_one_line)
    environment.policies['json.dumps_kwargs'] = {'separators': (',', ':'), 'ensure_ascii': False}
    filters: dict[str, Callable[..., Any]] = {
        'bag_facts': _bag_facts, 'clock': clock, 'counted': _counted, 'f1': _f1, 'mean': _mean,
        'milliseconds': lambda x: seconds(None if x is None else 1000 * x), 'percent': percent,
        'readable': _readable, 'seconds': seconds, 'thousands': '{:,}'.format}
    environment.filters.update(filters)
    return environment


def _one_line(value: Any) -> Any:
    return value if isinstance(value, Markup) else printable(str(value), SENTENCE_LENGTH)


def _readable(value: Any) -> Markup:
    """Return anything that JSON can hold as text."""
    if isinstance(value, Mapping):
        return Markup('; ').join(Markup('{}: {}').format(
            _one_line(str(name).replace('_', ' ')), _readable(x)) for name, x in value.items())
    if isinstance(value, (list, tuple)):
        return Markup(', ').join(map(_readable, value)) or Markup('none')
    if isinstance(value, float):
        return Markup(f'{value:.6g}')
    return escape(_one_line('none' if value is None else value))


def _counted(number: int, noun: str) -> str:
    return f'1 {noun}' if number == 1 else f'{number:,} {noun}s'


def _f1(counts: Sequence[int] | None) -> float | None:
    return SegmentCounts(*counts).f1 if counts and sum(counts) else None


def _mean(values: Sequence[float | None]) -> float | None:
    known = [x for x in values if x is not None]
    return sum(known) / len(known) if known else None


def _states() -> list[str]:
    """Return what the state of a sensor means, by its number."""
    return [state.description for state in ModalityState]


def _bag_facts(bag: Report) -> dict[str, Any]:
    facts = {'path': bag['path'], 'storage': bag['storage'],
             'messages': f'{bag["messages"]:,}', 'missing': bag['missing_messages'] or 'nothing'}
    if bag['truth']:
        facts['ground truth'] = bag['truth']['source']
        facts['of the ground truth'] = bag['truth']['left_out'] or 'everything is used'
    if bag['recorded']:
        facts["the node's own predictions in the bag"] = bag['recorded']
    return facts


def _strip(bag: Mapping[str, Any]) -> dict[str, Any]:
    """Return what the overview of a bag draws: class, y, height and spans of each row."""
    rows, y = [], 0
    for name, spans in timeline.overview(bag).items():
        labels = name in ('truth', 'events')
        height = 14 if labels else 6
        rows.append((name if labels else 'sensor', y, height, spans))
        y += height + 3
    return {'name': bag['name'], 'overview': rows, 'height': y,
            'several_conditions': len(bag['conditions']) > 1}


def _measured(report: Report, heads: Sequence[str]) -> Iterator[tuple[float, float]]:
    """Yield probability and accuracy of each condition that drops messages of all sensors."""
    for each in report['conditions']:
        faults: Sequence[str] = each['parameters'].get('faults') or ()
        match = _DROPPED.match(faults[0]) if len(faults) == 1 else None
        accuracy = each['actions'].get(heads[0], {}).get('top1') if heads else None
        if match is not None and accuracy is not None:
            yield int(match.group(1)) / 100, accuracy


def _confusions(report: Report) -> Iterator[dict[str, Any]]:
    """Yield what is shown of the confusion of each head."""
    for head, pairs in report['confusion'].items():
        if not pairs:
            continue
        names = report['vocabulary'][head]
        chosen, counts = _most_frequent(pairs)
        classes = [i for i in chosen if i >= 0]
        errors = sorted((p for p in pairs if p[0] != p[1]), key=lambda p: (-p[2], p[0], p[1]))
        yield {
            'head': head, 'counts': counts, 'shown': len(classes),
            'names': [names[i] if i >= 0 else 'all others' for i in chosen],
            'hidden': len({i for pair in pairs for i in pair[:2]}) - len(classes),
            'errors': [(names[true], names[predicted], n) for true, predicted, n in errors[:8]]}


def _most_frequent(pairs: Sequence[Sequence[int]]) -> tuple[list[int], list[list[int]]]:
    """Return the most frequent classes and the counts between them; -1 is all others."""
    weight: Counter[int] = Counter()
    for true, predicted, n in pairs:
        weight[true] += n
        weight[predicted] += n if true != predicted else 0
    ranked = sorted(weight, key=lambda i: (-weight[i], i))
    chosen = sorted(ranked if len(ranked) <= MOST_CLASSES + 1 else ranked[:MOST_CLASSES])
    shown = chosen if len(chosen) == len(ranked) else [*chosen, -1]
    row_of = {c: i for i, c in enumerate(shown)}
    counts = [[0] * len(shown) for _ in shown]
    for true, predicted, n in pairs:
        counts[row_of.get(true, -1)][row_of.get(predicted, -1)] += n
    return shown, counts


def _script_data(timelines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the script draws: labels become numbers."""
    labels: dict[str, int] = {}

    def number(words: Sequence[str]) -> int:
        return labels.setdefault(' '.join(filter(None, words)) or '?', len(labels))

    bags = [{
        **{key: bag[key] for key in ('name', 'length', 'availability', 'conditions')},
        'truth': [[s, e, number(words)] for s, e, words in bag['truth']],
        'predicted': [[s, e, -1 if words is None else number(words), *rest]
                      for s, e, words, *rest in bag['predicted']],
        'events': [[s, e, number(words), *rest] for s, e, words, *rest in bag['events']],
    } for bag in timelines]
    return {'bags': bags, 'labels': list(labels), 'states': _states()}
