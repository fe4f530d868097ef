"""Token reduction and the two kinds of learned tokens."""

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.tokens import tau_average, TokenEmbedding
import pytest
import torch


def test_tau_average_by_hand():
    tokens = torch.arange(8.0).view(1, 8, 1)
    reduced = tau_average(tokens, 3)  # groups of 2: (0, 1), (2, 3), the rest (4 … 7)
    assert reduced.flatten().tolist() == [0.5, 2.5, 5.5]


def test_tau_average_of_the_paper_puts_186_tokens_into_the_last_group():
    tokens = torch.zeros(1, 784, 1)
    tokens[0, 598:] = 1.0  # 299 groups of two come before
    reduced = tau_average(tokens, 300)
    assert reduced.shape == (1, 300, 1)
    assert reduced[0, :299].sum() == 0
    assert reduced[0, 299] == 1


@pytest.mark.parametrize('n', [1, 299, 300])
def test_tau_average_leaves_short_sequences_alone(n):
    tokens = torch.rand(2, n, 3)
    assert tau_average(tokens, 300) is tokens


def test_tau_average_divides_evenly_when_it_can():
    tokens = torch.rand(2, 12, 3)
    assert torch.allclose(tau_average(tokens, 4), tokens.view(2, 4, 3, 3).mean(2))


def test_tau_average_refuses_no_tokens():
    with pytest.raises(InvalidSettingError, match='token_cap is 0; it may be an integer above 0'):
        tau_average(torch.rand(1, 4, 2), 0)


def test_embedding_adds_the_modality_token_to_both():
    embedding = TokenEmbedding(3, 5, 4)
    x = torch.rand(2, 4, 3)
    plain = x @ embedding.project.weight.T + embedding.project.bias
    assert torch.allclose(embedding(x), plain + embedding.modality_token, atol=1e-6)
    absent = embedding.absent(2)
    assert absent.shape == (2, 4, 5)
    assert torch.equal(absent[0], embedding.absent_tokens + embedding.modality_token)


def test_embedding_without_learned_tokens_has_none():
    embedding = TokenEmbedding(3, 5, 0)
    assert len(list(embedding.parameters())) == 2
    with pytest.raises(InvalidSettingError, match='no learned tokens'):
        embedding.absent(1)
