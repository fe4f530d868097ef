"""What a frozen network said is kept: it equals asking anew, and survives being cut off."""

from dataclasses import replace

from karmma_ros.clip import Clip
from karmma_ros.data.samples import Sample
from karmma_ros.errors import DataError
from karmma_ros.modality import Modality, subsets
from karmma_ros.model.builder import build
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.module import OptimizerSettings
from karmma_ros.training.precomputed import (
    cache_tokens,
    CachedTeacher,
    network_on_tokens,
    TokenDataset,
    write_answers,
)
from karmma_ros.training.run import RunSettings, train
from karmma_ros.training.teacher import FrozenTeacher
import numpy as np
import pytest
import torch


class WindowRequest(Exception):
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
            raise WindowRequest
        rng = np.random.default_rng(index)
        clip = {m: rng.random(self.spec.input_shape(m), np.float32) for m in Modality}
        clip[Modality.DETECTIONS][..., 4] = 1
        if index % 3 == 0:
            clip.pop(Modality.FLOW)
        return Sample(Clip(clip), {'verb': index % 3, 'noun': index % 4})

    def visit(self, index, epoch):
        return self[index]


def batches(clips, network, size=4):
    return list(scoring_loader(clips, network.modalities, size))


@torch.no_grad()
def test_the_network_answers_from_its_tokens_as_from_the_clips(network, spec, tmp_path):
    clips = TokenDataset(cache_tokens(network, Few(spec), tmp_path / 'tokens', data='few'))
    fusion = network_on_tokens(network, clips)
    for whole, kept in zip(batches(Few(spec), network), batches(clips, network)):
        assert torch.equal(whole.present, kept.present)
        assert whole.labels['noun'].tolist() == kept.labels['noun'].tolist()
        wanted = network(whole.inputs, whole.present)
        for head, logits in fusion(kept.inputs, kept.present).items():
            torch.testing.assert_close(logits, wanted[head], rtol=2e-3, atol=2e-3)  # of float16


@torch.no_grad()
def test_remembered_answers_are_the_teachers_own(network, spec, tmp_path):
    asked = FrozenTeacher(network)
    remembered = CachedTeacher(
        write_answers(network, Few(spec), tmp_path / 'answers', data='few', batch_size=3))
    assert remembered.modalities == asked.modalities and not remembered.reads
    for batch in batches(Few(spec), network):
        for subset in subsets(Modality):
            masks = {m: batch.present[:, i] & (m in subset) for i, m in enumerate(Modality)}
            if not torch.stack(list(masks.values())).any(0).all():
                continue
            wanted = asked(batch, masks)
            for head, logits in remembered(batch, masks).items():
                torch.testing.assert_close(logits, wanted[head], rtol=1e-4, atol=1e-5)
    alone = remembered(batch, {Modality.RGB: torch.ones(len(batch), dtype=torch.bool)})
    everything = asked(batch, {m: batch.present[:, i] for i, m in enumerate(Modality)})
    torch.testing.assert_close(alone['verb'], everything['verb'], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize('write', [cache_tokens, write_answers])
def test_a_run_that_was_cut_off_goes_on(network, spec, tmp_path, write):
    with pytest.raises(WindowRequest):
        write(network, Few(spec, break_at=9), tmp_path / 'kept', data='few', batch_size=4)
    assert not (tmp_path / 'kept').exists()
    rest = Few(spec)
    write(network, rest, tmp_path / 'kept', data='few', batch_size=4)
    assert rest.served <= 3 + 2  # eight were there; a look at the first for shapes and labels
    write(network, Few(spec), tmp_path / 'whole', data='few')
    for path in (tmp_path / 'whole').glob('*.npy'):
        ours, whole = np.load(tmp_path / 'kept' / path.name), np.load(path)
        np.testing.assert_allclose(ours, whole, rtol=1e-3, atol=1e-3, equal_nan=True)


@torch.no_grad()
def test_a_clip_that_has_nothing_for_the_teacher_gets_no_answer(
    config, spec, vocabulary, tmp_path
):
    moving = build(replace(config, encoders={
        Modality.FLOW: config.encoders[Modality.FLOW]}), spec, vocabulary).eval()
    folder = write_answers(moving, Few(spec), tmp_path / 'kept', data='few')
    answers = np.load(folder / 'answers.npy')
    assert np.array_equal(np.isnan(answers).all((1, 2)), np.arange(11) % 3 == 0)
    [batch] = batches(Few(spec), moving, 11)
    some = batch.present[:, 0]
    wanted = moving(batch.rows(some).inputs, batch.present[some])['verb']
    np.testing.assert_allclose(answers[some.numpy(), 0, :3], wanted, rtol=1e-4, atol=1e-5)


def test_what_is_there_is_not_asked_again_unless_it_is_of_others(
    network, config, spec, vocabulary, tmp_path
):
    write_answers(network, Few(spec), tmp_path / 'kept', data='few')
    again = Few(spec)
    write_answers(network, again, tmp_path / 'kept', data='few')
    assert again.served == 0
    write_answers(network, again, tmp_path / 'kept', data='others')
    assert again.served == 11
    torch.manual_seed(5)
    other = build(config, spec, vocabulary).eval()
    before = np.load(tmp_path / 'kept' / 'answers.npy')
    write_answers(other, Few(spec), tmp_path / 'kept', data='others')
    assert not np.allclose(before, np.load(tmp_path / 'kept' / 'answers.npy'), equal_nan=True)


def test_training_on_tokens_trains_the_network_and_no_encoder(
    config, spec, vocabulary, tmp_path
):
    torch.manual_seed(0)
    network = build(replace(config, freeze_encoders=True, missing='omit'), spec, vocabulary)
    before = {k: v.clone() for k, v in network.state_dict().items()}
    clips = TokenDataset(cache_tokens(network, Few(spec), tmp_path / 'tokens', data='few'))
    settings = RunSettings(epochs=1, batch_size=5, progress=False,
                           optimizer=OptimizerSettings(augmentation=0.0))
    train(network_on_tokens(network, clips), clips, clips, settings, tmp_path / 'run')
    changed = {k for k, v in network.state_dict().items() if not torch.equal(v, before[k])}
    assert not any(name.startswith('encoders') for name in changed)
    assert any(name.startswith('fusion') for name in changed)
    assert any(name.startswith('embeddings') for name in changed)


def test_a_damaged_folder_is_named(network, spec, tmp_path):
    with pytest.raises(DataError, match='it has no readable metadata.json'):
        TokenDataset(tmp_path)
    folder = cache_tokens(network, Few(spec), tmp_path / 'tokens', data='few')
    (folder / 'rgb.npy').write_bytes(b'no array')
    with pytest.raises(DataError, match='is damaged'):
        TokenDataset(folder)
