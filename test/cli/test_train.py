"""The stages of training, from the shipped configurations to model directories, in small."""

from dataclasses import replace
import json
import os
from pathlib import Path
import signal

from karmma_ros.cli.main import main
from karmma_ros.data.datasets import DataSettings, open_splits
from karmma_ros.data.synthetic_kitchen.dataset import KitchenSettings
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.data.synthetic_kitchen.vocabulary import Domain, vocabulary
from karmma_ros.evaluation import temperature_scaling
from karmma_ros.modality import Modality, PAPER_MODALITIES, subset_name, subsets
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import preset, unimodal
from karmma_ros.prediction import Vocabulary
from karmma_ros.training.module import RecognitionModule
import numpy as np
import pytest
import torch

CONFIGS = Path(__file__).parents[2] / 'config' / 'train'
SMALL = [*(f'--data.synthetic_kitchen.{split}={count}'
           for split, count in (('train', 8), ('validation', 4), ('test', 4))),
         '--run.epochs', '1', '--run.batch_size', '4', '--run.progress', 'false']


GARAGE = ('--data.synthetic_kitchen.domain', 'garage')


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
    """Return the folder in which all of these tests render their clips."""
    return tmp_path_factory.mktemp('clips')


def run(stage, out, cache, *more):
    return main([
        'train', stage, '--config', str(CONFIGS / f'synthetic_kitchen_{stage}.yaml'), *SMALL,
        '--weights', '{}', '--out', str(out), '--run-dir', f'{out}_work', '--cache', str(cache),
        *map(str, more)])


@pytest.fixture(scope='module')
def teacher(tmp_path_factory, cache):
    """Return an encoder pretrained on the other domain and a teacher that was built on it."""
    folder = tmp_path_factory.mktemp('teacher')
    assert run('pretrain', folder / 'rgb', cache, '--modality', 'rgb',
               '--preset', 'tiny_teacher', *GARAGE) == 0
    assert run('teacher', folder / 'teacher', cache, '--weights.rgb', folder / 'rgb',
               '--allow_mismatched_weights', 'true') == 0
    return folder


def test_a_pretrained_encoder_is_the_teachers_own_and_stays_frozen(teacher):
    alone, distilled = (
        load_bundle(teacher / 'rgb').network,
        load_bundle(teacher / 'teacher').network,
    )
    assert alone.modalities == (Modality.RGB,)
    assert distilled.modalities == PAPER_MODALITIES and distilled.freeze_encoders
    classes = [load_bundle(teacher / name).vocabulary for name in ('rgb', 'teacher')]
    assert classes == [vocabulary(Domain.GARAGE, idle=True), vocabulary(idle=True)]
    for name, weights in alone.encoders['rgb'].state_dict().items():
        assert torch.equal(weights, distilled.encoders['rgb'].state_dict()[name]), name


def test_an_encoder_of_the_other_domain_starts_a_student(cache, tmp_path, capsys):
    assert run('pretrain', tmp_path / 'flow', cache, '--modality', 'flow', *GARAGE) == 0
    assert run('student', tmp_path / 'out', cache, '--weights.flow', tmp_path / 'flow') == 0
    assert 'flow: ' in capsys.readouterr().out
    assert load_bundle(tmp_path / 'out').vocabulary == vocabulary(idle=True)


def test_a_student_starts_from_a_model_directory_and_keeps_its_licence(cache, tmp_path):
    torch.manual_seed(0)
    parts = []
    for modality in (Modality.RGB, Modality.AUDIO):
        config, spec = unimodal(preset('tiny'), modality), clip_spec()
        classes = Vocabulary({'action': ('cut', 'stir')})
        save_bundle(tmp_path / modality, build(config, spec, classes), config, spec, classes,
                    dataset='videos', card='', source={
                        'licence': 'CC BY-NC 4.0', 'commercial_use': False})
        parts.append(f'{modality}={tmp_path / modality}')
    assert main(['model', 'join', *parts, '--out', str(tmp_path / 'joined')]) == 0
    assert run('student', tmp_path / 'out', cache, '--base', tmp_path / 'joined') == 0
    bundle = load_bundle(tmp_path / 'out')
    assert bundle.network.modalities == (Modality.RGB, Modality.AUDIO)
    assert bundle.vocabulary == vocabulary(idle=True) and bundle.config.fusion == 'logit_mean'
    assert bundle.licence == 'CC BY-NC 4.0' and not bundle.commercial_use
    assert 'CC BY-NC 4.0: no commercial use' in bundle.dataset
    card = (tmp_path / 'out/README.md').read_text()
    assert 'license: other' in card and 'CC BY-NC 4.0: no commercial use.' in card


def test_the_teacher_was_trained_on_tokens_that_are_kept(teacher):
    kept = teacher / 'teacher_work' / 'tokens' / 'train'
    assert {p.stem for p in kept.glob('*.npy')} >= {'rgb', 'flow', 'audio', 'detections'}


@pytest.mark.parametrize('cached', ['true', 'false'])
def test_a_student_is_distilled_and_gets_its_card(
        teacher, cache, tmp_path, capsys, monkeypatch, cached):
    out, calibrated = tmp_path / 'kitchen', cached == 'true'
    if calibrated:
        monkeypatch.setattr(temperature_scaling, 'MIN_CLIPS', 4)
    assert run('student', out, cache, '--teacher', teacher / 'teacher',
               '--cache-teacher', cached) == 0
    assert (tmp_path / 'kitchen_work' / 'logits').is_dir() == (cached == 'true')
    bundle = load_bundle(out)
    assert bundle.config.preset == 'tiny'
    assert bundle.vocabulary == vocabulary(idle=True)
    names = [subset_name(s) for s in subsets(PAPER_MODALITIES)]
    assert list(bundle.metrics['test_top1']) == names
    card = (out / 'README.md').read_text()
    assert all(f'| {name} |' in card for name in names)
    assert '--run.epochs 1' in card  # the command that was really given
    assert f'wrote {out}' in capsys.readouterr().out
    assert bool(bundle.calibration) == calibrated
    assert ('fitted on 4 validation clips of Synthetic Kitchen' in card) == calibrated
    assert ('not calibrated: validation clips is 4; expected at least 50' in card) != calibrated


@pytest.fixture(scope='module')
def folds(tmp_path_factory):
    """Return a manifest of two persons, and a model that was trained without each."""
    folder = tmp_path_factory.mktemp('folds')
    times = np.arange(60) / 50
    lines = ['split,fold,start,stop,action,imu']
    for i, (fold, split) in enumerate((('anna', 'train'), ('ben', 'train'), ('', 'test')) * 2):
        values = np.random.default_rng(i).normal(size=(60, 6))
        rows = [','.join(map(str, row)) for row in np.column_stack([times, values])]
        (folder / f'{i}.csv').write_text('\n'.join(['time,ax,ay,az,wx,wy,wz', *rows]))
        lines.append(f'{split},{fold},0,1,{"wave" if i < 3 else "nod"},{i}.csv')
    (folder / 'segments.csv').write_text('\n'.join(lines))
    for held_out, trained_on in (('ben', 'anna'), ('anna', 'ben')):
        assert run_folds(folder, f'of_{trained_on}', '--data.manifest.held_out_fold',
                         held_out) == 0
    return folder


def run_folds(folder, name, *more):
    return main([
        'train', 'student', '--config', str(CONFIGS / 'utd_mhad_student.yaml'),
        '--modalities', '[imu]', '--data.manifest.file', str(folder / 'segments.csv'),
        '--run.epochs', '1', '--run.batch_size', '2', '--run.progress', 'false',
        '--out', str(folder / name), '--run-dir', str(folder / f'{name}_work'), *more])


def test_a_student_is_distilled_from_teachers_that_have_not_seen_its_clips(folds):
    teachers = ['--fold-teachers.anna', str(folds / 'of_ben'),
                '--fold_teachers.ben', str(folds / 'of_anna')]
    assert run_folds(folds, 'student', *teachers) == 0
    kept = [np.load(folds / 'student_work' / f'logits_{i}' / 'logits.npy') for i in range(2)]
    assert kept[0].shape == kept[1].shape == (4, 1, 2) and not np.allclose(*kept)


@pytest.mark.parametrize(('more', 'text'), [
    (['--fold_teachers.anna', 'of_ben'], 'expected the folds of the training clips, anna, ben'),
    (['--fold_teachers', '{anna: of_ben, ben: of_anna}', '--teacher', 'of_ben'],
     'expected none beside fold_teachers'),
    (['--fold_teachers', '{anna: of_ben, ben: of_anna}', '--cache-teacher', 'false'],
     'expected true beside fold_teachers'),
])
def test_wrong_folds_are_named(folds, capsys, more, text):
    assert run_folds(folds, 'refused', *more) == 2
    assert text in capsys.readouterr().err


def test_an_interrupt_is_reported_and_the_same_command_resumes(
    cache, tmp_path, capsys, monkeypatch
):
    step = RecognitionModule.training_step

    def pressed(module, batch, index):
        os.kill(os.getpid(), signal.SIGINT)
        return step(module, batch, index)

    monkeypatch.setattr(RecognitionModule, 'training_step', pressed)
    assert run('pretrain', tmp_path / 'flow', cache, '--modality', 'flow') == 130
    assert 'stopped after step 1; the same command resumes from' in capsys.readouterr().err
    assert not (tmp_path / 'flow').exists()
    monkeypatch.undo()
    assert run('pretrain', tmp_path / 'flow', cache, '--modality', 'flow') == 0
    assert load_bundle(tmp_path / 'flow').network.modalities == (Modality.FLOW,)


@pytest.mark.parametrize(
    ('stage', 'wrong', 'text'),
    [
        ('student', ['--run.optimizer.learning_rate', '-1'], 'learning_rate is -1'),
        ('student', ['--run.epochs', '0'], 'epochs is 0'),
        ('student', ['--preset', 'vast'], "preset is 'vast'"),
        ('student', ['--teacher', 'nowhere'], 'no such directory'),
        ('student', ['--fold_teachers.anna', 'nowhere'], 'expected a data set that names folds'),
        ('student', ['--data.dataset', 'kinetics'], "dataset is 'kinetics'"),
        ('student', ['--data.synthetic_kitchen.train', '0'], 'train is 0'),
        ('pretrain', ['--data.synthetic_kitchen.domain', 'barn'],
         "synthetic_kitchen.domain is 'barn'; expected kitchen, garage"),
        ('student', ['--weights.rgb', 'NOWHERE_V1'], "weights is 'NOWHERE_V1'"),
        ('pretrain', ['--modality', 'smell'], "modality is 'smell'"),
        ('teacher', ['--weights.touch', 'x'], "modality is 'touch'"),
        ('teacher', [], "weights.rgb is ''; expected weights of r2plus1d that leave no tensor of"),
        (
            'teacher',
            ['--cache-features', 'false'],
            'tensors would be: position (from scratch), stem.0',
        ),
        ('teacher', ['--preset', 'tiny'], 'no tensor of the frozen encoder at random'),
        ('teacher', ['--data.dataset', 'epic_kitchens'], 'epic_kitchens'),
        ('teacher', ['--data.dataset', 'manifest'], 'there is no manifest'),
    ],
)
def test_wrong_settings_are_named(cache, tmp_path, capsys, stage, wrong, text):
    try:
        assert run(stage, tmp_path / 'out', cache, *wrong) == 2
    except SystemExit as stop:  # the argument parser itself has refused
        assert stop.code == 2
    printed = capsys.readouterr().err
    assert text in printed and 'Traceback' not in printed


def test_a_run_of_other_clips_is_not_resumed(teacher, capsys, cache):
    assert run('pretrain', teacher / 'rgb', cache, '--modality', 'rgb', '--preset',
               'tiny_teacher', *GARAGE, '--data.synthetic_kitchen.train=12') == 2
    assert 'training clips differs' in capsys.readouterr().err
    assert run('pretrain', teacher / 'rgb', cache, '--modality', 'rgb', '--preset', 'tiny',
               *GARAGE) == 2
    assert 'initial weights differs' in capsys.readouterr().err


def test_weights_that_do_not_exist_are_refused_before_the_data_is_opened(tmp_path, capsys):
    clips = tmp_path / 'clips'
    assert run('student', tmp_path / 'out', clips, '--weights.rgb', tmp_path / 'nowhere') == 2
    error = capsys.readouterr().err
    assert f"weights is '{tmp_path / 'nowhere'}'; expected a model directory that exists" in error
    assert 'karmma train pretrain trains them' in error
    assert not clips.exists()


def test_an_encoder_of_another_size_is_refused(teacher, cache, tmp_path, capsys):
    assert run('student', tmp_path / 'out', cache, '--weights.rgb', teacher / 'rgb') == 2
    printed = capsys.readouterr().err
    assert 'at most 10% of the tensors at random' in printed
    assert 'stem.0.weight ([24, 3, 1, 5, 5] in the file, [16, 3, 1, 5, 5] here)' in printed


def test_a_teacher_that_lacks_sensors_is_refused(teacher, cache, tmp_path, capsys):
    other = teacher / 'rgb'  # it takes the camera alone
    assert run('student', tmp_path / 'out', cache, '--teacher', other) == 2
    assert 'one that takes V+F+A+D or more' in capsys.readouterr().err


def test_a_causal_student_with_cheaper_flow_learns_from_a_teacher_of_the_same_clips(
        teacher, tmp_path):
    spec, cache = clip_spec(), tmp_path / 'clips'  # rendered anew for other flow
    clip = replace(spec, flow=replace(spec.flow, preset='fast', scale=2))
    assert run('student', tmp_path / 'out', cache, '--preset', 'tiny_causal', '--teacher',
               teacher / 'teacher', '--data.clip', json.dumps(clip.to_dict())) == 0
    bundle = load_bundle(tmp_path / 'out')
    assert bundle.spec == clip and bundle.config.encoders[Modality.AUDIO].name == 'causal_mel'
    logits = np.load(next(Path(f'{tmp_path / "out"}_work').rglob('logits.npy')))
    network = load_bundle(teacher / 'teacher').network.eval()
    sample = open_splits(DataSettings(synthetic_kitchen=KitchenSettings(8, 4, 4, 0, idle=0.1)),
                         None, tmp_path / 'again').train[0]
    with torch.inference_mode():  # of the frames as the teacher takes them
        wanted = network({m: torch.from_numpy(x)[None] for m, x in sample.clip.inputs.items()},
                         torch.ones(1, 4, dtype=torch.bool))
    np.testing.assert_allclose(logits[0, 0], torch.cat([*wanted.values()], 1)[0], atol=1e-3)


@pytest.mark.parametrize('encoder', [
    '{"rgb": {"name": "x3d", "options": {"widths": [8, 16], "depths": [1, 2]}}}',
    '{"rgb": {"name": "x3d_continual", "options": {"widths": [8, 16], "depths": [1, 2], '
    '"grid": 1, "delayed": false}}}',
    '{"rgb": {"name": "movinet", "options": {"variant": "a0", "grid": 1}}}',
], ids=['x3d', 'x3d_continual', 'movinet'])
def test_a_published_video_encoder_is_trained(cache, tmp_path, encoder):
    assert run('student', tmp_path / 'out', cache, '--modalities', '[rgb, audio]',
               '--encoders', encoder) == 0
    bundle = load_bundle(tmp_path / 'out')
    assert bundle.config.encoders[Modality.RGB].name in encoder
    assert list(bundle.metrics['test_top1']) == ['V+A', 'V', 'A']


def test_a_preset_of_a_published_video_encoder_is_trained(cache, tmp_path):
    assert run('student', tmp_path / 'out', cache, '--preset', 'tiny_movinet') == 0
    config = load_bundle(tmp_path / 'out').config
    assert [config.encoders[m].name for m in config.modalities][:2] == ['movinet', 'movinet']
