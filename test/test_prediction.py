"""Which heads of a model an action consists of."""

from karmma_ros.errors import InvalidSettingError
from karmma_ros.prediction import action_heads, further_heads, Prediction, Vocabulary
import numpy as np
import pytest


@pytest.mark.parametrize(('heads', 'parts', 'others'), [
    ('verb noun', 'verb noun', ''), ('noun verb', 'verb noun', ''), ('gesture', 'gesture', ''),
    ('noun', 'noun', ''), ('verb', 'verb', ''), ('gesture hand', 'gesture hand', ''),
    ('noun tool', 'tool noun', ''), ('tool verb', 'verb tool', ''),
    ('verb noun tool', 'verb noun', 'tool'), ('tool noun verb', 'verb noun', 'tool'),
    ('action object place', 'action object', 'place'), ('a b c verb', 'verb a', 'b c')])
def test_heads_of_an_action(heads, parts, others):
    assert action_heads(heads.split()) == tuple(parts.split())
    assert further_heads(heads.split()) == tuple(others.split())


def test_the_best_actions_of_one_head_are_its_best_classes():
    prediction = Prediction({'gesture': np.array([0.1, 0.6, 0.3])},
                            Vocabulary({'gesture': ('wave', 'point', 'nod')}))
    actions = prediction.top_actions(2)
    assert [(a.verb.class_name, a.noun, a.score) for a in actions] == [
        ('point', None, 0.6), ('nod', None, 0.3)]


def test_a_missing_head_is_an_error():
    prediction = Prediction({'gesture': np.ones(1)}, Vocabulary({'gesture': ('wave',)}))
    with pytest.raises(KeyError, match='verb'):
        prediction.top('verb')
    with pytest.raises(InvalidSettingError, match='at least one head with its class names'):
        Vocabulary({})
