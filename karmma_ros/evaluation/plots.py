"""
Charts of scores: robustness, accuracy by subset, calibration, confusion, costs.

Everything that is drawn comes as a fraction from 0 to 1 and is shown in percent. `plot_*` write
a file; `draw_*` draw on given axes, which the reports on bags use as well. The colours are those
of Okabe and Ito, which the colour-blind can distinguish; markers and dashes differ as well.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
import textwrap
from typing import Any
import warnings

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import Reliability
from karmma_ros.evaluation.robustness import POINTS
from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
import numpy as np
from numpy.typing import NDArray

PALETTE = ('#0072b2', '#e69f00', '#009e73', '#cc79a7', '#56b4e9', '#d55e00', '#4d4d4d')
INK, SOFT, RULE, TILE, ON_COLOUR = '#1d2327', '#58646c', '#dde1e3', '#f1f4f3', '#fffffe'
"""Text, axes, grid, background of cells, text on a colour."""
GREY, WRONG = '#7a7a7a', PALETTE[5]
_MARKERS = 'osD^vPX'
_DASHES = ((0, (4, 2)), (0, (1, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1, 1, 1, 1, 1)))
STYLE: dict[Any, Any] = {
    'font.family': 'DejaVu Sans', 'font.size': 9, 'text.color': INK, 'text.parse_math': False,
    'axes.labelcolor': SOFT, 'axes.edgecolor': SOFT, 'axes.titlesize': 10.5,
    'axes.spines.top': False, 'axes.spines.right': False, 'axes.axisbelow': True,
    'xtick.color': SOFT, 'ytick.color': SOFT, 'grid.color': RULE, 'grid.linewidth': 0.8,
    'legend.frameon': False, 'legend.fontsize': 8, 'legend.labelcolor': INK,
    'svg.fonttype': 'none', 'svg.hashsalt': 'karmma_ros'}
"""Settings of matplotlib for every chart; an SVG file of the same values has the same bytes."""

Curves = Mapping[str, Sequence[Sequence[float]]]
"""System → one curve for each of its seeds."""
Columns = Mapping[str, Sequence[Mapping[str, float]]]
"""System → for each of its seeds, subset → accuracy."""


@rc_context(STYLE)
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
    :raises InvalidSettingError: when the file's suffix names no image format.
    """
    figure = Figure(figsize=(6.4, 4.2), layout='constrained')
    axes = figure.subplots()
    draw_dropout_curve(axes, curves, points)
    for i, (name, reference) in enumerate((references or {}).items()):
        axes.plot(100 * np.asarray(points), 100 * np.asarray(reference), color=GREY,
                  linewidth=1.3, linestyle=_DASHES[i % len(_DASHES)], label=name)
    _frame(axes, f'{what.capitalize()} accuracy when sensors drop out', where,
           f'top-1 {what} accuracy, %')
    axes.legend()
    _save(figure, path)


def draw_dropout_curve(axes: Axes, curves: Curves, points: Sequence[float]) -> None:
    """Draw a line for each system, and a band where it has several seeds."""
    percent = 100 * np.asarray(points)
    for i, (system, seeds) in enumerate(curves.items()):
        values = 100 * np.asarray(seeds, float)  # [seeds, points]
        colour = PALETTE[i % len(PALETTE)]
        axes.plot(percent, values.mean(0), color=colour, marker=_MARKERS[i % len(_MARKERS)],
                  markersize=5, linewidth=1.8, label=_seeded(system, len(values)))
        if len(values) > 1:
            axes.fill_between(percent, values.min(0), values.max(0), color=colour, alpha=0.2,
                              linewidth=0)
    axes.set_xlabel('probability of each sensor to be missing, %')
    axes.set_xticks(percent)


@rc_context(STYLE)
def plot_subsets(
    path: Path | str, columns: Columns, *, what: str = 'action', where: str = ''
) -> None:
    """
    Draw accuracy for each subset of the sensors as grouped bars (the paper's Fig. 5).

    Of several seeds the mean is a bar, and a line reaches from the worst to the best. A system
    has no bar for a subset that it lacks.

    :raises InvalidSettingError: when the file's suffix names no image format.
    """
    groups = list(dict.fromkeys(s for seeds in columns.values() for c in seeds for s in c))
    width = 0.84 / max(len(columns), 1)
    # Space for the longest name under a group, and for a figure above each of a few bars.
    inches = min(14.0, max(6.4, 1.0 + len(groups) * max(0.68, 0.15 + 0.22 * len(columns))))
    figure = Figure(figsize=(inches, 4.0), layout='constrained')
    axes = figure.subplots()
    for i, (system, seeds) in enumerate(columns.items()):
        own = [s for s in groups if all(s in column for column in seeds)]
        values = 100 * np.array([[column[s] for s in own] for column in seeds])
        centres = np.array([groups.index(s) for s in own]) - 0.42 + (i + 0.5) * width
        mean = values.mean(0)
        axes.bar(centres, mean, 0.92 * width, color=PALETTE[i % len(PALETTE)],
                 label=_seeded(system, len(seeds)))
        if len(seeds) > 1:
            # The mean of equal values is not exactly their minimum.
            spread = np.maximum([mean - values.min(0), values.max(0) - mean], 0)
            axes.errorbar(
                centres, mean, spread, fmt='none', ecolor=INK, elinewidth=1, capsize=2)
        for centre, top, value in zip(centres, values.max(0), mean):
            if width * inches / (len(groups) + 1) < 0.17:
                break
            axes.annotate(f'{value:.0f}', (centre, top), (0, 2), textcoords='offset points',
                          ha='center', va='bottom', fontsize=7)
    axes.set_xticks(range(len(groups)), groups, fontsize=8)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_xlabel('sensors that are there')
    _frame(axes, f'{what.capitalize()} accuracy by sensors', where, f'top-1 {what} accuracy, %')
    axes.set_ylim(0, (1.1 if len(columns) == 1 else 1.2) * max(axes.dataLim.y1, 1.0))
    if len(columns) > 1:
        axes.legend(ncols=min(len(columns), 4))
    _save(figure, path)


@rc_context(STYLE)
def plot_corruptions(
    path: Path | str, systems: Mapping[str, Mapping[str, tuple[float, float]]], *,
    what: str = 'action', where: str = '',
) -> None:
    """
    Draw the mean accuracy while a sensor is corrupted, relative to that as recorded.

    A full bar is with content checks, as the node predicts; the part below the line, without.

    :param systems: system → sensor → the mean without and with content checks.
    :raises InvalidSettingError: when the file's suffix names no image format.
    """
    groups = list(dict.fromkeys(sensor for means in systems.values() for sensor in means))
    width = 0.84 / max(len(systems), 1)
    inches = min(14.0, max(6.4, 1.0 + len(groups) * (0.9 + 0.3 * len(systems))))
    figure = Figure(figsize=(inches, 4.0), layout='constrained')
    axes = figure.subplots()
    for i, (system, means) in enumerate(systems.items()):
        own = [sensor for sensor in groups if sensor in means]
        plain, checked = 100 * np.array([means[sensor] for sensor in own]).T
        centres = np.array([groups.index(s) for s in own]) - 0.42 + (i + 0.5) * width
        colour = PALETTE[i % len(PALETTE)]
        axes.bar(centres, checked, 0.92 * width, color=colour, alpha=0.35,
                 label=f'{system}, with content checks')
        axes.bar(centres, plain, 0.92 * width, color=colour, label=f'{system}, without')
        for centre, low, high in zip(centres, plain, checked):
            axes.annotate(f'{high:.0f}', (centre, max(low, high)), (0, 2), ha='center',
                          textcoords='offset points', va='bottom', fontsize=7)
            axes.annotate(f'{low:.0f}', (centre, low), (0, -3), ha='center',
                          textcoords='offset points', va='top', fontsize=7, color=ON_COLOUR)
    axes.axhline(100, color=INK, linewidth=1, linestyle=_DASHES[0])
    axes.set_xticks(range(len(groups)), groups)
    axes.set_xlim(-0.6, len(groups) - 0.4)
    axes.set_xlabel('corrupted sensor')
    _frame(axes, f'{what.capitalize()} accuracy with a corrupted sensor', where,
           '% of the accuracy as recorded')
    axes.set_ylim(0, 1.3 * max(axes.dataLim.y1, 100.0))
    axes.legend(ncols=2)
    _save(figure, path)


@rc_context(STYLE)
def plot_reliability(
    path: Path | str, panels: Mapping[str, Reliability], *, title: str = '', where: str = ''
) -> None:
    """
    Draw a reliability diagram for each entry; the error is the expected calibration error.

    :raises InvalidSettingError: when the file's suffix names no image format, or there is no
        panel.
    """
    if not panels:
        raise InvalidSettingError('panels', 0, 'at least one')
    figure = Figure(figsize=(max(2.6 * len(panels) + 0.5, 3.6), 4.4), layout='constrained')
    axes = figure.subplots(2, len(panels), squeeze=False, sharex=True, sharey='row',
                           height_ratios=(3, 1))
    for (top, bottom), (name, bins) in zip(axes.T, panels.items()):
        draw_reliability(top, bottom, bins)
        top.set_title(f'{name}: error {100 * bins.error:.1f} %', loc='left', fontsize=9.5)
    axes[0, 0].set_ylabel('correct, %')
    axes[1, 0].set_ylabel('of clips, %')
    figure.suptitle(_headed(title or 'Confidence and accuracy', where, figure),
                    fontsize=10.5, x=0.01, ha='left')
    _save(figure, path)


def draw_reliability(top: Axes, bottom: Axes, bins: Reliability) -> None:
    """
    Draw accuracy over confidence, and below how often each confidence occurs.

    Bars on the dashed diagonal are well calibrated; below it, the network is overconfident.
    """
    edges = np.linspace(0, 100, len(bins.count) + 1)
    width = 0.94 * edges[1]
    top.bar(edges[:-1], 100 * np.nan_to_num(bins.accuracy), width, align='edge',
            color=PALETTE[0])
    top.plot([0, 100], [0, 100], color=INK, linewidth=1, linestyle=_DASHES[0])
    top.set(xlim=(0, 100), ylim=(0, 100))
    fractions = 100 * bins.count / max(bins.count.sum(), 1)
    bottom.bar(edges[:-1], fractions, width, align='edge', color=GREY)
    bottom.set_xlabel('confidence, %')
    bottom.set_xticks(range(0, 101, 25))


def draw_confusion(axes: Axes, counts: NDArray[np.int64], names: Sequence[str]) -> None:
    """
    Draw which class is predicted for which: percent of each true class, correct ones blue.

    :param counts: `[c, c]`, the true class in rows.
    """
    percent = 100 * counts / np.maximum(counts.sum(1, keepdims=True), 1)
    axes.set_facecolor(TILE)
    for row, column in np.argwhere(percent >= 0.5):
        axes.add_patch(Rectangle(
            (column - 0.48, row - 0.48), 0.96, 0.96, linewidth=0,
            facecolor=PALETTE[0] if row == column else WRONG, alpha=percent[row, column] / 100))
        axes.text(column, row, f'{percent[row, column]:.0f}', ha='center', va='center',
                  fontsize=7, color=ON_COLOUR if percent[row, column] > 55 else INK)
    limits = -0.5, len(names) - 0.5
    axes.set(xlim=limits, ylim=limits[::-1], aspect='equal', xlabel='predicted class',
             ylabel='true class')
    axes.set_xticks(range(len(names)), names, rotation=90, fontsize=8)
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)


@rc_context(STYLE)
def plot_confusion(
    path: Path | str, counts: NDArray[np.int64], names: Sequence[str], *, title: str = '',
    where: str = '',
) -> None:
    """
    Draw a confusion matrix.

    :param counts: `[c, c]`, the true class in rows.
    :raises InvalidSettingError: when the file's suffix names no image format.
    """
    inches = min(14.0, 2.4 + 0.34 * len(names))
    figure = Figure(figsize=(inches, inches), layout='constrained')
    axes = figure.subplots()
    draw_confusion(axes, counts, names)
    axes.set_title(_headed(title, where, figure), loc='left')
    _save(figure, path)


@rc_context(STYLE)
def plot_class_balance(
    path: Path | str, panels: Mapping[str, Mapping[str, Mapping[str, int]]], *, where: str = '',
) -> None:
    """
    Draw how many segments each class has, stacked by split.

    :param panels: head → class → split → segments.
    :raises InvalidSettingError: when the file's suffix names no image format.
    """
    lines = sum(map(len, panels.values()))
    figure = Figure(figsize=(6.4, min(40.0, 1.2 + 0.9 * len(panels) + 0.22 * lines)),
                    layout='constrained')
    heights = [2 + len(classes) for classes in panels.values()]
    axes = figure.subplots(len(panels), squeeze=False, height_ratios=heights)[:, 0]
    for axis, (head, classes) in zip(axes, panels.items()):
        splits = list(dict.fromkeys(s for counts in classes.values() for s in counts))
        start = np.zeros(len(classes))
        for i, split in enumerate(splits):
            counts = np.array([each.get(split, 0) for each in classes.values()])
            axis.barh(list(classes), counts, left=start, color=PALETTE[i % len(PALETTE)],
                      label=split)
            start = start + counts
        axis.invert_yaxis()
        axis.set_title(_headed(f'Segments of each {head}', where, figure), loc='left')
        axis.grid(axis='x')
        axis.legend()
    _save(figure, path)


def _frame(axes: Axes, title: str, where: str, label: str) -> None:
    figure = axes.figure
    assert isinstance(figure, Figure)
    axes.set_title(_headed(title, where, figure), loc='left')
    axes.set_ylabel(label)
    axes.set_ylim(bottom=0)
    axes.grid(axis='y')


def _headed(title: str, where: str, figure: Figure) -> str:
    """Put `where` on a line of its own; lines break where the figure ends."""
    letters = int(10.5 * figure.get_figwidth())
    return '\n'.join(textwrap.fill(line, letters) for line in (title, where) if line)


def _seeded(system: str, seeds: int) -> str:
    return f'{system} ({seeds} seeds)' if seeds > 1 else system


def _save(figure: Figure, path: Path | str) -> None:
    metadata = {'Date': None} if str(path).endswith('.svg') else None
    try:
        with warnings.catch_warnings():  # a name in letters that no font has: boxes stand for them
            warnings.filterwarnings('ignore', r'Glyph \d+ .* missing from', UserWarning)
            figure.savefig(path, dpi=150, metadata=metadata)
    except ValueError as error:
        raise InvalidSettingError(
            'chart', str(path), 'a file that ends in .png, .svg or .pdf') from error


Bars = Mapping[str, Mapping[str, float]]
"""Name of a network → subset → figure."""


@rc_context(STYLE)
def plot_costs(path: Path, panels: Mapping[str, tuple[Bars, Bars]]) -> None:
    """
    Draw one panel of bars for each quantity; the paper's figures are marks across the bars.

    :param panels: title → ours, and the paper's where it has any.
    :raises InvalidSettingError: when the file's suffix names no image format.
    """
    groups = max((len(f) for ours, _ in panels.values() for f in ours.values()), default=1)
    figure = Figure(figsize=(max(9, 0.95 * groups), 3.2 * len(panels)), layout='constrained')
    axes = figure.subplots(len(panels), squeeze=False)[:, 0]
    for axis, (title, (ours, paper)) in zip(axes, panels.items()):
        _draw_panel(axis, title, ours, paper)
    _save(figure, path)


def _draw_panel(axis: Axes, title: str, ours: Bars, paper: Bars) -> None:
    groups = list(dict.fromkeys(subset for figures in ours.values() for subset in figures))
    largest = max(figure for figures in ours.values() for figure in figures.values())
    width = 0.8 / len(ours)
    marked = False
    for i, (name, figures) in enumerate(ours.items()):
        centres = [groups.index(s) - 0.4 + (i + 0.5) * width for s in figures]
        axis.bar(centres, list(figures.values()), 0.9 * width, label=name,
                 color=PALETTE[i % len(PALETTE)])
        marks = paper.get(name, {})
        for centre, (subset, figure) in zip(centres, figures.items()):
            if subset in marks:
                axis.plot([centre - 0.45 * width, centre + 0.45 * width], [marks[subset]] * 2,
                          color=INK, linewidth=1.4, label=None if marked else 'paper')
                marked = True
            _write(axis, centre, figure, marks.get(subset, 0), inside=figure > 0.1 * largest)
    axis.set_xticks(range(len(groups)), groups, fontsize=8 if len(groups) > 8 else None)
    axis.set_xlim(-0.6, len(groups) - 0.4)
    axis.set_title(title, loc='left', fontsize=10)
    axis.margins(y=0.12)
    axis.legend()


def _write(axis: Axes, centre: float, figure: float, mark: float, *, inside: bool) -> None:
    """Write a figure into the top of its bar, or above bar and mark where it does not fit."""
    axis.annotate(
        _short(figure), (centre, figure if inside else max(figure, mark)),
        (0, -4 if inside else 2), textcoords='offset points', ha='center',
        va='top' if inside else 'bottom', fontsize=7, color=ON_COLOUR if inside else INK)


def _short(figure: float) -> str:
    return f'{figure:.0f}' if figure >= 100 else f'{figure:.2g}'
