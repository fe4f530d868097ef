"""Cached outputs of frozen networks: equal to computing them anew, resumed when interrupted."""

from dataclasses import replace

from karmma_ros.clip import Clip
from karmma_ros.data.samples import Sample
from karmma_ros.errors import DataError
from karmma_ros.modality import Modality, PAPER_MODALITIES, subsets
from karmma_ros.model.builder import build
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.module import OptimizerSettings
from karmma_ros.training.precomputed import (
    CrossFittedTeacher,
    FeatureCache,
    Inference,
    network_on_tokens,
    TeacherLogitCache,
)
from karmma_ros.training.run import RunSettings, train
from karmma_ros.training.teacher import FrozenTeacher
import numpy as np
import pytest
import torch


class Interrupted(Exception):
    """Ends a process half-way."""


class Few:
    """Eleven clips; each third one lacks the flow."""

    def __init__(self, spec, break_at=None):
        self.spec, self.break_at, self.served = spec, break_at, 0

    def __len__(self):
        return 11

    def __getitem__(self, index):
        self.served += 1
        if index == self.break_at:
            raise Interrupted
        rng = np.random.default_rng(index)
        clip = {m: rng.random(self.spec.input_shape(m), np.float32) for m in PAPER_MODALITIES}
        clip[Modality.DETECTIONS][..., 4] = 1
        if index % 3 == 0:
            clip.pop(Modality.FLOW)
        return Sample(Clip(clip), {'verb': index % 3, 'noun': index % 4})

    def training_sample(self, index, epoch):
        return self[index]


def batches(clips, network, size=4):
    return list(scoring_loader(clips, network.modalities, size))


@torch.no_grad()
def test_logits_from_cached_tokens_are_those_from_the_clips(network, spec, tmp_path):
    clips = FeatureCache.build(tmp_path / 'tokens', network, Few(spec), 'few')
    fusion = network_on_tokens(network, clips)
    for original, kept in zip(batches(Few(spec), network), batches(clips, network)):
        assert torch.equal(original.present, kept.present)
        assert original.labels['noun'].tolist() == kept.labels['noun'].tolist()
        wanted = network(original.inputs, original.present)
        for head, logits in fusion(kept.inputs, kept.present).items():
            torch.testing.assert_close(logits, wanted[head], rtol=2e-3, atol=2e-3)  # of float16


@torch.no_grad()
def test_cached_logits_are_the_teachers_own(network, spec, tmp_path):
    frozen = FrozenTeacher(network)
    cached = TeacherLogitCache.build(
        tmp_path / 'logits', network, Few(spec), 'few', Inference(batch_size=3))
    assert cached.modalities == frozen.modalities and not cached.reads
    for batch in batches(Few(spec), network):
        for subset in subsets(PAPER_MODALITIES):
            masks = {
                m: batch.present[:, i] & (m in subset) for i, m in enumerate(PAPER_MODALITIES)
            }
            if not torch.stack(list(masks.values())).any(0).all():
                continue
            wanted = frozen(batch, masks)
            for head, logits in cached(batch, masks).items():
                torch.testing.assert_close(logits, wanted[head], rtol=1e-4, atol=1e-5)
    alone = cached(batch, {Modality.RGB: torch.ones(len(batch), dtype=torch.bool)})
    everything = frozen(batch, {m: batch.present[:, i] for i, m in enumerate(PAPER_MODALITIES)})
    torch.testing.assert_close(alone['verb'], everything['verb'], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_a_cross_fitted_clip_has_the_logits_of_the_teacher_without_its_fold(
    network, config, spec, vocabulary, tmp_path
):
    torch.manual_seed(8)
    networks = {'anna': network, 'ben': build(config, spec, vocabulary).eval()}
    caches = {name: TeacherLogitCache.build(tmp_path / name, each, Few(spec), 'few')
              for name, each in networks.items()}
    folds = ['anna', 'ben', 'ben'] * 3 + ['anna', 'anna']
    teacher = CrossFittedTeacher(caches, folds)
    assert teacher.modalities == network.modalities and not teacher.reads
    for batch in batches(Few(spec), network):
        masks = {m: batch.present[:, i] for i, m in enumerate(PAPER_MODALITIES)}
        wanted = {name: FrozenTeacher(each)(batch, masks) for name, each in networks.items()}
        for head, logits in teacher(batch, masks).items():
            expected = torch.stack([
                wanted[folds[index]][head][row] for row, index in enumerate(batch.index.tolist())])
            torch.testing.assert_close(logits, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('cache', [FeatureCache, TeacherLogitCache])
def test_an_interrupted_run_resumes(network, spec, tmp_path, cache):
    with pytest.raises(Interrupted):
        cache.build(tmp_path / 'kept', network, Few(spec, break_at=9), 'few',
                    Inference(batch_size=4))
    assert not (tmp_path / 'kept').exists()
    rest = Few(spec)
    cache.build(tmp_path / 'kept', network, rest, 'few', Inference(batch_size=4))
    assert rest.served <= 3 + 2  # eight were done; the first is read for shapes and labels
    cache.build(tmp_path / 'complete', network, Few(spec), 'few')
    for path in (tmp_path / 'complete').glob('*.npy'):
        resumed, complete = np.load(tmp_path / 'kept' / path.name), np.load(path)
        np.testing.assert_allclose(resumed, complete, rtol=1e-3, atol=1e-3, equal_nan=True)


@torch.no_grad()
def test_a_clip_that_has_nothing_for_the_teacher_has_no_logits(
    config, spec, vocabulary, tmp_path
):
    moving = build(replace(config, encoders={
        Modality.FLOW: config.encoders[Modality.FLOW]}), spec, vocabulary).eval()
    TeacherLogitCache.build(tmp_path / 'kept', moving, Few(spec), 'few')
    kept = np.load(tmp_path / 'kept' / 'logits.npy')
    assert np.array_equal(np.isnan(kept).all((1, 2)), np.arange(11) % 3 == 0)
    [batch] = batches(Few(spec), moving, 11)
    some = batch.present[:, 0]
    wanted = moving(batch.rows(some).inputs, batch.present[some])['verb']
    np.testing.assert_allclose(kept[some.numpy(), 0, :3], wanted, rtol=1e-4, atol=1e-5)


def test_a_cache_is_computed_again_only_for_other_clips_or_weights(
    network, config, spec, vocabulary, tmp_path
):
    TeacherLogitCache.build(tmp_path / 'kept', network, Few(spec), 'few')
    again = Few(spec)
    TeacherLogitCache.build(tmp_path / 'kept', network, again, 'few')
    assert again.served == 0
    TeacherLogitCache.build(tmp_path / 'kept', network, again, 'others')
    assert again.served == 11
    torch.manual_seed(5)
    other = build(config, spec, vocabulary).eval()
    before = np.load(tmp_path / 'kept' / 'logits.npy')
    TeacherLogitCache.build(tmp_path / 'kept', other, Few(spec), 'others')
    assert not np.allclose(before, np.load(tmp_path / 'kept' / 'logits.npy'), equal_nan=True)


def test_training_on_tokens_trains_the_network_and_no_encoder(
    config, spec, vocabulary, tmp_path
):
    torch.manual_seed(0)
    network = build(replace(config, freeze_encoders=True, missing='omit'), spec, vocabulary)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    clips = FeatureCache.build(tmp_path / 'tokens', network, Few(spec), 'few')
    settings = RunSettings(epochs=1, batch_size=5, progress=False,
                           optimizer=OptimizerSettings(augmentation=0.0))
    train(network_on_tokens(network, clips), clips, clips, settings, tmp_path / 'run')
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(name.startswith('encoders') for name in changed)
    assert any(name.startswith('fusion') for name in changed)
    assert any(name.startswith('embeddings') for name in changed)


def test_a_damaged_folder_is_named(network, spec, tmp_path):
    with pytest.raises(DataError, match='it has no readable metadata.json'):
        FeatureCache(tmp_path)
    folder = FeatureCache.build(tmp_path / 'tokens', network, Few(spec), 'few').folder
    (folder / 'rgb.npy').write_bytes(b'no array')
    with pytest.raises(DataError, match='is damaged'):
        FeatureCache(folder)
