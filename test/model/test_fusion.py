"""The fusion block and the heads, against the same sums written out."""

from dataclasses import replace
import math

from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.fusion import FusionBlock, MultiHeadMLP, QueryFusion
from karmma_ros.model.presets import preset
from karmma_ros.prediction import Vocabulary
import pytest
import torch
from torch.nn.functional import gelu, layer_norm, linear

V, A = Modality.RGB, Modality.AUDIO


def layer_by_hand(layer, x, heads):
    """Compute one post-norm transformer layer of `[s, d]` from its weights."""
    attention = layer.self_attn
    q, k, v = linear(x, attention.in_proj_weight, attention.in_proj_bias).chunk(3, dim=1)
    mixed = []
    for q_i, k_i, v_i in zip(*(part.chunk(heads, dim=1) for part in (q, k, v))):
        weights = (q_i @ k_i.T / math.sqrt(q_i.shape[1])).softmax(dim=1)
        mixed.append(weights @ v_i)
    attended = linear(torch.cat(mixed, 1), attention.out_proj.weight, attention.out_proj.bias)
    x = layer_norm(x + attended, x.shape[1:], layer.norm1.weight, layer.norm1.bias)
    inner = linear(x, layer.linear1.weight, layer.linear1.bias).relu()
    outer = linear(inner, layer.linear2.weight, layer.linear2.bias)
    return layer_norm(x + outer, x.shape[1:], layer.norm2.weight, layer.norm2.bias)


@pytest.fixture
def fusion():
    torch.manual_seed(0)
    block = FusionBlock(8, layers=2, heads=2, feedforward=12, attention_dropout=0.3)
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return block.eval()


@torch.inference_mode()
def test_fusion_is_that_of_the_paper(fusion):
    tokens = {V: torch.randn(1, 3, 8), A: torch.randn(1, 2, 8)}
    x = torch.cat([tokens[V][0], tokens[A][0], fusion.cls.unsqueeze(0)])
    for layer in fusion.layers:
        x = layer_by_hand(layer, x, heads=2)
    by_hand = torch.stack([x[:3].mean(0), x[3:5].mean(0), x[5]])
    torch.testing.assert_close(fusion(tokens)[0], by_hand, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_a_masked_modality_is_as_if_it_were_absent(fusion):
    tokens = {V: torch.randn(2, 3, 8), A: torch.randn(2, 2, 8)}
    present = torch.tensor([[True, False], [True, True]])
    masked = fusion(tokens, present)
    alone = fusion({V: tokens[V][:1]})
    torch.testing.assert_close(masked[0, [0, 2]], alone[0], rtol=1e-4, atol=1e-5)


def test_attention_alone_has_dropout(fusion):
    for layer in fusion.layers:
        assert layer.self_attn.dropout == 0.3
        assert (layer.dropout.p, layer.dropout1.p, layer.dropout2.p) == (0, 0, 0)


@pytest.fixture
def queries():
    torch.manual_seed(0)
    block = QueryFusion([V, A], 8, layers=2, heads=2, feedforward=12, attention_dropout=0.3)
    for p in block.parameters():
        torch.nn.init.normal_(p, std=0.5)
    return block.eval()


@torch.inference_mode()
def test_queries_attend_to_the_keys_and_values_that_tokens_are(queries):
    tokens = {V: torch.randn(1, 3, 32), A: torch.randn(1, 2, 32)}
    x = torch.cat([queries.queries, queries.cls[None]])
    parts = torch.cat(list(tokens.values()), 1)[0].chunk(4, dim=1)
    for layer, keys, values in zip(queries.layers, parts[::2], parts[1::2]):
        q = linear(x, layer.query.weight, layer.query.bias)
        mixed = [(q_i @ k_i.T / math.sqrt(4)).softmax(dim=1) @ v_i for q_i, k_i, v_i in zip(
            *(part.chunk(2, dim=1) for part in (q, keys, values)))]
        x = layer.norm1(x + layer.out(torch.cat(mixed, 1)))
        x = layer.norm2(x + layer.linear2(layer.linear1(x).relu()))
    torch.testing.assert_close(queries(tokens)[0], x, rtol=1e-4, atol=1e-5)


@torch.inference_mode()
def test_each_modality_that_is_given_has_its_own_query(queries):
    tokens = {V: torch.randn(2, 3, 32), A: torch.randn(2, 2, 32)}
    masked = queries(tokens, torch.tensor([[False, True], [True, True]]))
    alone = queries({A: tokens[A][:1]})
    torch.testing.assert_close(masked[0, 1:], alone[0], rtol=1e-4, atol=1e-5)
    assert not torch.allclose(alone[0, 0], alone[0, 1])


def test_queries_have_dropout_in_their_attention_alone(queries):
    tokens = {V: torch.randn(1, 50, 32)}
    assert [layer.dropout.p for layer in queries.layers] == [0.3, 0.3]
    assert not torch.equal(queries.train()(tokens), queries(tokens))
    assert torch.equal(queries.eval()(tokens), queries(tokens))


@torch.inference_mode()
def test_heads_average_the_predictions_of_the_tokens_that_count():
    torch.manual_seed(0)
    heads = MultiHeadMLP(4, {'verb': 3, 'noun': 5}).eval()
    tokens = torch.randn(2, 3, 4)
    counted = torch.tensor([[True, True, True], [True, False, True]])
    logits = heads(tokens, counted)
    for head, classify in heads.classifiers.items():
        each = classify(gelu(linear(tokens, heads.shared.weight, heads.shared.bias)))  # [b, 3, c]
        by_hand = torch.stack([each[0].mean(0), (each[1, 0] + each[1, 2]) / 2])
        torch.testing.assert_close(logits[head], by_hand, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize('head', ['type', 'values', 'training', 'grip.type'])
def test_a_head_that_pytorch_cannot_name_is_an_error(head):
    with pytest.raises(InvalidSettingError, match=f"head is '{head}'; expected a name without"):
        MultiHeadMLP(4, {head: 3})


def test_concatenated_heads_are_linear_in_all_output_tokens():
    config = replace(preset('tiny'), pooling='concatenated')
    classes = Vocabulary({'action': ('chop', 'wash', 'pour')})
    network = build(ModelConfig.from_dict(config.to_dict()), clip_spec(), classes).eval()
    classify = network.heads.classifiers['action']
    assert network.heads.width == classify.in_features == 5 * config.dim
    tokens = torch.randn(2, 5, config.dim)
    torch.testing.assert_close(
        network.heads(tokens)['action'], tokens.flatten(1) @ classify.weight.T + classify.bias)
    assert 'pooling' not in preset('tiny').to_dict()
    with pytest.raises(InvalidSettingError, match='architecture.pooling is .concatenated.; '
                       'expected mean: the number of output tokens varies'):
        replace(config, missing='omit')
