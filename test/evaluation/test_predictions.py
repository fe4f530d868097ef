"""Every subset of every sample is predicted as the network predicts it alone."""

from karmma_ros.data.samples import Batch
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.inference import collect, NotFiniteError
from karmma_ros.evaluation.predictions import DatasetPredictions, PredictionsError
from karmma_ros.modality import PAPER_MODALITIES, subset_name, subsets
import numpy as np
import pytest
import torch

V, F, A, D = PAPER_MODALITIES
PRESENT = [[True, True, True, True], [True, False, True, False], [False, False, False, True]]
INDEX = torch.arange(3)
LABELS = {'verb': torch.tensor([0, 1, 2]), 'noun': torch.tensor([3, 2, 1])}


@pytest.fixture
def batch(inputs):
    return Batch(inputs, torch.tensor(PRESENT), LABELS, INDEX)


def assert_equal(ours, theirs):
    assert ours.modalities == theirs.modalities
    assert list(ours.logits) == list(theirs.logits)
    for name in ours.logits:
        for head in ours.heads:
            np.testing.assert_allclose(ours.logits[name][head], theirs.logits[name][head],
                                       rtol=1e-4, atol=1e-5)
    assert (ours.present == theirs.present).all()
    assert all((ours.labels[head] == theirs.labels[head]).all() for head in theirs.heads)


def test_every_subset_a_sample_has_is_answered_as_by_the_network(network, inputs, batch):
    predictions = collect(network, [batch])
    assert list(predictions.logits) == [subset_name(s) for s in subsets(PAPER_MODALITIES)]
    answered = 0
    for subset in subsets(PAPER_MODALITIES):
        has = [all(row[list(PAPER_MODALITIES).index(m)] for m in subset) for row in PRESENT]
        assert predictions.has(subset).tolist() == has
        for i in range(3):
            ours = {h: predictions.logits[subset_name(subset)][h][i] for h in predictions.heads}
            if not has[i]:
                assert all(np.isnan(x).all() for x in ours.values())
                continue
            mask = torch.tensor([[m in subset for m in PAPER_MODALITIES]])
            with torch.no_grad():
                alone = network({m: inputs[m][i:i + 1] for m in subset}, mask)
            for head, x in ours.items():
                np.testing.assert_allclose(x, alone[head][0], rtol=1e-4, atol=1e-5)
            answered += 1
    assert answered == 15 + 3 + 1


def test_each_modality_is_encoded_once_and_only_where_it_is(network, batch, monkeypatch):
    seen = []
    encode = network.encode
    monkeypatch.setattr(network, 'encode', lambda m, x: seen.append((m, len(x))) or encode(m, x))
    collect(network, [batch])
    assert seen == [(V, 2), (F, 1), (A, 2), (D, 2)]
    seen.clear()
    predictions = collect(network, [batch], chosen=[(A, V), (A,)])
    assert seen == [(V, 2), (A, 2)]
    assert list(predictions.logits) == ['V+A', 'A']


def test_batches_follow_one_another(network, inputs, batch):
    done = []
    together = collect(network, [batch], progress=done.append)
    singles = [Batch({m: x[i:i + 1] for m, x in inputs.items()}, batch.present[i:i + 1],
                     {h: ids[i:i + 1] for h, ids in LABELS.items()}, INDEX[i:i + 1])
               for i in range(3)]
    apart = collect(network, singles, progress=done.append)
    assert_equal(apart, together)
    assert done == [3, 1, 1, 1]


def test_a_sample_with_none_of_the_modalities_keeps_its_row(network, inputs):
    present = torch.tensor([[True] * 4, [False] * 4, [False, True, False, False]])
    predictions = collect(network, [Batch(inputs, present, LABELS, INDEX)])
    assert len(predictions) == 3
    assert predictions.has((F,)).tolist() == [True, False, True]
    assert np.isfinite(predictions.logits['F']['verb']).all(1).tolist() == [True, False, True]


def test_a_subset_that_nobody_has_is_left_out(network, inputs):
    present = torch.tensor([[True, False, True, False]] * 3)
    predictions = collect(network, [Batch({m: inputs[m] for m in (V, A)}, present, LABELS, INDEX)])
    assert [name for name, _ in predictions.subsets()] == ['V+A', 'V', 'A']


def test_a_file_gives_back_what_was_written(network, batch, tmp_path):
    predictions = collect(network, [batch])
    path = tmp_path / 'new' / 'predictions.npz'
    predictions.save(path)
    read = DatasetPredictions.load(path)
    assert_equal(read, predictions)
    assert read.logits['V']['verb'].dtype == np.float32
    assert [p.name for p in path.parent.iterdir()] == ['predictions.npz']  # nothing half-made


@pytest.mark.parametrize(('content', 'text'), [
    (None, 'no such file: run the evaluation first'),
    (b'', 'is damaged'),
    (b'no archive', 'is damaged'),
])
def test_a_file_that_cannot_be_read_is_named(tmp_path, content, text):
    path = tmp_path / 'predictions.npz'
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(PredictionsError, match=f'predictions {path}: {text}'):
        DatasetPredictions.load(path)


def test_a_truncated_file_or_one_of_another_version_is_refused(
    network, batch, tmp_path, monkeypatch
):
    path = tmp_path / 'predictions.npz'
    predictions = collect(network, [batch])
    monkeypatch.setattr('karmma_ros.evaluation.predictions.VERSION', 99)
    predictions.save(path)
    monkeypatch.undo()
    with pytest.raises(PredictionsError, match='version is 99; expected 4'):
        DatasetPredictions.load(path)
    predictions.save(path)
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(PredictionsError, match='is damaged'):
        DatasetPredictions.load(path)


def test_nonsense_is_refused(network, batch, inputs):
    with pytest.raises(InvalidSettingError, match='samples is 0'):
        collect(network, [])
    other = DatasetPredictions((V,), {}, np.ones((1, 1), bool), {'verb': np.zeros(1, int)})
    with pytest.raises(InvalidSettingError, match='predictions is .of V, verb.'):
        DatasetPredictions.concatenate([collect(network, [batch]), other])
    with pytest.raises(InvalidSettingError, match="labels is 'for verb'"):
        collect(network, [Batch(inputs, batch.present, {'verb': LABELS['verb']}, INDEX)])
    inputs[A][1] = torch.nan
    with pytest.raises(NotFiniteError, match='NaN or infinity for verb from .* in 1 of the samp'):
        collect(network, [Batch(inputs, batch.present, LABELS, INDEX)])


def test_a_subset_the_network_does_not_have_is_refused(network, batch, monkeypatch):
    monkeypatch.setattr(network, 'modalities', (V, A))
    with pytest.raises(InvalidSettingError, match="subset is 'V.F'; expected made of V.A"):
        collect(network, [batch], chosen=[(V, F)])
