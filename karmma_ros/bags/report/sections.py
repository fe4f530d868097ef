"""
The sections of the page. Every word that comes from a bag, a table or a model is escaped here.

A section takes the report and gives HTML; none reads a clock or an environment.
"""

from __future__ import annotations

from base64 import b64encode
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
import re
from typing import Any

from karmma_ros.bags.report import charts
from karmma_ros.bags.report.elements import (
    barred,
    count,
    escape,
    listed,
    percentile_table,
    table,
    value,
)
from karmma_ros.bags.report.findings import clock, percent, scored_key, seconds, sentences
from karmma_ros.evaluation.segmentation import SegmentCounts
from karmma_ros.stream.availability import ModalityState

MOST_CLASSES = 18
STATES = tuple(state.description for state in ModalityState)
"""What a state means, by its number."""
_DROPPED = re.compile(r'all dropped (\d+)% of')
Report = Mapping[str, Any]


def title(facts: Mapping[str, Any]) -> str:
    """Name the model."""
    return str(facts.get('id') or facts.get('name') or 'the model')


def header(report: Report) -> str:
    """Open with the verdict in figures."""
    model, bags = report['model'], report['bags']
    length = sum(bag['seconds'] for bag in bags)
    names = ', '.join(bag['name'] for bag in bags[:3]) + ('' if len(bags) < 4 else ', …')
    tiles = ''.join(
        f'<div class="tile{kind}"><dt>{escape(name)}</dt><dd><span class="big">{value}</span><br>'
        f'<span class="small">{escape(small)}</span></dd></div>'
        for name, value, small, kind in _tiles(report))
    short = ''.join(f'<li>{escape(text)}</li>' for text in sentences(report))
    return (f'<p class="sub">{escape(title(model))} on {count(len(bags), "bag")}, '
            f'{clock(length)} of recording: {escape(names)}</p>'
            f'<dl class="tiles">{tiles}</dl><ul class="short">{short}</ul>{_warnings(report)}')


def conditions(report: Report) -> str:
    """Show what was done to the sensors: a row for each condition that is no subset."""
    key = scored_key(report)
    names = _keys(report)
    head = ['condition', *(f'{name} top-1, %' for name in names),
            *([f'{key} top-5, %', 'answered, %', 'F1@25, %', 'announced, %', 'delay, s']
              if key else ['events']), 'windows', 'same answer, %']
    rows = [_condition_row(each, key, names) for each in report['conditions']
            if not each['parameters'].get('subset')]
    note = ('Each true action is answered once, by the mean of the windows whose middle lies in '
            'it; one without any counts as wrong. ' if key else '')
    return (table(head, rows, 'first') + f'<p class="note">{note}"Same answer": of the windows as '
            'recorded that the condition answers too, the share with the same best classes.</p>')


def subsets(report: Report) -> str:
    """Show each subset of the sensors, on what has it: Table I of the paper."""
    chosen = [each for each in report['conditions'] if each['parameters'].get('subset')]
    if not chosen:
        return ('<p class="none">The subsets of the sensors were not looked at: '
                '<code>--subsets</code> does.</p>')
    key, names = scored_key(report), _keys(report)
    head = ['sensors', *(f'{name} top-1, %' for name in names),
            *(['of actions'] if key else []), 'windows', 'same answer, %']
    rows = []
    for each in chosen:
        cells = [escape(each['name'])]
        for name in names:
            found = each['actions'].get(name, {})
            cells.append(barred(found.get('top1_answered'), name == key))
        if key:
            scored = each['actions'].get(key)
            cells.append(f'{round(scored["answered"] * scored["count"]):,}' if scored else '0')
        rows.append([*cells, f'{each["windows"]:,}', _same(each)])
    return table(head, rows) + (
        '<p class="note">Windows with more sensors are answered as if there were only these, and '
        'actions without a window that has them do not count: rows with different numbers are '
        'about different actions.</p>')


def streaming(report: Report) -> str:
    """Show what is announced as events, and when."""
    first = report['conditions'][0]
    events = first['events']
    if 'f1' not in events:
        return (f'<p>{events["count"]:,} events were announced; no true action '
                'is named so that they could be scored.</p>')
    f1 = table(['overlap (IoU)', 'F1, %'], [[f'{int(o) / 100:g}', percent(x)]
                                            for o, x in events['f1'].items()])
    tious = report['settings']['tious']
    precision = table(
        ['mean average precision, %', *(f'tIoU {t:g}' for t in tious), 'mean'],
        [[escape(name), *map(percent, values), percent(_mean(values))]
         for name, values in events['mean_average_precision'].items()])
    delay = events['delay_s']
    late = (f'An action is announced {seconds(delay["p50"])} s after its start in the median, '
            f'{seconds(delay["p90"])} s for nine of ten, {seconds(delay["max"])} s at worst '
            f'(the {delay["count"]:,} that were found at an overlap of 0.1).'
            if delay['count'] else 'No true action was announced.')
    return (f'<p>{escape(late)} Edit score {percent(events["edit"])} %.</p><div class="columns">'
            f'<div>{f1}</div><div>{precision}</div></div>')


def curve(report: Report) -> str:
    """Show accuracy against lost sensors."""
    losing = report['robustness']
    if losing is None and any(each['parameters'].get('subset') for each in report['conditions']):
        return ('<p class="none">No true action has a class for every head of the model and all '
                'subsets of its sensors: there is no curve.</p>')
    if losing is None:
        return ('<p class="none">Not every subset of the sensors was looked at: '
                '<code>--subsets</code> gives this curve.</p>')
    points = losing['probability']
    keys = [
        key for key in dict.fromkeys((report['joint_head'], *report['heads'])) if key in losing
    ]
    chart = charts.lines(
        {key: list(zip(points, losing[key])) for key in keys},
        title='Top-1 accuracy when each sensor is missing at random',
        what=('chance of each sensor to be missing, %', 'top-1 accuracy, %'),
        dots={keys[0]: measured(report, keys[0])} if measured(report, keys[0]) else None)
    rows = [[f'{100 * p:.0f}', *(percent(losing[key][i]) for key in keys)]
            for i, p in enumerate(points)]
    return (f'<figure>{chart}</figure><p>Over all subsets the mean is '
            f'{percent(losing["average_accuracy"])} %; the others lose '
            f'{percent(losing["relative_drop"])} % of what all sensors reach.</p><details>'
            f'<summary>The figures</summary>{table(["missing, %", *keys], rows)}</details>')


def measured(report: Report, key: str) -> list[tuple[float, float | None]]:
    """Return the conditions in which all sensors were dropped, by chance of it."""
    found: list[tuple[float, float | None]] = []
    for each in report['conditions']:
        faults: Sequence[str] = each['parameters'].get('faults') or ()
        match = _DROPPED.match(faults[0]) if len(faults) == 1 else None
        if match is not None and key in each['actions']:
            found.append((int(match.group(1)) / 100, each['actions'][key]['top1']))
    return found


def confusions(report: Report) -> str:
    """Show which classes are taken for which."""
    parts = []
    for head, pairs in report['confusion'].items():
        if not pairs:
            continue
        names = report['vocabulary'][head]
        shown, counts = _most(pairs, len(names))
        labels = [names[i] if i >= 0 else 'all others' for i in shown]
        rest = len({i for pair in pairs for i in pair[:2]}) - len([i for i in shown if i >= 0])
        chart = charts.confusion(labels, counts, title=f'Confusion of the {head}')
        note = (f' The {len(shown) - 1} most frequent of '
                f'{rest + len(shown) - 1} classes; the others together.' if rest > 0 else '')
        worst = sorted((p for p in pairs if p[0] != p[1]), key=lambda p: (-p[2], p[0], p[1]))[:8]
        wrong = table(['true', 'taken for', 'times'], [
            [escape(names[true]), escape(names[said]), f'{n:,}'] for true, said, n in worst],
            text=(1,)) if worst else '<p>No confusion.</p>'
        parts.append(
            f'<div><h3>{escape(head)}</h3><figure><div class="scroll" tabindex="0" role="region" '
            f'aria-label="Confusion of the {escape(head)}">{chart}</div><figcaption>True class in '
            f'rows, answer in columns; shares of the row in percent.{note}</figcaption></figure>'
            f'{wrong}</div>')
    return f'<div class="columns">{"".join(parts)}</div>' if parts else _no_truth()


def calibration(report: Report) -> str:
    """Show whether confidence can be trusted."""
    parts = []
    for what, whose in (('windows', 'one window'), ('actions', 'whole action')):
        for key, found in report['calibration'].items():
            bins = found[what]
            words = f'{key}, {whose}: calibration error {percent(bins["error"])} %'
            parts.append(f'<figure>{charts.reliability(bins, title=words)}<figcaption>'
                         f'{escape(words)}</figcaption></figure>')
    return (f'<div class="columns">{"".join(parts)}</div><p class="note">Bars on the dashed line '
            'are well calibrated; below it the model is too sure. Larger dots stand for more '
            'answers. The mean over an action is less sure than its windows are.</p>'
            ) if parts else _no_truth()


def ages(report: Report) -> str:
    """Show how old data is when it is looked at."""
    age, shape = report['conditions'][0]['age_s'], report['age_histogram']
    marks = {'p50': age['p50'], 'p95': age['p95']}
    chart = charts.bars(
        shape['edges'], shape['counts'], title='Age of the newest sample when a window is cut',
        what='age, ms', marks=marks)
    return (f'<figure>{chart}<figcaption>Age of the newest sample when a window is cut, by the '
            "bag's own times: transport, not computing.</figcaption></figure>"
            + percentile_table({'age': age}))


def moments(report: Report, jpegs: Sequence[Sequence[bytes]]) -> str:
    """Show the surest errors with their pictures."""
    if not report['failure_cases']:
        return '<p class="none">No true action was answered wrongly, or there is no truth.</p>'
    name = report['failure_cases_condition']
    text = 'True actions that were answered wrongly, the surest first.' \
        if name == report['conditions'][0]['name'] else (
            f'As recorded nothing was answered wrongly; these are of the condition {name}.')
    return f'<p>{escape(text)}</p><ol class="moments">' + ''.join(
        _moment(report, each, pictures) for each, pictures in zip(report['failure_cases'], jpegs)
    ) + '</ol>'


def bags(report: Report) -> str:
    """Show each bag: what is in it, what was lost, how it went."""
    first, key = report['conditions'][0], scored_key(report)
    head = ['bag', 'length', 'windows', 'events', 'true actions', *([f'{key} top-1, %',
            'F1@25, %', 'edit, %'] if key else [])]
    rows = []
    for bag, each in zip(report['bags'], first['by_bag']):
        right, count = each['top1'].get(key, (0, 0))
        cells = [escape(bag['name']), clock(bag['seconds']), f'{each["windows"]:,}',
                 f'{each["events"]:,}', f'{(bag["truth"] or {}).get("actions", 0):,}']
        cells += [percent(right / count if count else None), percent(_f1(each['found'].get('25'))),
                  percent(each['edit'])] if key else []
        rows.append(cells)
    return table(head, rows) + ''.join(_bag(bag) for bag in report['bags'])


def made(facts: Mapping[str, Any]) -> str:
    """Show how the report was made: the only part that another run would change."""
    latency = facts.get('latency_s')
    shape = facts.get('latency_histogram') or {}
    parts = []
    if facts.get('real_time'):
        parts.append(f'<p><b><span id="speed">{facts["real_time"]:.1f} ×</span></b> as fast as '
                     'real time, all conditions together.</p>')
    if latency and latency['count']:
        chart = charts.bars(shape['edges'], shape['counts'], what='time a window, ms',
                            title='Measured time of a window',
                            marks={'p50': latency['p50'], 'p95': latency['p95']})
        parts.append(f'<figure>{chart}<figcaption>Measured time of the model for a window, its '
                     'share of a batch.</figcaption></figure>'
                     + percentile_table({'time of a window': latency}))
    shown = {k: v for k, v in facts.items() if k not in ('latency_s', 'latency_histogram')}
    return ''.join(parts) + listed(shown)


def model(report: Report) -> str:
    """Show what the report is about, and what was set."""
    return listed({**report['model'], **{f'setting {k}': v
                                         for k, v in report['settings'].items()}})


def _tiles(report: Report) -> Iterable[tuple[str, str, str, str]]:
    first, key = report['conditions'][0], scored_key(report)
    unit = '<small> %</small>'
    if key is not None:
        one = first['actions'][key]
        low, high = one['interval']
        yield (f'{key} accuracy, top-1', percent(one['top1']) + unit,
               f'{one["correct"]:,} of {one["count"]:,}; 95 %: {percent(low)} to {percent(high)}',
               ' main')
        for name, each in first['actions'].items():
            if name != key:
                yield (f'{name}, top-1', percent(each['top1']) + unit,
                       f'top-5 {percent(each["top5"])} %, mean recall '
                       f'{percent(each["mean_recall"])} %', '')
        if 'f1' in first['events']:
            events = first['events']
            yield ('events, F1@25', percent(events['f1']['25']) + unit,
                   f'F1@10 {percent(events["f1"]["10"])}, F1@50 {percent(events["f1"]["50"])}', '')
            yield ('announced after', seconds(events['delay_s']['p50']) + '<small> s</small>',
                   f'median; nine of ten within {seconds(events["delay_s"]["p90"])} s', '')
        error = report['calibration'][key]['windows']['error']
        yield 'calibration error', percent(error) + unit, 'of one window; 0 is best', ''
        half = (report['robustness'] or {}).get(key)
        if half:
            yield ('each sensor missing half the time', percent(half[5]) + unit,
                   f'{percent(half[0])} % with all', '')
    else:
        yield 'windows', f'{first["windows"]:,}', 'without truth: nothing to score', ' main'
        yield 'events', f'{first["events"]["count"]:,}', 'announced', ''
    yield 'speed, of real time', '<span id="speed-tile">–</span>', 'see the end of this page', ''


def _condition_row(each: Report, key: str | None, names: Sequence[str]) -> list[str]:
    scored = (each['actions'].get(key) if key else None) or {}
    cells = [escape(each['name'])]
    cells += [barred(each['actions'].get(name, {}).get('top1'), name == key) for name in names]
    if key:
        events = each['events']
        cells += [percent(scored.get('top5')), percent(scored.get('answered')),
                  percent(events.get('f1', {}).get('25')), percent(events.get('recall')),
                  seconds(events.get('delay_s', {}).get('p50'))]
    else:
        cells.append(f'{each["events"]["count"]:,}')
    return [*cells, f'{each["windows"]:,}', _same(each)]


def _keys(report: Report) -> list[str]:
    """Return the scores that there are, the one of the verdict first."""
    key = scored_key(report)
    return sorted(report['conditions'][0]['actions'], key=lambda name: name != key)


def _same(each: Report) -> str:
    return percent((each.get('agreement') or {}).get('same'))


def _most(pairs: Sequence[Sequence[int]], classes: int) -> tuple[list[int], list[list[int]]]:
    """Choose the classes that are seen most, and count between them; -1 is all others."""
    weight: Counter[int] = Counter()
    for true, said, n in pairs:
        weight[true] += n
        weight[said] += n if true != said else 0
    seen = sorted(weight, key=lambda i: (-weight[i], i))
    chosen = sorted(seen if len(seen) <= MOST_CLASSES + 1 else seen[:MOST_CLASSES])
    shown = chosen if len(chosen) == len(seen) else [*chosen, -1]
    place = {c: i for i, c in enumerate(shown)}
    counts = [[0] * len(shown) for _ in shown]
    for true, said, n in pairs:
        counts[place.get(true, -1)][place.get(said, -1)] += n
    return shown, counts


def _moment(report: Report, each: Report, pictures: Sequence[bytes]) -> str:
    bag = report['bags'][each['bag']]
    at = clock(each['at_s'])
    truth, said = ' '.join(each['truth'].values()), ' '.join(each['predicted'].values())
    images = ''.join(
        f'<img alt="{escape(f"{what} of the window at {at}: the truth is {truth}")}" '
        f'src="data:image/jpeg;base64,{b64encode(data).decode()}">'
        for what, data in zip(('Start', 'Middle', 'End'), pictures))
    images = images or '<p>No picture: the camera said nothing here, or it is not kept.</p>'
    lamps = ''.join(
        f'<li class="{"yes" if name in each["present"] else "no"}" '
        f'title="{STATES[state]}">{name}<span class="unseen">: {STATES[state]}</span></li>'
        for name, state in each['states'].items() if 0 < state < len(STATES))
    chances = ', '.join(f'{escape(head)} {percent(p)} %'
                        for head, p in each['chance_of_truth'].items())
    where = f'{escape(bag["name"])}, ' if len(report['bags']) > 1 else ''
    return (f'<li class="moment"><div class="frames">{images}</div><div class="body">'
            f'<p class="said">said <b>{escape(said)}</b>, {percent(each["confidence"], 0)} % sure'
            f'</p><p>truth <b>{escape(truth)}</b> <span class="note">(given {chances})</span></p>'
            f'<ul class="lamps">{lamps}</ul><p class="note">{where}{at} <button data-bag='
            f'"{each["bag"]}" data-at="{round(1000 * each["at_s"])}">show in the timeline</button>'
            '</p></div></li>')


def _bag(bag: Report) -> str:
    topics = table(['used as', 'topic', 'type', 'messages'], [
        [escape(role), escape(str(t.get('topic', ''))), escape(str(t.get('type', ''))),
         value(t.get('count', 0))] for role, t in bag['topics'].items()], text=(1, 2))
    facts = {'path': bag['path'], 'storage': bag['storage'],
             'messages': f'{bag["messages"]:,}', 'lost': bag['lost'] or 'nothing'}
    if bag['truth']:
        facts['truth'] = bag['truth']['source']
        facts['of the truth'] = bag['truth']['left_out'] or 'everything could be used'
    if bag['recorded']:
        facts["the node's own answers in the bag"] = bag['recorded']
    return (f'<details><summary>{escape(bag["name"])}: topics, losses, truth</summary>{topics}'
            f'{listed(facts)}</details>')


def _warnings(report: Report) -> str:
    texts = report['warnings']
    if not texts:
        return ''
    items = ''.join(f'<li>{escape(text)}</li>' for text in texts[:60])
    more = f'<li>and {len(texts) - 60} more in report.json</li>' if len(texts) > 60 else ''
    heading = f'{count(len(texts), "thing")} to know before these figures are believed'
    body = f'<ul>{items}{more}</ul>'
    if len(texts) <= 4:
        return f'<div class="warnings"><b>{heading}</b>{body}</div>'
    return f'<details class="warnings"><summary>{heading}</summary>{body}</details>'


def _f1(found: Sequence[int] | None) -> float | None:
    return SegmentCounts(*found).f1 if found and sum(found) else None


def _mean(values: Sequence[float | None]) -> float | None:
    there = [x for x in values if x is not None]
    return sum(there) / len(there) if there else None


def _no_truth() -> str:
    return '<p class="none">There is no truth that could be scored.</p>'
