"""
What each stage of the live path costs, and how that grows; by the node's own code, without DDS.

`python benchmarks/live_path.py` plays half a minute of the sensors of scene.py (VGA at 30 Hz,
sound in messages of 20 ms, boxes at 10 Hz) into the node's callbacks as fast as they take it, asks
for 10 answers a second, and adds up the time on the processor of each stage, all threads together.
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
import sys
from threading import Lock
import time
from types import SimpleNamespace
from typing import Any

import cv2
from karmma_ros.clip import ClipSpec, NANOSECONDS
from karmma_ros.modality import Modality, subset_name
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.registry import find_model
from karmma_ros.node.declarations import DECLARATIONS
from karmma_ros.node.inputs import Messages, TOPICS
from karmma_ros.node.messages import availability_message, LATCHED, Publishing, recognition_message
from karmma_ros.node.model_loader import load_model
from karmma_ros.preprocess.image import decode_image
from karmma_ros.preprocess.resize import resize_and_crop
from karmma_ros.stream import message_types as types
from karmma_ros.stream.decoders import read_compressed_image, read_image
from karmma_ros.stream.events import ActionEvents, EventSettings
from karmma_ros.stream.sensor_stream import InputSettings, SensorStream
from karmma_ros.stream.window import Window
from rclpy.serialization import deserialize_message, serialize_message
from scene import HEIGHT, MAKERS, PERIODS_NS, stamp, WIDTH

MODEL = 'synthetic_kitchen'
RATE = 10.0
"""Answers a second."""
_REPORTS_HZ = 2.5
_TYPES = {Modality.RGB: types.IMAGE, Modality.AUDIO: types.AUDIO_DATA_STAMPED,
          Modality.DETECTIONS: types.DETECTIONS}
_NAMES = {Modality.RGB: 'picture', Modality.AUDIO: 'sound', Modality.DETECTIONS: 'boxes'}
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
    found = {'stages': stages(seconds), 'decoding': decoding(20 if options.quick else 200),
             'growth': growth(2.0 if options.quick else 10.0)}
    print(json.dumps(found, indent=1))
    if options.json:
        options.json.write_text(json.dumps(found), encoding='utf-8')
    return 0


# -- the film --------------------------------------------------------------------------------

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
        """Note one call."""
        self.cpu_s[stage] = self.cpu_s.get(stage, 0.0) + cpu_s
        self.calls[stage] = self.calls.get(stage, 0) + 1


class Film:
    """The sensors' messages, in order of time, put into the node's callbacks."""

    def __init__(
        self, spec: ClipSpec, modalities: Sequence[Modality], watch: Stopwatch,
    ) -> None:
        self.watch, self.now_ns = watch, 1_000 * NANOSECONDS
        self.stream = SensorStream(
            spec, modalities, {m: InputSettings(NANOSECONDS) for m in modalities})
        self._kept = False
        self.stream.add_image = self._noting(self.stream.add_image)  # type: ignore[method-assign]
        messages = Messages(self._node(), {d.name: d.default for d in DECLARATIONS}, Lock(),
                            lambda: None)
        messages.feed(self.stream, spec)
        sources = {Modality.RGB if m is Modality.FLOW else m for m in modalities}
        self._inputs = {
            TOPICS[m]: (m, messages.callback(m, _TYPES[m]), _serialised(TOPICS[m]))
            for m in Modality if m in sources}

    def play(self, seconds: float, rate: float) -> Iterator[int]:
        """Return the time of each look for a window, after the messages before it went in."""
        start_ns = self.now_ns
        due = {topic: start_ns + i for i, topic in enumerate(self._inputs)}
        answer_ns = start_ns + round(NANOSECONDS / rate)
        while self.now_ns < start_ns + seconds * NANOSECONDS:
            topic = min(due, key=lambda each: due[each])
            self.now_ns = min(due[topic], answer_ns)
            if answer_ns <= due[topic]:
                answer_ns += round(NANOSECONDS / rate)
                yield self.now_ns
            else:
                self._send(topic)
                due[topic] += PERIODS_NS[topic]

    def _send(self, topic: str) -> None:
        modality, callback, messages = self._inputs[topic]
        kind, data = next(messages)
        name = _NAMES[modality]
        with self.watch(f'{name}: message to Python'):
            message = deserialize_message(data, kind)
        stamp(topic, message, self.now_ns)
        self._kept, started = False, time.process_time()
        callback(message)
        what = 'stored' if modality is not Modality.RGB else (
            'read, resized, stored' if self._kept else 'not needed')
        self.watch.add(f'{name}: {what}', time.process_time() - started)

    def _noting(self, add: Callable[..., str]) -> Callable[..., str]:
        def add_noted(*arguments: Any) -> str:
            self._kept = True
            return add(*arguments)
        return add_noted

    def _node(self) -> Any:
        """Return what the callbacks need of a node: the film's clock, and a logger."""
        return SimpleNamespace(
            get_clock=lambda: SimpleNamespace(now=lambda: SimpleNamespace(
                nanoseconds=self.now_ns)),
            get_logger=lambda: logging.getLogger('film'))


def _serialised(topic: str) -> Iterator[tuple[type, bytes]]:
    return cycle([(type(m), serialize_message(m)) for m in MAKERS[topic]()])


# -- stages ----------------------------------------------------------------------------------

def stages(seconds: float) -> dict[str, Any]:
    """Return stage → milliseconds on the processor a call, calls a second, percent of a core."""
    import rclpy

    model, watch = load_model(MODEL, 'cpu', 'auto'), Stopwatch()
    bundle, backend = model.bundle, model.recogniser.backend
    film = Film(bundle.spec, bundle.network.modalities, watch)
    rclpy.init()
    try:
        publish = _publishers(rclpy.create_node('film'))
        events = ActionEvents(EventSettings(), bundle.vocabulary)
        # The first window fills; nothing of it counts.
        for now_ns in film.play(bundle.spec.duration, RATE):
            _answer(film, model, events, publish, now_ns)
        watch.cpu_s.clear()
        watch.calls.clear()
        for now_ns in film.play(seconds, RATE):
            _answer(film, model, events, publish, now_ns)
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
    return {'answer': node.create_publisher(ActionRecognition, 'film/answer', 10).publish,
            'report': node.create_publisher(ModalityAvailability, 'film/report', LATCHED).publish}


def _answer(
    film: Film, model: Any, events: ActionEvents, publish: Mapping[str, Callable[[Any], None]],
    now_ns: int,
) -> None:
    """Do what the node's worker does at a wake-up, stage by stage."""
    watch, backend = film.watch, model.recogniser.backend
    with watch('window: inputs judged, cut'):
        film.stream.assess(now_ns)
        window = film.stream.window(now_ns)
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
    with watch('answer: message'):
        message = recognition_message(
            prediction, window, Publishing(5, 0.0, '', model.bundle.model_id))
    with watch('answer: published'):
        publish['answer'](message)
    with watch('answer: events'):
        events.push(window.end_ns, window.start_ns, prediction)
    if watch.calls['answer: events'] % round(RATE / _REPORTS_HZ) == 0:
        with watch('answer: report of the inputs'):
            publish['report'](availability_message(window.statuses, now_ns, True))


def _clip(window: Window, watch: Stopwatch) -> dict[Modality, Any]:
    """Prepare the inputs one by one, as `Window.clip` does together."""
    clip = {}
    for modality in window.modalities:
        with watch(_INPUTS[modality]):
            clip[modality] = window.clip([modality]).inputs[modality]
    return clip


def decoding(rounds: int) -> dict[str, float]:
    """Return what there is to do with a VGA picture → milliseconds on the processor."""
    from fault_suite import messages

    spec = load_bundle(find_model(MODEL)).spec
    raw = MAKERS['image']()[0]
    picture = decode_image(raw.data, encoding='rgb8', height=HEIGHT, width=WIDTH, step=raw.step)
    jpeg = messages.compressed(0, WIDTH, HEIGHT)
    jpeg.data = array('B', cv2.imencode('.jpg', picture[..., ::-1])[1].tobytes())
    found = {}
    for name, size in (('', (spec.video.height, spec.video.width)), (' to 224 x 224', (224, 224))):
        work: dict[str, Callable[[], Any]] = {
            'rgb8: read and resize': lambda size=size: read_image(raw, size),
            'JPEG: decode and resize': lambda size=size: read_compressed_image(jpeg, size),
            'resize alone': lambda size=size: resize_and_crop(picture, *size)}
        found |= {what + name: _cpu_ms(do, rounds) for what, do in work.items()}
    return found


def _cpu_ms(work: Callable[[], Any], rounds: int) -> float:
    work()
    started = time.process_time()
    for _ in range(rounds):
        work()
    return 1e3 * (time.process_time() - started) / rounds


# -- growth ----------------------------------------------------------------------------------

def growth(seconds: float) -> list[dict[str, Any]]:
    """Return what preparation and buffers take for other windows, rates and sensors."""
    bundle = load_bundle(find_model(MODEL))
    whole = bundle.network.modalities
    cases = [('window', f'{times} x', _longer(bundle.spec, times), RATE, whole)
             for times in (1, 2, 4)]
    cases += [('rate', f'{rate:g} a second', bundle.spec, rate, whole)
              for rate in (5.0, 10.0, 20.0)]
    cases += [('sensors', subset_name(whole[:n]), bundle.spec, RATE, whole[:n])
              for n in range(1, len(whole) + 1)]
    found = [_grown(*case, seconds) for case in cases]
    paper = "the paper's clip", 'V+F+A, 5 a second', ClipSpec(), 5.0, whole[:3]
    return [*found, _grown(*paper, min(seconds, 4.0))]


def _longer(spec: ClipSpec, times: int) -> ClipSpec:
    """Stretch a window; as many frames a second, and a tile of sound for each stretch."""
    return replace(
        spec, duration=times * spec.duration, num_frames=times * spec.num_frames,
        audio=replace(spec.audio, tiles=times * spec.audio.tiles))


def _grown(
    what: str, label: str, spec: ClipSpec, rate: float, modalities: Sequence[Modality],
    seconds: float,
) -> dict[str, Any]:
    watch = Stopwatch()
    film = Film(spec, modalities, watch)
    for now_ns in film.play(spec.duration + 0.5, rate):
        _prepare(film, now_ns)
    watch.cpu_s.clear()
    watch.calls.clear()
    kept = clip = 0
    for now_ns in film.play(seconds, rate):
        kept, clip = _prepare(film, now_ns) or (kept, clip)
    prepared_s = watch.cpu_s['prepared']
    return {
        'what': what, 'label': label, 'rate': rate,
        'ms_an_answer': 1e3 * prepared_s / watch.calls['prepared'],
        'percent': 100 * sum(watch.cpu_s.values()) / seconds,
        'kept_mb': kept / 1e6, 'clip_mb': clip / 1e6}


def _prepare(film: Film, now_ns: int) -> tuple[int, int] | None:
    """Cut and prepare a window; give the bytes that are kept and those of the clip, if any."""
    started, clip = time.process_time(), None
    film.stream.assess(now_ns)
    window = film.stream.window(now_ns)
    if window is not None:
        clip = window.clip()
    film.watch.add('prepared' if clip else 'nothing new', time.process_time() - started)
    if window is None or clip is None:
        return None
    return (film.stream.nbytes + window.flow_cache.nbytes,
            sum(x.nbytes for x in clip.inputs.values()))


if __name__ == '__main__':
    sys.exit(main())
