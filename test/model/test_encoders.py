"""The encoders' shapes and habits."""

from karmma_ros.clip import BOX_HAND, BOX_OBJECT
from karmma_ros.modality import Modality
from karmma_ros.model.encoders import build_encoder, token_shape
from karmma_ros.model.encoders.layout import STLT
from karmma_ros.model.encoders.video import R2Plus1D
import pytest
import torch


@pytest.mark.parametrize('modality', Modality, ids=str)
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
    """Give the same three boxes in all of four frames, padded with empty ones."""
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
