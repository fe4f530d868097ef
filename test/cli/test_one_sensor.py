"""Recordings of one sensor alone: from fine-tuning to a report on how well the model does."""

from dataclasses import replace
import json
import re

from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli.main import main
from karmma_ros.data.labels.label_file import ActionLabel, write_label_file
from karmma_ros.data.synthetic_kitchen.episode import clip_spec, episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split, vocabulary
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.presets import preset
import numpy as np
import pytest
import torch

START_NS, SECOND = 1_735_689_600_000_000_000, 1_000_000_000
SPEC = replace(clip_spec(), num_frames=4, video=replace(clip_spec().video, height=24, width=24))
CLASSES = ('chop', 'nothing', 'wash')


def write_rgb(bag, now_ns, level, rng):
    shown = episode(Split.TEST, 0, level)
    bag.image(now_ns, shown.frame((now_ns - START_NS) / SECOND, 24, 32))


def write_audio(bag, now_ns, level, rng):
    samples = rng.normal(0, 0.02 * 4 ** level, 1600).clip(-1, 1).astype(np.float32)
    bag.audio(now_ns, samples, now_ns + SECOND // 10)


def write_imu(bag, now_ns, level, rng):
    bag.imu(now_ns, rng.normal((0, 0, 9.8), 0.1 + 3 * level), rng.normal(size=3) * (0.2 + level))


SENSORS = {'rgb': (write_rgb, 10), 'audio': (write_audio, 10), 'imu': (write_imu, 50)}
"""Sensor → what writes a sample, and samples a second."""
OWN = {'rgb': {'rgb', 'flow'}, 'audio': {'audio'}, 'imu': {'imu'}}
"""Sensor → modalities of its model: flow is computed from frames."""
MISSING = {'rgb': 'audio, detections', 'audio': 'rgb, flow, detections',
           'imu': 'rgb, flow, audio, detections'}


@pytest.fixture
def recordings(tmp_path):
    """Return a function that writes two bags of a sensor, and their labels; a base without IMU."""
    torch.manual_seed(0)
    config, known = preset('tiny'), vocabulary()
    save_bundle(tmp_path / 'base', build(config, SPEC, known), config, SPEC, known,
                dataset='kitchen', card='')

    def write(sensor):
        rng, (sample, rate) = np.random.default_rng(0), SENSORS[sensor]
        labels = []
        for name in ('monday', 'tuesday'):
            with BagWriter(tmp_path / 'bags' / f'{name}.mcap') as bag:
                for i in range(15 * rate):
                    level = i // (2 * rate + rate // 2) % 3
                    sample(bag, START_NS + i * SECOND // rate, level, rng)
            labels += [ActionLabel(name, 2.5 * n, 2.5 * n + 2.3, {'action': CLASSES[n % 3]})
                       for n in range(6)]
        write_label_file(tmp_path / 'labels.csv', labels)
    return write


@pytest.mark.parametrize('sensor', SENSORS)
def test_recordings_of_one_sensor_alone(recordings, tmp_path, capsys, sensor):
    recordings(sensor)
    words = ['--labels', str(tmp_path / 'labels.csv'), '--from', str(tmp_path / 'base'), '--out',
             str(tmp_path / 'model'), '--cache', str(tmp_path / 'cache')]
    added = ['--unfreeze', 'all', '--epochs', '16', '--add-modalities', 'imu']
    if sensor == 'imu':
        assert main(['finetune', str(tmp_path / 'bags'), *words]) == 2
        assert 'it has no topic' in capsys.readouterr().err
    assert main(['finetune', str(tmp_path / 'bags'), *words,
                 *(added if sensor == 'imu' else [])]) == 0
    printed = capsys.readouterr().out
    assert f'note: no recording has {MISSING[sensor]}: the model is without' in printed
    assert set(load_bundle(tmp_path / 'model').network.modalities) == OWN[sensor]
    assert main(['bag', 'evaluate', str(tmp_path / 'bags' / 'tuesday.mcap'), '--model',
                 str(tmp_path / 'model'), '--ground-truth', str(tmp_path / 'labels.csv'), '--out',
                 str(tmp_path / 'report')]) == 0
    accuracy = re.search(r'as recorded +\d+ +([\d.]+)', capsys.readouterr().out)
    assert float(accuracy[1]) > 60  # of three classes
    report = json.loads((tmp_path / 'report' / 'report.json').read_text())
    assert set(report['model']['sensors']) == OWN[sensor]
