"""What the network sees on a robot is what it saw in training, of the same two seconds."""

from types import SimpleNamespace

from karmma_ros.data.synthetic_kitchen.episode import clip_spec, episode, FRAME_SIZE, render_window
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.modalities.audio import AudioDecoder
from karmma_ros.modalities.audio_buffer import AudioChunk
from karmma_ros.modalities.rgb import read_image
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
import numpy as np
import pytest

SECOND = 1_000_000_000
EPOCH = 1_735_689_600 * SECOND
START_S, CAMERA_HZ = 1.5, 30


@pytest.fixture
def kitchen():
    return episode(Split.TEST, 0, 0)


@pytest.fixture
def stream():
    settings = {m: InputSettings(timeout_ns=SECOND // 2) for m in PAPER_MODALITIES}
    return SensorStream(clip_spec(), PAPER_MODALITIES, settings)


def trained_on(kitchen):
    return render_window(kitchen, START_S, clip_spec()).clip(clip_spec()).inputs


def test_images_and_flow_are_the_same_to_the_last_bit(kitchen, stream):
    height, width = FRAME_SIZE
    # Up to the last frame before the window of training ends.
    for index in range(round((START_S + 2) * CAMERA_HZ)):
        stamp_ns = EPOCH + round(index * SECOND / CAMERA_HZ)
        if stream.wants(Modality.RGB, stamp_ns, stamp_ns):
            message = SimpleNamespace(
                data=kitchen.frame(index / CAMERA_HZ, *FRAME_SIZE).tobytes(), encoding='rgb8',
                height=height, width=width, step=3 * width, is_bigendian=0)
            crop = clip_spec().video.height, clip_spec().video.width
            assert stream.add(Modality.RGB, read_image(message, crop), stamp_ns, stamp_ns) == ''
    live = stream.window(stamp_ns).clip().inputs
    expected = trained_on(kitchen)
    for modality in (Modality.RGB, Modality.FLOW):
        np.testing.assert_array_equal(live[modality], expected[modality])


def test_audio_differs_by_its_16_bits_only(kitchen, stream):
    audio = kitchen.audio(0.0, START_S + 2, 16_000)
    reader = AudioDecoder(16_000, 1, 'S16LE')
    for first in range(0, len(audio), 512):
        pcm = np.round(audio[first:first + 512] * 32767).astype('<i2').tobytes()
        stamp_ns = EPOCH + first * SECOND // 16_000
        assert (
            stream.add(Modality.AUDIO, AudioChunk(reader(pcm), 16_000), stamp_ns, stamp_ns) == ''
        )
    live = stream.window(stamp_ns).clip().inputs[Modality.AUDIO]
    expected = trained_on(kitchen)[Modality.AUDIO]
    assert np.abs(live - expected).mean() < 0.02
    assert expected.std() > 0.5
