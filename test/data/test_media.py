"""The readers, on files made here in the published formats."""

from __future__ import annotations

import io
from pathlib import Path
import pickle
import tarfile

import cv2
import h5py
from karmma_ros.data.errors import DataError
from karmma_ros.data.extracted import look_at_folder
from karmma_ros.data.media import (
    FlowFolder,
    FlowTar,
    FrameFolder,
    FrameTar,
    SoundFile,
    SoundHdf5,
    VideoFile,
)
from karmma_ros.data.media.pictures import frame_numbers
from karmma_ros.data.media.tar import tar_index
from karmma_ros.preprocess.video import resize_and_crop
import numpy as np
import pytest
import soundfile

COUNT, HEIGHT, WIDTH = 40, 48, 64
NAME = 'frame_{:010d}.jpg'


def grey(number: int) -> int:
    """Give the brightness by which a picture of these tests is known."""
    return 5 * number % 256


def coloured(number: int) -> np.ndarray:
    """Give the RGB picture of a number: a level of red, and full blue."""
    return np.stack([np.full((HEIGHT, WIDTH), value, np.uint8)
                     for value in (grey(number), 0, 255)], axis=2)


def write_jpg(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    picture = rgb if rgb.ndim == 2 else rgb[..., ::-1]
    assert cv2.imwrite(str(path), picture, [cv2.IMWRITE_JPEG_QUALITY, 100])


@pytest.fixture(scope='module')
def disk(tmp_path_factory) -> Path:
    """Give a folder with frames and flow, loose and in tars."""
    folder = tmp_path_factory.mktemp('media')
    for number in range(1, COUNT + 1):
        write_jpg(folder / 'rgb' / NAME.format(number), coloured(number))
        for part, level in (('u', number), ('v', number + 2)):
            write_jpg(folder / 'flow' / part / NAME.format(number),
                      np.full((HEIGHT, WIDTH), grey(level), np.uint8))
    for name in ('rgb', 'flow'):
        with tarfile.open(folder / f'{name}.tar', 'w', format=tarfile.USTAR_FORMAT) as archive:
            archive.add(folder / name, '.')
    return folder


def numbers_of(frames: np.ndarray) -> list[int]:
    """Read the numbers back from the red of pictures."""
    return np.rint(frames[:, HEIGHT // 2, WIDTH // 2, 0] / 5).astype(int).tolist()


@pytest.fixture(params=['folder', 'tar'])
def frames_of(request, disk):
    kind = {'folder': FrameFolder, 'tar': FrameTar}[request.param]
    return lambda *a, **k: kind(disk / ('rgb' if request.param == 'folder' else 'rgb.tar'),
                                *a, **k)


@pytest.fixture(params=['folder', 'tar'])
def flow_of(request, disk):
    kind = {'folder': FlowFolder, 'tar': FlowTar}[request.param]
    return lambda *a, **k: kind(disk / ('flow' if request.param == 'folder' else 'flow.tar'),
                                *a, **k)


def test_frames_are_found_by_the_official_rule(frames_of):
    source = frames_of(fps=50)
    assert source.problem() is None
    frames = source.frames([0.0, 0.039, 0.1, 0.1, 0.5])
    assert frames.shape == (5, HEIGHT, WIDTH, 3) and frames.dtype == np.uint8
    assert numbers_of(frames) == [1, 1, 5, 5, 25]
    assert (frames[..., 2] > 250).all() and (frames[..., 1] < 5).all()  # RGB, not BGR


def test_after_the_last_frame_it_stays(frames_of):
    assert numbers_of(frames_of(fps=50).frames([0.78, 0.8, 0.82, 9.0])) == [39, 40, 40, 40]


def test_a_recording_that_ends_before_is_an_error(frames_of):
    with pytest.raises(DataError, match=r'frame_0000000041.jpg is missing; the last is 40: fetch'):
        frames_of(fps=50).frames([0.82, 0.9])


def test_cropping_while_reading_is_the_same(frames_of):
    whole, small = (frames_of(fps=50, size=size).frames([0.3, 0.6])
                    for size in (None, (16, 16)))
    assert small.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(small, [resize_and_crop(f, 16, 16) for f in whole])


@pytest.mark.parametrize(('stride', 'wanted'), [(1, [1, 6, 30]), (2, [1, 3, 15])])
def test_flow_is_found_by_its_stride(flow_of, stride, wanted):
    source = flow_of(fps=60, stride=stride)
    assert source.problem() is None
    flow = source.flow([0.0, 0.1, 0.5])
    assert flow.shape == (3, HEIGHT, WIDTH, 2)
    levels = [[grey(n), grey(n + 2)] for n in wanted]
    np.testing.assert_allclose(flow.mean(axis=(1, 2)), levels, atol=1)


def test_frame_numbers_need_no_rounding():
    # 0.29 · 100 is 28.999... in binary; the annotations' own numbers were made that way.
    assert frame_numbers([0.0, 1.0, 0.29], 100) == [1, 100, 28]
    assert frame_numbers([0.0, 1.0], 12, first=0) == [0, 12]


def test_other_names_and_numbers(tmp_path):
    for number in range(3):
        write_jpg(tmp_path / f'{number:05d}.jpg', coloured(number + 1))
    source = FrameFolder(tmp_path, fps=1, pattern='{:05d}.jpg', first=0)
    assert numbers_of(source.frames([0, 1.5, 2, 3])) == [1, 2, 3, 3]


def test_sources_travel_light(disk):
    source = FrameTar(disk / 'rgb.tar', 50)
    source.frames([0.1])
    parcel = pickle.dumps(source)
    assert len(parcel) < 400
    assert numbers_of(pickle.loads(parcel).frames([0.1])) == [5]


def test_missing_recordings_are_named(tmp_path):
    gone = tmp_path / 'gone'
    for source in (FrameFolder(gone, 50), FlowFolder(gone, 50)):
        assert 'gone' in source.problem() and 'no such folder' in source.problem()
    for source in (FrameTar(gone, 50), FlowTar(gone, 50), VideoFile(gone), SoundFile(gone),
                   SoundHdf5(gone, 'P01_01')):
        assert source.problem() == f'{gone}: there is no such file'
    gone.mkdir()
    assert FrameFolder(gone, 50).problem() == f'{gone}: it is empty'
    with pytest.raises(DataError, match='frame_0000000001.jpg is missing'):
        FrameFolder(gone, 50).frames([0])
    with pytest.raises(DataError, match='nothing.tar: it cannot be read'):
        FrameTar(tmp_path / 'nothing.tar', 50).frames([0])


@pytest.mark.parametrize('damage', ['cut', 'text', 'empty'])
def test_a_broken_picture_is_named(tmp_path, disk, damage):
    for number in (1, 2, 3):
        write_jpg(tmp_path / NAME.format(number), coloured(number))
    noisy = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    broken = tmp_path / NAME.format(2)
    write_jpg(broken, noisy)
    whole = broken.read_bytes()
    broken.write_bytes({'cut': whole[:len(whole) // 2], 'text': b'no picture', 'empty': b''}
                       [damage])
    source = FrameFolder(tmp_path, 1)
    assert numbers_of(source.frames([1, 3])) == [1, 3]
    why = 'without an end' if damage == 'cut' else 'expected an image that OpenCV decodes'
    with pytest.raises(DataError, match=f'frame_0000000002.jpg: .*{why}.*: fetch'):
        source.frames([1, 2, 3])


def test_a_picture_that_asks_for_gigabytes_is_refused_and_padding_is_not(tmp_path):
    path = tmp_path / NAME.format(1)
    write_jpg(path, coloured(1))
    whole = path.read_bytes()
    path.write_bytes(whole + b'\xff' * 300)
    assert numbers_of(FrameFolder(tmp_path, 1).frames([1])) == [1]
    frame = whole.index(b'\xff\xc0') + 5
    path.write_bytes(whole[:frame] + b'\x7d\0\x7d\0' + whole[frame + 4:])
    with pytest.raises(DataError, match='frame_0000000001.jpg: image size: got 32000 x 32000'):
        FrameFolder(tmp_path, 1).frames([1])
    assert look_at_folder(tmp_path, NAME, 1).width == 0


def test_a_hole_is_no_end(tmp_path):
    for number in (1, 3):
        write_jpg(tmp_path / NAME.format(number), coloured(number))
    with pytest.raises(DataError, match='frame_0000000002.jpg is missing: fetch'):
        FrameFolder(tmp_path, 1).frames([1, 2, 3])


def test_pictures_of_two_sizes_are_refused_unless_cropped(tmp_path):
    write_jpg(tmp_path / NAME.format(1), coloured(1))
    write_jpg(tmp_path / NAME.format(2), coloured(2)[:40])
    with pytest.raises(DataError, match=r'frame_0000000002.jpg has \(40, 64\) pixels'):
        FrameFolder(tmp_path, 1).frames([1, 2])
    assert FrameFolder(tmp_path, 1, size=(16, 16)).frames([1, 2]).shape == (2, 16, 16, 3)


@pytest.mark.parametrize('kind', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize('above', ['', 'P01_01/', 'x' * 120 + '/'])
def test_every_kind_of_tar_is_read(tmp_path, disk, kind, above):
    path = tmp_path / 'frames.tar'
    with tarfile.open(path, 'w', format=kind) as archive:
        for number in (2, 1):  # in any order
            archive.add(disk / 'rgb' / NAME.format(number), above + NAME.format(number))
        for part in 'uv':
            archive.add(disk / 'flow' / part / NAME.format(4), f'{above}{part}/' + NAME.format(4))
        archive.addfile(tarfile.TarInfo('readme.txt'))
    index = tar_index(path, NAME)
    assert {group: list(found[0]) for group, found in index.groups.items()} == {
        '': [1, 2], 'u': [4], 'v': [4]}
    assert numbers_of(FrameTar(path, 1).frames([1, 2])) == [1, 2]
    assert FlowTar(path, 4).flow([1]).mean(axis=(0, 1, 2)) == pytest.approx(
        [grey(4), grey(6)], abs=1)


def test_a_hole_in_a_tar_is_no_end(tmp_path, disk):
    path = tmp_path / 'holes.tar'
    with tarfile.open(path, 'w') as archive:
        for number in (1, 2, 5):
            archive.add(disk / 'rgb' / NAME.format(number), NAME.format(number))
    source = FrameTar(path, 1)
    assert numbers_of(source.frames([2, 5, 6])) == [2, 5, 5]
    for times in ([1, 3], [4, 5]):
        with pytest.raises(DataError, match=r'holes.tar: frame_000000000[34].jpg is missing'):
            source.frames(times)


def test_a_tar_cut_off_ends_where_it_was_cut(tmp_path, disk):
    whole = (disk / 'rgb.tar').read_bytes()
    index = tar_index(disk / 'rgb.tar', NAME)
    offsets = sorted(512 * b for b in index.groups[''][1].tolist())
    (tmp_path / 'cut.tar').write_bytes(whole[:offsets[10] + 100])
    cut = tar_index(tmp_path / 'cut.tar', NAME)
    assert len(cut.groups[''][0]) == 10


def test_what_is_no_tar_is_refused(tmp_path):
    (tmp_path / 'a.tar').write_bytes(b'not a tar' * 1000)
    with pytest.raises(DataError, match='a.tar: it is no tar, or a packed one'):
        FrameTar(tmp_path / 'a.tar', 50).frames([1])


def film_numbers(frames: np.ndarray) -> list[int]:
    """Read the numbers back: codecs change colours, so eight stripes spell them in bits."""
    stripes = frames[:, HEIGHT // 4, 4::8, 1] > 128
    return (stripes @ (1 << np.arange(8))).tolist()


FILMS = [('film.mp4', 'mp4v'), ('film.webm', 'VP80'), ('film.avi', 'MJPG')]


def write_film(path: Path, codec: str, count: int = COUNT, fps: float = 20) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(count):
        picture = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        picture[HEIGHT // 2:] = (255, 0, 0)  # BGR
        for bit in range(8):
            picture[:HEIGHT // 2, 8 * bit:8 * bit + 8] = 255 * (number >> bit & 1)
        writer.write(picture)
    writer.release()
    return path


@pytest.mark.parametrize(('name', 'codec'), FILMS)
def test_films_are_read_at_their_own_rate(tmp_path, name, codec):
    source = VideoFile(write_film(tmp_path / name, codec))
    assert source.problem() is None
    for times, wanted in (([0.0, 0.05, 0.149, 0.15], [0, 1, 2, 3]),
                          ([1.0, 1.0, 1.5], [20, 20, 30]),
                          ([1.9, 1.95, 2.0, 3.5], [38, 39, 39, 39])):
        frames = source.frames(times)
        assert frames.shape == (len(times), HEIGHT, WIDTH, 3)
        assert film_numbers(frames) == wanted
        blue = frames[:, HEIGHT // 2 + 8:].mean(axis=(0, 1, 2))
        assert blue[2] > 200 and blue[0] < 60


def test_a_film_is_right_at_every_place(tmp_path):
    path = write_film(tmp_path / 'film.mp4', 'mp4v', 200)
    for start in range(0, 190, 7):
        times = [(start + i) / 20 for i in (0, 1, 4, 9)]
        assert film_numbers(VideoFile(path).frames(times)) == [start + i for i in (0, 1, 4, 9)]


def test_a_film_is_cropped_while_reading(tmp_path):
    path = write_film(tmp_path / 'film.mp4', 'mp4v')
    whole, small = (VideoFile(path, size).frames([0.5, 1.0]) for size in (None, (16, 16)))
    np.testing.assert_allclose(small.astype(int), [resize_and_crop(f, 16, 16).astype(int)
                                                   for f in whole], atol=2)


def test_films_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match='gone.mp4: there is no such file'):
        VideoFile(tmp_path / 'gone.mp4').frames([0])
    (tmp_path / 'text.mp4').write_text('no film')
    with pytest.raises(DataError, match='text.mp4: it cannot be opened as a film: see whether'):
        VideoFile(tmp_path / 'text.mp4').frames([0])
    whole = write_film(tmp_path / 'film.mp4', 'mp4v')
    with pytest.raises(DataError, match=r'film.mp4: it ends after 2.00 s, before 2.50 s'):
        VideoFile(whole).frames([2.5])
    cut = tmp_path / 'cut.mp4'
    cut.write_bytes(whole.read_bytes()[:-300])
    with pytest.raises(DataError, match='cut.mp4: it cannot be opened as a film'):
        VideoFile(cut).frames([0])


@pytest.mark.parametrize('times', [[1.0, 3.0, 4.0], [0.0, 4.9], [4.5, 4.9], [3.5, 3.6]])
@pytest.mark.parametrize(('name', 'codec'), FILMS[1:])
def test_a_truncated_film_is_named(tmp_path, name, codec, times):
    whole = write_film(tmp_path / name, codec, 100)
    cut = tmp_path / f'cut_{name}'
    cut.write_bytes(whole.read_bytes()[:whole.stat().st_size // 2])
    assert film_numbers(VideoFile(cut).frames([0.0, 0.5])) == [0, 10]
    with pytest.raises(DataError, match=f'cut_{name}: it (breaks off|ends after)'):
        VideoFile(cut).frames(times)


def ramp(rate: int, seconds: float) -> np.ndarray:
    """Give a low tone and a slow rise, by which a time is known."""
    t = np.arange(round(rate * seconds)) / rate
    return (0.1 * t + 0.05 * np.sin(2 * np.pi * 100 * t)).astype(np.float32)


@pytest.fixture(params=['wav', 'flac', 'stereo', 'fast', 'hdf5'])
def sound(request, tmp_path):
    """Give five seconds of the ramp in one of the formats."""
    path, rate = tmp_path / f'P01_01.{request.param}', 24_000
    if request.param == 'hdf5':
        with h5py.File(path, 'w') as file:
            file['P01_01'] = ramp(rate, 5)
        return SoundHdf5(path, 'P01_01')
    path = path.with_suffix('.flac' if request.param == 'flac' else '.wav')
    rate = 48_000 if request.param == 'fast' else rate
    samples = ramp(rate, 5)
    if request.param == 'stereo':
        samples = np.stack([2 * samples, 0 * samples], axis=1)
    soundfile.write(path, samples, rate, subtype='PCM_16')
    return SoundFile(path)


@pytest.mark.parametrize('rate', [16_000, 24_000])
def test_sound_is_cut_in_time(sound, rate):
    assert sound.problem() is None
    part = sound.samples(1.25, 2.0, rate)
    assert part.dtype == np.float32 and part.shape == (2 * rate,)
    wanted = ramp(rate, 5)[round(1.25 * rate):][:2 * rate]
    np.testing.assert_allclose(part, wanted, atol=2e-3)
    assert pickle.loads(pickle.dumps(sound)) == sound


def test_sound_outside_is_zero(sound):
    part = sound.samples(4.5, 2.0, 16_000)
    assert (part[8010:] == 0).all() and (np.abs(part[:7900]) > 0.3).all()
    early = sound.samples(-1.0, 2.0, 16_000)
    assert (early[:15_990] == 0).all() and np.abs(early[16_100:]).max() > 0.1


def test_sound_that_ends_before_is_an_error(sound):
    with pytest.raises(DataError, match=r'it ends after 5.00 s, before 7.00 s'):
        sound.samples(7.0, 2.0, 16_000)


def test_sound_that_is_none_is_named(tmp_path):
    soundfile.write(tmp_path / 'empty.wav', np.zeros(0, np.float32), 16_000)
    with pytest.raises(DataError, match='empty.wav: it holds no sound: fetch it again'):
        SoundFile(tmp_path / 'empty.wav').samples(0, 1, 16_000)
    (tmp_path / 'text.wav').write_text('no sound')
    with pytest.raises(DataError, match='text.wav: it cannot be read'):
        SoundFile(tmp_path / 'text.wav').samples(0, 1, 16_000)
    with pytest.raises(DataError, match='gone.wav: there is no such file'):
        SoundFile(tmp_path / 'gone.wav').samples(0, 1, 16_000)


def test_only_the_part_is_read(tmp_path, monkeypatch):
    soundfile.write(tmp_path / 'long.wav', ramp(8000, 60), 8000)
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, 'read',
                        lambda self, n, **k: asked.append(n) or read(self, n, **k))
    SoundFile(tmp_path / 'long.wav').samples(30, 1, 16_000)
    assert len(asked) == 1 and asked[0] < 1.3 * 8000


def test_an_hdf5_without_the_video_says_what_it_has(tmp_path):
    path = tmp_path / 'sound.hdf5'
    with h5py.File(path, 'w') as file:
        file['P01_01'] = (ramp(24_000, 1) * 32_768).astype(np.int16)
        file['P01_02'] = np.zeros((2, 9), np.float32)
    whole = SoundHdf5(path, 'P01_01').samples(0, 1, 24_000)  # integers are scaled to -1..1
    np.testing.assert_allclose(whole, ramp(24_000, 1), atol=1e-4)
    for video in ('P09_09', 'P01_02'):
        source = SoundHdf5(path, video)
        sentence = f'it holds no mono sound {video}; its 2 names begin with P01_01, P01_02'
        assert source.problem() == f'{path}: {sentence}'
        with pytest.raises(DataError, match=sentence):
            source.samples(0, 1, 16_000)
    path.write_bytes(b'no hdf5')
    assert 'it cannot be read' in SoundHdf5(path, 'P01_01').problem()
    with pytest.raises(DataError, match='it cannot be read'):
        SoundHdf5(path, 'P01_01').samples(0, 1, 16_000)


def test_a_member_that_is_no_picture_is_passed_over(tmp_path, disk):
    path = tmp_path / 'mixed.tar'
    with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as archive:
        for name in ('frame_x.jpg', 'frame_0000000001.png', 'frame_.jpg'):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b'abc'))
        archive.add(disk / 'rgb' / NAME.format(1), NAME.format(1))
    assert list(tar_index(path, NAME).groups[''][0]) == [1]
