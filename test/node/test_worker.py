"""A worker whose engine is replaced: what ran ends by the old model, ids are never used twice."""

from threading import Lock
from types import SimpleNamespace

from karmma_msgs.msg import ActionEvent
from karmma_ros.node.worker import Engine, Worker
from karmma_ros.prediction import Prediction, Vocabulary
from karmma_ros.stream.events import ActionEvents, EventSettings
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
