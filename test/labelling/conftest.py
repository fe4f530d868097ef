"""A bag of the synthetic kitchen, and a server of its page."""

from __future__ import annotations

from argparse import Namespace
from collections.abc import Iterator
from contextlib import contextmanager
import http.client
import json
from threading import Thread
from types import SimpleNamespace

from karmma_ros.bags.writer import BagWriter
from karmma_ros.cli.bag import write
from karmma_ros.data.synthetic_kitchen.episode import episode
from karmma_ros.data.synthetic_kitchen.vocabulary import Split
from karmma_ros.labelling.application import LabelApplication
from karmma_ros.labelling.label_store import LabelStore
from karmma_ros.labelling.page_server import PageServer
import pytest

START_NS = 1_735_689_600_000_000_000


@pytest.fixture(scope='session')
def bag(tmp_path_factory):
    """Return a bag of 12 s: 10 frames a second, audio, boxes at 10 Hz."""
    path = tmp_path_factory.mktemp('bags') / 'kitchen.mcap'
    options = Namespace(seconds=3.0, rate=10.0, size=(64, 48))
    with BagWriter(path) as writer:
        for number in range(4):
            start_ns = START_NS + number * 3_000_000_000
            shown = episode(Split.TEST, 0, number)
            write.write_events(writer, *write.kitchen(shown, start_ns, options))
    return path


@contextmanager
def serving(application: LabelApplication) -> Iterator[PageServer]:
    """Run a server in a thread."""
    server = PageServer(application)
    thread = Thread(target=server.serve_forever)
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
        application.close()


@pytest.fixture
def site(bag, tmp_path):
    """Return a running server, its label file, and a function that sends requests to it."""
    store = LabelStore(tmp_path / 'labels.csv')
    with serving(LabelApplication({'kitchen': bag, 'missing': tmp_path / 'no.mcap'}, store)) as it:
        def request(path, given=None, token=None, **headers):
            connection = http.client.HTTPConnection('127.0.0.1', it.server_port, timeout=30)
            if given is not None:
                headers = {'Content-Type': 'application/json', **headers}
            body = given if given is None or isinstance(given, bytes) else json.dumps(given)
            own = it.token if token is None else token
            connection.request('GET' if given is None else 'POST', f'/{own}{path}', body, headers)
            response = connection.getresponse()
            content = response.read()
            connection.close()
            return SimpleNamespace(
                status=response.status, headers=response.headers, content=content,
                json=json.loads(content) if response.headers['Content-Type'].startswith(
                    'application/json') else None)
        yield SimpleNamespace(server=it, path=store.path, request=request)
