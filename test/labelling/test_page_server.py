"""The server of the page: who may use it, what it sends, and what happens to the label file."""

from __future__ import annotations

import errno
import re
from urllib.parse import quote

import cv2
from karmma_ros.labelling import label_store
import numpy as np
import pytest

LABEL = {'start': 1.0, 'stop': 2.5, 'classes': {'verb': 'cut', 'noun': 'onion'}, 'cells': None}


def revision(site, name='kitchen'):
    return site.request(f'/api/labels?name={name}').json['revision']


def save(site, *labels, at=None):
    return site.request('/api/labels', {
        'name': 'kitchen', 'revision': revision(site) if at is None else at,
        'labels': list(labels)})


@pytest.mark.parametrize('token', ['', 'x', 'ä', '..'])
def test_every_request_without_the_token_is_refused(site, token):
    for path, given in (('/', None), ('/page.js', None), ('/api/state', None),
                        ('/api/labels', {'name': 'kitchen'})):
        response = site.request(path, given, token=quote(token))
        assert response.status == 403 and b'karmma label' in response.content
    assert site.request('/api/state', token=site.server.token[:-1]).status == 403
    assert site.request('/api/state').status == 200


def test_other_hosts_are_refused_and_tunnels_are_not(site):
    for host in ('evil.example', 'evil.example:80', '127.0.0.1.evil.example', '', '10.0.0.1:80'):
        assert site.request('/api/state', Host=host).status == 403
    for host in ('127.0.0.1:1', 'localhost:9999', '[::1]:80'):
        assert site.request('/api/state', Host=host).status == 200


def test_only_this_machine_reaches_it(site):
    assert site.server.server_address[0] == '127.0.0.1'
    assert len(site.server.token) >= 32 and site.server.token in site.server.url


def test_the_page_loads_nothing_from_elsewhere(site):
    page = site.request('/')
    assert page.headers['Content-Type'].startswith('text/html') and b'<canvas' in page.content
    policy = page.headers['Content-Security-Policy']
    assert "default-src 'none'" in policy and 'unsafe' not in policy and 'http' not in policy
    for name, (content, type_name) in site.server.static.items():
        assert site.request(f'/{name}').content == content
        text = content.decode().replace('http://www.w3.org/2000/svg', '')
        assert 'http:' not in text and 'https:' not in text, name
    assert site.request('/no.js').status == 404 == site.request('/../setup.py').status


def test_frames_come_straight_from_the_bag(site):
    opened = site.request('/api/recording?name=kitchen').json
    assert opened['cameras'] == ['/image'] and 11 < opened['length'] <= 12
    frame = site.request('/api/frame?name=kitchen&camera=/image&time=3.05')
    time_s = float(frame.headers['X-Frame-Time'])
    image = cv2.imdecode(np.frombuffer(frame.content, np.uint8), cv2.IMREAD_COLOR)
    assert frame.headers['Content-Type'] == 'image/jpeg' and image.shape == (48, 64, 3)
    assert 2.9 <= time_s <= 3.05
    following = site.request(f'/api/frame?name=kitchen&camera=/image&time={time_s!r}&which=next')
    after_s = float(following.headers['X-Frame-Time'])
    assert after_s == pytest.approx(time_s + 0.1, abs=0.02)
    back = site.request(f'/api/frame?name=kitchen&camera=/image&time={after_s!r}&which=previous')
    assert float(back.headers['X-Frame-Time']) == time_s and back.content == frame.content


def test_labels_are_written_at_once(site):
    saved = save(site, LABEL)
    assert saved.status == 200 and saved.json['labels'][0]['cells']['recording'] == 'kitchen'
    assert site.path.read_text() == ('recording,start,stop,verb,noun\n'
                                     'kitchen,1,2.5,cut,onion\n')
    assert site.request('/api/state').json['classes'] == [
        {'names': ['cut', 'onion'], 'counts': {'kitchen': 1}}]


def test_the_second_of_two_pages_gets_the_labels_of_the_first(site):
    before = revision(site)
    assert save(site, LABEL, at=before).status == 200
    refused = save(site, {**LABEL, 'start': 2}, at=before)
    assert refused.status == 409 and 'were changed elsewhere' in refused.json['error']
    assert refused.json['labels'][0]['start'] == 1 and refused.json['revision'] == revision(site)
    assert 'kitchen,1,2.5' in site.path.read_text()


def test_a_full_disk_is_reported_and_the_file_stays(site, monkeypatch):
    save(site, LABEL)
    before = site.path.read_text()

    def full(target, content):
        raise OSError(errno.ENOSPC, 'No space left on device')
    monkeypatch.setattr(label_store, 'write_atomically', full)
    refused = save(site, {**LABEL, 'start': 0})
    assert refused.status == 507 and 'the disk is full: free some space' in refused.json['error']
    assert site.path.read_text() == before
    monkeypatch.undo()
    assert save(site, {**LABEL, 'start': 0}).status == 200


def test_a_defect_is_one_failed_request(site, monkeypatch, capsys):
    def broken(*arguments):
        raise ZeroDivisionError('planted')
    monkeypatch.setattr(label_store.LabelStore, 'load', broken)
    response = site.request('/api/labels?name=kitchen')
    assert response.status == 500 and response.json['error'] == 'ZeroDivisionError: planted'
    assert 'Traceback' in capsys.readouterr().err
    assert site.request('/api/state').status == 200


def test_requests_that_hold_no_labels_are_refused(site):
    refused = site.request('/api/export?format=elan&name=kitchen')
    assert refused.status == 404
    assert refused.json['error'] == 'there are no labels to export of kitchen'
    refused = save(site, {**LABEL, 'classes': {'verb': None}})
    assert refused.status == 400 and 'expected names' in refused.json['error']
    refused = site.request('/api/labels', b'[' * 100_000)
    assert refused.status == 400 and refused.json['error'] == 'expected JSON'


def test_a_label_that_ends_after_the_recording_is_refused_unless_it_does_in_the_file(site):
    refused = save(site, {**LABEL, 'stop': 40})
    assert refused.status == 400 and refused.json['error'] == (
        "stop is '40 s'; expected up to 12.0 s, where the recording ends: of cut/onion from 1 s")
    assert not site.path.exists()
    site.path.write_text('recording,start,stop,verb,noun\nkitchen,1,40,cut,onion\n')
    late = site.request('/api/labels?name=kitchen').json['labels']
    assert save(site, *late, {**LABEL, 'start': 0, 'stop': 1}).status == 200
    assert save(site, {**late[0], 'stop': 41}).status == 400


def test_a_control_character_of_the_file_stays_and_a_new_one_is_named(site):
    site.path.write_text('recording,start,stop,verb,noun\nkitchen,1,2,c\x07ut,onion\n')
    odd = site.request('/api/labels?name=kitchen').json['labels']
    assert save(site, *odd, {**LABEL, 'start': 3, 'stop': 4}).status == 200
    assert 'kitchen,1,2,c\x07ut,onion' in site.path.read_text()
    refused = save(site, *odd, {**LABEL, 'classes': {'verb': 'c\x07ut', 'noun': 'pan'}})
    assert refused.status == 400 and refused.json['error'].startswith('class of 1 to 2.5 s is ')
    assert 'expected at most 200 printable characters' in refused.json['error']


@pytest.mark.parametrize('given', [{}, {'name': 'other'}, {'name': 'kitchen', 'proposal': {}},
                                   {'name': 'kitchen', 'proposal': {'start': 'x'}}])
def test_a_rejection_that_is_none_is_refused(site, given):
    refused = site.request('/api/rejections', given)
    assert refused.status == 400 and 'expected an object with' in refused.json['error']


def test_a_damaged_label_file_is_an_error_and_stays(site):
    save(site, LABEL)
    at = revision(site)
    site.path.write_text('"unclosed')
    refused = save(site, at=at)
    assert refused.status == 400 and 'it is no CSV file' in refused.json['error']
    assert site.path.read_text() == '"unclosed'


def test_signals_and_audio_of_an_interval_are_sent(site):
    drawn = site.request('/api/signals?name=kitchen&start=0&stop=6&columns=60').json
    assert len(drawn['waveform'][0]) == 60 and drawn['start'] == 0 and drawn['stop'] == 6
    assert [track['role'] for track in drawn['tracks']] == ['rgb', 'detections']
    image = site.request('/api/spectrogram?name=kitchen&start=0&stop=6&columns=60')
    assert cv2.imdecode(np.frombuffer(image.content, np.uint8), 1).shape == (64, 60, 3)
    audio = site.request('/api/audio?name=kitchen&start=1&stop=3')
    assert audio.headers['Content-Type'] == 'audio/wav' and audio.content[:4] == b'RIFF'
    assert abs(len(audio.content) - 2 * 2 * 16_000) < 100


@pytest.mark.parametrize('name, text', [
    ('csv', 'recording,start,stop,verb,noun\nkitchen,1,2.5,cut,onion\n'),
    ('audacity', '1.000000\t2.500000\tcut/onion\n')])
def test_labels_are_exported(site, name, text):
    save(site, LABEL)
    exported = site.request(f'/api/export?format={name}&name=kitchen')
    assert exported.content.decode() == text
    assert exported.headers['Content-Disposition'].startswith('attachment; filename*=')


@pytest.mark.parametrize('path, status, reason', [
    ('/api/proposals?name=kitchen', 404, 'no proposals without --model'),
    ('/api/export?format=word', 400, 'format is .word.; expected audacity, csv'),
    ('/api/signals?name=kitchen&start=2&stop=1&columns=9', 400, 'stop is 1.0; expected a time'),
    ('/api/signals?name=kitchen&start=0&stop=1&columns=9999', 400, 'columns is .9999.; expected'),
    ('/api/audio?name=kitchen&start=0&stop=99', 400, 'stop is 99.0; expected up to 30 s'),
    ('/api/audio?name=kitchen&start=50&stop=51', 404, 'there is no audio at this time'),
    ('/api/nothing', 404, "there is nothing named 'nothing'"),
    ('/api/recording?name=other', 404, "no recording 'other'; expected kitchen, missing"),
    ('/api/recording', 400, 'name is None; expected a parameter'),
    ('/api/recording?name=missing', 400, 'no such file or folder'),
    ('/api/frame?name=kitchen&camera=/other&time=1', 400, 'camera is .*expected /image'),
    ('/api/frame?name=kitchen&camera=/image&time=x', 400, 'time is .x.; expected a number'),
    ('/api/frame?name=kitchen&camera=/image&time=nan', 400, 'expected a number from 0'),
    ('/api/frame?name=kitchen&camera=/image&time=5000', 404, 'no frame near this time')])
def test_a_request_that_cannot_be_served_states_why(site, path, status, reason):
    response = site.request(path)
    assert response.status == status
    assert re.search(reason, response.json['error']), response.json


@pytest.mark.parametrize('given, headers, status', [
    (b'{', {}, 400), (b'[]', {}, 400), (b'{"labels": 1}', {}, 400),
    (b'{"labels": [], "name": "other", "revision": ""}', {}, 404),
    (b'{}', {'Content-Type': 'text/plain'}, 415), (b'{}', {'Content-Length': '99999999'}, 413),
    (b'{"labels": [{}], "name": "kitchen", "revision": ""}', {}, 400)])
def test_a_change_that_is_none_is_refused(site, given, headers, status):
    assert site.request('/api/labels', given, **headers).status == status
    assert not site.path.exists()
