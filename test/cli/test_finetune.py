"""`karmma finetune`, from bags and labels to a model directory, in small."""

from dataclasses import replace
import errno
import os
import shutil
from unittest.mock import Mock

from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli import finetune
from karmma_ros.cli.finetune import head_choice, model_record
from karmma_ros.cli.main import main
from karmma_ros.data.labels.label_file import ActionLabel, read_label_file, write_label_file
from karmma_ros.data.recordings import ExtractedRecording, WindowClips
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.modalities import modality_type
from karmma_ros.modality import Modality, PAPER_MODALITIES, subsets
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.class_statistics import load_statistics
from karmma_ros.model.presets import ensemble, only, preset
from karmma_ros.prediction import softmax, Vocabulary
from karmma_ros.stream.recogniser import Recogniser
from karmma_ros.training import head_training
import numpy as np
import pytest
import soundfile
import torch
import yaml

SPEC = replace(clip_spec(), num_frames=4, video=replace(clip_spec().video, height=24, width=24))
CHOP, WASH, NOTHING = ({'action': name} for name in ('chop', 'wash', 'nothing'))


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
    """Return a folder with two bags of 8 s and a base with random weights."""
    folder = tmp_path_factory.mktemp('finetune')
    for seed, name in enumerate(('monday', 'tuesday')):
        words = ['--episodes', '2', '--seconds', '4', '--size', '32x24', '--seed', str(seed)]
        assert main(['bag', 'synthetic', str(folder / f'{name}.mcap'), *words]) == 0
    save(folder / 'base', preset('tiny'))
    return folder


def save(path, config, source=None):
    torch.manual_seed(0)
    classes = vocabulary()
    save_bundle(path, build(config, SPEC, classes), config, SPEC, classes, dataset='kitchen',
                card='', source=source)


def segments(*rows):
    return [ActionLabel(name, start, start + 1.5, classes, split)
            for name, start, classes, split in rows]


FOUR = segments(*((name, start, classes, '') for name in ('monday', 'tuesday')
                  for start, classes in ((0, CHOP), (2, WASH), (4, NOTHING), (6, CHOP))))


@pytest.fixture
def run(folder, tmp_path):
    """Return a function that fine-tunes on labels; options follow."""
    def finetune(labels, *options, base='base', bags=None, out='model'):
        path = tmp_path / 'labels.csv'
        if not isinstance(labels, str):
            write_label_file(path, labels)
        else:
            path.write_text(labels)
        return main(['finetune', str(bags or folder), '--labels', str(path), '--from',
                     str(folder / base), '--out', str(tmp_path / out), '--steps', '20',
                     '--cache', str(folder / 'cache'), *map(str, options)])
    return finetune


def test_a_model_of_other_classes_over_the_frozen_weights_of_the_base(
        run, folder, tmp_path, capsys):
    assert run(FOUR) == 0
    printed = capsys.readouterr().out
    base, tuned = load_bundle(folder / 'base'), load_bundle(tmp_path / 'model')
    assert tuned.vocabulary == Vocabulary(
        {'action': ('chop', 'nothing', 'wash')}, background='nothing')
    assert tuned.spec == base.spec
    old = base.network.state_dict()
    below = {name: x for name, x in tuned.network.state_dict().items()
             if not name.startswith('heads.')}
    assert len(below) == sum(not name.startswith('heads.') for name in old)
    for name, weights in below.items():
        assert torch.equal(weights, old[name]), name
    for line in ('| action ', '| chop ', 'by leaving one recording out', 'shortest of 1.50 s',
                 'Fewer than 5 segments to train the action: chop (4), wash (2)',
                 'top-1 accuracy on 8 segments, validated by leaving one recording out',
                 f'karmma export {tmp_path / "model"} --to openvino',
                 f'karmma bag evaluate {folder / "monday.mcap"} --model ',
                 '# it trained the model: better one of another day',
                 f'karmma.launch.py model:={tmp_path / "model"} image:=/image audio:=/audio '
                 'detections:=/detections'):
        assert line in printed, line
    card = (tmp_path / 'model' / 'README.md').read_text()
    assert 'over the frozen encoders and fusion block of base@' in card
    arguments = yaml.safe_load((tmp_path / 'model' / 'run' / 'args.yaml').read_text())
    assert (arguments['steps'], arguments['from']) == (20, str(folder / 'base'))
    record = tmp_path / 'model' / 'run'
    assert len(read_label_file(record / 'labels.csv').labels) == 8
    assert (record / 'results.csv').read_text().startswith('training,step,loss\nfold 1,1,')
    page = (record / 'README.md').read_text()
    assert '## Intervals' in page and '| V+F+A+D | 8 |' in page
    for name in ('class_balance.png', 'confusion_action.png', 'subsets.png', 'scores.json'):
        assert (record / name).stat().st_size > 500, name
    failures = (record / 'failures.md').read_text()
    assert '% sure' in failures and failures.count('.jpg') == len([*record.glob('*.jpg')]) > 0


def test_the_model_predicts_what_was_scored(run, folder, tmp_path, monkeypatch, capsys):
    labels = segments(*((name, start, classes, split) for name, split in (
        ('monday', 'train'), ('tuesday', 'test')) for start, classes in ((1, CHOP), (4, WASH))))
    scored = []

    def keep(*given):
        scored.extend(head_training.predict(*given))
        return scored
    monkeypatch.setattr(model_record, 'predict', keep)
    assert run(labels) == 0
    assert (f'karmma bag evaluate {folder / "tuesday.mcap"} --model {tmp_path / "model"}'
            in capsys.readouterr().out)
    bundle = load_bundle(tmp_path / 'model')
    recogniser = Recogniser(bundle.network, bundle.vocabulary, bundle.spec)
    newest = max((folder / 'cache' / 'bags').glob('tuesday_*/'), key=lambda p: p.stat().st_mtime)
    clips = WindowClips(ExtractedRecording(newest, ()), 5)
    assert len(clips) == 2
    for row in range(2):
        clip = clips[row].clip
        assert clip.modalities == PAPER_MODALITIES
        for subset, logits in zip(subsets(PAPER_MODALITIES), scored):
            expected = softmax(logits['action'][row])
            own = recogniser.recognise(clip, subset).probabilities['action']
            assert np.allclose(own, expected, atol=2e-3), subset


def test_test_segments_choose_nothing(run, folder, tmp_path):
    for out, other in (('one', CHOP), ('two', WASH)):
        labels = [*segments(*((name, start, classes, 'train') for name in ('monday', 'tuesday')
                              for start, classes in ((0, CHOP), (2, WASH), (4, NOTHING)))),
                  *segments(('monday', 6, other, 'test'))]
        assert run(labels, out=out) == 0
    one, two = (load_bundle(tmp_path / out).network.state_dict() for out in ('one', 'two'))
    assert all(torch.equal(x, two[name]) for name, x in one.items())


def test_features_are_computed_once_and_a_model_is_replaced(run, tmp_path, monkeypatch):
    assert run(FOUR) == 0
    stale = tmp_path / 'model' / 'run' / 'failure_12_0.jpg'
    stale.touch()
    monkeypatch.setattr('karmma_ros.training.fused_features._fuse', None)
    assert run(FOUR, '--seed', '1') == 0
    assert not stale.exists() and (tmp_path / 'model' / 'run' / 'args.yaml').exists()


def test_an_interrupt_keeps_a_model_that_predicts(run, folder, tmp_path, monkeypatch, capsys):
    train = head_training.train_heads

    def interrupted(heads, features, rows, labels, settings, report):
        def stop(step, loss):
            report(step, loss)
            if step == limit and len(rows) >= count:
                raise KeyboardInterrupt
        train(heads, features, rows, labels, settings, stop)
    monkeypatch.setattr(head_choice, 'train_heads', interrupted)
    # Before the heads.
    with monkeypatch.context() as patch:
        patch.setattr(finetune, 'extract', Mock(side_effect=KeyboardInterrupt))
        assert run(FOUR) == 130
    assert 'before the model was written; the same command resumes' in capsys.readouterr().err
    assert not (tmp_path / 'model').exists()
    # In the first fold: the class means of all segments.
    limit, count = 3, 0
    assert run(FOUR) == 130
    assert 'stopped: the model has nearest class mean' in capsys.readouterr().out
    means = load_bundle(tmp_path / 'model')
    assert means.metrics['method'] == 'nearest class mean'
    # In the last training.
    monkeypatch.setattr(head_choice, '_KEEP_FROM', 10)
    monkeypatch.setattr(head_choice, 'average_hits', lambda table: 1.0)  # a draw: trained heads
    monkeypatch.setattr(head_choice, 'action_hits', lambda table: np.ones(1))
    limit, count = 15, len(FOUR)
    assert run(FOUR) == 130
    assert 'stopped: the model has trained heads' in capsys.readouterr().out
    assert load_bundle(tmp_path / 'model').metrics['method'] == 'trained heads'


def test_nearest_class_means_are_an_ordinary_linear_head(
        run, folder, tmp_path, monkeypatch):
    scores = iter([0.0, 1.0])
    monkeypatch.setattr(head_choice, 'average_hits', lambda table: next(scores))
    assert run(FOUR) == 0
    tuned = load_bundle(tmp_path / 'model')
    assert tuned.metrics['method'] == 'nearest class mean'
    assert type(tuned.network.heads.classifiers['action']) is torch.nn.Linear
    assert tuned.config.pooling == 'concatenated'  # of four sensors and [CLS]
    assert tuned.network.heads.classifiers['action'].in_features == 5 * tuned.config.dim


def test_classes_are_renamed_and_groups_divide(run, tmp_path, capsys):
    (tmp_path / 'map.csv').write_text('label,action\nChop,cut\nwash,\n')
    text = 'recording,start,stop,action,person\n' + ''.join(
        f'{name},{start},{start + 1.5},{action},{person}\n' for name, person in (
            ('monday', 'Ann'), ('tuesday', 'Ben'))
        for start, action in ((0, 'Chop'), (2, 'cut'), (4, 'nothing'), (6, 'wash')))
    assert run(text, '--classes-map', tmp_path / 'map.csv', '--split-by', 'person') == 0
    printed = capsys.readouterr().out
    assert '2 labels are dropped by the map of classes' in printed
    assert 'by leaving one person out' in printed
    used = tmp_path / 'model' / 'run' / 'labels.csv'  # has the classes of the model
    assert f'--ground-truth {used} ' in printed
    assert {x.text for x in read_label_file(used).labels} == {'cut', 'nothing'}
    assert load_bundle(tmp_path / 'model').vocabulary.heads == {'action': ('cut', 'nothing')}
    assert run(text, '--split-by', 'place') == 2
    assert "--split-by is 'place'; expected recording, person" in capsys.readouterr().err


def test_what_makes_scores_misleading_is_reported(run, capsys):
    rows = [('monday', 0, {'action': 'Chop'}, ''), ('monday', 1, {'action': 'chop'}, ''),
            ('monday', 4, {'action': 'wash'}, ''), ('monday', 6, {'action': 'wash'}, '')]
    labels = segments(*rows)
    labels[-1] = replace(labels[-1], stop_s=6.2)
    assert run(labels) == 0
    printed = capsys.readouterr().out
    for line in ('All labels are of one recording: scores will be too good',
                 'the model will name an action in an empty kitchen',
                 'The action names are nearly the same: Chop and chop',
                 '1 segment is shorter than a quarter of the window of 2 s, the shortest 0.20 s',
                 '1 segment overlaps the one before them, such as Chop and chop of monday at 1 s',
                 'near chance', 'this base does not carry your recordings',
                 'without labels, and not used: tuesday'):
        assert line in printed, line


ONE = segments(('monday', 0, CHOP, ''), ('monday', 3, CHOP, ''))
TWO = segments(('monday', 0, CHOP, 'train'), ('monday', 3, WASH, 'train'))


def test_a_number_of_windows_that_cannot_be_is_refused_by_its_option(run, capsys):
    assert run(FOUR, '--windows', '0') == 2
    assert '--windows is 0; expected a number from 1 to 100' in capsys.readouterr().err


@pytest.mark.parametrize(('labels', 'complaint'), [
    (ONE, "all labels for training have the action 'chop'; expected two classes or more"),
    ([*TWO, replace(TWO[0], split='test')],
     'chop of monday at 0 s is in the splits train and test: leave it in one'),
    ([replace(x, split='test') for x in TWO], 'no label is for training'),
    ('recording,start,stop,action\n', 'no label is left: label actions with `karmma label`'),
    ([*TWO, *segments(('friday', 0, CHOP, 'train'))], "recording 'friday' is none of the bags"),
    ([*TWO, *segments(('monday', 70, CHOP, 'train'))],
     'chop of monday starts at 70 s; expected a start within the bag of'),
    ([*TWO, *segments(('monday', 6, CHOP, 'practice'))], "a split is 'practice'; expected train"),
    ('recording,start,stop,action\nmonday,3,1,cut\n', 'no label is dropped in silence'),
])
def test_labels_that_cannot_be_trained_on_are_refused(run, labels, complaint, capsys):
    assert run(labels) == 2
    assert complaint in capsys.readouterr().err


def test_labels_of_recordings_that_are_held_back_are_noted(run, capsys):
    assert run([*FOUR, *segments(('friday', 0, CHOP, 'test'), ('friday', 3, CHOP, ''))]) == 0
    assert ('note: 2 labels are of recordings that are none of the bags, and not used: friday'
            in capsys.readouterr().out)


def test_labels_of_one_recording_in_two_splits_and_twice_are_reported(run, capsys):
    rows = [('monday', 0, CHOP, 'train'), ('monday', 3, WASH, 'train'),
            ('monday', 3, WASH, 'train'), ('tuesday', 0, CHOP, 'train'),
            ('tuesday', 3, WASH, 'test')]
    assert run(segments(*rows)) == 0
    printed = capsys.readouterr().out
    assert 'Segments of one recording are in several splits: tuesday. Scores will be' in printed
    assert '1 label is in the file more than once, such as wash of monday at 3 s' in printed


def test_bases_that_cannot_be_used_are_refused(run, folder, tmp_path, capsys):
    save(folder / 'means', ensemble(preset('tiny')))
    save(folder / 'untrained', preset('tiny'), {'untrained': 'the fusion: two models'})
    for base, complaint in (
            ('means', 'below its heads; add --unfreeze fusion'),
            ('untrained', 'the fusion: two models; add --unfreeze fusion')):
        assert run(FOUR, base=base) == 2
        assert complaint in capsys.readouterr().err
    config = only(preset('tiny'), ['imu'])
    spec = replace(SPEC, inputs={'imu': modality_type(Modality('imu')).spec(SPEC)})
    save_bundle(folder / 'imu', build(config, spec, vocabulary()), config, spec, vocabulary(),
                dataset='', card='')
    assert run(FOUR, base='imu') == 2
    assert 'it has no topic of a type that the model takes' in capsys.readouterr().err
    (tmp_path / 'notes').mkdir()
    (tmp_path / 'notes' / 'thesis.txt').touch()
    assert run(FOUR, out='notes') == 2
    assert 'expected a new directory, or that of a model' in capsys.readouterr().err


def test_paths_and_epochs_are_checked_before_anything_is_computed(
    run, tmp_path, monkeypatch, capsys
):
    assert run(FOUR, '--unfreeze', 'fusion', '--epochs', 0) == 2
    assert '--epochs is 0; expected a number above 0' in capsys.readouterr().err
    (tmp_path / 'thesis.txt').touch()
    assert run(FOUR, out='thesis.txt/model') == 2
    assert 'expected a path in a folder: ' in capsys.readouterr().err
    assert run(FOUR, '--cache', tmp_path / 'thesis.txt') == 2
    assert 'thesis.txt/bags: Not a directory: name another path' in capsys.readouterr().err
    monkeypatch.setattr('os.access', lambda path, mode: False)
    assert run(FOUR, out='new/model') == 2
    printed = capsys.readouterr()
    assert f'{tmp_path} is read-only for this user' in printed.err and not printed.out


def test_a_full_disk_leaves_the_earlier_model(run, tmp_path, monkeypatch, capsys):
    assert run(FOUR) == 0
    before = (tmp_path / 'model' / 'model.safetensors').read_bytes()

    real = os.replace

    def replace_file(source, target):
        if target.name == 'model.safetensors':
            raise OSError(errno.ENOSPC, 'No space left on device')
        real(source, target)

    with monkeypatch.context() as patch:
        patch.setattr('karmma_ros.storage.os.replace', replace_file)
        assert run(FOUR, '--seed', 3) == 2
    assert 'No space left on device: free some space' in capsys.readouterr().err
    assert (tmp_path / 'model' / 'model.safetensors').read_bytes() == before
    (tmp_path / 'model' / 'config.json').unlink()  # as of a disk that was full after the weights
    assert run(FOUR) == 0


def test_sensors_that_no_recording_has_are_left_out(run, folder, tmp_path, capsys):
    assert run(FOUR, '--topics', 'detections=none', 'audio=none') == 0
    assert 'no recording has audio, detections: the model is without' in capsys.readouterr().out
    tuned = load_bundle(tmp_path / 'model')
    assert tuned.network.modalities == (Modality.RGB, Modality.FLOW)
    old = load_bundle(folder / 'base').network.state_dict()
    for name, weights in tuned.network.state_dict().items():
        if not name.startswith('heads.'):
            assert torch.equal(weights, old[name]), name


def test_classes_are_added_and_the_old_ones_stay(run, folder, tmp_path, capsys):
    assert run(FOUR, out='old') == 0
    new = segments(*((name, start, {'action': 'wipe'}, '') for name in ('monday', 'tuesday')
                     for start in (1, 5)))
    capsys.readouterr()
    assert run(new, '--add-classes', base=tmp_path / 'old') == 0
    printed = capsys.readouterr().out
    for line in ('of draws from their stored means', 'with the new classes',
                 'Segments with added classes, with every sensor they have: ',
                 'the sensors that each has, validated by leaving one recording out'):
        assert line in printed, line
    old, tuned = load_bundle(tmp_path / 'old'), load_bundle(tmp_path / 'model')
    assert tuned.vocabulary == Vocabulary(
        {'action': ('chop', 'nothing', 'wash', 'wipe')}, background='nothing')
    assert tuned.dataset == 'labels, with classes added from labels'
    weights = tuned.network.state_dict()
    for name, x in old.network.state_dict().items():
        own = weights[name]
        assert torch.equal(x, own[:3] if 'classifiers' in name else own), name
    statistics = load_statistics(tuned)
    assert statistics.means['action'].shape == (15, 4, 640)
    assert torch.equal(statistics.means['action'][:, :3], load_statistics(old).means['action'])
    assert (statistics.counts['action'][:, 3] == 4).all()
    # Once more, with one class on top of four.
    assert run(segments(('monday', 3, {'action': 'pour'}, ''), ('tuesday', 3, CHOP, '')),
               '--add-classes', base=tmp_path / 'model', out='more') == 0
    assert load_bundle(tmp_path / 'more').vocabulary.sizes == {'action': 5}
    for labels, complaint in (
            (FOUR, 'the model has all classes of its training labels: label new ones'),
            (segments(('monday', 0, {'verb': 'wipe'}, '')),
             'its labels are of verb; the model has the heads action: rename the columns')):
        assert run(labels, '--add-classes', base=tmp_path / 'old') == 2
        assert complaint in capsys.readouterr().err


def test_a_base_without_means_of_its_classes_is_refused(run, folder, tmp_path, capsys):
    assert run(FOUR, '--add-classes') == 2
    complaint = capsys.readouterr().err
    assert 'it has no class_statistics.safetensors, which the old classes are drawn' in complaint
    assert 'compute them from its validation clips with `karmma calibrate`' in complaint
    assert run(FOUR, out='old') == 0
    (tmp_path / 'old' / 'class_statistics.safetensors').write_bytes(b'no')
    assert run(FOUR, '--add-classes', base=tmp_path / 'old') == 2
    assert 'class_statistics.safetensors: cannot be read' in capsys.readouterr().err
    assert run(FOUR, '--seed', '5', out='other') == 0
    shutil.copy(tmp_path / 'other' / 'class_statistics.safetensors', tmp_path / 'old')
    assert run(FOUR, '--add-classes', base=tmp_path / 'old') == 2
    assert 'is of other weights' in capsys.readouterr().err


@pytest.mark.parametrize('sensor', ['rgb', 'audio'])
def test_recordings_of_one_sensor_train_and_are_scored(run, folder, tmp_path, capsys, sensor):
    save(folder / sensor, only(preset('tiny'), [sensor]))
    assert run(FOUR, base=sensor) == 0
    printed = capsys.readouterr().out
    others = {'rgb': '/image', 'audio': '/audio', 'detections': '/detections'}
    for name, topic in others.items():
        assert (f'{name} ({topic})' in printed) == (name != sensor), printed
    tuned = load_bundle(tmp_path / 'model')
    assert tuned.network.modalities == (Modality(sensor),)
    letter = Modality(sensor).letter
    assert f'| {letter} | 8 |' in (tmp_path / 'model' / 'run' / 'README.md').read_text()
    assert 'no clip' not in printed


def test_audio_files_are_recordings_and_one_far_shorter_than_a_window_is_named(
        run, folder, tmp_path, capsys):
    save(folder / 'audio', only(preset('tiny'), ['audio']))
    rng, bags = np.random.default_rng(0), tmp_path / 'bags'
    bags.mkdir()
    for name, seconds in (('monday', 8), ('tuesday', 8), ('spoon', 0.5)):
        soundfile.write(bags / f'{name}.wav', 0.1 * rng.normal(size=int(16_000 * seconds)), 16_000)
    stir = ActionLabel('spoon', 0.0, 0.5, {'action': 'stir'})
    assert run([FOUR[0], stir], base='audio', bags=bags) == 2
    problem = 'training segments with a clip have the action chop; expected two classes or more: '
    assert problem in capsys.readouterr().err
    labels = [*FOUR, stir]
    assert run(labels, base='audio', bags=bags) == 0
    printed = capsys.readouterr().out
    for line in ('no training segment has a clip of the action stir: it is never predicted',
                 '1 segment has no clip, such as stir of spoon at 0 s: the sensors were silent, '
                 'or cover too little of a window of 2 s, as in a shorter recording',
                 f'karmma.launch.py model:={tmp_path / "model"} audio:=/audio\n'):
        assert line in printed, line
    (tmp_path / 'node.yaml').write_text(
        'karmma: {ros__parameters: {audio.min_coverage: 0.1}}')
    assert run(labels, '--parameters', tmp_path / 'node.yaml', base='audio', bags=bags) == 0
    printed = capsys.readouterr().out
    assert 'no clip' not in printed and f' params_file:={tmp_path / "node.yaml"} ' in printed
    assert f' --params {tmp_path / "node.yaml"} ' in printed


def test_what_the_inputs_reject_is_named_where_no_clips_are_left(run, folder, tmp_path, capsys):
    save(folder / 'audio', only(preset('tiny'), ['audio']))
    rng, bags = np.random.default_rng(0), tmp_path / 'bags'
    for name in ('monday', 'tuesday'):
        with BagWriter(bags / f'{name}.mcap') as bag:  # 44.1 kHz, which the bag does not state
            for i in range(80):
                now_ns = 1_735_689_600_000_000_000 + i * 100_000_000
                bag.audio(now_ns, rng.uniform(-0.1, 0.1, 4410).astype(np.float32),
                          now_ns + 100_000_000)
    rate = 'audio comes at about 44100 samples per second, expected 16000: set audio.sample_rate'
    assert run(FOUR[1:3], base='audio', bags=bags) == 2
    problem = capsys.readouterr().err
    assert 'no segment has a clip: the sensors were silent, or cover too little of a' in problem
    assert f'monday.mcap: {rate}' in problem


def changed(folder, tmp_path, out='model'):
    """Return which parts of the network are others than those of the base."""
    old = load_bundle(folder / 'base').network.state_dict()
    new = load_bundle(tmp_path / out).network.state_dict()
    return {name.split('.')[0] for name, x in new.items()
            if not name.startswith('heads.') and not torch.equal(x, old[name])}


def test_the_fusion_block_or_all_weights_are_trained_on_demand(run, folder, tmp_path, capsys):
    assert run(FOUR, '--unfreeze', 'fusion', '--epochs', '2') == 0
    assert changed(folder, tmp_path) == {'embeddings', 'fusion'}
    printed = capsys.readouterr().out
    assert 'heads and fusion block trained: action accuracy' in printed
    assert '% on 8 validation segments' in printed  # each recording was left out once
    assert 'with frozen encoders and fusion block' in printed
    tuned = load_bundle(tmp_path / 'model')
    assert not tuned.config.freeze_encoders and not tuned.network.freeze_encoders
    assert 'Heads and fusion block trained, starting from base@' in (
        tmp_path / 'model' / 'README.md').read_text()
    # The model just made teaches one of which all weights are trained.
    assert run(FOUR, '--unfreeze', 'all', '--epochs', '1', '--teacher', tmp_path / 'model',
               out='student') == 0
    assert changed(folder, tmp_path, 'student') == {'encoders', 'embeddings', 'fusion'}
    assert run(FOUR, '--unfreeze', 'all', '--teacher', folder / 'base') == 2
    assert 'expected one of the very classes of the student' in capsys.readouterr().err
    for options, complaint in (
            (['--teacher', 'x'], "--teacher is 'x'; expected a model with --unfreeze"),
            (['--unfreeze', 'all', '--add-classes'], "--unfreeze is 'all'; expected none")):
        assert run(FOUR, *options) == 2
        assert complaint in capsys.readouterr().err


def test_a_fusion_block_is_trained_over_a_base_that_has_none(run, folder, tmp_path):
    """As of imported models, which have a classifier for each sensor."""
    save(folder / 'classifiers', ensemble(preset('tiny')))
    assert run(FOUR, '--unfreeze', 'fusion', '--epochs', '1', base='classifiers') == 0
    tuned = load_bundle(tmp_path / 'model')
    assert tuned.config.fusion != 'logit_mean' and 'untrained' not in tuned.source
    old = load_bundle(folder / 'classifiers').network.state_dict()
    encoders = {name: x for name, x in tuned.network.state_dict().items()
                if name.startswith('encoders.')}
    assert encoders and all(torch.equal(x, old[name]) for name, x in encoders.items())


def test_frozen_encoders_are_computed_by_openvino(run, folder, tmp_path, capsys):
    for options in ((), ('--backend', 'openvino')):
        assert run(FOUR, *options, out=f'by_{len(options)}') == 0
    eager, other = (load_bundle(tmp_path / f'by_{n}').network.state_dict() for n in (0, 2))
    heads = [name for name in eager if 'classifiers' in name]
    assert any(not torch.equal(eager[name], other[name]) for name in heads)  # others computed it
    for name in heads:
        assert torch.allclose(eager[name], other[name], atol=0.1), name
    capsys.readouterr()
    assert run(FOUR, '--backend', 'openvino', '--unfreeze', 'fusion', '--epochs', '1') == 0
    assert changed(folder, tmp_path) == {'embeddings', 'fusion'}


def test_an_added_skeleton_has_the_joints_of_the_recordings_or_they_are_named(
        run, folder, tmp_path, capsys):
    save(folder / 'audio', only(preset('tiny'), ['audio']))
    rng, bags = np.random.default_rng(0), tmp_path / 'bags'
    for name in ('monday', 'tuesday'):
        with BagWriter(bags / f'{name}.mcap') as bag:
            for i in range(160):
                now_ns = 1_735_689_600_000_000_000 + i * 50_000_000
                bag.audio(now_ns, rng.uniform(-0.1, 0.1, 800).astype(np.float32),
                          now_ns + 50_000_000)
                bag.skeleton(now_ns, rng.normal(size=(5, 3)))
    words = ['--unfreeze', 'all', '--epochs', '1', '--add-modalities']
    for text, complaint in (
            ('skeleton', "--add-modalities is 'skeleton'; expected a sensor of the recordings: "
             '/skeleton of monday: skeleton: got 5 joints; expected 18'),
            ('imu', 'monday.mcap: it has no topic'),
            ('skeleton={joints: 1}', 'expected an integer from 2 to'),
            ('skeleton={legs: 2}', 'legs'),
            ('skeleton=5', 'expected a modality, or with its settings as')):
        assert run(FOUR, *words, text, base='audio', bags=bags) == 2
        assert complaint in capsys.readouterr().err
    assert run(FOUR, *words, 'skeleton={joints: 5, dimensions: 3}', base='audio', bags=bags) == 0
    tuned = load_bundle(tmp_path / 'model')
    assert tuned.network.modalities == (Modality.AUDIO, Modality('skeleton'))
    assert tuned.spec.of(Modality('skeleton')).joints == 5


def test_a_sensor_that_the_base_lacks_is_added_from_nothing(run, folder, tmp_path, capsys):
    save(folder / 'audio', only(preset('tiny'), ['audio']))
    assert run(FOUR, '--add-modalities', 'rgb', base='audio') == 2
    assert "--add-modalities is 'rgb'; expected none without" in capsys.readouterr().err
    assert run(FOUR, '--add-modalities', 'audio', '--unfreeze', 'all', base='audio') == 2
    assert "is 'audio'; expected one that the model lacks" in capsys.readouterr().err
    assert run(FOUR, '--add-modalities', 'rgb', '--unfreeze', 'all', '--epochs', '1',
               base='audio') == 0
    tuned = load_bundle(tmp_path / 'model')
    assert tuned.network.modalities == (Modality.RGB, Modality.AUDIO)
    assert '| V+A |' in (tmp_path / 'model' / 'README.md').read_text()
