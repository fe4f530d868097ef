from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields, replace
import math
from pathlib import Path
import subprocess
import sys

from hypothesis import event as note
from hypothesis import given, settings
from hypothesis import strategies as st
from karmma_ros.errors import InvalidSampleError, InvalidSettingError
from karmma_ros.evaluation.segmentation import (
    argmax_segments,
    count_matches,
    edit_score,
    event_segments,
    Segment,
    SegmentCounts,
)
from karmma_ros.prediction import Prediction, Vocabulary
from karmma_ros.stream.events import ActionEvent, ActionEvents, EventSettings, Phase
from karmma_ros.stream.settings import event_settings, node_parameters
import numpy as np
import pytest
from simulated_stream import BACKGROUND, Recording, RecordingSettings, simulate

MS = 1_000_000
WORDS = Vocabulary({'verb': ('cut', 'wash', 'nothing'), 'noun': ('bread', 'cup')})
CUTTING_BREAD, WASHING_CUP = (0, 0), (1, 1)
QUICK = EventSettings(smoothing=0.0, min_duration=0.0)
STARTED, ENDED = Phase.STARTED, Phase.ENDED


def sure_of(verb: int, noun: int, certainty: float = 0.9) -> Prediction:
    """Return a recognition in which both heads have that certainty."""
    heads = {}
    for head, chosen in (('verb', verb), ('noun', noun)):
        count = len(WORDS.heads[head])
        heads[head] = np.full(count, (1 - certainty) / (count - 1))
        heads[head][chosen] = certainty
    return Prediction(heads, WORDS)


NOTHING = Prediction({'verb': np.full(3, 1 / 3), 'noun': np.full(2, 1 / 2)}, WORDS)


def play(
    actions: ActionEvents, predictions: Iterable[tuple[int, Prediction]], window_ms: int = 0,
) -> list[ActionEvent]:
    """Push (time in ms, prediction) pairs."""
    return [e for t, p in predictions for e in actions.push(t * MS, (t - window_ms) * MS, p)]


def summary(events: Iterable[ActionEvent]) -> list[tuple[str, int, str, int, int]]:
    """Return phase, id, words, and start and end in milliseconds."""
    return [(e.phase.name, e.event_id, f'{e.verb.class_name} {e.noun.class_name}',
             e.start_ns // MS, e.end_ns // MS) for e in events]


def every(period: int, start: int, stop: int, prediction: Prediction):
    return [(t, prediction) for t in range(start, stop, period)]


SCENE = [*every(200, 0, 2000, NOTHING), *every(200, 2000, 6000, sure_of(*CUTTING_BREAD)),
         *every(200, 6000, 12000, NOTHING)]
"""Two seconds of nothing, four of cutting, six of nothing."""


UNKNOWN = replace(sure_of(*WASHING_CUP), is_unknown=True)


def test_an_unknown_action_is_background():
    unknown = [(t, UNKNOWN if p is NOTHING else p) for t, p in SCENE]
    events = play(ActionEvents(EventSettings(), WORDS), unknown)
    assert summary(events) == [('STARTED', 0, 'cut bread', 1900, events[0].end_ns // MS),
                               ('ENDED', 0, 'cut bread', 1900, 5900)]
    nothing = [(t, sure_of(2, 0)) if p is NOTHING else (t, p) for t, p in SCENE]
    settings = replace(EventSettings(), background='nothing')
    with_class = play(ActionEvents(settings, WORDS), nothing)
    assert [e.end_ns for e in with_class if e.phase is ENDED] == [5900 * MS]


def test_a_single_unknown_result_ends_nothing():
    one = [(t, UNKNOWN if t == 4000 else p) for t, p in SCENE]
    events = play(ActionEvents(EventSettings(), WORDS), one)
    assert [(e.phase, e.event_id) for e in events] == [(STARTED, 0), (ENDED, 0)]
    assert (events[1].start_ns, events[1].end_ns) == (1900 * MS, 5900 * MS)


def test_windows_over_a_border_may_be_unknown_without_moving_it():
    between = Prediction({'verb': np.array([0.5, 0.5, 0]), 'noun': np.array([0.5, 0.5])}, WORDS)
    scene = [*every(200, 0, 4000, sure_of(*CUTTING_BREAD)), *every(200, 4000, 4600, between),
             *every(200, 4600, 9000, sure_of(*WASHING_CUP))]
    unknown = [(t, replace(p, is_unknown=p is between)) for t, p in scene]
    for each in (EventSettings(), replace(EventSettings(), smoothing=0.5)):
        plain, marked = (play(ActionEvents(each, WORDS), s) for s in (scene, unknown))
        assert [(e.phase, e.start_ns) for e in marked] == [(e.phase, e.start_ns) for e in plain]
        assert [e.end_ns for e in marked if e.phase is ENDED] == [
            e.end_ns for e in plain if e.phase is ENDED]


def test_nothing_starts_while_all_is_unknown():
    actions = ActionEvents(EventSettings(), WORDS)
    assert play(actions, every(200, 0, 8000, UNKNOWN)) == []
    assert play(actions, every(200, 8000, 12000, sure_of(*CUTTING_BREAD)))[0].start_ns == 7900 * MS


def test_an_action_starts_once_and_ends_once():
    events = play(ActionEvents(EventSettings(), WORDS), SCENE)
    assert [(e.phase, e.event_id) for e in events] == [(STARTED, 0), (ENDED, 0)]
    assert events[0].verb.class_name == 'cut' and events[0].noun.class_name == 'bread'
    assert events[0].start_ns == events[1].start_ns == 1900 * MS
    assert events[1].end_ns == 5900 * MS  # half-way between the last that says so and the next
    assert 0.4 <= events[0].score < events[1].score <= 0.81


@pytest.mark.parametrize('smoothing', [0.0, 0.3, 1.2])
@pytest.mark.parametrize('window_ms', [0, 1000, 2000])
def test_starts_and_ends_are_at_the_centre_of_the_window(smoothing, window_ms):
    actions = ActionEvents(EventSettings(smoothing=smoothing), WORDS)
    late = [(t + window_ms // 2, prediction) for t, prediction in SCENE]
    started, ended = play(actions, late, window_ms)
    assert (started.start_ns, ended.end_ns) == (1900 * MS, 5900 * MS)
    assert started.end_ns == started.stamp_ns - window_ms // 2 * MS
    assert started.stamp_ns < ended.stamp_ns


def test_a_window_over_a_border_has_half_of_each():
    # Windows of 2 s every 0.2 s; their probability is the fraction of them that the action fills.
    def fraction(t: float) -> float:
        return max(0.0, min(t, 16.0) - max(t - 2.0, 10.0)) / 2

    one_head = Vocabulary({'action': ('idle', 'cut')})
    actions = ActionEvents(EventSettings(start=0.7, end=0.5), one_head)
    events_of_all = []
    for k in range(100):
        t = k / 5
        scores = {'action': np.array([1 - fraction(t), fraction(t)])}
        events_of_all += [
            e for e in actions.push(round(t * 1e9), round((t - 2) * 1e9),
                                    Prediction(scores, one_head)) if e.verb.class_name == 'cut']
    started, ended = events_of_all
    assert started.start_ns == pytest.approx(10e9, abs=0.11e9)
    assert ended.end_ns == pytest.approx(16e9, abs=0.11e9)


def test_smoothing_is_exact_for_irregular_steps():
    # A constant 0.81 after 0.15: smoothed(t) = 0.81 - (0.81 - 0.15) exp(-t / 1 s).
    crossing_s = -math.log((0.81 - 0.6) / (0.81 - 1 / 6))
    for steps in ([crossing_s - 0.01, 0.02], [0.1] * 3 + [crossing_s - 0.31, 0.02],
                  [0.02] * 60):
        actions = ActionEvents(
            EventSettings(smoothing=1.0, start=0.6, min_duration=0.0, max_gap=9.0), WORDS)
        actions.push(0, 0, NOTHING)
        t, since = 0.0, None
        for step in steps:
            t += step
            if actions.push(round(t * 1e9), round(t * 1e9), sure_of(*CUTTING_BREAD)):
                since = t
                break
        assert since is not None and crossing_s <= since <= crossing_s + 0.02


def test_one_action_follows_another_without_a_gap():
    predictions = [
        *every(200, 0, 3000, sure_of(*CUTTING_BREAD)),
        *every(200, 3000, 6000, sure_of(*WASHING_CUP)),
    ]
    events = play(ActionEvents(EventSettings(), WORDS), predictions)
    assert summary(events) == [
        ('STARTED', 0, 'cut bread', 0, 1000), ('ENDED', 0, 'cut bread', 0, 2900),
        ('STARTED', 1, 'wash cup', 2900, events[2].end_ns // MS)]
    assert events[1].stamp_ns == events[2].stamp_ns


def test_what_is_replaced_ends_where_its_successor_starts():
    # The action keeps 0.3, more than the threshold of the end: it ends because the other leads.
    one_head = Vocabulary({'action': ('open', 'close')})
    predictions = [*every(200, 0, 3000, np.array([0.95, 0.05])),
            *every(200, 3000, 9000, np.array([0.3, 0.7]))]
    actions = ActionEvents(EventSettings(), one_head)
    events = play(actions, [(t, Prediction({'action': x}, one_head)) for t, x in predictions])
    assert [(e.phase, e.verb.class_name) for e in events] == [
        (STARTED, 'open'), (ENDED, 'open'), (STARTED, 'close')]
    assert events[1].end_ns == events[2].start_ns == 2900 * MS


def test_verb_and_noun_are_smoothed_together():
    # Half-way from cut bread to wash cup each verb and noun has a half; no pair may mix them.
    predictions = [*every(50, 0, 3000, sure_of(*CUTTING_BREAD, 1.0)),
            *every(50, 3000, 6000, sure_of(*WASHING_CUP, 1.0))]
    events = play(
        ActionEvents(replace(QUICK, smoothing=1.0, start=0.2, end=0.1), WORDS), predictions
    )
    assert {words for _, _, words, _, _ in summary(events)} == {'cut bread', 'wash cup'}


def test_hysteresis_rides_over_a_dip():
    dip = sure_of(*CUTTING_BREAD, 0.6)  # together 0.36: below the start, above the end
    predictions = [(0, sure_of(*CUTTING_BREAD)), *every(200, 200, 2000, dip), (2000, NOTHING)]
    events = play(ActionEvents(QUICK, WORDS), predictions)
    assert summary(events) == [
        ('STARTED', 0, 'cut bread', 0, 0),
        ('ENDED', 0, 'cut bread', 0, 1900),
    ]
    assert play(ActionEvents(QUICK, WORDS), every(200, 0, 2000, dip)) == []


def test_what_starts_and_ends_does_so_at_the_lower_threshold():
    weak = sure_of(*CUTTING_BREAD, 0.55)  # together 0.3: above the end, below the start
    predictions = [*every(200, 0, 1000, NOTHING), *every(200, 1000, 1600, weak),
            *every(200, 1600, 3000, sure_of(*CUTTING_BREAD)), *every(200, 3000, 3600, weak),
            *every(200, 3600, 5000, NOTHING)]
    assert summary(play(ActionEvents(replace(QUICK, min_duration=0.5), WORDS), predictions)) == [
        ('STARTED', 0, 'cut bread', 900, 1600), ('ENDED', 0, 'cut bread', 900, 3500)]


ONE_HEAD = Vocabulary({'action': ('open', 'close', 'lift')})


@pytest.mark.parametrize(('scores', 'phases'), [
    ((0.375, 0.625, 0.0), [STARTED]),  # a lead of start - end, and no more
    ((0.28, 0.54, 0.18), [STARTED, ENDED, STARTED]), ((0.25, 0.5, 0.25), [STARTED]),
    ((0.2499, 0.49, 0.26), [STARTED, ENDED]),
])
def test_another_action_needs_a_lead_of_more_than_the_thresholds_differ(scores, phases):
    actions = ActionEvents(replace(QUICK, start=0.5, end=0.25), ONE_HEAD)
    predictions = [(0, (0.75, 0.25, 0.0)), (200, scores), (400, scores)]
    events = play(
        actions, [(t, Prediction({'action': np.array(s)}, ONE_HEAD)) for t, s in predictions]
    )
    assert [event.phase for event in events] == phases


def test_what_is_weak_beside_a_brief_rival_goes_on():
    actions = ActionEvents(replace(QUICK, start=0.5, end=0.25, min_duration=0.5), ONE_HEAD)
    clear, doubtful = np.array([0.75, 0.25, 0.0]), np.array([0.28, 0.56, 0.16])
    predictions = [*every(200, 0, 1000, clear), *every(200, 1000, 1400, doubtful),
            *every(200, 1400, 2000, clear)]
    events = play(actions, [(t, Prediction({'action': x}, ONE_HEAD)) for t, x in predictions])
    assert [event.phase for event in events] == [STARTED]


def test_no_event_starts_before_the_last_ended_or_ends_before_it_was_announced():
    # The first action outweighs all that follows: without a floor both borders would be its own.
    words = Vocabulary({'action': ('open', *'abcde')})
    actions = ActionEvents(EventSettings(0.0, 0.4, 0.39), words)
    predictions = [(t, Prediction({'action': np.array([score, *[(1 - score) / 5] * 5])}, words))
            for start, stop, score in ((0, 2000, 0.81), (2000, 2400, 0.0), (2400, 3800, 0.405),
                                       (3800, 4400, 0.0)) for t in range(start, stop, 200)]
    assert [
        (e.phase.name, e.start_ns // MS, e.end_ns // MS) for e in play(actions, predictions)
    ] == [('STARTED', 0, 1000), ('ENDED', 0, 1900), ('STARTED', 1900, 3000), ('ENDED', 1900, 3000)]


@pytest.mark.parametrize(('score', 'starts'), [(0.5, True), (0.499, False)])
def test_an_action_starts_at_the_very_threshold(score, starts):
    actions = ActionEvents(replace(QUICK, start=0.5, end=0.25), ONE_HEAD)
    predictions = Prediction({'action': np.array([score, 0.25, 0.75 - score])}, ONE_HEAD)
    assert bool(actions.push(5, 5, predictions)) is starts


def test_who_takes_over_ends_what_runs_and_goes_on_with_the_ids():
    """As after a change of the model or of the settings while it runs."""
    first = ActionEvents(QUICK, WORDS)
    play(
        first,
        [
            (0, sure_of(*CUTTING_BREAD)),
            (200, sure_of(*WASHING_CUP)),
            (400, sure_of(*CUTTING_BREAD)),
        ],
    )
    second = ActionEvents(replace(QUICK, start=0.5), ONE_HEAD)
    assert summary(second.take_over(first)) == [('ENDED', 2, 'cut bread', 300, 400)]
    assert first.clear() == []
    (started,) = second.push(
        600 * MS, 600 * MS, Prediction({'action': np.array([0.0, 1.0, 0.0])}, ONE_HEAD))
    assert (started.event_id, started.verb.class_name) == (3, 'close')
    third = ActionEvents(QUICK, WORDS)
    assert [event.event_id for event in third.take_over(second)] == [3]
    assert third.take_over(ActionEvents(QUICK, WORDS)) == []


def test_two_actions_in_balance_do_not_take_turns():
    rng = np.random.default_rng(0)
    predictions = []
    for k in range(200):
        fraction = rng.uniform(0.42, 0.58)  # of cut bread; the rest is cut cup
        predictions.append((200 * k, Prediction(
            {'verb': np.array([1.0, 0, 0]), 'noun': np.array([fraction, 1 - fraction])}, WORDS)))
    assert len(play(ActionEvents(QUICK, WORDS), predictions)) == 1


def test_what_is_brief_is_not_announced():
    brief = [*every(100, 0, 1000, NOTHING), *every(100, 1000, 1700, sure_of(*CUTTING_BREAD)),
             *every(100, 1700, 3000, NOTHING)]
    assert play(ActionEvents(replace(QUICK, min_duration=0.7), WORDS), brief) == []
    events = play(ActionEvents(replace(QUICK, min_duration=0.6), WORDS), brief)
    assert summary(events)[-1] == ('ENDED', 0, 'cut bread', 950, 1650)


def test_a_brief_mistake_does_not_interrupt():
    predictions = [
        *every(100, 0, 3000, sure_of(*CUTTING_BREAD)),
        *every(100, 3000, 3500, sure_of(*WASHING_CUP)),
        *every(100, 3500, 6000, sure_of(*CUTTING_BREAD)),
    ]
    assert [e.phase for e in play(ActionEvents(EventSettings(), WORDS), predictions)] == [STARTED]
    assert len(play(ActionEvents(QUICK, WORDS), predictions)) == 5


@pytest.mark.parametrize('background', [None, 'nothing'])
def test_the_background_class_is_no_action(background):
    actions = ActionEvents(replace(QUICK, background=background), WORDS)
    predictions = [*every(200, 0, 1000, sure_of(2, 0)), *every(200, 1000, 2000, sure_of(0, 0)),
            *every(200, 2000, 3000, sure_of(2, 1))]
    words = ['cut bread'] if background else ['nothing bread', 'cut bread', 'nothing cup']
    events = play(actions, predictions)
    assert [w for phase, _, w, _, _ in summary(events) if phase == 'STARTED'] == words
    if background:
        assert summary(events)[-1] == ('ENDED', 0, 'cut bread', 900, 1900)


def test_the_background_class_of_the_model_needs_no_setting():
    words = replace(WORDS, background='nothing')
    scene = [*every(200, 0, 1000, sure_of(2, 0)), *every(200, 1000, 2000, sure_of(0, 0))]
    assert [w for _, _, w, _, _ in summary(play(ActionEvents(QUICK, words), scene))] == [
        'cut bread']
    other = ActionEvents(replace(QUICK, background='cut'), words)
    assert [w for phase, _, w, _, _ in summary(play(other, scene)) if phase == 'STARTED'] == [
        'nothing bread']


@pytest.mark.parametrize('pause', [2400, 4000])
def test_a_pause_is_not_bridged(pause):
    back = 4000 + pause
    predictions = [
        *every(200, 0, 4000, sure_of(*CUTTING_BREAD)),
        *every(200, 4000, back, sure_of(2, 0)),
        *every(200, back, back + 4000, sure_of(*CUTTING_BREAD)),
        (back + 4000, sure_of(2, 0)),
    ]
    actions = ActionEvents(EventSettings(background='nothing'), WORDS)
    events = play(actions, predictions) + actions.clear()
    assert summary(e for e in events if e.phase is ENDED) == [
        ('ENDED', 0, 'cut bread', 0, 3900), ('ENDED', 1, 'cut bread', back - 100, back + 3900)]


def test_background_counts_with_every_noun():
    # "nothing" has 0.55, in two equal parts: no pair with it is as likely as cut bread, 0.42.
    prediction = Prediction(
        {'verb': np.array([0.45, 0, 0.55]), 'noun': np.array([0.94, 0.06])}, WORDS)
    split = Prediction({'verb': np.array([0.45, 0, 0.55]), 'noun': np.array([0.5, 0.5])}, WORDS)
    low = replace(QUICK, start=0.2, end=0.1)
    assert prediction.top_actions()[0].verb.class_name == 'nothing'
    for predictions in (prediction, split):
        assert (
            play(ActionEvents(replace(low, background='nothing'), WORDS), [(0, predictions)]) == []
        )
        assert len(play(ActionEvents(low, WORDS), [(0, predictions)])) == 1


def test_silence_ends_what_runs_and_only_then():
    actions = ActionEvents(replace(QUICK, max_gap=1.0), WORDS)
    assert actions.advance(0) == []
    play(actions, every(200, 0, 2000, sure_of(*CUTTING_BREAD)))
    assert actions.advance(1800 * MS + 1000 * MS) == []
    (ended,) = actions.advance(1800 * MS + 1000 * MS + 1)
    assert summary([ended]) == [('ENDED', 0, 'cut bread', 0, 1800)]
    assert ended.stamp_ns == 2800 * MS + 1
    assert actions.advance(9000 * MS) == []


def test_a_gap_ends_the_action_without_advance():
    actions = ActionEvents(QUICK, WORDS)
    predictions = [*every(200, 0, 1000, sure_of(*CUTTING_BREAD)), (1800, sure_of(*CUTTING_BREAD)),
            (3000, sure_of(*CUTTING_BREAD))]
    assert summary(play(actions, predictions)) == [
        ('STARTED', 0, 'cut bread', 0, 0), ('ENDED', 0, 'cut bread', 0, 1800),
        ('STARTED', 1, 'cut bread', 3000, 3000)]


def test_after_a_gap_nothing_is_known():
    actions = ActionEvents(EventSettings(), WORDS)
    play(actions, every(200, 0, 3000, sure_of(*CUTTING_BREAD)))
    assert [e.phase for e in actions.push(8000 * MS, 8000 * MS, sure_of(*CUTTING_BREAD))] == [
        ENDED
    ]


def test_what_is_not_newer_is_ignored_until_cleared():
    actions = ActionEvents(QUICK, WORDS)
    play(actions, [(1000, sure_of(*CUTTING_BREAD)), (1200, sure_of(*CUTTING_BREAD))])
    assert play(actions, [(1200, NOTHING), (10, sure_of(*WASHING_CUP))]) == []
    assert summary(actions.clear()) == [('ENDED', 0, 'cut bread', 1000, 1200)]
    assert actions.clear() == []
    assert summary(play(actions, [(10, sure_of(*WASHING_CUP))])) == [
        ('STARTED', 1, 'wash cup', 10, 10)
    ]


@pytest.mark.filterwarnings('error')
def test_windows_may_grow():
    actions = ActionEvents(QUICK, WORDS)
    play(actions, every(100, 0, 1000, NOTHING))
    (started,) = play(actions, every(100, 1000, 1500, sure_of(*CUTTING_BREAD)), window_ms=800)
    assert started.start_ns == started.end_ns == 900 * MS


def test_a_model_with_one_head():
    one_head = Vocabulary({'action': ('open', 'close')})
    actions = ActionEvents(QUICK, one_head)
    (started,) = actions.push(5, 5, Prediction({'action': np.array([0.3, 0.7])}, one_head))
    assert (started.verb.class_name, started.noun, started.score) == ('close', None, 0.7)


@pytest.mark.parametrize(('changes', 'text'), [
    ({'smoothing': -0.1}, r'events.smoothing is -0.1; expected seconds, 0 or more'),
    ({'smoothing': math.nan}, 'events.smoothing is nan'),
    ({'min_duration': math.inf}, 'events.min_duration is inf'),
    ({'max_gap': 0.0}, 'events.max_gap is 0.0; expected seconds, above 0'),
    ({'start': 1.1}, 'events.start is 1.1; expected a score above 0 and at most 1'),
    ({'end': 0.4}, 'events.end is 0.4; expected a score above 0 and below events.start = 0.4'),
    ({'end': 0.0}, 'events.end is 0.0'),
    ({'background': ''}, "events.background is ''; expected the name of a class, or None"),
])
def test_settings_that_make_no_sense(changes, text):
    with pytest.raises(InvalidSettingError, match=text):
        EventSettings(**changes)


def test_reports_when_the_model_does_not_fit():
    with pytest.raises(InvalidSettingError, match="'sleep'; expected a class of verb or noun"):
        ActionEvents(EventSettings(background='sleep'), WORDS)


@pytest.mark.parametrize(('window_start', 'heads', 'text'), [
    (11, {}, 'window: got a start 1 ns after its end'),
    (0, {}, r"head 'verb': got an array \[0\]; expected 3 finite probabilities"),
    (0, {'verb': np.ones(3) / 3, 'noun': np.ones(3) / 3}, r"head 'noun': got an array \[3\]"),
    (0, {'verb': np.array([0.5, math.nan, 0.5]), 'noun': np.ones(2) / 2}, "head 'verb'"),
])
def test_a_bad_recognition_changes_nothing(window_start, heads, text):
    actions = ActionEvents(QUICK, WORDS)
    with pytest.raises(InvalidSampleError, match=text):
        actions.push(10, window_start, Prediction(heads, WORDS))
    assert len(actions.push(10, 10, sure_of(*CUTTING_BREAD))) == 1


def test_memory_is_bounded():
    actions = ActionEvents(EventSettings(smoothing=100.0), WORDS)
    for k in range(3000):
        actions.push(k * 10 * MS, k * 10 * MS, sure_of(*CUTTING_BREAD))
    assert len(actions._recent) == 512
    actions = ActionEvents(EventSettings(smoothing=1.0, min_duration=0.5), WORDS)
    for k in range(300):
        actions.push(k * 100 * MS, k * 100 * MS, sure_of(*CUTTING_BREAD))
    assert len(actions._recent) == 61


steps = st.one_of(st.integers(1, 400), st.sampled_from([0, -300, 999, 1001, 5000]))
predictions = st.tuples(st.integers(0, 2), st.integers(0, 1), st.floats(0.0, 1.0))
pushes = st.tuples(st.just('push'), steps, predictions, st.integers(0, 2500))
others = st.tuples(st.sampled_from(['silence', 'silence', 'clear']), steps, st.none(), st.none())
choices = st.builds(
    EventSettings, smoothing=st.sampled_from([0.0, 0.2, 1.2]), start=st.sampled_from([0.4, 0.9]),
    end=st.sampled_from([0.01, 0.3]), min_duration=st.sampled_from([0.0, 0.3, 1.0]),
    max_gap=st.sampled_from([0.1, 1.0, 10.0]), background=st.sampled_from([None, 'nothing']))


def drive(actions: ActionEvents, steps) -> list[list[ActionEvent]]:
    """Play pushes, silences and clears; one list of events for each segment up to a clear."""
    now, segments = 0, [[]]
    for case, step, prediction, window in steps:
        now += step
        if case == 'push':
            verb, noun, certainty = prediction
            segments[-1] += actions.push(
                now * MS, (now - window) * MS, sure_of(verb, noun, certainty))
        elif case == 'silence':
            segments[-1] += actions.advance(now * MS)
        else:
            segments[-1] += actions.clear()
            segments.append([])
    segments[-1] += actions.clear()
    return segments


@pytest.mark.filterwarnings('error')
@settings(max_examples=300, deadline=None)
@given(choices, st.lists(st.one_of(*[pushes] * 9, others), max_size=60))
def test_what_always_holds(chosen, predictions):
    actions = ActionEvents(chosen, WORDS)
    segments = drive(actions, predictions)
    events = [e for segment in segments for e in segment]
    note(f'{min(len(events) // 2, 4)} events')
    assert [e.phase for e in events] == [STARTED, ENDED] * (len(events) // 2)
    assert [e.event_id for e in events] == [i // 2 for i in range(len(events))]
    for started, ended in zip(events[::2], events[1::2]):
        assert (started.start_ns, started.verb.class_id, started.noun.class_id) == (
            ended.start_ns, ended.verb.class_id, ended.noun.class_id)
        assert started.start_ns <= started.end_ns <= ended.end_ns <= ended.stamp_ns
        assert started.end_ns - started.start_ns >= chosen.min_duration * 1e9
        assert started.stamp_ns <= ended.stamp_ns
        assert chosen.start <= started.score <= ended.score <= 1 + 1e-9
        assert chosen.background is None or started.verb.class_name != chosen.background
    for segment in segments:
        ended = segment[1::2]
        assert all(a.end_ns <= b.start_ns for a, b in zip(ended, ended[1:]))
    again = [e for segment in drive(actions, predictions) for e in segment]
    assert [replace(e, event_id=e.event_id - len(events) // 2) for e in again] == events


def plain(recording: Recording, threshold: float) -> list[Segment]:
    """Return the best class of each window; background and low scores are no action."""
    labelled = []
    for detected in recording.recognitions:
        best, = detected.prediction.top_actions()
        label = best.verb.class_name, best.noun.class_name
        known = BACKGROUND not in label and best.score >= threshold
        labelled.append(((detected.start_ns + detected.stamp_ns) // 2, label if known else None))
    return argmax_segments(labelled, 1000 * MS)


def eventful(recording: Recording, chosen: EventSettings) -> list[Segment]:
    actions = ActionEvents(chosen, recording.vocabulary)
    events = [e for h in recording.recognitions
              for e in actions.push(h.stamp_ns, h.start_ns, h.prediction)]
    return event_segments(events + actions.clear())


@pytest.mark.parametrize('background', [False, True])
def test_events_beat_plain_argmax_on_a_noisy_stream(background):
    chosen = EventSettings(background=BACKGROUND if background else None)
    recordings = [
        simulate(RecordingSettings(seconds=240, background=background), s) for s in (7, 8)
    ]
    assert min(len(r.truth) for r in recordings) >= 20
    systems = {
        'argmax': lambda r: plain(r, 0.0),
        'argmax with threshold': lambda r: plain(r, chosen.start),
        'events': lambda r: eventful(r, chosen)}
    scores = {}
    for name, system in systems.items():
        predictions = [(r.truth, system(r)) for r in recordings]
        f1 = sum((count_matches(t, a, 0.25) for t, a in predictions), SegmentCounts(0, 0, 0)).f1
        scores[name] = f1, float(np.mean([edit_score(t, a) for t, a in predictions]))
        print(f'{name:24} F1@25 {100 * f1:5.1f}  edit {100 * scores[name][1]:5.1f}')
    for rival in ('argmax', 'argmax with threshold'):
        for ours, theirs in zip(scores['events'], scores[rival]):
            assert ours > theirs + 0.2


def test_almost_all_is_detected_when_no_prediction_is_wrong():
    total = SegmentCounts(0, 0, 0)
    for seed in (3, 4):
        recording = simulate(RecordingSettings(seconds=120, wrong=0.0, background=True), seed)
        prediction = eventful(recording, EventSettings(background=BACKGROUND))
        assert edit_score(recording.truth, prediction) > 0.9
        total += count_matches(recording.truth, prediction, 0.5)
    assert total.f1 > 0.9


def test_the_page_shows_the_settings_and_what_the_benchmark_prints():
    root = Path(__file__).parents[2]
    page = (root / 'docs' / 'events.md').read_text(encoding='utf-8').splitlines()
    for field in fields(EventSettings):
        shown = next(line for line in page if line.startswith(f'| `{field.name}` |')).split('|')[2]
        assert shown.split()[0] == ('none' if field.default is None else str(field.default))
    printed = subprocess.run(
        [sys.executable, str(root / 'benchmarks' / 'events.py'), '--recordings', '1'], check=True,
        capture_output=True, text=True, cwd=root).stdout.splitlines()
    tables = page[page.index('## Evaluation'):]
    names, shown = ([line.split('|')[1] for line in lines if line.startswith('|')]
                    for lines in (printed, tables))
    assert names == shown and len(names) == 14


@pytest.mark.parametrize(('rate', 'gap'), [(0.5, 4.0), (1.0, 2.0), (5.0, 1.0)])
def test_results_that_are_far_apart_still_give_events(rate, gap):
    chosen = event_settings({**node_parameters(), 'rate': rate})
    assert chosen.max_gap == gap
    actions = ActionEvents(chosen, WORDS)
    results = every(round(1000 / rate), 0, 20_000, sure_of(*CUTTING_BREAD))
    assert [event.phase for event in play(actions, results)] == [STARTED]
