"""When a node looks for a window, tick by tick and picture by picture."""

from karmma_ros.stream.trigger import InferenceTrigger
import pytest


def looked(looks, events):
    """When there is a look; an event is the time of a tick, or (time, stamp) of a picture."""
    found = []
    for event in events:
        now, look = (event[0], looks.picture(event[1])) if isinstance(event, tuple) else (
            event, looks.tick())
        found += [now] if look else []
    return found


def test_a_tick_leaves_the_look_to_the_next_picture():
    assert looked(InferenceTrigger(), [100, (110, 1), (143, 1), 200, (235, 2), (260, 3)]) == [
        110,
        235,
    ]


def test_what_no_picture_did_the_next_tick_does():
    assert looked(InferenceTrigger(), [100, 200, 300, (310, 1), 400, (410, 1), 500]) == [
        200,
        300,
        310,
        500,
    ]


def test_messages_that_bring_no_picture_of_the_clip_change_nothing():
    assert looked(
        InferenceTrigger(), [100, (105, None), (110, 1), 200, (205, 1), (210, 1), (215, 2)]
    ) == [110, 215]


def test_a_picture_of_another_clock_is_one_too():
    assert looked(
        InferenceTrigger(), [(50, 900), 100, (110, 10), 200, (205, None), (210, 10)]
    ) == [110, 210]


def test_a_streaming_network_looks_at_each_picture():
    assert looked(
        InferenceTrigger(every_picture=True), [(10, 1), (20, 2), (25, 2), 30, (40, 3), 50, 70]
    ) == [10, 20, 40, 70]


@pytest.mark.parametrize('rate', [1, 3, 5, 8, 10, 20])
def test_there_are_as_many_looks_as_ticks(rate):
    """A camera of 30 Hz, a clip of 8 pictures a second, half a minute."""
    events = sorted([(t * 1000 // rate, None) for t in range(30 * rate)]
                    + [(t * 1000 // 30 + 1, t * 8 // 30) for t in range(30 * 30)],
                    key=lambda event: event[0])
    looks = looked(
        InferenceTrigger(), [time if slot is None else (time, slot) for time, slot in events]
    )
    assert len(looks) == pytest.approx(30 * rate, abs=1)
    fresh = sum(any(time == look and slot is not None for time, slot in events)
                for look in looks)
    assert fresh >= min(30 * rate, 30 * 8) - 2
