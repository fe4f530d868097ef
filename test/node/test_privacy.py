"""
What a sensor sent is gone from the process once it is switched off, reset or deactivated.

Marked frames, audio and boxes go through a running node; then everything that Python can reach is
searched for them, and for what was computed from them.
"""

import array

from karmma_ros.clip import AudioSpec, ClipSpec, VideoSpec
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import save_bundle
from karmma_ros.model.presets import preset
import numpy as np
import pytest
from rclpy.lifecycle import TransitionCallbackReturn
from rclpy.parameter import Parameter
from sensor_data import pixels
from std_srvs.srv import Trigger
import torch

SUCCESS = TransitionCallbackReturn.SUCCESS
ALL = ('rgb', 'flow', 'audio', 'detections')


class Sensors:
    """Play marked sensors to a node."""

    def __init__(self, stage, traces):
        self.stage, self.traces, self.rng = stage, traces, np.random.default_rng()

    def __call__(self):
        image = pixels(48, 64).tobytes()
        self.traces.note('image message', image)
        self.stage.send_image(data=array.array('B', image))
        samples = self.rng.integers(-9000, 9000, 640).astype('<i2').tobytes()
        self.traces.note('audio message', samples)
        self.stage.send_audio(data=samples)
        self.stage.send_boxes(boxes=[tuple(self.rng.uniform(5, 20, 4)) for _ in range(4)])

    def fill(self, node):
        """Let results come, and note what the node keeps meanwhile."""
        before = len(self.stage.results)
        step = self.stage.periodic(25, self)
        assert self.stage.until(lambda: len(self.stage.results) > before + 2
                                and all(s.used for s in self.stage.results[-1].modalities),
                                30, step)
        stream = node._session._stream
        with node._session._lock:
            for frame in stream._sources[Modality.RGB].buffer._frames.values():
                self.traces.note('frame', frame.image)
            for boxes in stream._sources[Modality.DETECTIONS].buffer._boxes:
                self.traces.note('boxes', boxes)
            audio = stream._sources[Modality.AUDIO].buffer._samples
            received = np.flatnonzero(audio)
            runs = np.split(received, np.flatnonzero(np.diff(received) > 1) + 1)
            longest = max(runs, key=len)  # what was not received leaves no marks
            # A copy, for of a view all of the buffer is noted.
            self.traces.note('audio samples', audio[longest[0]:longest[-1] + 1].copy())
        self.stage.results.clear()


def put(node, **values):
    result, = node.set_parameters_atomically(
        [Parameter(n.replace('__', '.'), value=v) for n, v in values.items()]),
    assert result.successful, result.reason


@pytest.fixture(scope='module', params=['tiny', 'tiny_stream', 'tiny_causal'])
def model(request, tmp_path_factory):
    """Return the directory of a student that takes clips, chunks, or frame after frame."""
    torch.manual_seed(0)
    spec = ClipSpec(
        duration=0.8, num_frames=8, video=VideoSpec(32, 32),
        audio=AudioSpec(n_fft=256, win_length=256, hop_length=128, n_mels=32, tiles=1,
                        tile_steps=100))
    path = tmp_path_factory.mktemp('models') / request.param
    config = preset(request.param)
    save_bundle(path, build(config, spec, vocabulary()), config, spec, vocabulary(),
                dataset='none', card='# Random weights\n')
    return path


def test_nothing_of_the_sensors_outlasts_disabling_reset_deactivate_and_cleanup(
    stage, perform, traces, noting, model
):
    node = perform(model=str(model), backend='eager')
    sensors = Sensors(stage, traces)
    noting(node._session.model.recogniser.backend)
    settled = lambda: not node._session.worker._to_discard  # noqa: E731

    sensors.fill(node)
    assert {'frame', 'boxes', 'audio samples'} <= traces.noted()
    assert traces.left()
    put(node, **{f'{name}__enabled': False for name in ALL})
    assert stage.until(settled) and stage.until(lambda: False, 0.3) is False
    assert traces.left() == []

    put(node, **{f'{name}__enabled': True for name in ALL})
    assert stage.until(stage.connected)
    sensors.fill(node)
    assert node._on_reset(Trigger.Request(), Trigger.Response()).success
    assert stage.until(settled) and stage.until(lambda: False, 0.3) is False
    assert traces.left() == []

    sensors.fill(node)
    assert node.trigger_deactivate() == SUCCESS
    stage.until(lambda: False, 0.1)
    assert traces.left() == []
    assert node.trigger_cleanup() == SUCCESS
    assert traces.left() == []


def test_a_result_that_is_computed_while_its_sensor_is_disabled_is_not_published(
    stage, perform, monkeypatch
):
    node = perform()
    sensors = stage.periodic(
        25, stage.send_image, stage.send_audio, stage.send_audio, stage.send_boxes
    )
    assert stage.until(lambda: stage.results and all(
        s.used for s in stage.results[-1].modalities), 20, sensors)
    recogniser = node._session.model.recogniser
    compute, seen = recogniser.recognise, []

    def disable_meanwhile(window, **options):
        if not seen and 'audio' in map(str, window.modalities):
            seen.append(True)
            stage.results.clear()
            put(node, audio__enabled=False)
        return compute(window, **options)

    monkeypatch.setattr(recogniser, 'recognise', disable_meanwhile)
    assert stage.until(lambda: seen and len(stage.results) > 3, 20, sensors)
    stage.until(lambda: False, 0.2)
    late = [r for r in stage.results if any(s.used and s.name == 'audio' for s in r.modalities)]
    assert late == []
