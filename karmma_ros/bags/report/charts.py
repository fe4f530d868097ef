"""
The charts of a report as SVG, drawn by matplotlib in the style of `karmma_ros.evaluation.plots`.

Inside a page the colours are CSS variables, so that a chart follows the light or dark scheme of
the page; `forest` makes a file of its own, on white. Equal values give equal bytes.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence, Set
from io import StringIO
import re
from typing import Any
import warnings
from xml.etree import ElementTree

from karmma_ros.errors import printable, SENTENCE_LENGTH
from karmma_ros.evaluation.classification import Reliability
from karmma_ros.evaluation.plots import (
    draw_confusion,
    draw_dropout_curve,
    draw_reliability,
    GREY,
    INK,
    ON_COLOUR,
    PALETTE,
    RULE,
    SOFT,
    STYLE,
    TILE,
    WRONG,
)
from markupsafe import escape, Markup
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
import numpy as np

VARIABLES = {colour: f'var(--{name})' for colour, name in (
    (INK, 'ink'), (SOFT, 'soft'), (RULE, 'rule'), (TILE, 'tile'), (ON_COLOUR, 'on-right'),
    (GREY, 'none'), (WRONG, 'wrong'), *zip(PALETTE, ('right', 'second', 'third')))}
"""Colour → CSS variable of the page; other colours are legible in both schemes."""
IN_PAGE: dict[Any, Any] = {**STYLE, 'figure.facecolor': 'none', 'axes.facecolor': 'none'}
NOTHING = Markup('<p class="none">Nothing to show.</p>')
_WIDE, _NARROW = (4.8, 2.7), (3.0, 3.2)
_LONGEST_NAME = 24
_UNUSED = frozenset({'metadata', 'clipPath', 'style'})
_COLOUR = re.compile('#[0-9a-f]{6}')
_FONT = re.compile(r"font(-family)?: (?:([\d.]+)px )?'DejaVu Sans'(?:, [^;]*)?;? ?")


@rc_context(IN_PAGE)
def dropout_curve(
    curve: Mapping[str, Any], heads: Sequence[str], measured: Sequence[tuple[float, float]],
    title: str,
) -> Markup:
    """
    Draw accuracy over the probability of a missing sensor, a line for each head.

    :param curve: `robustness` of the report.
    :param measured: probability and accuracy of bags that were replayed without the messages.
    """
    figure, axes = _figure(_WIDE)
    draw_dropout_curve(axes, {head: [curve[head]] for head in heads}, curve['probability'])
    if measured:
        axes.plot(*(100 * np.array(measured).T), 'o', markersize=9, markerfacecolor='none',
                  markeredgecolor=INK, markeredgewidth=1.4, label='measured on the bags')
    axes.set(ylim=(0, 102), ylabel='top-1 accuracy, %')
    axes.grid(axis='y')
    axes.legend(loc='lower left')
    return _inline(figure, title)


@rc_context(IN_PAGE)
def histogram(
    bins: Mapping[str, Any], percentiles: Mapping[str, float | None], title: str, label: str
) -> Markup:
    """Draw a histogram of times, in seconds, with the median and the 95 % percentile."""
    edges, counts = bins['edges'], bins['counts']
    if not sum(counts):
        return NOTHING
    figure, axes = _figure((4.8, 2.2))
    starts = 1000 * np.array(edges)
    axes.bar(starts[:-1], 100 * np.array(counts) / sum(counts), 0.94 * np.diff(starts),
             align='edge', color=PALETTE[0])
    axes.set(xlim=(starts[0], starts[-1]), xlabel=label, ylabel='of windows, %')
    axes.yaxis.set_major_locator(MaxNLocator(4))
    axes.grid(axis='y')
    for name in ('p50', 'p95'):
        value = percentiles[name]
        if value is not None and edges[0] <= value <= edges[-1]:
            axes.axvline(1000 * value, color=INK, linewidth=1, linestyle=(0, (3, 3)))
            axes.annotate(name, (1000 * value, 1), (0, 2), xycoords=('data', 'axes fraction'),
                          textcoords='offset points', ha='center', fontsize=8, color=SOFT)
    return _inline(figure, title)


@rc_context(IN_PAGE)
def reliability(bins: Mapping[str, Sequence[float | None]], title: str) -> Markup:
    """Draw accuracy over confidence, and how often each confidence occurs."""
    count, confidence, accuracy = (np.array(bins[name], float) for name in (
        'count', 'confidence', 'accuracy'))
    if not count.sum():
        return NOTHING
    figure = Figure(figsize=_NARROW, layout='constrained')
    top, bottom = figure.subplots(2, sharex=True, height_ratios=(3, 1))
    draw_reliability(top, bottom, Reliability(count.astype(np.int64), confidence, accuracy))
    top.set_ylabel('correct, %')
    top.grid(axis='y')
    bottom.set_ylabel('of all, %')
    return _inline(figure, title, 'narrow')


@rc_context(IN_PAGE)
def confusion(names: Sequence[str], counts: Sequence[Sequence[int]], title: str) -> Markup:
    """Draw which class is predicted for which; the last name may stand for all others."""
    labels = list(map(_short, names))
    side = 0.27 * len(names) + 0.09 * max(map(len, labels)) + 0.3
    figure, axes = _figure((side, side))
    draw_confusion(axes, np.array(counts), labels)
    return _inline(figure, title, 'confusion')


@rc_context(STYLE)
def forest(rows: Sequence[tuple[str, float, float, float, bool, bool]], title: str) -> str:
    """
    Draw differences with their intervals, as a file.

    :param rows: name; difference, low and high in percentage points; B is better; A is better.
    """
    title = printable(title, SENTENCE_LENGTH)
    figure, axes = _figure((6.4, 0.8 + 0.3 * len(rows)))
    for y, (_, difference, low, high, better, worse) in enumerate(rows):
        colour = PALETTE[0] if better else WRONG if worse else GREY
        axes.plot([low, high], [y, y], color=colour, linewidth=2.5)
        axes.plot(difference, y, 'o', color=colour, markersize=6, gid=f'difference-{y}')
    axes.axvline(0, color=INK, linewidth=1, linestyle=(0, (3, 3)))
    axes.set_yticks(range(len(rows)), [_short(name, 36) for name, *_ in rows])
    axes.set(ylim=(len(rows) - 0.4, -0.6), xlabel='B less A, percentage points')
    axes.grid(axis='x')
    text = _svg(figure)
    return f'<svg role="img" aria-label="{escape(title)}"{text[text.index("<svg") + 4:]}'


def _figure(size: tuple[float, float]) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout='constrained')
    return figure, figure.subplots()


def _svg(figure: Figure) -> str:
    file = StringIO()
    with warnings.catch_warnings():
        # The browser has the letters that the font of the layout lacks.
        warnings.filterwarnings('ignore', 'Glyph')
        figure.savefig(file, format='svg', metadata={'Date': None})
    return file.getvalue()


def _inline(figure: Figure, title: str, css_class: str = 'wide') -> Markup:
    """Return a chart as an element of a page, with a title for screen readers."""
    title = printable(title, SENTENCE_LENGTH)
    with rc_context({'svg.hashsalt': title}):
        root = ElementTree.fromstring(_svg(figure))
    used = {value for element in root.iter() for name, value in element.items()
            if name.endswith('}href')}
    for element in list(root.iter()):
        element.tag = element.tag.rpartition('}')[2]
        for child in [c for c in element if c.tag.rpartition('}')[2] in _UNUSED]:
            element.remove(child)
        if not element.tag == 'text' and not (element.text or '').strip():
            element.text = None
        element.tail = None
        element.attrib = dict(_attributes(element.attrib, used))
    width, height = (float(x) * 4 / 3 for x in root.attrib['viewBox'].split()[2:])
    root.attrib = {
        'class': f'chart {css_class}', 'width': f'{width:.0f}', 'height': f'{height:.0f}',
        'viewBox': root.attrib['viewBox'], 'role': 'img', 'aria-label': title}
    name = ElementTree.Element('title')
    name.text = title
    root.insert(0, name)
    return Markup(ElementTree.tostring(root, encoding='unicode'))


def _attributes(given: Mapping[str, str], used: Set[str]) -> Iterator[tuple[str, str]]:
    """Yield the attributes that a page needs; coordinates with two digits."""
    for name, value in given.items():
        name = name.rpartition('}')[2]
        if name == 'style':
            value = _COLOUR.sub(lambda m: VARIABLES.get(m[0], m[0]), value)
            value = _FONT.sub(lambda m: f'font-size: {m[2]}px; ' if m[2] else '', value)
        elif name in ('d', 'x', 'y', 'transform'):
            value = re.sub(r'-?\d+\.\d+', lambda m: f'{float(m[0]):.2f}'.rstrip('0').rstrip('.'),
                           ' '.join(value.split()))
        if name == 'clip-path' or name == 'id' and f'#{value}' not in used:
            continue
        yield name, value


def _short(text: str, most: int = _LONGEST_NAME) -> str:
    text = printable(text)
    return text if len(text) <= most else text[:most - 1] + '…'
