from __future__ import annotations

import re

from karmma_ros.calibration import Calibration, SubsetCalibration, unknown_score
from karmma_ros.clip import AudioSpec, Clip, ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities.frame_slots import StoredFrames
from karmma_ros.modalities.rgb import Frame
from karmma_ros.modality import Modality
from karmma_ros.prediction import ActionScale, Vocabulary
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.stream.window import Window
import numpy as np
import pytest
import torch

V, A = Modality.RGB, Modality.AUDIO
SPEC = ClipSpec(duration=0.4, num_frames=2, video=VideoSpec(height=4, width=4),
                audio=AudioSpec(tiles=2, tile_steps=3, n_mels=4))
VOCABULARY = Vocabulary({'verb': ('cut', 'wash', 'open'), 'noun': ('pan', 'cup')})


class Network(torch.nn.Module):
    """Return the given logits, and record the calls."""

    modalities = (A, V)

    def __init__(self, verb=(0.0, 1.0, 2.0), noun=(0.0, 0.0)):
        super().__init__()
        self.logits = {'verb': verb, 'noun': noun}
        self.calls = []

    def forward(self, inputs, present):
        assert torch.is_inference_mode_enabled() and not self.training
        self.calls.append(({m: tuple(x.shape) for m, x in inputs.items()}, present.tolist()))
        return {head: torch.tensor([values]) for head, values in self.logits.items()}


def clip_of(*modalities: Modality) -> Clip:
    return Clip({m: np.zeros(SPEC.input_shape(m), np.float32) for m in modalities})


def test_gives_probabilities_with_names():
    prediction = Recogniser(Network(), VOCABULARY, SPEC).recognise(clip_of(V, A))
    exponentials = np.exp([0, 1, 2])
    np.testing.assert_allclose(
        prediction.probabilities['verb'], exponentials / exponentials.sum())
    assert prediction.top('verb')[0].class_name == 'open'
    assert prediction.top('noun')[0].score == pytest.approx(0.5)


def test_the_calibration_of_the_subset_in_use_is_applied():
    calibration = Calibration({(V, A): SubsetCalibration({'verb': 2.0}, -9.0),
                               (V,): SubsetCalibration({'verb': 0.5}, 0.0)})
    recogniser = Recogniser(Network(), VOCABULARY, SPEC, calibration=calibration)
    both, camera = recogniser.recognise(clip_of(V, A)), recogniser.recognise(clip_of(V, A), [V])
    for prediction, temperature in ((both, 2.0), (camera, 0.5)):
        exponentials = np.exp(np.array([0, 1, 2]) / temperature)
        np.testing.assert_allclose(
            prediction.probabilities['verb'], exponentials / exponentials.sum())
        np.testing.assert_allclose(prediction.probabilities['noun'], [0.5, 0.5])
        assert prediction.unknown_score == pytest.approx(unknown_score(
            {'verb': np.array([0., 1, 2]), 'noun': np.zeros(2)}))
    assert both.is_unknown is True and camera.is_unknown is False


def test_huge_logits_are_no_trouble():
    network = Network(verb=(0.0, 1e4, -1e4))
    prediction = Recogniser(network, VOCABULARY, SPEC).recognise(clip_of(V))
    np.testing.assert_array_equal(prediction.probabilities['verb'], [0, 1, 0])


@pytest.mark.parametrize(('given', 'keep', 'present'), [
    ((V, A), None, [[True, True]]),
    ((A,), None, [[False, True]]),
    ((V, A), [V], [[True, False]]),
    ((V, Modality.FLOW), None, [[True, False]]),
    ((V, A), [A, Modality.DETECTIONS], [[False, True]]),
])
def test_network_is_given_what_is_present_and_kept(given, keep, present):
    network = Network()
    Recogniser(network, VOCABULARY, SPEC).recognise(clip_of(*given), keep)
    (shapes, mask), = network.calls
    assert mask == present
    used = [m for m, is_present in zip((V, A), present[0]) if is_present]
    assert shapes == {m: (1, *SPEC.input_shape(m)) for m in used}


def test_takes_a_window():
    network = Network()
    frame = Frame(0, 1, np.zeros((4, 4, 3), np.uint8))
    window = Window(SPEC, 0, 1, (V,), (), {V: StoredFrames((frame,) * 2)})
    Recogniser(network, VOCABULARY, SPEC).recognise(window)
    assert network.calls == [({V: (1, 3, 2, 4, 4)}, [[True, False]])]


def test_warms_up_with_all_and_each_alone():
    network = Network()
    Recogniser(network, VOCABULARY, SPEC).warm_up()
    assert [mask for _, mask in network.calls] == [
        [[True, True]], [[True, False]], [[False, True]]]


@pytest.mark.parametrize(('given', 'keep', 'text'), [
    ((), None, r'clip: got none; expected at least one of V\+A'),
    ((Modality.FLOW,), None, r'clip: got F; expected at least one of V\+A'),
    ((V,), [A], 'clip: got V; expected at least one of A'),
])
def test_refuses_a_clip_without_a_usable_modality(given, keep, text):
    with pytest.raises(InvalidSampleError, match=text):
        Recogniser(Network(), VOCABULARY, SPEC).recognise(clip_of(*given), keep)


def test_reports_when_the_class_list_does_not_match():
    recogniser = Recogniser(Network(noun=(1.0, 2.0, 3.0)), VOCABULARY, SPEC)
    with pytest.raises(InvalidSettingError, match="classes of head 'noun' is 2; expected 3, as"):
        recogniser.recognise(clip_of(V))


@pytest.mark.parametrize('bad', [float('nan'), float('inf')])
def test_never_predicts_nan(bad):
    with pytest.raises(InvalidSampleError, match="head 'verb': the network gave NaN"):
        Recogniser(Network(verb=(0.0, bad, 0.0)), VOCABULARY, SPEC).recognise(clip_of(V))


class Fusing(Network):
    """A network with tokens: the mean of its inputs, which are summed."""

    def forward(self, inputs, present):
        return self.fuse({m: self.encode(m, x) for m, x in inputs.items()})

    def encode(self, modality, x):
        self.calls.append(modality)
        return x.mean().reshape(1, 1, 1)

    def fuse(self, tokens):
        total = sum(tokens.values()).reshape(1, 1)
        return {'verb': total * torch.tensor([[0.0, 1.0, 2.0]]),
                'noun': total * torch.tensor([[1.0, -1.0]])}


def test_each_modality_is_left_out_in_turn_without_encoding_twice():
    clip = Clip({V: np.full(SPEC.input_shape(V), 2.0, np.float32),
                 A: np.full(SPEC.input_shape(A), -3.0, np.float32)})
    calibration = Calibration({(V, A): SubsetCalibration({'verb': 2.0}),
                               (V,): SubsetCalibration({'verb': 0.5}, -9.0, ActionScale(1.5))})
    network = Fusing()
    recogniser = Recogniser(network, VOCABULARY, SPEC, calibration=calibration)
    complete = recogniser.recognise(clip, leave_one_out=True)
    assert network.calls == [V, A] and list(complete.without) == [V, A]
    for left_out, other in ((A, V), (V, A)):
        alone = recogniser.recognise(clip, [other])
        for head, scores in alone.probabilities.items():
            np.testing.assert_array_equal(complete.without[left_out].probabilities[head], scores)
        assert complete.without[left_out].is_unknown == alone.is_unknown
    plain = recogniser.recognise(clip)
    np.testing.assert_array_equal(plain.probabilities['verb'], complete.probabilities['verb'])
    assert not plain.without
    # From both "cut" and "cup"; from the camera alone that has the score of its own calibration.
    camera = complete.without[A]
    assert complete.score_without(A) == pytest.approx(float(
        camera.probabilities['verb'][0] * camera.probabilities['noun'][1]) ** 1.5)
    assert complete.top_actions()[0].verb.class_name == 'cut'


def test_of_one_modality_nothing_is_left_out():
    recogniser = Recogniser(Fusing(), VOCABULARY, SPEC)
    assert not recogniser.recognise(clip_of(V), leave_one_out=True).without


def test_a_network_without_tokens_cannot_leave_one_out():
    with pytest.raises(InvalidSettingError, match=re.escape(
            'leave_one_out is True; expected false: Network has no tokens that could be fused')):
        Recogniser(Network(), VOCABULARY, SPEC).recognise(clip_of(V, A), leave_one_out=True)
