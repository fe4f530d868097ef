"""
Small charts as inline SVG, drawn by hand: their colours are the page's, in the light and dark.

Classes name what is drawn; `page.css` says how it looks. Each chart has a title and says in
words what it shows. Markers and dashes differ as well as colours.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
import html
from itertools import count
import math

from karmma_ros.errors import printable, SENTENCE_LENGTH

Points = Sequence[tuple[float, float | None]]


def escape(text: str) -> str:
    """Return a text as XML; control and bidi characters are shown as escapes."""
    return html.escape(printable(text, SENTENCE_LENGTH))


class _Frame:
    """A plotting area with margins, in the units of the view box."""

    def __init__(self, x: tuple[float, float], y: tuple[float, float], width: int = 640,
                 height: int = 300, left: int = 52, bottom: int = 44) -> None:
        self.width, self.height, self.left, self.bottom = width, height, left, bottom
        self._x, self._y = x, y

    def x(self, value: float) -> float:
        low, high = self._x
        return self.left + (value - low) / ((high - low) or 1) * (self.width - self.left - 14)

    def y(self, value: float) -> float:
        low, high = self._y
        room = self.height - self.bottom - 12
        return 12 + room - (value - low) / ((high - low) or 1) * room

    def axes(self, xs: Mapping[float, str], ys: Mapping[float, str], what: tuple[str, str]) -> str:
        """Draw ticks, a grid and the names of the axes."""
        right, base = self.width - 14, self.height - self.bottom
        parts = [f'<line class="grid" x1="{self.left}" x2="{right}" y1="{_n(self.y(v))}" '
                 f'y2="{_n(self.y(v))}"/><text class="tick" x="{self.left - 7}" '
                 f'y="{_n(self.y(v) + 4)}" text-anchor="end">{escape(text)}</text>'
                 for v, text in ys.items()]
        parts += [f'<text class="tick" x="{_n(self.x(v))}" y="{base + 17}" '
                  f'text-anchor="middle">{escape(text)}</text>' for v, text in xs.items()]
        parts.append(f'<line class="axis" x1="{self.left}" x2="{right}" y1="{base}" y2="{base}"/>')
        parts.append(f'<text class="name" x="{(self.left + right) / 2:g}" y="{self.height - 7}" '
                     f'text-anchor="middle">{escape(what[0])}</text>')
        middle = (12 + base) / 2
        parts.append(f'<text class="name" text-anchor="middle" '
                     f'transform="translate(13 {middle:g}) rotate(-90)">{escape(what[1])}</text>')
        return ''.join(parts)


def _svg(frame_width: int, frame_height: int, title: str, inside: str, extra: str = '') -> str:
    return (f'<svg class="chart {extra}" viewBox="0 0 {frame_width} {frame_height}" role="img" '
            f'aria-label="{escape(title)}"><title>{escape(title)}</title>{inside}</svg>')


def lines(
    series: Mapping[str, Points], *, title: str, what: tuple[str, str],
    dots: Mapping[str, Points] | None = None,
) -> str:
    """Draw shares, 0 to 1, over shares, both in percent."""
    frame = _Frame((0, 0.9), (0, 1))
    inside = [frame.axes({i / 10: str(10 * i) for i in range(10)},
                         {i / 4: str(25 * i) for i in range(5)}, what)]
    for number, (name, points) in enumerate(series.items()):
        there = [(frame.x(x), frame.y(y)) for x, y in points if y is not None]
        path = ' '.join(f'{_n(x)},{_n(y)}' for x, y in there)
        inside.append(f'<polyline class="line s{number}" points="{path}"/>')
        inside += [_marker(number, x, y, f'{name}: {100 * (share or 0):.1f} % at '
                           f'{100 * chance:.0f} %')
                   for (x, y), (chance, share) in zip(
                       there, [p for p in points if p[1] is not None])]
    for number, (name, points) in enumerate((dots or {}).items()):
        inside += [f'<circle class="dot s{number}" cx="{_n(frame.x(x))}" cy="{_n(frame.y(y))}" '
                   f'r="7"><title>{escape(name)} measured: {100 * y:.1f} %</title></circle>'
                   for x, y in points if y is not None]
    legend = ''.join(
        f'<span class="key"><svg viewBox="0 0 34 14" aria-hidden="true"><line class="line s{i}" '
        f'x1="2" x2="32" y1="7" y2="7"/>{_marker(i, 17, 7, "")}</svg>{escape(name)}</span>'
        for i, name in enumerate(series))
    if dots:
        legend += ('<span class="key"><svg viewBox="0 0 34 14" aria-hidden="true"><circle '
                   'class="dot" cx="17" cy="7" r="6"/></svg>measured on the bags</span>')
    return _svg(frame.width, frame.height, title, ''.join(inside)) \
        + f'<p class="legend">{legend}</p>'


def bars(
    edges: Sequence[float], counts: Sequence[int], *, title: str, what: str, unit: float = 1e-3,
    marks: Mapping[str, float | None] | None = None,
) -> str:
    """Draw how often values fall between edges; marks are named values of the same kind."""
    if not counts or not sum(counts):
        return '<p class="none">Nothing to show.</p>'
    high = max(counts) / sum(counts)
    frame = _Frame((edges[0], edges[-1]), (0, high), height=220)
    width = frame.x(edges[1]) - frame.x(edges[0])
    ticks = {v: f'{v / unit:.4g}' for v in _nice(edges[0], edges[-1], 6, unit)}
    inside = [frame.axes(ticks, {v: f'{100 * v:.3g}' for v in _nice(0, high, 4, 0.01)},
                         (what, 'of windows, %'))]
    base = frame.y(0)
    for edge, number in zip(edges, counts):
        if number:
            top = frame.y(number / sum(counts))
            inside.append(f'<rect class="bar" x="{_n(frame.x(edge) + 0.5)}" y="{_n(top)}" '
                          f'width="{_n(max(1, width - 1))}" height="{_n(base - top)}"/>')
    for number, (name, value) in enumerate((marks or {}).items()):
        if value is not None and edges[0] <= value <= edges[-1]:
            x = frame.x(value)
            anchor = 'end' if x > 0.85 * frame.width else 'start'
            inside.append(f'<line class="mark" x1="{_n(x)}" x2="{_n(x)}" y1="8" y2="{_n(base)}"/>'
                          f'<text class="tick" x="{_n(x + (4 if anchor == "start" else -4))}" '
                          f'y="{18 + 14 * number}" text-anchor="{anchor}">{escape(name)}</text>')
    return _svg(frame.width, frame.height, title, ''.join(inside))


def reliability(found: Mapping[str, Sequence[float | None]], title: str) -> str:
    """Draw accuracy over confidence, and how often each confidence occurs."""
    total = sum(x or 0 for x in found['count'])
    if not total:
        return '<p class="none">Nothing to show.</p>'
    frame = _Frame((0, 1), (0, 1), width=320, height=300, left=46)
    bins = len(found['count'])
    ticks = {i / 4: str(25 * i) for i in range(5)}
    inside = [frame.axes(ticks, ticks, ('confidence, %', 'right, %'))]
    wide = frame.x(1 / bins) - frame.x(0)
    for i, (number, right) in enumerate(zip(found['count'], found['accuracy'])):
        if number and right is not None:
            x, y, base = frame.x(i / bins), frame.y(right), frame.y(0)
            inside.append(
                f'<rect class="bar" x="{_n(x + 1)}" y="{_n(min(y, base - 2))}" '
                f'width="{_n(wide - 2)}" height="{_n(max(2, base - y))}"><title>'
                f'{100 * i / bins:.0f} to {100 * (i + 1) / bins:.0f} % sure: '
                f'{100 * right:.1f} % right of {number:g}</title></rect>')
            size = 2 + 7 * math.sqrt(number / total)
            inside.append(f'<circle class="weight" cx="{_n(x + wide / 2)}" cy="{_n(y)}" '
                          f'r="{_n(size)}"/>')
    inside.append(f'<line class="even" x1="{_n(frame.x(0))}" y1="{_n(frame.y(0))}" '
                  f'x2="{_n(frame.x(1))}" y2="{_n(frame.y(1))}"/>')
    return _svg(frame.width, frame.height, title, ''.join(inside), 'narrow')


def confusion(
    names: Sequence[str], counts: Sequence[Sequence[int]], *, title: str
) -> str:
    """
    Draw which class is taken for which, true classes in rows, as shares of their row.

    :param counts: a row for each name; the last name may stand for all others.
    """
    cell = 30 if len(names) <= 14 else 24
    side = 24 + 7 * max(len(_short(name)) for name in names)
    top = 12 + 6 * max(len(_short(name)) for name in names)
    width, height = side + cell * len(names) + 44, top + cell * len(names) + 4
    inside = []
    for row, (name, line) in enumerate(zip(names, counts)):
        total, y = sum(line), top + cell * row
        inside.append(f'<text class="tick" x="{side - 6}" y="{y + cell / 2 + 4:g}" '
                      f'text-anchor="end">{escape(_short(name))}<title>{escape(name)}</title>'
                      '</text>')
        inside.append(f'<text class="tick" transform="translate({side + cell * (row + 0.5) + 4:g} '
                      f'{top - 6}) rotate(-60)">{escape(_short(name))}<title>{escape(name)}'
                      '</title></text>')
        for column, number in enumerate(line):
            share = number / total if total else 0
            x = side + cell * column
            kind = 'cell right' if row == column else 'cell'
            inside.append(f'<rect class="{kind}" x="{x}" y="{y}" width="{cell - 1}" '
                          f'height="{cell - 1}" style="--share:{share:.2f}">'
                          + (f'<title>{escape(name)} taken for {escape(names[column])}: {number} '
                             f'of {total}</title>' if number else '') + '</rect>')
            if number and 100 * share >= 0.5:
                dark = ' on' if share > 0.55 else ''
                inside.append(f'<text class="count{dark}" x="{x + cell / 2 - 0.5:g}" '
                              f'y="{y + cell / 2 + 4:g}" text-anchor="middle">'
                              f'{100 * share:.0f}</text>')
    return (f'<svg class="chart confusion" width="{width}" height="{height}" viewBox="0 0 {width} '
            f'{height}" role="img" aria-label="{escape(title)}"><title>{escape(title)}</title>'
            f'{"".join(inside)}</svg>')


def forest(rows: Sequence[tuple[str, float, float, float, str]], *, title: str) -> str:
    """Draw differences with their intervals, in points: name, middle, low, high, kind."""
    high = max((max(abs(low), abs(top)) for _, _, low, top, _ in rows), default=1.0) or 1.0
    frame = _Frame((-high, high), (0, 1), height=48 + 26 * len(rows), left=190)
    ticks = {v: f'{v:+.3g}' if v else '0' for v in _nice(-high, high, 6, 1)}
    base = frame.height - frame.bottom
    inside = [frame.axes(ticks, {}, ('B less A, points of percent', ''))]
    inside.append(f'<line class="mark" x1="{_n(frame.x(0))}" x2="{_n(frame.x(0))}" y1="4" '
                  f'y2="{base}"/>')
    for number, (name, middle, low, top, kind) in zip(count(), rows):
        y = 14 + 26 * number
        inside.append(f'<text class="tick" x="{frame.left - 8}" y="{y + 4}" text-anchor="end">'
                      f'{escape(_short(name, 30))}</text>'
                      f'<line class="whisker {kind}" x1="{_n(frame.x(low))}" '
                      f'x2="{_n(frame.x(top))}" y1="{y}" y2="{y}"/>'
                      f'<circle class="weight {kind}" cx="{_n(frame.x(middle))}" cy="{y}" r="5"/>')
    return _svg(frame.width, frame.height, title, ''.join(inside))


def _marker(number: int, x: float, y: float, tip: str) -> str:
    title = f'<title>{escape(tip)}</title>' if tip else ''
    shapes = (
        f'<circle class="point s0" cx="{_n(x)}" cy="{_n(y)}" r="4">{title}</circle>',
        f'<rect class="point s1" x="{_n(x - 4)}" y="{_n(y - 4)}" width="8" height="8">{title}'
        '</rect>',
        f'<path class="point s2" d="M{_n(x)} {_n(y - 5)}l5 9h-10z">{title}</path>')
    return shapes[number % len(shapes)]


def _nice(low: float, high: float, most: int, unit: float) -> list[float]:
    """Return round values between two, multiples of a 1, 2 or 5."""
    span = (high - low) / unit / most
    if not span > 0:
        return [low]
    power = 10.0 ** math.floor(math.log10(span))
    step = next(s * power for s in (1, 2, 5, 10) if s * power >= span) * unit
    first = math.ceil(low / step - 1e-9)
    return [step * i for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _short(text: str, most: int = 20) -> str:
    return text if len(text) <= most else text[:most - 1] + '…'


def _n(value: float) -> str:
    return f'{value:.1f}'.removesuffix('.0')


_STYLE = (
    'svg{background:#fff;font-family:system-ui,"DejaVu Sans",sans-serif}'
    'text{fill:#1d2327;font-size:12px}.tick,.name{fill:#58646c}.grid{stroke:#dde1e3}'
    '.axis{stroke:#58646c}.mark{stroke:#1d2327;stroke-dasharray:3 3}.whisker{stroke-width:3}'
    '.plain{stroke:#a3acb2;fill:#a3acb2}.better{stroke:#0072b2;fill:#0072b2}'
    '.worse{stroke:#c44500;fill:#c44500}')


def standalone(svg: str) -> str:
    """Make a file of a chart: with its own colours, on white."""
    head, _, rest = svg.partition('>')
    return f'{head} xmlns="http://www.w3.org/2000/svg"><style>{_STYLE}</style>{rest}\n'
