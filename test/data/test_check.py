"""What is on the disk: every kind of trouble is found, counted and named."""

import json

from karmma_ros.data.check import check_dataset, EXAMPLES
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.errors import DataError
from karmma_ros.modality import Modality
from karmma_ros.preprocess.clip_assembly import make_clip
import numpy as np

V, F, A, D = Modality


class Sound:
    """Sound that is there, missing or damaged, and counts how often it was asked."""

    def __init__(self, path='sound.wav', problem=None, damaged=False):
        self.path, self._problem, self.damaged = path, problem, damaged
        self.asked = self.read = 0

    def samples(self, start_s, duration_s, rate):
        self.read += 1
        if self.damaged:
            raise DataError(self.path, 'it breaks off', 'fetch it again')
        return np.zeros(round(duration_s * rate), np.float32)

    def problem(self):
        self.asked += 1
        return self._problem


class Boxes(Sound):
    """Boxes of the same kinds; they cannot be hashed."""

    __hash__ = None

    def __eq__(self, other):
        return self is other

    def boxes(self, times_s):
        self.samples(0, 1, 1)
        return [np.zeros((0, 5), np.float32) for _ in times_s]


def segments(*sources):
    return [
        LabelledSegment(f's{i}', 0, 1, {'verb': 0, 'noun': 0}, s) for i, s in enumerate(sources)
    ]


def splits(spec, vocabulary, train, validation=(), test=None):
    made = [SegmentDataset(segments(*part), spec) for part in (train, validation)]
    return Splits('Kitchen', spec, vocabulary, *made,
                  made[1] if test is None else SegmentDataset(segments(*test), spec))


def test_files_are_counted_by_split_and_modality(spec, vocabulary):
    gone = Sound(problem='b.wav: there is no such file')
    found = check_dataset(splits(
        spec, vocabulary, [{A: Sound()}, {A: gone, D: Boxes()}, {D: Boxes()}, {}],
        [{A: Sound()}], [{D: Boxes()}, {D: Boxes()}]))
    assert found.name == 'Kitchen' and list(found.splits) == ['train', 'validation', 'test']
    train = found.splits['train']
    assert (train.segments, train.left_out) == (3, 1)
    assert list(train.modalities) == [A, D]
    sound, boxes = train.modalities[A], train.modalities[D]
    assert (sound.there, sound.lacking, sound.missing, sound.decoded) == (1, 1, 1, 0)
    assert (boxes.there, boxes.lacking, boxes.missing, boxes.decoded) == (2, 1, 0, 0)
    assert sound.examples == ['s1: b.wav: there is no such file']
    assert sound.lacking_examples == ['s2'] and boxes.lacking_examples == ['s0']
    assert found.splits['test'].modalities[D].there == 2
    assert not found.sound and not train.sound and found.splits['test'].complete


def test_clips_that_serve_twice_are_looked_at_once(spec, vocabulary):
    sound = Sound()
    found = check_dataset(splits(spec, vocabulary, [{A: Sound()}], [{A: sound}]))
    assert list(found.splits) == ['train', 'validation, test']
    assert sound.asked == 1 and found.sound and found.complete


def test_a_shared_recording_is_asked_once_and_anew_each_time(spec, vocabulary):
    sound, boxes = Sound(), Boxes()
    data = splits(spec, vocabulary, [{A: sound, D: boxes}] * 5, [{A: Sound()}])
    check_dataset(data)
    assert (sound.asked, boxes.asked) == (1, 5)
    sound._problem = 'gone'
    assert check_dataset(data).splits['train'].modalities[A].missing == 5


def test_what_segments_lack_is_no_fault_but_not_complete(spec, vocabulary):
    found = check_dataset(splits(spec, vocabulary, [{A: Sound()}, {D: Boxes()}]))
    assert found.sound and not found.complete
    left_out = check_dataset(splits(spec, vocabulary, [{A: Sound()}, {}]))
    assert not left_out.sound


def test_decoding_finds_what_is_damaged(spec, vocabulary):
    damaged = [Sound('bad.wav', damaged=True) for _ in range(6)]
    good = [Sound() for _ in range(4)]
    gone = Sound(problem='gone')
    data = splits(spec, vocabulary, [
        *({A: sound, D: Boxes()} for sound in damaged + good), {A: gone}], [{A: Sound()}])
    tally = check_dataset(data).splits['train'].modalities[A]
    assert tally.decoded == 0 and not any(s.read for s in damaged + good)
    whole = check_dataset(data, decode=99)
    tally = whole.splits['train'].modalities[A]
    assert (tally.there, tally.missing, tally.decoded, tally.damaged) == (10, 1, 10, 6)
    assert whole.splits['train'].modalities[D].damaged == 0
    assert gone.read == 0 and all(s.read == 1 for s in damaged + good)
    assert tally.examples[0] == 's10: gone' and len(tally.examples) == 1 + EXAMPLES
    assert 'bad.wav: it breaks off (segment s0, audio): fetch it again' in tally.examples[1]
    assert not whole.sound
    assert whole.splits['validation, test'].modalities[A].decoded == 1


def test_what_is_decoded_is_drawn_by_the_seed(spec, vocabulary):
    def drawn(seed):
        sounds = [Sound() for _ in range(50)]
        data = splits(spec, vocabulary, [{A: sound} for sound in sounds])
        assert check_dataset(data, 5, seed).splits['train'].modalities[A].decoded == 5
        return [i for i, sound in enumerate(sounds) if sound.read]
    assert drawn(0) == drawn(0) != drawn(1)
    assert len(drawn(0)) == 5


class Wrapped:
    """Clips that hand others on."""

    def __init__(self, clips):
        self.clips = clips

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return self.clips[index]

    def training_sample(self, index, epoch):
        return self.clips.training_sample(index, epoch)


def test_clips_that_wrap_others_are_seen_through(spec, vocabulary):
    clips = Wrapped(SegmentDataset(segments({A: Sound(problem='gone')}), spec))
    found = check_dataset(Splits('Holes', spec, vocabulary, clips, clips, clips))
    assert list(found.splits) == ['train, validation, test']
    assert found.splits['train, validation, test'].modalities[A].missing == 1


class Rendered:
    """Clips without files of their own; every other one is damaged if told so."""

    def __init__(self, spec, damaged=False):
        self.spec, self.damaged = spec, damaged

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if self.damaged and index % 2:
            raise DataError('clips.npy', f'clip {index} is cut off', 'write it again')
        sound = np.zeros(self.spec.audio_samples, np.float32)
        return Sample(make_clip(self.spec, audio=sound), {'verb': 0, 'noun': 0}, index)

    def training_sample(self, index, epoch):
        return self[index]


def test_clips_without_files_are_known_by_their_samples(spec, vocabulary):
    good, bad = Rendered(spec), Rendered(spec, damaged=True)
    found = check_dataset(Splits('Rendered', spec, vocabulary, good, bad, good), decode=8)
    assert list(found.splits) == ['validation', 'train, test']
    tally = found.splits['train, test'].modalities[A]
    assert (tally.there, tally.decoded, tally.damaged) == (8, 8, 0)
    assert list(found.splits['train, test'].modalities) == [A]
    assert found.splits['validation'].modalities[A].damaged == 4
    assert not found.sound
    one = check_dataset(Splits('Rendered', spec, vocabulary, good, good, good))
    assert one.splits['train, validation, test'].modalities[A].decoded == 1


def test_the_report_is_json(spec, vocabulary):
    found = check_dataset(splits(spec, vocabulary, [{A: Sound(problem='gone')}]))
    report = json.loads(json.dumps(found.to_dict()))
    assert report['dataset'] == 'Kitchen' and report['sound'] is False
    assert report['splits']['train']['modalities']['audio']['missing'] == 1
    assert report['splits']['train']['modalities']['audio']['examples'] == ['s0: gone']


def test_progress_goes_to_the_end_of_each_part(spec, vocabulary):
    seen = {}
    check_dataset(
        splits(spec, vocabulary, [{A: Sound()}] * 4, [{A: Sound()}] * 2), decode=3,
        progress=lambda what, done, total: seen.setdefault(what, []).append((done, total)))
    assert {what: steps[-1] for what, steps in seen.items()} == {
        'train: files': (4, 4), 'train: decoding': (3, 3),
        'validation, test: files': (2, 2), 'validation, test: decoding': (2, 2)}
