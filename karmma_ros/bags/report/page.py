"""
One HTML file that needs nothing else: style, script, pictures and figures are in it.

A content security policy lets run nothing but the script that is written here, whatever a bag
or a table brings along. The block between the comments `made` is all that differs when the
same bags are evaluated again.
"""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from hashlib import sha256
import json
from pathlib import Path
from typing import Any

from karmma_ros.bags.report import charts, sections, timeline
from karmma_ros.bags.report.elements import escape
from karmma_ros.prediction import action_heads

_HERE = Path(__file__).parent
_PARTS = (
    ('timeline', 'Over time', 'long'), ('sensors', 'When sensors fail', 'long'),
    ('stream', 'Events', ''), ('moments', 'Worst moments', 'long'),
    ('confusion', 'Confusions', 'long'), ('calibration', 'Confidence', 'long'),
    ('age', 'Age of the data', ''), ('bags', 'Bags', 'long'), ('model', 'Model', ''),
    ('definitions', 'Definitions', ''))


def page(
    report: Mapping[str, Any], drawn: Sequence[Mapping[str, Any]],
    jpegs: Sequence[Sequence[bytes]], made: Mapping[str, Any],
) -> str:
    """Set the whole page."""
    script, style = (_HERE.joinpath(f'page.{kind}').read_text(encoding='utf-8')
                     for kind in ('js', 'css'))
    named = sections.title(report['model'])
    body = {
        'timeline': board(drawn, action_heads(report['heads'])),
        'sensors': sections.conditions(report)
        + '<h3>With some of the sensors only</h3>' + sections.subsets(report)
        + '<h3>Accuracy against lost sensors</h3>' + sections.curve(report),
        'stream': sections.streaming(report), 'moments': sections.moments(report, jpegs),
        'confusion': sections.confusions(report), 'calibration': sections.calibration(report),
        'age': sections.ages(report), 'bags': sections.bags(report),
        'model': sections.model(report), 'definitions': definitions(report)}
    parts = ''.join(
        f'<section id="{key}" class="{kind}" aria-labelledby="h-{key}"><h2 id="h-{key}">{title}'
        f'</h2>{body[key]}</section>' for key, title, kind in _PARTS)
    links = ''.join(f'<li><a href="#{key}">{title}</a></li>'
                    for key, title, _ in (*_PARTS, ('made', 'How it was made', '')))
    digest = b64encode(sha256(script.encode()).digest()).decode()
    return f"""<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta http-equiv="Content-Security-Policy" content="default-src 'none'; img-src data:; \
style-src 'unsafe-inline'; script-src 'sha256-{digest}'; base-uri 'none'; form-action 'none'">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(named)}: how well actions are recognised</title>
<style>{style}</style>
</head>
<body>
<a class="skip" href="#timeline">Skip to the timeline</a>
<header>
<h1>How well actions are recognised</h1>
{sections.header(report)}
</header>
<nav aria-label="Sections"><ul>{links}</ul></nav>
<main>{parts}</main>
<footer>
<!-- made: all that another run with the same inputs would change -->
<section id="made" aria-labelledby="h-made"><h2 id="h-made">How it was made</h2>
{sections.made(made)}</section>
<!-- /made -->
</footer>
<script type="application/json" id="data">{_json(_data(drawn))}</script>
<script>{script}</script>
</body>
</html>
"""


def board(drawn: Sequence[Mapping[str, Any]], heads: Sequence[str]) -> str:
    """
    Set the timeline: an overview of each bag, the part that is shown, and its words.

    :param heads: what an event names.
    """
    options = ''.join(f'<option value="{i}">{escape(bag["name"])}</option>'
                      for i, bag in enumerate(drawn))
    choice = (f'<label>bag <select id="bag">{options}</select></label>' if len(drawn) > 1 else '')
    strips = ''.join(
        f'<div class="strip"{" hidden" if i else ""}>' + charts.overview(
            timeline.overview(bag), timeline.OVERVIEW_COLUMNS,
            title=f'Overview of {bag["name"]}: truth, events, and a line for each sensor')
        + '<div class="view"></div></div>' for i, bag in enumerate(drawn))
    buttons = ''.join(
        f'<button type="button" data-do="{do}" aria-label="{what}">{text}</button>'
        for do, text, what in (
            ('out', '−', 'zoom out'), ('in', '+', 'zoom in'), ('fit', 'whole bag', 'whole bag'),
            ('before', '‹ error', 'to the wrong event before'),
            ('next', 'error ›', 'to the next wrong event')))
    legend = ''.join(f'<span class="key"><i class="k-{kind}"></i>{text}</span>' for kind, text in (
        ('right', 'right'), *[('partly', f'{escape(" or ".join(heads))} right')][:len(heads) - 1],
        ('wrong', 'wrong'),
        ('none', 'no true action there'), ('fine', 'sensor available'),
        ('some', 'too little of it'), ('stale', 'silent')))
    many = any(len(bag['conditions']) > 1 for bag in drawn)
    others = ('<label><input type="checkbox" id="others"> a row for each condition</label>'
              if many else '')
    return (
        '<p>What people did, what the model said of each window, what was announced, and what '
        'each sensor gave. Point at a time or tap it to read what was known there.</p>'
        f'<div class="board" id="board"><div class="tools">{choice}{buttons}{others}</div>'
        f'{strips}<canvas tabindex="0" role="application" aria-label="Timeline. Arrow keys move, '
        'with Shift from border to border; plus and minus zoom, 0 shows all; n and p go to wrong '
        'events. What is there is read out below."></canvas><div class="told" aria-live="polite">'
        '<noscript>Without scripts only the overview is drawn. </noscript>Nothing pointed at yet.'
        f'</div></div><p class="legend">{legend}</p><p class="note">Drag to move, pinch or hold '
        'Ctrl and turn the wheel to zoom; keys: arrows, Shift with arrows, + − 0, n and p for '
        'errors.</p>')


def definitions(report: Mapping[str, Any]) -> str:
    """Say how the figures are computed."""
    overlaps = ', '.join(f'{x:g}' for x in report['settings']['overlaps'])
    texts = {
        'accuracy': 'An action is answered by the mean of the probabilities of the windows whose '
        'middle lies in it; one too short for that by the window whose middle is nearest, at most '
        f'half a window away. {_top5(report)}The '
        'interval is that of Wilson and takes actions as independent.',
        'mean recall': 'the mean, over the classes that occur, of the share of their actions '
        'that is recognised: rare classes count as much as frequent ones.',
        'F1@k, edit': f'of the events that the node would publish, at IoU {overlaps} and by the '
        'order of labels (Lea et al., CVPR 2017); F1 over all bags, edit as the mean of bags.',
        'mean average precision': 'as in the EPIC-KITCHENS action detection challenge and '
        'ActivityNet: detections by descending score, each finds the free true segment that it '
        "overlaps most, interpolated precision, mean over the classes of the truth. The node's "
        'events are the detections: a detector that proposes many segments reaches more.',
        'delay': "from an action's true start until the event is known by the node's clock, "
        'without the time of computing.',
        'calibration error': 'expected error over 15 bins of equal width: how far confidence and '
        'accuracy are apart on average.',
        'lost sensors': 'sensors go missing independently of each other; where all would, one '
        'stays. The curve is the exact expectation over the subsets, for the actions that have '
        'any sensor and are named in full; an action has what most of its windows have, and only '
        'windows that have all of it answer, so that 0 % may differ from the bags as recorded.',
        'what is not scored': 'classes that the model has no name for, and parts that the truth '
        'leaves open: events that lie for more than half in them count neither way.'}
    return '<dl class="facts">' + ''.join(
        f'<dt>{name}</dt><dd>{text}</dd>' for name, text in texts.items()) + '</dl>'


def _top5(report: Mapping[str, Any]) -> str:
    heads = report['heads']
    return '' if len(heads) < 2 else (
        f'Top-5 of {escape(", ".join(heads[:-1]))} and {escape(heads[-1])} together: the five '
        'greatest products. ')


def _data(drawn: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Return what the script draws: labels become numbers."""
    labels: dict[str, int] = {}

    def number(words: Sequence[str]) -> int:
        return labels.setdefault(' '.join(filter(None, words)) or '?', len(labels))

    found = []
    for bag in drawn:
        found.append({
            **{key: bag[key] for key in ('name', 'length', 'availability', 'conditions')},
            'truth': [[s, e, number(words)] for s, e, words in bag['truth']],
            'predicted': [[s, e, -1 if words is None else number(words), *rest]
                     for s, e, words, *rest in bag['predicted']],
            'events': [[s, e, number(words), *rest] for s, e, words, *rest in bag['events']]})
    return {'bags': found, 'labels': list(labels), 'states': list(sections.STATES)}


def _json(value: Any) -> str:
    """Write JSON that cannot end the element it stands in."""
    text = json.dumps(value, separators=(',', ':'), ensure_ascii=False)
    for letter in '<>&\u2028\u2029':
        text = text.replace(letter, f'\\u{ord(letter):04x}')
    return text
