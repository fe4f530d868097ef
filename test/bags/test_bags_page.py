"""The page on bags: its figures, and the script and the benchmark that make its contents."""

from __future__ import annotations

import importlib.util
from pathlib import Path
import re

import cv2
from karmma_ros.cli.bag import write
import numpy as np
import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'bags.md').read_text(encoding='utf-8')


def module_of(path):
    spec = importlib.util.spec_from_file_location(path.stem, path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope='module')
def drawing():
    return module_of(ROOT / 'docs' / 'draw_bag_report.py')


def test_the_figures_are_those_of_the_script(drawing):
    named = sorted(set(re.findall(r'images/(\w+)\.png', PAGE)))
    assert named == ['bag_report', 'bag_report_phone']
    sizes = drawing.DESKTOP, [drawing.PHONE_SCALE * side for side in drawing.PHONE]
    for name, (width, height) in zip(named, sizes):
        path = ROOT / 'docs' / 'images' / f'{name}.png'
        assert cv2.imread(str(path)).shape[:2] == (height, width)
        assert path.stat().st_size < 500_000


def test_a_sensor_has_no_message_in_its_silence(drawing):
    def at(second):
        return write.image(
            write.START_NS + round(second * 1e9), np.zeros((2, 2, 3), np.uint8))
    left = drawing.without(iter(map(at, range(10))), ((2, 4), (7.5, 8.5)))
    assert [(event[0] - write.START_NS) / 1e9 for event in left] == [0, 1, 4, 5, 6, 7, 9]


def test_every_silence_lies_within_the_bags(drawing):
    length = drawing.ACTIONS * drawing.SHOWN.seconds
    spans = [span for bag in drawing.SILENT for sensor in bag for span in sensor]
    assert len(spans) > 6 and all(0 < start < stop < length for start, stop in spans)


def test_the_copy_that_is_shown_may_run_the_script_that_goes_to_an_error(drawing, tmp_path):
    page = tmp_path / 'report.html'
    page.write_text('<head><meta http-equiv="Content-Security-Policy" content="none">\n</head>'
                    '<body><canvas></canvas></body>')
    shown = drawing.at_error(page, '#timeline').read_text()
    assert 'Security' not in shown and "key: 'n'" in shown and "'#timeline'" in shown
    assert shown.endswith('</script></body>')


def test_what_was_measured_is_put_between_the_marks_of_the_page(tmp_path):
    bench = module_of(ROOT / 'benchmarks' / 'bags.py')
    copy = tmp_path / 'bags.md'
    copy.write_text(PAGE, encoding='utf-8')
    for _ in range(2):
        bench.put(copy, '| so fast |')
    before, after = PAGE.split(bench.BEGIN)[0], PAGE.split(bench.END)[1]
    assert copy.read_text(encoding='utf-8') == (
        f'{before}{bench.BEGIN}\n| so fast |\n{bench.END}{after}')
    copy.write_text('no marks')
    with pytest.raises(SystemExit, match='has no text between'):
        bench.put(copy, 'x')
