"""Every training configuration and every word of docs/training.md can be typed as it stands."""

from collections.abc import Mapping
import importlib
from pathlib import Path
import re
import runpy
import shlex
import sys

from karmma_ros.cli.main import main
from karmma_ros.cli.train import architecture
from karmma_ros.clip import ClipSpec, VideoSpec
from karmma_ros.data import manifest
from karmma_ros.data.synthetic_kitchen.vocabulary import vocabulary
from karmma_ros.media.boxes import read_boxes
from karmma_ros.modality import Modality, PAPER_MODALITIES
from karmma_ros.model import presets
from karmma_ros.model.builder import build
from karmma_ros.prediction import Vocabulary
from karmma_ros.training.stages import STAGES, StudentTraining, TeacherTraining
import pytest
import torch

ROOT = Path(__file__).parents[1]
CONFIGS = sorted((ROOT / 'config' / 'train').glob('*.yaml'))
PAPERS = [path for path in CONFIGS if path.stem.startswith(('epic_', 'something_'))
          and 'pretrain' not in path.stem]
PAGE = (ROOT / 'docs' / 'training.md').read_text(encoding='utf-8')
README = (ROOT / 'README.md').read_text(encoding='utf-8')
WORK = {'train': 'run_stage', 'data': 'open_data', 'evaluate': 'open_model',
        'calibrate': 'load_bundle', 'finetune': 'open_model', 'labels': '_read',
        'pack': 'open_data'}
"""Command → the first function of its module that does anything."""
OTHERS = {  # options of programs that are not ours, and of the data set that the page makes up
    '--rgb-frames', '--flow-frames', '--videos', '--action-recognition', '--train', '--val',
    '--output-path', '--nnodes', '--nproc-per-node', '--rdzv-backend', '--rdzv-endpoint',
    '--nodes', '--ntasks-per-node', '--logdir', '--data.workbench.root',
    '--left-out', '--bases'}  # of benchmarks
MAPPINGS = '--weights.', '--fold-teachers.', '--data.manifest.rates.', '--data.clip.inputs.'
"""Options whose parts after this are keys of the user."""
HELP = (['train', 'pretrain'], ['train', 'teacher'], ['train', 'student'], ['data', 'check'],
        ['data', 'pack'], ['evaluate'], ['calibrate'], ['finetune'], ['reproduce'],
        ['bag', 'synthetic'])


class Parsed(Exception):
    """Thrown where the work would begin."""


@pytest.fixture
def parse(monkeypatch):
    """Return the function that runs `karmma` up to its work, and what that would be given."""
    def stop(*given, **more):
        raise Parsed(*given)

    monkeypatch.chdir(ROOT)
    for command, work in WORK.items():
        monkeypatch.setattr(importlib.import_module(f'karmma_ros.cli.{command}'), work, stop)

    def run(words):
        with pytest.raises(Parsed) as parsed:
            main(words)
        return parsed.value.args[0]

    return run


def stage_of(path):
    [stage] = set(path.stem.split('_')) & set(STAGES)
    return stage


def settings_of(parse, path):
    return parse(['train', stage_of(path), '--config', str(path), '--out', 'out'])


def blocks(language):
    return re.findall(rf'^```{language}\n(.*?)^```', PAGE, re.MULTILINE | re.DOTALL)


def commands(page):
    """Return the words after `karmma` of each command, loops unrolled."""
    parsed_commands = []
    values = ['']
    for line in re.sub(r'\\\n', ' ', page).split('\n'):
        if loop := re.fullmatch(r'for sensor in (.*); do', line):
            values = loop[1].split()
        if line == 'done':
            values = ['']
        ours = re.match(r'\s*(?:karmma|torchrun .* -m karmma_ros\.cli\.main) '
                        r'(.*)', line)
        if ours:
            parsed_commands += [shlex.split(ours[1].replace('$sensor', value), comments=True)
                      for value in values]
    return parsed_commands


COMMANDS = commands('\n'.join(blocks('sh')))


def value(words, option):
    return words[words.index(option) + 1] if option in words else ''


def classes_of(settings):
    """Return the heads and classes of the data set of a configuration."""
    sizes = {'epic_kitchens': presets.EPIC_KITCHENS.classes,
             'something_something': presets.SOMETHING_SOMETHING.classes,
             'manifest': dict.fromkeys(settings.data.manifest.heads, 3),
             'synthetic_kitchen': vocabulary().sizes}[settings.data.dataset]
    return Vocabulary({h: tuple(f'{h} {i}' for i in range(n)) for h, n in sizes.items()})


def test_the_papers_and_the_small_configurations_exist():
    assert {path.stem for path in PAPERS} == {
        'epic_kitchens_teacher', 'epic_kitchens_student',
        'something_something_teacher', 'something_something_student'}
    assert {stage_of(path) for path in CONFIGS} == set(STAGES)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda p: p.stem)
def test_it_parses_and_its_network_builds(parse, path):
    settings = settings_of(parse, path)
    assert type(settings) is STAGES[stage_of(path)][0]
    config = presets.only(presets.preset(settings.preset), settings.modalities)
    assert {Modality.parse(name) for name in settings.weights} <= set(config.modalities)
    if stage_of(path) == 'pretrain':
        config = presets.unimodal(config, Modality.parse(settings.modality))
    with torch.device('meta'):
        network = build(config, settings.data.spec, classes_of(settings))
    assert network.modalities == config.modalities
    # An encoder that is not trained has to come from somewhere.
    if config.freeze_encoders:
        assert all(config.encoders[m].weights or str(m) in settings.weights
                   for m in config.modalities)


@pytest.mark.parametrize('path', PAPERS, ids=lambda p: p.stem)
def test_the_figures_are_the_papers(parse, path):
    settings = settings_of(parse, path)
    teacher = isinstance(settings, TeacherTraining)
    wanted = {'weight_decay': 0.05, 'gradient_clip': 1.0} if teacher else \
        {'weight_decay': 0.01, 'gradient_clip': 2.0, 'gamma': 0.7}
    wanted |= {'warmup': 0.1, 'modality_dropout': 0.5, 'label_smoothing': 0.0,
               'unimodal_weight': 0.0}
    optimizer = settings.run.optimizer
    assert {name: getattr(optimizer, name) for name in wanted} == wanted
    assert (settings.run.epochs, settings.run.batch_size) == (100, 32 if teacher else 6)
    config = presets.preset(settings.preset)
    assert (config.token_cap, config.attention_dropout) == (300, 0.3 if teacher else 0.0)
    assert "the paper's text has lost it" in path.read_text(encoding='utf-8')


@pytest.mark.parametrize('name', ['epic_kitchens', 'something_something', 'synthetic_kitchen'])
def test_teacher_and_student_see_the_same(parse, name):
    folder = CONFIGS[0].parent
    teacher, student = (settings_of(parse, folder / f'{name}_{stage}.yaml')
                        for stage in ('teacher', 'student'))
    assert teacher.data == student.data
    modalities = [set(presets.preset(s.preset).modalities) for s in (teacher, student)]
    assert modalities[0] == modalities[1]


@pytest.mark.parametrize('words', COMMANDS + [w for w in commands(README) if w[0] in WORK],
                         ids=' '.join)
def test_every_command_can_be_typed(parse, words):
    settings = parse(words)
    if words[0] == 'train':
        assert settings.preset in {*presets.PRESETS, 'tiny_patches'}
        modality = getattr(settings, 'modality', 'rgb')
        assert Modality.parse(modality) in presets.preset('tiny_teacher').modalities


def test_the_page_trains_what_it_needs_before_it_needs_it(parse):
    outputs = set()
    for words in COMMANDS:
        if words[0] == 'evaluate':
            models = words[1:next(i for i, word in enumerate(words) if word.startswith('--'))]
            assert models and {model.rpartition('=')[2] for model in models} <= outputs
        if words[0] != 'train':
            continue
        settings = parse(words)
        needed = {*settings.weights.values()}
        if isinstance(settings, StudentTraining) and settings.teacher:
            needed.add(settings.teacher)
        assert needed <= outputs
        outputs.add(value(words, '--out'))
    assert len(outputs) > 12
    # The default of --run-dir is named by the last part of --out.
    assert len({Path(out).name for out in outputs}) == len(outputs)


def test_every_option_and_setting_exists(capsys):
    known = set()
    for words in HELP:
        with pytest.raises(SystemExit):
            main([*words, '--help'])
        known |= set(re.findall(r'--[a-z][\w.-]*', capsys.readouterr().out))
    assert {'--run.devices', '--data.epic_kitchens.flow'} <= known
    named = set(re.findall(r'(?<![\w-])--[a-z][\w.-]*\w', PAGE)) - OTHERS
    unknown = {option for option in named
               if option not in known and not option.startswith(MAPPINGS)}
    assert len(named) > 20 and not unknown
    settings = set(re.findall(r'`((?:data|run)\.[\w.]+)`', PAGE))
    assert settings
    assert all(any(option.startswith(f'--{name}') for option in known) for name in settings)


def test_the_example_of_a_manifest_is_one(tmp_path):
    lines, boxes, _ = blocks('csv')
    (tmp_path / 'segments.csv').write_text(lines)
    splits = manifest.open_splits(
        manifest.ManifestSettings(file=str(tmp_path / 'segments.csv')), ClipSpec())
    assert splits.vocabulary.heads == {'verb': ('cut', 'wash'), 'noun': ('onion', 'pan')}
    has = [set(segment.sources) for segment in splits.train.segments]
    assert has == [set(PAPER_MODALITIES), set(PAPER_MODALITIES) - {Modality.DETECTIONS},
                   {Modality.RGB, Modality.FLOW}]
    assert splits.train.segments[2].start_s == pytest.approx(10.2)
    assert [set(s.sources) for s in splits.test.segments] == [{Modality.AUDIO}]
    (tmp_path / 'boxes.csv').write_text(boxes)
    first, second = read_boxes(tmp_path / 'boxes.csv').boxes([0.0, 0.1])
    assert first.shape == (2, 5) and second.shape == (1, 5)


def test_fields_of_an_input_are_added_to_those_of_the_configuration(parse, tmp_path):
    path = tmp_path / 'wrist.yaml'
    path.write_text('data: {clip: {inputs: {rgb_wrist: {height: 64, mean: [1, 2, 3]}}}}')
    settings = parse([
        'train', 'student', '--config', str(path), '--out', 'out',
        '--data.clip.inputs.rgb_wrist.width', '48', '--data.clip.inputs.rgb_wrist.std=[4, 5, 6]',
        '--data.clip.inputs.rgb_head.height', '16', '--data.clip.num_frames', '8'])
    clip = settings.data.clip
    assert clip.inputs['rgb_wrist'] == VideoSpec(64, 48, (1, 2, 3), (4, 5, 6))
    assert clip.inputs['rgb_head'] == VideoSpec(height=16) and clip.num_frames == 8


def test_the_example_of_time_series_and_depth_is_one(parse, tmp_path):
    (tmp_path / 'data.yaml').write_text(blocks('yaml')[0])
    (tmp_path / 'segments.csv').write_text(
        blocks('csv')[2] + 'test,0,2.5,wave,imu/b.csv,,\n')
    settings = parse([
        'train', 'student', '--config', str(tmp_path / 'data.yaml'), '--out', 'out',
        '--data.manifest.file', str(tmp_path / 'segments.csv'),
        '--data.clip.inputs.imu.samples', '100', '--data.clip.inputs.imu.lengths', 'false'])
    inputs = settings.data.clip.inputs
    assert (inputs['imu'].samples, inputs['imu'].lengths) == (100, False)
    assert (inputs['skeleton'].joints, inputs['skeleton'].samples) == (20, 64)
    splits = manifest.open_splits(settings.data.manifest, settings.data.spec)
    sources = splits.train.segments[0].sources
    assert sources[Modality('imu')].factors[0] == 9.80665
    assert sources[Modality('depth')].settings.offset == 4.06
    assert sources[Modality('skeleton')].rate == 30


@pytest.mark.parametrize(('words', 'text'), [
    (['--data.clip.inputs.imu.sample', '9'], "clip.inputs.imu field is 'sample'; expected "),
    (['--data.clip.inputs.imu.samples', 'many'], "clip.inputs.imu.samples is 'many'; expected "),
    (['--data.clip.inputs.rain.samples', '9'], "modality is 'rain'; expected rgb, "),
    (['--data.clip.num_frames', '0'], 'clip.num_frames is 0; expected a number above 0'),
])
def test_a_wrong_setting_of_the_clip_is_named(parse, capsys, words, text):
    assert main(['train', 'student', '--config', 'config/train/manifest_student.yaml',
                 '--out', 'out', *words])
    assert text in capsys.readouterr().err


@pytest.fixture
def python(tmp_path, monkeypatch):
    """Return the page's Python files by name, where Python finds them."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(tmp_path))
    files: Mapping[str, Path] = {}
    for text in blocks('python'):
        name = Path(re.match(r'# (\S+)', text)[1]).name
        files[name] = tmp_path / name
        files[name].write_text(text)
    yield files
    for name in set(sys.modules) - before:
        if name.startswith('my_'):
            del sys.modules[name]


def test_the_example_of_an_encoder_is_one(parse, python):
    [words] = [words for words in COMMANDS if '--encoders' in words]
    settings = parse(words)
    with torch.device('meta'):
        network = build(architecture(settings), settings.data.spec, classes_of(settings))
    assert network.modalities == (Modality.RGB, Modality.AUDIO)
    assert type(network.encoders['rgb']).__name__ == 'Patches'


def test_the_example_of_a_data_set_is_one(python, tmp_path):
    module = runpy.run_path(str(python['workbench.py']))
    splits = module['open_splits'](module['WorkbenchSettings'](str(tmp_path)), ClipSpec())
    assert len(splits.train) == len(splits.test) == 2
    assert set(splits.train.segments[0].sources) == {Modality.RGB, Modality.AUDIO}
    assert splits.vocabulary.heads == {'action': ('hammer', 'saw')}
