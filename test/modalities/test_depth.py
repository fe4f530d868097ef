"""Depth images: encodings, compressed ones and hostile ones, crops, units, channels."""

import struct
from types import SimpleNamespace as Fields
import zlib

import cv2
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.modalities import make_clip, modality_type, unsupported_type
from karmma_ros.modalities.depth import DepthSpec
from karmma_ros.modalities.message_types import COMPRESSED_IMAGE, IMAGE
from karmma_ros.modality import Modality
from karmma_ros.preprocess.depth_images import (
    compressed_depth_values,
    depth_metres,
    depth_values,
    has_return,
    pick,
)
from karmma_ros.stream.availability import ModalityState
from modality_rig import header, ModalityRig, recorded, STORE, T0_NS
import numpy as np
import pytest

Z = Modality('depth')
SPEC = ClipSpec(duration=0.8, num_frames=8, inputs={'depth': {'height': 12, 'width': 16}})
PERSON = ClipSpec(duration=0.8, num_frames=8, inputs={
    'depth': {'height': 8, 'width': 8, 'crop': 'person', 'far': 3.0}})
METRES = np.random.default_rng(0).uniform(1, 4, (24, 32)).astype(np.float32)
MILLIMETRES = np.round(METRES * 1000).astype(np.uint16)


def raw(values=METRES, stamp_ns=T0_NS, pad=0, big=False, **changes):
    """Return an image as a bag has it."""
    encoding = '16UC1' if values.dtype == np.uint16 else '32FC1'
    rows = values.astype(values.dtype.newbyteorder('>' if big else '<'))
    data = np.pad(rows.view(np.uint8).reshape(len(rows), -1), ((0, 0), (0, pad)))
    fields = {'height': len(values), 'width': values.shape[1], 'encoding': encoding,
              'is_bigendian': int(big), 'step': data.shape[1], 'data': data.reshape(-1),
              **changes}
    return recorded(IMAGE, STORE.types[IMAGE](header=header(stamp_ns), **fields))


def png(values):
    return cv2.imencode('.png', values)[1].tobytes()


def packed(values=MILLIMETRES, description='16UC1; compressedDepth png', head=None):
    """Return an image as compressed_depth_image_transport publishes it."""
    head = struct.pack('<iff', 0, 0, 0) if head is None else head
    return recorded(COMPRESSED_IMAGE, STORE.types[COMPRESSED_IMAGE](
        header(T0_NS), description, np.frombuffer(head + png(values), np.uint8)))


def quantised(metres, most=10.0, quantisation=100.0):
    """Quantise as compressed_depth_image_transport does 32FC1."""
    first = quantisation * (quantisation + 1)
    second = 1 - first / most
    stored = np.where(metres < most, first / metres + second, 0).astype(np.uint16)
    return packed(stored, '32FC1; compressedDepth png', struct.pack('<iff', 0, first, second))


def read(message, type_name=IMAGE, spec=SPEC, **changes):
    """Return what is stored of a message."""
    rig = ModalityRig(spec, 'depth', **changes)
    assert rig.take('depth', type_name, message) == ''
    return rig.stream._sources[Z].buffer.window(T0_NS).images[-1]


NEAREST = METRES[1::2, 1::2]
"""Of every 2 x 2 pixels the one nearest to their middle."""


@pytest.mark.parametrize('big', [False, True])
@pytest.mark.parametrize('pad', [0, 3])
@pytest.mark.parametrize(('values', 'tolerance'), [(METRES, 0), (MILLIMETRES, 0.0006)])
def test_both_encodings_become_metres(values, tolerance, pad, big):
    image = read(raw(values, pad=pad, big=big))
    assert image.dtype == np.float16 and image.shape == (12, 16)
    np.testing.assert_allclose(image, NEAREST, atol=tolerance + 0.002)


def test_an_image_of_rclpy_is_read():
    image = pytest.importorskip('sensor_msgs.msg').Image(
        height=24, width=32, encoding='16UC1', step=64, data=MILLIMETRES.tobytes())
    np.testing.assert_allclose(read(image)[:], NEAREST, atol=0.003)


@pytest.mark.parametrize(('message', 'tolerance'), [
    (packed(), 0.003), (packed(description='16UC1; compressedDepth'), 0.003),
    (packed(description='16UC1; png compressed ', head=b''), 0.003), (quantised(METRES), 0.004)])
def test_compressed_depth_is_read(message, tolerance):
    np.testing.assert_allclose(read(message, COMPRESSED_IMAGE), NEAREST, atol=tolerance)


def test_no_return_is_nan():
    values, metres = MILLIMETRES.copy(), METRES.copy()
    values[:4], metres[:2], metres[2], metres[3] = 0, np.nan, np.inf, -1
    for message, type_name in ((raw(values), IMAGE), (raw(metres), IMAGE),
                               (packed(values), COMPRESSED_IMAGE)):
        image = read(message, type_name)
        assert np.isnan(image[:2]).all() and np.isfinite(image[2:]).all()
    far = np.where(METRES < 2, METRES, np.nan).astype(np.float32)
    assert np.isnan(read(quantised(far), COMPRESSED_IMAGE)).mean() > 0.3


@pytest.mark.parametrize(('message', 'type_name', 'text'), [
    (raw(METRES * 1000), IMAGE, 'expected 0.02 to 100 m: set depth_wrist.scale to the metres in '
     'one unit of the sensor (0.001 for millimetres; 16UC1 has millimetres and 32FC1 metres by '
     'REP 118)'),
    (raw(np.full((9, 9), 3, np.uint16)), IMAGE, 'the median of a frame is 0.003 m'),
    (raw(np.zeros((9, 9), np.uint16)), IMAGE, 'got no return (0, NaN or infinity in all pixels)'),
    (raw(np.full((9, 9), np.nan, np.float32)), IMAGE, 'is the lens covered'),
    (raw(encoding='rgb8'), IMAGE, "depth encoding: got 'rgb8'; expected 16UC1 or 32FC1: remap "
     'depth to the depth topic of the camera'),
    (raw(height=25), IMAGE, 'image data: got 3072 bytes; expected 3200'),
    (raw(step=7), IMAGE, 'image step: got 7'),
    (packed(description='16UC1; compressedDepth rvl'), COMPRESSED_IMAGE,
     'set the parameter compressedDepth.format of the publisher to png, or depth_wrist.transport '
     'to raw'),
    (packed(description='bgr8; jpeg compressed bgr8'), COMPRESSED_IMAGE, 'depth format: got'),
    (packed(np.zeros((9, 9), np.uint8)), COMPRESSED_IMAGE, 'not grey with 16 bits'),
    (packed(np.zeros((9, 9, 3), np.uint16)), COMPRESSED_IMAGE, 'not grey with 16 bits'),
    (packed(head=b''), COMPRESSED_IMAGE, 'expected a jpeg or a png'),
    (packed(description='32FC1; compressedDepth png', head=struct.pack(
        '<iff', 0, float('nan'), 1)), COMPRESSED_IMAGE, 'expected finite numbers'),
    (Fields(header=header(T0_NS), data=b'', format='16UC1; compressedDepth png'),
     COMPRESSED_IMAGE, 'got 0 bytes; expected a header of 12'),
    (Fields(header=header(T0_NS)), IMAGE, 'AttributeError')])
def test_what_a_camera_sends_wrong_is_the_sensor_s_reason(message, type_name, text):
    rig = ModalityRig(SPEC, 'depth_wrist')
    assert text in rig.take('depth_wrist', type_name, message)
    status = rig.status('depth_wrist')
    shows_nothing = text.startswith(('got no return', 'is the lens'))
    assert status.state is (
        ModalityState.UNINFORMATIVE if shows_nothing else ModalityState.INVALID)
    assert text[:60] in status.detail


def test_another_unit_is_a_parameter():
    np.testing.assert_allclose(read(raw(METRES * 1000), depth__scale=0.001), NEAREST, atol=0.002)
    tenths = np.round(METRES * 10_000).astype(np.uint16)
    np.testing.assert_allclose(read(raw(tenths), depth__scale=0.0001), NEAREST, atol=0.002)


def test_a_png_that_would_take_gigabytes_is_refused_before_it_is_decoded():
    def chunk(name, content):
        return struct.pack('>I', len(content)) + name + content + struct.pack(
            '>I', zlib.crc32(name + content))
    size = struct.pack('>IIBBBBB', 60_000, 60_000, 16, 0, 0, 0, 0)
    bomb = b'\x89PNG\r\n\x1a\n' + chunk(b'IHDR', size) + chunk(
        b'IDAT', zlib.compress(bytes(100))) + chunk(b'IEND', b'')
    with pytest.raises(InvalidSampleError, match='image size: got 60000 x 60000'):
        compressed_depth_values(bytes(12) + bomb, '16UC1; compressedDepth png')
    with pytest.raises(InvalidSampleError, match='without an end'):
        compressed_depth_values(bytes(12) + png(MILLIMETRES)[:-20], '16UC1; compressedDepth png')


def test_a_raw_image_is_not_copied():
    data = MILLIMETRES.tobytes()
    view = depth_values(data, encoding='16UC1', height=24, width=32, step=64)
    assert not view.flags.owndata and np.shares_memory(view, np.frombuffer(data, np.uint8))


def test_returns_outside_of_the_range_are_none():
    spec = ClipSpec(duration=0.8, num_frames=8, inputs={
        'depth': {'height': 12, 'width': 16, 'near': 1.5, 'far': 3.0}})
    expected = np.where((NEAREST >= 1.5) & (NEAREST <= 3), NEAREST, np.nan)
    np.testing.assert_allclose(read(raw(), spec=spec), expected, atol=0.002)


def test_the_centre_is_cropped_to_the_aspect_ratio():
    spec = DepthSpec(8, 8)
    wide = np.broadcast_to(np.arange(1, 33, dtype=np.float32), (8, 32))
    np.testing.assert_array_equal(spec.stored(wide)[0], [np.nan] * 8)  # 13 to 20: too far
    near = wide / 10
    np.testing.assert_allclose(spec.stored(near)[0], np.arange(1.3, 2.05, 0.1), atol=0.002)
    assert spec.stored(near.T).shape == (8, 8)
    assert DepthSpec(3, 1000).stored(near).shape == (3, 1000)


@pytest.mark.parametrize('crop', ['centre', 'person'])
def test_what_is_stored_is_stored_again_without_a_change(crop):
    spec = DepthSpec(10, 7, crop=crop, near=1.1, far=3.3)
    stored = spec.stored(METRES)
    np.testing.assert_array_equal(spec.stored(stored), stored)


def person(left, height=20, depth=2.0):
    """Return an image 48 x 64 of someone before a wall."""
    image = np.full((48, 64), 3.8, np.float32)
    image[48 - height:, left:left + 4] = depth
    return image


def test_a_person_is_cropped_as_high_as_the_returns_of_the_window_reach():
    x = modality_type(Z).prepare(np.stack([person(30)] * 7 + [person(31, 24)]), PERSON)
    silhouette = x[0]
    assert x.shape == PERSON.input_shape(Z) == (3, 8, 8, 8)
    # 24 rows and columns to 8: 4 columns of 24 are one or two of 8, and 20 rows are 7.
    assert silhouette[0].sum(0).tolist() == [0, 0, 0, 6, 0, 0, 0, 0] or (
        silhouette[0].any(0).sum() in (1, 2) and silhouette[0].any(1).sum() in (6, 7))
    assert silhouette[7].any(1).all()


def test_where_a_person_stands_makes_no_difference():
    spec = ClipSpec(duration=0.8, num_frames=8, inputs={
        'depth': {'height': 12, 'width': 12, 'crop': 'person', 'far': 3.0}})
    near, far = (modality_type(Z).prepare(np.stack([person(left, depth=depth)] * 8), spec)
                 for left, depth in ((30, 1.5), (2, 2.5)))
    np.testing.assert_allclose(near, far, atol=0.01)


def test_nobody_in_range_is_an_empty_input():
    rig = ModalityRig(PERSON, 'depth')
    for i in range(8):
        rig.now_ns += NANOSECONDS // 10
        assert rig.take('depth', IMAGE, raw(np.full((48, 64), 3.8, np.float32), rig.now_ns)) == ''
    np.testing.assert_array_equal(rig.stream.window(rig.now_ns).clip().inputs[Z], 0)


def test_channels_are_silhouette_relative_depth_and_change():
    spec = ClipSpec(duration=0.8, num_frames=2, inputs={'depth': {'height': 1, 'width': 3}})
    frames = np.array([[[2, 2, np.nan]], [[2, 2.25, 9]]], np.float32)
    x = modality_type(Z).prepare(frames, spec)
    assert x[0].tolist() == [[[1, 1, 0]], [[1, 1, 1]]]
    assert x[1].tolist() == [[[0, 0, 0]], [[0, 1, 4]]]
    assert x[2].tolist() == [[[0, 0, 0]], [[0, 1, 4]]]


@pytest.mark.parametrize('spec', [SPEC, PERSON], ids=['centre', 'person'])
def test_live_equals_training(spec):
    rng = np.random.default_rng(0)
    frames = np.stack([person(4 * i, 20 + i) for i in range(8)])
    frames[rng.random(frames.shape) < 0.1] = np.nan
    rig = ModalityRig(spec, 'depth')
    for i, frame in enumerate(frames):
        rig.now_ns = T0_NS + i * NANOSECONDS // 10
        assert rig.take('depth', IMAGE, raw(frame, rig.now_ns)) == ''
    live = rig.stream.window(rig.now_ns).clip().inputs[Z]
    np.testing.assert_array_equal(live, make_clip(spec, {Z: frames}).inputs[Z])
    millimetres = np.nan_to_num(frames * 1000).round().astype(np.uint16)
    close = make_clip(spec, {Z: millimetres}).inputs[Z]
    assert np.abs(live - close).mean() < 0.01


def test_one_frame_for_each_slot_is_stored_and_memory_is_bounded():
    rig = ModalityRig(PERSON, 'depth', depth__check_content=False)
    for i in range(300):
        rig.now_ns = T0_NS + i * NANOSECONDS // 100
        rig.take('depth', IMAGE, raw(np.tile(person(9), (4, 4)), rig.now_ns))
    assert rig.stream.nbytes == 10 * 32 * 42 * 2  # four times the height of the crop
    assert rig.status('depth').num_samples == 8


def test_another_size_replaces_what_was_stored():
    rig = ModalityRig(PERSON, 'depth')
    for i in range(12):
        rig.now_ns += NANOSECONDS // 10
        rig.take('depth', IMAGE, raw(person(9) if i < 6 else person(9)[:, :32], rig.now_ns))
    assert rig.status('depth').num_samples == 6
    assert np.isfinite(rig.stream.window(rig.now_ns).clip().inputs[Z]).all()


@pytest.mark.parametrize('frames', [
    np.ones((8, 5, 5)), np.ones((7, 5, 5), np.float32), np.ones((8, 5), np.float32), None,
    np.zeros((8, 5, 5), np.float32), np.full((8, 5, 5), 500, np.float32)])
def test_other_frames_are_refused(frames):
    with pytest.raises(InvalidSampleError):
        make_clip(SPEC, {Z: frames})


@pytest.mark.parametrize(('fields', 'text'), [
    ({'height': 0}, 'clip.inputs.depth.height is 0; expected an integer from 1'),
    ({'width': 1.5}, 'clip.inputs.depth.width'),
    ({'crop': 'middle'}, "clip.inputs.depth.crop is 'middle'; expected centre or person"),
    ({'near': 2, 'far': 1}, 'clip.inputs.depth.far is 1; expected above near = 2'),
    ({'far': 1000}, 'clip.inputs.depth.far is 1000; expected a number from 0 to 100'),
    ({'spread': 0}, 'clip.inputs.depth.spread is 0; expected a number above 0')])
def test_a_field_out_of_range_is_named(fields, text):
    with pytest.raises(InvalidSettingError) as error:
        ClipSpec(inputs={'depth': fields})
    assert text in str(error.value)


@pytest.mark.parametrize(('encoding', 'depth', 'rgb'), [
    ('16UC1', 2, 0), ('32FC1', 1, 0), ('16UC1; compressedDepth png', 2, 0),
    ('32FC1; compressedDepth', 1, 0), ('rgb8', 0, 2), ('mono8', 0, 1), ('32FC2', 0, 0),
    ('bgr8; jpeg compressed bgr8', 0, 2), ('jpeg', 0, 2), ('16UC1; png compressed ', 2, 0),
    ('mono16; png compressed ', 0, 0), ('mono8; jpeg compressed ', 0, 1)])
def test_topics_are_ranked_by_their_encoding(encoding, depth, rgb):
    assert modality_type(Z).rank(encoding) == depth
    assert modality_type(Modality.RGB).rank(encoding) == rgb


def test_its_topics_types_and_json():
    own = modality_type(Modality('depth_wrist'))
    assert own.topic_name + own.compressed_suffix == 'depth_wrist/compressedDepth'
    assert own.type_name({'depth_wrist.transport': 'compressed'}) == COMPRESSED_IMAGE
    assert own.type_name({'depth_wrist.transport': 'raw'}) == IMAGE
    assert unsupported_type('sensor_msgs/msg/PointCloud2').modality is Z
    assert ClipSpec.from_dict(PERSON.to_dict()) == PERSON


@pytest.mark.parametrize(('near', 'far'), [
    (0.1, 10.0), (0, 100), (0.3, 4), (0.1234, 0.1236), (5.96e-8, 0.5)])
def test_returns_are_those_within_the_limits_as_they_are_stored(near, far):
    values = [np.array([np.nan, np.inf, -np.inf, 0, -1, 1e38, 1e-45, 1], np.float32)]
    for limit in np.float16([near, far]):
        for other in np.nextafter(limit, np.float16([-np.inf, np.inf])):
            middle = (np.float32(limit) + np.float32(other)) / 2
            around = np.nextafter(middle, np.float32([-np.inf, np.inf]))
            values.append(np.float32([limit, other, middle, *around]))
    metres = np.concatenate(values)
    with np.errstate(over='ignore'):
        stored = metres.astype(np.float16)
    wanted = (metres > 0) & (stored >= np.float16(near)) & (stored <= np.float16(far))
    np.testing.assert_array_equal(has_return(metres, near, far), wanted)


@pytest.mark.parametrize('unit', [np.float32(0.0199), np.float32(0.02), np.float32(100.1)])
def test_the_median_is_computed_where_it_is_close_to_a_limit(unit):
    good, wrong = np.full(50, 1, np.float32), np.full(50, unit, np.float32)
    depth_metres(np.append(good, wrong[1:]), 0.1, 200.0)
    for values in (np.append(good[1:], wrong), wrong):
        with pytest.raises(InvalidSampleError, match='the median of a frame is'):
            depth_metres(values, 0.1, 200.0)


@pytest.mark.parametrize('person', [False, True])
def test_a_window_is_prepared_as_its_images_one_by_one(person):
    spec = PERSON if person else SPEC
    images = np.random.default_rng(1).uniform(0.05, 5, (8, 60, 70)).astype(np.float32)
    images[:, :9], images[:, 20:, 50:] = np.nan, np.inf
    images[:, :, :30] = 9 if person else images[:, :, :30]
    stored = np.stack([spec.of(Z).stored(image) for image in images])
    depth = modality_type(Z)
    np.testing.assert_array_equal(depth.prepare(images, spec), depth.prepare(stored, spec))


def test_picked_pixels_are_those_of_an_even_grid():
    values = np.arange(2 * 7 * 9, dtype=np.float32).reshape(2, 7, 9)
    for image in (values, values[..., ::-1], values.astype('>f4')):
        picked = pick(image, (1, 6), (-2, 10), (3, 5))
        across = [-1, 1, 4, 6, 8]
        assert np.isnan(picked[:, :, 0]).all() and picked.dtype == image.dtype
        np.testing.assert_array_equal(
            picked[:, :, 1:], image[:, [1, 3, 5]][..., across[1:]])
