"""Truth of several forms is read; what cannot be used is left out, counted and reported."""

from dataclasses import dataclass

from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.ground_truth import Truth, UNKNOWN
from karmma_ros.prediction import Vocabulary
import pytest

S = 1_000_000_000
KITCHEN = Vocabulary({'verb': ('cut', 'wash', 'turn-on'), 'noun': ('onion', 'cup', 'tap')})
EPIC = Vocabulary({'verb': tuple(f'v{i}' for i in range(97)),
                   'noun': tuple(f'n{i}' for i in range(300))})


@dataclass(frozen=True)
class Bag:
    path: str = '/bags/P01_11'
    start_ns: int = 1_700_000_000 * S
    end_ns: int = 1_700_000_100 * S


@pytest.fixture
def read(tmp_path):
    def read_text(text, vocabulary=KITCHEN, bag=Bag(), encoding='utf-8', **options):
        path = tmp_path / 'truth.csv'
        path.write_bytes(text.encode(encoding))
        return Truth.read(path, bag, vocabulary, **options)
    return read_text


def spans(truth, start_ns=Bag.start_ns):
    return [((a.start_ns - start_ns) / S, (a.end_ns - start_ns) / S, *a.label)
            for a in truth.actions]


@pytest.mark.parametrize('text', [
    'start,stop,verb,noun\n1.5,3,cut,onion\n4,6.25,wash,cup\n',
    'start;stop;verb;noun\r\n1,5;3;cut;onion\r\n4;6,25;wash;cup\r\n',
    '\ufeffStart\tEnd\tVerb\tNoun\n1.5\t3\tCut\tONION\n4\t6.25\twash\tcup\n',
    'noun,verb,end,start,remark\ncup,wash,6.25,4,"a, b"\nonion,cut,3,1.5,\n\n',
    'start,stop,verb,noun\n0:01.5,0:03,cut,onion\n00:00:04.00,00:00:06.25,wash,cup\n',
    'start,stop,verb,noun\n1700000001.5,1700000003,cut,onion\n1700000004,1700000006.25,wash,cup\n',
    'start_ns,stop_ns,verb_id,noun_id\n1700000001500000000,1700000003000000000,0,0\n'
    '1700000004000000000,1700000006250000000,1,1\n',
    'start,stop,verb,noun\n1700000001500,1700000003000,cut,onion\n'
    '1700000004000,1700000006250,wash,cup\n',
    'start,stop,verb_class,noun_class\n1.5,3,0.0,0\n4,6.25,1,1\n',
])
def test_forms_that_are_equal(read, text):
    truth = read(text)
    assert spans(truth) == [(1.5, 3.0, 'cut', 'onion'), (4.0, 6.25, 'wash', 'cup')]
    assert [dict(a.ids) for a in truth.actions] == [{'verb': 0, 'noun': 0}, {'verb': 1, 'noun': 1}]
    assert not truth.warnings and not truth.left_out and truth.source == 'truth.csv'


EPIC_ROWS = (
    'narration_id,participant_id,video_id,narration_timestamp,start_timestamp,stop_timestamp,'
    'start_frame,stop_frame,narration,verb,verb_class,noun,noun_class,all_nouns\n'
    'P01_11_0,P01,P01_11,00:00:01.000,00:00:01.50,00:00:03.00,1,2,cut it,cut,7,onion,16,'
    '"[\'a\', \'b\']"\n'
    'P01_12_0,P01,P01_12,00:00:01.000,00:00:05.50,00:00:06.00,1,2,wash,wash,2,cup,13,[]\n')


def test_the_tables_of_epic_kitchens(read):
    truth = read(EPIC_ROWS, EPIC)
    assert spans(truth) == [(1.5, 3.0, 'v7', 'n16')] and not truth.warnings
    other = read(EPIC_ROWS, KITCHEN)
    assert spans(other) == [(1.5, 3.0, 'cut', 'onion')]
    assert 'words in its columns verb and noun are used' in other.warnings[0]
    assert spans(read(EPIC_ROWS, EPIC, recording='P01_12')) == [(5.5, 6.0, 'v2', 'n13')]
    with pytest.raises(InvalidSettingError, match='it names P01_11, P01_12: put one of them'):
        read(EPIC_ROWS, EPIC, Bag('/bags/afternoon'))
    with pytest.raises(InvalidSettingError, match='P09'):
        read(EPIC_ROWS, EPIC, recording='P09')
    # P01_1 is the beginning of P01_11's name, not it.
    with pytest.raises(InvalidSettingError, match='put one of them'):
        read(EPIC_ROWS.replace('P01_12', 'P02_01'), EPIC, Bag('/bags/P01_1'))


@pytest.mark.parametrize(('bag', 'names', 'expected'), [
    ('kitchen/sink.mcap', ('sink', 'kitchen'), 'sink'),       # the folder's name is longer
    ('kitchen/sink_2.mcap', ('sink', 'kitchen'), 'sink'),
    ('kitchen/tap.mcap', ('sink', 'kitchen'), 'kitchen'),
    ('kitchen/sink/', ('sink', 'kitchen'), 'sink'),
    ('a/day_1.mcap', ('day_1', 'day_1.mcap-old', 'day'), 'day_1'),
    ('a/k\u00fcche-1.mcap', ('che', 'k\u00fcche'), 'k\u00fcche'),
    ('a/ku\u0308che.mcap', ('che', 'k\u00fcche'), 'k\u00fcche'),
    ('2026.11.28', ('2026.11', '2026.11.28'), '2026.11.28'),
])
def test_a_recording_is_named_by_its_bag_before_its_folder(read, bag, names, expected):
    text = 'recording,start,stop,verb,noun\n' + ''.join(
        f'{name},{i},{i + 1},cut,onion\n' for i, name in enumerate(names))
    assert spans(read(text, bag=Bag(f'/bags/{bag}'))) == [
        (float(i), i + 1.0, 'cut', 'onion') for i, name in enumerate(names) if name == expected]


def test_a_recording_that_is_not_certain_is_asked_for(read):
    text = 'recording,start,stop,verb,noun\nsink,0,1,cut,onion\nbowl,1,2,cut,onion\n'
    bag = Bag('/bags/sink_bowl.mcap')
    with pytest.raises(InvalidSettingError, match='its name contains bowl, sink: give one by '
                       '--ground-truth-recording'):
        read(text, bag=bag)
    assert len(read(text, bag=bag, recording='sink').actions) == 1
    with pytest.raises(InvalidSettingError, match='put one of them into the name of the bag'):
        read(text.replace('sink', 'che'), bag=Bag('/bags/k\u00fcche.mcap'))


def test_what_cannot_be_used_is_counted(read):
    truth = read('start,stop,verb,noun\n'
                 '10,12,cut,onion\n'
                 '11,13,cut,onion\n'        # overlaps
                 '20,19,cut,onion\n'        # stops before it starts
                 '-5,-1,cut,onion\n'        # outside
                 '200,210,cut,onion\n'      # outside
                 '95,105,cut,onion\n'       # cut at the end
                 '30,31,juggle,onion\n'     # unknown
                 'soon,31,cut,onion\n'      # no number
                 '40,nan,cut,onion\n'       # no number
                 '50,51,wash,\n')           # says nothing of the noun
    assert dict(truth.left_out) == {
        'broken rows': 2, 'stop not after start': 1, 'outside the bag': 2,
        'cut at the ends of the bag': 1, 'of a class that the model lacks': 1,
        'overlapping another': 1}
    assert [s[:2] for s in spans(truth)] == [(10, 12), (11, 13), (30, 31), (50, 51), (95, 100)]
    juggle, half = truth.actions[2], truth.actions[3]
    assert juggle.ids == {'verb': UNKNOWN, 'noun': 0} and not juggle.known
    assert juggle.names['verb'] == 'juggle'
    assert half.ids == {'verb': 1, 'noun': UNKNOWN}
    text = ' | '.join(truth.warnings)
    assert "2 rows of truth.csv cannot be read; the first: row 9: start is 'soon'" in text
    assert "which is not scored: verb 'juggle' (1)" in text
    assert '2 rows of truth.csv outside the bag of 100.0 s: left out' in text


def test_one_after_the_other_is_no_overlap(read):
    truth = read('start,stop,verb,noun\n10,12,cut,onion\n12,13,cut,cup\n')
    assert not truth.left_out and not truth.warnings


def test_times_of_either_clock(read):
    simulated = Bag(start_ns=5 * S, end_ns=105 * S)
    text = 'start,stop,verb,noun\n20,30,cut,onion\n'
    auto = read(text, bag=simulated)
    assert (
        spans(auto, 0) == [(25, 35, 'cut', 'onion')] and '--ground-truth-times' in auto.warnings[0]
    )
    assert spans(read(text, bag=simulated, times='clock'), 0) == [(20, 30, 'cut', 'onion')]
    assert not read(text, bag=simulated, times='bag').warnings
    with pytest.raises(InvalidSettingError, match='auto, bag, clock'):
        read(text, times='moon')


@pytest.mark.parametrize('text, expected', [
    ('', 'a table with a header'),
    ('begin,verb,noun\n1,cut,onion\n', 'ones with stop or stop_timestamp'),
    ('start,stop,what\n1,2,cut\n', 'ones with verb or noun'),
    ('start,stop,verb,noun\nx,y,cut,onion\n', 'a table with usable rows'),
])
def test_tables_that_cannot_be_read(read, text, expected):
    with pytest.raises(InvalidSettingError, match=expected):
        read(text)


def test_files_that_are_no_tables(read, tmp_path):
    with pytest.raises(InvalidSettingError, match='name of a topic'):
        Truth.read(tmp_path / 'none.csv', Bag(), KITCHEN)
    with pytest.raises(InvalidSettingError, match='UTF-8'):
        read('start,stop,verb,noun\n1,2,schälen,onion\n', encoding='latin-1')


def test_nothing_within_the_bag_is_reported(read):
    truth = read('start,stop,verb,noun\n500,501,cut,onion\n')
    assert not truth.actions and 'has no action within this bag' in truth.warnings[-1]


def test_a_head_without_a_column_is_not_scored(read):
    truth = read('start,stop,verb\n1,2,cut\n')
    assert truth.actions[0].ids == {'verb': 0, 'noun': UNKNOWN}
    assert 'no column noun' in truth.warnings[0]


def test_a_model_with_one_head(read):
    gestures = Vocabulary({'gesture': ('wave', 'point')})
    assert read('start,stop,label\n1,2,point\n', gestures).actions[0].ids == {'gesture': 1}


def test_spelling_decides_nothing_but_names_that_differ_in_it_alone(read):
    table = 'start,stop,verb,noun\n1,2,Turn On,tap\n3,4,turn_on,tap\n'
    assert [a.ids['verb'] for a in read(table).actions] == [2, 2]
    twins = Vocabulary({'verb': ('turn-on', 'turn on'), 'noun': ('tap',)})
    assert [a.ids['verb'] for a in read(table, twins).actions] == [UNKNOWN, UNKNOWN]
    assert read('start,stop,verb,noun\n1,2,turn on,tap\n', twins).actions[0].ids['verb'] == 1


def test_messages_of_a_topic():
    start = Bag.start_ns
    messages = [(start + S, start + 2 * S, 'cut', 'onion'), (start + S, start + 2 * S, 'cut',
                'onion'), (start + 3 * S, start + 4 * S, 'fly', 'cup')]
    truth = Truth.from_messages(messages, Bag(), KITCHEN, '/ground_truth')
    assert len(truth.actions) == 2 and truth.source == '/ground_truth'
    assert truth.left_out == {'of a class that the model lacks': 1}


WAVES = Vocabulary({'gesture': ('wave', 'point', 'cut onion')})


def annotated(*words, vocabulary=WAVES):
    """Read annotations of one second each, with these verbs and nouns."""
    messages = [(Bag.start_ns + i * S, Bag.start_ns + (i + 1) * S, *pair)
                for i, pair in enumerate(words)]
    return Truth.from_messages(messages, Bag(), vocabulary, '/ground_truth')


def test_annotations_of_one_class_are_those_of_the_only_head():
    truth = annotated(('wave', ''), ('point', ''))
    assert [dict(a.ids) for a in truth.actions] == [{'gesture': 0}, {'gesture': 1}]
    assert not truth.warnings


def test_annotations_of_verb_and_noun_for_a_model_with_one_head():
    truth = annotated(('cut', 'onion'), ('point', 'cup'), ('peel', 'cup'))
    assert [a.ids['gesture'] for a in truth.actions] == [2, 1, UNKNOWN]
    assert [a.names['gesture'] for a in truth.actions] == ['cut onion', 'point', 'peel cup']
    text = ' | '.join(truth.warnings)
    assert 'the model has the one head gesture: read as its class "verb noun"' in text
    assert "gesture 'peel cup' (1)" in text


@pytest.mark.parametrize(('head', 'ids', 'text'), [
    ('verb', [0], 'the model has no head noun, it is not scored'),
    ('noun', [0], 'the model has no head verb, it is not scored')])
def test_annotations_for_one_head_that_is_verb_or_noun(head, ids, text):
    vocabulary = Vocabulary({head: KITCHEN.heads[head]})
    truth = annotated(('cut', 'onion'), vocabulary=vocabulary)
    assert [a.ids[head] for a in truth.actions] == ids and text in truth.warnings[0]


def test_annotations_of_one_class_for_a_model_with_two_heads():
    truth = annotated(('cut', ''), ('wash', ''), vocabulary=KITCHEN)
    assert truth.actions[0].ids == {'verb': 0, 'noun': UNKNOWN}
    assert truth.warnings == ('/ground_truth names no noun: that head is not scored',)


def test_annotations_for_heads_of_other_names():
    hands = Vocabulary({'gesture': ('wave', 'point'), 'hand': ('left', 'right'),
                        'speed': ('slow', 'fast')})
    truth = annotated(('point', 'right'), vocabulary=hands)
    assert truth.actions[0].ids == {'gesture': 1, 'hand': 1, 'speed': UNKNOWN}
    assert truth.warnings == (
        '/ground_truth: the verb is read as a class of gesture, the noun as one of hand',
        '/ground_truth names no speed: that head is not scored')


def test_tables_without_a_column_of_the_only_head(read):
    assert read('start,stop,verb\n1,2,point\n', WAVES).actions[0].ids == {'gesture': 1}
    assert read('start,stop,verb,noun\n1,2,Cut,onion\n', WAVES).actions[0].ids == {'gesture': 2}
    # Numbers of another vocabulary are no classes of this one.
    with pytest.raises(InvalidSettingError, match='name the columns start, stop, gesture'):
        read('start,stop,verb_class,noun_class\n1,2,1,1\n', WAVES)
    for column in ('action', 'label', 'class', 'gesture', 'gesture_class'):
        truth = read(f'start,stop,{column}\n1,2,point\n', WAVES)
        assert truth.actions[0].ids == {'gesture': 1} and not truth.warnings


def test_a_table_of_one_column_does_not_fit_two_heads(read):
    with pytest.raises(InvalidSettingError, match='column action is for a model with one head'):
        read('start,stop,action\n1,2,cut onion\n')


BIG = Vocabulary({
    'verb': ('take', 'put', 'wash', 'open', 'close', 'insert', 'turn-on', 'cut',
             *(f'v{i}' for i in range(8, 97))),
    'noun': ('tap', 'spoon', 'plate', 'cup', *(f'n{i}' for i in range(4, 300)))})
# The same words have other numbers in EPIC-KITCHENS-55; take and put have the same.
EPIC_55_ROWS = (
    'uid,participant_id,video_id,narration,start_timestamp,stop_timestamp,start_frame,stop_frame,'
    'verb,verb_class,noun,noun_class,all_nouns,all_noun_classes\n'
    "0,P01,P01_11,wash cup,00:00:01.00,00:00:02.00,0,1,wash,4,cup,10,['cup'],[10]\n"
    "1,P01,P01_11,take cup,00:00:03.00,00:00:04.00,0,1,take,0,cup,10,['cup'],[10]\n"
    "2,P01,P01_11,pick-up it,00:00:05.00,00:00:06.00,0,1,pick-up,0,plate,2,['plate'],[2]\n")


@pytest.mark.parametrize('vocabulary', [BIG, KITCHEN], ids=['100', 'kitchen'])
def test_numbers_of_epic_kitchens_55_are_not_taken_for_the_models(read, vocabulary):
    truth = read(EPIC_55_ROWS, vocabulary)
    assert spans(truth)[0] == (1, 2, 'wash', 'cup')
    assert spans(truth)[2][2] == 'pick-up' and truth.actions[2].ids['verb'] == UNKNOWN
    assert 'numbers the classes of EPIC-KITCHENS-55, which are not' in truth.warnings[0]
    own = Vocabulary({'verb': tuple(f'v{i}' for i in range(125)),
                      'noun': tuple(f'n{i}' for i in range(352))})
    assert spans(read(EPIC_55_ROWS, own))[0] == (1, 2, 'v4', 'n10')


def test_numbers_of_epic_kitchens_55_without_names_are_not_used(read):
    lines = [line.split(',') for line in EPIC_55_ROWS.splitlines()]
    no_verbs = '\n'.join(','.join(row[:8] + row[9:12]) for row in lines)
    truth = read(no_verbs, BIG)
    assert all(a.ids['verb'] == UNKNOWN and a.names['verb'].startswith('number ')
               for a in truth.actions)
    assert spans(truth)[0][3] == 'cup'
    assert any('no name of any verb: its numbers are not used' in w for w in truth.warnings)
    with pytest.raises(InvalidSettingError, match='numbers are those of EPIC-KITCHENS-55, not of'):
        read('\n'.join(','.join(row[:8] + [row[9], row[11]]) for row in lines), BIG)


def test_numbers_of_another_vocabulary_are_known_by_the_names_beside_them(read):
    """Whatever the columns are called, and whichever comes first."""
    text = ('start,stop,verb,verb_name,noun,noun_id\n1,2,4,wash,cup,3\n3,4,0,take,cup,3\n'
            '5,6,5,cut,cup,3\n7,8,0,grab,plate,2\n9,10,1,,tap,0\n')
    truth = read(text, BIG)
    assert [s[2:] for s in spans(truth)] == [
        ('wash', 'cup'), ('take', 'cup'), ('cut', 'cup'), ('grab', 'plate'), ('number 1', 'tap')]
    assert truth.actions[3].ids['verb'] == truth.actions[4].ids['verb'] == UNKNOWN
    note, = (w for w in truth.warnings if 'contradict' in w)
    assert note == (
        "truth.csv: 2 of 3 numbers of verb contradict the names beside them, the first: 'wash' "
        "has number 4, which in the model is 'close'; the names are used, no number is used: they "
        'are those of another vocabulary')


def test_a_slip_among_many_rows_is_reported_and_the_other_numbers_count(read):
    """Of EPIC-KITCHENS-100's own rows the verb is any word, and its number the class."""
    rows = ['1,2,take,0,cup,3'] * 10 + ['1,2,wash,99,cup,3', '3,4,grab,0,cup,3']
    truth = read('start,stop,verb,verb_class,noun,noun_class\n' + '\n'.join(rows), BIG)
    assert [a.names['verb'] for a in truth.actions[-2:]] == ['wash', 'take']
    assert truth.actions[-1].ids['verb'] == 0
    assert any('1 of 11 numbers of verb contradict' in w and 'number 99, which in the model does '
               'not exist' in w and 'only where the name is no class' in w for w in truth.warnings)


def test_numbers_that_nothing_confirms_or_that_are_too_large_are_reported(read):
    truth = read('start,stop,verb_class,verb,noun_id\n1,2,2,allumer,1\n3,4,1,laver,7\n')
    assert [s[2:] for s in spans(truth)] == [('turn-on', 'cup'), ('wash', '7')]
    assert any('no name of verb is a class of the model' in w for w in truth.warnings)
    assert any('1 numbers of noun are beyond the 3 classes of the model, the first: 7; if' in w
               for w in truth.warnings)


def test_a_number_is_a_name_where_the_model_has_one(read):
    digits = Vocabulary({'action': ('2', '1', '0')})
    assert spans(read('start,stop,action\n1,2,0\n', digits)) == [(1, 2, '0')]


def test_ids_of_a_topic_that_contradict_its_names_are_reported():
    start = Bag.start_ns
    messages = [(start + i * S, start + (i + 1) * S, verb, 'cup', number, 1)
                for i, (verb, number) in enumerate([('wash', 2), ('cut', 0)])]
    truth = Truth.from_messages(messages, Bag(), KITCHEN, '/truth')
    assert [a.label for a in truth.actions] == [('wash', 'cup'), ('cut', 'cup')]
    note, = truth.warnings
    assert note.startswith("/truth: 1 of 2 numbers of verb contradict the names beside them, the "
                           "first: 'wash' has number 2, which in the model is 'turn-on'")
    unset = [(*message[:4], 0, 0) for message in messages]
    assert not Truth.from_messages(unset, Bag(), KITCHEN, '/truth').warnings
