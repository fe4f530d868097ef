"""The written form of the synthetic kitchen and its torch data sets."""

from __future__ import annotations

from dataclasses import replace
import json
import pickle

from karmma_ros.clip import ClipSpec
from karmma_ros.data.synthetic_kitchen import dataset
from karmma_ros.data.synthetic_kitchen.dataset import (
    CachedKitchen,
    KitchenSettings,
    LiveKitchen,
    open_split,
    open_splits,
    write_split,
)
from karmma_ros.data.synthetic_kitchen.episode import (
    CAMERA_HZ,
    clip_spec,
    episode,
    frame_times,
    start_of,
)
from karmma_ros.data.synthetic_kitchen.vocabulary import (
    action_of,
    Domain,
    IDLE,
    Split,
    vocabulary,
)
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.storage import METADATA, PROGRESS
import numpy as np
import pytest

COUNT, SEED = 5, 3


@pytest.fixture(scope='module')
def spec() -> ClipSpec:
    """Return a clip small enough to render in a moment."""
    full = clip_spec()
    return replace(full, num_frames=4, video=replace(full.video, height=32, width=32))


@pytest.fixture
def small_chunks(monkeypatch):
    monkeypatch.setattr(dataset, 'CHUNK', 2)


@pytest.fixture(scope='module')
def written(tmp_path_factory, spec):
    return write_split(tmp_path_factory.mktemp('kitchen') / 'test', Split.TEST, COUNT, SEED, spec)


def assert_same(one, other):
    assert one.labels == other.labels
    assert one.clip.modalities == other.clip.modalities == PAPER_MODALITIES
    for modality in PAPER_MODALITIES:
        assert np.array_equal(one.clip.inputs[modality], other.clip.inputs[modality])


def test_read_and_rendered_clips_are_the_same(written, spec):
    read, live = CachedKitchen(written), LiveKitchen(Split.TEST, COUNT, SEED, spec)
    assert len(read) == len(live) == COUNT
    for index in range(COUNT):
        assert_same(read[index], live[index])


def test_samples_have_the_shapes_of_the_specification(written, spec):
    read = CachedKitchen(written)
    assert read.spec == spec
    for modality, values in read[1].clip.inputs.items():
        assert values.shape == spec.input_shape(modality)
        assert values.dtype == np.float32
    assert (read[1].labels['verb'], read[1].labels['noun']) == action_of(Split.TEST, SEED, 1)
    with pytest.raises(IndexError, match=f'clip {COUNT} of {COUNT}'):
        read[COUNT]


def test_a_data_set_is_pickled_as_its_folder(written):
    read = CachedKitchen(written)
    pickled = pickle.dumps(read)
    assert len(pickled) < 1000
    assert_same(pickle.loads(pickled)[0], read[0])


def test_a_split_is_written_once(written, spec, monkeypatch):
    monkeypatch.setattr(dataset, 'render_clip', None)  # rendering again would fail
    assert write_split(written, Split.TEST, COUNT, SEED, spec) == written


def test_several_processes_write_the_same(written, spec, tmp_path, small_chunks):
    calls = []
    folder = write_split(tmp_path / 'again', Split.TEST, COUNT, SEED, spec, workers=2,
                         progress=lambda done, count: calls.append((done, count)))
    for name, values in open_split(written)[1].items():
        assert np.array_equal(values, open_split(folder)[1][name])
    assert calls[0] == (0, COUNT)
    assert calls[-1] == (COUNT, COUNT)


@pytest.mark.parametrize(('change', 'text'), [
    ({'seed': SEED + 1}, 'its seed is 3; expected 4'),
    ({'count': COUNT + 1}, 'its count is 5; expected 6'),
    ({'split': Split.TRAIN}, "its split is 'test'; expected 'train'"),
])
def test_a_split_of_other_settings_is_refused(written, spec, change, text):
    settings = {'split': Split.TEST, 'count': COUNT, 'seed': SEED, **change}
    with pytest.raises(DataError, match=f'{text}: delete it, and it is computed again'):
        write_split(written, spec=spec, **settings)


def test_a_split_of_another_clip_is_refused(written, spec):
    with pytest.raises(DataError, match='its spec is another in flow'):
        write_split(written, Split.TEST, COUNT, SEED,
                    replace(spec, flow=replace(spec.flow, bound=3.0)))


def test_both_domains_have_their_own_folders(spec, tmp_path):
    kitchen, garage = (
        open_splits(KitchenSettings(2, 1, 1, domain=domain.value), spec, tmp_path)
        for domain in Domain)
    assert sorted(path.name for path in tmp_path.iterdir() if path.is_dir()) == [
        'garage_test_1_0', 'garage_train_2_0', 'garage_validation_1_0', 'test_1_0', 'train_2_0',
        'validation_1_0']
    assert garage.vocabulary.heads['noun'] == Domain.GARAGE.nouns
    assert garage.name != kitchen.name
    assert_same(garage.train[1], LiveKitchen(Split.TRAIN, 2, 0, spec, Domain.GARAGE)[1])
    with pytest.raises(DataError, match='its nouns is'):
        write_split(tmp_path / 'garage_test_1_0', Split.TEST, 1, 0, spec)


def test_some_classes_alone_are_the_clips_of_the_full_data_set_that_have_them(spec, tmp_path):
    settings = KitchenSettings(6, 1, 1, idle=0.3, verbs=('mix', 'cut'), nouns=('cup', 'spoon'))
    splits = open_splits(settings, spec, tmp_path)
    assert splits.vocabulary.heads == {
        'verb': ('cut', 'mix', 'nothing'), 'noun': ('spoon', 'cup', 'nothing')}
    episodes = settings.classes.episodes(Split.TRAIN, 0, 6, 0.3)
    assert len(splits.train) == 6 < max(episodes) and (2, 2) in {
        tuple(splits.train.labels(i).values()) for i in range(6)}
    full = LiveKitchen(Split.TRAIN, max(episodes) + 1, 0, spec, idle=0.3)
    for i, index in enumerate(episodes):
        own, same = splits.train[i], full[index]
        assert np.array_equal(own.clip.inputs[Modality.RGB], same.clip.inputs[Modality.RGB])
        names = [splits.vocabulary.heads[head][own.labels[head]] for head in own.labels]
        assert names == [vocabulary(idle=True).heads[head][same.labels[head]]
                         for head in own.labels]
        audio = splits.train.arrays(i)[Modality.AUDIO]
        assert np.array_equal(audio, episode(Split.TRAIN, 0, index, idle=0.3).audio(
            start_of(Split.TRAIN, 0, index), spec.duration, spec.audio.sample_rate))


@pytest.mark.parametrize(('classes', 'text'), [
    ({'verbs': ('fry',)}, "synthetic_kitchen.verbs is 'fry'; expected wash, cut"),
    ({'nouns': ('hammer',)}, "synthetic_kitchen.nouns is 'hammer'; expected spoon"),
    ({'nouns': ('hammer', 'pan'), 'domain': 'garage'}, "nouns is 'pan'; expected hammer")])
def test_classes_that_the_domain_lacks_are_named(classes, text):
    with pytest.raises(InvalidSettingError, match=text):
        KitchenSettings(**classes)


def test_a_wrong_domain_is_named():
    with pytest.raises(InvalidSettingError, match=(
            "synthetic_kitchen.domain is 'barn'; expected kitchen, garage")):
        KitchenSettings(domain='barn')


def test_idle_clips_are_the_background_class_of_both_heads(spec, tmp_path):
    splits = open_splits(KitchenSettings(4, 2, 2, idle=0.5), spec, tmp_path)
    assert splits.vocabulary.background == IDLE
    assert splits.vocabulary.sizes == {'verb': 9, 'noun': 11}
    assert [splits.train[i].labels == {'verb': 8, 'noun': 10} for i in range(4)] == [
        False, True, False, True]
    live = LiveKitchen(Split.TRAIN, 4, 0, spec, idle=0.5)
    assert_same(splits.train[1], live[1])
    plain = open_splits(KitchenSettings(4, 2, 2), spec, tmp_path)  # another folder
    assert plain.vocabulary.background == ''


@pytest.mark.parametrize('idle', [-0.1, 1.0, float('nan')])
def test_an_impossible_fraction_of_idle_clips_is_named(idle):
    with pytest.raises(InvalidSettingError, match='synthetic_kitchen.idle is .*; expected a frac'):
        KitchenSettings(idle=idle)


def test_a_split_of_another_version_is_refused(written, monkeypatch):
    monkeypatch.setattr(dataset, 'VERSION', dataset.VERSION + 1)
    with pytest.raises(DataError, match='its version is'):
        CachedKitchen(written)


def test_an_incomplete_split_is_refused_and_then_finished(written, spec, tmp_path, small_chunks,
                                                      monkeypatch):
    render, seen = dataset.render_clip, []

    def until_the_power_fails(split, seed, index, *rest):
        if index == 3 and 3 not in seen:
            seen.append(index)
            raise KeyboardInterrupt
        seen.append(index)
        return render(split, seed, index, *rest)

    monkeypatch.setattr(dataset, 'render_clip', until_the_power_fails)
    folder = tmp_path / 'stopped'
    with pytest.raises(KeyboardInterrupt):
        write_split(folder, Split.TEST, COUNT, SEED, spec)
    with pytest.raises(DataError, match='it is not complete: run the command'):
        CachedKitchen(folder)
    seen.clear()
    seen.append(3)
    write_split(folder, Split.TEST, COUNT, SEED, spec)
    assert seen == [3, 2, 3, 4]  # the first chunk was done
    for name, values in open_split(written)[1].items():
        assert np.array_equal(values, open_split(folder)[1][name])


def test_a_split_of_other_settings_is_not_continued(spec, tmp_path, small_chunks):
    folder = tmp_path / 'stopped'
    partial = tmp_path / 'stopped.partial'
    write_split(folder, Split.TEST, COUNT, SEED + 1, spec)
    folder.rename(partial)
    (partial / PROGRESS).write_text('0 2\n2 4\n4 5\n')
    write_split(folder, Split.TEST, COUNT, SEED, spec)
    assert_same(CachedKitchen(folder)[0], LiveKitchen(Split.TEST, COUNT, SEED, spec)[0])


def test_a_damaged_split_is_refused(written, spec, tmp_path):
    with pytest.raises(DataError, match='there is no such folder'):
        CachedKitchen(tmp_path / 'none')
    folder = write_split(tmp_path / 'one', Split.TEST, 1, SEED, spec)
    metadata = (folder / METADATA).read_text()
    (folder / METADATA).write_text(metadata[:20])
    with pytest.raises(DataError, match='no readable metadata.json'):
        CachedKitchen(folder)
    (folder / METADATA).write_text(json.dumps({**json.loads(metadata), 'count': 2}))
    with pytest.raises(DataError, match='does not fit metadata.json'):
        CachedKitchen(folder)
    (folder / METADATA).write_text(metadata)
    (folder / 'flow.npy').write_bytes(b'not an array')
    with pytest.raises(DataError, match='flow.npy is damaged'):
        CachedKitchen(folder)
    (folder / 'flow.npy').unlink()
    with pytest.raises(DataError, match='flow.npy is missing'):
        CachedKitchen(folder)


@pytest.mark.parametrize(('count', 'workers', 'name'), [(0, 1, 'count'), (4, 0, 'workers')])
def test_a_count_or_a_number_of_workers_of_0_is_refused(tmp_path, spec, count, workers, name):
    with pytest.raises(InvalidSettingError, match=f'{name} is 0'):
        write_split(tmp_path / 'x', Split.TEST, count, 0, spec, workers=workers)
    assert not any(tmp_path.iterdir())


def test_frames_are_the_first_the_camera_took_in_each_slot():
    spec = clip_spec()
    times = np.array(frame_times(start_of(Split.TRAIN, 0, 0), spec))
    slots = start_of(Split.TRAIN, 0, 0) + np.arange(spec.num_frames) / 8
    assert ((times >= slots - 1e-5) & (times < slots + 1 / CAMERA_HZ)).all()
    assert np.allclose(times * CAMERA_HZ, np.rint(times * CAMERA_HZ))


def test_only_the_wanted_modalities_are_prepared(written):
    full, some = CachedKitchen(written), CachedKitchen(written).with_modalities([Modality.AUDIO])
    for clips in (some, pickle.loads(pickle.dumps(some))):
        assert clips[1].clip.modalities == (Modality.AUDIO,)
        assert np.array_equal(clips[1].clip.inputs[Modality.AUDIO],
                              full[1].clip.inputs[Modality.AUDIO])
