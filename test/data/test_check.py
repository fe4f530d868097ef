"""The check of a data set: every type of problem is found, counted and reported."""

import json

from karmma_ros.data.check import check_dataset, EXAMPLES
from karmma_ros.data.samples import Sample, Splits
from karmma_ros.data.segments import LabelledSegment, SegmentDataset
from karmma_ros.errors import DataError
from karmma_ros.modalities import make_clip
from karmma_ros.modality import PAPER_MODALITIES
import numpy as np

V, F, A, D = PAPER_MODALITIES


class Audio:
    """Audio that is present, missing or damaged, and counts how often it was checked."""

    def __init__(self, path='sound.wav', problem=None, damaged=False):
        self.path, self._problem, self.damaged = path, problem, damaged
        self.checked = self.read = 0

    def samples(self, start_s, duration_s, rate):
        self.read += 1
        if self.damaged:
            raise DataError(self.path, 'it breaks off', 'fetch it again')
        return np.zeros(round(duration_s * rate), np.float32)

    def problem(self):
        self.checked += 1
        return self._problem


class Boxes(Audio):
    """Boxes in the same states; they cannot be hashed."""

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
    clips = [SegmentDataset(segments(*part), spec) for part in (train, validation)]
    return Splits('Kitchen', spec, vocabulary, *clips,
                  clips[1] if test is None else SegmentDataset(segments(*test), spec))


def test_files_are_counted_by_split_and_modality(spec, vocabulary):
    gone = Audio(problem='b.wav: there is no such file')
    report = check_dataset(splits(
        spec, vocabulary, [{A: Audio()}, {A: gone, D: Boxes()}, {D: Boxes()}, {}],
        [{A: Audio()}], [{D: Boxes()}, {D: Boxes()}]))
    assert report.name == 'Kitchen' and list(report.splits) == ['train', 'validation', 'test']
    train = report.splits['train']
    assert (train.segments, train.left_out) == (3, 1)
    assert list(train.modalities) == [A, D]
    audio, boxes = train.modalities[A], train.modalities[D]
    assert (audio.present, audio.lacking, audio.missing, audio.decoded) == (1, 1, 1, 0)
    assert (boxes.present, boxes.lacking, boxes.missing, boxes.decoded) == (2, 1, 0, 0)
    assert audio.examples == ['s1: b.wav: there is no such file']
    assert audio.lacking_examples == ['s2'] and boxes.lacking_examples == ['s0']
    assert report.splits['test'].modalities[D].present == 2
    assert not report.intact and not train.intact and report.splits['test'].complete


def test_clips_of_two_splits_are_checked_once(spec, vocabulary):
    audio = Audio()
    report = check_dataset(splits(spec, vocabulary, [{A: Audio()}], [{A: audio}]))
    assert list(report.splits) == ['train', 'validation, test']
    assert audio.checked == 1 and report.intact and report.complete


def test_a_shared_recording_is_checked_once_in_each_run(spec, vocabulary):
    audio, boxes = Audio(), Boxes()
    data = splits(spec, vocabulary, [{A: audio, D: boxes}] * 5, [{A: Audio()}])
    check_dataset(data)
    assert (audio.checked, boxes.checked) == (1, 5)
    audio._problem = 'gone'
    assert check_dataset(data).splits['train'].modalities[A].missing == 5


def test_a_data_set_with_absent_modalities_is_intact_but_not_complete(spec, vocabulary):
    report = check_dataset(splits(spec, vocabulary, [{A: Audio()}, {D: Boxes()}]))
    assert report.intact and not report.complete
    left_out = check_dataset(splits(spec, vocabulary, [{A: Audio()}, {}]))
    assert not left_out.intact


def test_decoding_finds_what_is_damaged(spec, vocabulary):
    damaged = [Audio('bad.wav', damaged=True) for _ in range(6)]
    good = [Audio() for _ in range(4)]
    gone = Audio(problem='gone')
    data = splits(spec, vocabulary, [
        *({A: audio, D: Boxes()} for audio in damaged + good), {A: gone}], [{A: Audio()}])
    counts = check_dataset(data).splits['train'].modalities[A]
    assert counts.decoded == 0 and not any(s.read for s in damaged + good)
    decoded = check_dataset(data, decode=99)
    counts = decoded.splits['train'].modalities[A]
    assert (counts.present, counts.missing, counts.decoded, counts.damaged) == (10, 1, 10, 6)
    assert decoded.splits['train'].modalities[D].damaged == 0
    assert gone.read == 0 and all(s.read == 1 for s in damaged + good)
    assert counts.examples[0] == 's10: gone' and len(counts.examples) == 1 + EXAMPLES
    assert 'bad.wav: it breaks off (segment s0, audio): fetch it again' in counts.examples[1]
    assert not decoded.intact
    assert decoded.splits['validation, test'].modalities[A].decoded == 1


def test_the_seed_chooses_what_is_decoded(spec, vocabulary):
    def chosen(seed):
        recordings = [Audio() for _ in range(50)]
        data = splits(spec, vocabulary, [{A: audio} for audio in recordings])
        assert check_dataset(data, 5, seed).splits['train'].modalities[A].decoded == 5
        return [i for i, audio in enumerate(recordings) if audio.read]
    assert chosen(0) == chosen(0) != chosen(1)
    assert len(chosen(0)) == 5


class Wrapped:
    """Clips that wrap others."""

    def __init__(self, clips):
        self.clips = clips

    def __len__(self):
        return len(self.clips)

    def __getitem__(self, index):
        return self.clips[index]

    def training_sample(self, index, epoch):
        return self.clips.training_sample(index, epoch)


def test_the_segments_of_wrapped_clips_are_checked(spec, vocabulary):
    clips = Wrapped(SegmentDataset(segments({A: Audio(problem='gone')}), spec))
    report = check_dataset(Splits('Holes', spec, vocabulary, clips, clips, clips))
    assert list(report.splits) == ['train, validation, test']
    assert report.splits['train, validation, test'].modalities[A].missing == 1


class Rendered:
    """Clips without files of their own; every second one can be damaged."""

    def __init__(self, spec, damaged=False):
        self.spec, self.damaged = spec, damaged

    def __len__(self):
        return 8

    def __getitem__(self, index):
        if self.damaged and index % 2:
            raise DataError('clips.npy', f'clip {index} is incomplete', 'write it again')
        audio = np.zeros(self.spec.audio_samples, np.float32)
        return Sample(make_clip(self.spec, {A: audio}), {'verb': 0, 'noun': 0}, index)

    def training_sample(self, index, epoch):
        return self[index]


def test_clips_without_files_are_decoded(spec, vocabulary):
    good, bad = Rendered(spec), Rendered(spec, damaged=True)
    report = check_dataset(Splits('Rendered', spec, vocabulary, good, bad, good), decode=8)
    assert list(report.splits) == ['validation', 'train, test']
    counts = report.splits['train, test'].modalities[A]
    assert (counts.present, counts.decoded, counts.damaged) == (8, 8, 0)
    assert list(report.splits['train, test'].modalities) == [A]
    assert report.splits['validation'].modalities[A].damaged == 4
    assert not report.intact
    one = check_dataset(Splits('Rendered', spec, vocabulary, good, good, good))
    assert one.splits['train, validation, test'].modalities[A].decoded == 1


def test_the_report_is_json(spec, vocabulary):
    report = check_dataset(splits(spec, vocabulary, [{A: Audio(problem='gone')}]))
    report = json.loads(json.dumps(report.to_dict()))
    assert report['dataset'] == 'Kitchen' and report['intact'] is False
    assert report['splits']['train']['modalities']['audio']['missing'] == 1
    assert report['splits']['train']['modalities']['audio']['examples'] == ['s0: gone']


def test_progress_reaches_the_total_of_each_task(spec, vocabulary):
    seen = {}
    check_dataset(
        splits(spec, vocabulary, [{A: Audio()}] * 4, [{A: Audio()}] * 2), decode=3,
        progress=lambda task, done, total: seen.setdefault(task, []).append((done, total)))
    assert {task: steps[-1] for task, steps in seen.items()} == {
        'train: files': (4, 4), 'train: decoding': (3, 3),
        'validation, test: files': (2, 2), 'validation, test: decoding': (2, 2)}
