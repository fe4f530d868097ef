"""A report has the same numbers in its three files, is complete, and runs nothing of a bag."""

from dataclasses import replace
from html.parser import HTMLParser
import json
from pathlib import Path
import re
import shutil
import subprocess

from conforming import conforms
import cv2
from karmma_ros.bags import report
from karmma_ros.bags.bag_run import Condition, RecordedComparison
from karmma_ros.bags.report import timeline
from karmma_ros.bags.report.bag_report import BagReport, SCHEMA_ID
from karmma_ros.bags.report.findings import clock
from karmma_ros.bags.report.markdown import word
from karmma_ros.bags.report.summary import bag_name, describe, histogram
from karmma_ros.bags.report.timeline import NOTHING, PARTLY, RIGHT, WRONG
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import predict_actions
from karmma_ros.evaluation.ground_truth import Truth
from karmma_ros.evaluation.predictions import BagPredictions
from karmma_ros.evaluation.schema import json_schema, to_json
from karmma_ros.evaluation.segmentation import Segment
from karmma_ros.modality import Modality
from karmma_ros.prediction import Vocabulary
from karmma_ros.stream.events import EventSettings
import numpy as np
import pytest
from simulated_bags import simulated_run

MODEL = {'id': 'toy@1234', 'sha256': 'ab' * 32}
PROVENANCE = {'date': '2025-01-01', 'machine': 'a', 'command': 'karmma bag evaluate',
        'real_time': 21.4375}
EVIL = '</script><script>window.hacked = 1</script><img src=x onerror="hacked()">\'"&|`'


@pytest.fixture(scope='module')
def run():
    return simulated_run(240, seed=3)


@pytest.fixture(scope='module')
def folder(run, tmp_path_factory):
    out = tmp_path_factory.mktemp('report')
    report.write(out, [run], MODEL, PROVENANCE)
    return out


class Page(HTMLParser):
    """What is on a page: its elements, the text of its scripts, the ids, the open elements."""

    VOID = {'meta', 'br', 'img', 'input', 'link', 'hr'}

    def __init__(self, path):
        super().__init__(convert_charrefs=True)
        self.elements, self.scripts, self.open, self.text = [], [], [], ''
        self.feed(path.read_text())
        assert not self.open, f'left open: {self.open}'

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if 'script' in self.open:
            self.scripts.append(data)
        elif 'style' not in self.open:
            self.text += data

    def all(self, tag):
        return [attrs for name, attrs in self.elements if name == tag]


def test_the_three_files_agree(folder):
    written = json.loads((folder / 'report.json').read_text())
    page, text = Page(folder / 'report.html').text, (folder / 'report.md').read_text()
    action = written['conditions'][0]['actions']['action']
    sentence = f'{action["correct"]} of {action["count"]} true actions are recognised: ' \
           f'{100 * action["top1"]:.1f} %'
    assert sentence in page and sentence in text
    assert list(written)[-1] == 'provenance' and written['provenance']['machine'] == 'a'
    assert written['format'] == 'karmma_ros.bag_report/2'
    for condition in written['conditions']:
        row = next(r for r in text.splitlines() if r.startswith(f'| {condition["name"]} |'))
        what = 'top1_covered' if condition['parameters'] else 'top1'
        assert f'{100 * condition["actions"]["action"][what]:.1f}' in row
    columns = written['segments']['conditions']['as recorded']
    assert sum(columns['correct']['action']) == action['correct']
    assert len(columns['delay_s']) == len(written['segments']['bag']) == action['count']
    assert 'NaN' not in (folder / 'report.json').read_text()


def test_only_the_provenance_differs_between_runs(run, folder, tmp_path):
    other = {**PROVENANCE, 'date': '2030-12-31', 'machine': 'b', 'real_time': 3.0}
    faster = replace(run, predictions={
        c: replace(a, latency_s=a.latency_s / 2) for c, a in run.predictions.items()})
    report.write(tmp_path, [faster], MODEL, other)
    pattern = {'report.html': r'<!-- provenance.*<!-- /provenance -->',
               'report.json': r'"provenance": .*', 'report.md': r'## Provenance.*'}
    for name, section in pattern.items():
        texts = [(f / name).read_text() for f in (folder, tmp_path)]
        assert texts[0] != texts[1]
        rests = [re.sub(section, '', text, flags=re.DOTALL) for text in texts]
        assert rests[0] == rests[1]
        assert '2030' not in rests[1] and '21.4375' not in rests[0]


def test_the_page_needs_nothing_else(folder):
    page = Page(folder / 'report.html')
    text = (folder / 'report.html').read_text()
    assert not page.all('link') and not re.search(r'url\(|@import|@font-face|https?://', text)
    for tag, attrs in page.elements:
        for name in ('src', 'href', 'data', 'action', 'poster', 'srcset'):
            assert attrs.get(name, '#').startswith(('data:image/jpeg;base64,', '#')), (tag, attrs)
    policy = page.all('meta')[1]['content']
    assert "default-src 'none'" in policy and 'unsafe-eval' not in policy
    assert "script-src 'sha256-" in policy


def test_the_page_can_be_used_without_seeing_it(folder):
    page = Page(folder / 'report.html')
    assert page.elements[0] == ('html', {'lang': 'en'})
    ids = [attrs['id'] for _, attrs in page.elements if 'id' in attrs]
    assert len(ids) == len(set(ids))
    assert all(attrs.get('alt') for attrs in page.all('img'))
    assert all(a.get('aria-label') or a.get('aria-hidden') for a in page.all('svg'))
    assert page.all('canvas')[0]['aria-label'] and page.all('canvas')[0]['tabindex'] == '0'
    assert all(a['href'][1:] in ids for a in page.all('a'))
    assert all(a['aria-labelledby'] in ids for a in page.all('section'))


def test_no_text_of_a_bag_is_run(run, tmp_path):
    vocabulary = Vocabulary({head: tuple(f'{EVIL}{i}' for i in range(len(names)))
                             for head, names in run.vocabulary.heads.items()})
    actions = tuple(replace(a, names={h: vocabulary.heads[h][i] for h, i in a.ids.items()})
                    for a in run.truth.actions)
    topics = {'rgb': {'topic': '/im"age\'><script>', 'type': EVIL, 'count': EVIL}}
    info = replace(run.info, path=f'/bags/{EVIL}', warnings=(EVIL,), missing_messages={EVIL: 1},
                   topics=topics)
    predictions = {Condition(EVIL + c.name, c.parameters): a for c, a in run.predictions.items()}
    evil = replace(run, info=info, vocabulary=vocabulary, predictions=predictions,
                   recorded=RecordedComparison(EVIL, 1, 0, 1, [EVIL], *[0] * 5, 0.0, 0.0),
                   truth=Truth(actions, EVIL, {EVIL: 1}, (EVIL,)))
    report.write(tmp_path, [evil, evil], {'id': EVIL, EVIL: EVIL}, {'command': EVIL, EVIL: EVIL})
    page = Page(tmp_path / 'report.html')
    assert [a.get('type') for a in page.all('script')] == ['application/json', None]
    assert all(a['src'].startswith('data:') for a in page.all('img'))
    assert not any(name.startswith('on') for _, attrs in page.elements for name in attrs)
    data = json.loads(page.scripts[0])
    assert any(EVIL in label for label in data['labels'])
    text = (tmp_path / 'report.md').read_text()
    assert '<script' not in text and '<img' not in text
    tables = [line for line in text.splitlines() if line.startswith('|')]
    assert tables and len({len(re.findall(r'(?<!\\)\|', line)) for line in tables[3:18]}) == 1


def test_markdown_is_escaped():
    assert word('a|b\n<i> `x` *y* [z](w)') == r'a\|b &lt;i&gt; \`x\` \*y\* \[z\](w)'


def test_a_report_without_ground_truth(run, tmp_path):
    written = report.write(tmp_path, [replace(run, truth=None)], MODEL, {})
    text = Page(tmp_path / 'report.html').text
    assert 'There is no ground truth to compare with' in text
    assert written['conditions'][0]['actions'] == {} and written['failure_cases'] == []
    assert 0 < written['conditions'][1]['agreement']['same'] <= 1
    assert 'There is no ground truth that could be scored.' in text


@pytest.mark.parametrize('truth', [True, False])
def test_a_bag_without_a_window(run, tmp_path, truth):
    none = {c: BagPredictions.empty(run.vocabulary.sizes) for c in run.predictions}
    empty = replace(run, predictions=none, truth=run.truth if truth else None)
    written = report.write(tmp_path, [empty], MODEL, PROVENANCE)
    assert 'there is no window' in written['warnings'][0]
    assert Page(tmp_path / 'report.html').text
    if truth:
        assert written['conditions'][0]['actions']['action']['top1'] == 0
        assert 'seem to be of different clocks' not in ' '.join(written['warnings'])


def test_ground_truth_of_another_clock_gives_a_warning(run):
    late = tuple(replace(a, start_ns=a.start_ns + 10 ** 15, end_ns=a.end_ns + 10 ** 15)
                 for a in run.truth.actions)
    written = describe([replace(run, truth=replace(run.truth, actions=late))], MODEL,
                     EventSettings())
    assert any('of different clocks' in text for text in written.report.warnings)


def test_bags_are_pooled(run):
    other = simulated_run(120, seed=8, path=run.info.path)
    pooled = to_json(describe([run, other], MODEL, EventSettings()).report)
    parts = [to_json(describe([each], MODEL, EventSettings()).report)
             for each in (run, other)]
    for i, condition in enumerate(pooled['conditions']):
        singles = [part['conditions'][i] for part in parts]
        for key in ('verb', 'noun', 'action'):
            assert condition['actions'][key]['correct'] == sum(
                s['actions'][key]['correct'] for s in singles)
        assert condition['by_bag'] == [s['by_bag'][0] for s in singles]
        assert condition['events']['edit'] == pytest.approx(
            np.mean([s['events']['edit'] for s in singles]), abs=1e-5)
    assert [bag['name'] for bag in pooled['bags']] == [
        'simulated_kitchen (1)', 'simulated_kitchen (2)']


def test_runs_that_differ_are_refused(run):
    other = replace(run, predictions=dict(list(run.predictions.items())[:2]))
    with pytest.raises(InvalidSettingError, match='same conditions'):
        describe([run, other], MODEL, EventSettings())
    with pytest.raises(InvalidSettingError, match='at least one'):
        describe([], MODEL, EventSettings())


def test_failure_cases_are_the_most_confident_errors(run, folder):
    written = json.loads((folder / 'report.json').read_text())
    columns = written['segments']['conditions']['as recorded']
    wrong = sorted(
        (c for c, correct in zip(columns['confidence']['action'], columns['correct']['action'])
         if not correct), reverse=True)
    assert wrong and [round(m['confidence'], 4) for m in written['failure_cases']] == wrong[:12]
    for case in written['failure_cases']:
        start, end = case['window_ns']
        assert case['start_ns'] <= (start + end) // 2 < case['end_ns']
        assert case['truth'] != case['predicted']
    images = Page(folder / 'report.html').all('img')
    assert len(images) == 3 * len(written['failure_cases'])
    from base64 import b64decode
    data = np.frombuffer(b64decode(images[0]['src'].partition(',')[2]), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (180, 240, 3)


@pytest.mark.parametrize('fraction', [0.25, 0.0])
def test_the_fraction_of_unknown_windows_is_reported(run, tmp_path, fraction):
    condition, recorded = next(iter(run.predictions.items()))
    unknown = np.arange(len(recorded)) < fraction * len(recorded)
    predictions = {**run.predictions, condition: replace(recorded, is_unknown=unknown)}
    written = report.write(tmp_path, [replace(run, predictions=predictions)], MODEL, {})
    assert written['conditions'][0]['unknown'] == pytest.approx(fraction, abs=0.5 / len(recorded))
    sentence = '25.0 % of the windows show an action that the model does not know, or none.'
    page, text = Page(tmp_path / 'report.html').text, (tmp_path / 'report.md').read_text()
    assert (sentence in page) == (sentence in text) == bool(fraction)
    assert 'unknown, %' in page and 'unknown, %' in text


def test_failure_cases_state_what_each_window_is_without_a_sensor(run, tmp_path):
    recorded = next(iter(run.predictions.values()))
    uniform = {head: np.full_like(p, 0.5 / p.shape[1]) for head, p in
               recorded.probabilities.items()}
    for p in uniform.values():
        p[:, 1] = 0.5
    left_out = replace(recorded, probabilities=uniform).select(recorded.present[:, 2])
    predictions = {**run.predictions, Condition.leaving_out(Modality.AUDIO): left_out}
    written = report.write(tmp_path, [replace(run, predictions=predictions)], MODEL, {})
    assert written['conditions'][-1]['name'] == 'without audio'
    of_audio = 0
    for case in written['failure_cases']:
        if 'audio' not in case['present']:
            assert 'without' not in case
            continue
        own, = case['without']
        of_audio += 1
        row, = np.flatnonzero(recorded.end_ns == case['window_ns'][1])
        heads = run.vocabulary.heads
        ids = {head: heads[head].index(name) for head, name in case['predicted'].items()}
        assert own['sensor'] == 'audio'
        assert own['predicted'] == {head: heads[head][1] for head in ids}
        assert own['score'] == pytest.approx(
            np.prod([uniform[head][0, i] for head, i in ids.items()]))
        assert own['score_with'] == pytest.approx(
            np.prod([recorded.probabilities[head][row, i] for head, i in ids.items()]))
    assert of_audio
    assert Page(tmp_path / 'report.html').text.count('without audio') >= of_audio


def test_failure_cases_without_images(run, tmp_path):
    report.write(tmp_path, [replace(run, frames=lambda times: [None] * len(times))], MODEL, {})
    page = Page(tmp_path / 'report.html')
    assert not page.all('img') and 'No image' in page.text


def test_verdicts_over_time():
    near = timeline._Nearby([Segment(0, 10, (1, 2)), Segment(5, 30, (3, 4))])
    assert near.verdict(Segment(0, 8, (1, 2))) == RIGHT
    assert near.verdict(Segment(20, 28, (3, 2))) == PARTLY
    assert near.verdict(Segment(20, 28, (1, 2))) == WRONG
    assert near.verdict(Segment(31, 40, (1, 2))) == NOTHING
    assert near.verdict(Segment(12, 12, (3, 4))) == RIGHT  # a lone window


def test_an_afternoon_stays_small():
    runs = [(i, i + 1 + (i % 7 == 0), ('a', 'b')[i % 2], 0.5) for i in range(0, 60_000, 2)]
    assert len(timeline._thinned(runs, 5000)) <= 5000
    assert timeline._thinned(runs[:10], 5000) == runs[:10]
    availability = {m: [[0, 5], *([t, 2 + 3 * (t // 10 % 2)] for t in range(10, 72_000, 10))]
             for m in ('rgb', 'flow', 'audio', 'detections')}
    drawn = {'length': 72_000, 'availability': availability,
             'truth': [[t, t + 5, ['a']] for t in range(0, 72_000, 10)],
             'events': [[t, t + 5, [0], 50, 1, t] for t in range(0, 72_000, 10)]}
    for row in timeline.overview(drawn).values():
        assert 0 < len(row) <= timeline.OVERVIEW_COLUMNS


def test_short_outages_are_seen_from_afar():
    drawn = {'length': 100_000, 'truth': [], 'events': [],
             'availability': {'rgb': [[0, 5], [50_000, 2], [50_001, 5]]}}
    spans = timeline.overview(drawn)['rgb']
    assert [value for _, _, value in spans] == [6, 3, 6]


def test_names_and_times():
    assert bag_name('/a/b/kitchen.mcap') == 'kitchen' and bag_name('C:\\bags\\x\\') == 'x'
    assert clock(3.04) == '0:03.0' and clock(3661.26) == '1:01:01.3' and clock(59.96) == '1:00.0'


def test_histograms_keep_what_is_far_out():
    values = np.concatenate([np.linspace(0, 1, 1000), [50.0]])
    written = histogram(values)
    assert sum(written.counts) + written.above == 1001 and written.above >= 1
    assert histogram(np.zeros(0)).counts == []
    assert sum(histogram(np.full(5, 0.2)).counts) == 5


@pytest.mark.skipif(not (shutil.which('chromium') or shutil.which('google-chrome')),
                    reason='no browser here')
def test_a_browser_runs_it(folder, tmp_path):
    browser = shutil.which('chromium') or shutil.which('google-chrome')
    done = subprocess.run(
        [browser, '--headless', '--no-sandbox', '--disable-gpu', '--dump-dom',
         f'--user-data-dir={tmp_path}', '--virtual-time-budget=2000',
         Path(folder / 'report.html').as_uri()], capture_output=True, text=True, timeout=120)
    assert 'class="board live"' in done.stdout, done.stderr[-500:]
    assert '<dt>each window</dt>' in done.stdout
    assert re.search(r'id="speed-tile">21\.4 ×<', done.stdout)


def test_failure_cases_of_another_condition_where_nothing_is_wrong(run, tmp_path):
    recorded = next(iter(run.predictions.values()))
    fewer = replace(run.truth, actions=tuple(
        a for a in run.truth.actions if recognised(run, a, recorded)))
    written = report.write(tmp_path, [replace(run, truth=fewer)], MODEL, {})
    assert written['conditions'][0]['actions']['action']['top1'] == 1
    assert written['failure_cases_condition'] != 'as recorded' and written['failure_cases']
    assert 'As recorded nothing was recognised wrongly' in Page(tmp_path / 'report.html').text


def recognised(run, action, predictions):
    """Return whether an action is recognised."""
    return predict_actions([action], predictions).hits()['action'][0]


@pytest.mark.parametrize('heads', [('verb',), ('gesture',), ('verb', 'noun', 'place'), ('a', 'b')])
def test_models_with_other_heads(run, tmp_path, heads):
    names = {h: run.vocabulary.heads['verb'] for h in heads}
    predictions = {c: replace(a, probabilities=dict.fromkeys(heads, a.probabilities['verb']))
               for c, a in run.predictions.items()}
    actions = tuple(replace(a, names=dict.fromkeys(heads, a.names['verb']),
                            ids=dict.fromkeys(heads, a.ids['verb'])) for a in run.truth.actions)
    other = replace(run, vocabulary=Vocabulary(names), predictions=predictions,
                    truth=replace(run.truth, actions=actions))
    written = report.write(tmp_path, [other], MODEL, PROVENANCE)
    key = heads[0] if len(heads) == 1 else 'action'
    assert written['conditions'][0]['actions'][key]['top1'] > 0.5
    events = written['conditions'][0]['events']
    assert events['f1']['10'] > 0.5
    joint = heads[0] if len(heads) == 1 else 'action' if len(heads) == 2 else 'verb and noun'
    assert list(events['mean_average_precision']) == list(dict.fromkeys([*heads[:2], joint]))
    warnings = [w for w in written['warnings'] if 'an event names' in w]
    expected = 'an event names verb and noun: of the head place only the windows are scored'
    assert warnings == ([expected] if len(heads) > 2 else [])
    text = Page(tmp_path / 'report.html').text
    partly = f'{" or ".join(heads[:2])} right'
    assert (partly in text) == (len(heads) > 1)
    assert ('verb or noun right' in text) == (heads[:2] == ('verb', 'noun'))
    assert ('greatest products' in text) == (len(heads) > 1)


def test_truth_of_verbs_alone(run, tmp_path):
    actions = tuple(replace(a, names={**a.names, 'noun': ''}, ids={**a.ids, 'noun': -1})
                    for a in run.truth.actions)
    written = report.write(
        tmp_path, [replace(run, truth=replace(run.truth, actions=actions))], MODEL, PROVENANCE)
    assert set(written['conditions'][0]['actions']) == {'verb'}
    assert 'f1' not in written['conditions'][0]['events']  # an event names verb and noun
    assert written['robustness'] is None
    assert all(m['truth']['verb'] != m['predicted']['verb'] for m in written['failure_cases'])
    assert 'true actions are recognised' in Page(tmp_path / 'report.html').text


@pytest.mark.parametrize('truth', [True, False])
def test_the_schema_describes_the_report(run, tmp_path, truth):
    schema = json_schema(BagReport, SCHEMA_ID)
    report.write(tmp_path, [run if truth else replace(run, truth=None)], MODEL, PROVENANCE)
    written = json.loads((tmp_path / 'report.json').read_text())
    assert conforms(written, schema)
    assert not conforms({**written, 'losing': None}, schema)
    assert not conforms({**written, 'heads': [1]}, schema)
