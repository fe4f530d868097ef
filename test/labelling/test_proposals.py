"""Labels that a model proposes: those of the node's events on the same bag."""

from __future__ import annotations

import time

from karmma_ros.errors import InvalidSettingError
from karmma_ros.labelling import proposals
from karmma_ros.labelling.proposals import Proposer
from karmma_ros.labelling.rejections import Rejection, Rejections
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.registry import find_model
import pytest


@pytest.fixture(scope='module')
def bundle():
    return load_bundle(find_model('synthetic_kitchen', '--model'))


def completed(proposer, path):
    deadline = time.monotonic() + 300
    while not proposer.of(path).done and time.monotonic() < deadline:
        time.sleep(0.1)
    return proposer.of(path)


def test_the_least_certain_comes_first(bundle, bag, tmp_path):
    proposer = Proposer(bundle, ('verb', 'noun'), tmp_path / 'cache')
    try:
        state = completed(proposer, bag)
        assert state.done and state.error == '' and state.proposals
        scores = [each.score for each in state.proposals]
        assert scores == sorted(scores) and 0.4 <= scores[0] <= scores[-1] <= 1
        for each in state.proposals:
            assert 0 <= each.start_s < each.stop_s <= 12
            assert each.classes['verb'] in bundle.vocabulary.heads['verb']
            assert each.classes['noun'] in bundle.vocabulary.heads['noun']
        assert any((tmp_path / 'cache').iterdir())
        damaged = tmp_path / 'damaged.mcap'
        damaged.write_bytes(b'x')
        assert 'damaged.mcap' in completed(proposer, damaged).error
    finally:
        proposer.stop()


def test_it_ends_while_it_computes(bundle, bag, monkeypatch):
    started = []

    def endless(path, bundle, settings, cache, progress):
        started.append(path)
        while True:
            progress(1, 2)
            time.sleep(0.01)
    monkeypatch.setattr(proposals, 'evaluate_bag', endless)
    proposer = Proposer(bundle, ('verb',))
    assert proposer.of(bag).progress == 0
    while proposer.of(bag).progress < 0.5:
        time.sleep(0.01)
    proposer.stop()
    assert started == [bag] and not proposer.of(bag).done


def test_an_unexpected_error_is_reported_and_the_next_bag_is_read(bundle, bag, monkeypatch):
    read = []

    def broken(path, bundle, settings, cache, progress):
        read.append(path)
        raise RuntimeError('out of memory')
    monkeypatch.setattr(proposals, 'evaluate_bag', broken)
    proposer = Proposer(bundle, ('verb',))
    try:
        for path in (bag, bag.with_name('next.mcap')):
            assert completed(proposer, path).error == 'RuntimeError: out of memory'
        assert len(read) == 2
    finally:
        proposer.stop()


def test_a_rejected_proposal_is_left_out_also_where_it_moved_a_little(tmp_path):
    path = tmp_path / 'rejected.json'
    rejections = Rejections(path)
    chop, wash = {'verb': 'chop'}, {'verb': 'wash'}
    rejections.add('monday', Rejection(1.0, 3.0, chop))
    Rejections(path).add('tuesday', Rejection(5.0, 6.0, wash))
    rejections.add('monday', Rejection(8.0, 9.0, wash))
    kept = [{'start': 1.2, 'stop': 3.1, 'classes': wash},
            {'start': 2.5, 'stop': 4.5, 'classes': chop}]
    again = [{'start': 1.2, 'stop': 3.1, 'classes': chop},
             {'start': 8.0, 'stop': 9.0, 'classes': wash}]
    own = Rejections(path)
    assert own.left('monday', [*kept, *again]) == kept
    assert own.left('tuesday', again) == again
    assert own.left('tuesday', [{'start': 5.0, 'stop': 6.0, 'classes': wash}]) == []


def test_rejections_of_a_damaged_file_are_none(tmp_path):
    path = tmp_path / 'rejected.json'
    for text in ('{', '[]', '{"monday": 1}', '{"monday": [{}]}'):
        path.write_text(text)
        assert Rejections(path).left('monday', [{'start': 0}]) == [{'start': 0}]


def test_a_model_of_other_heads_is_refused(bundle):
    with pytest.raises(InvalidSettingError, match='a model with a head action, as the label file: '
                       'it has verb, noun'):
        Proposer(bundle, ('action',))
