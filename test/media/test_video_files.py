"""Video files of every common type: each frame at its own time, upright, or an error."""

from fractions import Fraction
import json
import os
from pathlib import Path
import re
import socketserver
import struct
import sys
import threading

import av
import cv2
from karmma_ros.cli.main import main
from karmma_ros.data.check import check_dataset
from karmma_ros.data.manifest import ManifestSettings, open_splits
from karmma_ros.errors import DataError
from karmma_ros.media import video_reader, VideoFile
from karmma_ros.media.video_file import probe_video, video_extent
from karmma_ros.media.video_reader import VideoReader
from karmma_ros.modality import Modality
import numpy as np
import pytest
from rosbags.rosbag2 import Reader

WIDTH, HEIGHT = 64, 48


def marked(number, width=WIDTH, height=HEIGHT):
    """Return RGB whose upper half spells a number in eight stripes; the lower half is blue."""
    image = np.zeros((height, width, 3), np.uint8)
    image[height // 2:] = 0, 0, 255
    for bit in range(8):
        image[:height // 2, bit * width // 8:(bit + 1) * width // 8] = 255 * (number >> bit & 1)
    return image


def numbers(frames):
    """Read the numbers back."""
    width, height = frames.shape[2], frames.shape[1]
    stripes = frames[:, height // 4, width // 16::width // 8, 1] > 128
    return (stripes[:, :8] @ (1 << np.arange(8))).tolist()


def write_video(path, times=None, codec='libx264', pixels='yuv420p', options=None, container=None,
                prepare=lambda stream: None, audio_start=None, images=None):
    """
    Write a video whose frame i is shown from times[i] on, by default 90 at 30 a second.

    :param audio_start: second at which two seconds of noise begin; None for no audio.
    """
    times = [i / 30 for i in range(90)] if times is None else times
    coarse = codec in ('mpeg4', 'mjpeg', 'mpeg2video') or path.suffix == '.avi'
    base = Fraction(1, 30 if coarse else 90_000)
    with av.open(str(path), 'w', options=container or {}) as out:
        video = out.add_stream(codec, rate=30)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, pixels
        video.codec_context.gop_size, video.codec_context.time_base = 30, base
        video.options = options or {}
        prepare(video)
        audio = None
        if audio_start is not None:
            audio = out.add_stream('aac', rate=48_000)
            audio.layout = 'mono'
        for index, time_s in enumerate(times):
            image = marked(index) if images is None else images[index]
            frame = av.VideoFrame.from_ndarray(image, 'rgb24')
            frame.pts, frame.time_base = round(time_s / base), base
            out.mux(video.encode(frame))
        out.mux(video.encode())
        if audio is not None:
            _write_audio(out, audio, audio_start)
    return path


def _write_audio(out, stream, start_s):
    noise = np.random.default_rng(0).normal(0, 0.1, (1, 96_000)).astype(np.float32)
    for first in range(0, noise.shape[1] - 1023, 1024):
        frame = av.AudioFrame.from_ndarray(
            np.ascontiguousarray(noise[:, first:first + 1024]), 'fltp', 'mono')
        frame.sample_rate, frame.time_base = 48_000, Fraction(1, 48_000)
        frame.pts = round(start_s * 48_000) + first
        out.mux(stream.encode(frame))
    out.mux(stream.encode())


class Server(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """Counts who connects, and hangs up."""

    daemon_threads = True

    def __init__(self):
        self.requests = []
        super().__init__(('127.0.0.1', 0), socketserver.BaseRequestHandler)
        self.port = self.server_address[1]

    def verify_request(self, request, client_address):
        self.requests.append(client_address)
        return False


@pytest.fixture
def server():
    with Server() as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield running
        running.shutdown()


def shown_at(path, times):
    return numbers(VideoFile(path).frames(times))


def error_of(path, times=(0.5,)):
    with pytest.raises(DataError) as caught:
        VideoFile(path).frames(list(times))
    return str(caught.value)


CONSTANT = [i / 30 for i in range(90)]
VARYING = [i / 30 if i < 60 else 2 + (i - 60) / 7.5 for i in range(90)]
LATE = [12_345.6 + t for t in CONSTANT]
NTSC = [i * 1001 / 30_000 for i in range(90)]
CONTAINERS = {
    'h264 with B frames': ('a.mp4', CONSTANT, {}),
    'no edit list': ('a.mp4', CONSTANT, {'container': {'use_editlist': '0'}}),
    'fragments': ('a.mp4', CONSTANT, {'container': {'movflags': 'frag_keyframe+empty_moov'}}),
    'varying rate': ('a.mp4', VARYING, {}),
    'varying rate, ms': ('a.mkv', VARYING, {}),
    'varying rate, TS': ('a.ts', VARYING, {}),
    'NTSC, ms': ('a.mkv', NTSC, {}),
    'transport stream': ('a.ts', LATE, {}),
    'AVCHD': ('a.m2ts', LATE, {}),
    'AVCHD, MPEG-2': ('a.m2ts', CONSTANT, {'codec': 'mpeg2video', 'options': {'bf': '2'}}),
    'program stream': ('a.mpg', CONSTANT, {'codec': 'mpeg2video', 'options': {'bf': '2'}}),
    'browser': ('a.webm', CONSTANT, {'codec': 'libvpx', 'container': {'live': '1'}}),
    'AVI with B frames': ('a.avi', CONSTANT, {'codec': 'mpeg4', 'options': {'bf': '2'}}),
    'AVI, h264': ('a.avi', CONSTANT, {'options': {'bf': '3'}}),
    'AVI, MJPEG': ('a.avi', CONSTANT, {'codec': 'mjpeg', 'pixels': 'yuvj420p'}),
    'open groups': ('a.mp4', CONSTANT, {'options': {'x264-params': 'open-gop=1:keyint=20'}}),
    'one key frame': ('a.ts', CONSTANT, {'options': {'x264-params': 'keyint=900'}}),
    'AV1': ('a.mp4', CONSTANT, {'codec': 'libsvtav1', 'options': {'preset': '12'}}),
    'VP9': ('a.webm', CONSTANT, {'codec': 'libvpx-vp9', 'options': {'deadline': 'realtime',
                                                                  'cpu-used': '8'}}),
    'audio is later': ('a.mkv', CONSTANT, {'audio_start': 0.7}),
    'audio fills the decoder before 0': ('a.mp4', CONSTANT, {'audio_start': -0.02}),
}


@pytest.mark.parametrize('container', CONTAINERS)
def test_each_frame_is_read_at_its_own_time(tmp_path, container):
    name, times, changes = CONTAINERS[container]
    path = write_video(tmp_path / name, times, **changes)
    offsets = [t - times[0] for t in times]
    for first in range(0, 90, 4):  # each call seeks
        wanted = [first, min(first + 1, 89), min(first + 9, 89)]
        assert shown_at(path, [offsets[i] for i in wanted]) == wanted, first
        between = [(offsets[i] + offsets[i + 1]) / 2 for i in (first, first + 1) if i < 89]
        assert shown_at(path, between) == [first, first + 1][:len(between)]
    assert probe_video(path).duration_s == pytest.approx(
        2 * offsets[-1] - offsets[-2], abs=0.14)
    assert 'it ends after' in error_of(path, [offsets[-1] + 0.2])


def test_second_0_is_that_of_the_audio_where_it_comes_first(tmp_path):
    path = write_video(tmp_path / 'a.ts', [0.4 + t for t in CONSTANT], audio_start=0.0)
    assert probe_video(path).offset_s == pytest.approx(0.4, abs=0.03)
    assert 'after its first audio, which is second 0' in probe_video(path).notes[0]
    shift = probe_video(path).offset_s
    assert shown_at(path, [0.0, shift + 1 / 30, shift + 1]) == [0, 1, 30]


def test_frames_before_an_edit_list_are_not_shown(tmp_path):
    path = write_video(tmp_path / 'a.mp4', [t - 0.5 for t in CONSTANT])
    assert shown_at(path, [0.0, 0.5, 1.0, 2.4]) == [15, 30, 45, 87]
    assert probe_video(path).duration_s == pytest.approx(2.5)


MATRICES = {
    (0, 1, -1, 0): lambda image: np.rot90(image, -1),
    (0, -1, 1, 0): lambda image: np.rot90(image, 1),
    (-1, 0, 0, -1): lambda image: np.rot90(image, 2),
    (-1, 0, 0, 1): lambda image: image[:, ::-1],
    (1, 0, 0, -1): lambda image: image[::-1],
    (0, 1, 1, 0): lambda image: image.transpose(1, 0, 2),
    (0, -1, -1, 0): lambda image: np.rot90(image, 2).transpose(1, 0, 2),
}


def with_matrix(path, a, b, c, d):
    """Put a display matrix into the header of an mp4."""
    data = bytearray(path.read_bytes())
    at = data.find(b'tkhd') + 44
    struct.pack_into('>9i', data, at, a, b, 0, c, d, 0, 0, 0, 1 << 30)
    path.write_bytes(data)
    return path


@pytest.mark.parametrize('matrix', MATRICES)
def test_what_the_header_turns_is_upright(tmp_path, matrix):
    path = write_video(tmp_path / 'a.mp4', CONSTANT[:3], options={'bf': '0'})
    plain = VideoFile(path).frames([0.0])[0]
    with_matrix(path, *(x << 16 for x in matrix))
    turned = VideoFile(path).frames([0.0])[0]
    np.testing.assert_array_equal(turned, MATRICES[matrix](plain))
    extent = video_extent(path)
    assert (extent.height, extent.width) == turned.shape[:2]
    assert 'frames are read upright' in probe_video(path).notes[0]


def test_an_odd_angle_is_refused(tmp_path):
    path = write_video(tmp_path / 'a.mp4', CONSTANT[:3])
    with_matrix(path, 46341, 46341, -46341, 46341)
    assert ('a.mp4: it is to be rotated by an angle that is no multiple of 90 degrees: convert '
            'it: `ffmpeg -i a.mp4 -c:v libx264 a_new.mp4`') in error_of(path)


def test_pixels_that_are_not_square_are_stretched(tmp_path):
    def prepare(stream):
        stream.codec_context.sample_aspect_ratio = Fraction(4, 3)
    path = write_video(tmp_path / 'a.mp4', CONSTANT[:9], prepare=prepare)
    assert VideoFile(path).frames([0.1]).shape == (1, HEIGHT, round(WIDTH * 4 / 3), 3)
    assert 'its pixels are 4/3 as wide as high' in probe_video(path).notes[0]


def test_the_colours_are_those_that_the_file_states(tmp_path):
    def prepare(stream):
        stream.codec_context.colorspace = 1  # BT.709
    image = np.zeros((HEIGHT, WIDTH, 3), np.uint8)
    image[:] = 200, 60, 30
    path = tmp_path / 'a.mp4'
    frame = av.VideoFrame.from_ndarray(image, 'rgb24').reformat(
        format='yuv420p', dst_colorspace='ITU709')
    with av.open(str(path), 'w') as out:
        stream = out.add_stream('libx264', rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, 'yuv420p'
        stream.codec_context.colorspace = 1
        frame.colorspace = 1
        out.mux(stream.encode(frame))
        out.mux(stream.encode())
    pixel = VideoFile(path).frames([0.0])[0, 20, 20].astype(int)
    np.testing.assert_allclose(pixel, [200, 60, 30], atol=6)


def test_varying_rates_and_turned_frames_are_noted_by_data_check(tmp_path, spec):
    write_video(tmp_path / 'vfr.mp4', VARYING)
    with_matrix(write_video(tmp_path / 'up.mp4'), 0, 1 << 16, -1 << 16, 0)
    (tmp_path / 'no.mp4').write_text('#EXTM3U\n')
    lines = ['split,start,stop,verb,noun,rgb', 'train,0,1,cut,cup,vfr.mp4',
             'train,2,3,cut,cup,up.mp4', 'test,1,2,cut,cup,up.mp4', 'test,1,2,cut,cup,no.mp4']
    (tmp_path / 'm.csv').write_text('\n'.join(lines))
    splits = open_splits(ManifestSettings(file=str(tmp_path / 'm.csv')), spec)
    report = check_dataset(splits, decode=2)
    train, test = (split.modalities[Modality.RGB] for split in report.splits.values())
    assert train.damaged == 0 and test.damaged == 1
    assert train.remarks == {
        'its frame rate varies (7.5 to 30 frames a second): frames are read by their own times':
            ['line 2'],
        'its header rotates it by 90 degrees clockwise: frames are read upright': ['line 3']}
    assert any('it cannot be read: it cannot be opened' in remark for remark in test.remarks)
    json.dumps(report.to_dict())


def test_an_avi_with_packed_b_frames_is_read_in_its_order(tmp_path):
    """DivX and XviD put a B frame into the packet of the frame before it; an empty one follows."""
    path = write_video(tmp_path / 'a.avi', CONSTANT[:40], codec='mpeg4', options={'bf': '1'})
    vop, user = b'\0\0\1\xb6', b'\0\0\1\xb2DivX503b1393p'
    with av.open(str(path)) as source, av.open(str(tmp_path / 'b.avi'), 'w') as out:
        stream = out.add_stream_from_template(source.streams.video[0])
        plain = [bytes(packet) for packet in source.demux(video=0) if packet.size]
        frame_types = [data[data.index(vop) + 4] >> 6 for data in plain]  # 2 is a B frame
        packed = [plain[0].replace(vop, user + vop)]
        for data, frame_type, after in zip(plain[1:], frame_types[1:], [*frame_types[2:], 0]):
            if frame_type == 2:
                packed.append(vop + b'\x50\0')
            else:
                packed.append(data + plain[len(packed) + 1] if after == 2 else data)
        assert frame_types.count(2) > 10
        for index, data in enumerate(packed):
            packet = av.Packet(data)
            packet.stream, packet.time_base = stream, Fraction(1, 30)
            packet.dts, packet.is_keyframe = index, frame_types[index] == 0
            out.mux(packet)
    for first in range(0, 36, 3):
        assert shown_at(tmp_path / 'b.avi', [first / 30, (first + 2) / 30]) == [first, first + 2]


# -- what is refused -------------------------------------------------------------------------

def test_transport_streams_joined_byte_by_byte_are_refused(tmp_path):
    path = write_video(tmp_path / 'a.ts')
    path.write_bytes(2 * path.read_bytes())
    assert 'its time stamps run backwards after 2.9' in error_of(path)


def test_jumbled_times_are_refused(tmp_path):
    path = write_video(tmp_path / 'a.mkv', codec='mjpeg', pixels='yuvj420p')
    data = path.read_bytes()
    block = b'\x81' + struct.pack('>h', 167) + b'\x80'  # track 1, 0.167 s, a key frame
    assert shown_at(path, [0.2]) == [6] and block in data
    path.write_bytes(data.replace(block, b'\x81' + struct.pack('>h', 1500) + b'\x80', 1))
    assert 'its time stamps run backwards after 1.50 s' in error_of(path, [0.2])


def test_raw_streams_without_times_are_refused(tmp_path):
    assert 'expected one file (mp4, mov' in error_of(write_video(tmp_path / 'a.h264'))


def test_a_codec_without_a_decoder_is_named_with_the_remedy(tmp_path):
    path = write_video(tmp_path / 'a.mp4', CONSTANT[:9])
    data = path.read_bytes()
    at = data.index(b'avc1', data.index(b'stsd'))
    path.write_bytes(data[:at] + b'zzzz' + data[at + 4:])
    assert ('a.mp4: FFmpeg has no decoder for its codec: convert it: `ffmpeg -i a.mp4 -c:v '
            'libx264 a_new.mp4`') in error_of(path)


def test_audio_alone_is_no_video(tmp_path):
    with av.open(str(tmp_path / 'a.mp4'), 'w') as out:
        stream = out.add_stream('aac', rate=48_000)
        stream.layout = 'mono'
        _write_audio(out, stream, 0)
    assert 'it has no video: give a file with a video stream' in error_of(tmp_path / 'a.mp4')


def test_names_that_are_not_utf_8_are_read(tmp_path):
    path = tmp_path / os.fsdecode(b'K\xfcche.mp4')
    path.write_bytes(write_video(tmp_path / 'a.mp4').read_bytes())
    assert shown_at(path, [0.5]) == [15]


@pytest.mark.parametrize('name', [
    'http://127.0.0.1:{port}/x.mp4', 'tcp:127.0.0.1:{port}', 'file:a.mp4', 'concat:a.mp4|a.mp4',
    'async:a.mp4', 'subfile,,start,0,end,0,,:a.mp4', 'pipe:0', '-', 'data:video/mp4;base64,AAAA'])
def test_no_name_is_taken_for_a_url(tmp_path, name, server, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_video(tmp_path / 'a.mp4', CONSTANT[:9])
    text = name.format(port=server.port)
    assert 'there is no such file' in error_of(Path(text))
    assert main(['predict', text]) == 2
    assert main(['bag', 'from-video', text, 'o.mcap']) == 2
    assert main(['predict', 'a.mp4', '--audio', text]) == 2
    assert not server.requests


def playlists(port):
    url = f'http://127.0.0.1:{port}'
    dash = ('<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static">'
            f'<Period><AdaptationSet><Representation id="1"><BaseURL>{url}/a.mp4</BaseURL>'
            '</Representation></AdaptationSet></Period></MPD>')
    return {
        'hls.mp4': f'#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}/a.ts\n#EXT-X-ENDLIST\n',
        'local.m3u8': '#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\na.ts\n#EXT-X-ENDLIST\n',
        'cat.ffconcat': "ffconcat version 1.0\nfile 'a.ts'\n",
        'dash.mpd': dash,
        'a.sdp': 'v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\n'
                 'm=video 5004 RTP/AVP 96\na=rtpmap:96 H264/90000\n',
    }


@pytest.mark.timeout(60)
@pytest.mark.parametrize('name', playlists(0))
def test_playlists_are_refused_and_open_nothing(tmp_path, name, server):
    write_video(tmp_path / 'a.ts', CONSTANT[:9])
    for suffix in (Path(name).suffix, '.mp4'):
        path = tmp_path / f'list{suffix}'
        path.write_text(playlists(server.port)[name])
        assert re.search('it cannot be opened as a video: (it is a playlist|expected one file)',
                         error_of(path))
    assert not server.requests


@pytest.mark.timeout(30)
def test_devices_fifos_and_folders_are_refused(tmp_path):
    os.mkfifo(tmp_path / 'fifo.mp4')
    for path in (tmp_path / 'fifo.mp4', tmp_path, Path('/dev/zero')):
        assert 'expected a regular file' in error_of(path)
        assert 'expected a regular file' in VideoFile(path).problem()


def test_frames_of_too_many_pixels_are_refused(tmp_path, monkeypatch):
    """The container states a small size, so that only the decoder can refuse the later frame."""
    path, base = tmp_path / 'a.mkv', Fraction(1, 30)
    with av.open(str(path), 'w') as out:
        video = out.add_stream('mjpeg', rate=30)
        video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, 'yuvj420p'
        for index in range(41):
            large = index == 40
            image = marked(index, 640, 480) if large else marked(index)
            packet = av.Packet(cv2.imencode('.jpg', image)[1].tobytes())
            packet.stream, packet.time_base, packet.is_keyframe = video, base, True
            packet.pts = packet.dts = index
            out.mux(packet)
    assert VideoFile(path).frames([1.34]).shape == (1, 480, 640, 3)
    monkeypatch.setattr(video_reader, 'MAX_PIXELS', WIDTH * HEIGHT)
    monkeypatch.setattr(VideoReader, '_check_pixels', lambda *_: None)  # a check after decoding
    assert shown_at(path, [0.5]) == [15]
    assert 'it breaks off' in error_of(path, [1.34])


def test_tables_that_claim_more_frames_than_bytes_are_refused(tmp_path):
    path = write_video(tmp_path / 'a.mp4', CONSTANT[:3])
    data = bytearray(path.read_bytes())
    at = data.index(b'stsz') + 8
    data[at:at + 8] = struct.pack('>II', 1, 20_000_000)
    path.write_bytes(data)
    assert 'it claims 20,000,000 frames in ' in error_of(path)
    assert video_extent(path) == (0, 0, 0)


def test_a_missing_library_is_named(tmp_path, monkeypatch):
    path = write_video(tmp_path / 'a.mp4', CONSTANT[:3])
    monkeypatch.setitem(sys.modules, 'av', None)
    assert 'video files are read by PyAV, which is missing' in error_of(path)
    assert 'pip install av, as requirements/runtime.txt pins it' in error_of(path)


def test_no_file_stays_open(tmp_path):
    path = write_video(tmp_path / 'a.mp4', CONSTANT[:9])
    (tmp_path / 'b.mp4').write_text('no video')
    before = len(os.listdir('/proc/self/fd'))
    for _ in range(5):
        shown_at(path, [0.1])
        error_of(tmp_path / 'b.mp4')
    assert len(os.listdir('/proc/self/fd')) == before


# -- the commands ------------------------------------------------------------------------------

def test_a_bag_holds_each_frame_at_its_own_time(tmp_path, capsys):
    path = with_matrix(write_video(tmp_path / 'a.mp4', VARYING), 0, 1 << 16, -1 << 16, 0)
    assert main(['bag', 'from-video', str(path), str(tmp_path / 'o.mcap')]) == 0
    with Reader(tmp_path / 'o.mcap') as bag:
        stamps = [t for _, t, _ in bag.messages()]
    assert (np.array(stamps) - stamps[0]) / 1e9 == pytest.approx(np.array(VARYING), abs=1e-5)
    assert 'note: its header rotates it by 90 degrees clockwise' in capsys.readouterr().out


def test_predict_lays_frames_by_their_own_times(tmp_path, spec):
    from karmma_ros.cli.predict import VideoClips
    path = write_video(tmp_path / 'a.mp4', VARYING)
    with VideoClips(path, None) as video:
        serials = [frame.serial for frame in video.frames(spec)]
        assert video.seconds == pytest.approx(6.0, abs=0.11)
    period = spec.duration / spec.num_frames
    wanted = [sum(t <= slot * period + 1e-5 for t in VARYING) - 1 for slot in range(len(serials))]
    assert serials == wanted and len(serials) >= 5.8 / period
    with VideoClips(path, 30.0) as video:
        assert [frame.serial for frame in video.frames(spec)][-1] >= 80
        assert video.seconds == 3.0
