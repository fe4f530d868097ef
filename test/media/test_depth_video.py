"""Recorded depth: metres of videos, PNGs and arrays at given times, and what is refused."""

import av
import cv2
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media.depth_video import DepthArray, DepthFolder, DepthVideo, open_depth
from karmma_ros.media.sources import DepthSettings, SourceOptions
import numpy as np
import pytest

FPS, LENGTH = 10, 20
KINECT = DepthSettings(scale=-0.012, offset=4.06)
"""Grey 255 is 1 m, 1 is 4.048 m, 0 has no return."""


def encoded(path, frames, codec, pixels, **stream_options):
    """Write grey frames `[t, h, w]` to a video."""
    with av.open(str(path), 'w') as container:
        stream = container.add_stream(codec, rate=FPS)
        stream.height, stream.width = frames.shape[1:]
        stream.pix_fmt = pixels
        stream.options = stream_options
        for each in frames:
            name = 'gray16le' if each.dtype == np.uint16 else 'gray'
            frame = av.VideoFrame.from_ndarray(each, format=name).reformat(format=pixels)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def squares(dtype, step):
    """Return frames whose right half is `step` times the number, from 1, of the frame."""
    frames = np.zeros((LENGTH, 32, 48), dtype)
    frames[:, :, 24:] = (step * np.arange(1, LENGTH + 1))[:, None, None]
    return frames


def folder_of(path, frames, pattern='{:06d}.png'):
    path.mkdir()
    for number, frame in enumerate(frames, 1):
        cv2.imwrite(str(path / pattern.format(number)), frame)
    return path


def test_a_grey_video_becomes_metres(tmp_path):
    path = encoded(tmp_path / 'd.mp4', squares(np.uint8, 10), 'h264', 'yuv420p', crf='1')
    source = open_depth(path, 'depth', SourceOptions(depth=KINECT))
    depth = source.depth([0.0, 0.5, 1.95])
    assert depth.shape == (3, 32, 48) and depth.dtype == np.float32
    assert np.isnan(depth[:, 4:-4, 4:20]).mean() > 0.95
    wanted = [(1000 + (255 - grey) * 12) / 1000 for grey in (10, 60, 200)]
    assert np.nanmedian(depth[:, :, 28:], (1, 2)) == pytest.approx(wanted, abs=0.026)
    assert source.problem() is None and source.remarks() == ()


def test_a_lossless_video_of_16_bits_has_its_values(tmp_path):
    path = encoded(tmp_path / 'd.mkv', squares(np.uint16, 500), 'ffv1', 'gray16le')
    depth = DepthVideo(path).depth([0.0, 0.31])
    assert np.isnan(depth[:, :, :24]).all()
    assert depth[0, :, 24:] == pytest.approx(0.5) and depth[1, :, 24:] == pytest.approx(2.0)


def test_other_numbers_of_bits_are_refused(tmp_path):
    path = encoded(tmp_path / 'd.mkv', squares(np.uint8, 10), 'ffv1', 'yuv420p10le')
    with pytest.raises(DataError, match='its pixels are yuv420p10le; expected 8 bits, or grey'):
        DepthVideo(path, KINECT).depth([0.0])


def test_a_folder_of_pngs_has_millimetres(tmp_path):
    path = folder_of(tmp_path / 'd', squares(np.uint16, 500))
    options = SourceOptions(rates={'depth': float(FPS)}, frame_rate=99.0)
    source = open_depth(path, 'depth', options)
    assert source == DepthFolder(path, fps=FPS) and source.problem() is None
    depth = source.depth([0.0, 0.5, 1.9, 5.0])
    assert np.isnan(depth[:, :, :24]).all()
    assert depth[:, 0, 30].tolist() == pytest.approx([0.5, 3.0, 10.0, 10.0])
    settings = DepthSettings(scale=0.0002, invalid=500)
    scaled = DepthFolder(path, settings, FPS).depth([0.0, 0.1])
    assert np.isnan(scaled[0, :, 24:]).all() and scaled[1, 0, 30] == pytest.approx(0.2)


def test_images_of_8_bits_are_no_depth(tmp_path):
    path = folder_of(tmp_path / 'd', squares(np.uint8, 10))
    with pytest.raises(DataError, match=r'000001.png: .*expected a 16 bit png'):
        DepthFolder(path, fps=FPS).depth([0.0])


@pytest.mark.parametrize(('dtype', 'step', 'factor'), [
    (np.uint16, 500, 0.001), (np.float32, 0.5, 1.0), (np.float16, 0.5, 1.0)])
def test_an_array_has_millimetres_or_metres(tmp_path, dtype, step, factor):
    stored = squares(dtype, step)
    np.save(tmp_path / 'd.npy', stored)
    options = SourceOptions(rates={'depth': float(FPS)})
    source = open_depth(tmp_path / 'd.npy', 'depth', options)
    assert isinstance(source, DepthArray) and source.problem() is None
    depth = source.depth([0.0, 0.3, 0.99, 7.0])  # 0.3 · 10 is a little less than 3
    assert depth[:, 0, 30] == pytest.approx(
        np.array([1, 4, 10, LENGTH]) * step * factor, rel=1e-3)
    assert np.isnan(depth[:, :, :24]).all()
    with pytest.raises(DataError, match=r'it ends after 2\.00 s, before 2\.50 s'):
        source.depth([2.5])


def test_nan_and_infinity_are_no_return(tmp_path):
    stored = np.full((2, 4, 4), 2.0, np.float32)
    stored[0, 0, 0], stored[1, 0, 1] = np.nan, np.inf
    np.save(tmp_path / 'd.npy', stored)
    depth = DepthArray(tmp_path / 'd.npy', fps=10.0).depth([0.0, 0.1])
    assert np.isnan(depth).sum() == 2 and np.isnan(depth[1, 0, 1])


def test_what_cannot_be_depth_is_named(tmp_path):
    with pytest.raises(DataError, match=r'expected the unit of its values: set man'):
        open_depth(tmp_path / 'd.mp4', 'depth', SourceOptions())
    with pytest.raises(DataError, match=r'expected the images in a second: set manifest\.rates\.'):
        open_depth(tmp_path / 'd.npy', 'depth', SourceOptions())
    np.save(tmp_path / 'd.npy', np.zeros((3, 4)))
    problem = DepthArray(tmp_path / 'd.npy').problem()
    assert 'expected uint16 (millimetres) or float32' in problem
    assert 'no such folder' in DepthFolder(tmp_path / 'none').problem()
    assert 'no such file' in DepthVideo(tmp_path / 'none.mp4').problem()
    np.save(tmp_path / 'd.npy', np.ones((3, 4, 4), np.uint8))
    with pytest.raises(DataError, match='its values have 8 bits'):
        DepthArray(tmp_path / 'd.npy').depth([0.0])


@pytest.mark.parametrize(('changes', 'text'), [
    ({'scale': float('nan')}, 'manifest.depth.scale is nan; expected a finite number'),
    ({'frames': 'a.png'}, "manifest.depth.frames is 'a.png'; expected a name with a field"),
])
def test_settings_out_of_range_are_named(changes, text):
    with pytest.raises(InvalidSettingError) as caught:
        DepthSettings(**changes)
    assert text in str(caught.value)
