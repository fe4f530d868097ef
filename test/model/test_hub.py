"""Models of the Hub, from a server of this test that behaves as the Hub does."""

from __future__ import annotations

from dataclasses import dataclass, field
import hashlib
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
import shutil
from threading import Thread
from types import SimpleNamespace

from karmma_ros.cli.main import main
from karmma_ros.cli.options import open_model
from karmma_ros.errors import BundleError, InvalidSettingError
from karmma_ros.model import hub
from karmma_ros.model.bundle import load_bundle
from karmma_ros.model.hub import fetch_model, HubReference, push_model, UnreachableError
from karmma_ros.model.registry import check_model, find_model
import pytest

COMMIT, LATER = 'a1' * 20, 'b2' * 20
REPOSITORY = 'somebody/kitchen'
MODEL = find_model('synthetic_kitchen')
FILES = ('config.json', 'model.safetensors', 'README.md', 'calibration.json')


@dataclass
class FakeHub:
    """What the server has, and what was requested of it."""

    url: str = ''
    revisions: dict[str, str] = field(default_factory=lambda: {'main': COMMIT, 'v1': COMMIT})
    files: dict[str, bytes] = field(
        default_factory=lambda: {name: (MODEL / name).read_bytes() for name in FILES})
    gated: bool = False
    status: int = 0
    """Of every response, if not 0."""
    stated_sizes: dict[str, int] = field(default_factory=dict)
    requested: list[str] = field(default_factory=list)

    @property
    def downloaded(self) -> list[str]:
        return [path.rpartition('/')[2] for path in self.requested if path.startswith('GET /some')]

    def respond(self, request: BaseHTTPRequestHandler) -> None:
        path = request.path.partition('?')[0]
        self.requested.append(f'{request.command} {path}')
        headers, body, status = {}, b'', 404
        if self.status:
            status = self.status
        elif not path.startswith((f'/api/models/{REPOSITORY}', f'/{REPOSITORY}/')):
            headers['X-Error-Code'] = 'RepoNotFound'
        elif self.gated:
            headers['X-Error-Code'], status = 'GatedRepo', 403
        elif path.startswith('/api/'):
            status, headers, body = self._info(path.rpartition('/')[2])
        else:
            status, headers, body = self._file(*path.split('/')[-2:])
        request.send_response(status)
        for name, value in {**headers, 'Content-Length': str(len(body))}.items():
            request.send_header(name, value)
        request.end_headers()
        if request.command == 'GET':
            request.wfile.write(body)

    def _info(self, revision: str) -> tuple[int, dict[str, str], bytes]:
        commit = self.revisions.get(revision, revision if revision in (COMMIT, LATER) else '')
        if not commit:
            return 404, {'X-Error-Code': 'RevisionNotFound'}, b''
        siblings = [{'rfilename': name, 'size': self.stated_sizes.get(name, len(content))}
                    for name, content in self.files.items()]
        info = {'id': REPOSITORY, 'sha': commit, 'siblings': siblings, 'tags': [],
                'downloads': 0, 'private': False, 'likes': 0}
        return 200, {'Content-Type': 'application/json'}, json.dumps(info).encode()

    def _file(self, commit: str, name: str) -> tuple[int, dict[str, str], bytes]:
        if name not in self.files:
            return 404, {'X-Error-Code': 'EntryNotFound', 'X-Repo-Commit': commit}, b''
        content = self.files[name]
        digest = hashlib.sha256 if name.endswith('.safetensors') else hashlib.sha1
        return 200, {'ETag': f'"{digest(content).hexdigest()}"', 'X-Repo-Commit': commit}, content


@pytest.fixture
def fake(monkeypatch, tmp_path):
    """Serve `somebody/kitchen`, with an empty cache."""
    state = FakeHub()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            state.respond(self)

        do_HEAD = do_GET

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    Thread(target=server.serve_forever, daemon=True).start()
    state.url = f'http://127.0.0.1:{server.server_port}'
    monkeypatch.setattr('huggingface_hub.constants.ENDPOINT', state.url)
    monkeypatch.setattr('huggingface_hub.constants.HUGGINGFACE_CO_URL_TEMPLATE',
                        state.url + '/{repo_id}/resolve/{revision}/{filename}')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_CACHE', str(tmp_path / 'cache'))
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', False)
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_DISABLE_XET', True)
    monkeypatch.setenv('NO_PROXY', '127.0.0.1')
    yield state
    server.shutdown()
    server.server_close()


@pytest.fixture
def offline(fake, monkeypatch):
    """Let the Hub be out of reach, as on a robot."""
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)


def snapshot(tmp_path: Path, commit: str = COMMIT) -> Path:
    return tmp_path / 'cache/models--somebody--kitchen/snapshots' / commit


def test_downloads_a_model_and_pins_its_commit(fake, tmp_path):
    lines: list[str] = []
    folder = fetch_model('hf://somebody/kitchen', report=lines.append)
    assert folder == snapshot(tmp_path)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)
    pin = tmp_path / 'cache/models--somebody--kitchen/karmma_ros_pins/main'
    assert pin.read_text() == COMMIT + '\n'
    assert lines[0].startswith('hf://somebody/kitchen@main: downloads 2.')
    assert lines[1:] == [f'hf://somebody/kitchen@main is commit {COMMIT} from now on; delete '
                         f'{pin} to take a newer one']
    assert load_bundle(folder).sha256 == load_bundle(MODEL).sha256


def test_a_pinned_revision_stays_the_same_and_needs_no_network(fake, tmp_path):
    fetch_model('hf://somebody/kitchen@v1')
    fake.revisions['v1'], fake.requested[:] = LATER, []
    assert fetch_model('hf://somebody/kitchen@v1') == snapshot(tmp_path)
    assert fetch_model(f'hf://somebody/kitchen@{COMMIT}') == snapshot(tmp_path)
    assert fake.requested == []
    (tmp_path / 'cache/models--somebody--kitchen/karmma_ros_pins/v1').unlink()
    assert fetch_model('hf://somebody/kitchen@v1') == snapshot(tmp_path, LATER)


def test_a_missing_snapshot_is_downloaded_at_its_pinned_commit(fake, tmp_path):
    fetch_model('hf://somebody/kitchen@v1')
    shutil.rmtree(snapshot(tmp_path))
    fake.revisions['v1'] = LATER
    assert fetch_model('hf://somebody/kitchen@v1') == snapshot(tmp_path)


def test_only_the_files_of_a_model_are_downloaded(fake, tmp_path):
    fake.files |= {
        'pytorch_model.bin': b'pickle', 'model.py': b'code', 'optimizer.pt': b'pickle',
        '.gitattributes': b'', 'other.safetensors': b'x', 'exports/graph.onnx': b'graph'}
    folder = fetch_model('hf://somebody/kitchen')
    assert set(fake.downloaded) == set(FILES)
    assert sorted(path.name for path in folder.iterdir()) == sorted(FILES)


@pytest.mark.parametrize(('change', 'reference', 'text'), [
    ({}, 'hf://somebody/garden', 'there is no such repository, or it is private: check the name '
     'at http.*/somebody/garden; for a private one run `hf auth login`'),
    ({}, 'hf://somebody/kitchen@v9', 'it has no revision v9'),
    ({'gated': True}, 'hf://somebody/kitchen', 'access to it is restricted: accept its terms at '),
    ({'status': 418}, 'hf://somebody/kitchen', 'the Hub refused it'),
    ({'files': {'pytorch_model.bin': b'x', 'config.json': b'{}'}}, 'hf://somebody/kitchen',
     'it has no model.safetensors; it has pytorch_model.bin, which are not downloaded'),
    ({'files': {'model.safetensors': b'x'}}, 'hf://somebody/kitchen', 'it has no config.json: a'),
    ({'stated_sizes': {'model.safetensors': 2**33 + 1}}, 'hf://somebody/kitchen',
     'model.safetensors has 8,589,934,593 bytes; expected at most 8,589,934,592'),
    ({'stated_sizes': {'config.json': 2**23}}, 'hf://somebody/kitchen', 'config.json has 8,388'),
])
def test_explains_what_is_not_downloaded(fake, tmp_path, change, reference, text):
    for name, value in change.items():
        setattr(fake, name, value)
    with pytest.raises(BundleError, match=text) as caught:
        fetch_model(reference)
    assert str(caught.value).startswith(f'model {reference}')
    assert fake.downloaded == [] and not list(tmp_path.rglob('*.safetensors'))


def test_a_file_larger_than_stated_is_not_kept(fake, tmp_path, monkeypatch):
    monkeypatch.setattr(hub, 'MOST_BYTES', {**hub.MOST_BYTES, 'README.md': 100})
    fake.stated_sizes['README.md'] = 50
    with pytest.raises(BundleError, match='README.md is damaged'):
        fetch_model('hf://somebody/kitchen')
    assert not (snapshot(tmp_path) / 'README.md').exists()


def test_damaged_weights_are_not_kept(fake, tmp_path, monkeypatch):
    respond = FakeHub._file

    def damaged(self, commit, name):
        status, headers, content = respond(self, commit, name)
        if name == 'model.safetensors':
            content = content[:-1] + bytes([content[-1] ^ 1])
        return status, headers, content

    monkeypatch.setattr(FakeHub, '_file', damaged)
    with pytest.raises(BundleError, match='model.safetensors is damaged'):
        fetch_model('hf://somebody/kitchen')
    assert not (snapshot(tmp_path) / 'model.safetensors').exists()



def test_offline_a_cached_model_is_used(fake, tmp_path, monkeypatch):
    fetch_model('hf://somebody/kitchen')
    monkeypatch.setattr('huggingface_hub.constants.HF_HUB_OFFLINE', True)
    assert fetch_model('hf://somebody/kitchen') == snapshot(tmp_path)


def test_offline_the_cache_of_another_program_is_used(offline, tmp_path):
    shutil.copytree(MODEL, snapshot(tmp_path))
    refs = tmp_path / 'cache/models--somebody--kitchen/refs'
    refs.mkdir()
    (refs / 'main').write_text(COMMIT)
    lines: list[str] = []
    assert fetch_model('hf://somebody/kitchen', report=lines.append) == snapshot(tmp_path)
    assert f'is commit {COMMIT} from now on' in lines[0]


@pytest.mark.parametrize('reference', [
    'hf://somebody/kitchen', f'hf://somebody/kitchen@{COMMIT}'])
def test_offline_without_the_model_the_error_names_the_cache(offline, tmp_path, reference):
    with pytest.raises(UnreachableError, match='it is not in the cache, and the Hub cannot be '
                       'reached .*: connect this machine, or copy /.*models--somebody--kitchen'):
        fetch_model(reference)


def test_a_hub_that_fails_counts_as_out_of_reach(fake):
    fake.status = 500
    with pytest.raises(UnreachableError, match='the Hub cannot be reached'):
        fetch_model('hf://somebody/kitchen')


@pytest.mark.parametrize('text', [
    'hf://kitchen', 'hf://a/b/c', 'hf://a/b@', 'hf://../b', 'hf://a/b@../c', 'hf://a/b@v 1',
    'hf:///b', 'hf://a/b@v1@v2', 'hf://a/' + 'b' * 100, 'hf://a/b\n'])
def test_refuses_what_is_no_reference(text):
    with pytest.raises(InvalidSettingError, match='model is .*; expected hf://ORGANISATION/NAME@'):
        HubReference.parse(text)


def test_the_hub_is_used_only_where_it_is_allowed(fake, tmp_path):
    for check in (find_model, lambda text: check_model(text, False)):
        with pytest.raises(InvalidSettingError, match='expected a model on this machine: .*allow'):
            check('hf://somebody/kitchen')
    check_model('hf://somebody/kitchen', True)
    assert fake.requested == []
    assert find_model('hf://somebody/kitchen', hub=print) == snapshot(tmp_path)


def test_code_of_a_downloaded_model_is_never_run(fake, tmp_path):
    description = json.loads(fake.files['config.json'])
    description['modalities'] = {'gaze': 'my_package.gaze:Gaze'}
    fake.files['config.json'] = json.dumps(description).encode()
    with pytest.raises(InvalidSettingError, match='--custom-encoders is True; expected false for'):
        open_model('hf://somebody/kitchen', 'MODEL', custom_encoders=True)
    assert fake.requested == []
    with pytest.raises(BundleError, match='names a class of its own for the modality gaze'):
        open_model('hf://somebody/kitchen', 'MODEL')


def test_commands_take_a_model_of_the_hub(fake, tmp_path, capsys):
    assert main(['model', 'info', 'hf://somebody/kitchen', '--json']) == 0
    printed = capsys.readouterr()
    assert json.loads(printed.out)['directory'] == str(snapshot(tmp_path))
    assert f'is commit {COMMIT} from now on' in printed.err
    assert main(['predict', 'nowhere.mp4', '--model', 'hf://somebody/garden']) == 2
    assert 'there is no such repository' in capsys.readouterr().err


class FakeApi:
    """Records what is uploaded."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, dict]] = []

    def create_repo(self, repo_id: str, **options) -> None:
        self.calls.append(('create_repo', {'repo_id': repo_id, **options}))

    def upload_folder(self, **options) -> SimpleNamespace:
        self.calls.append(('upload_folder', options))
        return SimpleNamespace(oid=LATER)


def test_uploads_a_model_with_its_card():
    api = FakeApi()
    reference = push_model(MODEL, 'hf://somebody/new', api, private=True)
    assert str(reference) == f'hf://somebody/new@{LATER}'
    (_, created), (_, uploaded) = api.calls
    assert created == {'repo_id': 'somebody/new', 'private': True, 'exist_ok': True}
    assert uploaded['folder_path'] == MODEL and uploaded['revision'] == 'main'
    assert set(uploaded['allow_patterns']) == {*FILES, 'class_statistics.safetensors'}
    assert uploaded['delete_patterns'] == []
    assert uploaded['commit_message'].startswith('Upload synthetic_kitchen@')


def test_a_push_removes_the_files_of_an_earlier_model(tmp_path):
    shutil.copytree(MODEL, tmp_path / 'model')
    (tmp_path / 'model/calibration.json').unlink()
    push_model(tmp_path / 'model', 'hf://a/b', api := FakeApi())
    assert api.calls[1][1]['delete_patterns'] == ['calibration.json']


def test_what_cannot_be_loaded_is_not_uploaded(tmp_path):
    api = FakeApi()
    with pytest.raises(BundleError, match='no such directory'):
        push_model(tmp_path / 'nowhere', 'hf://a/b', api)
    shutil.copytree(MODEL, tmp_path / 'model')
    (tmp_path / 'model/README.md').unlink()
    with pytest.raises(BundleError, match='it has no README.md: write a model card'):
        push_model(tmp_path / 'model', 'hf://a/b', api)
    with pytest.raises(InvalidSettingError, match='a reference without a commit'):
        push_model(MODEL, f'hf://a/b@{COMMIT}', api)
    assert api.calls == []


def test_push_explains_errors_of_the_hub(fake, capsys):
    fake.status = 401
    assert main(['model', 'push', str(MODEL), 'hf://somebody/kitchen']) == 2
    assert 'karmma model: model hf://somebody/kitchen@main: ' in capsys.readouterr().err


def test_push_without_a_network_states_it():
    class Offline:
        def create_repo(self, *given, **named):
            raise OSError('no route to host')
    with pytest.raises(UnreachableError, match=r'Hub cannot be reached \(no route to host\): con'):
        push_model(MODEL, 'hf://a/b', Offline())
