from __future__ import annotations

import subprocess
import sys

from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modalities import make_clip
from karmma_ros.modality import Modality, PAPER_MODALITIES, subsets
from karmma_ros.preprocess.resize import video_input
from karmma_ros.preprocess.spectrogram import audio_input
import numpy as np
import pytest

SPEC = ClipSpec(
    duration=0.5, num_frames=4, video=VideoSpec(height=12, width=16),
    audio=AudioSpec(tiles=4, tile_steps=20, n_mels=16))
RANDOM = np.random.default_rng(0)
PARTS = {
    Modality.RGB: RANDOM.integers(0, 256, (4, 12, 16, 3), dtype=np.uint8),
    Modality.FLOW: RANDOM.integers(0, 256, (4, 12, 16, 2), dtype=np.uint8),
    Modality.AUDIO: RANDOM.uniform(-1, 1, 8000).astype(np.float32),
    Modality.DETECTIONS: [np.array([[0.1, 0.1, 0.2, 0.2, 1]], np.float32)] * 4,
}


@pytest.mark.parametrize('chosen', [(), *subsets(PAPER_MODALITIES)])
def test_clip_holds_what_was_given_in_the_shapes_of_the_specification(chosen):
    clip = make_clip(SPEC, {m: PARTS[m] for m in chosen})
    assert clip.modalities == chosen
    for modality, array in clip.inputs.items():
        assert array.shape == SPEC.input_shape(modality)
        assert array.dtype == np.float32 and np.isfinite(array).all()


def test_inputs_are_those_of_the_single_functions():
    clip = make_clip(SPEC, PARTS)
    np.testing.assert_array_equal(
        clip.inputs[Modality.RGB], video_input(PARTS[Modality.RGB], SPEC.video))
    np.testing.assert_array_equal(
        clip.inputs[Modality.AUDIO], audio_input(PARTS[Modality.AUDIO], SPEC.audio))


@pytest.mark.parametrize(('modality', 'text'), [
    (Modality.RGB, r'frames: got uint8 \[3, 12, 16, 3\]; expected uint8 \[4, 12, 16, 3\]'),
    (Modality.FLOW, r'flow: got uint8 \[3, 12, 16, 2\]'),
    (Modality.AUDIO, r'audio: got float32 \[3\]; expected float32 \[8000\]'),
    (Modality.DETECTIONS, 'boxes: got 3 frames; expected 4'),
])
def test_refuses_parts_of_another_length(modality, text):
    with pytest.raises(InvalidSampleError, match=text):
        make_clip(SPEC, {modality: PARTS[modality][:3]})


def test_package_loads_neither_torch_nor_ros():
    code = ('import sys, karmma_ros.modalities.rgb, karmma_ros.modalities.audio; '
            'print([m for m in ("torch", "rclpy", "soxr", "scipy") if m in sys.modules])')
    run = subprocess.run([sys.executable, '-c', code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == '[]'
