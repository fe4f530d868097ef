"""Tables, lists and figures as HTML; what is text is escaped here, what is a cell is HTML."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
import html
from typing import Any

from karmma_ros.bags.report.findings import percent
from karmma_ros.errors import printable, SENTENCE_LENGTH


def escape(text: str) -> str:
    """Return a text as HTML; control and bidi characters are shown as escapes."""
    return html.escape(printable(text, SENTENCE_LENGTH))


def table(
    head: Sequence[str], rows: Iterable[Sequence[str]], kind: str = '',
    text: Sequence[int] = (),
) -> str:
    """
    Set a table; cells are HTML already, the header is not.

    :param kind: `first` to lift the first row out.
    :param text: columns that hold words, not figures.
    """
    classes = [' class="text"' if i in text else '' for i in range(len(head))]
    body = ''.join(
        f'<tr{chosen}><th scope="row">{row[0]}</th>'
        + ''.join(f'<td{c}>{cell}</td>' for cell, c in zip(row[1:], classes[1:])) + '</tr>'
        for row, chosen in ((row, ' class="first"' if kind and not i else '')
                            for i, row in enumerate(rows)))
    top = ''.join(f'<th scope="col"{c}>{escape(name)}</th>' for name, c in zip(head, classes))
    return (f'<div class="scroll" tabindex="0" role="region" aria-label="table: '
            f'{escape(head[0])}"><table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>'
            '</div>')


def listed(named: Mapping[str, Any]) -> str:
    """List facts with their names."""
    return '<dl class="facts">' + ''.join(
        f'<dt>{escape(str(name).replace("_", " "))}</dt><dd>{value(each)}</dd>'
        for name, each in named.items()) + '</dl>'


def value(each: Any) -> str:
    """Set anything that JSON can hold; dates, paths and names are escaped."""
    if isinstance(each, Mapping):
        return '; '.join(f'{escape(str(k).replace("_", " "))}: {value(v)}'
                         for k, v in each.items())
    if isinstance(each, (list, tuple)):
        return ', '.join(map(value, each)) or 'none'
    if isinstance(each, float):
        return f'{each:.6g}'
    return escape('none' if each is None else str(each))


def barred(share: float | None, wide: bool) -> str:
    """Set a share in percent, with a bar where there is room."""
    if share is None or not wide:
        return percent(share)
    return (f'{percent(share)}<span class="share" aria-hidden="true">'
            f'<i style="--w:{100 * share:.1f}"></i></span>')


def percentile_table(rows: Mapping[str, Mapping[str, float | None]]) -> str:
    """Set percentiles, given in seconds, in milliseconds."""
    names = ('mean', 'p50', 'p90', 'p95', 'p99', 'max')
    return table(['ms', *names], [
        [escape(what), *(_milliseconds(x[name]) for name in names)] for what, x in rows.items()])


def _milliseconds(value: float | None) -> str:
    return '–' if value is None else f'{1000 * value:.1f}'


def count(number: int, what: str) -> str:
    """Say how many of a thing there are."""
    return f'1 {what}' if number == 1 else f'{number:,} {what}s'
