"""The model card describes the heads that the model has."""

from karmma_ros.evaluation.report import model_card
from karmma_ros.prediction import Vocabulary
import pytest


@pytest.mark.parametrize(('heads', 'words', 'joint'), [
    (('verb', 'noun'), 'It recognises a verb and a noun from',
     'An action is right when its verb and its noun are.'),
    (('action',), 'It recognises an action from', ''),
    (('verb', 'noun', 'tool'), 'It recognises a verb, a noun and a tool from',
     'An action is right when its verb and its noun and its tool are.')])
def test_the_card_names_each_head(heads, words, joint):
    card = model_card(
        name='m', dataset='none', parameters=1, clips=1, command='x', provenance='y',
        vocabulary=Vocabulary(dict.fromkeys(heads, ('a', 'b'))),
        scores={'V': dict.fromkeys(heads, 0.5)})
    assert words in card and joint in card
    assert ('An action is right' in card) == bool(joint)
