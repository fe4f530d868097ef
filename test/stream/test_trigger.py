"""When inference runs, tick by tick and frame by frame."""

from karmma_ros.stream.window import InferenceTrigger
import pytest


def inference_times(trigger, events):
    """Return when inference runs; an event is the time of a tick, or (time, stamp) of a frame."""
    times = []
    for event in events:
        now, runs = (event[0], trigger.on_frame(event[1])) if isinstance(event, tuple) else (
            event, trigger.on_tick())
        times += [now] if runs else []
    return times


def test_a_tick_is_delayed_to_the_next_frame():
    events = [100, (110, 1), (143, 1), 200, (235, 2), (260, 3)]
    assert inference_times(InferenceTrigger(), events) == [110, 235]


def test_a_tick_without_a_frame_runs_inference_at_the_next_tick():
    events = [100, 200, 300, (310, 1), 400, (410, 1), 500]
    assert inference_times(InferenceTrigger(), events) == [200, 300, 310, 500]


def test_messages_that_bring_no_frame_of_the_clip_change_nothing():
    events = [100, (105, None), (110, 1), 200, (205, 1), (210, 1), (215, 2)]
    assert inference_times(InferenceTrigger(), events) == [110, 215]


def test_a_frame_of_another_clock_counts():
    events = [(50, 900), 100, (110, 10), 200, (205, None), (210, 10)]
    assert inference_times(InferenceTrigger(), events) == [110, 210]


def test_a_streaming_network_runs_at_each_frame():
    events = [(10, 1), (20, 2), (25, 2), 30, (40, 3), 50, 70]
    assert inference_times(InferenceTrigger(every_frame=True), events) == [10, 20, 40, 70]


@pytest.mark.parametrize('rate', [1, 3, 5, 8, 10, 20])
def test_inferences_are_as_many_as_ticks(rate):
    """A camera of 30 Hz, a clip of 8 frames a second, half a minute."""
    events = sorted([(t * 1000 // rate, None) for t in range(30 * rate)]
                    + [(t * 1000 // 30 + 1, t * 8 // 30) for t in range(30 * 30)],
                    key=lambda event: event[0])
    times = inference_times(
        InferenceTrigger(), [time if slot is None else (time, slot) for time, slot in events])
    assert len(times) == pytest.approx(30 * rate, abs=1)
    fresh = sum(any(time == now and slot is not None for time, slot in events) for now in times)
    assert fresh >= min(30 * rate, 30 * 8) - 2
