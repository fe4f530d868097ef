"""A run on Lightning: it learns, and a stopped run ends like an unbroken one."""

from dataclasses import replace
import errno
import os
from pathlib import Path
import pickle
import signal
import subprocess
import sys

from karmma_ros.clip import Clip
from karmma_ros.data.samples import Sample
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.classification import top1
from karmma_ros.evaluation.inference import collect
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.presets import only
from karmma_ros.training.checkpoints import CHECKPOINT, CheckpointError, TrainingStopped
from karmma_ros.training.loaders import scoring_loader
from karmma_ros.training.module import OptimizerSettings
from karmma_ros.training.run import _devices, BEST, RunSettings, train
import lightning
import numpy as np
import pytest
import torch


class Killed(Exception):
    """Ends a process."""


class Toy:
    """Clips whose verb is the level of their inputs; half lack the audio, half the flow."""

    def __init__(self, spec, count, break_at=None, watch=lambda served: None):
        self.spec, self.count, self.break_at, self.served = spec, count, break_at, 0
        self.watch = watch

    def __len__(self):
        return self.count

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        verb = index % 2
        clip = {m: rng.random(self.spec.input_shape(m), np.float32) + verb
                for m in (Modality.RGB, Modality.FLOW, Modality.AUDIO)}
        clip.pop((Modality.FLOW, Modality.AUDIO)[index // 2 % 2])
        return Sample(Clip(clip), {'verb': verb, 'noun': index % 4})

    def training_sample(self, index, epoch):
        self.served += 1
        self.watch(self.served)
        if self.served == self.break_at:
            raise Killed
        return self[index]


class Boxes(Toy):
    """Clips of audio and boxes."""

    def __getitem__(self, index):
        rng = np.random.default_rng(index)
        clip = {m: rng.random(self.spec.input_shape(m), np.float32)
                for m in (Modality.AUDIO, Modality.DETECTIONS)}
        boxes = clip[Modality.DETECTIONS]
        boxes[..., :4] = np.sort(boxes[..., :4].reshape(-1, 2, 2), 1).reshape(*boxes.shape[:2], 4)
        boxes[..., 4] = 1 + index % 2
        if index % 3 == 0:
            clip.pop(Modality.AUDIO)
        return Sample(Clip(clip), {'verb': index % 2, 'noun': index % 4})


SETTINGS = RunSettings(epochs=3, batch_size=6, seed=4, progress=False,
                       optimizer=OptimizerSettings(learning_rate=3e-3))


def trained(config, spec, vocabulary, folder, training, settings=SETTINGS):
    torch.manual_seed(0)
    return train(build(config, spec, vocabulary), training, Toy(spec, 6), settings, folder)


def assert_equal(ours, theirs):
    for (name, a), b in zip(ours.state_dict().items(), theirs.state_dict().values()):
        assert torch.equal(a, b), name


@pytest.mark.parametrize('unimodal_weight', [0.0, 1.0])
def test_it_learns_from_samples_that_lack_modalities(
    config, spec, vocabulary, tmp_path, unimodal_weight
):
    settings = replace(SETTINGS, epochs=5, optimizer=OptimizerSettings(
        learning_rate=1e-2, augmentation=0.0, unimodal_weight=unimodal_weight))
    network = trained(config, spec, vocabulary, tmp_path, Toy(spec, 60), settings)
    scores = top1(collect(network, scoring_loader(Toy(spec, 60), network.modalities, 6)))
    assert scores['V']['verb'] > 0.8
    assert not network.training


@pytest.mark.parametrize(('break_at', 'minutes', 'left'), [
    (40, 10.0, 48),   # killed in the second epoch: it begins anew
    (40, 1e-9, 36),   # the same with a checkpoint after every step: six of seven steps are done
])
def test_a_killed_run_ends_like_an_unbroken_one(
    config, spec, vocabulary, tmp_path, break_at, minutes, left
):
    settings = replace(SETTINGS, checkpoint_minutes=minutes)
    unbroken = trained(config, spec, vocabulary, tmp_path / 'unbroken', Toy(spec, 24), settings)
    with pytest.raises(Killed):
        trained(config, spec, vocabulary, tmp_path / 'stopped', Toy(spec, 24, break_at), settings)
    assert (tmp_path / 'stopped' / CHECKPOINT).is_file()
    resumed = Toy(spec, 24)
    again = trained(config, spec, vocabulary, tmp_path / 'stopped', resumed, settings)
    assert resumed.served == left
    assert_equal(unbroken, again)


def test_a_validation_split_without_the_modalities_is_an_error(
    config, spec, vocabulary, tmp_path
):
    network = build(only(config, [Modality.RGB]), spec, vocabulary)
    with pytest.raises(InvalidSettingError, match='6 clips without V.; expected a clip with'):
        train(network, Toy(spec, 12), Boxes(spec, 6), SETTINGS, tmp_path)


def test_another_run_is_not_resumed(config, spec, vocabulary, tmp_path):
    trained(config, spec, vocabulary, tmp_path, Toy(spec, 12), replace(SETTINGS, epochs=1))
    others = replace(SETTINGS, epochs=1, seed=5, workers=1, optimizer=OptimizerSettings())
    with pytest.raises(InvalidSettingError, match='seed differs: there 4, here 5, and so do opt'):
        trained(config, spec, vocabulary, tmp_path, Toy(spec, 12), others)
    with pytest.raises(InvalidSettingError, match='clips differs: there None, here abc'):
        train(build(config, spec, vocabulary), Toy(spec, 12), Toy(spec, 6),
              replace(SETTINGS, epochs=1), tmp_path, facts={'clips': 'abc'})


def test_a_killed_run_on_corrupted_samples_ends_like_an_unbroken_one(
    config, spec, vocabulary, tmp_path
):
    settings = replace(SETTINGS, checkpoint_minutes=1e-9, optimizer=replace(
        SETTINGS.optimizer, corruption=0.5))
    clean = trained(config, spec, vocabulary, tmp_path / 'clean', Toy(spec, 24))
    unbroken = trained(config, spec, vocabulary, tmp_path / 'unbroken', Toy(spec, 24), settings)
    with pytest.raises(Killed):
        trained(config, spec, vocabulary, tmp_path / 'stopped', Toy(spec, 24, 40), settings)
    again = trained(config, spec, vocabulary, tmp_path / 'stopped', Toy(spec, 24), settings)
    assert_equal(unbroken, again)
    with pytest.raises(AssertionError):
        assert_equal(unbroken, clean)


def test_an_interrupted_run_resumes_at_the_step(config, spec, vocabulary, tmp_path):
    def press(served):
        if served == 32:  # in the second step of the second epoch
            os.kill(os.getpid(), signal.SIGINT)

    before = signal.getsignal(signal.SIGINT)
    unbroken = trained(config, spec, vocabulary, tmp_path / 'unbroken', Toy(spec, 24))
    with pytest.raises(TrainingStopped, match='stopped after step 6; the same command resumes'):
        trained(config, spec, vocabulary, tmp_path / 'stopped', Toy(spec, 24, watch=press))
    assert signal.getsignal(signal.SIGINT) is before
    resumed = Toy(spec, 24)
    assert_equal(unbroken, trained(config, spec, vocabulary, tmp_path / 'stopped', resumed))
    assert resumed.served == 36


def test_a_full_disk_is_reported_and_leaves_the_previous_checkpoint(
    config, spec, vocabulary, tmp_path, monkeypatch
):
    settings = replace(SETTINGS, checkpoint_minutes=1e-9)
    save, count = lightning.Trainer.save_checkpoint, [0]

    def full(trainer, path, *rest, **more):
        if str(path).endswith(CHECKPOINT):
            count[0] += 1
            if count[0] == 4:
                raise OSError(errno.ENOSPC, 'No space left on device')
        save(trainer, path, *rest, **more)

    monkeypatch.setattr(lightning.Trainer, 'save_checkpoint', full)
    with pytest.raises(CheckpointError, match='No space left on device.*free some space'):
        trained(config, spec, vocabulary, tmp_path, Toy(spec, 24), settings)
    monkeypatch.undo()
    left = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert left['global_step'] == 3
    trained(config, spec, vocabulary, tmp_path, Toy(spec, 24), settings)


class Bomb:
    """What creates a file when it is unpickled."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return Path.touch, (self.path,)


@pytest.mark.timeout(120)
@pytest.mark.parametrize(('make', 'text'), [
    (lambda p: torch.save({'global_step': 3, 'state_dict': {}, 'x': Bomb(p.with_name('ran'))}, p),
     'something else than tensors and plain values'),
    (lambda p: p.write_bytes(pickle.dumps(Bomb(p.with_name('ran')))),
     'something else than tensors and plain values'),
    (lambda p: torch.save({'state_dict': {}}, p), 'it lacks state_dict or global_step'),
    (lambda p: torch.save([1], p), 'it lacks state_dict or global_step'),
    (lambda p: p.write_bytes(b'PK cut off'), 'a checkpoint of karmma train'),
    (os.mkfifo, 'it is a pipe'),
])
def test_a_foreign_checkpoint_is_refused_and_no_code_in_it_is_run(
    config, spec, vocabulary, tmp_path, make, text
):
    make(tmp_path / CHECKPOINT)
    with pytest.raises(InvalidSettingError, match=text) as caught:
        trained(config, spec, vocabulary, tmp_path, Toy(spec, 24))
    assert 'delete it to train from the beginning' in str(caught.value)
    assert not (tmp_path / 'ran').exists()


def test_another_error_of_the_system_keeps_its_message(config, spec, vocabulary, tmp_path):
    def unplug(served):
        raise OSError(errno.EIO, 'Input/output error')

    with pytest.raises(OSError, match='Input/output error'):
        trained(config, spec, vocabulary, tmp_path, Toy(spec, 24, watch=unplug))


@pytest.mark.parametrize('keep', ['best', 'last'])
def test_the_best_epoch_is_kept_or_the_last(config, spec, vocabulary, tmp_path, keep):
    shown = []

    class Relabelled(Toy):
        """Validation clips whose truth changes after the first epoch."""

        def __getitem__(self, index):
            sample = super().__getitem__(index)
            shown.append(1)
            late = len(shown) > 12
            return replace(sample, labels={'verb': 2, 'noun': 3} if late else sample.labels)

    torch.manual_seed(0)
    settings = replace(
        SETTINGS, epochs=4, keep=keep, optimizer=OptimizerSettings(learning_rate=2e-2))
    network = build(config, spec, vocabulary)
    train(network, Toy(spec, 24), Relabelled(spec, 12), settings, tmp_path)
    best = torch.load(tmp_path / BEST, weights_only=True)
    last = torch.load(tmp_path / CHECKPOINT, weights_only=True)
    assert best['epoch'] == 0 and last['epoch'] == 3
    for name, value in network.state_dict().items():
        assert torch.equal(value, (best if keep == 'best' else last)['state_dict'][
            f'network.{name}'])


def test_logs_for_people_and_for_tensorboard(config, spec, vocabulary, tmp_path):
    trained(config, spec, vocabulary, tmp_path, Toy(spec, 24))
    table = (tmp_path / 'log' / 'version_0' / 'metrics.csv').read_text()
    assert 'val/action' in table.splitlines()[0]
    assert list((tmp_path / 'tensorboard').rglob('events.*'))


def plain(config):
    """Return encoders whose samples do not see each other, as batch norm would have it."""
    options = {'dim': 8, 'heads': 2, 'spatial_layers': 1, 'temporal_layers': 1, 'dropout': 0.0}
    return replace(config, encoders={
        Modality.AUDIO: EncoderConfig('ast', {'dim': 8, 'layers': 1, 'heads': 2}),
        Modality.DETECTIONS: EncoderConfig('stlt', options)})


# Adam blows up the rounding of gradients that ought to be zero; in 64 bits it is below its eps.
EXACT = replace(SETTINGS, precision='64-true')
CORRUPTED = replace(EXACT, optimizer=replace(EXACT.optimizer, corruption=0.5))


@pytest.mark.parametrize('settings', [EXACT, CORRUPTED], ids=['clean', 'corrupted'])
def test_accumulated_batches_add_up_to_a_step(config, spec, vocabulary, tmp_path, settings):
    unbroken = trained(plain(config), spec, vocabulary, tmp_path / '1', Boxes(spec, 24), settings)
    accumulated = trained(plain(config), spec, vocabulary, tmp_path / '3', Boxes(spec, 24),
                          replace(settings, accumulate_batches=3))
    for (name, ours), theirs in zip(
            unbroken.state_dict().items(), accumulated.state_dict().values()):
        torch.testing.assert_close(ours, theirs, rtol=1e-6, atol=1e-7, msg=name)


def test_two_processes_train_as_one_does(config, spec, vocabulary, tmp_path):
    unbroken = trained(plain(config), spec, vocabulary, tmp_path / 'one', Boxes(spec, 24), EXACT)
    script = (
        'import sys, pickle; from test_run import *\n'
        'config, spec, vocabulary, folder = pickle.load(open(sys.argv[1], "rb"))\n'
        'settings = replace(EXACT, devices="2", device="cpu")\n'
        'trained(config, spec, vocabulary, folder, Boxes(spec, 24), settings)\n')
    (tmp_path / 'two.py').write_text(script)
    with (tmp_path / 'setting').open('wb') as file:
        pickle.dump((plain(config), spec, vocabulary, tmp_path / 'two'), file)
    subprocess.run(
        [sys.executable, tmp_path / 'two.py', tmp_path / 'setting'], check=True, timeout=240,
        env={**os.environ, 'PYTHONPATH': f'{Path(__file__).parent}:{Path.cwd()}',
             'OMP_NUM_THREADS': '1'})
    state = torch.load(tmp_path / 'two' / CHECKPOINT, weights_only=True)['state_dict']
    alone = torch.load(tmp_path / 'one' / CHECKPOINT, weights_only=True)['state_dict']
    for name, value in alone.items():
        torch.testing.assert_close(state[name], value, rtol=1e-6, atol=1e-7, msg=name)
    assert len(unbroken.modalities) == 2


def test_a_step_that_cannot_be_divided_is_an_error(config, spec, vocabulary, tmp_path):
    with pytest.raises(InvalidSettingError, match='batch_size is 6; expected a multiple of 4'):
        trained(
            config,
            spec,
            vocabulary,
            tmp_path,
            Toy(spec, 24),
            replace(SETTINGS, accumulate_batches=4),
        )
    with pytest.raises(InvalidSettingError, match='batch_size is 6; expected at most 4'):
        trained(config, spec, vocabulary, tmp_path, Toy(spec, 4))


@pytest.mark.parametrize(
    ('make', 'text'),
    [
        (lambda: RunSettings(epochs=0), 'epochs is 0'),
        (lambda: RunSettings(batch_size=0), 'batch_size is 0'),
        (lambda: RunSettings(checkpoint_minutes=0), 'checkpoint_minutes is 0'),
        (lambda: RunSettings(keep='first'), "keep is 'first'; expected best or last"),
        (
            lambda: OptimizerSettings(modality_dropout=1.5),
            'modality_dropout is 1.5; expected from 0 to 1',
        ),
        (lambda: OptimizerSettings(learning_rate=0.0), 'learning_rate is 0.0'),
    ],
)
def test_settings_out_of_range_are_named(make, text):
    with pytest.raises(InvalidSettingError, match=text):
        make()


@pytest.mark.parametrize(('device', 'devices', 'expected'), [
    ('auto', '1', '1'), ('cuda', '3', '3'), ('cpu', 'auto', 'auto'), ('cuda:2', '1', [2])])
def test_devices_are_counted_or_one_is_named(device, devices, expected):
    assert _devices(RunSettings(device=device, devices=devices)) == expected


def test_one_named_device_is_not_several():
    with pytest.raises(InvalidSettingError, match="run.devices is '2'; expected 1"):
        _devices(RunSettings(device='cuda:1', devices='2'))
