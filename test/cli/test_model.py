"""`karmma model import`, and the model directory it writes in `karmma predict`."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path
from typing import Any

import cv2
from karmma_ros.cli.main import main
from karmma_ros.cli.model import describe
from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.model import imports
from karmma_ros.model.config import EncoderConfig
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports.origin import Origin, PublishedModel, rename
from karmma_ros.model.imports.torchvision_video import classifier_config
from karmma_ros.model.model_zoo import MODEL_ZOO, zoo_entry
from karmma_ros.prediction import Vocabulary
import numpy as np
import pytest
import torch

OPTIONS: dict[str, Any] = {
    'patch_size': [2, 4, 4], 'embed_dim': 8, 'depths': [2], 'num_heads': [1],
    'window_size': [2, 3, 3]}
NAMES = {f'head.{part}': f'embeddings.rgb.project.{part}' for part in ('weight', 'bias')}


@pytest.fixture
def weights(monkeypatch, tmp_path) -> Path:
    """Register the source `small:swin`, whose licence forbids commercial use."""
    prepare_torchvision()
    from torchvision.models.video import SwinTransformer3d

    monkeypatch.setitem(imports.SOURCES, 'small', lambda name, settings: PublishedModel(
        Origin('small:swin', 'https://example.org', 'a data set', 'CC BY-NC 4.0', 'A paper.',
               commercial_use=False),
        classifier_config('small:swin', EncoderConfig('torchvision:SwinTransformer3d', OPTIONS)),
        ClipSpec(0.4, 4, VideoSpec(16, 16, resize=(20,))), Vocabulary({'action': ('cut', 'stir')}),
        lambda weights: rename(
            weights, lambda name: NAMES.get(name, f'encoders.rgb.model.{name}'))))
    path = tmp_path / 'weights.pth'
    torch.save(SwinTransformer3d(**OPTIONS, num_classes=2).state_dict(), path)
    return path


def test_an_imported_model_recognises_a_video(capsys, tmp_path, weights):
    out = tmp_path / 'imported'
    assert main(['model', 'import', 'small:swin', '--file', str(weights), '--out', str(out)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f'wrote {out}: imported@') and '2 of action, 4 frames in 0.4 s' in text
    assert 'note: this licence forbids commercial use' in text
    video = cv2.VideoWriter(
        str(tmp_path / 'a.avi'), cv2.VideoWriter_fourcc(*'MJPG'), 10, (40, 30))
    for frame in np.random.default_rng(0).integers(0, 256, (8, 30, 40, 3), dtype=np.uint8):
        video.write(frame)
    video.release()
    assert main(['predict', str(tmp_path / 'a.avi'), '--model', str(out), '--json']) == 0
    result = json.loads(capsys.readouterr().out)
    assert len(result['prediction']['action']) == 2 and len(result['windows']) == 3


def test_errors_are_one_sentence(capsys, tmp_path):
    assert main(['model', 'import', 'swin', '--out', str(tmp_path / 'out')]) == 2
    assert capsys.readouterr().err.startswith("karmma model: SOURCE is 'swin'; expected ")


def test_lists_the_published_models(capsys, monkeypatch):
    other = replace(zoo_entry('s3d'), name='other', obstacle='its encoder is none here')
    monkeypatch.setattr(describe, 'MODEL_ZOO', (*MODEL_ZOO, other))
    assert main(['model', 'list']) == 0
    text = capsys.readouterr().out
    assert '| swin3d_t ' in text and 'no commercial use' in text
    assert 'known, but not imported: other\n' in text
    assert main(['model', 'list', '--json']) == 0
    entries = {entry['name']: entry for entry in json.loads(capsys.readouterr().out)}
    assert entries['swin3d_t']['classes'] == {'action': 400}
    assert main(['model', 'list', '--markdown']) == 0
    assert '| [`swin3d_t`](https://arxiv.org/' in capsys.readouterr().out


def test_describes_a_published_model(capsys):
    assert main(['model', 'info', 'omnivore_swinB_epic']) == 0
    lines = dict(line.split('  ', 1) for line in capsys.readouterr().out.splitlines())
    assert lines['licence'].strip() == 'CC BY-NC 4.0'
    assert lines['commercial use'].strip() == 'no'
    assert lines['classes'].strip() == 'verb 97, noun 300'


def test_describes_a_model_directory(capsys, tmp_path, weights):
    out = tmp_path / 'imported'
    main(['model', 'import', 'small:swin', '--file', str(weights), '--out', str(out)])
    capsys.readouterr()
    assert main(['model', 'info', str(out), '--json']) == 0
    facts = json.loads(capsys.readouterr().out)
    assert facts['licence'] == 'CC BY-NC 4.0' and facts['commercial use'] is False
    assert facts['heads'] == {'action': 2} and facts['classes'] == {'action': ['cut', 'stir']}
    assert facts['clip'] == '4 frames in 0.4 s' and facts['inputs'] == {'rgb': '3 x 4 x 16 x 16'}
    assert facts['calibration'] == '' and facts['exports'] == []
    assert main(['model', 'info', 'synthetic_kitchen']) == 0
    text = capsys.readouterr().out
    assert 'verb 9, noun 11' in text and 'apache-2.0' in text
    assert main(['model', 'info', 'nowhere']) == 2
    assert "MODEL is 'nowhere'; expected the path of a model" in capsys.readouterr().err


def test_pull_needs_no_source(capsys, tmp_path):
    assert main(['model', 'pull', 'swin', '--out', str(tmp_path / 'out')]) == 2
    assert capsys.readouterr().err.startswith("karmma model: NAME is 'swin'; expected swin3d_t, ")
