"""Types of modalities from outside the package: by entry point, by class, and their limits."""

import json
import subprocess
import sys

from karmma_ros.clip import ClipSpec
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.modality import Modality, register, subset_name
from karmma_ros.model.builder import build
from karmma_ros.model.bundle import load_bundle, save_bundle
from karmma_ros.model.config import EncoderConfig, ModelConfig
import pytest

GAZE = """
from dataclasses import dataclass

from karmma_ros.modalities.modality_type import ModalityType
import torch


@dataclass(frozen=True)
class GazeSpec:
    points: int = 8


class Gaze(ModalityType):
    name, letter, sensor, what, silence = 'gaze', 'G', 'the eye tracker', 'gaze', 'gaze'
    spec_class = GazeSpec
    message_types = ('geometry_msgs/msg/PointStamped',)

    def input_shape(self, clip):
        return 2, self.spec(clip).points

    def prepare(self, arrays, clip):
        return arrays

    def buffer(self, clip):
        raise NotImplementedError


class Points(torch.nn.Module):
    def __init__(self, input_shape):
        super().__init__()
        self.project = torch.nn.Linear(input_shape[0], 16)

    def forward(self, x):
        return self.project(x.transpose(1, 2))
"""


@pytest.fixture
def gaze(tmp_path, monkeypatch):
    """Put the module of a foreign type on the path, and remove its traces afterwards."""
    from karmma_ros import modality
    (tmp_path / 'gaze_package.py').write_text(GAZE)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(modality, 'REGISTRY', dict(modality.REGISTRY))
    monkeypatch.setattr(modality, '_BY_LOCATION', set())
    monkeypatch.setattr(modality, '_INSTANCES', dict(modality._INSTANCES))
    monkeypatch.setattr('karmma_ros.clip.REGISTRY', modality.REGISTRY)
    yield 'gaze_package:Gaze'
    sys.modules.pop('gaze_package', None)


def test_a_specification_registers_the_class_that_it_names(gaze):
    clip = ClipSpec(inputs={'gaze': {'type': gaze, 'points': 5}})
    assert clip.input_shape(Modality('gaze')) == (2, 5)
    assert subset_name([Modality('gaze'), Modality.RGB]) == 'V+G'
    assert 'type' not in clip.to_dict()['inputs']['gaze']
    assert ClipSpec.from_dict(clip.to_dict()) == clip


def test_a_model_of_a_foreign_type_runs_its_code_only_when_that_is_allowed(gaze, tmp_path):
    spec = ClipSpec(inputs={'gaze': {'type': gaze}})
    encoder = EncoderConfig('gaze_package:Points')
    config = ModelConfig('own', {Modality('gaze'): encoder}, dim=16, token_cap=8)
    save_bundle(tmp_path / 'model', build(config, spec, vocabulary()), config, spec, vocabulary(),
                dataset='ours', card='')
    assert load_bundle(tmp_path / 'model', custom_encoders=True).network.modalities == ('gaze',)
    with pytest.raises(BundleError, match='a class of its own for the modality gaze, gaze_pack'):
        load_bundle(tmp_path / 'model')


def test_a_model_whose_modality_is_not_installed_names_the_entry_point(tmp_path):
    spec = ClipSpec()
    config = ModelConfig('own', {Modality.AUDIO: EncoderConfig('mel_cnn')}, dim=16)
    save_bundle(tmp_path / 'model', build(config, spec, vocabulary()), config, spec, vocabulary(),
                dataset='ours', card='')
    path = tmp_path / 'model' / 'config.json'
    description = json.loads(path.read_text())
    description['architecture']['encoders'] = {'smell': {'name': 'mel_cnn', 'options': {}}}
    path.write_text(json.dumps(description))
    with pytest.raises(BundleError, match="modality is 'smell'; expected rgb, flow, .* entry poin"
                       't karmma_ros.modalities'):
        load_bundle(tmp_path / 'model')


def test_a_stored_specification_names_no_code(gaze):
    with pytest.raises(InvalidSettingError, match='clip.inputs.gaze.type .* names no code'):
        ClipSpec.from_dict({'inputs': {'gaze': {'type': gaze}}})


@pytest.mark.parametrize(('name', 'location', 'text'), [
    ('gaze', 'nowhere:Gaze', "modality type gaze is 'nowhere:Gaze'; expected module:Class"),
    ('gaze', 'gaze_package:Nothing', 'module:Class that can be imported'),
    ('Gaze!', 'gaze_package:Gaze', 'lower case letters'),
    ('audio', 'gaze_package:Gaze', 'a name that no other type has'),
])
def test_a_type_that_cannot_be_used_is_refused_by_name(gaze, name, location, text):
    with pytest.raises(InvalidSettingError, match=text):
        register(name, location)


def test_no_two_types_have_one_letter(gaze, tmp_path):
    (tmp_path / 'other_gaze.py').write_text(GAZE.replace("'G'", "'A'"))
    with pytest.raises(
        InvalidSettingError, match="letter of modality type gaze is 'A'.*audio has"
    ):
        register('gaze', 'other_gaze:Gaze')


@pytest.mark.parametrize(('inputs', 'text'), [
    ({'rgb': {'height': 8}}, 'set clip.video'),
    ({'rgb_wrist': {'depth': 8}}, 'clip.inputs.rgb_wrist field'),
    ({'rgb_wrist': 8}, 'a mapping of fields of VideoSpec'),
    ({'smell': {}}, "modality is 'smell'"),
    ({'rgb-wrist': {}}, "modality is 'rgb-wrist'"),
])
def test_a_specification_that_cannot_be_used_is_refused_by_name(inputs, text):
    with pytest.raises(InvalidSettingError, match=text):
        ClipSpec(inputs=inputs)


def test_several_of_a_type_have_specifications_of_their_own():
    clip = ClipSpec(inputs={'rgb_wrist': {'height': 64, 'width': 48}})
    assert clip.input_shape(Modality('rgb_wrist')) == (3, 32, 64, 48)
    assert clip.input_shape(Modality('rgb_head')) == clip.input_shape(Modality.RGB)
    assert clip.input_shape(Modality('flow_wrist')) == (3, 32, 64, 48)
    assert ClipSpec.from_dict(json.loads(json.dumps(clip.to_dict()))) == clip
    assert 'inputs' not in ClipSpec().to_dict()


def installed(folder, name, source, types, code):
    """Return what a program prints in an environment of its own with a package of types."""
    (folder / f'{name}_package.py').write_text(source)
    info = folder / f'{name}_package-1.0.dist-info'
    info.mkdir()
    (info / 'METADATA').write_text(
        f'Metadata-Version: 2.1\nName: {name}-package\nVersion: 1.0\n')
    (info / 'entry_points.txt').write_text('[karmma_ros.modalities]\n' + ''.join(
        f'{type_name} = {name}_package:{item}\n' for type_name, item in types.items()))
    path = 'import sys\nsys.path.insert(0, sys.argv[1])\n'
    return subprocess.run([sys.executable, '-c', path + code, str(folder)], capture_output=True,
                          text=True, check=True)


def test_an_installed_package_adds_its_type(tmp_path):
    run = installed(tmp_path, 'gaze', GAZE, {'gaze': 'Gaze', 'broken': 'Nothing'}, """
from karmma_ros.modality import Modality, registered_types
print(Modality.parse('G_left'), list(registered_types())[-1])
""")
    assert run.stdout.split() == ['gaze_left', 'gaze']
    assert 'modality type broken' in run.stderr and 'it is not used' in run.stderr


def test_an_installed_type_is_no_other_type_with_a_suffix_and_a_function_is_none(tmp_path):
    source = ("from karmma_ros.modality import Modality\nWRIST = Modality('rgb_wrist')\n"
              + GAZE.replace("'gaze', 'G'", "'rgb_thermal', 'T'") + '\n\ndef make():\n    pass\n')
    run = installed(tmp_path, 'two', source, {'rgb_thermal': 'Gaze', 'made': 'make'}, """
from karmma_ros.modality import Modality
each = [Modality(name) for name in ('rgb_thermal', 'rgb_thermal_left', 'rgb_wrist')]
print([(m.type_name, m.suffix) for m in each])
from karmma_ros.modalities import modality_type
print(type(modality_type(Modality.RGB)).__name__)
""")
    assert run.stdout == (
        "[('rgb_thermal', ''), ('rgb_thermal', 'left'), ('rgb', 'wrist')]\nRgb\n")
    assert ("modality type made is 'two_package:make'; expected a subclass of ModalityType with "
            'a letter') in run.stderr
