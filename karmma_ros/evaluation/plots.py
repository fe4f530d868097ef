"""
Pictures of scores: robustness, accuracy by subset, calibration, confusion.

Everything that is drawn comes as a share from 0 to 1 and is shown in percent. The colours are
those of Okabe and Ito, which the colour-blind tell apart; markers and dashes differ as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import textwrap

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import Reliability
from karmma_ros.evaluation.robustness import POINTS
from matplotlib.axes import Axes
from matplotlib.figure import Figure
import numpy as np
from numpy.typing import NDArray

PALETTE = ('#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#4d4d4d')
_MARKERS = 'osD^vPX'
_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
_GREY = '#7a7a7a'

Curves = Mapping[str, Sequence[Sequence[float]]]
"""System → one curve for each of its seeds."""
Columns = Mapping[str, Sequence[Mapping[str, float]]]
"""System → for each of its seeds, subset → accuracy."""


def plot_dropout_curve(
    path: Path | str, curves: Curves, *, points: Sequence[float] = POINTS,
    references: Mapping[str, Sequence[float]] | None = None, what: str = 'action',
    where: str = '',
) -> None:
    """
    Draw accuracy over the probability of dropping each sensor (the paper's Fig. 4).

    Of several seeds the mean is a line, and a band reaches from the worst to the best.

    :param references: published curves, drawn dashed.
    :param what: the score that is drawn; `where`: the data set, both for the title.
    :raises InvalidSettingError: when the file's suffix names no kind of picture.
    """
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axes = figure.subplots()
    percent = 100 * np.asarray(points)
    for i, (system, seeds) in enumerate(curves.items()):
        values = 100 * np.asarray(seeds, float)  # [seeds, points]
        colour = PALETTE[i % len(PALETTE)]
        axes.plot(percent, values.mean(0), color=colour, marker=_MARKERS[i % len(_MARKERS)],
                  markersize=5, linewidth=1.8, label=_seeded(system, len(values)))
        if len(values) > 1:
            axes.fill_between(percent, values.min(0), values.max(0), color=colour, alpha=0.2,
                              linewidth=0)
    for i, (name, reference) in enumerate((references or {}).items()):
        axes.plot(percent, 100 * np.asarray(reference), color=_GREY, linewidth=1.3,
                  linestyle=_DASHES[i % len(_DASHES)], label=name)
    axes.set_xlabel('probability of each sensor to be missing, %')
    axes.set_xticks(percent)
    _frame(axes, f'{what.capitalize()} accuracy when sensors drop out', where,
           f'top-1 {what} accuracy, %')
    axes.legend(frameon=False, fontsize=8)
    _save(figure, path)


def plot_subsets(
    path: Path | str, columns: Columns, *, what: str = 'action', where: str = ''
) -> None:
    """
    Draw accuracy for each subset of the sensors as grouped bars (the paper's Fig. 5).

    Of several seeds the mean is a bar, and a line reaches from the worst to the best. A system
    has no bar for a subset that it lacks.

    :raises InvalidSettingError: when the file's suffix names no kind of picture.
    """
    groups = list(dict.fromkeys(s for seeds in columns.values() for c in seeds for s in c))
    width = 0.84 / max(len(columns), 1)
    # Room for the longest name under a group, and for a figure above each of a few bars.
    inches = min(14.0, max(6.4, 1.0 + len(groups) * max(0.68, 0.15 + 0.22 * len(columns))))
    figure = Figure(figsize=(inches, 4.0), layout='constrained')
    axes = figure.subplots()
    for i, (system, seeds) in enumerate(columns.items()):
        own = [s for s in groups if all(s in column for column in seeds)]
        values = 100 * np.array([[column[s] for s in own] for column in seeds])
        places = np.array([groups.index(s) for s in own]) - 0.42 + (i + 0.5) * width
        mean = values.mean(0)
        axes.bar(places, mean, 0.92 * width, color=PALETTE[i % len(PALETTE)],
                 label=_seeded(system, len(seeds)))
        if len(seeds) > 1:
            axes.errorbar(places, mean, [mean - values.min(0), values.max(0) - mean],
                          fmt='none', ecolor='k', elinewidth=1, capsize=2)
        for place, top, value in zip(places, values.max(0), mean):
            if width * inches / (len(groups) + 1) < 0.17:
                break
            axes.annotate(f'{value:.0f}', (place, top), (0, 2), textcoords='offset points',
                          ha='center', va='bottom', fontsize=7)
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_xlabel('sensors that are there')
    _frame(axes, f'{what.capitalize()} accuracy by sensors', where, f'top-1 {what} accuracy, %')
    axes.set_ylim(0, (1.1 if len(columns) == 1 else 1.2) * max(axes.dataLim.y1, 1.0))
    if len(columns) > 1:
        axes.legend(frameon=False, fontsize=8, ncols=min(len(columns), 4))
    _save(figure, path)


def plot_reliability(
    path: Path | str, panels: Mapping[str, Reliability], *, title: str = '', where: str = ''
) -> None:
    """
    Draw accuracy over confidence, a panel for each entry, and below how often each occurs.

    The error is the expected calibration error. Bars on the dashed diagonal are well
    calibrated; below it, the network is too sure.

    :raises InvalidSettingError: when the file's suffix names no kind of picture, or there is no
        panel.
    """
    if not panels:
        raise InvalidSettingError('panels', 0, 'at least one')
    figure = Figure(figsize=(max(2.6 * len(panels) + 0.5, 3.6), 4.4), layout='constrained')
    axes = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey='row',
                           height_ratios=(3, 1))
    for i, (name, found) in enumerate(panels.items()):
        edges = np.linspace(0, 100, len(found.count) + 1)
        wide = edges[1]
        top, bottom = axes[:, i]
        top.bar(edges[:-1], 100 * np.nan_to_num(found.accuracy), 0.94 * wide, align='edge',
                color=PALETTE[0])
        top.plot([0, 100], [0, 100], color='k', linewidth=1, linestyle=_DASHES[0])
        top.set(xlim=(0, 100), ylim=(0, 100))
        share = 100 * found.count / max(found.count.sum(), 1)
        bottom.bar(edges[:-1], share, 0.94 * wide, align='edge', color=_GREY)
        bottom.set_xlabel('confidence, %')
        bottom.set_xticks(range(0, 101, 25))
        top.set_title(f'{name}: error {100 * found.error:.1f} %', loc='left', fontsize=9.5)
        for axis in (top, bottom):
            axis.spines[['top', 'right']].set_visible(False)
    axes[0, 0].set_ylabel('right, %')
    axes[1, 0].set_ylabel('of clips, %')
    figure.suptitle(_headed(title or 'Confidence and accuracy', where, figure),
                    fontsize=10.5, x=0.01, ha='left')
    _save(figure, path)


def plot_confusion(
    path: Path | str, counts: NDArray[np.int64], names: Sequence[str], *, what: str,
    where: str = '',
) -> None:
    """
    Draw which class is taken for which: shares of each true class.

    :param counts: `[c, c]`, the true class in rows.
    :param names: of the classes; told at the axes where there is room for them.
    :raises InvalidSettingError: when the file's suffix names no kind of picture.
    """
    shares = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    side = min(10.0, 3.0 + 0.33 * len(names))
    figure = Figure(figsize=(side + 0.6, side), layout='constrained')
    axes = figure.subplots()
    image = axes.imshow(shares, cmap='Blues', vmin=0, vmax=100)
    if len(names) <= 30:
        axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
        axes.set_yticks(range(len(names)), names, fontsize=8)
    if len(names) <= 12:
        for row, column in np.argwhere(shares >= 0.5):
            axes.text(column, row, f'{shares[row, column]:.0f}', ha='center', va='center',
                      fontsize=7, color='w' if shares[row, column] > 55 else 'k')
    axes.set_xlabel(f'{what} recognised')
    axes.set_ylabel(f'true {what}')
    figure.colorbar(image, shrink=0.7, label='of the true class, %')
    axes.set_title(_headed(f'Confusion of {what}s', where, figure), loc='left',
                   fontsize=10.5)
    _save(figure, path)


def _frame(axes: Axes, title: str, where: str, label: str) -> None:
    figure = axes.figure
    assert isinstance(figure, Figure)
    axes.set_title(_headed(title, where, figure), loc='left', fontsize=10.5)
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(axis='y', color='#dddddd', linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[['top', 'right']].set_visible(False)


def _headed(title: str, where: str, figure: Figure) -> str:
    """Put the place on a line of its own; lines break where the picture ends."""
    letters = int(10.5 * figure.get_figwidth())
    return '\n'.join(textwrap.fill(line, letters) for line in (title, where) if line)


def _seeded(system: str, seeds: int) -> str:
    return f'{system} ({seeds} seeds)' if seeds > 1 else system


def _save(figure: Figure, path: Path | str) -> None:
    try:
        figure.savefig(path, dpi=150)
    except ValueError as error:
        raise InvalidSettingError(
            'picture', str(path), 'a file that ends in .png, .svg or .pdf') from error


_COLOURS = ('#3b6ea5', '#e08a2e', '#5a9a5a', '#a05a8a', '#8a8a8a')
Bars = Mapping[str, Mapping[str, float]]
"""Name of a network → subset → figure."""


def plot_costs(path: Path, panels: Mapping[str, tuple[Bars, Bars]]) -> None:
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
