"""
Take the screenshot of the page for labelling: `python docs/draw_label_page.py [FOLDER]`.

A bag of the synthetic kitchen is labelled by keys, with the proposals of the included model;
Chromium or Chrome, which must be installed, shows the page. Without FOLDER the figure of
docs/labelling.md is replaced.
"""

from __future__ import annotations

from pathlib import Path
import shutil
import sys
import tempfile
from threading import Thread
from typing import Any

import cv2
from karmma_ros.cli.main import main as karmma
from karmma_ros.labelling.application import LabelApplication
from karmma_ros.labelling.label_store import LabelStore
from karmma_ros.labelling.page_server import PageServer
from karmma_ros.labelling.proposals import Proposer
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.registry import find_model
from playwright.sync_api import expect, sync_playwright

IMAGES = Path(__file__).parent / 'images'
BROWSERS = ('chromium', 'chromium-browser', 'google-chrome', 'chrome')
SIZE = {'width': 1280, 'height': 860}


def label(page: Any) -> None:
    """Label the first actions, accept a proposal and choose the next one."""
    press = page.keyboard.press
    for verb, noun, seconds in (('wash', 'pan', 4), ('peel', 'cup', 4)):
        press('i')
        for _ in range(seconds):
            press('Shift+ArrowRight')
        press('o')
        if not page.locator('#class-dialog').is_visible():
            press('c')
        page.keyboard.type(verb)
        press('Tab')
        page.keyboard.type(noun)
        press('Enter')
    expect(page.locator('#proposals-note')).to_have_text('least certain first', timeout=300_000)
    for key in 'papap':
        press(key)
    press('i')
    press('Shift+ArrowRight')
    press('n')
    page.keyboard.press('p')
    page.wait_for_timeout(2000)


def main(folder: Path = IMAGES) -> None:
    """Write the screenshot."""
    browser = next(filter(None, map(shutil.which, BROWSERS)), None)
    if browser is None:
        raise SystemExit(f'draw_label_page: none of {", ".join(BROWSERS)} is installed: a browser '
                         'takes the screenshot, as of `apt install chromium`')
    with tempfile.TemporaryDirectory(prefix='karmma_label_') as temporary:
        bag = Path(temporary, 'kitchen.mcap')
        if karmma(['bag', 'synthetic', str(bag), '--episodes', '11', '--seed', '1',
                   '--size', '320x240']):
            raise SystemExit('draw_label_page: the bag was not written, see above')
        store = LabelStore(Path(temporary, 'labels.csv'))
        bundle = load_bundle(find_model('synthetic_kitchen', '--model'))
        application = LabelApplication({'kitchen': bag}, store, None,
                                       Proposer(bundle, store.heads))
        with PageServer(application) as server, sync_playwright() as driver:
            Thread(target=server.serve_forever, daemon=True).start()
            page = driver.chromium.launch(
                executable_path=browser, args=['--no-sandbox']).new_page(viewport=SIZE)
            page.goto(server.url)
            expect(page.locator('#save')).to_contain_text('saved')
            label(page)
            path = folder / 'labelling.png'
            page.screenshot(path=path)
            cv2.imwrite(str(path), cv2.imread(str(path)), [cv2.IMWRITE_PNG_COMPRESSION, 9])
            server.shutdown()
        application.close()


if __name__ == '__main__':
    main(*map(Path, sys.argv[1:]))
