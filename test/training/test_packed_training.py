"""Training on a pack: the same network as from the files, exactly resumed, once an epoch each."""

from dataclasses import replace

import cv2
from karmma_ros.data.cached_windows import CachedWindows
from karmma_ros.data.datasets import clips_digest, DataSettings, open_splits
from karmma_ros.data.packs.array_encoding import LOSSLESS
from karmma_ros.data.packs.pack_writer import write_pack
from karmma_ros.data.packs.shard_store import ShardStore
from karmma_ros.data.samples import Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.media.audio_file import AudioFile
from karmma_ros.media.frames import FrameFolder
from karmma_ros.media.sources import FlowFromVideo
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model.builder import build
from karmma_ros.training import loaders
from karmma_ros.training.checkpoints import CHECKPOINT
from karmma_ros.training.loaders import EpochSampler, training_loader
from karmma_ros.training.module import OptimizerSettings
from karmma_ros.training.run import RunSettings, train
import numpy as np
import pytest
import soundfile
import torch

WINDOWS = 2
SETTINGS = RunSettings(epochs=3, batch_size=4, seed=4, progress=False, keep='last',
                       optimizer=OptimizerSettings(learning_rate=3e-3))


class Killed(Exception):
    """Ends a process."""


@pytest.fixture
def splits(spec, vocabulary, tmp_path):
    """Return twelve training clips of V, F and A of one recording, and four to score."""
    rng = np.random.default_rng(0)
    (tmp_path / 'rgb').mkdir()
    scene = cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (40, 32))
    for i in range(60):
        cv2.imwrite(str(tmp_path / 'rgb' / f'frame_{i + 1:010d}.jpg'), np.roll(scene, i, 1))
    soundfile.write(tmp_path / 'a.wav', rng.normal(0, 0.1, 16_000 * 6), 16_000)
    video = FrameFolder(tmp_path / 'rgb', 10.0)
    segments = [
        LabelledSegment(f's{i}', 0.2 * i, 0.2 * i + 2, {'verb': i % 2, 'noun': i % 4}, {
            Modality.RGB: video, Modality.FLOW: FlowFromVideo(video),
            Modality.AUDIO: AudioFile(tmp_path / 'a.wav')})
        for i in range(16)]
    for segment in segments[::3]:
        del segment.sources[Modality.AUDIO]
    scored = SegmentDataset(segments[12:], spec)
    return Splits('Test', spec, vocabulary, SegmentDataset(segments[:12], spec), scored, scored)


@pytest.fixture
def packed(splits, tmp_path):
    digests = {name: clips_digest(getattr(splits, name), DataSettings())
               for name in ('train', 'validation', 'test')}
    write_pack(splits, ShardStore(str(tmp_path / 'pack')), WINDOWS, LOSSLESS, digests)
    return open_splits(DataSettings(packed=str(tmp_path / 'pack')), None, tmp_path)


def trained(config, splits, folder, settings=SETTINGS, training=None):
    torch.manual_seed(0)
    network = build(config, splits.spec, splits.vocabulary)
    return train(network, training or splits.train, splits.validation, settings, folder)


def assert_equal(ours, theirs):
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values()):
        assert torch.equal(a, b), name


def test_the_trained_network_is_that_of_the_files(config, splits, packed, tmp_path):
    windows = CachedWindows.build(
        splits.train, WINDOWS, PAPER_MODALITIES, tmp_path / 'windows',
        clips_digest(splits.train, DataSettings()))
    ours = trained(config, packed, tmp_path / 'ours', replace(SETTINGS, workers=1))
    theirs = trained(config, splits, tmp_path / 'theirs', training=windows)
    assert_equal(ours, theirs)
    other = trained(config, splits, tmp_path / 'other')  # with a window of its own each epoch
    with pytest.raises(AssertionError):
        assert_equal(ours, other)


def test_a_killed_run_on_a_pack_ends_like_an_unbroken_one(
    config, packed, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, checkpoint_minutes=1e-9)
    unbroken = trained(config, packed, tmp_path / 'unbroken', settings)
    sample, served = type(packed.train).training_sample, []

    def killing(clips, index, epoch):
        served.append((epoch, index))
        if len(served) == 18:  # in the second step of the second epoch
            raise Killed
        return sample(clips, index, epoch)

    monkeypatch.setattr(type(packed.train), 'training_sample', killing)
    with pytest.raises(Killed):
        trained(config, packed, tmp_path / 'stopped', settings)
    assert (tmp_path / 'stopped' / CHECKPOINT).is_file()
    before = served[:16]
    served[:] = [(0, 0)] * 18
    again = trained(config, packed, tmp_path / 'stopped', settings)
    assert len(served) == 18 + 36 - 16  # the steps that were done are not read again
    assert sorted(before + served[18:]) == [(epoch, i) for epoch in range(3) for i in range(12)]
    assert_equal(unbroken, again)


@pytest.mark.parametrize('world', [1, 2, 4])
def test_each_sample_comes_once_an_epoch_over_all_processes(packed, world, monkeypatch):
    for epoch in (0, 1):
        indices = []
        for rank in range(world):
            monkeypatch.setattr(loaders, 'processes', lambda: (rank, world))
            order = EpochSampler(len(packed.train), 4, seed=1)
            order.set_epoch(epoch)
            for batch in training_loader(packed.train, [Modality.RGB], order, 1, 0):
                indices += batch.index.tolist()
        assert sorted(indices) == list(range(12))


def test_samples_are_shuffled_among_a_few_shards_at_a_time():
    shards = [i // 5 for i in range(40)]
    orders = []
    for epoch in (0, 1):
        order = EpochSampler(40, 4, seed=3, shards=shards, group=2)
        order.set_epoch(epoch)
        orders.append([index - 40 * epoch for index in order])
        assert sorted(orders[-1]) == list(range(40))
        groups = [{shards[i] for i in orders[-1][first:first + 10]} for first in range(0, 40, 10)]
        assert all(len(group) == 2 for group in groups)
        assert orders[-1][:10] != sorted(orders[-1][:10])
    assert orders[0] != orders[1]
    resumed = EpochSampler(40, 4, seed=3, step=13, shards=shards, group=2)
    assert [index - 40 for index in resumed] == orders[1][12:]
