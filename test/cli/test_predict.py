"""What `karmma predict` says of a film, and of what is none."""

import json
from types import SimpleNamespace

import cv2
from karmma_ros.cli.predict import _cut, VideoClips
from karmma_ros.cli.predict import main as predict
from karmma_ros.clip import ClipSpec
from karmma_ros.data.synthetic_kitchen.episode import episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.errors import InvalidSettingError, KarmmaError
import numpy as np
import pytest
import soundfile

SECONDS, RATE = 4.5, 24


def write_film(path, pictures, rate=RATE):
    height, width = pictures[0].shape[:2]
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*'MJPG'), rate, (width, height))
    for picture in pictures:
        writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    writer.release()


@pytest.fixture(scope='module')
def shown():
    return episode(Split.TEST, 0, 3)


@pytest.fixture(scope='module')
def film(tmp_path_factory, shown):
    """Return a film of one held-out action of the kitchen, its sound beside it."""
    path = tmp_path_factory.mktemp('film') / 'action.avi'
    write_film(path, [shown.frame(i / RATE, 120, 160) for i in range(round(SECONDS * RATE))])
    soundfile.write(path.with_suffix('.wav'), shown.audio(0.0, SECONDS, 44_100), 44_100)
    return path


def asked(capsys, *words):
    assert predict([*map(str, words), '--json']) == 0
    return json.loads(capsys.readouterr().out)


def test_a_held_out_action_is_recognised_with_its_sound(capsys, film, shown):
    found = asked(capsys, film, '--audio', film.with_suffix('.wav'))
    assert found['sensors'] == 'V+F+A'
    best = {head: labels[0] for head, labels in found['answer'].items()}
    assert (best['verb']['class'], best['noun']['class']) == (shown.verb, shown.noun)
    assert found['notes'] == ['without detections: a film has no boxes']


def test_windows_follow_by_half_and_the_last_ends_with_the_film(capsys, film):
    found = asked(capsys, film)
    starts = [window['start_s'] for window in found['windows']]
    assert starts == [0.0, 1.0, 2.0, 2.5]
    assert found['windows'][-1]['stop_s'] == found['seconds'] == SECONDS
    assert found['sensors'] == 'V+F' and 'subsets' not in found


def test_the_film_is_the_mean_of_its_windows(capsys, film):
    found = asked(capsys, film)
    best = found['answer']['verb'][0]
    scores = [label['score'] for window in found['windows'] for label in window['verb']
              if label['class'] == best['class']]
    assert len(scores) == len(found['windows'])
    assert best['score'] == pytest.approx(np.mean(scores), abs=1e-5)


def test_every_subset_is_asked_and_the_largest_is_the_answer(capsys, film):
    found = asked(capsys, film, '--audio', film.with_suffix('.wav'), '--subsets')
    assert list(found['subsets']) == ['V+F+A', 'V+F', 'V+A', 'F+A', 'V', 'F', 'A']
    assert found['subsets']['V+F+A'] == found['answer']
    assert found['subsets']['V+F'] == asked(capsys, film)['answer']
    scores = {tuple(label['score'] for label in s['verb']) for s in found['subsets'].values()}
    assert len(scores) == 7


def test_a_person_reads_lines(capsys, film, shown):
    words = [str(film), '--audio', str(film.with_suffix('.wav')), '--subsets']
    assert predict(words) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines[:4]] == ['0.0', '1.0', '2.0', '2.5']
    assert f'{film}: 4.5 s, 24 pictures a second, 4 windows of 2 s' in lines[4]
    assert lines[-2].startswith(f'verb: {shown.verb} ')
    assert lines[-1].startswith(f'noun: {shown.noun} ')
    assert sum(line.startswith(('  V', '  F', '  A')) for line in lines) == 7


def test_a_short_film_is_one_window_and_says_so(capsys, tmp_path, shown):
    write_film(tmp_path / 'short.avi', [shown.frame(0.5, 48, 64)] * 6, 12)
    found = asked(capsys, tmp_path / 'short.avi')
    assert [w['start_s'] for w in found['windows']] == [0.0]
    assert any('shorter than the window of 2 s' in note for note in found['notes'])


def test_a_slow_film_repeats_its_pictures(tmp_path, shown):
    write_film(tmp_path / 'slow.avi', [shown.frame(t, 48, 64) for t in (0, 0.5, 1, 1.5)], 2)
    with VideoClips(tmp_path / 'slow.avi', None) as film:
        serials = [frame.serial for frame in film.frames(ClipSpec(duration=2.0, num_frames=8))]
    assert serials == [0, 0, 1, 1, 2, 2, 3, 3]


def test_a_fast_film_is_thinned_out_to_the_pictures_of_training(tmp_path, shown):
    write_film(tmp_path / 'fast.avi', [shown.frame(0, 48, 64)] * 50, 25)
    with VideoClips(tmp_path / 'fast.avi', None) as film:
        serials = [frame.serial for frame in film.frames(ClipSpec(duration=2.0, num_frames=8))]
    assert serials == [0, 6, 12, 18, 25, 31, 37, 43]


@pytest.mark.parametrize(('count', 'starts'), [
    (1, [0]), (4, [0]), (5, [0, 1]), (6, [0, 2]), (9, [0, 2, 4, 5]), (0, [])])
def test_windows_cover_every_picture(count, starts):
    slots = [SimpleNamespace(serial=i) for i in range(count)]
    found = list(_cut(iter(slots), 4))
    assert [start for start, _ in found] == starts
    assert all(len(frames) == 4 for _, frames in found)
    assert {frame.serial for _, frames in found for frame in frames} == set(range(count))


def refusal(*words):
    with pytest.raises(KarmmaError) as caught:
        predict([str(word) for word in words])
    return str(caught.value)


def test_what_is_no_film_is_a_sentence(tmp_path):
    assert 'a video file that exists' in refusal(tmp_path / 'no.avi')
    (tmp_path / 'text.avi').write_text('not a film')
    assert 'a video that FFmpeg can decode' in refusal(tmp_path / 'text.avi')


def test_a_film_without_pictures_is_a_sentence(tmp_path, film):
    write_film(tmp_path / 'film.avi', [np.zeros((48, 64, 3), np.uint8)] * 3)
    content = bytearray((tmp_path / 'film.avi').read_bytes())
    start = content.index(b'movi') + 4
    content[start:] = bytes(len(content) - start)
    (tmp_path / 'film.avi').write_bytes(content)
    assert 'VIDEO is' in refusal(tmp_path / 'film.avi')


def test_an_unknown_model_names_those_there_are(film):
    assert 'synthetic_kitchen' in refusal(film, '--model', 'nothing')


def test_an_impossible_rate_is_a_sentence(film):
    with pytest.raises(InvalidSettingError, match='frame rate is 0.0'):
        predict([str(film), '--rate', '0'])


def test_sound_that_does_not_fit_is_a_sentence(tmp_path, film):
    assert 'an audio file that exists' in refusal(film, '--audio', tmp_path / 'no.wav')
    (tmp_path / 'text.wav').write_text('not a sound')
    assert 'libsndfile can read' in refusal(film, '--audio', tmp_path / 'text.wav')
    for seconds in (2, 9):
        soundfile.write(tmp_path / 'other.wav', np.zeros(seconds * 8000), 8000)
        sentence = refusal(film, '--audio', tmp_path / 'other.wav')
        assert f'as long as the film, 4.5 s; it lasts {seconds}.0 s' in sentence
    soundfile.write(tmp_path / 'empty.wav', np.zeros(0), 8000)
    assert 'it lasts 0.0 s' in refusal(film, '--audio', tmp_path / 'empty.wav')
