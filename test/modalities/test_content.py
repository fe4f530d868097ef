"""Samples that are valid and show nothing are found, named with figures, and masked."""

from types import SimpleNamespace as Fields

from karmma_ros.clip import AudioSpec, ClipSpec, NANOSECONDS, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modalities import message_types as types
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.content_check import ContentCheck
from karmma_ros.modality import load_type, Modality, REGISTRY
from karmma_ros.stream.availability import ModalityState
from modality_rig import header, ModalityRig
import numpy as np
import pytest

SPEC = ClipSpec(duration=2.0, num_frames=16, video=VideoSpec(40, 40), audio=AudioSpec(
    n_fft=256, win_length=256, hop_length=160, n_mels=16, tiles=1, tile_steps=50))
UNINFORMATIVE = ModalityState.UNINFORMATIVE
RANDOM = np.random.default_rng(0)
Y, X = np.mgrid[0:96, 0:128] / 96
OBJECTS = ((np.sin(9 * X) > 0.3) ^ (np.cos(7 * Y + 2 * X) > 0)) * 150.0 + 30


def camera(levels, noise=0.0, tint=(1.0, 1.0, 1.0)):
    """Return an image message of grey levels `[h, w]`, with sensor noise."""
    image = np.asarray(levels, np.float64)[..., None] * np.array(tint)
    image = np.broadcast_to(image, (*Y.shape, 3))
    image = np.clip(image + RANDOM.normal(0, noise, image.shape), 0, 255).astype(np.uint8)
    return lambda stamp: Fields(
        header=stamp, height=96, width=128, step=384, encoding='rgb8', is_bigendian=0,
        data=image.reshape(-1))


def microphone(samples):
    """Return an audio message of samples in [-1, 1]."""
    data = np.clip(np.round(np.asarray(samples) * 32768), -32768, 32767).astype('<i2').tobytes()
    return lambda stamp: Fields(header=stamp, audio=Fields(data=data))


def hiss(level_db, count=512):
    return RANDOM.normal(0, 10 ** (level_db / 20), count)


class Sensors(ModalityRig):
    """Inputs that are fed for some seconds, 30 frames and 31 chunks of audio a second."""

    def play(self, seconds, name, make, type_name, hertz=30.0):
        """Send messages; return the statuses after each."""
        statuses = []
        for _ in range(round(seconds * hertz)):
            self.now_ns += round(NANOSECONDS / hertz)
            assert self.take(name, type_name, make()(header(self.now_ns))) == ''
            statuses.append(self.status(name))
        return statuses

    def camera(self, seconds, make):
        return self.play(seconds, 'rgb', make, types.IMAGE)

    def microphone(self, seconds, make):
        return self.play(seconds, 'audio', make, types.AUDIO_DATA_STAMPED, 31.25)


def lit():
    return camera(OBJECTS, 3)


LEAK = np.exp(-X / 0.2)
COVERED = {
    'black': lambda: camera(0 * X),
    'noise': lambda: camera(0 * X + 3, 2),
    'strong noise': lambda: camera(0 * X + 2, 10),
    'light from the side': lambda: camera(3 + 40 * LEAK, 4),
    'light from a corner': lambda: camera(3 + 60 * np.exp(-np.hypot(X, Y) / 0.3), 2),
    'a finger that glows': lambda: camera(30 + 20 * X, 2, (2.0, 0.5, 0.3)),
}
DARK = {
    'evening': lambda: camera(OBJECTS * 0.2, 3),
    'night': lambda: camera(OBJECTS * 0.06, 4),
    'a lamp in the dark': lambda: camera(200 * (np.hypot(X - 0.6, Y - 0.5) < 0.05), 3),
}


@pytest.mark.parametrize('covered', COVERED.values(), ids=COVERED)
def test_a_covered_lens_is_black_within_a_second_and_back_within_a_window(covered):
    rig = Sensors(SPEC, 'rgb', 'flow')
    assert all(s.state is not UNINFORMATIVE for s in rig.camera(3, lit))
    assert rig.available == 'V F'
    states = [s.state for s in rig.camera(2, covered)]
    assert UNINFORMATIVE in states[:30] and set(states[30:]) == {UNINFORMATIVE}
    status = rig.status('rgb')
    assert status.detail.startswith('black: mean ') and status.detail.endswith(' for 2.0 s')
    assert status.warning and status.warning in status.detail
    assert rig.status('flow').detail == f'derived from the camera: {status.detail}'
    assert rig.available == '' and rig.stream.window(rig.now_ns) is None
    assert rig.camera(2, lit)[-1].available and rig.status('rgb').warning == ''
    images = np.stack(rig.stream.window(rig.now_ns).samples[Modality.RGB].images)
    assert images.mean(axis=(1, 2, 3)).min() > 60  # none of the covered lens


@pytest.mark.parametrize('dark', DARK.values(), ids=DARK)
def test_in_the_dark_the_camera_stays(dark):
    rig = Sensors(SPEC, 'rgb')
    rig.camera(3, dark)
    assert rig.status('rgb').available and not rig.status('rgb').warning


@pytest.mark.parametrize(('make', 'text'), [
    (lambda: microphone(np.zeros(512)), 'digital silence: constant at 0'),
    (lambda: microphone(np.full(512, -0.25)), 'digital silence: constant at -0.25'),
    (lambda: microphone(RANDOM.integers(0, 2, 512) / 32768), 'digital silence: -'),
])
def test_digital_silence_is_found_within_a_second(make, text):
    rig = Sensors(SPEC, 'audio')
    assert rig.microphone(3, lambda: microphone(hiss(-50)))[-1].available
    states = [s.state for s in rig.microphone(2, make)]
    assert UNINFORMATIVE in states[:31] and set(states[31:]) == {UNINFORMATIVE}
    assert rig.status('audio').detail.startswith(text)
    assert rig.microphone(2, lambda: microphone(hiss(-50)))[-1].available
    assert np.ptp(rig.stream.window(rig.now_ns).samples[Modality.AUDIO].samples) > 0


@pytest.mark.parametrize('level_db', [-50, -70, -80])
def test_a_quiet_room_is_not_silent(level_db):
    rig = Sensors(SPEC, 'audio')
    rig.microphone(3, lambda: microphone(hiss(level_db)))
    assert rig.status('audio').available


def test_others_are_recognised_without_the_sensor_that_shows_nothing():
    rig = Sensors(SPEC, 'rgb', 'audio')
    for step in range(150):
        rig.camera(1 / 30, lit if step < 90 else COVERED['noise'])
        rig.now_ns -= round(NANOSECONDS / 30)
        rig.microphone(1 / 31.25, lambda: microphone(hiss(-50)))
    assert rig.available == 'A'
    assert rig.stream.window(rig.now_ns).modalities == (Modality.AUDIO,)


def test_a_fault_that_is_interrupted_is_none_and_one_that_is_established_persists():
    rig = Sensors(SPEC, 'rgb')
    rig.camera(2, lit)
    for _ in range(6):
        rig.camera(0.5, COVERED['noise'])
        assert rig.camera(0.2, lit)[-1].state is not UNINFORMATIVE
    rig.camera(1, COVERED['noise'])
    assert rig.camera(0.13, lit)[-1].state is UNINFORMATIVE  # one frame of the clip
    rig.camera(0.3, COVERED['noise'])
    assert rig.status('rgb').detail.endswith('for 1.4 s')


def test_the_check_can_be_disabled_while_it_has_found_something():
    rig = Sensors(SPEC, 'rgb')
    rig.camera(3, COVERED['noise'])
    rig.values['rgb.check_content'] = False
    rig.ingest.read_parameters()
    rig.camera(2, COVERED['noise'])
    assert rig.status('rgb').available
    rig.values['rgb.check_content'] = True
    rig.ingest.read_parameters()
    rig.camera(1, COVERED['noise'])
    assert rig.status('rgb').state is UNINFORMATIVE


def test_a_new_threshold_starts_the_check_anew():
    rig = Sensors(SPEC, 'audio')
    rig.microphone(3, lambda: microphone(hiss(-80)))
    rig.values['audio.silence_level'] = -60.0
    rig.ingest.read_parameters()
    rig.microphone(1, lambda: microphone(hiss(-80)))
    assert rig.status('audio').detail.startswith('digital silence: -80 dB of full scale')


def test_samples_of_any_size_are_judged():
    rig = Sensors(ClipSpec(duration=1.0, num_frames=4, video=VideoSpec(1, 3)), 'rgb')
    rig.camera(1, lit)
    rig = Sensors(SPEC, 'audio')
    for _ in range(3):
        rig.play(1, 'audio', lambda: microphone(hiss(-50, 1)), types.AUDIO_DATA_STAMPED, 500)
        assert rig.status('audio').state is not UNINFORMATIVE


@pytest.mark.parametrize('name', REGISTRY)
def test_every_type_states_its_check_or_that_it_has_none(name):
    if REGISTRY[name].location.startswith('karmma_ros.'):
        own = load_type(name, REGISTRY[name].location)
        assert 'content_check' in vars(own), f'{own.__name__}: state content_check; None: no check'


def _checked():
    kinds = [modality_type(Modality(name)) for name in REGISTRY]
    return [each for each in kinds if each.content_check is not None]


@pytest.mark.parametrize('own', _checked(), ids=lambda own: own.name)
def test_every_check_names_its_faults_and_limits_its_thresholds(own):
    assert issubclass(own.content_check, ContentCheck) and own.content_check.faults
    names = {each.name: each for each in own.declarations()}
    assert names[f'{own.name}.check_content'].default is True
    for each in names.values():
        if isinstance(each.default, float):
            assert each.range, f'{each.name} has no range'
            with pytest.raises(InvalidSettingError, match=each.name):
                each.check(each.range[1] + 1)
