"""Content checks of a bag add warnings to the report; rejected inputs are in no window."""

from contextlib import closing
from dataclasses import replace
import io
import wave

from karmma_ros.bags.audio_infos import earlier_files
from karmma_ros.bags.evaluate import evaluate_bag, Settings
from karmma_ros.bags.faults import parse_corrupt
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import choose_topics, parse_topics
from karmma_ros.bags.training_clips import extract_recordings
from karmma_ros.bags.writer import BagWriter
from karmma_ros.clip import ClipSpec
from karmma_ros.data.labels.label_file import ActionLabel, write_label_file
from karmma_ros.data.recordings import BagSettings, WindowClips
from karmma_ros.errors import InvalidSettingError
from karmma_ros.labelling.bag_view import BagView
from karmma_ros.modality import listed, Modality, PAPER_MODALITIES
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import only, preset
from karmma_ros.model.registry import find_model
from karmma_ros.prediction import Vocabulary
from karmma_ros.stream.settings import node_parameters
import numpy as np
import pytest
from sensor_data import pixels

S = 1_000_000_000
START = 1_700_000_000 * S
V, F, A, D = range(4)
INFO = 'audio_common_msgs/msg/AudioInfo'


@pytest.fixture(scope='module')
def bundle():
    return load_bundle(find_model('synthetic_kitchen'))


def write(path, rate=16_000, boxes=((10, 10, 30, 20),), info=None, seconds=3, start_ns=START,
          info_topic='/audio_info'):
    """Write a bag of boxes, a few images, and audio in chunks of 32 ms."""
    random = np.random.default_rng(0)
    with BagWriter(path) as bag:
        if info:
            store = bag._types.store(INFO).types
            bag._write(info_topic, INFO, start_ns, store[INFO](**info))
        for i in range(seconds * 10):
            stamp_ns = start_ns + i * S // 10
            bag.image(stamp_ns, pixels(48, 64))
            bag.detections(stamp_ns, np.array(boxes) + random.uniform(0, 1e-3),
                           ['hand'] * len(boxes))
            first = i * rate // 10
            count = (i + 1) * rate // 10 - first
            samples = np.sin(np.arange(first, first + count) / 7).astype(np.float32)
            bag.audio(start_ns + first * S // rate, samples, stamp_ns + S // 10)
    return path


def evaluated(path, bundle, bags=(), topics=(), **values):
    given_values = {name.replace('__', '.'): value for name, value in values.items()}
    values = {**node_parameters(), 'rate': 2.5, **given_values}
    result = evaluate_bag(path, bundle, Settings(
        values, topics=parse_topics(topics), bags=tuple(bags)), None)
    return result.info.warnings, next(iter(result.predictions.values())).present.any(axis=0)


def test_a_bag_with_nothing_wrong_has_no_warning(bundle, tmp_path):
    warnings, present = evaluated(write(tmp_path / 'good.mcap'), bundle)
    assert warnings == [] and present.all()


def test_audio_at_another_rate_is_in_the_report_and_in_no_window(bundle, tmp_path):
    bag = write(tmp_path / 'fast.mcap', 48_000)
    warnings, present = evaluated(bag, bundle)
    assert len(warnings) == 2 and not present[A] and present[[V, F, D]].all()
    text, _, seconds = warnings[0].partition(' (second ')
    assert text == ('audio comes at about 48000 samples per second, expected 16000: set '
                    'audio.sample_rate (48000) or audio.channels (3)')
    assert seconds.endswith('to 2.8)')
    assert warnings[1] == 'audio is in no window'
    warnings, present = evaluated(bag, bundle, audio__sample_rate=48_000)
    assert warnings == [] and present[A]


def test_boxes_in_fractions_are_in_the_report_and_in_no_window(bundle, tmp_path):
    bag = write(tmp_path / 'fractions.mcap', boxes=((0.1, 0.2, 0.4, 0.5),))
    warnings, present = evaluated(bag, bundle)
    assert 'set detections.normalised to true (second ' in warnings[0]
    assert warnings[1:] == ['detections is in no window'] and not present[D]
    warnings, present = evaluated(bag, bundle, detections__normalised=True)
    assert warnings == [] and present[D]


STEREO = dict(sample_rate=48_000, channels=1, sample_format='S16LE', coding_format='wave',
              bitrate=0)


def test_a_file_of_a_split_bag_uses_the_audio_format_of_an_earlier_one(bundle, tmp_path):
    parts = [write(tmp_path / 'kitchen_0.mcap', 48_000, info=STEREO),
             write(tmp_path / 'kitchen_1.mcap', 48_000, start_ns=START + 3 * S)]
    warnings, present = evaluated(parts[1], bundle, parts)
    assert warnings == ['audio_info: from an earlier file, kitchen_0.mcap']
    assert present[A]
    warnings, present = evaluated(parts[1], bundle)
    assert 'audio comes at about 48000' in warnings[0] and not present[A]


def test_a_named_audio_format_may_be_in_an_earlier_file(bundle, tmp_path):
    parts = [write(tmp_path / 'kitchen_0.mcap', 48_000, info=STEREO),
             write(tmp_path / 'kitchen_1.mcap', 48_000, start_ns=START + 3 * S,
                   info={**STEREO, 'sample_rate': 8_000}, info_topic='/other/audio_info')]
    warnings, present = evaluated(parts[1], bundle, parts, ['audio_info=/audio_info'])
    assert warnings == ['audio_info: from an earlier file, kitchen_0.mcap'] and present[A]
    for given, name in ((parts[1:], '/audio_info'), (parts, '/nowhere')):
        with pytest.raises(InvalidSettingError, match=f'audio_info.*{name}.*a topic of the bag'):
            evaluated(parts[1], bundle, given, [f'audio_info={name}'])


def test_the_label_page_takes_a_named_audio_format_of_an_earlier_file(tmp_path):
    parts = [write(tmp_path / 'kitchen_0.mcap', 48_000, info=STEREO),
             write(tmp_path / 'kitchen_1.mcap', 48_000, start_ns=START + 3 * S)]
    values, named = node_parameters(), parse_topics(['audio_info=/audio_info'])
    with closing(BagView(parts[1], values, named, parts)) as view:
        assert 'audio_info' not in view.choice.topics
        with wave.open(io.BytesIO(view.wav(0, 1))) as file:
            assert file.getframerate() == 48_000
    with pytest.raises(InvalidSettingError, match='/audio_info'):
        BagView(parts[1], values, named)


def test_clips_for_training_use_it_too_and_note_what_is_rejected(bundle, tmp_path):
    write(tmp_path / 'kitchen_0.mcap', 48_000, info=STEREO)
    write(tmp_path / 'kitchen_1.mcap', 48_000, start_ns=START + 3 * S)
    write_label_file(tmp_path / 'labels.csv', [ActionLabel('kitchen_1', 0, 3, {'action': 'cut'})])
    for files, has_audio in ((tmp_path, True), (tmp_path / 'kitchen_1.mcap', False)):
        settings = BagSettings((str(files),), str(tmp_path / 'labels.csv'), windows=1)
        for _ in range(2):  # computed, and of the cache
            recording, = extract_recordings(settings, bundle.spec, tmp_path / 'cache')
            assert (Modality.AUDIO in WindowClips(recording, 1)[0].clip.modalities) == has_audio
            notes = [line for line in recording.notes
                     if line.startswith('kitchen_1.mcap: audio comes at about 48000 samples')]
            assert len(notes) == (not has_audio)


LEFT, RIGHT = Modality('audio_left'), Modality('audio_right')


@pytest.fixture(scope='module')
def stereo_bundle(tmp_path_factory):
    """Return a model of two microphones, with random weights."""
    spec, config = ClipSpec(duration=2.0, num_frames=8), only(preset('tiny'), [LEFT, RIGHT])
    words = Vocabulary({'verb': ('cut', 'wash')})
    path = tmp_path_factory.mktemp('models') / 'stereo'
    save_bundle(path, build(config, spec, words), config, spec, words, dataset='random', card='')
    return load_bundle(path)


def write_microphones(path, rates, infos=True, start_ns=START, seconds=3, bare=False):
    """Write a bag of microphones that have a namespace each, in reverse order of their names."""
    with BagWriter(path) as bag:
        types = bag._types.store(INFO).types
        if bare:  # a microphone without a format
            bag.topics = replace(bag.topics, audio='/bare/audio')
            bag.audio(start_ns, np.zeros(1600, np.float32), start_ns + S // 10)
        for name, rate in sorted(rates.items(), reverse=True):
            if infos:
                bag._write(f'/{name}/audio_info', INFO, start_ns,
                           types[INFO](**{**STEREO, 'sample_rate': rate}))
        for i in range(seconds * 10):
            for name, rate in rates.items():
                first, count = i * rate // 10, rate // 10
                bag.topics = replace(bag.topics, audio=f'/{name}/audio')
                bag.audio(start_ns + first * S // rate,
                          np.sin(np.arange(first, first + count) / 7).astype(np.float32),
                          start_ns + (i + 1) * S // 10)
    return path


def test_each_microphone_has_the_format_of_its_namespace(stereo_bundle, tmp_path):
    rates = {'left': 48_000, 'right': 32_000}
    named = {'audio_left': '/left/audio', 'audio_right': '/right/audio'}
    path = write_microphones(tmp_path / 'kitchen_0.mcap', rates)
    later = write_microphones(
        tmp_path / 'kitchen_1.mcap', rates, infos=False, start_ns=START + 3 * S)
    values = {**node_parameters(modalities=[LEFT, RIGHT]), 'rate': 2.5}
    for bag, bags, files in ((path, (), 0), (later, (path, later), 2), (later, (), None)):
        result = evaluate_bag(bag, stereo_bundle, Settings(values, topics=named, bags=bags), None)
        columns = [listed((LEFT, RIGHT)).index(m) for m in (LEFT, RIGHT)]
        present = next(iter(result.predictions.values())).present[:, columns]
        if files is None:
            assert len(present) == 0 or not present.any()
            assert 'audio_left: audio comes at about 48000' in ' '.join(result.info.warnings)
            continue
        assert present.any(axis=0).all(), result.info.warnings
        assert [line.partition(':')[0] for line in result.info.warnings] == [
            'audio_info_left', 'audio_info_right'][:files]


def test_a_topic_of_a_format_can_be_named_for_each_microphone(tmp_path):
    path = write_microphones(tmp_path / 'bag.mcap', {'left': 48_000, 'right': 32_000})
    assert parse_topics(['audio_info_left=/right/audio_info']) == {
        'audio_info_left': '/right/audio_info'}
    with Bag(path) as bag:
        topics = choose_topics(bag, {
            'audio_left': '/left/audio', 'audio_right': '/right/audio',
            'audio_info_left': '/right/audio_info', 'audio_info_right': 'none',
        }, (LEFT, RIGHT)).topics
    assert {role: topic.name for role, topic in topics.items()} == {
        'audio_left': '/left/audio', 'audio_right': '/right/audio',
        'audio_info_left': '/right/audio_info'}


def test_one_format_may_be_that_of_two_microphones(stereo_bundle, tmp_path):
    path = write_microphones(tmp_path / 'bag.mcap', {'left': 48_000, 'right': 48_000})
    topics = {'audio_left': '/left/audio', 'audio_right': '/right/audio',
              'audio_info_left': '/left/audio_info', 'audio_info_right': '/left/audio_info'}
    values = {**node_parameters(modalities=[LEFT, RIGHT]), 'rate': 2.5}
    result = evaluate_bag(path, stereo_bundle, Settings(values, topics=topics), None)
    assert result.info.warnings == []
    present = next(iter(result.predictions.values())).present
    assert sorted(present.any(axis=0).nonzero()[0]) == [
        listed((LEFT, RIGHT)).index(m) for m in (LEFT, RIGHT)]


@pytest.mark.parametrize(('modalities', 'named', 'wanted'), [
    # A single microphone has the format of its namespace, whichever topic comes first.
    ((Modality.AUDIO,), {'audio': '/right/audio'}, {'audio_info': '/right/audio_info'}),
    ((Modality.AUDIO,), {'audio': '/left/audio'}, {'audio_info': '/left/audio_info'}),
    # The format of another microphone is not taken.
    ((Modality.AUDIO, RIGHT), {'audio': '/bare/audio', 'audio_right': '/right/audio',
                               'audio_info_right': '/right/audio_info'},
     {'audio_info_right': '/right/audio_info'}),
])
def test_the_format_of_the_namespace_is_chosen(tmp_path, modalities, named, wanted):
    rates = {'right': 32_000} if '/bare/audio' in named.values() else {
        'left': 48_000, 'right': 32_000}
    path = write_microphones(tmp_path / 'bag.mcap', rates, bare=True)
    with Bag(path) as bag:
        topics = choose_topics(bag, named, modalities).topics
    assert {r: t.name for r, t in topics.items() if r.startswith('audio_info')} == wanted


def test_a_format_of_no_microphone_is_refused(tmp_path):
    path = write_microphones(tmp_path / 'bag.mcap', {'left': 48_000})
    with Bag(path) as bag, pytest.raises(InvalidSettingError, match=(
            "--topics is 'audio_info_lfet'; expected the audio format of a microphone: "
            'audio_info_left')):
        choose_topics(bag, {'audio_info_lfet': '/x'}, (LEFT,))


def test_earlier_files_are_those_of_the_same_bag_latest_first(tmp_path):
    names = ['k_0.mcap', 'k_2.mcap', 'k_10.mcap', 'k_9.mcap', 'other_1.mcap', 'k_1.db3', 'k.mcap',
             'k_3.mcap.zstd', 'folder']
    given = [tmp_path / name for name in names]
    assert [p.name for p in earlier_files(tmp_path / 'k_10.mcap', given)] == [
        'k_9.mcap', 'k_3.mcap.zstd', 'k_2.mcap', 'k_0.mcap']
    assert earlier_files(tmp_path / 'k.mcap', given) == []
    assert earlier_files(tmp_path / 'sub' / 'k_10.mcap', given) == []


def test_the_names_of_other_bags_do_not_change_the_settings():
    settings = Settings(node_parameters())
    assert replace(settings, bags=('a',)).to_dict() == settings.to_dict()
    assert list(PAPER_MODALITIES)[A] is Modality.AUDIO


def corrupted(path, bundle, *texts, seed=0):
    """Return the conditions and predictions, as recorded and with faults."""
    values = {**node_parameters(), 'rate': 2.5}
    # The last digits of a prediction depend on the batch.
    settings = Settings(
        values, batch_size=1, faults=(tuple(map(parse_corrupt, texts)),), seed=seed)
    result = evaluate_bag(path, bundle, settings, None)
    return list(result.predictions.items())


@pytest.mark.parametrize(('text', 'masked'), [
    ('camera=covered', [V, F]), ('camera=black', [V, F]), ('camera=frozen', [V, F]),
    ('microphone=silence', [A]), ('detections=stuck', [D]), ('detections=missing_boxes', []),
    ('microphone=hiss:1', []),
])
def test_the_content_checks_judge_corrupted_data(bundle, tmp_path, text, masked):
    (_, plain), (condition, table) = corrupted(write(tmp_path / 'good.mcap'), bundle, text)
    assert plain.present[-1].all()
    assert np.flatnonzero(~table.present[-1]).tolist() == masked
    assert condition.name == text.replace('camera', 'rgb').replace('microphone', 'audio').replace(
        '=', ' ').replace(':', ' of severity ')
    assert condition.parameters['faults'] == [condition.name]


def test_data_is_corrupted_in_its_interval_alone_and_the_same_each_time(bundle, tmp_path):
    bag = write(tmp_path / 'good.mcap', seconds=6)
    (_, plain), (_, noisy) = corrupted(bag, bundle, 'camera=noise:5@3s..')
    _, (_, again) = corrupted(bag, bundle, 'camera=noise:5@3s..')
    _, (_, other) = corrupted(bag, bundle, 'camera=noise:5@3s..', seed=1)
    before = plain.inference_ns < START + 3 * S
    for head, p in plain.probabilities.items():
        assert np.array_equal(p[before], noisy.probabilities[head][before])
        assert not np.allclose(p[-1], noisy.probabilities[head][-1])
        assert np.array_equal(noisy.probabilities[head], again.probabilities[head])
        assert not np.array_equal(noisy.probabilities[head], other.probabilities[head])
