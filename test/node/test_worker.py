"""A worker: its events when the engine is replaced or stamps step back, and its windows."""

from threading import Lock
from types import SimpleNamespace

from karmma_msgs.msg import ActionEvent
from karmma_ros.clip import BOX_HAND, ClipSpec, VideoSpec
from karmma_ros.modality import Modality
from karmma_ros.node.worker import Engine, Worker
from karmma_ros.prediction import Prediction, Vocabulary
from karmma_ros.stream.events import ActionEvents, EventSettings
from karmma_ros.stream.sensor_stream import SensorStream
from karmma_ros.stream.source import InputSettings
import numpy as np

QUICK = EventSettings(smoothing=0.0, min_duration=0.0)
SECOND = 1_000_000_000


def engine(model_id: str, *classes: str) -> Engine:
    events = ActionEvents(QUICK, Vocabulary({'action': classes}))
    return Engine(stream=None, recogniser=None, model_id=model_id, events=events)


def seen(worker: Worker, second: int, *scores: float) -> list[int]:
    """Push a recognition as the thread does; return the ids of its events."""
    events = worker.engine.events
    prediction = Prediction({'action': np.array(scores)}, Vocabulary({'action': ('a', 'b')}))
    return [e.event_id for e in events.push(second * SECOND, second * SECOND, prediction)]


def test_ids_go_on_after_a_model_swap_and_what_ran_ends_by_the_old_model():
    published: list[ActionEvent] = []
    outputs = SimpleNamespace(events=SimpleNamespace(publish=published.append))
    parameters = {'top_k': 1, 'score_threshold': 0.0, 'subject_id': ''}
    worker = Worker(None, parameters, engine('old', 'open', 'close'), Lock(), None, outputs)
    assert seen(worker, 1, 1.0, 0.0) == [0] and seen(worker, 2, 0.0, 1.0) == [0, 1]
    worker.replace(engine('new', 'cut', 'wash'))
    (ended,) = published
    assert (ended.phase, ended.event_id, ended.model_id, ended.verb.class_name) == (
        ActionEvent.ENDED, 1, 'old', 'close')
    assert worker.engine.model_id == 'new' and seen(worker, 3, 1.0, 0.0) == [2]
    worker.replace(engine('newest', 'cut', 'wash'))
    assert (published[-1].event_id, published[-1].model_id) == (2, 'new')
    assert seen(worker, 4, 0.0, 1.0) == [3]


V, D = Modality.RGB, Modality.DETECTIONS
MS = 1_000_000
T0_NS = 1_700_000_000 * SECOND
SPEC = ClipSpec(duration=0.8, num_frames=8, video=VideoSpec(16, 16))
IMAGE = np.random.default_rng(0).integers(0, 256, (16, 16, 3), dtype=np.uint8)
BOXES = np.array([[0.1, 0.1, 0.2, 0.2, BOX_HAND]], np.float32)


class Steps:
    """A worker without its thread, a clock and what was published."""

    def __init__(self, *modalities: Modality, hop: int = 0, min_modalities: int = 1) -> None:
        self.now_ns = T0_NS
        self.stream = SensorStream(
            SPEC, modalities, {m: InputSettings(500 * MS) for m in modalities}, hop=hop)
        vocabulary = Vocabulary({'action': ('a', 'b')})
        self.prediction = Prediction({'action': np.array([1.0, 0.0])}, vocabulary)
        recogniser = SimpleNamespace(
            modalities=modalities, recognise=lambda window, leave_one_out: self.prediction)
        self.results: list = []
        self.events: list = []
        outputs = SimpleNamespace(**{
            name: SimpleNamespace(publish=messages.append) for name, messages in (
                ('recognition', self.results), ('events', self.events), ('availability', []))})
        clock = SimpleNamespace(now=lambda: SimpleNamespace(nanoseconds=self.now_ns))
        node = SimpleNamespace(get_clock=lambda: clock)
        parameters = {'top_k': 2, 'score_threshold': 0.0, 'subject_id': '',
                      'leave_one_out': False, 'min_modalities': min_modalities}
        self.worker = Worker(
            node, parameters,
            Engine(self.stream, recogniser, 'model', ActionEvents(QUICK, vocabulary)),
            Lock(), SimpleNamespace(frame_ids={}), outputs)

    def step(self, *, offset_ns: int = 0, boxes: bool = False) -> None:
        """Receive an image, and boxes if they are given, and run inference."""
        self.now_ns += 100 * MS
        assert not self.stream.add(V, IMAGE, self.now_ns + offset_ns, self.now_ns) or offset_ns
        if boxes:
            self.stream.add(D, BOXES, self.now_ns, self.now_ns)
        self.worker._step(True)
        assert not self.worker.failure


def test_an_action_ends_and_the_next_starts_when_stamps_step_back():
    steps = Steps(V)
    for _ in range(20):
        steps.step()
    assert [(e.phase, e.event_id) for e in steps.events] == [(ActionEvent.STARTED, 0)]
    vocabulary = steps.prediction.vocabulary
    steps.prediction = Prediction({'action': np.array([0.0, 1.0])}, vocabulary)
    before = len(steps.results)
    for _ in range(20):
        steps.step(offset_ns=-3600 * SECOND)
    assert len(steps.results) > before
    assert [(e.phase, e.event_id, e.verb.class_name) for e in steps.events[1:]] == [
        (ActionEvent.ENDED, 0, 'a'), (ActionEvent.STARTED, 1, 'b')]


def test_a_result_of_a_streaming_model_rests_on_min_modalities():
    steps = Steps(V, D, hop=4, min_modalities=2)
    for _ in range(13):
        steps.step()
    for _ in range(20):
        steps.step(boxes=True)
    assert steps.results and all(
        sum(each.used for each in result.modalities) == 2 for result in steps.results)
