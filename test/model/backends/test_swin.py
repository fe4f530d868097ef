"""Video Swin's attention as graphs have it, against torchvision's."""

import math

from karmma_ros.model.backends.exports import Export
from karmma_ros.model.backends.graphs import attend
from karmma_ros.model.encoders.video import prepare_torchvision
import openvino
import pytest
import torch


@pytest.mark.parametrize('shift', [[0, 0, 0], [1, 2, 1], [0, 1, 0], [1, 0, 2]])
@pytest.mark.parametrize('size', [(4, 6, 8), (3, 5, 7), (2, 3, 4)])
def test_it_attends_as_torchvision_does(size, shift):
    """Whole windows, a padded frame, and one window alone, whichever axes are shifted."""
    prepare_torchvision()
    from torchvision.models.video import swin_transformer

    torch.manual_seed(0)
    window, heads, width = [2, 3, 4], 2, 8
    block = swin_transformer.ShiftedWindowAttention3d(width, window, shift, heads).eval()
    table, index = block.relative_position_bias_table, block.relative_position_index
    torch.nn.init.normal_(table)
    x = torch.randn(2, *size, width)
    given = (x, torch.randn(3 * width, width), torch.randn(width, width))
    more = window, heads, shift
    biases = {'qkv_bias': torch.randn(3 * width), 'proj_bias': torch.randn(width)}
    position = swin_transformer._get_relative_position_bias(table, index, window)
    wanted = swin_transformer.shifted_window_attention_3d(*given, position, *more, **biases)
    torch.testing.assert_close(attend(*given, (table, index), *more, **biases), wanted)


def test_no_compiled_graph_holds_a_mask_or_biases_of_pairs(exported):
    """The encoder has 4 windows of 32 tokens, and shifts them."""
    folder = exported('tokens').path / 'exports' / 'openvino_fp32'
    graph = Export('openvino', 'fp32', folder).graph('rgb')
    compiled = openvino.Core().compile_model(graph, 'CPU').get_runtime_model()
    constants = [output.get_shape() for operator in compiled.get_ops()
                 if operator.get_rt_info()['layerType'].astype(str) == 'Const'
                 for output in operator.outputs()]
    assert 0 < max(map(math.prod, constants)) < 4 * 32 * 32
    assert not [shape for shape in constants if tuple(shape[-2:]) == (32, 32)]
