"""
The cost of each stage of the live path and its growth, by the node's own code, without DDS.

`python benchmarks/live_path.py` passes half a minute of the sensors of scene.py (VGA at 30 Hz,
audio in messages of 20 ms, boxes at 10 Hz) to the node's callbacks as fast as they process it, at
10 results a second, and sums the CPU time of each stage, all threads together. What the content
checks cost is the difference to the same messages without them.
Then it does so for longer windows, other rates and fewer sensors, without a network.
"""

from __future__ import annotations

import argparse
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from itertools import cycle
import json
import logging
from pathlib import Path
from struct import Struct
import sys
from threading import Lock
import time
from types import SimpleNamespace
from typing import Any

import cv2
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.modalities import message_types as types
from karmma_ros.modalities import modality_type
from karmma_ros.modalities.rgb import read_compressed_image, read_image
from karmma_ros.modality import Modality, PAPER_MODALITIES, subset_name
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.registry import find_model
from karmma_ros.node.declarations import DECLARATIONS
from karmma_ros.node.message_handler import MessageHandler
from karmma_ros.node.messages import availability_message, LATCHED, Publishing, recognition_message
from karmma_ros.node.model_loader import load_model
from karmma_ros.node.subscription import SERIALIZED
from karmma_ros.preprocess.image import decode_image
from karmma_ros.preprocess.resize import resize_and_crop
from karmma_ros.stream.events import ActionEvents, EventSettings
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
from karmma_ros.stream.window import Window
from rclpy.serialization import deserialize_message, serialize_message
from scene import HEIGHT, MAKERS, PERIODS_NS, stamp, WIDTH

MODEL = 'synthetic_kitchen'
RATE = 10.0
"""Results a second."""
_REPORTS_HZ = 2.5
_STAMP = Struct('<iI')
"""It follows the four bytes of the CDR header."""
_TYPES = {Modality.RGB: types.IMAGE, Modality.AUDIO: types.AUDIO_DATA_STAMPED,
          Modality.DETECTIONS: types.DETECTIONS}
_NAMES = {Modality.RGB: 'image', Modality.AUDIO: 'audio', Modality.DETECTIONS: 'boxes'}
_INPUTS = {
    Modality.RGB: 'clip: frames, normalised',
    Modality.FLOW: 'clip: flow of new frames, normalised',
    Modality.AUDIO: 'clip: spectrogram and tiles', Modality.DETECTIONS: 'clip: boxes'}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure and print, or write, all figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('--quick', action='store_true', help='a few seconds of each')
    parser.add_argument('--json', type=Path, metavar='FILE', help='write the figures there')
    options = parser.parse_args(arguments)
    seconds = 4.0 if options.quick else 30.0
    figures = {'stages': stages(seconds), 'decoding': decoding(20 if options.quick else 200),
               'content_checks': content_checks(round(seconds)),
               'growth': growth(2.0 if options.quick else 10.0)}
    print(json.dumps(figures, indent=1))
    if options.json:
        options.json.write_text(json.dumps(figures), encoding='utf-8')
    return 0


# -- the sensors ----------------------------------------------------------------------------

@dataclass
class Stopwatch:
    """Time on the processor, of all threads, by stage."""

    cpu_s: dict[str, float] = field(default_factory=dict)
    calls: dict[str, int] = field(default_factory=dict)

    @contextmanager
    def __call__(self, stage: str) -> Iterator[None]:
        """Time a block."""
        started = time.process_time()
        try:
            yield
        finally:
            self.add(stage, time.process_time() - started)

    def add(self, stage: str, cpu_s: float) -> None:
        """Record one call."""
        self.cpu_s[stage] = self.cpu_s.get(stage, 0.0) + cpu_s
        self.calls[stage] = self.calls.get(stage, 0) + 1


class SimulatedSensors:
    """The sensors' messages, in order of time, passed to the node's callbacks."""

    def __init__(
        self, spec: ClipSpec, modalities: Sequence[Modality], watch: Stopwatch,
        check_content: bool = True,
    ) -> None:
        self.watch, self.now_ns = watch, 1_000 * NANOSECONDS
        self.stream = SensorStream(
            spec, modalities, {m: InputSettings(NANOSECONDS) for m in modalities})
        self._stored = False
        self.stream.add = self._recording(self.stream.add)  # type: ignore[method-assign]
        values = {d.name: d.default for d in DECLARATIONS}
        values |= {name: check_content for name in values if name.endswith('.check_content')}
        messages = MessageHandler(self._node(), values, Lock(), lambda: None)
        messages.feed(self.stream, spec)
        sources = {Modality.RGB if m is Modality.FLOW else m for m in modalities}
        self._inputs = {
            modality_type(m).topic_name: (
                m, messages.callback(m, _TYPES[m]), _serialised(modality_type(m).topic_name))
            for m in PAPER_MODALITIES if m in sources}

    def play(self, seconds: float, rate: float) -> Iterator[int]:
        """Yield the time of each inference, after the messages before it."""
        start_ns = self.now_ns
        due = {topic: start_ns + i for i, topic in enumerate(self._inputs)}
        due_ns = start_ns + round(NANOSECONDS / rate)
        while self.now_ns < start_ns + seconds * NANOSECONDS:
            topic = min(due, key=lambda each: due[each])
            self.now_ns = min(due[topic], due_ns)
            if due_ns <= due[topic]:
                due_ns += round(NANOSECONDS / rate)
                yield self.now_ns
            else:
                self._send(topic)
                due[topic] += PERIODS_NS[topic]

    def _send(self, topic: str) -> None:
        modality, callback, messages = self._inputs[topic]
        message_type, data = next(messages)
        name = _NAMES[modality]
        with self.watch(f'{name}: message to Python'):
            message = bytearray(data) if _TYPES[modality] in SERIALIZED else (
                deserialize_message(data, message_type))
        if isinstance(message, bytearray):  # the node gets the bytes and reads them itself
            _STAMP.pack_into(message, 4, *divmod(self.now_ns, NANOSECONDS))
        else:
            stamp(topic, message, self.now_ns)
        self._stored, started = False, time.process_time()
        callback(message)
        what = 'stored' if modality is not Modality.RGB else (
            'decoded, resized, stored' if self._stored else 'not needed')
        self.watch.add(f'{name}: {what}', time.process_time() - started)

    def _recording(self, add: Callable[..., str]) -> Callable[..., str]:
        def add_noted(*arguments: Any) -> str:
            self._stored = True
            return add(*arguments)
        return add_noted

    def _node(self) -> Any:
        """Return what the callbacks need of a node: the simulated clock, and a logger."""
        return SimpleNamespace(
            get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(
                nanoseconds=self.now_ns)),
            get_logger=lambda: logging.getLogger('live_path'))


def _serialised(topic: str) -> Iterator[tuple[type, bytes]]:
    return cycle([(type(m), serialize_message(m)) for m in MAKERS[topic]()])


# -- stages ----------------------------------------------------------------------------------

def stages(seconds: float) -> dict[str, Any]:
    """Return stage → milliseconds on the processor a call, calls a second, percent of a core."""
    import rclpy

    model, watch = load_model(MODEL, 'cpu', 'auto'), Stopwatch()
    bundle, backend = model.bundle, model.recogniser.backend
    sensors = SimulatedSensors(bundle.spec, bundle.network.modalities, watch)
    rclpy.init()
    try:
        publish = _publishers(rclpy.create_node('live_path'))
        events = ActionEvents(EventSettings(), bundle.vocabulary)
        # The first window fills; nothing of it counts.
        for now_ns in sensors.play(bundle.spec.duration, RATE):
            _infer(sensors, model, events, publish, now_ns)
        watch.cpu_s.clear()
        watch.calls.clear()
        for now_ns in sensors.play(seconds, RATE):
            _infer(sensors, model, events, publish, now_ns)
    finally:
        rclpy.try_shutdown()
    return {'seconds': seconds, 'rate': RATE, 'model': bundle.name,
            'backend': f'{backend.name} {backend.precision}',
            'stages': {name: _stage(watch, name, seconds) for name in watch.cpu_s}}


def _stage(watch: Stopwatch, name: str, seconds: float) -> dict[str, float]:
    calls, cpu_s = watch.calls[name], watch.cpu_s[name]
    return {'ms': 1e3 * cpu_s / calls, 'per_second': calls / seconds,
            'percent': 100 * cpu_s / seconds}


def _publishers(node: Any) -> dict[str, Callable[[Any], None]]:
    from karmma_msgs.msg import ActionRecognition, ModalityAvailability
    return {'result': node.create_publisher(ActionRecognition, 'benchmark/result', 10).publish,
            'report': node.create_publisher(
                ModalityAvailability, 'benchmark/report', LATCHED).publish}


def _infer(
    sensors: SimulatedSensors, model: Any, events: ActionEvents,
    publish: Mapping[str, Callable[[Any], None]], now_ns: int,
) -> None:
    """Run what the node's worker runs at a tick, stage by stage."""
    watch, backend = sensors.watch, model.recogniser.backend
    with watch('window: inputs assessed, window extracted'):
        sensors.stream.assess(now_ns)
        window = sensors.stream.window(now_ns)
    if window is None:
        return
    clip = _clip(window, watch)
    tokens = {}
    for modality in window.modalities:
        with watch(f'network: encode {modality.value}'):
            tokens[modality] = backend.encode(modality, clip[modality][None])
    with watch('network: fuse'):
        backend.fuse(tokens)
    prediction = model.recogniser.recognise(window)
    with watch('result: message'):
        message = recognition_message(
            prediction, window, Publishing(5, 0.0, '', model.bundle.model_id))
    with watch('result: published'):
        publish['result'](message)
    with watch('result: events'):
        events.push(window.end_ns, window.start_ns, prediction)
    if watch.calls['result: events'] % round(RATE / _REPORTS_HZ) == 0:
        with watch('result: availability report'):
            publish['report'](availability_message(window.statuses, now_ns, True))


def _clip(window: Window, watch: Stopwatch) -> dict[Modality, Any]:
    """Prepare the inputs one by one, as `Window.clip` does together."""
    clip = {}
    for modality in window.modalities:
        with watch(_INPUTS[modality]):
            clip[modality] = window.clip([modality]).inputs[modality]
    return clip


def decoding(rounds: int) -> dict[str, float]:
    """Return each operation on a VGA image → CPU milliseconds."""
    from fault_suite import messages

    spec = load_bundle(find_model(MODEL)).spec
    raw = MAKERS['image']()[0]
    image = decode_image(raw.data, encoding='rgb8', height=HEIGHT, width=WIDTH, step=raw.step)
    jpeg = messages.compressed(0, WIDTH, HEIGHT)
    jpeg.data = array('B', cv2.imencode('.jpg', image[..., ::-1])[1].tobytes())
    figures = {}
    for name, size in (('', (spec.video.height, spec.video.width)), (' to 224 x 224', (224, 224))):
        work: dict[str, Callable[[], Any]] = {
            'rgb8: decode and resize': lambda size=size: read_image(raw, size),
            'JPEG: decode and resize': lambda size=size: read_compressed_image(jpeg, size),
            'resize alone': lambda size=size: resize_and_crop(image, *size)}
        figures |= {what + name: _cpu_ms(do, rounds) for what, do in work.items()}
    return figures


def _cpu_ms(work: Callable[[], Any], rounds: int) -> float:
    work()
    started = time.process_time()
    for _ in range(rounds):
        work()
    return 1e3 * (time.process_time() - started) / rounds


def content_checks(seconds: int) -> dict[str, float]:
    """Return the CPU time of the callbacks with and without content checks, by turns."""
    bundle = load_bundle(find_model(MODEL))
    both = [SimulatedSensors(bundle.spec, bundle.network.modalities, Stopwatch(), check_content)
            for check_content in (True, False)]
    for second in range(seconds + 1):
        for sensors in both:
            for _ in sensors.play(1.0, RATE):
                pass
            if not second:  # it sets up memory
                sensors.watch.cpu_s.clear()
    checked_s, unchecked_s = (sum(sensors.watch.cpu_s.values()) for sensors in both)
    return {'percent': 100 * (checked_s - unchecked_s) / seconds,
            'ms_per_result': 1e3 * (checked_s - unchecked_s) / (seconds * RATE),
            'callbacks_percent': 100 * unchecked_s / seconds}


# -- growth ----------------------------------------------------------------------------------

def growth(seconds: float) -> list[dict[str, Any]]:
    """Return the cost of preparation and buffers for other windows, rates and sensors."""
    bundle = load_bundle(find_model(MODEL))
    modalities = bundle.network.modalities
    cases = [('window', f'{times} x', _longer(bundle.spec, times), RATE, modalities)
             for times in (1, 2, 4)]
    cases += [('rate', f'{rate:g} a second', bundle.spec, rate, modalities)
              for rate in (5.0, 10.0, 20.0)]
    cases += [('sensors', subset_name(modalities[:n]), bundle.spec, RATE, modalities[:n])
              for n in range(1, len(modalities) + 1)]
    figures = [_grown(*case, seconds) for case in cases]
    paper = "the paper's clip", 'V+F+A, 5 a second', ClipSpec(), 5.0, modalities[:3]
    return [*figures, _grown(*paper, min(seconds, 4.0))]


def _longer(spec: ClipSpec, times: int) -> ClipSpec:
    """Return a longer window at the same frame rate, with as many more audio tiles."""
    return replace(
        spec, duration=times * spec.duration, num_frames=times * spec.num_frames,
        audio=replace(spec.audio, tiles=times * spec.audio.tiles))


def _grown(
    what: str, label: str, spec: ClipSpec, rate: float, modalities: Sequence[Modality],
    seconds: float,
) -> dict[str, Any]:
    watch = Stopwatch()
    sensors = SimulatedSensors(spec, modalities, watch)
    for now_ns in sensors.play(spec.duration + 0.5, rate):
        _prepare(sensors, now_ns)
    watch.cpu_s.clear()
    watch.calls.clear()
    buffered = clip = 0
    for now_ns in sensors.play(seconds, rate):
        buffered, clip = _prepare(sensors, now_ns) or (buffered, clip)
    prepared_s = watch.cpu_s['prepared']
    return {
        'what': what, 'label': label, 'rate': rate,
        'ms_per_result': 1e3 * prepared_s / watch.calls['prepared'],
        'percent': 100 * sum(watch.cpu_s.values()) / seconds,
        'kept_mb': buffered / 1e6, 'clip_mb': clip / 1e6}


def _prepare(sensors: SimulatedSensors, now_ns: int) -> tuple[int, int] | None:
    """Prepare a window; return the buffered bytes and those of the clip, if any."""
    started, clip = time.process_time(), None
    sensors.stream.assess(now_ns)
    window = sensors.stream.window(now_ns)
    if window is not None:
        clip = window.clip()
    sensors.watch.add('prepared' if clip else 'nothing new', time.process_time() - started)
    if window is None or clip is None:
        return None
    flow = window.samples.get(Modality.FLOW)
    return (sensors.stream.nbytes + (flow.cache.nbytes if flow else 0),
            sum(x.nbytes for x in clip.inputs.values()))


if __name__ == '__main__':
    sys.exit(main())
