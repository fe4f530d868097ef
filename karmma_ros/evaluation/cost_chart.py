"""The cost of several networks as bars, one group for each subset (the paper's Fig. 6)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from karmma_ros.errors import InvalidSettingError
from matplotlib.axes import Axes
from matplotlib.figure import Figure

_COLOURS = ('#3b6ea5', '#e08a2e', '#5a9a5a', '#a05a8a', '#8a8a8a')
Bars = Mapping[str, Mapping[str, float]]
"""Name of a network → subset → figure."""


def draw_costs(path: Path, panels: Mapping[str, tuple[Bars, Bars]]) -> None:
    """
    Draw one panel of bars for each quantity; the paper's figures are marks across the bars.

    :param panels: title → ours, and the paper's where it has any.
    :raises InvalidSettingError: when the file's suffix names no kind of picture.
    """
    groups = max((len(f) for ours, _ in panels.values() for f in ours.values()), default=1)
    figure = Figure(figsize=(max(9, 0.95 * groups), 3.2 * len(panels)), layout='constrained')
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axis, (title, (ours, paper)) in zip(axes, panels.items()):
        _draw_panel(axis, title, ours, paper)
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise InvalidSettingError(
            'chart', str(path), 'a file that ends in .png, .svg or .pdf') from error


def _draw_panel(axis: Axes, title: str, ours: Bars, paper: Bars) -> None:
    groups = list(dict.fromkeys(subset for figures in ours.values() for subset in figures))
    largest = max(figure for figures in ours.values() for figure in figures.values())
    width = 0.8 / len(ours)
    marked = False
    for i, (name, figures) in enumerate(ours.items()):
        places = [groups.index(s) - 0.4 + (i + 0.5) * width for s in figures]
        axis.bar(places, list(figures.values()), 0.9 * width, label=name,
                 color=_COLOURS[i % len(_COLOURS)])
        marks = paper.get(name, {})
        for place, (subset, figure) in zip(places, figures.items()):
            if subset in marks:
                axis.plot([place - 0.45 * width, place + 0.45 * width], [marks[subset]] * 2,
                          color='k', linewidth=1.4, label=None if marked else 'paper')
                marked = True
            _write(axis, place, figure, marks.get(subset, 0), inside=figure > 0.1 * largest)
    axis.set_xticks(range(len(groups)), groups, fontsize=8 if len(groups) > 8 else None)
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.set_title(title, loc='left', fontsize=10)
    axis.spines[['top', 'right']].set_visible(False)
    axis.margins(y=0.12)
    axis.legend(frameon=False, fontsize=8)


def _write(axis: Axes, place: float, figure: float, mark: float, *, inside: bool) -> None:
    """Write a figure into the top of its bar, or above bar and mark where it has no room."""
    axis.annotate(
        _short(figure), (place, figure if inside else max(figure, mark)), (0, -4 if inside else 2),
        textcoords='offset points', ha='center', va='top' if inside else 'bottom', fontsize=7,
        color='w' if inside else 'k')


def _short(figure: float) -> str:
    return f'{figure:.0f}' if figure >= 100 else f'{figure:.2g}'
