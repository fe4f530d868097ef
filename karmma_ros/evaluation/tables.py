"""Markdown tables."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
import math

from karmma_ros.errors import printable


def markdown_table(
    header: Sequence[str], rows: Iterable[Sequence[str]], text_columns: int = 1, *,
    aligned: bool = False,
) -> str:
    """
    Return a Markdown table without a final newline; cells are not escaped.

    :param text_columns: how many of the first columns are left-aligned; the others are numbers.
    :param aligned: pad the cells so that the columns line up in a terminal.
    """
    body = [list(header), *map(list, rows)]
    widths = [max(len(row[i]) for row in body if i < len(row)) if aligned else 0
              for i in range(len(header))]
    rule = ['-' * max(3, width) if i < text_columns else '-' * max(3, width - 1) + ':'
            for i, width in enumerate(widths)]
    body.insert(1, rule)
    if aligned:
        widths = [max(width, len(cell)) for width, cell in zip(widths, rule)]
        body = [[cell.ljust(width) if i < text_columns else cell.rjust(width)
                 for i, (cell, width) in enumerate(zip(row, widths))] for row in body]
    return '\n'.join(f'| {" | ".join(row)} |' for row in body)


def escape_cell(text: str) -> str:
    """Escape what would end a table cell or begin an HTML tag."""
    return printable(text).replace('<', '&lt;').replace('|', '\\|')


def percent(fraction: float) -> str:
    """Return a fraction in percent with one decimal, and a dash for one that is not finite."""
    return f'{100 * fraction:.1f}' if math.isfinite(fraction) else '–'
