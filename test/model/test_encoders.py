"""The encoders' shapes and habits."""

from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.modality import PAPER_MODALITIES
from karmma_ros.model.encoders import build_encoder, token_shape
from karmma_ros.model.encoders.layout import STLT
from karmma_ros.model.encoders.video import R2Plus1D
import pytest
import torch


@pytest.mark.parametrize('modality', PAPER_MODALITIES, ids=str)
def test_tokens_are_counted_without_computing(config, spec, modality):
    encoder = build_encoder(config.encoders[modality], spec, modality).eval()
    tokens = encoder(torch.zeros(2, *spec.input_shape(modality)))
    assert tuple(tokens.shape[1:]) == token_shape(encoder, spec.input_shape(modality))


@pytest.mark.parametrize('shape', [(3, 5, 17, 33), (3, 1, 8, 8), (3, 16, 64, 64)])
def test_video_takes_any_size(shape):
    encoder = R2Plus1D(shape, (4, 8, 8, 8)).eval()
    assert torch.isfinite(encoder(torch.rand(1, *shape))).all()


@pytest.fixture
def stlt():
    torch.manual_seed(0)
    return STLT((4, 3, 5), dim=8, heads=2, spatial_layers=1, temporal_layers=1).eval()


def boxes(*rows):
    """Return the same three boxes in all of four frames, padded with empty ones."""
    padded = [*rows, *[[0.0] * 5] * (3 - len(rows))]
    return torch.tensor(padded).expand(1, 4, 3, 5).clone()


HAND = [0.1, 0.2, 0.3, 0.4, float(BOX_HAND)]
OBJECT = [0.5, 0.5, 0.9, 0.8, float(BOX_OBJECT)]


def test_layout_does_not_depend_on_the_order_of_boxes(stlt):
    torch.testing.assert_close(stlt(boxes(HAND, OBJECT)), stlt(boxes(OBJECT, HAND)))


def test_layout_ignores_what_padding_holds(stlt):
    padded = boxes(HAND)
    junk = padded.clone()
    junk[:, :, 1:, :4] = 0.7
    torch.testing.assert_close(stlt(padded), stlt(junk))


def test_layout_knows_a_hand_from_an_object(stlt):
    other = [*HAND[:4], float(BOX_OBJECT)]
    assert not torch.allclose(stlt(boxes(HAND)), stlt(boxes(other)))


def test_layout_knows_the_order_of_frames(stlt):
    moving = boxes(HAND)
    moving[0, :, 0, 0] += torch.linspace(0, 0.5, 4)
    forward, backward = stlt(moving), stlt(moving.flip(1))
    assert not torch.allclose(forward, backward.flip(1), atol=1e-4)


def test_no_boxes_at_all_is_a_valid_layout(stlt):
    assert torch.isfinite(stlt(torch.zeros(1, 4, 3, 5))).all()


@torch.inference_mode()
def test_layout_is_space_then_time_as_written_out(stlt):
    """Each frame's real boxes on their own, without padding or a mask; then the frames."""
    counts = [2, 0, 3, 1]
    x = torch.zeros(1, 4, 3, 5)
    for t, n in enumerate(counts):
        x[0, t, :n, :4] = torch.rand(n, 4)
        x[0, t, :n, 4] = torch.tensor([BOX_HAND, BOX_OBJECT, BOX_OBJECT])[:n].float()
    frames = []
    for t, n in enumerate(counts):
        rows = torch.cat([torch.tensor([[0.0, 0, 1, 1, 3]]), x[0, t, :n]])
        embedded = rows[:, :4] @ stlt.box.weight.T + stlt.box.bias
        embedded = stlt.norm(embedded + stlt.category.weight[rows[:, 4].long()])
        frames.append(stlt.spatial(embedded.unsqueeze(0))[0, 0])
    by_hand = stlt.temporal((torch.stack(frames) + stlt.frame).unsqueeze(0))
    torch.testing.assert_close(stlt(x), by_hand, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(('spatial', 'temporal'), [(4, 8), (3, 6)])
def test_layout_has_the_depth_and_width_of_the_paper(spatial, temporal):
    with torch.device('meta'):
        encoder = STLT((32, 8, 5), spatial_layers=spatial, temporal_layers=temporal)
    assert len(encoder.spatial.layers) + len(encoder.temporal.layers) == spatial + temporal
    layer = 4 * 768 ** 2 + 4 * 768 + 2 * 4 * 768 ** 2 + 5 * 768 + 4 * 768
    rest = 4 * 768 + (4 * 768 + 768) + 32 * 768 + 2 * 768  # categories, box, frames, norm
    assert sum(p.numel() for p in encoder.parameters()) == (spatial + temporal) * layer + rest
