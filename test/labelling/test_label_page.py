"""The page in a real browser: ten actions are labelled by keys, kept, merged and exported."""

from __future__ import annotations

from contextlib import ExitStack
import errno
from pathlib import Path
import re
import shutil
from threading import Thread
from types import SimpleNamespace

from karmma_ros.bags.training_clips import find_bags
from karmma_ros.data.labels.label_file import read_label_file
from karmma_ros.labelling import label_store
from karmma_ros.labelling.application import LabelApplication
from karmma_ros.labelling.label_store import LabelStore
from karmma_ros.labelling.page_server import PageServer
from karmma_ros.labelling.proposals import Proposal, ProposalState
from karmma_ros.labelling.rejections import Rejections
import pytest

playwright = pytest.importorskip('playwright.sync_api')
expect = playwright.expect
BROWSER = shutil.which('chromium') or shutil.which('google-chrome')
pytestmark = pytest.mark.skipif(not BROWSER, reason='no browser here')
expect.set_options(timeout=20_000)


@pytest.fixture(scope='module')
def chromium():
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=BROWSER, args=['--no-sandbox'])
        yield browser
        browser.close()


class Page:
    """One page, and what its user does."""

    def __init__(self, context, address: str, errors: list[str]) -> None:
        self.tab = context.new_page()
        self.tab.on('pageerror', lambda error: errors.append(str(error)))
        self.tab.on('console', lambda message: errors.append(message.text)
                    if message.type == 'error' and 'Failed to load' not in message.text else None)
        self.tab.goto(address)
        self.saved()

    def saved(self) -> None:
        expect(self.tab.locator('#save')).to_have_text('saved in labels.csv')

    def press(self, *keys: str) -> None:
        for key in keys:
            self.tab.keyboard.press(key)

    def enter_class(self, verb: str, noun: str) -> None:
        expect(self.tab.locator('#class-dialog')).to_be_visible()
        self.tab.keyboard.type(verb)
        self.press('Tab')
        self.tab.keyboard.type(noun)
        self.press('Enter')

    @property
    def labels(self) -> list[str]:
        return self.tab.locator('#labels li button').all_inner_texts()

    def expect_labels(self, *texts: str) -> None:
        items = self.tab.locator('#labels li button')
        expect(items).to_have_count(len(texts))
        for item, text in zip(items.all(), texts):
            expect(item).to_have_text(re.compile(re.escape(text).replace(r'\ ', r'\s*')))


@pytest.fixture
def site(chromium, bag, tmp_path, server):
    """Return a function that opens pages, the label file, and the errors of the browser."""
    path, errors, contexts = tmp_path / 'labels.csv', [], []
    rejected = tmp_path / 'rejected.json'
    proposals = ProposalState(1.0, True, '', [])

    def open_page(context=None, **options):
        if context is None:
            context = chromium.new_context(**options)
            contexts.append(context)
        return Page(context, own.server.url, errors)

    def start():
        given = SimpleNamespace(of=lambda path: proposals, stop=lambda: None)
        application = LabelApplication(find_bags([str(bag)]), LabelStore(path), None, given,
                                       Rejections(rejected))
        own.server = server(application)

    own = SimpleNamespace(open=open_page, path=path, start=start, proposals=proposals)
    start()
    yield own
    for context in contexts:
        context.close()
    assert errors == []


@pytest.fixture
def server():
    """Return a function that runs a server until the test ends."""
    with ExitStack() as stack:
        def start(application: LabelApplication) -> PageServer:
            running = PageServer(application)
            thread = Thread(target=running.serve_forever)
            thread.start()
            stack.callback(application.close)
            stack.callback(running.server_close)
            stack.callback(thread.join)
            stack.callback(running.shutdown)
            return running
        yield start


def rows(path):
    return [(x.start_s, x.stop_s, x.text) for x in read_label_file(path).labels]


def test_ten_actions_are_labelled_closed_reopened_and_exported(site, tmp_path):
    page = site.open()
    for number in range(10):
        page.press('i', 'Shift+ArrowRight')
        if number < 2:
            page.press('o', *([] if number == 0 else ['c']))
            page.enter_class(*(('cut', 'onion'), ('wash', 'pan'))[number])
        elif number == 2:
            page.press('n')
        else:
            page.press(str(1 + number % 2))
    expected = [(float(i), float(i + 1), ('cut/onion', 'wash/pan')[i % 2]) for i in range(10)]
    expected[2] = (2.0, 3.0, 'nothing/nothing')
    expect(page.tab.locator('#labels li')).to_have_count(10)
    page.saved()
    assert rows(site.path) == expected
    expect(page.tab.locator('#classes li').nth(0)).to_have_text(re.compile(r'1\s*cut onion\s*4'))
    page.tab.close()
    site.start()  # as if `karmma label` was started again
    page = site.open()
    page.expect_labels(*(f'{text.replace("/", " ").replace("nothing nothing", "nothing")} '
                         f'0:0{start:.0f}.00' for start, _, text in expected))
    page.tab.locator('#export').click()
    with page.tab.expect_download() as download:
        page.tab.get_by_text('Audacity, kitchen').click()
    exported = tmp_path / 'exported.txt'
    download.value.save_as(exported)
    assert download.value.suggested_filename == 'kitchen.txt'
    assert exported.read_text().splitlines()[9] == '9.000000\t10.000000\twash/pan'
    with page.tab.expect_download() as download:
        page.tab.get_by_text('Label file, all recordings').click()
    download.value.save_as(exported)
    assert rows(exported) == expected


def test_frames_are_stepped_and_played(site):
    page = site.open()
    shown = page.tab.locator('#frame')
    expect(shown).to_be_visible()
    for key, time in (('ArrowRight', '0:00.10'), ('ArrowRight', '0:00.20'),
                      ('ArrowLeft', '0:00.10'), ('End', '0:12.00')):
        page.press(key)
        expect(page.tab.locator('#time')).to_contain_text(time)
    page.press('Home', ' ')
    expect(page.tab.locator('#play')).to_have_text('⏸')
    expect(page.tab.locator('#time')).to_contain_text('0:01')
    page.press(' ')
    expect(page.tab.locator('#play')).to_have_text('▶')
    expect(shown).to_have_js_property('naturalWidth', 64)


def test_a_border_is_dragged_and_undone(site):
    page = site.open()
    page.press('i', 'Shift+ArrowRight', 'Shift+ArrowRight', 'o')
    page.enter_class('cut', 'onion')
    box = page.tab.locator('#timeline').bounding_box()

    def at(time_s):
        return box['x'] + time_s / 12 * box['width'], box['y'] + 40
    page.tab.mouse.move(*at(2))
    page.tab.mouse.down()
    page.tab.mouse.move(*at(3), steps=4)
    page.tab.mouse.move(*at(5), steps=4)
    page.tab.mouse.up()
    page.saved()
    (start, stop, text), = rows(site.path)
    assert (start, text) == (0, 'cut/onion') and stop == pytest.approx(5, abs=0.1)
    page.press('Control+z')
    page.expect_labels('cut onion 0:00.00 – 0:02.00')
    page.press('Control+y', '[', 'Delete', 'Control+Shift+z')
    page.expect_labels()
    page.press('Control+z')
    page.saved()
    assert len(rows(site.path)) == 1


def test_a_fully_labelled_recording_has_background_in_its_gaps(site):
    page = site.open()
    page.press('Shift+ArrowRight', 'i', 'Shift+ArrowRight', 'o')
    page.enter_class('cut', 'onion')
    page.press('f')
    page.expect_labels('nothing 0:00.00 – 0:01.00', 'cut onion 0:01.00 – 0:02.00',
                       'nothing 0:02.00')
    for _ in range(3):
        page.press('Shift+ArrowRight')
    page.press('i', 'Shift+ArrowRight', '1')
    page.saved()
    assert [row[1:] for row in rows(site.path)][:4] == [
        (1.0, 'nothing/nothing'), (2.0, 'cut/onion'), (5.0, 'nothing/nothing'),
        (6.0, 'cut/onion')]
    assert rows(site.path)[4][0] == 6.0 and rows(site.path)[4][1] == 12.0
    page.tab.reload()
    expect(page.tab.locator('#complete')).to_be_checked()
    page.tab.locator('#complete').uncheck()
    page.expect_labels('cut onion 0:01.00', 'cut onion 0:05.00')


def test_of_two_pages_neither_overwrites_the_other(site):
    page = site.open()
    context = page.tab.context
    page.press('i', 'Shift+ArrowRight', 'o')
    page.enter_class('cut', 'onion')
    page.saved()
    other = site.open(context)
    other.tab.route('**/api/labels*', lambda route: route.abort())
    other.press('Home', 'Shift+ArrowRight', 'Shift+ArrowRight', 'i', 'Shift+ArrowRight', '1')
    expect(other.tab.locator('#save')).to_contain_text('cannot be reached')
    page.tab.bring_to_front()
    page.press('Shift+ArrowRight', 'Shift+ArrowRight', 'Shift+ArrowRight', 'i',
               'Shift+ArrowRight', '1')
    page.saved()
    other.tab.bring_to_front()
    other.tab.unroute('**/api/labels*')
    expect(other.tab.locator('#banner')).to_contain_text('has changed the labels')
    assert [row[0] for row in rows(site.path)] == [0, 4]
    other.tab.get_by_text('Reload theirs').click()
    other.expect_labels('cut onion 0:00.00', 'cut onion 0:04.00')
    other.press('Control+z')
    other.expect_labels('cut onion 0:00.00', 'cut onion 0:02.00')
    other.press('Control+y')
    other.saved()
    assert [row[0] for row in rows(site.path)] == [0, 4]
    page.tab.bring_to_front()
    page.tab.route('**/api/labels*', lambda route: route.abort())
    page.press('Home', 'i', 'Shift+ArrowRight', 'Shift+ArrowRight', '1')
    site.path.write_text(site.path.read_text() + 'kitchen,8,9,wash,pan\n')
    page.tab.unroute('**/api/labels*')
    page.tab.get_by_text('Merge both').click()
    page.saved()
    assert sorted(row[:2] for row in rows(site.path)) == [(0, 1), (0, 2), (4, 5), (8, 9)]


def test_on_a_full_disk_edits_stay_and_are_written_later(site, monkeypatch):
    page = site.open()

    def full(target, content):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(label_store, 'write_atomically', full)
    page.press('i', 'Shift+ArrowRight', 'o')
    page.enter_class('cut', 'onion')
    expect(page.tab.locator('#save')).to_contain_text('not saved')
    expect(page.tab.locator('#save')).to_contain_text('the disk is full: free some space')
    page.press('n')
    page.expect_labels('nothing 0:00.00 – 0:01.00')
    assert not site.path.exists()
    monkeypatch.undo()
    page.saved()
    assert rows(site.path) == [(0, 1, 'nothing/nothing')]


def test_a_page_closed_before_saving_is_taken_up_by_the_next(site):
    page = site.open()
    page.tab.route('**/api/labels', lambda route: route.abort())
    page.press('i', 'Shift+ArrowRight', 'o')
    page.enter_class('cut', 'onion')
    expect(page.tab.locator('#save')).to_contain_text('not saved')
    page.press('i')  # an open mark, which is the only loss
    page.tab.close()
    assert not site.path.exists()
    site.path.write_text('recording,start,stop,verb,noun\nkitchen,5,6,wash,pan\n')
    again = site.open(page.tab.context)
    again.expect_labels('cut onion 0:00.00 – 0:01.00', 'wash pan 0:05.00')
    again.saved()
    assert rows(site.path) == [(0, 1, 'cut/onion'), (5, 6, 'wash/pan')]
    assert again.tab.evaluate('() => localStorage.length') == 0


def test_edits_that_cannot_be_saved_are_downloaded_without_the_server(site, tmp_path):
    page = site.open()
    page.tab.route('**/api/*', lambda route: route.abort())
    page.press('i', 'Shift+ArrowRight', 'o')
    page.enter_class('cut', 'onion, red "hot"')
    with page.tab.expect_download() as download:
        page.tab.get_by_text('Save a copy').click()
    download.value.save_as(tmp_path / 'copy.csv')
    assert download.value.suggested_filename == 'kitchen.csv'
    assert rows(tmp_path / 'copy.csv') == [(0, 1, 'cut/onion, red "hot"')]


def test_proposals_are_accepted_and_rejected_the_least_certain_first(site):
    site.proposals.proposals = [
        Proposal(4.0, 6.0, {'verb': 'wash', 'noun': 'pan'}, 0.45),
        Proposal(1.0, 3.0, {'verb': 'cut', 'noun': 'onion'}, 0.7),
        Proposal(7.0, 8.5, {'verb': 'stir', 'noun': 'pot'}, 0.9)]
    page = site.open()
    expect(page.tab.locator('#proposals li')).to_have_count(3)
    page.press('p')
    expect(page.tab.locator('#proposals [aria-current]')).to_contain_text('wash pan')
    expect(page.tab.locator('#time')).to_have_text('0:04.00')
    page.press('a')
    expect(page.tab.locator('#proposals [aria-current]')).to_contain_text('cut onion')
    with page.tab.expect_response('**/api/rejections'):
        page.press('x')
    page.press('a')
    page.saved()
    assert rows(site.path) == [(4, 6, 'wash/pan'), (7, 8.5, 'stir/pot')]
    expect(page.tab.locator('#proposals li')).to_have_count(0)
    page.press('Control+z')
    expect(page.tab.locator('#proposals li')).to_have_count(1)
    expect(page.tab.locator('#proposals li')).to_contain_text('stir pot')
    site.start()  # another day: what was rejected is not proposed again
    expect(site.open().tab.locator('#proposals li')).to_have_count(1)


@pytest.mark.parametrize('width', [390, 1280])
@pytest.mark.parametrize('scheme', ['light', 'dark'])
def test_everything_fits_and_has_a_name(site, width, scheme):
    page = site.open(viewport={'width': width, 'height': 844}, color_scheme=scheme)
    page.press('i', 'Shift+ArrowRight', 'n')
    page.expect_labels('nothing 0:00.00')
    assert page.tab.evaluate('() => document.documentElement.scrollWidth') <= width
    unnamed = page.tab.evaluate("""() => [...document.querySelectorAll('button, select, input')]
        .filter(each => !(each.getAttribute('aria-label') || each.title || each.textContent.trim()
            || each.labels?.[0]?.textContent.trim())).map(each => each.outerHTML)""")
    assert unnamed == []
    narrow = page.tab.evaluate("""() => [...document.querySelectorAll('main button')].filter(
        each => each.offsetWidth && each.offsetHeight < 30).map(each => each.outerHTML)""")
    assert narrow == []
    page.press('?')
    expect(page.tab.locator('#help-dialog')).to_be_visible()
    page.press('Escape')
    expect(page.tab.locator('#help-dialog')).to_be_hidden()


def test_every_key_of_the_help_is_documented():
    root = Path(__file__).resolve().parents[2]
    page = (root / 'karmma_ros/labelling/static/page.html').read_text()
    keys = re.findall(r'<dt>(.*?)</dt>', page)
    manual = (root / 'docs/labelling.md').read_text()
    names = {key for each in keys for key in re.findall(r'<kbd>(.*?)</kbd>', each)}
    assert len(names) > 25
    assert [key for key in sorted(names) if f'`{key}`' not in manual] == []
