"""Sampled sensor data to one clip."""

from __future__ import annotations

from collections.abc import Sequence

from karmma_ros.clip import Clip, ClipSpec
from karmma_ros.errors import InvalidSampleError
from karmma_ros.modality import Modality
from karmma_ros.preprocess.arrays import check_array
from karmma_ros.preprocess.detections import detection_input
from karmma_ros.preprocess.flow import flow_input
from karmma_ros.preprocess.resize import video_input
from karmma_ros.preprocess.spectrogram import audio_input
import numpy as np
from numpy.typing import NDArray


def make_clip(
    spec: ClipSpec,
    *,
    frames: NDArray[np.uint8] | None = None,
    flow: NDArray[np.uint8] | None = None,
    audio: NDArray[np.float32] | None = None,
    valid_mask: NDArray[np.bool_] | None = None,
    spectrogram: NDArray[np.float32] | None = None,
    boxes: Sequence[NDArray[np.float32]] | None = None,
) -> Clip:
    """
    Turn the present modalities into the network's inputs.

    `frames` `[t, h, w, 3]` RGB and `flow` `[t, h, w, 2]` (`clip_flow`) have the size of the
    crop, `audio` `[n]` covers exactly the window, `valid_mask` `[n]` is false in its gaps and
    `spectrogram` saves computing it (`audio_input`), `boxes` has one `[n, 5]` for each of the
    t frames.

    :raises InvalidSampleError: for a part with another type or shape, NaN or infinity.
    """
    t, h, w = spec.num_frames, spec.video.height, spec.video.width
    inputs: dict[Modality, NDArray[np.float32]] = {}
    if frames is not None:
        check_array('frames', frames, np.uint8, (t, h, w, 3))
        inputs[Modality.RGB] = video_input(frames, spec.video)
    if flow is not None:
        check_array('flow', flow, np.uint8, (t, h, w, 2))
        inputs[Modality.FLOW] = flow_input(flow, spec.flow)
    if audio is not None:
        check_array('audio', audio, np.float32, (spec.audio_samples,))
        inputs[Modality.AUDIO] = audio_input(audio, spec.audio, valid_mask, spectrogram)
    if boxes is not None:
        if len(boxes) != t:
            raise InvalidSampleError(f'boxes: got {len(boxes)} frames; expected {t}')
        inputs[Modality.DETECTIONS] = detection_input(boxes, spec.detections)
    return Clip(inputs)
