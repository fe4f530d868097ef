"""the model zoo agrees with torchvision, the networks that are built, the imports and the page."""

from __future__ import annotations

import json
from pathlib import Path
import re
import subprocess
import sys

from karmma_ros.cli.model.describe import zoo_table
from karmma_ros.clip import AudioSpec, ClipSpec, KALDI_FBANK, VideoSpec
from karmma_ros.errors import InvalidSettingError
from karmma_ros.evaluation.cost import count_operations
from karmma_ros.modality import Modality
from karmma_ros.model import imports, model_zoo
from karmma_ros.model.builder import build
from karmma_ros.model.config import EncoderConfig, ModelConfig
from karmma_ros.model.encoders.video import prepare_torchvision
from karmma_ros.model.imports import FILE_SOURCES, ImportSettings, SOURCES, URLS
from karmma_ros.model.imports.pytorchvideo import pytorchvideo_model
from karmma_ros.model.imports.torchvision_video import classifier_config, torchvision_model
from karmma_ros.model.model_zoo import MODEL_ZOO, zoo_entry, ZooEntry
from karmma_ros.model.pull import pull_model
from karmma_ros.model.weights_file import known_digest, MissingWeightsError
from karmma_ros.prediction import Vocabulary
import pytest
import torch

ROOT = Path(__file__).resolve().parents[2]
LIBRARY = [entry for entry in MODEL_ZOO if entry.source.startswith('torchvision:')]
IMPORTED = [entry for entry in MODEL_ZOO if not entry.obstacle]
NAME = {'ids': lambda entry: entry.name}
SWIN_B = {'patch_size': [2, 4, 4], 'embed_dim': 128, 'depths': [2, 2, 18, 2],
          'num_heads': [4, 8, 16, 32], 'window_size': [16, 7, 7]}
TIMESFORMER = {
    'lavila_tsf_b_epic': {'classifier_tokens': True},
    'lavila_tsf_l_epic': {'dim': 1024, 'layers': 24, 'heads': 16, 'patch': 14,
                          'classifier_tokens': True}}
SWIN_T = {'patch_size': [2, 4, 4], 'embed_dim': 96, 'depths': [2, 2, 6, 2],
          'num_heads': [3, 6, 12, 24], 'window_size': [8, 7, 7]}


def test_has_an_entry_of_each_model_of_torchvision():
    assert len({entry.name for entry in MODEL_ZOO}) == len(MODEL_ZOO) > 15
    prepare_torchvision()
    from torchvision.models import get_model_weights

    names = {entry.source.partition(':')[2] for entry in LIBRARY}
    assert names == set(re.findall(r'torchvision:(\w+)', refused('torchvision:nothing')))
    for name in names:
        known = {entry.weights for entry in LIBRARY if entry.source == f'torchvision:{name}'}
        members = [weights.name for weights in get_model_weights(name)]
        assert known == {'', *members[1:]}


def refused(source: str) -> str:
    with pytest.raises(InvalidSettingError) as caught:
        imports.import_model(source, Path('nowhere'))
    return str(caught.value).partition('expected')[2]


@pytest.mark.parametrize('entry', LIBRARY, **NAME)
def test_states_what_torchvision_states(entry: ZooEntry):
    model = torchvision_model(entry.source.partition(':')[2], entry.weights)
    origin = model.origin
    assert (entry.url, entry.page, entry.licence, entry.commercial_use, entry.dataset) == (
        origin.url, origin.page, origin.licence, origin.commercial_use, origin.dataset)
    assert entry.accuracy == origin.accuracy and entry.classes == model.vocabulary.sizes
    assert entry.paper.rpartition('/')[2] in origin.citation
    spec = model.spec
    assert entry.clip == (f'{spec.num_frames} frames at {spec.num_frames / spec.duration:g} fps, '
                          f'{spec.video.height} x {spec.video.width}')
    prepare_torchvision()
    from torchvision.models import get_model_weights

    meta = get_model_weights(entry.source.partition(':')[2])[
        entry.weights or 'KINETICS400_V1'].meta
    assert (entry.parameters, entry.published_gmacs, entry.file_mib) == (
        meta['num_params'], meta['_ops'], meta['_file_size'])
    # Twice the multiply-accumulates; torchvision counts them for 16 frames.
    assert entry.gflops == pytest.approx(
        2 * entry.published_gmacs * spec.num_frames / entry.published_frames, rel=0.001)


def vocabulary(entry: ZooEntry) -> Vocabulary:
    return Vocabulary({head: tuple(map(str, range(n))) for head, n in entry.classes.items()})


def swin(options: dict, **changes) -> ModelConfig:
    return classifier_config(
        'swin', EncoderConfig('torchvision:SwinTransformer3d', options), **changes)


def network_of(entry: ZooEntry):
    """Return the network of an entry on the meta device, and the clips it takes."""
    model = torchvision_model('swin3d_t')
    config, spec, classes = model.config, model.spec, vocabulary(entry)
    if entry in LIBRARY:
        model = torchvision_model(entry.source.partition(':')[2])
        config, spec = model.config, model.spec
    elif entry.name == 'ast_audioset':
        config = classifier_config('ast', EncoderConfig('ast', {
            'dim': 768, 'layers': 12, 'heads': 12, 'patch': 16, 'stride': 10,
            'classifier_tokens': True}), Modality.AUDIO)
        spec = ClipSpec(10.0, audio=AudioSpec(
            16_000, 512, 400, 160, 128, tiles=1, tile_steps=1024, features=KALDI_FBANK))
    elif entry.source.startswith('pytorchvideo:'):
        model = pytorchvideo_model(entry.name)
        config, spec = model.config, model.spec
    elif entry.name.startswith('movinet'):
        side = 172 if entry.name == 'movinet_a0_stream' else 224
        config = classifier_config('movinet', EncoderConfig('movinet', {
            'variant': entry.name.split('_')[1], 'classifier_tokens': True}))
        spec = ClipSpec(10.0, 50, VideoSpec(side, side))
    elif entry.name.startswith('lavila'):
        config = classifier_config('lavila', EncoderConfig('timesformer', TIMESFORMER[entry.name]))
        spec = ClipSpec(2.0, 16)
    elif entry.name == 'omnivore_swinB_epic':
        pairs = {head: tuple(i % size for i in range(3806)) for head, size in
                 entry.classes.items()}
        config = swin(SWIN_B, pairs=pairs)
    else:
        config = swin(SWIN_B if entry.name == 'video_swin_b_ssv2' else SWIN_T)
    with torch.device('meta'):
        return build(config, spec, classes).eval(), spec


@pytest.mark.parametrize('name', [
    'swin3d_t', 'mvit_v2_s', 's3d', 'r2plus1d_18', 'video_swin_b_ssv2', 'omnivore_swinB_epic',
    'radevski_epic', 'radevski_ssv2', 'ast_audioset', 'lavila_tsf_b_epic', 'lavila_tsf_l_epic',
    'x3d_s', 'x3d_m', 'cox3d_s', 'cox3d_m', 'movinet_a0_stream', 'movinet_a2_stream'])
def test_parameters_and_operations_are_those_of_the_network(name):
    entry = zoo_entry(name)
    network, spec = network_of(entry)
    assert sum(p.numel() for p in network.parameters()) == entry.parameters
    if entry.gflops:
        operations, _ = count_operations(lambda: network.fuse({
            m: network.encode(m, torch.empty(1, *spec.input_shape(m), device='meta'))
            for m in network.modalities}))
        assert operations / 1e9 == pytest.approx(entry.gflops, abs=0.006)


def test_what_is_imported_has_a_source_and_the_rest_a_reason():
    for entry in IMPORTED:
        library = entry.source.partition(':')[0]
        assert library in SOURCES or library in FILE_SOURCES
        if entry.url and library in FILE_SOURCES:
            assert URLS[entry.source] == entry.url
    rest = [entry for entry in MODEL_ZOO if entry.obstacle]
    assert not any(entry.source or entry.url for entry in rest)


@pytest.mark.parametrize('entry', IMPORTED, **NAME)
def test_the_licence_is_that_of_the_import(entry: ZooEntry):
    library = entry.source.partition(':')[0].replace('-', '_')
    module = {'torchvision': 'torchvision_video', 'omnivore': 'video_swin',
              'movinet': 'movinet_stream'}.get(library, library)
    path = ROOT / 'karmma_ros' / 'model' / 'imports' / f'{module}.py'
    assert repr(entry.licence) in path.read_text()


def test_only_omnivore_forbids_commercial_use():
    forbidding = [entry for entry in MODEL_ZOO if not entry.commercial_use]
    assert [entry.name for entry in forbidding] == ['omnivore_swinB_epic']
    assert forbidding[0].terms == 'CC BY-NC 4.0: no commercial use'


def test_the_page_has_the_table():
    page = (ROOT / 'docs' / 'models.md').read_text(encoding='utf-8')
    assert f'\n\n{zoo_table()}\n\n' in page, (
        'replace the table of docs/models.md by the output of `karmma model list --markdown`')


def test_the_model_zoo_is_read_without_torch():
    script = 'import sys, karmma_ros.model.model_zoo; print("torch" in sys.modules)'
    run = subprocess.run([sys.executable, '-c', script], capture_output=True, text=True,
                         cwd=ROOT, check=True)
    assert run.stdout.strip() == 'False'


def test_entries_are_json():
    entry = json.loads(json.dumps(zoo_entry('omnivore_swinB_epic').to_dict()))
    assert entry['importable'] is True and entry['commercial_use'] is False


@pytest.fixture
def cache(monkeypatch, tmp_path) -> Path:
    monkeypatch.setenv('TORCH_HOME', str(tmp_path / 'torch'))
    return tmp_path / 'torch/hub/checkpoints'


def no_network(url, path, hash_prefix):
    raise OSError('no route to host')


def test_offline_the_error_names_file_url_and_path(cache, tmp_path, monkeypatch):
    monkeypatch.setattr(torch.hub, 'download_url_to_file', no_network)
    with pytest.raises(MissingWeightsError) as caught:
        pull_model('swin3d_t', tmp_path / 'out')
    entry = zoo_entry('swin3d_t')
    assert str(caught.value) == (
        f'weights {entry.file} are not here (no route to host): fetch them from {entry.url} and '
        f'put them at {cache / entry.file}, or name a local file by --file')
    assert not (tmp_path / 'out').exists()


def test_pulls_what_the_network_has(cache, tmp_path, monkeypatch):
    prepare_torchvision()
    from torchvision.models import video

    torch.manual_seed(0)
    state = video.mc3_18(weights=None).state_dict()
    requested = []

    def fetch(url, path, hash_prefix):
        requested.append((url, hash_prefix))
        torch.save(state, path)

    monkeypatch.setattr(torch.hub, 'download_url_to_file', fetch)
    with pytest.raises(InvalidSettingError, match='whose SHA-256 begins with a90a0ba3'):
        pull_model('mc3_18', tmp_path / 'out')  # these are other weights than the published ones
    path = cache / zoo_entry('mc3_18').file
    digest = imports.digest_of_file(path).hex()
    bundle = pull_model('mc3_18', tmp_path / 'out', ImportSettings(sha256=digest))
    assert requested == [(zoo_entry('mc3_18').url, 'a90a0ba3')]
    assert bundle.source['sha256'] == digest == known_digest(path)
    assert bundle.licence.startswith('BSD-3-Clause') and bundle.commercial_use


def test_a_file_without_a_digest_in_its_name_must_stay_the_same(cache, tmp_path):
    url = zoo_entry('video_swin_b_ssv2').url
    path = cache / url.rpartition('/')[2]
    path.parent.mkdir(parents=True)
    path.write_bytes(b'first')
    first = imports._checked_digest(path, url, '')
    assert known_digest(path) == first == imports._checked_digest(path, url, '')
    path.write_bytes(b'second')
    with pytest.raises(InvalidSettingError, match=f'whose SHA-256 begins with {first}'):
        imports._checked_digest(path, url, '')
    path.with_name(path.name + '.sha256').write_text('rubbish')
    assert known_digest(path) == ''


@pytest.mark.parametrize(('name', 'settings', 'text'), [
    ('swin', {}, r"NAME is 'swin'; expected swin3d_t, .*: `karmma model list` describes them"),
    ('swin3d_t', {'classes': [Path('a')]}, '--classes is .*; expected left out'),
    ('omnivore_swinB_epic', {}, '--classes is .*; expected 3 files: get https.*_action_classes'),
])
def test_refuses_what_cannot_be_pulled(cache, tmp_path, name, settings, text):
    with pytest.raises(InvalidSettingError, match=text):
        pull_model(name, tmp_path / 'out', ImportSettings(**settings))


def test_a_model_that_cannot_be_imported_states_why(tmp_path, monkeypatch):
    other = ZooEntry('other', 'page', 'MIT', 'a data set', {'verb': 3}, 'a clip', 'a use', 'paper',
                     obstacle='its encoder is none here')
    monkeypatch.setattr(model_zoo, 'MODEL_ZOO', (other,))
    with pytest.raises(InvalidSettingError, match='this one cannot: its encoder is none here'):
        pull_model('other', tmp_path / 'out')


def test_weights_behind_a_browser_are_named_with_their_page(tmp_path):
    with pytest.raises(MissingWeightsError, match='fetch them from https://drive.google.com.*'
                       'name the file you have by --file'):
        pull_model('radevski_epic', tmp_path / 'out',
                   ImportSettings(classes=[Path('verbs.csv'), Path('nouns.csv')]))
