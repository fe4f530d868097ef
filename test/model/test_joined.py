"""Models of different sensors as one: their ensemble, or a start for training."""

from __future__ import annotations

from dataclasses import replace
import json
from pathlib import Path

from karmma_ros.cli.main import main
from karmma_ros.clip import ClipSpec
from karmma_ros.data.synthetic_kitchen.episode import clip_spec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.modality import Modality
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import Bundle, load_bundle, save_bundle
from karmma_ros.model.config import ModelConfig
from karmma_ros.model.joined import (
    ensemble_problem,
    join_models_of_sensors,
    joined_spec,
    UNTRAINED,
)
from karmma_ros.model.presets import only, preset, unimodal
from karmma_ros.prediction import Vocabulary
import pytest
import torch

RGB, AUDIO, FLOW = Modality.RGB, Modality.AUDIO, Modality.FLOW
CLASSES = Vocabulary({'verb': ('cut', 'stir'), 'noun': ('egg', 'leek', 'soup')})
FORBIDDING = {'licence': 'CC BY-NC 4.0', 'commercial_use': False, 'source': 'x:y'}


def write(path: Path, modality: Modality, vocabulary: Vocabulary = CLASSES, spec=None,
          source=None, config: ModelConfig | None = None) -> Bundle:
    """Write a model of one modality with random weights."""
    spec = spec or clip_spec()
    config = config or unimodal(preset('tiny'), modality)
    torch.manual_seed(len(path.name))
    network = build(config, spec, vocabulary)
    save_bundle(path, network, config, spec, vocabulary, dataset=f'data of {modality}', card='',
                source=source)
    return load_bundle(path)


@pytest.fixture
def rgb(tmp_path) -> Bundle:
    return write(tmp_path / 'rgb', RGB)


def test_the_same_classes_give_the_mean_of_the_logits(tmp_path, rgb):
    audio = write(tmp_path / 'audio', AUDIO, source=FORBIDDING)
    joined = join_models_of_sensors({RGB: rgb, AUDIO: audio}, tmp_path / 'joined')
    assert joined.network.modalities == (RGB, AUDIO) and joined.vocabulary == CLASSES
    inputs = {m: torch.randn(2, *joined.spec.input_shape(m)) for m in (RGB, AUDIO)}
    with torch.no_grad():
        both = joined.network(inputs, torch.ones(2, 2, dtype=torch.bool))
        alone = {bundle.network.modalities[0]: bundle.network(
            inputs, torch.ones(2, 1, dtype=torch.bool)) for bundle in (rgb, audio)}
        deaf = joined.network(inputs, torch.tensor([[True, False]] * 2))
    for head in CLASSES.heads:
        torch.testing.assert_close(both[head], (alone[RGB][head] + alone[AUDIO][head]) / 2)
        torch.testing.assert_close(deaf[head], alone[RGB][head])
    assert UNTRAINED not in joined.source
    assert joined.dataset == 'rgb: data of rgb; audio: data of audio'


def test_a_licence_that_forbids_commercial_use_is_kept(tmp_path, rgb):
    audio = write(tmp_path / 'audio', AUDIO, source=FORBIDDING)
    joined = join_models_of_sensors({RGB: rgb, AUDIO: audio}, tmp_path / 'joined')
    assert joined.licence == 'CC BY-NC 4.0' and not joined.commercial_use
    assert joined.source['joined']['audio']['source']['source'] == 'x:y'
    assert 'CC BY-NC 4.0: no commercial use.' in (tmp_path / 'joined/README.md').read_text()


@pytest.mark.parametrize('other', ['classes', 'fusion'])
def test_other_models_give_the_start_of_a_training(tmp_path, rgb, other):
    audio = write(
        tmp_path / 'audio', AUDIO,
        Vocabulary({'event': ('boil', 'chop')}) if other == 'classes' else CLASSES,
        config=only(preset('tiny'), [AUDIO]) if other == 'fusion' else None)
    joined = join_models_of_sensors({RGB: rgb, AUDIO: audio}, tmp_path / 'joined')
    assert joined.config.fusion == 'transformer' and joined.vocabulary == rgb.vocabulary
    for bundle in (rgb, audio):
        modality = bundle.network.modalities[0]
        theirs = bundle.network.encoders[modality.value].state_dict()
        for name, x in joined.network.encoders[modality.value].state_dict().items():
            assert torch.equal(x, theirs[name])
    assert joined.source[UNTRAINED].startswith('the fusion and the classifiers: ')
    assert joined.dataset.startswith('not trained as a whole, fine-tune it first; rgb: data of')
    assert '**Not trained**' in (tmp_path / 'joined/README.md').read_text()


def test_another_number_of_chunks_is_no_ensemble(tmp_path, rgb):
    audio = write(tmp_path / 'audio', AUDIO)
    chunked = replace(rgb, config=replace(rgb.config, token_cap=4))
    assert ensemble_problem({RGB: rgb, AUDIO: audio}) == ''
    assert ensemble_problem({RGB: chunked, AUDIO: audio}) == (
        'audio and rgb are encoded in another number of chunks')


def test_each_sensor_brings_its_own_preprocessing():
    spec = clip_spec()
    other = replace(spec, audio=replace(spec.audio, n_mels=32), num_frames=5)
    parts = {RGB: FakeBundle(spec), AUDIO: FakeBundle(other)}
    joined = joined_spec(parts)  # type: ignore[arg-type]
    assert joined.audio.n_mels == 32 and joined.num_frames == spec.num_frames
    assert joined_spec({AUDIO: FakeBundle(other), RGB: FakeBundle(spec)}) == joined  # type: ignore


class FakeBundle:
    def __init__(self, spec: ClipSpec) -> None:
        self.spec = spec


@pytest.mark.parametrize(('modality', 'changes', 'text'), [
    (AUDIO, {'duration': 3.0}, 'clips of audio is .duration is 3.0, and 2.0 for the others'),
    (FLOW, {'num_frames': 8}, 'clips of .* num_frames|clips of rgb is .num_frames is 16, and 8'),
])
def test_clips_that_conflict_are_refused(modality, changes, text):
    spec = clip_spec()
    with pytest.raises(InvalidSettingError, match=f'{text}.*: import one of them again'):
        joined_spec({RGB: FakeBundle(spec),  # type: ignore[dict-item]
                     modality: FakeBundle(replace(spec, **changes))})


def test_flow_brings_the_size_of_its_camera_without_one():
    spec = clip_spec()
    small = replace(spec, video=replace(spec.video, height=32, width=32))
    assert joined_spec({AUDIO: FakeBundle(spec), FLOW: FakeBundle(small)}  # type: ignore
                       ).video == small.video
    with pytest.raises(InvalidSettingError, match='clips of flow is .video.height is 32, and 40'):
        joined_spec({RGB: FakeBundle(spec), FLOW: FakeBundle(small)})  # type: ignore[dict-item]


def test_a_model_without_the_sensor_is_refused(tmp_path, rgb):
    with pytest.raises(InvalidSettingError, match='audio is .*a model that takes audio: this one'):
        join_models_of_sensors({RGB: rgb, AUDIO: rgb}, tmp_path / 'joined')
    assert not (tmp_path / 'joined').exists()


def test_the_command(tmp_path, rgb, capsys):
    audio = write(tmp_path / 'audio', AUDIO, source=FORBIDDING)
    words = [f'rgb={rgb.path}', f'audio={audio.path}', '--out', str(tmp_path / 'joined')]
    assert main(['model', 'join', *words]) == 0
    text = capsys.readouterr().out
    assert 'rgb, audio' in text and 'note: this licence forbids commercial use' in text
    assert main(['model', 'join', *words]) == 2
    assert '--out is' in capsys.readouterr().err
    for wrong, error in ([f'rgb={rgb.path}'], 'expected two modalities or more'), (
            ['rgb'], 'expected a modality and a model, as rgb=DIR'), (
            [f'rgb={rgb.path}'] * 2, 'expected each modality once'):
        assert main(['model', 'join', *wrong, '--out', str(tmp_path / 'other')]) == 2
        assert error in capsys.readouterr().err


def test_a_joined_model_starts_a_training(tmp_path, rgb):
    from karmma_ros.cli.train import _licences, architecture
    from karmma_ros.training.stages import StudentTraining

    audio = write(tmp_path / 'audio', AUDIO, Vocabulary({'event': ('boil', 'chop')}))
    joined = join_models_of_sensors({RGB: rgb, AUDIO: audio}, tmp_path / 'joined')
    config = architecture(StudentTraining(base=str(joined.path)))
    weights = str(joined.path / 'model.safetensors')
    assert config.modalities == (RGB, AUDIO)
    assert {encoder.weights for encoder in config.encoders.values()} == {weights}
    assert config.encoders[RGB].name == rgb.config.encoders[RGB].name
    one = architecture(StudentTraining(base=str(joined.path), modalities=['audio']))
    assert one.modalities == (AUDIO,)
    assert _licences(config, StudentTraining(teacher=str(write(
        tmp_path / 'teacher', RGB, source=FORBIDDING).path))) == {
            'licence': 'CC BY-NC 4.0', 'commercial_use': False}
    assert json.loads((joined.path / 'config.json').read_text())['name'] == 'joined'
