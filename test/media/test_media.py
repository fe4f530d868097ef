"""The readers, on files made here in the published formats."""

from __future__ import annotations

import io
import os
from pathlib import Path
import pickle
import tarfile

import cv2
import h5py
from karmma_ros.errors import DataError
from karmma_ros.media import (
    AudioFile,
    AudioHdf5,
    FlowFolder,
    FlowTar,
    FrameFolder,
    FrameTar,
    VideoFile,
)
from karmma_ros.media.frames import frame_numbers
from karmma_ros.media.tar import tar_index
from karmma_ros.media.video_file import folder_extent
from karmma_ros.preprocess.resize import resize_and_crop
import numpy as np
import pytest
import soundfile

COUNT, HEIGHT, WIDTH = 40, 48, 64
NAME = 'frame_{:010d}.jpg'


def grey(number: int) -> int:
    """Return the brightness of an image of these tests."""
    return 5 * number % 256


def coloured(number: int) -> np.ndarray:
    """Return the RGB image of a number: a level of red, and full blue."""
    return np.stack([np.full((HEIGHT, WIDTH), value, np.uint8)
                     for value in (grey(number), 0, 255)], axis=2)


def write_jpg(path: Path, rgb: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = rgb if rgb.ndim == 2 else rgb[..., ::-1]
    assert cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, 100])


@pytest.fixture(scope='module')
def disk(tmp_path_factory) -> Path:
    """Return a folder with frames and flow, loose and in tars."""
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
    """Read the numbers back from the red of images."""
    return np.rint(frames[:, HEIGHT // 2, WIDTH // 2, 0] / 5).astype(int).tolist()


@pytest.fixture(params=['folder', 'tar'])
def frames_of(request, disk):
    source_type = {'folder': FrameFolder, 'tar': FrameTar}[request.param]
    return lambda *a, **k: source_type(disk / ('rgb' if request.param == 'folder' else 'rgb.tar'),
                                *a, **k)


@pytest.fixture(params=['folder', 'tar'])
def flow_of(request, disk):
    source_type = {'folder': FlowFolder, 'tar': FlowTar}[request.param]
    return lambda *a, **k: source_type(
        disk / ('flow' if request.param == 'folder' else 'flow.tar'), *a, **k
    )


def test_frames_are_read_by_the_official_rule(frames_of):
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
    full, small = (frames_of(fps=50, size=size).frames([0.3, 0.6])
                    for size in (None, (16, 16)))
    assert small.shape == (2, 16, 16, 3)
    np.testing.assert_array_equal(small, [resize_and_crop(f, 16, 16) for f in full])


@pytest.mark.parametrize(('stride', 'wanted'), [(1, [1, 6, 30]), (2, [1, 3, 15])])
def test_flow_is_read_by_its_stride(flow_of, stride, wanted):
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
    for source in (FrameTar(gone, 50), FlowTar(gone, 50), VideoFile(gone), AudioFile(gone),
                   AudioHdf5(gone, 'P01_01')):
        assert source.problem() == f'{gone}: there is no such file'
    gone.mkdir()
    assert FrameFolder(gone, 50).problem() == f'{gone}: it is empty'
    with pytest.raises(DataError, match='frame_0000000001.jpg is missing'):
        FrameFolder(gone, 50).frames([0])
    with pytest.raises(DataError, match='nothing.tar: it cannot be read'):
        FrameTar(tmp_path / 'nothing.tar', 50).frames([0])


@pytest.mark.parametrize('damage', ['truncated', 'text', 'empty'])
def test_a_damaged_image_is_named(tmp_path, disk, damage):
    for number in (1, 2, 3):
        write_jpg(tmp_path / NAME.format(number), coloured(number))
    noisy = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)
    broken = tmp_path / NAME.format(2)
    write_jpg(broken, noisy)
    complete = broken.read_bytes()
    broken.write_bytes(
        {'truncated': complete[: len(complete) // 2], 'text': b'no image', 'empty': b''}[damage]
    )
    source = FrameFolder(tmp_path, 1)
    assert numbers_of(source.frames([1, 3])) == [1, 3]
    why = 'without an end' if damage == 'truncated' else 'expected an image that OpenCV decodes'
    with pytest.raises(DataError, match=f'frame_0000000002.jpg: .*{why}.*: fetch'):
        source.frames([1, 2, 3])


def test_an_image_of_gigabytes_is_refused_and_padding_is_not(tmp_path):
    path = tmp_path / NAME.format(1)
    write_jpg(path, coloured(1))
    complete = path.read_bytes()
    path.write_bytes(complete + b'\xff' * 300)
    assert numbers_of(FrameFolder(tmp_path, 1).frames([1])) == [1]
    frame = complete.index(b'\xff\xc0') + 5
    path.write_bytes(complete[:frame] + b'\x7d\0\x7d\0' + complete[frame + 4:])
    with pytest.raises(DataError, match='frame_0000000001.jpg: image size: got 32000 x 32000'):
        FrameFolder(tmp_path, 1).frames([1])
    assert folder_extent(tmp_path, NAME, 1).width == 0


def test_a_hole_is_no_end(tmp_path):
    for number in (1, 3):
        write_jpg(tmp_path / NAME.format(number), coloured(number))
    with pytest.raises(DataError, match='frame_0000000002.jpg is missing: fetch'):
        FrameFolder(tmp_path, 1).frames([1, 2, 3])


def test_images_of_two_sizes_are_refused_unless_cropped(tmp_path):
    write_jpg(tmp_path / NAME.format(1), coloured(1))
    write_jpg(tmp_path / NAME.format(2), coloured(2)[:40])
    with pytest.raises(DataError, match=r'frame_0000000002.jpg has \(40, 64\) pixels'):
        FrameFolder(tmp_path, 1).frames([1, 2])
    assert FrameFolder(tmp_path, 1, size=(16, 16)).frames([1, 2]).shape == (2, 16, 16, 3)


@pytest.mark.parametrize(
    'tar_format', [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT]
)
@pytest.mark.parametrize('above', ['', 'P01_01/', 'x' * 120 + '/'])
def test_every_format_of_tar_is_read(tmp_path, disk, tar_format, above):
    path = tmp_path / 'frames.tar'
    with tarfile.open(path, 'w', format=tar_format) as archive:
        for number in (2, 1):  # in any order
            archive.add(disk / 'rgb' / NAME.format(number), above + NAME.format(number))
        for part in 'uv':
            archive.add(disk / 'flow' / part / NAME.format(4), f'{above}{part}/' + NAME.format(4))
        archive.addfile(tarfile.TarInfo('readme.txt'))
    index = tar_index(path, NAME)
    assert {group: list(members[0]) for group, members in index.groups.items()} == {
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


def test_a_truncated_tar_has_its_first_images(tmp_path, disk):
    complete = (disk / 'rgb.tar').read_bytes()
    index = tar_index(disk / 'rgb.tar', NAME)
    offsets = sorted(512 * b for b in index.groups[''][1].tolist())
    (tmp_path / 'truncated.tar').write_bytes(complete[:offsets[10] + 100])
    truncated = tar_index(tmp_path / 'truncated.tar', NAME)
    assert len(truncated.groups[''][0]) == 10


def test_what_is_no_tar_is_refused(tmp_path):
    (tmp_path / 'a.tar').write_bytes(b'not a tar' * 1000)
    with pytest.raises(DataError, match='a.tar: it is no tar, or a packed one'):
        FrameTar(tmp_path / 'a.tar', 50).frames([1])


# -- tars that are hostile or damaged --------------------------------------------------------

def header(name, size=b'%011o\0' % 4, type_=b'0', prefix=b''):
    """Return the first block of a member, with a checksum that is right."""
    block = bytearray(512)
    block[:len(name)] = name
    block[124:124 + len(size)] = size
    block[156:157] = type_
    block[257:265] = b'ustar\x0000'
    block[345:345 + len(prefix)] = prefix
    block[148:156] = b'%06o\0 ' % (sum(block) + 8 * 32)
    return bytes(block)


def member(name, data=b'abcd', **fields):
    size = fields.pop('size', b'%011o\0' % len(data))
    return header(name, size, **fields) + data + bytes(-len(data) % 512)


def base_256(number):
    return b'\x80' + number.to_bytes(11, 'big')


FRAME = NAME.format(1).encode()
END = bytes(1024)


@pytest.mark.timeout(20)
@pytest.mark.parametrize(('content', 'complaint'), [
    (member(FRAME, size=b'-0000001000\0'), rf"{NAME.format(1)} at byte 0 has the size b'-0000001"),
    (member(b'a') + member(FRAME, size=b'-0000001000\0'), 'at byte 1,024 has the size'),
    (member(FRAME, size=b'\xff' * 12), r'expected an octal number from 0 on: fetch'),
    (member(FRAME, size=b'0o000000017\0'), 'at byte 0 has the size'),
    (member(FRAME, size=b'00000_00017\0'), 'at byte 0 has the size'),
    (member(b'frame_' + b'9' * 25 + b'.jpg'), '9{25}.jpg has a number above 2,147,483'),
    (member(FRAME, type_=b'2'), f'{NAME.format(1)} is a link; expected a file: make it anew: tar'),
    (member(FRAME, type_=b'1'), f'{NAME.format(1)} is a link'),
    (member(FRAME, type_=b'S'), f'{NAME.format(1)} is sparse'),
    (member(b'x', b'27 GNU.sparse.realsize=999\n', type_=b'x') + member(FRAME), 'is sparse'),
    (member(b'x', b'12 size=-99\n', type_=b'x') + member(FRAME), "has the size '-99'"),
    (member(b'L', size=base_256(5 << 30), type_=b'L') + member(FRAME), 'the name of the member at'
     ' byte 512 has 5,368,709,120 bytes; expected at most 1,048,576'),
    (member(FRAME) + member(b'other/' + FRAME), f'1.jpg and other/{NAME.format(1)} have the '
     'same number: keep one recording in one archive'),
    (END, r'it is no tar, or a packed one \(it begins with zeros\)'),
    (b'', 'it is no tar, or a packed one'),
])
def test_a_tar_that_claims_what_cannot_be_is_refused(tmp_path, content, complaint):
    (tmp_path / 'a.tar').write_bytes(content + END)
    with pytest.raises(DataError, match=f'a.tar: .*{complaint}'):
        tar_index(tmp_path / 'a.tar', NAME)


def test_a_member_of_gigabytes_is_refused_and_other_members_of_that_size_are_skipped(tmp_path):
    for name, size in ((FRAME, b'%011o\0' % (5 << 30)), (b'a.mp4', base_256(9 << 30))):
        with open(tmp_path / 'a.tar', 'wb') as file:
            file.write(header(name, size))
            file.truncate(512 + (9 << 30))
            file.seek(512 + (9 << 30))
            file.write(member(NAME.format(2).encode()) + END)
        if name == FRAME:
            with pytest.raises(DataError, match='has 5,368,709,120 bytes; expected at most 67,1'):
                tar_index(tmp_path / 'a.tar', NAME)
        else:
            index = tar_index.__wrapped__(tmp_path / 'a.tar', NAME)  # without its cache
            assert index.groups[''][0] == range(2, 3)


def test_of_members_with_one_name_the_last_counts_and_none_moves_another(tmp_path):
    names = [NAME.format(n).encode() for n in (1, 1, 3)]
    (tmp_path / 'a.tar').write_bytes(b''.join(map(member, names)) + END)
    index = tar_index(tmp_path / 'a.tar', NAME)
    assert [index.find('', n) for n in (1, 2, 3)] == [(1536, 4), None, (2560, 4)]


def test_digits_of_other_scripts_are_no_numbers(tmp_path):
    (tmp_path / 'a.tar').write_bytes(member('frame_٣.jpg'.encode()) + END)
    assert tar_index(tmp_path / 'a.tar', NAME).groups == {}


def test_images_after_a_truncation_are_not_the_last_one(tmp_path, disk):
    content = (disk / 'rgb.tar').read_bytes()
    blocks = sorted(tar_index(disk / 'rgb.tar', NAME).groups[''][1].tolist())
    for end in (512 * blocks[10] + 100, 512 * (blocks[10] - 1)):
        (tmp_path / f'{end}.tar').write_bytes(content[:end])
        source = FrameTar(tmp_path / f'{end}.tar', 1)
        numbers = list(tar_index(source.path, NAME).groups[''][0])
        assert len(numbers) == 10
        with pytest.raises(DataError, match='it breaks off before frame_00000000'):
            source.frames([numbers[-1], 41])


@pytest.mark.timeout(20)
def test_images_and_archives_that_are_pipes_are_refused(tmp_path):
    os.mkfifo(tmp_path / NAME.format(1))
    os.mkfifo(tmp_path / 'a.tar')
    for source in (FrameFolder(tmp_path, 1), FrameTar(tmp_path / 'a.tar', 1)):
        with pytest.raises(DataError, match='it is a pipe'):
            source.frames([1])


# -- videos -------------------------------------------------------------------------------------

def video_numbers(frames: np.ndarray) -> list[int]:
    """Read the numbers back: codecs change colours, so eight stripes spell them in bits."""
    stripes = frames[:, HEIGHT // 4, 4::8, 1] > 128
    return (stripes @ (1 << np.arange(8))).tolist()


VIDEOS = [('video.mp4', 'mp4v'), ('video.webm', 'VP80'), ('video.avi', 'MJPG')]


def write_video(path: Path, codec: str, count: int = COUNT, fps: float = 20) -> Path:
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*codec), fps, (WIDTH, HEIGHT))
    assert writer.isOpened()
    for number in range(count):
        image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
        image[HEIGHT // 2:] = (255, 0, 0)  # BGR
        for bit in range(8):
            image[:HEIGHT // 2, 8 * bit:8 * bit + 8] = 255 * (number >> bit & 1)
        writer.write(image)
    writer.release()
    return path


@pytest.mark.parametrize(('name', 'codec'), VIDEOS)
def test_videos_are_read_at_their_own_rate(tmp_path, name, codec):
    source = VideoFile(write_video(tmp_path / name, codec))
    assert source.problem() is None
    for times, wanted in (([0.0, 0.05, 0.149, 0.15], [0, 1, 2, 3]),
                          ([1.0, 1.0, 1.5], [20, 20, 30]),
                          ([1.9, 1.95, 2.0, 3.5], [38, 39, 39, 39])):
        frames = source.frames(times)
        assert frames.shape == (len(times), HEIGHT, WIDTH, 3)
        assert video_numbers(frames) == wanted
        blue = frames[:, HEIGHT // 2 + 8:].mean(axis=(0, 1, 2))
        assert blue[2] > 200 and blue[0] < 60


def test_a_video_is_read_at_every_time(tmp_path):
    path = write_video(tmp_path / 'video.mp4', 'mp4v', 200)
    for start in range(0, 190, 7):
        times = [(start + i) / 20 for i in (0, 1, 4, 9)]
        assert video_numbers(VideoFile(path).frames(times)) == [start + i for i in (0, 1, 4, 9)]


def test_a_video_is_cropped_while_reading(tmp_path):
    path = write_video(tmp_path / 'video.mp4', 'mp4v')
    full, small = (VideoFile(path, size).frames([0.5, 1.0]) for size in (None, (16, 16)))
    np.testing.assert_allclose(small.astype(int), [resize_and_crop(f, 16, 16).astype(int)
                                                   for f in full], atol=2)


def test_videos_that_cannot_be_read_are_named(tmp_path):
    with pytest.raises(DataError, match='gone.mp4: there is no such file'):
        VideoFile(tmp_path / 'gone.mp4').frames([0])
    (tmp_path / 'text.mp4').write_text('no video')
    with pytest.raises(DataError, match='text.mp4: it cannot be opened as a video: check whether'):
        VideoFile(tmp_path / 'text.mp4').frames([0])
    complete = write_video(tmp_path / 'video.mp4', 'mp4v')
    with pytest.raises(DataError, match=r'video.mp4: it ends after 2.00 s, before 2.50 s'):
        VideoFile(complete).frames([2.5])
    truncated = tmp_path / 'truncated.mp4'
    truncated.write_bytes(complete.read_bytes()[:-300])
    with pytest.raises(DataError, match='truncated.mp4: it cannot be opened as a video'):
        VideoFile(truncated).frames([0])


@pytest.mark.parametrize('times', [[1.0, 3.0, 4.0], [0.0, 4.9], [4.5, 4.9], [3.5, 3.6]])
@pytest.mark.parametrize(('name', 'codec'), VIDEOS[1:])
def test_a_truncated_video_is_named(tmp_path, name, codec, times):
    complete = write_video(tmp_path / name, codec, 100)
    truncated = tmp_path / f'truncated_{name}'
    truncated.write_bytes(complete.read_bytes()[:complete.stat().st_size // 2])
    assert video_numbers(VideoFile(truncated).frames([0.0, 0.5])) == [0, 10]
    with pytest.raises(DataError, match=f'truncated_{name}: it (breaks off|ends after)'):
        VideoFile(truncated).frames(times)


def ramp(rate: int, seconds: float) -> np.ndarray:
    """Return a low tone and a slow rise, by which a time is known."""
    t = np.arange(round(rate * seconds)) / rate
    return (0.1 * t + 0.05 * np.sin(2 * np.pi * 100 * t)).astype(np.float32)


@pytest.fixture(params=['wav', 'flac', 'stereo', 'fast', 'hdf5'])
def recording(request, tmp_path):
    """Return five seconds of the ramp in one of the formats."""
    path, rate = tmp_path / f'P01_01.{request.param}', 24_000
    if request.param == 'hdf5':
        with h5py.File(path, 'w') as file:
            file['P01_01'] = ramp(rate, 5)
        return AudioHdf5(path, 'P01_01')
    path = path.with_suffix('.flac' if request.param == 'flac' else '.wav')
    rate = 48_000 if request.param == 'fast' else rate
    samples = ramp(rate, 5)
    if request.param == 'stereo':
        samples = np.stack([2 * samples, 0 * samples], axis=1)
    soundfile.write(path, samples, rate, subtype='PCM_16')
    return AudioFile(path)


@pytest.mark.parametrize('rate', [16_000, 24_000])
def test_an_interval_of_audio_is_read(recording, rate):
    assert recording.problem() is None
    part = recording.samples(1.25, 2.0, rate)
    assert part.dtype == np.float32 and part.shape == (2 * rate,)
    wanted = ramp(rate, 5)[round(1.25 * rate):][:2 * rate]
    np.testing.assert_allclose(part, wanted, atol=2e-3)
    assert pickle.loads(pickle.dumps(recording)) == recording


def test_audio_outside_is_zero(recording):
    part = recording.samples(4.5, 2.0, 16_000)
    assert (part[8010:] == 0).all() and (np.abs(part[:7900]) > 0.3).all()
    early = recording.samples(-1.0, 2.0, 16_000)
    assert (early[:15_990] == 0).all() and np.abs(early[16_100:]).max() > 0.1


def test_audio_that_ends_before_is_an_error(recording):
    with pytest.raises(DataError, match=r'it ends after 5.00 s, before 7.00 s'):
        recording.samples(7.0, 2.0, 16_000)


def test_files_without_audio_are_named(tmp_path):
    soundfile.write(tmp_path / 'empty.wav', np.zeros(0, np.float32), 16_000)
    with pytest.raises(DataError, match='empty.wav: it holds no audio: fetch it again'):
        AudioFile(tmp_path / 'empty.wav').samples(0, 1, 16_000)
    (tmp_path / 'text.wav').write_text('no audio')
    with pytest.raises(DataError, match='text.wav: it cannot be read'):
        AudioFile(tmp_path / 'text.wav').samples(0, 1, 16_000)
    with pytest.raises(DataError, match='gone.wav: there is no such file'):
        AudioFile(tmp_path / 'gone.wav').samples(0, 1, 16_000)


def test_only_the_part_is_read(tmp_path, monkeypatch):
    soundfile.write(tmp_path / 'long.wav', ramp(8000, 60), 8000)
    asked = []
    read = soundfile.SoundFile.read
    monkeypatch.setattr(soundfile.SoundFile, 'read',
                        lambda self, n, **k: asked.append(n) or read(self, n, **k))
    AudioFile(tmp_path / 'long.wav').samples(30, 1, 16_000)
    assert len(asked) == 1 and asked[0] < 1.3 * 8000


def test_an_hdf5_without_the_video_is_named_with_its_content(tmp_path):
    path = tmp_path / 'sound.hdf5'
    with h5py.File(path, 'w') as file:
        file['P01_01'] = (ramp(24_000, 1) * 32_768).astype(np.int16)
        file['P01_02'] = np.zeros((2, 9), np.float32)
    complete = AudioHdf5(path, 'P01_01').samples(0, 1, 24_000)  # integers are scaled to -1..1
    np.testing.assert_allclose(complete, ramp(24_000, 1), atol=1e-4)
    for video in ('P09_09', 'P01_02'):
        source = AudioHdf5(path, video)
        sentence = f'it holds no mono audio {video}; its 2 names begin with P01_01, P01_02'
        assert source.problem() == f'{path}: {sentence}'
        with pytest.raises(DataError, match=sentence):
            source.samples(0, 1, 16_000)
    path.write_bytes(b'no hdf5')
    assert 'it cannot be read' in AudioHdf5(path, 'P01_01').problem()
    with pytest.raises(DataError, match='it cannot be read'):
        AudioHdf5(path, 'P01_01').samples(0, 1, 16_000)


def test_a_member_that_is_no_image_is_skipped(tmp_path, disk):
    path = tmp_path / 'mixed.tar'
    with tarfile.open(path, 'w', format=tarfile.USTAR_FORMAT) as archive:
        for name in ('frame_x.jpg', 'frame_0000000001.png', 'frame_.jpg'):
            info = tarfile.TarInfo(name)
            info.size = 3
            archive.addfile(info, io.BytesIO(b'abc'))
        archive.add(disk / 'rgb' / NAME.format(1), NAME.format(1))
    assert list(tar_index(path, NAME).groups[''][0]) == [1]


def test_hdf5_audio_lies_in_the_file_itself(tmp_path):
    with h5py.File(tmp_path / 'other.h5', 'w') as file:
        file['P01_01'] = np.zeros(100, np.float32)
    np.zeros(100, np.float32).tofile(tmp_path / 'raw')
    with h5py.File(tmp_path / 'a.h5', 'w') as file:
        file['linked'] = h5py.ExternalLink(str(tmp_path / 'other.h5'), 'P01_01')
        file['soft'] = h5py.SoftLink('/linked')
        file.create_dataset('raw', (100,), 'f4', external=[(str(tmp_path / 'raw'), 0, 400)])
        layout = h5py.VirtualLayout((100,), 'f4')
        layout[:] = h5py.VirtualSource(str(tmp_path / 'other.h5'), 'P01_01', (100,))
        file.create_virtual_dataset('virtual', layout)
        file.create_dataset('bomb', (1 << 30,), 'f4', chunks=(1 << 28,), compression='gzip')
        file['text'] = np.array([b'a', b'b'])
    for name, complaint in (('linked', 'is a link to .*other.h5:P01_01; expected audio in this'),
                            ('soft', 'is a link to'), ('raw', 'keeps its samples in other files'),
                            ('virtual', 'keeps its samples in other files'),
                            ('bomb', 'compressed in chunks of 1,073,741,824 bytes; expected at m'),
                            ('text', 'it holds no mono audio text')):
        source = AudioHdf5(tmp_path / 'a.h5', name)
        with pytest.raises(DataError, match=complaint):
            source.samples(0, 0.001, 16_000)
        assert source.problem()


def test_audio_of_impossible_formats_is_refused(tmp_path):
    soundfile.write(tmp_path / 'a.wav', np.zeros(100), 2_000_000)
    with pytest.raises(DataError, match='1 channels at 2,000,000 Hz; expected at most 64 at 768,'):
        AudioFile(tmp_path / 'a.wav').samples(0, 0.00001, 16_000)


def test_audio_under_a_name_that_is_not_utf_8_is_read(tmp_path):
    path = tmp_path / os.fsdecode(b'K\xfcche.wav')
    soundfile.write(tmp_path / 'a.wav', np.full(16_000, 0.5), 16_000)
    os.rename(tmp_path / 'a.wav', path)
    assert AudioFile(path).samples(0, 0.5, 16_000) == pytest.approx(0.5, abs=1e-3)


@pytest.mark.timeout(20)
def test_audio_that_is_no_file_is_not_waited_for(tmp_path):
    os.mkfifo(tmp_path / 'a.wav')
    with pytest.raises(DataError, match='it is a pipe'):
        AudioFile(tmp_path / 'a.wav').samples(0, 1, 16_000)
