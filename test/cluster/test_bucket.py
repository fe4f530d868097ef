"""Bags in buckets: downloaded once, whole, into a cache that does not grow over its size."""

from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
import re
import socket
import threading
import time
import zipfile

from karmma_ros.bags.training_clips import find_bags
from karmma_ros.cli.main import main
from karmma_ros.cluster.bucket import BucketCache, expand, url_of
from karmma_ros.errors import BagError
import pytest

fsspec = pytest.importorskip('fsspec')
MEMORY = 'memory://bucket'


@pytest.fixture
def bucket():
    """Yield the memory of fsspec as a bucket."""
    system = fsspec.filesystem('memory')
    yield system
    system.store.clear()


def kept(cache):
    return sorted(path.name for path in cache.folder.glob('*/bag/*'))


def fetch(cache, name):
    with cache.local(Path(f'{MEMORY}/{name}')) as path:
        return path.read_bytes()


def test_a_url_is_recognised_with_and_without_its_slash():
    assert url_of(Path('s3://bucket/a.mcap')) == url_of('s3://bucket/a.mcap') == (
        's3://bucket/a.mcap')
    assert url_of(Path('file:///bags/a.mcap')) == url_of('file:///bags/a.mcap') == (
        'file:///bags/a.mcap')
    for local in ('bags/a.mcap', '/bags/a:b.mcap', 'C:a.mcap', 's3/a.mcap'):
        assert url_of(Path(local)) == ''


def test_a_file_is_downloaded_once_until_it_changes(bucket, tmp_path, monkeypatch):
    bucket.pipe('/bucket/a.mcap', b'first')
    cache = BucketCache(tmp_path)
    assert fetch(cache, 'a.mcap') == b'first' and kept(cache) == ['a.mcap']
    with monkeypatch.context() as patch:
        patch.setattr('karmma_ros.cluster.bucket._copy', None)
        assert fetch(cache, 'a.mcap') == b'first'
    bucket.pipe('/bucket/a.mcap', b'other')
    assert fetch(cache, 'a.mcap') == b'other'


def test_a_folder_of_a_bag_is_downloaded_with_all_files(bucket, tmp_path):
    bucket.pipe({'/bucket/monday/metadata.yaml': b'm', '/bucket/monday/part/0.mcap': b'0'})
    with BucketCache(tmp_path).local(Path(f'{MEMORY}/monday')) as path:
        assert path.name == 'monday' and (path / 'metadata.yaml').read_bytes() == b'm'
        assert (path / 'part' / '0.mcap').read_bytes() == b'0'


def test_a_file_that_would_leave_the_folder_is_an_error(tmp_path):
    with zipfile.ZipFile(tmp_path / 'bags.zip', 'w') as archive:
        archive.writestr('bag/metadata.yaml', b'm')
        archive.writestr('bag/../../../../outside.txt', b'x')
    url = Path(f'zip://bag::file://{tmp_path / "bags.zip"}')
    with pytest.raises(BagError, match='which leaves the folder of the bag'), BucketCache(
            tmp_path / 'a' / 'cache').local(url):
        pass
    assert not [*tmp_path.rglob('outside.txt')]


def test_asterisks_name_every_match(bucket):
    bucket.pipe({f'/bucket/{name}': b'' for name in ('b.mcap', 'a.mcap', 'c.txt')})
    assert [url_of(path) for path in expand(Path(f'{MEMORY}/*.mcap'))] == [
        'memory://bucket/a.mcap', 'memory://bucket/b.mcap']
    assert expand(Path('*.mcap')) == [Path('*.mcap')]
    with pytest.raises(BagError, match=re.escape('bag memory://bucket/*.db3: no object matches')):
        expand(Path(f'{MEMORY}/*.db3'))


def test_the_least_recently_used_bag_that_is_not_in_use_is_removed(bucket, tmp_path):
    for name in 'abcd':
        bucket.pipe(f'/bucket/{name}.mcap', name.encode() * 100)
    cache = BucketCache(tmp_path, max_bytes=300)
    for name in 'abca':
        fetch(cache, f'{name}.mcap')
        time.sleep(0.01)
    with cache.local(Path(f'{MEMORY}/b.mcap')) as oldest:
        fetch(cache, 'c.mcap')
        time.sleep(0.01)
        fetch(cache, 'a.mcap')
        time.sleep(0.01)
        fetch(cache, 'd.mcap')
        assert oldest.read_bytes() == b'b' * 100
    assert kept(cache) == ['a.mcap', 'b.mcap', 'd.mcap']


def test_a_bag_that_does_not_fit_is_an_error(bucket, tmp_path):
    bucket.pipe('/bucket/a.mcap', b'a' * 100)
    with pytest.raises(BagError, match='bag memory://bucket/a.mcap: it has 0.0 GiB, and of the '
                       '0.0 GiB of the cache 0.0 are in use: give a larger --bucket-cache'):
        fetch(BucketCache(tmp_path, max_bytes=50), 'a.mcap')
    assert kept(BucketCache(tmp_path)) == []


def test_what_a_killed_process_has_left_is_downloaded_anew(bucket, tmp_path):
    bucket.pipe('/bucket/a.mcap', b'all')
    cache = BucketCache(tmp_path, max_bytes=5)
    fetch(cache, 'a.mcap')
    entry, = (path.parent for path in tmp_path.glob('*/bag'))
    (entry / 'bag').rename(entry / 'download')
    (entry / 'download' / 'a.mcap').write_bytes(b'a')
    assert fetch(cache, 'a.mcap') == b'all'
    assert not (entry / 'download').exists()


def test_a_download_that_ends_early_is_an_error(bucket, tmp_path, monkeypatch):
    bucket.pipe('/bucket/a.mcap', b'all of it')
    monkeypatch.setattr('karmma_ros.cluster.bucket._copy',
                        lambda system, remote, path, alive: path.write_bytes(b'all'))
    with pytest.raises(BagError, match='3 of 9 bytes were received: give the same command again'):
        fetch(BucketCache(tmp_path), 'a.mcap')
    assert not list(tmp_path.glob('*/*'))


def test_a_missing_object_is_an_error(bucket, tmp_path):
    with pytest.raises(BagError, match='bag memory://bucket/no.mcap: there is no such object'):
        fetch(BucketCache(tmp_path), 'no.mcap')


def test_recordings_of_a_bucket_are_named_as_those_of_a_folder(bucket, tmp_path):
    names = ('a.mcap', 'a.mp4', 'b.mp4', 'c.txt', 'monday/metadata.yaml', 'monday/0.mcap',
             'other/other_0.mcap', 'other/other_1.mcap', 'text/a.txt', 'c.DB3')
    bucket.pipe({f'/bucket/bags/{name}': b'' for name in names})
    for name in names:
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    local = find_bags([str(tmp_path)])
    assert sorted(local) == ['a', 'b', 'c', 'monday', 'other']
    for paths in ([f'{MEMORY}/bags'], [f'{MEMORY}/bags/*.mcap', f'{MEMORY}/bags/b.mp4',
                                       f'{MEMORY}/bags/c.DB3', f'{MEMORY}/bags/monday',
                                       f'{MEMORY}/bags/other'], [f'file://{tmp_path}']):
        start = MEMORY + '/bags' if 'memory' in paths[0] else f'file://{tmp_path}'
        assert {name: url_of(path) for name, path in find_bags(paths).items()} == {
            name: f'{start}/{path.relative_to(tmp_path)}' for name, path in local.items()}
    with pytest.raises(BagError, match='bag memory://bucket/other/a.mcap: memory://bucket/bags/'
                       'a.mcap is a recording of the same name, a: rename one'):
        bucket.pipe('/bucket/other/a.mcap', b'')
        find_bags([f'{MEMORY}/bags/a.mcap', f'{MEMORY}/other/a.mcap'])
    with pytest.raises(BagError, match='bag memory://bucket/no: there is no such object'):
        find_bags([f'{MEMORY}/no'])


@pytest.fixture(scope='module')
def labelled(tmp_path_factory):
    """Return a folder with four bags and their labels."""
    folder = tmp_path_factory.mktemp('labelled')
    rows = ['recording,start,stop,action']
    for i in range(4):
        assert main(['bag', 'synthetic', str(folder / f'kitchen_{i}.mcap'), '--episodes', '2',
                     '--seconds', '2', '--size', '48x32', '--rate', '15', '--seed', str(i)]) == 0
        rows += [f'kitchen_{i},0,2,stir', f'kitchen_{i},2,4,pour']
    (folder / 'labels.csv').write_text('\n'.join(rows))
    return folder


def finetune(bags, labels, out, *words):
    return main(['finetune', bags, '--labels', str(labels), '--from', 'synthetic_kitchen',
                 '--steps', '20', '--windows', '2', '--cache', str(out / 'cache'), '--out',
                 str(out / 'model'), *words])


def test_bags_in_a_bucket_fine_tune_the_model_of_their_files(
    bucket, labelled, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
    for path in labelled.glob('*.mcap'):
        bucket.pipe(f'/bucket/bags/{path.name}', path.read_bytes())
    for name, bags in ('files', str(labelled)), ('memory', f'{MEMORY}/bags'), (
            'asterisk', f'file://{labelled}/kitchen_*.mcap'):
        assert finetune(bags, labelled / 'labels.csv', tmp_path / name) == 0
    weights = [(tmp_path / name / 'model' / 'model.safetensors').read_bytes()
               for name in ('files', 'memory', 'asterisk')]
    assert weights[1] == weights[0] == weights[2]
    copies = tmp_path / 'home' / 'karmma_ros' / 'bags'
    assert len(list(copies.glob('*/bag/*.mcap'))) == 8
    assert 'karmma bag evaluate' in capsys.readouterr().out


def test_a_label_outside_of_a_bag_of_a_bucket_and_a_small_cache_are_errors(
    bucket, labelled, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
    for path in labelled.glob('*.mcap'):
        bucket.pipe(f'/bucket/bags/{path.name}', path.read_bytes())
    labels = tmp_path / 'labels.csv'
    labels.write_text((labelled / 'labels.csv').read_text() + '\nkitchen_0,60,62,stir')
    assert finetune(f'{MEMORY}/bags', labels, tmp_path) == 2
    assert 'of kitchen_0 starts at 60 s; expected a start within the bag of 4' in (
        capsys.readouterr().err)
    assert finetune(f'{MEMORY}/bags', labelled / 'labels.csv', tmp_path, '--bucket-cache',
                    '1e-6') == 2
    assert 'give a larger --bucket-cache, or a smaller --jobs' in capsys.readouterr().err
    assert finetune(f'{MEMORY}/bags', labels, tmp_path, '--bucket-cache', '0') == 2
    assert '--bucket-cache is 0.0; expected GiB, above 0' in capsys.readouterr().err


def test_a_bag_in_a_bucket_is_not_labelled(tmp_path, capsys):
    assert main(['label', 's3://bucket/a.mcap', '--labels', str(tmp_path / 'a.csv')]) == 2
    assert 'it is in a bucket: copy it to this machine to label it' in capsys.readouterr().err


@pytest.fixture
def s3(monkeypatch):
    """Point s3:// to a server on loopback, which is given by its port."""
    def point(port):
        for name, text in (('ENDPOINT_URL', f'http://127.0.0.1:{port}'), ('ALLOW_HTTP', 'true'),
                           ('ACCESS_KEY_ID', 'k'), ('SECRET_ACCESS_KEY', 's'),
                           ('REGION', 'us-east-1')):
            monkeypatch.setenv(f'AWS_{name}', text)
    return point


def test_a_silent_bucket_is_an_error_that_names_the_url(s3, tmp_path):
    with socket.create_server(('127.0.0.1', 0)) as silent:
        s3(silent.getsockname()[1])
        began = time.monotonic()
        with pytest.raises(BagError, match='bag s3://bucket/a.mcap: the bucket has sent nothing '
                           'for 1 s: check the network and the credentials'), BucketCache(
                               tmp_path, timeout_s=1).local(Path('s3://bucket/a.mcap')):
            pass
    assert time.monotonic() - began < 20


@contextmanager
def server(objects):
    """Yield the port of what a bucket of S3 needs for reading objects; slow after a request."""
    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self):
            self.do_GET()

        def do_GET(self):
            content = objects.get(self.path.partition('?')[0])
            if content is None:
                self.send_error(404)
                return
            first, last = 0, len(content) - 1
            given = re.fullmatch(r'bytes=(\d+)-(\d*)', self.headers.get('Range', ''))
            if given:
                first, last = int(given[1]), min(last, int(given[2] or last))
                self.send_response(206)
                self.send_header('Content-Range', f'bytes {first}-{last}/{len(content)}')
            else:
                self.send_response(200)
            self.send_header('Content-Length', str(last + 1 - first))
            self.send_header('ETag', '"1"')
            self.send_header('Last-Modified', 'Mon, 30 Nov 2026 00:00:00 GMT')
            self.end_headers()
            if self.command == 'GET':
                self.wfile.write(content[first:last + 1])

        def log_message(self, *_):
            pass
    running = ThreadingHTTPServer(('127.0.0.1', 0), Handler)
    threading.Thread(target=running.serve_forever, daemon=True).start()
    try:
        yield running.server_address[1]
    finally:
        running.shutdown()
        running.server_close()


def test_a_bag_in_a_bucket_gives_the_report_of_its_file(s3, tmp_path, monkeypatch):
    monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'home'))
    bag = tmp_path / 'kitchen.mcap'
    assert main(['bag', 'synthetic', str(bag), '--episodes', '2', '--seconds', '2', '--size',
                 '48x32', '--rate', '15']) == 0
    texts = []
    with server({'/bucket/bags/kitchen.mcap': bag.read_bytes()}) as port:
        s3(port)
        url = 's3://bucket/bags/kitchen.mcap'
        for number, each in enumerate((str(bag), url)):
            out = tmp_path / str(number)
            assert main(['bag', 'evaluate', each, '--model', 'synthetic_kitchen', '--out',
                         str(out)]) == 0
            content = json.loads((out / 'report.json').read_text())
            del content['provenance']
            texts.append(re.sub(r'"latency[^]}]*[]}]', '', json.dumps(content)))
    assert texts[1].replace(url, str(bag)) == texts[0]
    assert (tmp_path / 'home' / 'karmma_ros' / 'bags').is_dir()
