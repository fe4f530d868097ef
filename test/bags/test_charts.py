"""The charts of a report: their values, their colours, and what text from outside becomes."""

import re
import subprocess
import sys
from xml.etree import ElementTree

from karmma_ros.bags.report import charts
import pytest

BINS = {'count': [3, 0, 5], 'confidence': [0.2, None, 0.9], 'accuracy': [0.5, None, 0.8]}
CURVE = {'probability': [0.0, 0.5, 0.9], 'action': [0.9, 0.6, 0.2], 'verb': [0.95, 0.7, 0.3]}
TIMES = {'edges': [0.0, 0.01, 0.02], 'counts': [3, 5]}
NAMES = ['<b>$x$', 'ساختن', 'a\u202eb #0072b2 style="fill: #0072b2"']


def drawn():
    return [charts.reliability(BINS, 'calibration'),
            charts.dropout_curve(CURVE, ['action', 'verb'], [(0.4, 0.7)], 'robustness'),
            charts.histogram(TIMES, {'p50': 0.012, 'p95': None}, 'age', 'age, ms'),
            charts.confusion(NAMES, [[3, 1, 0], [0, 4, 0], [0, 0, 2]], 'confusion')]


def test_equal_values_give_equal_charts():
    assert drawn() == drawn()


@pytest.mark.parametrize('number', range(4))
def test_a_chart_has_the_colours_of_the_page_and_needs_nothing_else(number):
    chart = drawn()[number]
    root = ElementTree.fromstring(chart)
    assert root.get('role') == 'img' and root.get('aria-label') == root.findtext('title')
    styles = ' '.join(element.get('style', '') for element in root.iter())
    assert 'var(--right)' in styles and not re.search('#[0-9a-f]{6}', styles)
    assert not re.search(r'url\(|http|<style|<image', chart)


def test_a_chart_shows_its_values():
    texts = [''.join(ElementTree.fromstring(chart).itertext()) for chart in drawn()]
    assert 'correct, %' in texts[0] and 'measured on the bags' in texts[1]
    assert 'p50' in texts[2] and 'p95' not in texts[2] and '7525100100' in texts[3]
    assert 'Nothing to show' in charts.histogram({'edges': [], 'counts': []}, {}, 'age', 'age')


def test_names_are_text_on_one_line():
    texts = [e.text for e in ElementTree.fromstring(drawn()[3]).iter('text')]
    assert {'<b>$x$', 'ساختن'} <= set(texts)
    assert any(text.startswith('a\\u202eb #0072b2') for text in texts)


def test_matplotlib_is_imported_only_to_draw():
    script = ('import sys\nfrom karmma_ros.bags import compare, report\n'
              'assert "matplotlib" not in sys.modules')
    subprocess.run([sys.executable, '-c', script], check=True)
