"""The overlay page agrees with the overlay."""

from __future__ import annotations

import importlib.util
from pathlib import Path
import re

import cv2
from karmma_ros.node.declarations import OVERLAY_DECLARATIONS
from karmma_ros.node.demo import MUTES
from karmma_ros.overlay.drawing import Indicator
import numpy as np

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / 'docs' / 'overlay.md').read_text(encoding='utf-8')


def table(heading):
    """Return the cells of the table whose first column is called `heading`."""
    part = PAGE.split(f'| {heading} |')[1].split('\n\n')[0]
    return [[cell.strip() for cell in line.strip('|').split('|')]
            for line in part.splitlines()[2:]]


def test_every_parameter_is_listed_with_its_default():
    rows = {name.strip('`'): default.strip('`') for name, default, _ in table('parameter')}
    assert rows == {d.name: repr(d.default) if d.default in ('',) else str(d.default)
                    for d in OVERLAY_DECLARATIONS}


def test_every_indicator_is_explained():
    assert len(table('indicator')) == len(Indicator)


def test_the_files_it_names_exist():
    names = re.findall(r'\b(?:config|docs|images)/[\w./]+\.\w+', PAGE)
    assert len(names) >= 4
    for name in names:
        assert (ROOT / name).is_file() or (ROOT / 'docs' / name).is_file(), name


def test_the_captured_times_are_those_of_the_page():
    spec = importlib.util.spec_from_file_location('draw_overlay', ROOT / 'docs/draw_overlay.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    muted = [{what for what, start, stop in MUTES if start <= time_s < stop}
           for time_s in module.TIMES_S]
    assert muted == [set(), {'audio'}, {'camera'}, {'audio', 'detections'}]
    sheet = module.contact_sheet([np.zeros((48, 64, 3), np.uint8)] * len(module.TIMES_S))
    assert sheet.shape[1] == module.WIDTH and (sheet == 255).any()


def test_the_image_is_no_larger_than_a_page_needs():
    path = ROOT / 'docs' / 'images' / 'overlay.png'
    assert cv2.imread(str(path)).shape[1] <= 1200
    assert path.stat().st_size < 1_000_000
