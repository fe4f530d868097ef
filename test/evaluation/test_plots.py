"""Plots show the values they are given, and are files of their format."""

import subprocess
import sys

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation import plots
from karmma_ros.evaluation.classification import binned
from matplotlib.figure import Figure
import numpy as np
import pytest

CURVES = {'ours': [[0.6, 0.4, 0.3], [0.8, 0.6, 0.3]], 'theirs': [[0.5, 0.2, 0.1]]}
POINTS = (0.0, 0.5, 0.9)
COLUMNS = {'ours': [{'V+A': 0.9, 'V': 0.5, 'A': 0.2}, {'V+A': 0.7, 'V': 0.5, 'A': 0.4}],
           'theirs': [{'V+A': 0.4, 'V': 0.3}]}
RELIABILITY = binned(np.array([0.05, 0.95, 0.96]), np.array([False, True, False]), 10)


@pytest.fixture
def figure(monkeypatch):
    """Catch the figure that is drawn instead of writing it."""
    drawn = []
    monkeypatch.setattr(plots, '_save', lambda figure, path: drawn.append(figure))
    return drawn


def draw_all(folder, suffix):
    plots.plot_dropout_curve(folder / f'a.{suffix}', CURVES, points=POINTS, where='a kitchen')
    plots.plot_subsets(folder / f'b.{suffix}', COLUMNS)
    plots.plot_reliability(folder / f'c.{suffix}', {'V': RELIABILITY})


@pytest.mark.parametrize(('suffix', 'start'), [('png', b'\x89PNG'), ('svg', b'<?xml')])
def test_files_are_of_their_format(tmp_path, suffix, start):
    draw_all(tmp_path, suffix)
    files = sorted(tmp_path.iterdir())
    assert len(files) == 3
    assert all(f.read_bytes().startswith(start) and f.stat().st_size > 5000 for f in files)


def test_a_suffix_that_is_no_image_format_is_refused(tmp_path):
    with pytest.raises(InvalidSettingError, match='a file that ends in .png'):
        plots.plot_subsets(tmp_path / 'picture.tune', COLUMNS)


def test_a_curve_is_the_mean_of_its_seeds_within_their_band(figure):
    plots.plot_dropout_curve('x.png', CURVES, points=POINTS, references={'paper': [0.9, 0.8, 0.7]},
                        where='a kitchen')
    axes = figure[0].axes[0]
    ours, theirs, paper = axes.lines
    assert ours.get_xdata().tolist() == [0, 50, 90]
    assert ours.get_ydata().tolist() == pytest.approx([70, 50, 30])
    assert theirs.get_ydata().tolist() == pytest.approx([50, 20, 10])
    assert paper.get_ydata().tolist() == pytest.approx([90, 80, 70])
    assert paper.get_linestyle() != '-' and ours.get_linestyle() == '-'
    band = axes.collections[0].get_paths()[0].vertices
    assert {(50.0, 40.0), (50.0, 60.0)} <= {tuple(np.round(v, 6)) for v in band}
    assert len(axes.collections) == 1  # one seed has no band
    texts = [t.get_text() for t in axes.get_legend().get_texts()]
    assert texts == ['ours (2 seeds)', 'theirs', 'paper']
    assert axes.get_title(loc='left') == 'Action accuracy when sensors drop out\na kitchen'
    assert axes.get_ylim()[0] == 0


def test_bars_stand_by_their_subset(figure):
    plots.plot_subsets('x.png', COLUMNS)
    axes = figure[0].axes[0]
    assert [t.get_text() for t in axes.get_xticklabels()] == ['V+A', 'V', 'A']
    ours, theirs = (c for c in axes.containers if hasattr(c, 'patches'))
    assert [bar.get_height() for bar in ours] == pytest.approx([80, 50, 30])
    assert [bar.get_height() for bar in theirs] == pytest.approx([40, 30])  # it has no A
    centres = [round(bar.get_x() + bar.get_width() / 2) for bar in [*ours, *theirs]]
    assert centres == [0, 1, 2, 0, 1]
    assert ours.patches[0].get_facecolor() != theirs.patches[0].get_facecolor()
    for bar in [*ours, *theirs]:
        assert bar.get_height() < axes.get_ylim()[1]


def test_seeds_of_one_accuracy_are_drawn(figure):
    correct = next(n for n in range(325) if 100 * n / 324 > np.mean([100 * n / 324] * 3))
    plots.plot_subsets('x.png', {'ours': [{'V': correct / 324}] * 3})
    bars, = (c for c in figure[0].axes[0].containers if hasattr(c, 'patches'))
    assert bars[0].get_height() == pytest.approx(100 * correct / 324)


def test_fifteen_subsets_of_many_systems_still_fit(figure):
    names = [f'{i}' for i in range(15)]
    plots.plot_subsets('x.png', {f's{k}': [dict.fromkeys(names, 0.5)] for k in range(7)})
    assert figure[0].get_figwidth() <= 14
    assert not figure[0].axes[0].texts  # no room for figures above the bars


def test_reliability_shows_each_bin_and_the_error(figure):
    plots.plot_reliability('x.png', {'V': RELIABILITY, 'A': RELIABILITY}, title='Calibration')
    top, bottom = figure[0].axes[0], figure[0].axes[2]
    heights = [bar.get_height() for bar in top.patches]
    assert heights == pytest.approx([0] * 9 + [50])
    assert [bar.get_height() for bar in bottom.patches] == pytest.approx(
        [100 / 3, *[0] * 8, 200 / 3])
    assert top.get_title(loc='left') == f'V: error {100 * RELIABILITY.error:.1f} %'
    with pytest.raises(InvalidSettingError, match='panels is 0'):
        plots.plot_reliability('x.png', {})


def test_confusion_shows_percent_of_each_true_class():
    axes = Figure().subplots()
    plots.draw_confusion(axes, np.array([[3, 1], [0, 0]]), ['cut', 'stir'])
    cells = [(p.get_x() + 0.48, p.get_y() + 0.48, p.get_alpha()) for p in axes.patches]
    assert cells == [(0, 0, 0.75), (1, 0, 0.25)]
    assert axes.patches[0].get_facecolor()[:3] != axes.patches[1].get_facecolor()[:3]
    assert [t.get_text() for t in axes.texts] == ['75', '25']
    assert [t.get_text() for t in axes.get_yticklabels()] == ['cut', 'stir']


def test_equal_values_give_equal_svg_files(tmp_path):
    texts = []
    for folder in (tmp_path / 'a', tmp_path / 'b'):
        folder.mkdir()
        draw_all(folder, 'svg')
        texts.append([path.read_text() for path in sorted(folder.iterdir())])
    assert texts[0] == texts[1] and '<text' in texts[0][0] and 'dc:date' not in texts[0][0]


def test_no_global_state_is_touched(tmp_path):
    script = ('import sys, pathlib; from karmma_ros.evaluation.plots import plot_subsets\n'
              f'plot_subsets(pathlib.Path({str(tmp_path)!r}) / "x.png", {{"a": [{{"V": 1.0}}]}})\n'
              'print("matplotlib.pyplot" in sys.modules)')
    done = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == 'False'
    assert (tmp_path / 'x.png').is_file()


@pytest.mark.filterwarnings('error')
def test_names_in_letters_without_a_font_are_drawn_in_silence(tmp_path):
    plots.plot_subsets(tmp_path / 'x.png', {'水を注ぐ': [{'V': 1.0}]})
    assert (tmp_path / 'x.png').is_file()


def test_colours_are_distinct():
    assert len(set(plots.PALETTE)) == len(plots.PALETTE) >= 7
