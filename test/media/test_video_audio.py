"""The audio of a video: at its own times, whatever its rate, its channels and its start."""

from __future__ import annotations

from fractions import Fraction

import av
from karmma_ros.errors import DataError
from karmma_ros.media.video_audio import video_audio
import numpy as np
import pytest

RATE = 16_000


def write(path, audio_from_s=None, rate=48_000, layout='stereo', seconds=3.0, video_from_s=0.0):
    """Write 3 s of video, and a tone of 0.5 s that begins a second after the audio."""
    with av.open(str(path), 'w') as out:
        video = out.add_stream('libx264', rate=10)
        video.width, video.height, video.pix_fmt = 64, 48, 'yuv420p'
        audio = None if audio_from_s is None else out.add_stream('aac', rate=rate, layout=layout)
        for number in range(round(seconds * 10)):
            frame = av.VideoFrame.from_ndarray(np.zeros((48, 64, 3), np.uint8), 'rgb24')
            frame.pts, frame.time_base = round(video_from_s * 10) + number, Fraction(1, 10)
            out.mux(video.encode(frame))
        if audio is not None:
            times = np.arange(round(2 * rate)) / rate
            tone = np.where((times >= 1) & (times < 1.5), 0.5 * np.sin(times * 880 * np.pi), 0)
            channels = 2 if layout == 'stereo' else 1
            for first in range(0, len(tone), 1024):
                block = np.stack([tone[first:first + 1024]] * channels).astype(np.float32)
                frame = av.AudioFrame.from_ndarray(block, 'fltp', layout)
                frame.rate, frame.time_base = rate, Fraction(1, rate)
                frame.pts = round(audio_from_s * rate) + first
                out.mux(audio.encode(frame))
            out.mux(audio.encode(None))
        out.mux(video.encode(None))
    return path


@pytest.mark.parametrize('suffix', ['.mp4', '.mkv'])
@pytest.mark.parametrize('rate, layout', [(48_000, 'stereo'), (16_000, 'mono'), (44_100, 'mono')])
def test_the_tone_is_where_it_was_written(tmp_path, suffix, rate, layout):
    samples = video_audio(write(tmp_path / f'a{suffix}', 0.0, rate, layout), RATE)
    loud = np.flatnonzero(np.abs(samples) > 0.1) / RATE
    assert samples.dtype == np.float32 and 1.9 < len(samples) / RATE < 2.3
    assert loud[0] == pytest.approx(1.0, abs=0.03) and loud[-1] == pytest.approx(1.5, abs=0.03)
    assert np.abs(samples).max() == pytest.approx(0.5, abs=0.1)


def test_second_0_is_that_of_the_frames(tmp_path):
    late_audio = video_audio(write(tmp_path / 'a.mkv', 0.5), RATE)
    assert np.flatnonzero(np.abs(late_audio) > 0.1)[0] / RATE == pytest.approx(1.5, abs=0.03)
    late_video = video_audio(write(tmp_path / 'b.mkv', 0.0, video_from_s=0.5), RATE)
    assert np.flatnonzero(np.abs(late_video) > 0.1)[0] / RATE == pytest.approx(1.0, abs=0.03)


def test_audio_before_second_0_is_left_out(tmp_path, monkeypatch):
    """In an AVI file with B-frames, some audio packets precede the first frame."""
    parts = [(-0.3, np.full(1600, 0.1)), (-0.05, np.full(1600, 0.2)), (0.05, np.full(8000, 0.3))]
    monkeypatch.setattr('karmma_ros.media.video_audio._decoded', lambda *given: iter(parts))
    samples = video_audio(write(tmp_path / 'a.mp4', 0.0), RATE)
    assert samples.shape == (8800,)
    assert np.allclose(samples[:800], 0.2) and np.allclose(samples[800:], 0.3)


def test_a_video_without_audio_and_a_file_that_is_none(tmp_path):
    assert video_audio(write(tmp_path / 'silent.mp4'), RATE) is None
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(DataError, match=r'text\.mp4'):
        video_audio(tmp_path / 'text.mp4', RATE)
