"""Sensors and files that mislead without malice: everything decodes, and would be wrong."""

from __future__ import annotations

import array
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
import random
from tempfile import TemporaryDirectory
from typing import Any

from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.modality import Modality, PAPER_MODALITIES
import numpy as np
from sensor_msgs.msg import Image

from fault_suite import messages
from fault_suite.case import case, Trial
from fault_suite.messages import SECOND
from fault_suite.models import make_model
from fault_suite.ros import domain
from fault_suite.simulation import ConstantPrediction, Simulation, simulation

START_NS = 1_700_000_000 * SECOND
_STEP_NS = SECOND // 50
_IMAGE_EVERY, _BOXES_EVERY, _TICK_EVERY = 2, 5, 10
NOTICE_S = 5.0
"""Within this time a misconfigured sensor must be out of the mask, or have a warning."""

Maker = Callable[[int], Any]


def _audio(rate: int = 16_000, channels: int = 1, stamped: bool = True) -> Maker:
    """Return what makes chunks of 20 ms as a microphone of this rate sends them."""
    samples = rate * channels // 50

    def make(now_ns: int) -> Any:
        message = messages.audio(now_ns - _STEP_NS, samples)
        return message if stamped else message.audio
    return make


def _boxes(*boxes: tuple[float, float, float, float]) -> Maker:
    return lambda now_ns: messages.boxes(now_ns, boxes)


def _image(now_ns: int) -> Any:
    return messages.image(now_ns, 64, 48)


def _ten_bit_image(now_ns: int) -> Image:
    """Return a mono16 image whose values use 10 of the 16 bits."""
    values = np.linspace(0, 1023, 64 * 48).astype('<u2').reshape(48, 64)
    return Image(header=messages.header(now_ns, 'camera'), width=64, height=48, step=128,
                 encoding='mono16', data=array.array('B', values.tobytes()))


def _padded_jpeg(now_ns: int) -> Any:
    """Return a JPEG with bytes behind its end, as cameras with fixed buffers send."""
    message = messages.compressed(now_ns, 64, 48)
    message.data = array.array('B', bytes(message.data) + b'\xff\x00\x17\xd8' * 32)
    return message


@dataclass(frozen=True)
class Sensors:
    """What the sensors of one run send, and the expected effect."""

    images: Maker = _image
    audio: Maker = field(default_factory=_audio)
    boxes: Maker = field(default_factory=lambda: _boxes((30.0, 20.0, 12.0, 10.0)))
    parameters: Mapping[str, Any] = field(default_factory=dict)
    absent: tuple[Modality, ...] = ()
    """Modalities that must not be used after `NOTICE_S`."""
    warned: Modality | None = None
    """The modality that must have a warning."""
    names: str = ''
    """What the warning must name."""
    losses: float = 0.0
    """Fraction of the messages of each sensor that are dropped."""
    jitter_ns: int = 0


_UNSTAMPED = {'audio__type': 'audio_common_msgs/msg/AudioData'}
_NO_AUDIO = {'absent': (Modality.AUDIO,), 'warned': Modality.AUDIO, 'names': 'audio.sample_rate'}

RUNS: dict[str, Sensors] = {
    'correct sensors': Sensors(),
    'correct sensors, audio without stamps': Sensors(
        audio=_audio(stamped=False), parameters=_UNSTAMPED),
    'correct sensors, 5 % of the messages dropped, up to 15 ms late': Sensors(
        losses=0.05, jitter_ns=15_000_000),
    'audio at 48 kHz, taken for 16 kHz': Sensors(audio=_audio(48_000), **_NO_AUDIO),
    'audio at 44.1 kHz, taken for 16 kHz, without stamps': Sensors(
        audio=_audio(44_100, stamped=False), parameters=_UNSTAMPED, **_NO_AUDIO),
    'audio at 8 kHz, taken for 16 kHz': Sensors(audio=_audio(8000), **_NO_AUDIO),
    'audio at 16.8 kHz (5 % off)': Sensors(audio=_audio(16_800), **_NO_AUDIO),
    'stereo, taken for mono': Sensors(audio=_audio(channels=2), **_NO_AUDIO),
    'boxes in fractions of the image, taken for pixels': Sensors(
        boxes=_boxes((0.5, 0.4, 0.2, 0.2), (0.7, 0.6, 0.1, 0.3)),
        absent=(Modality.DETECTIONS,), warned=Modality.DETECTIONS,
        names='detections.normalised'),
    'boxes of an image of twice the size': Sensors(
        boxes=_boxes((110.0, 80.0, 20.0, 10.0), (90.0, 70.0, 20.0, 20.0), (30.0, 20.0, 9.0, 9.0)),
        warned=Modality.DETECTIONS, names='detections.image_width'),
    'images of 10 bits in 16': Sensors(
        images=_ten_bit_image, absent=(Modality.RGB, Modality.FLOW), warned=Modality.RGB,
        names='1023'),
    'JPEG images with bytes behind their end': Sensors(
        images=_padded_jpeg, parameters={'rgb__transport': 'compressed'}),
}
"""What is sent, by what is wrong with it."""


@dataclass
class Seen:
    """Measurements of a run."""

    results: int = 0
    late_results: int = 0
    """Results after `NOTICE_S`."""
    used: dict[str, int] = field(default_factory=dict)
    """Late results that use each modality."""
    warnings: dict[Modality, str] = field(default_factory=dict)
    dropped: int = 0


def _play(sim: Simulation, sensors: Sensors, seconds: float) -> Seen:
    """Send the sensors' messages, a tick every 0.2 s."""
    seen, generator = Seen(), random.Random(5)
    image_topic = 'image/compressed' if 'rgb__transport' in sensors.parameters else 'image'

    def send(topic: str, make: Maker, now_ns: int) -> None:
        if generator.random() >= sensors.losses:
            late_ns = generator.randint(0, sensors.jitter_ns)
            sim.set_time(now_ns + late_ns)
            sim.receive(topic, make(now_ns))

    for step in range(1, round(seconds * SECOND / _STEP_NS) + 1):
        now_ns = START_NS + step * _STEP_NS
        sim.set_time(now_ns)
        send('audio', sensors.audio, now_ns)
        if step % _IMAGE_EVERY == 0:
            send(image_topic, sensors.images, now_ns)
        if step % _BOXES_EVERY == 0:
            send('detections', sensors.boxes, now_ns)
        if step % _TICK_EVERY == 0:
            late = step * _STEP_NS > NOTICE_S * SECOND
            _note(sim, seen, late, now_ns + sensors.jitter_ns)
    return seen


def _note(sim: Simulation, seen: Seen, late: bool, now_ns: int) -> None:
    sim.set_time(now_ns)
    result = sim.tick()
    statuses = sim.worker.engine.stream.assess(now_ns)
    for status in statuses:
        if status.warning:
            seen.warnings[status.modality] = status.warning
    seen.dropped = sum(status.dropped for status in statuses)
    seen.results += result is not None
    if result is not None and late:
        seen.late_results += 1
        for status in result.modalities:
            seen.used[status.name] = seen.used.get(status.name, 0) + status.used
    sim.clear()


def _check(trial: Trial, what: str, sensors: Sensors, seen: Seen) -> None:
    trial.require(f'{what}: results continue',
                  seen.late_results > 20, f'{seen.late_results} results')
    for modality in PAPER_MODALITIES:
        used, name = seen.used.get(modality.value, 0), modality.value
        if modality in sensors.absent:
            trial.require(f'{what}: {name} is not used after {NOTICE_S:g} s', not used,
                          f'in {used} of {seen.late_results} results')
        elif not sensors.losses:
            trial.require(f'{what}: {name} is used', used == seen.late_results,
                          f'in {used} of {seen.late_results} results')
    warning = seen.warnings.get(sensors.warned, '') if sensors.warned else ''
    others = {m: text for m, text in seen.warnings.items() if m is not sensors.warned}
    if sensors.warned:
        trial.require(f'{what}: a warning names {sensors.names}', sensors.names in warning,
                      warning or 'none')
    trial.require(f'{what}: no other warning', not others, others or 'none')


@case('misconfigured', 'Misconfigured sensors', (
    'Simulated: for {seconds:g} s each, sensors send data that decode without an error and are '
    'wrong: '
    'another sample rate, more channels, boxes in other units, values that use part of their '
    'range. Correct sensors, also with dropped messages and jitter, must not cause warnings.'),
    full={'seconds': 30.0}, quick={'seconds': 12.0}, limit_s=300)
def run(trial: Trial, seconds: float) -> None:
    """Run each."""
    with TemporaryDirectory() as folder, domain(check_fields=False):
        model = make_model(Path(folder, 'random'))
        for what, sensors in RUNS.items():
            with simulation(model, ConstantPrediction(vocabulary()), START_NS,
                            **sensors.parameters) as sim:
                _check(trial, what, sensors, _play(sim, sensors, seconds))
