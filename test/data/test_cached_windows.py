"""Windows on disk: the same samples as from the files, resumed, and prepared anew when due."""

from dataclasses import replace
import pickle
import shutil
import warnings

from karmma_ros.clip import ClipSpec
from karmma_ros.data import cached_windows
from karmma_ros.data.cached_windows import CachedWindows
from karmma_ros.data.datasets import cache_windows, clips_digest, DataSettings
from karmma_ros.data.samples import Splits, with_modalities
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.errors import DataError
from karmma_ros.media.depth_video import DepthArray
from karmma_ros.media.series_file import SeriesFile
from karmma_ros.modality import Modality
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest

IMU, DEPTH = Modality('imu'), Modality('depth')
SPEC = ClipSpec(duration=1.0, num_frames=4, inputs={
    'imu': {'samples': 16}, 'depth': {'height': 8, 'width': 8}})


@pytest.fixture
def segments(tmp_path):
    """Return five segments; the second lacks depth, the imu of the third cannot be read."""
    rng = np.random.default_rng(0)
    segments = []
    for i in range(5):
        imu, depth = tmp_path / f'imu{i}.npy', tmp_path / f'depth{i}.npy'
        np.save(imu, rng.random((300, 6), np.float32))
        np.save(depth, rng.integers(500, 3000, (30, 10, 12), np.uint16))
        if i == 2:
            imu.write_bytes(b'nothing')
        sources = {IMU: SeriesFile(imu, 100.0), DEPTH: DepthArray(depth, fps=10.0)}
        if i == 1:
            del sources[DEPTH]
        segments.append(LabelledSegment(f's{i}', 0.2, 2.8, {'action': i}, sources))
    return segments


@pytest.fixture
def clips(segments):
    return SegmentDataset(segments, SPEC, seed=3)


def build(clips, folder, windows=3, modalities=(IMU, DEPTH), **options):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return CachedWindows.build(clips, windows, modalities, folder,
                                   clips_digest(clips, DataSettings()), **options)


def assert_equal(sample, wanted):
    assert (sample.labels, sample.index) == (wanted.labels, wanted.index)
    assert list(sample.clip.inputs) == list(wanted.clip.inputs)
    for modality, x in wanted.clip.inputs.items():
        assert sample.clip.inputs[modality].dtype == x.dtype
        np.testing.assert_array_equal(sample.clip.inputs[modality], x)


@pytest.fixture
def prepared(monkeypatch):
    """Return the rows that are prepared from now on."""
    rows = []
    read = cached_windows._read

    def recorded(clips, windows, row):
        rows.append(row)
        return read(clips, windows, row)

    monkeypatch.setattr(cached_windows, '_read', recorded)
    return rows


@pytest.mark.filterwarnings('ignore:missing from its samples')
@pytest.mark.parametrize('workers', [1, 2])
def test_samples_are_those_of_the_data_set(clips, tmp_path, monkeypatch, workers):
    monkeypatch.setattr(cached_windows, '_MOST_ROWS', 4)
    cached = build(clips, tmp_path / 'train', workers=workers)
    scored = build(clips, tmp_path / 'test', 0)
    assert len(cached) == 5 and cached.segments is clips.segments
    for index in range(5):
        for epoch in range(7):
            assert_equal(cached.training_sample(index, epoch),
                         clips.training_sample(index, epoch % 3))
        for each in (cached, scored):
            assert_equal(each[index], clips[index])
    with pytest.raises(IndexError):
        cached.training_sample(5, 0)
    with pytest.raises(IndexError):
        scored[5]


@pytest.mark.filterwarnings('ignore:missing from its samples')
def test_samples_come_from_the_disk_alone(clips, tmp_path):
    wanted = clips.training_sample(4, 1)
    cached = build(clips, tmp_path / 'train')
    for path in tmp_path.glob('*.npy'):
        path.unlink()
    assert_equal(cached.training_sample(4, 1), wanted)
    again = pickle.loads(pickle.dumps(cached))
    assert len(pickle.dumps(cached)) < 10_000
    assert_equal(again.training_sample(4, 1), wanted)
    again.training_sample(4, 1).clip.inputs[IMU][:] = 0  # a copy
    assert_equal(again.training_sample(4, 1), wanted)


def test_what_cannot_be_read_is_absent_and_named_once(clips, tmp_path):
    for _ in range(2):  # prepared, and found
        with pytest.warns(UserWarning, match=r'missing from its samples: .*imu2\.npy') as caught:
            cached = CachedWindows.build(
                replaced(clips), 3, [IMU, DEPTH], tmp_path / 'train', 'digest')
        assert len([each for each in caught if 'missing' in str(each.message)]) == 1
        assert cached.unreadable == {str(tmp_path / 'imu2.npy'): 3}
        assert list(cached.training_sample(2, 0).clip.inputs) == [DEPTH]
        assert list(cached.training_sample(1, 0).clip.inputs) == [IMU]
    with pytest.raises(DataError, match=r'imu2\.npy.*s2, imu'):
        with_modalities(cached, [IMU]).training_sample(2, 0)


def replaced(clips, **fields):
    return SegmentDataset(**{'segments': clips.segments, 'spec': clips.spec, 'seed': clips.seed,
                             **fields})


def test_with_skip_unreadable_false_it_is_an_error(clips, tmp_path):
    with pytest.raises(DataError, match=r's2, imu'):
        build(replaced(clips, skip_unreadable=False), tmp_path / 'train')


def test_some_modalities_can_be_selected(clips, tmp_path):
    cached = build(clips, tmp_path / 'train')
    alone = with_modalities(cached, [DEPTH])
    assert_equal(alone.training_sample(0, 1),
                 clips.with_modalities([DEPTH]).training_sample(0, 1))
    assert not alone.training_sample(1, 0).clip.inputs  # it has none
    assert list(cached.training_sample(0, 1).clip.inputs) == [IMU, DEPTH]
    # What is not on disk is read from the files.
    part = build(clips, tmp_path / 'part', modalities=[DEPTH])
    assert not (tmp_path / 'part' / 'imu').exists()
    assert_equal(part.training_sample(0, 4), clips.training_sample(0, 1))


def test_a_stopped_run_is_continued(clips, tmp_path, monkeypatch, prepared):
    monkeypatch.setattr(cached_windows, '_MOST_ROWS', 4)

    def stop(task, done, total):
        if done == 8:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        build(clips, tmp_path / 'train', modalities=[DEPTH], progress=stop)
    assert prepared == list(range(8)) and not (tmp_path / 'train' / 'depth').exists()
    prepared.clear()
    calls = []
    cached = build(clips, tmp_path / 'train', modalities=[DEPTH],
                   progress=lambda *call: calls.append(call))
    assert prepared == list(range(8, 15))
    assert calls == [('windows of train: depth (46.1 kB)', done, 15) for done in (8, 12, 15)]
    depth = clips.with_modalities([DEPTH])
    assert_equal(with_modalities(cached, [DEPTH]).training_sample(0, 0),
                 depth.training_sample(0, 0))
    prepared.clear()
    build(clips, tmp_path / 'train', modalities=[DEPTH])
    assert prepared == []


@pytest.mark.parametrize('change', ['windows', 'seed', 'spec', 'file', 'segment'])
def test_other_windows_are_prepared_anew(clips, tmp_path, prepared, change):
    build(clips, tmp_path / 'train', modalities=[DEPTH])
    prepared.clear()
    windows = 3
    if change == 'windows':
        windows = 2
    elif change == 'seed':
        clips = replaced(clips, seed=4)
    elif change == 'spec':
        clips = replaced(clips, spec=replace(
            SPEC, inputs={**SPEC.inputs, DEPTH: {'height': 8, 'width': 8, 'far': 2.0}}))
    elif change == 'file':
        np.save(tmp_path / 'depth0.npy', np.full((30, 10, 12), 700, np.uint16))
    else:
        clips = replaced(clips, segments=[
            replace(clips.segments[0], start_s=0.5), *clips.segments[1:]])
    cached = build(clips, tmp_path / 'train', windows, [DEPTH])
    assert prepared == list(range(5 * windows))
    depth = clips.with_modalities([DEPTH])
    for epoch in range(windows):
        assert_equal(with_modalities(cached, [DEPTH]).training_sample(0, epoch),
                     depth.training_sample(0, epoch))


def test_windows_that_another_run_replaces_are_not_mistaken(clips, tmp_path):
    cached = build(clips, tmp_path / 'train', 3, [DEPTH])
    build(clips, tmp_path / 'train', 2, [DEPTH])
    with pytest.raises(DataError, match='another run has replaced it'):
        pickle.loads(pickle.dumps(cached))


def test_a_disk_without_space_is_reported_first(clips, tmp_path, monkeypatch):
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, 'disk_usage', lambda path: usage._replace(free=60_000))
    build(clips, tmp_path / 'train', 3, [DEPTH])
    with pytest.raises(DataError, match=r'need 61\.5 kB, and the disk has 60\.0'):
        build(clips, tmp_path / 'train', 4, [DEPTH])


@pytest.mark.filterwarnings('ignore:missing from its samples')
def test_the_splits_of_a_data_set_are_cached(segments, tmp_path):
    clips = SegmentDataset(segments, SPEC)
    other = SegmentDataset(segments[:2], SPEC)
    vocabulary = Vocabulary({'action': ('a', 'b', 'c', 'd', 'e')})
    splits = Splits('name', SPEC, vocabulary, clips, other, other)
    assert cache_windows(splits, DataSettings(), [IMU], tmp_path / 'cache') is splits
    settings = DataSettings(windows=2)
    cached = cache_windows(splits, settings, [IMU, DEPTH], tmp_path / 'cache')
    assert cached.validation is cached.test and cached.name == 'name'
    assert {str(p.relative_to(tmp_path / 'cache')) for p in (tmp_path / 'cache').rglob('*.npy')} \
        == {f'windows/{split}/{modality}/{array}.npy' for split in ('train', 'validation')
            for modality in ('imu', 'depth') for array in ('input', 'present')}
    assert clips_digest(cached.train, settings) == clips_digest(clips, settings)
    assert_equal(cached.test[1], other[1])
