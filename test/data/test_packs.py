"""Packs: the samples of the data set, the same shards after a stop, and errors that name them."""

from contextlib import suppress
from dataclasses import replace
import errno
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
import pickle
import sys
import threading
import time
import warnings

import cv2
from karmma_ros.clip import AudioSpec, Clip, ClipSpec, DetectionSpec, FlowSpec, VideoSpec
from karmma_ros.cluster.engine import Workers
from karmma_ros.data.check import check_dataset
from karmma_ros.data.datasets import clips_digest, DataSettings, open_splits
from karmma_ros.data.packs import array_encoding, pack_writer, shard_store
from karmma_ros.data.packs.array_encoding import decode_array, encode_array, LOSSLESS
from karmma_ros.data.packs.pack_writer import write_pack
from karmma_ros.data.packs.shard_store import ShardStore
from karmma_ros.data.samples import collate, Sample, Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.errors import DataError, InvalidSettingError
from karmma_ros.media.audio_file import AudioFile
from karmma_ros.media.depth_video import DepthArray
from karmma_ros.media.frames import FrameFolder
from karmma_ros.media.series_file import SeriesFile
from karmma_ros.media.sources import FlowFromVideo
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality, registered_types
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest
import soundfile
import torch

IMU, DEPTH = Modality('imu'), Modality('depth')
SPEC = ClipSpec(
    duration=1.0, num_frames=4, video=VideoSpec(20, 24), flow=FlowSpec(4.0),
    audio=AudioSpec(
        n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1, tile_steps=100),
    detections=DetectionSpec(3), inputs={
        'imu': {'samples': 16}, 'depth': {'height': 8, 'width': 8},
        'joint_state': {'names': ('a', 'b')}, 'vector': {'size': 3}})
WINDOWS = 3
VOCABULARY = Vocabulary({'action': tuple('abcdef')})


@pytest.fixture(scope='module')
def segments(tmp_path_factory):
    """Return six segments: one lacks depth, one is short, the imu of one cannot be read."""
    folder = tmp_path_factory.mktemp('recordings')
    rng = np.random.default_rng(0)
    (folder / 'rgb').mkdir()
    grey = rng.integers(0, 220, (6, 8, 1)) + rng.integers(0, 30, (6, 8, 3))
    scene = cv2.resize(grey.astype(np.uint8), (64, 40))
    for i in range(60):
        cv2.imwrite(str(folder / 'rgb' / f'frame_{i + 1:010d}.jpg'), np.roll(scene, i, 1))
    soundfile.write(folder / 'a.wav', rng.normal(0, 0.1, 24_000 * 6), 24_000)
    np.save(folder / 'depth.npy', rng.integers(500, 3000, (60, 10, 12), np.uint16))
    np.save(folder / 'imu.npy', rng.random((600, 6), np.float32))
    (folder / 'bad.npy').write_bytes(b'nothing')
    video = FrameFolder(folder / 'rgb', 10.0)
    sources = {Modality.RGB: video, Modality.FLOW: FlowFromVideo(video),
               Modality.AUDIO: AudioFile(folder / 'a.wav'),
               DEPTH: DepthArray(folder / 'depth.npy', fps=10.0),
               IMU: SeriesFile(folder / 'imu.npy', 100.0)}
    segments = [LabelledSegment(f's{i}', 0.3 * i, 0.3 * i + (0.6 if i == 3 else 2.8),
                                {'action': i}, dict(sources)) for i in range(6)]
    del segments[1].sources[DEPTH]
    segments[2].sources[IMU] = SeriesFile(folder / 'bad.npy', 100.0)
    return segments


@pytest.fixture
def splits(segments):
    train, test = (SegmentDataset(part, SPEC, seed=3) for part in (segments[:4], segments[4:]))
    return Splits('Test', SPEC, VOCABULARY, train, test, test, ('x', 'y', 'x', 'y'))


def pack(splits, location, quality=LOSSLESS, windows=WINDOWS, **options):
    store = ShardStore(str(location), options.pop('timeout_s', 60.0))
    digests = {name: clips_digest(getattr(splits, name), DataSettings())
               for name in ('train', 'validation', 'test')
               if isinstance(splits.train, SegmentDataset)}
    return write_pack(splits, store, windows, quality, digests, **options)


def opened(location, cache, **settings):
    return open_splits(DataSettings(packed=str(location), **settings), None, cache)


def assert_equal(sample, wanted):
    assert (sample.labels, sample.index) == (wanted.labels, wanted.index)
    assert set(sample.clip.inputs) == set(wanted.clip.inputs)
    for modality, x in wanted.clip.inputs.items():
        np.testing.assert_array_equal(sample.clip.inputs[modality], x, str(modality))


def quietly(function, *arguments):
    with warnings.catch_warnings():
        warnings.simplefilter('ignore')
        return function(*arguments)


def files_of(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_without_loss_the_samples_are_those_of_the_files(splits, tmp_path):
    summary = pack(splits, tmp_path / 'pack')
    # The short segment has one window; of three others and two scored ones there are 3 + 1 and 1.
    assert (summary.clips, summary.rows) == (6, 3 * (WINDOWS + 1) + 1 + 2)
    packed = opened(tmp_path / 'pack', tmp_path)
    assert packed.validation is packed.test
    assert (packed.name, packed.spec, packed.folds) == ('Test', SPEC, splits.folds)
    assert packed.vocabulary == VOCABULARY
    for ours, theirs in ((packed.train, splits.train), (packed.test, splits.test)):
        assert len(ours) == len(theirs)
        for index in range(len(theirs)):
            assert_equal(ours[index], quietly(theirs.__getitem__, index))
    for epoch in range(2 * WINDOWS):
        for index in range(len(splits.train)):
            wanted = quietly(splits.train.training_sample, index, epoch % WINDOWS)
            assert_equal(packed.train.training_sample(index, epoch), wanted)
    assert packed.train.computed(0) == {Modality.FLOW}


def test_what_cannot_be_read_is_absent_and_reported_once(splits, tmp_path):
    summary = pack(splits, tmp_path / 'pack')
    (text,) = summary.unreadable.values()
    assert 'bad.npy' in text and 'segment s2, imu' in text
    train = opened(tmp_path / 'pack', tmp_path).train
    assert IMU not in train[2].clip.inputs
    assert DEPTH not in train[1].clip.inputs and DEPTH in train[0].clip.inputs


def test_every_registered_type_is_packed(tmp_path):
    names = [Modality(name) for name in registered_types()]
    assert len(names) > 5
    inputs = {m: modality_type(m).noise(SPEC, np.random.default_rng(1)) for m in names}

    class Noise:
        spec = SPEC

        def __len__(self):
            return 2

        def __getitem__(self, index):
            return Sample(Clip(inputs), {'action': index}, index)

        def training_sample(self, index, epoch):
            return self[index]

    clips = Noise()
    assert pack(Splits('Noise', SPEC, VOCABULARY, clips, clips, clips),
                tmp_path / 'pack', 95).rows == 2
    train = opened(tmp_path / 'pack', tmp_path).train
    for index in range(2):
        assert_equal(train.training_sample(index, 7), clips[index])
    assert not train.without_preparation().unprepared  # noise is no image in 8 bit


def test_jpeg_changes_images_alone_and_little(splits, tmp_path):
    pack(splits, tmp_path / 'pack', 95)
    train = opened(tmp_path / 'pack', tmp_path).train
    wanted, got = splits.train[0].clip.inputs, train[0].clip.inputs
    for modality in (Modality.AUDIO, DEPTH, IMU):
        np.testing.assert_array_equal(got[modality], wanted[modality])
    for modality, most in ((Modality.RGB, 3.0), (Modality.FLOW, 2.0)):
        own = modality_type(modality)
        levels = [own.restore(x[modality], SPEC).astype(int) for x in (got, wanted)]
        assert 0 < np.abs(levels[0] - levels[1]).mean() < most


@pytest.mark.parametrize('shape', [(4, 20, 24, 3), (4, 20, 24, 2), (3, 16, 8, 1)])
@pytest.mark.parametrize('tallest', [65_000, 70])
def test_images_are_encoded_one_below_the_other(shape, tallest, monkeypatch):
    monkeypatch.setattr(array_encoding, '_TALLEST', tallest)
    ramp = np.linspace(0, 255, int(np.prod(shape[:3])))
    images = np.repeat(ramp[:, None], shape[3], 1).reshape(shape).astype(np.uint8)
    images[..., 0] = 255 - images[..., 0]
    decoded = decode_array(encode_array(images, 95))
    assert decoded.shape == shape and decoded.dtype == np.uint8
    assert np.abs(decoded.astype(int) - images).max() < 30


@pytest.mark.parametrize('damage', [
    lambda data: b'', lambda data: b'?' + data, lambda data: data[:15], lambda data: data[:40]])
@pytest.mark.parametrize('quality', [LOSSLESS, 95])
def test_damaged_bytes_are_refused(damage, quality):
    data = encode_array(np.zeros((2, 16, 16, 3), np.uint8), quality)
    with pytest.raises(ValueError, match='it '):
        decode_array(damage(data))


def test_a_loader_prepares_images_on_the_device_to_the_same_bits(splits, tmp_path):
    pack(splits, tmp_path / 'pack')
    train = opened(tmp_path / 'pack', tmp_path).train
    names = [Modality.RGB, Modality.FLOW, Modality.AUDIO, DEPTH]
    samples = [train[i] for i in range(3)]
    raw = [train.without_preparation()[i] for i in range(3)]
    for several in (samples, raw):  # one lacks its frames
        del several[1].clip.inputs[Modality.RGB]
    assert raw[0].clip.inputs[Modality.RGB].dtype == np.uint8
    assert raw[0].clip.inputs[Modality.AUDIO].ndim == 2  # the spectrogram, before its tiles
    assert train.unprepared == frozenset()
    unprepared = train.without_preparation().unprepared
    wanted, got = collate(samples, names, SPEC), collate(raw, names, SPEC, unprepared)
    assert wanted.preparation is None and got.preparation is not None
    got = got.to('cpu')
    assert got.preparation is None
    for name in names:
        assert torch.equal(got.inputs[name], wanted.inputs[name]), name
    assert torch.equal(got.present, wanted.present)


def test_only_wanted_modalities_are_decoded_and_a_pickle_reads_the_same(splits, tmp_path):
    pack(splits, tmp_path / 'pack')
    train = opened(tmp_path / 'pack', tmp_path).train
    train[0]  # opens the files, which are not pickled
    again = pickle.loads(pickle.dumps(train))
    assert_equal(again[0], train[0])
    assert set(again.with_modalities([IMU])[0].clip.inputs) == {IMU}


class Stopped(Exception):
    """Ends a process."""


def test_a_stopped_pack_continues_to_the_same_bytes(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, 'SHARD_BYTES', 1)  # a segment each
    pack(splits, tmp_path / 'unbroken')
    write, served = ShardStore.write, []

    def stopping(store, name, content):
        served.append(name)
        if len(served) == 6:
            raise Stopped
        write(store, name, content)

    monkeypatch.setattr(ShardStore, 'write', stopping)
    with pytest.raises(Stopped):
        pack(splits, tmp_path / 'stopped')
    with pytest.raises(DataError, match='the pack is not complete: give the command that packs'):
        opened(tmp_path / 'stopped', tmp_path)
    # What a process leaves that is killed in the middle of a shard.
    (tmp_path / 'stopped' / 'chunk-0-3.bin').write_bytes(b'half')
    (tmp_path / 'stopped' / '.partial_0').mkdir()
    served.clear()
    monkeypatch.setattr(ShardStore, 'write', lambda *given: (served.append(given[1]),
                                                             write(*given)))
    pack(splits, tmp_path / 'stopped')
    assert 'chunk-0-0.bin' not in served and 'chunk-0-3.bin' in served
    assert files_of(tmp_path / 'stopped') == files_of(tmp_path / 'unbroken')


def test_several_processes_write_the_same_bytes(splits, tmp_path, monkeypatch):
    monkeypatch.setattr(pack_writer, 'SHARD_BYTES', 1)
    done = []
    pack(splits, tmp_path / 'one', 95)
    pack(splits, tmp_path / 'two', 95, workers=Workers(count=2),
         progress=lambda *counts: done.append(counts))
    assert files_of(tmp_path / 'one') == files_of(tmp_path / 'two')
    assert done == [(n, 6) for n in range(7)]


def test_a_folder_with_another_pack_is_refused(splits, tmp_path):
    pack(splits, tmp_path / 'pack')
    with pytest.raises(DataError, match='it has shards of other data, or of other settings: give '
                       'another --out, or delete it'):
        pack(splits, tmp_path / 'pack', 95)


def test_a_full_disk_names_the_shard_and_leaves_the_others(splits, tmp_path, monkeypatch):
    from litdata.streaming.writer import BinaryWriter
    monkeypatch.setattr(pack_writer, 'SHARD_BYTES', 1)
    pack(splits, tmp_path / 'unbroken')
    done = BinaryWriter.done

    def full(writer):
        if writer._chunk_index == 2:
            raise OSError(errno.ENOSPC, 'No space left on device')
        return done(writer)

    monkeypatch.setattr(BinaryWriter, 'done', full)
    with pytest.raises(DataError, match=r'pack/chunk-0-2.bin: it cannot be written \(No space '
                       r'left on device\): free some space and give the same command again: what '
                       'is written is kept'):
        pack(splits, tmp_path / 'pack')
    assert sorted(path.name for path in (tmp_path / 'pack').iterdir()) == [
        'chunk-0-0.bin', 'chunk-0-0.json', 'chunk-0-1.bin', 'chunk-0-1.json', 'pack.json.of']
    monkeypatch.setattr(BinaryWriter, 'done', done)
    pack(splits, tmp_path / 'pack')
    assert files_of(tmp_path / 'pack') == files_of(tmp_path / 'unbroken')


def test_a_shard_that_was_shortened_is_named(splits, tmp_path):
    pack(splits, tmp_path / 'pack')
    shard = tmp_path / 'pack' / 'chunk-0-0.bin'
    content = shard.read_bytes()
    shard.write_bytes(content[:-100])
    packed = opened(tmp_path / 'pack', tmp_path)
    with pytest.raises(DataError, match=rf'chunk-0-0.bin: it has {len(content) - 100:,} bytes; '
                       rf'expected {len(content):,}: copy it again, or pack the data again'):
        packed.train[0]
    packed.test[0]  # of another shard
    report = check_dataset(packed)
    assert not report.intact
    counts = report.splits['train'].modalities[Modality.RGB]
    assert (counts.missing, counts.present) == (4, 0)
    assert 'expected' in counts.examples[0] and 'chunk-0-0.bin' in counts.examples[0]
    shard.unlink()
    with pytest.raises(DataError, match='chunk-0-0.bin: it is missing'):
        packed.train[0]


def test_the_check_of_a_pack_counts_and_detects_damage(splits, tmp_path):
    pack(splits, tmp_path / 'pack')
    packed = opened(tmp_path / 'pack', tmp_path)
    report = check_dataset(packed, decode=10)
    assert report.intact and not report.complete
    depth = report.splits['train'].modalities[DEPTH]
    assert (depth.present, depth.lacking, depth.decoded) == (3, 1, 3)
    assert depth.lacking_examples == ['clip 1']
    shard = tmp_path / 'pack' / 'chunk-0-1.bin'
    content = bytearray(shard.read_bytes())
    content[-5] ^= 1
    shard.write_bytes(content)
    assert check_dataset(packed).intact  # sizes alone
    counts = check_dataset(packed, decode=1).splits['validation, test'].modalities[IMU]
    assert 'its SHA-256 is another' in counts.examples[0]


def test_a_folder_that_is_no_pack_and_another_format_are_refused(splits, tmp_path):
    with pytest.raises(DataError, match='there is no pack: it has no pack.json'):
        opened(tmp_path / 'nothing', tmp_path)
    pack(splits, tmp_path / 'pack')
    other = replace(SPEC, duration=2.0, video=VideoSpec(20, 32))
    with pytest.raises(DataError, match=r'its clips have another format: they differ in '
                       r'clip.duration \(1.0 in the pack; 2.0 wanted\), clip.video.width \(24 in'):
        open_splits(DataSettings(packed=str(tmp_path / 'pack')), other, tmp_path)
    path = tmp_path / 'pack' / 'pack.json'
    path.write_text(json.dumps({**json.loads(path.read_text()), 'version': 0}))
    with pytest.raises(DataError, match='its version is 0; expected 1: pack the data again'):
        opened(tmp_path / 'pack', tmp_path)
    path.write_text('{')
    with pytest.raises(DataError, match='pack.json: it is damaged'):
        opened(tmp_path / 'pack', tmp_path)


def test_without_litdata_the_requirements_are_named(splits, tmp_path, monkeypatch):
    pack(splits, tmp_path / 'pack')
    packed = opened(tmp_path / 'pack', tmp_path)
    for name in ('litdata', 'litdata.streaming.writer'):
        monkeypatch.setitem(sys.modules, name, None)
    for act in (lambda: packed.train[0], lambda: pack(splits, tmp_path / 'other')):
        with pytest.raises(DataError, match='by LitData, which is missing .*: pip install -r '
                           'requirements/training.txt'):
            act()


@pytest.mark.parametrize(('settings', 'text'), [
    ({'pack_timeout': 0}, 'data.pack_timeout is 0; expected seconds above 0'),
    ({'pack_cache_gb': -1}, 'data.pack_cache_gb is -1; expected gigabytes'),
])
def test_settings_that_cannot_be_used_are_refused(settings, text):
    with pytest.raises(InvalidSettingError, match=text):
        DataSettings(**settings)


def test_a_digest_depends_on_what_is_packed(splits, tmp_path):
    for name, quality in (('a', 95), ('b', 95), ('c', 90)):
        pack(splits, tmp_path / name, quality)
    keys = [clips_digest(opened(tmp_path / name, tmp_path).train, DataSettings())
            for name in 'abc']
    assert keys[0] == keys[1] != keys[2]
    assert shard_store.is_remote('s3://bucket/a') and not shard_store.is_remote('/data/pack')


class Bucket(BaseHTTPRequestHandler):
    """A bucket of S3 on this machine, as far as packs use it."""

    protocol_version = 'HTTP/1.1'

    def log_message(self, *given):
        pass

    def do_PUT(self):
        content = self.rfile.read(int(self.headers.get('Content-Length', 0)))
        self.server.requests.append(f'PUT {self.path}')
        if self.server.full:
            self.send(507)
            return
        self.server.content[self.path] = content
        self.send(200)

    def do_HEAD(self):
        self.do_GET()

    def do_GET(self):
        self.server.requests.append(self.path)
        self.server.released.wait(self.server.delay_s)
        content = self.server.content.get(self.path)
        self.send(404 if content is None else 200, content or b'')

    def send(self, status, content=b''):
        self.send_response(status)
        self.send_header('Content-Length', str(len(content)))
        self.send_header('ETag', '"0"')
        self.send_header('Last-Modified', 'Mon, 30 Nov 2026 00:00:00 GMT')
        self.end_headers()
        if self.command != 'HEAD':
            with suppress(OSError):  # who waits no longer
                self.wfile.write(content)


@pytest.fixture
def bucket(monkeypatch):
    server = ThreadingHTTPServer(('127.0.0.1', 0), Bucket)
    server.daemon_threads = True
    server.content, server.requests, server.full, server.delay_s = {}, [], False, 0.0
    server.released = threading.Event()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name, value in (('ENDPOINT_URL', f'http://127.0.0.1:{server.server_port}'),
                        ('ACCESS_KEY_ID', 'a'), ('SECRET_ACCESS_KEY', 'b'),
                        ('REGION', 'us-east-1')):
        monkeypatch.setenv(f'AWS_{name}', value)
    yield server
    server.released.set()
    server.shutdown()
    server.server_close()


URL = 's3://bucket/packs/a'


def test_a_bucket_has_the_same_files_and_gives_the_same_clips(splits, tmp_path, bucket):
    pack(splits, tmp_path / 'local')
    pack(splits, URL)
    assert {name.rpartition('/')[2]: content for name, content in bucket.content.items()} == \
        files_of(tmp_path / 'local')
    ours = opened(URL, tmp_path / 'cache')
    theirs = opened(tmp_path / 'local', tmp_path)
    for _ in range(2):
        assert_equal(ours.train[0], theirs.train[0])
    # A shard is copied once, also for a process that opens the pack anew.
    assert_equal(opened(URL, tmp_path / 'cache').train[2], theirs.train[2])
    copied = [path for path in bucket.requests if not path.startswith('PUT')]
    assert [path.rpartition('/')[2] for path in copied].count('chunk-0-0.bin') == 1
    assert check_dataset(ours, decode=2).intact
    bucket.requests.clear()
    pack(splits, URL)  # what is complete is not written again
    written = [name for name in bucket.requests if name.startswith('PUT')]
    assert [name.rpartition('/')[2] for name in written] == ['index.json', 'pack.json']


def test_a_damaged_shard_of_a_bucket_is_named(splits, tmp_path, bucket):
    pack(splits, URL)
    shard = next(name for name in bucket.content if name.endswith('chunk-0-0.bin'))
    content = bucket.content[shard]
    train = opened(URL, tmp_path).train
    for damaged, text in (
            (content[:-1], f'it has {len(content) - 1:,} bytes; expected {len(content):,}'),
            (content[:-1] + b'?', 'its SHA-256 is another')):
        bucket.content[shard] = damaged
        with pytest.raises(DataError, match=f'data {URL}/chunk-0-0.bin: {text}: copy it again'):
            train[0]
    del bucket.content[shard]
    with pytest.raises(DataError, match='chunk-0-0.bin: it is missing'):
        train[0]
    bucket.content[shard] = content
    train[0]


def test_a_bucket_that_responds_too_late_or_not_at_all_is_named(
    splits, tmp_path, bucket, monkeypatch
):
    monkeypatch.setattr(shard_store, 'RETRIES', 1)
    pack(splits, URL)
    train = opened(URL, tmp_path, pack_timeout=0.3).train
    bucket.delay_s = 30.0
    began = time.monotonic()
    with pytest.raises(DataError, match=rf'data {URL}/chunk-0-0.bin: it cannot be read \(.*\): '
                       'check the address, the credentials and the network; each of 2 attempts '
                       'may take 0.3 s'):
        train[0]
    assert time.monotonic() - began < 15
    bucket.delay_s = 0.0
    train[0]
    bucket.shutdown()
    bucket.server_close()
    with pytest.raises(DataError, match=f'data {URL}/pack.json: it cannot be read'):
        opened(URL, tmp_path, pack_timeout=0.3)


def test_a_bucket_that_takes_nothing_more_keeps_what_it_has(splits, tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(shard_store, 'RETRIES', 0)
    monkeypatch.setattr(pack_writer, 'SHARD_BYTES', 1)
    write, written = ShardStore.write, []

    def filling(store, name, content):
        bucket.full = len(written) == 5
        write(store, name, content)
        written.append(name)

    monkeypatch.setattr(ShardStore, 'write', filling)
    with pytest.raises(DataError, match=f'data {URL}/chunk-0-2.bin: it cannot be written'):
        pack(splits, URL)
    assert len(bucket.content) == 5
    written[:] = ['…'] * 6
    pack(splits, URL)
    assert 'chunk-0-0.bin' not in written and 'chunk-0-2.bin' in written
    pack(splits, tmp_path / 'local')
    assert {name.rpartition('/')[2]: content for name, content in bucket.content.items()} == \
        files_of(tmp_path / 'local')


def test_copies_of_shards_stay_within_their_limit(splits, tmp_path, bucket, monkeypatch):
    monkeypatch.setattr(pack_writer, 'SHARD_BYTES', 1)
    pack(splits, URL, 95)
    wanted = opened(URL, tmp_path / 'all').train
    largest = max(shard['size'] for shard in wanted.pack.shards)
    train = opened(URL, tmp_path / 'few', pack_cache_gb=2.1 * largest / 1e9).train
    for index in (0, 1, 2, 3, 0, 2, 1):
        assert_equal(train[index], wanted[index])
        copies = list((tmp_path / 'few').rglob('*.bin'))
        assert sum(path.stat().st_size for path in copies) <= 2.1 * largest
    assert wanted.shuffled_shards == (None, 1)
    assert train.shuffled_shards == ([0, 1, 2, 3], 1)
