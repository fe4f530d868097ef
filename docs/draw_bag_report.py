"""
Take screenshots of a bag report: `python docs/draw_bag_report.py [FOLDER]`.

Two bags of the synthetic kitchen, with sensors that stop, are written and evaluated by the
commands of docs/bags.md; Chromium or Chrome, which must be installed, renders the report at the
width of a desktop and of a phone. Without FOLDER the figures of docs/bags.md are replaced.
"""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator, Sequence
from pathlib import Path
import re
import shutil
import subprocess
import sys
import tempfile

import cv2
from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli.bag import write
from karmma_ros.cli.bag.write import kitchen
from karmma_ros.cli.main import main as karmma
from karmma_ros.clip import NANOSECONDS
from karmma_ros.data.synthetic_kitchen.episode import episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split

IMAGES = Path(__file__).parent / 'images'
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
ACTIONS = 40
SHOWN = Namespace(seconds=4.0, rate=30.0, size=(320, 240))
Spans = Sequence[tuple[float, float]]
SILENT: Sequence[tuple[Spans, Spans, Spans]] = (
    (((62, 74), (118, 133)), ((31, 43), (96, 108)), ((21, 35), (66, 80))),
    (((40, 52),), ((88, 104), (130, 138)), ((12, 24), (100, 110))))
"""For each bag, the seconds without images, audio and boxes."""
DESKTOP, PHONE = (1280, 1560), (375, 1500)
PHONE_SCALE = 2
_WINDOW = 1600, 2000
"""Chromium's window cannot be as narrow as a phone: the page stands in a frame of that size."""
_POLICY = re.compile(r'<meta http-equiv="Content-Security-Policy".*?>', re.DOTALL)
_ERROR = """<script>
document.querySelector('canvas').dispatchEvent(new KeyboardEvent('keydown', {key: 'n'}));
document.querySelector('SELECTOR').scrollIntoView({behavior: 'instant'});
</script></body>"""


def write_bag(path: Path, seed: int, silent: tuple[Spans, Spans, Spans]) -> None:
    """Write some actions of the kitchen, without the messages of stopped sensors."""
    with BagWriter(path) as bag:
        for number in range(ACTIONS):
            start_ns = write.START_NS + round(number * SHOWN.seconds * NANOSECONDS)
            truth, *sensors = kitchen(episode(Split.TEST, seed, number), start_ns, SHOWN)
            write.write_events(bag, truth, *map(without, sensors, silent))


def without(sensor: Iterator[write.Event], silent: Spans) -> Iterator[write.Event]:
    """Leave out the messages of a sensor in some spans of time."""
    for event in sensor:
        second = (event[0] - write.START_NS) / NANOSECONDS
        if not any(start <= second < stop for start, stop in silent):
            yield event


def evaluate(folder: Path) -> Path:
    """Return the report on all bags."""
    bags = [folder / f'afternoon_{number}.mcap' for number in (1, 2)]
    for seed, (bag, silent) in enumerate(zip(bags, SILENT)):
        write_bag(bag, seed, silent)
    out = folder / 'report'
    status = karmma(['bag', 'evaluate', *map(str, bags), '--model', 'synthetic_kitchen',
                     '--subsets', '--drop-intervals', '40%', '--out', str(out)])
    if status:
        raise SystemExit('draw_bag_report: the bags were not evaluated, see above')
    return out / 'report.html'


def at_error(page: Path, selector: str) -> Path:
    """Write a copy of the page that shows the first error, scrolled to a selector."""
    text = _POLICY.sub('', page.read_text(encoding='utf-8'))  # it lets no other script run
    copy = page.with_name('error.html')
    script = _ERROR.replace('SELECTOR', selector)
    copy.write_text(text.replace('</body>', script), encoding='utf-8')
    return copy


def screenshot(
    browser: str, page: Path, path: Path, size: tuple[int, int], scale: int = 1,
) -> None:
    """Render a page and take a screenshot."""
    (width, height), frame = size, page.with_name('frame.html')
    frame.write_text(f'<!doctype html><style>body{{margin:0}}iframe{{border:0;width:{width}px;'
                     f'height:{height}px}}</style><iframe src="{page.name}"></iframe>',
                     encoding='utf-8')
    subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--hide-scrollbars',
         '--allow-file-access-from-files', f'--force-device-scale-factor={scale}',
         '--window-size={},{}'.format(*_WINDOW), '--virtual-time-budget=5000',
         f'--screenshot={path.resolve()}', frame.as_uri()], check=True, capture_output=True)
    shown = cv2.imread(str(path))[:height * scale, :width * scale]
    cv2.imwrite(str(path), shown, [cv2.IMWRITE_PNG_COMPRESSION, 9])


def main(folder: Path = IMAGES) -> None:
    """Write both screenshots."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f'draw_bag_report: none of {", ".join(BROWSERS)} is installed: a browser '
                         'takes the screenshots, as of `apt install chromium`')
    with tempfile.TemporaryDirectory(prefix='karmma_report_') as temporary:
        page = evaluate(Path(temporary).resolve())
        screenshot(browser, at_error(page, 'header'), folder / 'bag_report.png', DESKTOP)
        screenshot(browser, at_error(page, '#timeline'), folder / 'bag_report_phone.png', PHONE,
                PHONE_SCALE)


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:]))
