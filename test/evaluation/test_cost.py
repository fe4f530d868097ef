"""The cost of the networks: hand-counted layers, then every figure that the paper publishes."""

from dataclasses import replace
from functools import cache
from pathlib import Path

from karmma_ros.clip import ClipSpec
from karmma_ros.errors import InvalidSettingError, KarmmaError
from karmma_ros.evaluation import published
from karmma_ros.evaluation.cost import (
    _LiveBytes,
    cost_of,
    cost_of_model,
    count_operations,
    gflops_by_cap,
    resident_bytes,
    setting,
    tensor_bytes,
)
from karmma_ros.evaluation.plots import plot_costs
from karmma_ros.modality import Modality, parse_subset
from karmma_ros.model.presets import preset
import pytest
import torch
from torch import nn

cost = cache(cost_of)


def meta(*shape):
    return torch.empty(*shape, device='meta')


def test_a_linear_layer_by_hand():
    layer = nn.Linear(5, 7, device='meta')
    assert count_operations(lambda: layer(meta(3, 5)))[0] == 2 * 3 * 5 * 7


def test_a_convolution_by_hand():
    layer = nn.Conv3d(4, 6, (2, 3, 3), stride=2, groups=2, device='meta')
    out = 6 * (2 * 3 * 3)  # channels, places
    assert count_operations(lambda: layer(meta(1, 4, 4, 7, 7)))[0] == 2 * out * (2 * 2 * 3 * 3)


@pytest.mark.parametrize('device', ['meta', 'cpu'])
def test_fused_attention_is_counted_too(device):
    layer = nn.TransformerEncoderLayer(8, 2, 12, batch_first=True, device=device).eval()
    x = torch.ones(1, 10, 8, device=device)
    products = 10 * 8 * 24 + 2 * (10 * 10 * 8) + 10 * 8 * 8 + 2 * (10 * 8 * 12)
    assert count_operations(lambda: layer(x))[0] == 2 * products


def test_counting_leaves_fused_attention_as_it_was():
    assert torch.backends.mha.get_fastpath_enabled()
    with pytest.raises(ZeroDivisionError):
        count_operations(lambda: 1 / 0)
    assert torch.backends.mha.get_fastpath_enabled()


@pytest.mark.parametrize(('name', 'subset', 'paper'), [
    (name, subset, figure)
    for name in ('karmma_teacher', 'karmma_student')
    for subset, figure in published.GFLOPS[name].items()
])
def test_operations_are_the_paper_s(name, subset, paper):
    assert cost(name).gflops[subset] == pytest.approx(paper, abs=0.01)
    # The paper classifies each of the m + 1 tokens; we classify their mean, which is the same.
    config, (_, vocabulary) = preset(name), setting(name)
    spared = len(parse_subset(subset)) * 2 * (2 * config.dim) * sum(vocabulary.sizes.values())
    assert round(cost(name).gflops[subset] + spared / 1e9, 2) == paper


def test_heads_of_all_tokens_cost_what_filling_in_the_absent_ones_does():
    config, (spec, vocabulary) = preset('tiny'), setting('tiny')
    mean, own = (cost_of_model(each, spec, vocabulary)
                 for each in (config, replace(config, pooling='concatenated')))
    assert len(own.gflops) == 15 and not own.gflops_filled
    classes, width = sum(vocabulary.sizes.values()), config.dim
    shared = 2 * 5 * width * 2 * width  # which the others have, of each output token
    for subset, gflops in own.gflops.items():
        heads = 2 * (5 * width - 2 * width) * classes - shared
        assert gflops - mean.gflops_filled[subset] == pytest.approx(heads / 1e9, abs=1e-12)


def test_14_presets_have_a_cost():
    figures = [f for name in ('karmma_teacher', 'karmma_student')
               for f in published.GFLOPS[name].values()]
    assert len(figures) == 14


@pytest.mark.parametrize(('name', 'millions'), [
    ('karmma_teacher', 11.247), ('karmma_student_v', 29.636), ('radevski', 84.652)])
def test_trained_parameters_are_the_paper_s(name, millions):
    assert round(cost(name).trainable / 1e6, 3) == millions


def test_the_frozen_encoders_are_three_swin_b():
    frozen = cost('karmma_teacher').parameters - cost('karmma_teacher').trainable
    kinetics_head = 400 * 1024 + 400
    assert frozen == 3 * (88_048_984 - kinetics_head)  # the size torchvision states


def test_token_caps_are_table_v():
    paper = published.TOKEN_CAP_GFLOPS['karmma_teacher']
    ours = gflops_by_cap('karmma_teacher', list(paper))
    assert {cap: round(gflops) for cap, gflops in ours.items()} == paper
    assert ours[300] == pytest.approx(cost('karmma_teacher').gflops['V+F+A'], rel=1e-12)


def test_the_page_about_the_model_has_the_same_figures():
    page = (Path(__file__).parents[2] / 'docs' / 'model.md').read_text()
    teacher, student = cost('karmma_teacher'), cost('karmma_student')
    for label, figure in (
        ('teacher, V+F+A, GFLOPs', f'{teacher.gflops["V+F+A"]:.2f}'),
        ('student, V+F+A, GFLOPs', f'{student.gflops["V+F+A"]:.2f}'),
        ('student, A alone, GFLOPs', f'{student.gflops["A"]:.2f}'),
        ('teacher, trained parameters', f'{teacher.trainable / 1e6:.3f} M'),
    ):
        assert f'| {label} | {figure} |' in page


def test_filling_absent_sensors_costs_more_than_leaving_them_out():
    student = cost('karmma_student')
    assert student.gflops_filled['V+F+A'] == student.gflops['V+F+A']
    assert all(student.gflops_filled[s] > student.gflops[s] for s in ('V+F', 'V', 'A'))
    assert cost('karmma_teacher').gflops_filled == {}


def test_a_cap_needs_a_network_that_reduces():
    with pytest.raises(InvalidSettingError, match="'radevski'; expected one that reduces"):
        gflops_by_cap('radevski', [300])
    with pytest.raises(InvalidSettingError, match='token_cap is 0; expected an integer above 0'):
        gflops_by_cap('tiny', [0])


def test_the_clips_are_the_paper_s_or_the_kitchen_s():
    assert setting('karmma_student')[0] == ClipSpec()
    assert setting('karmma_student')[1].sizes == {'verb': 97, 'noun': 300}
    assert setting('karmma_teacher_something_something')[1].sizes == {'action': 174}
    assert setting('tiny')[0] != ClipSpec()


def test_live_bytes_follow_a_computation():
    x = torch.ones(1000)
    live = _LiveBytes()
    live.add(x)
    with live:
        y = x + 1  # 8000 bytes live
        z = y.view(10, 100)  # a view costs nothing
        y = z * 2  # 12000: z still holds what y was
        del z
        y = y + y  # 12000 until the old y is gone
        y.add_(1)
    assert live.peak == 12_000
    assert live.now == 8_000


def test_only_the_encoders_in_use_are_loaded():
    alone, all_three = (
        tensor_bytes('karmma_student', parse_subset(s)) for s in ('A', 'V+F+A'))
    assert alone < 0.05 * all_three


def test_memory_is_measured_in_a_process_of_its_own():
    measured = resident_bytes('tiny', (Modality.DETECTIONS,))
    assert tensor_bytes('tiny', (Modality.DETECTIONS,)) / 2 < measured < 500e6


def test_a_measurement_that_fails_names_the_reason():
    with pytest.raises(KarmmaError, match="measuring huge with V failed: .*preset is 'huge'"):
        resident_bytes('huge', (Modality.RGB,))


def test_the_chart_has_a_bar_for_each_figure_and_a_mark_for_the_paper_s(tmp_path):
    path = tmp_path / 'costs.svg'
    ours = {'one': {'V': 2.0, 'A': 350.4}, 'other': {'V': 3.0}}
    plot_costs(path, {'GFLOPs': (ours, {'one': {'V': 2.5}})})
    assert '<svg' in path.read_text()
    with pytest.raises(InvalidSettingError, match=r'a file that ends in .png, .svg or .pdf'):
        plot_costs(tmp_path / 'costs.tune', {'GFLOPs': (ours, {})})
