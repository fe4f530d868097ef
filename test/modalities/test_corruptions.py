"""Corruptions keep shape and type, depend on their seed alone, and grow with the severity."""

from karmma_ros.clip import AudioSpec, BOX_HAND, BOX_OBJECT, ClipSpec, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.audio_buffer import AudioArrays, AudioChunk
from karmma_ros.modalities.corruption import InStream, SEVERITIES
from karmma_ros.modalities.modality_type import ModalityType
from karmma_ros.modalities.series import Series
from karmma_ros.modality import Modality, REGISTRY
import numpy as np
import pytest

CLIP = ClipSpec(
    duration=2.0, num_frames=10, video=VideoSpec(40, 40),
    audio=AudioSpec(n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1, tile_steps=200,
                    mean=0.0, std=10.0),
    inputs={'depth': {'height': 24, 'width': 24},
            'skeleton': {'samples': 20, 'joints': 5}, 'imu': {'samples': 40},
            'vector': {'size': 3, 'samples': 20, 'mean': (1.0, 2.0, 3.0), 'std': (2.0, 3.0, 0.5)},
            'joint_state': {'samples': 20, 'names': ('a', 'b')}})
Y, X = np.mgrid[0:40, 0:40] / 40
CASES = [(name, each) for name in REGISTRY
         for each in modality_type(Modality(name)).corruptions]


def frames():
    waves = [np.sin(9 * X + 0.4 * i) + np.cos(7 * Y - 0.3 * i) for i in range(10)]
    return np.stack([np.stack([120 + 50 * wave] * 3, -1) for wave in waves]).astype(np.uint8)


def series(channels, count=40):
    times = np.linspace(-2e9, 0, count).astype(np.int64)
    phase = np.arange(channels)
    values = np.sin(times[:, None] / 3e8 + phase) + 2 * phase
    return Series(times, values.astype(np.float32))


def boxes():
    row = [[0.1, 0.2, 0.4, 0.5, BOX_HAND], [0.5, 0.4, 0.8, 0.9, BOX_OBJECT]]
    return [np.array(row, np.float32) + np.float32([i / 100] * 4 + [0]) for i in range(10)]


WINDOWS = {
    'rgb': frames, 'flow': lambda: frames()[..., :2].copy(),
    'audio': lambda: np.random.default_rng(9).normal(0, 0.01, 32_000).astype(np.float32),
    'detections': boxes,
    'imu': lambda: series(6), 'skeleton': lambda: series(10), 'vector': lambda: series(3),
    'joint_state': lambda: series(2),
    'depth': lambda: (1 + frames()[..., 0] / 255).astype(np.float32),
}


def parts(arrays):
    """Return all numbers of a window in one array."""
    if isinstance(arrays, Series):
        return arrays.values
    return np.concatenate([each.ravel() for each in arrays])


def corrupt(name, corruption, severity, seed=0):
    return modality_type(Modality(name)).corrupt(
        corruption, severity, WINDOWS[name](), CLIP, np.random.default_rng(seed))


def prepared(name, arrays):
    return modality_type(Modality(name)).prepare(arrays, CLIP)


def test_every_type_declares_corruptions():
    assert all(modality_type(Modality(name)).corruptions for name in WINDOWS)
    assert {'black', 'frozen', 'covered', 'half_covered', 'blur', 'low_light', 'overexposed',
            'noise'} == {*modality_type(Modality.RGB).corruptions}


@pytest.mark.parametrize(('name', 'corruption'), CASES)
def test_a_corrupted_window_is_one_that_is_prepared(name, corruption):
    own, clean = modality_type(Modality(name)), WINDOWS[name]()
    before = parts(clean).copy()
    inputs = []
    for severity in SEVERITIES:
        corrupted = own.corrupt(corruption, severity, clean, CLIP, np.random.default_rng(3))
        assert np.array_equal(parts(clean), before)
        again = corrupt(name, corruption, severity, seed=3)
        assert np.array_equal(parts(corrupted), parts(again), equal_nan=True)
        x = own.prepare(corrupted, CLIP)
        assert x.shape == own.input_shape(CLIP) and np.isfinite(x).all()
        inputs.append(x)
    first, last = (np.abs(each - prepared(name, clean)).mean() for each in
                   (inputs[0], inputs[-1]))
    assert 0 < first < last


@pytest.mark.parametrize(('name', 'corruption'), [
    (name, each) for name in REGISTRY for each in modality_type(Modality(name)).input_corruptions])
def test_an_input_is_corrupted_as_its_window_is(name, corruption):
    own = modality_type(Modality(name))
    x = prepared(name, WINDOWS[name]())
    corrupted = own.corrupt_input(corruption, 4, x, CLIP, np.random.default_rng(5))
    assert corrupted.shape == x.shape and corrupted.dtype == np.float32
    expected = prepared(name, corrupt(name, corruption, 4, seed=5))
    change = np.abs(expected - x).mean()
    if name in ('rgb', 'flow', 'detections'):
        assert np.allclose(corrupted, expected, atol=1e-6)
    elif corruption in ('noise', 'dropout'):  # of another number of samples
        assert np.abs(corrupted - x).mean() == pytest.approx(change, rel=0.8)
    else:
        assert np.abs(corrupted - expected).mean() < 0.3 * change


def test_what_cannot_be_restored_has_no_corruptions_of_its_input():
    assert not modality_type(Modality('depth')).input_corruptions
    assert 'clipping' not in modality_type(Modality.AUDIO).input_corruptions


@pytest.mark.parametrize('name', [n for n in WINDOWS if n != 'depth'])
def test_an_input_is_restored(name):
    own = modality_type(Modality(name))
    if name in ('audio', 'skeleton'):
        with pytest.raises(NotImplementedError):
            own.restore(prepared(name, WINDOWS[name]()), CLIP)
        return
    x = prepared(name, WINDOWS[name]())
    assert np.allclose(own.prepare(own.restore(x, CLIP), CLIP), x, atol=1e-4)


@pytest.mark.parametrize(('name', 'corruption'), CASES)
def test_one_sample_after_the_other_is_corrupted(name, corruption):
    own, window = modality_type(Modality(name)), WINDOWS[name]()
    how = own.corruption(corruption).in_stream
    if how in (InStream.HOLD, InStream.DROP):
        return
    sample = AudioChunk(window[:512], 16_000) if name == 'audio' else (
        window.values[0] if isinstance(window, Series) else window[0])
    if name == 'flow':
        sample = (sample - 128.0).astype(np.float32) / 10
    sent = [own.corrupt_sample(corruption, 5, sample, CLIP, i / 10, 7, i) for i in range(3)]
    again = own.corrupt_sample(corruption, 5, sample, CLIP, 0.1, 7, 1)
    arrays = [each.samples if name == 'audio' else np.asarray(each)
              for each in (sample, *sent, again)]
    assert np.array_equal(arrays[2], arrays[4], equal_nan=True)
    assert all(each.dtype == arrays[0].dtype for each in arrays)
    assert not np.array_equal(arrays[0], arrays[2], equal_nan=True)
    if corruption == 'black':
        assert not arrays[1].any()
    if corruption in ('noise', 'hiss', 'covered'):
        assert not np.array_equal(arrays[1], arrays[2])


def test_the_light_leaks_in_at_the_same_side_of_each_frame():
    own, frame = modality_type(Modality.RGB), np.zeros((40, 40, 3), np.uint8)
    first, second = (own.corrupt_sample('covered', 5, frame, CLIP, i / 10, 3, i).astype(float)
                     for i in (0, 1))
    assert np.abs(first.mean((1, 2)) - second.mean((1, 2))).max() < 3


def test_levels_are_what_they_state():
    quiet = np.zeros(32_000, np.float32)
    own = modality_type(Modality.AUDIO)
    for severity, decibels in zip(SEVERITIES, (-60, -50, -40, -30, -20)):
        hiss = own.corrupt('hiss', severity, quiet, CLIP, np.random.default_rng(0))
        assert 20 * np.log10(hiss.std()) == pytest.approx(decibels, abs=0.2)
    assert not np.any(corrupt('audio', 'silence', 5))
    assert np.count_nonzero(corrupt('audio', 'silence', 2)[-12_800:]) == 0
    frozen = corrupt('rgb', 'frozen', 5)
    assert (frozen == frozen[0]).all() and frozen[0].any()
    assert not any(len(each) for each in corrupt('detections', 'missing_boxes', 5))
    assert {*corrupt('detections', 'wrong_label', 5)[0][:, 4]} == {BOX_HAND, BOX_OBJECT}
    assert np.array_equal(corrupt('detections', 'wrong_label', 5)[0][0, 4], BOX_OBJECT)


def test_gaps_of_audio_stay():
    valid = np.arange(32_000) > 8000
    arrays = AudioArrays(WINDOWS['audio'](), valid, np.zeros((16, 201), np.float32))
    corrupted = modality_type(Modality.AUDIO).corrupt(
        'hiss', 3, arrays, CLIP, np.random.default_rng(0))
    assert corrupted.valid_mask is valid and corrupted.spectrogram is None


def test_an_unknown_corruption_is_an_error_that_lists_those_that_exist():
    with pytest.raises(InvalidSettingError, match='silence, muted, hiss, hum, clipping, low_gain'):
        corrupt('audio', 'covered', 1)
    for severity in (0, 6):
        with pytest.raises(InvalidSettingError, match='an integer from 1 to 5'):
            corrupt('audio', 'hiss', severity)


def test_a_type_of_ones_own_declares_its_own():
    from karmma_ros.modalities.corruption import Corruption

    class Gaze(ModalityType):
        corruptions = {'lost': Corruption('a gaze at {:g}', (1, 2, 3, 4, 5),
                                          lambda points, level, context: 0 * points + level)}
        input_shape = prepare = buffer = None

    Gaze.__abstractmethods__ = frozenset()
    points = np.zeros((4, 2), np.float32)
    own = Gaze(Modality.RGB)
    assert (own.corrupt('lost', 3, points, CLIP, np.random.default_rng(0)) == 3).all()
    assert (own.corrupt_sample('lost', 2, points[0], CLIP, 0.0, 0, 0) == 2).all()
    assert own.input_corruptions == ()
