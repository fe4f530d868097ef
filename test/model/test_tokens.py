"""Token reduction and the two kinds of learned tokens."""

from karmma_ros.errors import InvalidSettingError
from karmma_ros.model.tokens import even_average, tau_average, TokenEmbedding
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
    with pytest.raises(InvalidSettingError, match='token_cap is 0; expected an integer above 0'):
        tau_average(torch.rand(1, 4, 2), 0)


def test_even_groups_by_hand():
    tokens = torch.arange(8.0).view(1, 8, 1)
    reduced = even_average(tokens, 3)  # groups of 3, 3 and 2, the larger first
    assert reduced.flatten().tolist() == [1.0, 4.0, 6.5]


@pytest.mark.parametrize('n', [301, 599, 600, 601, 784, 6272])
def test_even_groups_differ_by_one_token_at_most(n):
    order = torch.arange(float(n)).view(1, n, 1)
    centres = even_average(order, 300).flatten()
    assert len(centres) == 300
    gaps = centres.diff()
    assert gaps.max() - gaps.min() <= 1
    assert even_average(torch.ones(1, n, 1), 300).unique().tolist() == [1.0]


def test_a_cap_of_one_leaves_the_mean():
    tokens = torch.rand(2, 7, 3)
    for reduce in (tau_average, even_average):
        torch.testing.assert_close(reduce(tokens, 1), tokens.mean(1, keepdim=True))


def test_even_groups_leave_short_sequences_alone_and_refuse_no_tokens():
    tokens = torch.rand(2, 5, 3)
    assert even_average(tokens, 5) is tokens
    with pytest.raises(InvalidSettingError, match='token_cap is 0; expected an integer above 0'):
        even_average(tokens, 0)


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
