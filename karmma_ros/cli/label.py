"""`karmma label`: label the actions in recordings with a page in the browser."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING
import webbrowser

from jsonargparse import Namespace
from karmma_ros.bags.reader import Bag
from karmma_ros.bags.topics import parse_topics
from karmma_ros.bags.training_clips import find_bags
from karmma_ros.cli.options import (
    add_cache_option,
    check_writable,
    command_parser,
    CommandParser,
    MODEL_HELP,
    open_model,
    to_path,
)
from karmma_ros.cluster.bucket import url_of
from karmma_ros.errors import BagError, count_text, InvalidSettingError
from karmma_ros.labelling.application import BACKGROUND, LabelApplication, LabelSettings
from karmma_ros.labelling.label_store import LabelStore
from karmma_ros.labelling.page_server import PageServer
from karmma_ros.labelling.rejections import Rejections
from karmma_ros.prediction import NOUN, VERB
from karmma_ros.storage import fingerprint

if TYPE_CHECKING:
    from karmma_ros.labelling.proposals import Proposer


def _parser() -> CommandParser:
    parser = command_parser(
        'karmma label', 'Label the actions in recordings with a page in the browser, on this '
        'machine only. Every change is written to the label file at once.',
        'RECORDING [RECORDING ...] --labels labels.csv [OPTION ...]')
    parser.add_argument('recordings', metavar='RECORDING', nargs='+', type=str,
                        help='bags or videos, folders of a bag, or folders that contain some')
    parser.add_argument('--labels', metavar='CSV', required=True, type=to_path,
                        help='label file, which is made if there is none')
    parser.add_argument('--heads', metavar='HEAD', nargs='+', type=str, default=[VERB, NOUN],
                        help='columns of the classes in a new label file: verb noun, or action')
    parser.add_argument('--model', metavar='MODEL', type=str, default='', help='proposes labels '
                        'to accept or correct: ' + MODEL_HELP)
    add_cache_option(parser)
    parser.add_argument('--background', metavar='CLASS', type=str, default=BACKGROUND,
                        help='class that stands for no action')
    parser.add_argument('--topics', metavar='INPUT=TOPIC', nargs='+', type=str, default=[],
                        help='topics of inputs, as rgb=/front/image (default: found by message '
                        'type)')
    parser.add_argument('--port', type=int, default=0, help='port of the page; 0: any free one')
    parser.add_argument('--no-browser', action='store_true',
                        help='print the address only, without opening a browser')
    return parser


def main(arguments: Sequence[str]) -> int:
    """Serve the page until Ctrl-C."""
    options = _parser().parse_args(list(arguments))
    for each in options.recordings:
        if url_of(each):
            raise BagError(each, 'it is in a bucket', 'copy it to this machine to label it')
    recordings = find_bags(options.recordings)
    for path in recordings.values():
        Bag(path)  # raises where there is none
    check_writable(options.labels, '--labels')
    store, topics = LabelStore(options.labels, options.heads), parse_topics(options.topics)
    proposer = _proposer(options, store, topics) if options.model else None
    application = LabelApplication(
        recordings, store, LabelSettings(topics, options.background), proposer,
        Rejections(_rejections_file(options)))
    server = _server(application, options.port)
    print(f'{count_text(len(recordings), "recording")}, labels in {options.labels}\n{server.url}\n'
          'The address is for this machine only. Ctrl-C ends; every change is saved at once.',
          flush=True)
    if not options.no_browser:
        webbrowser.open(server.url)
    try:
        server.serve_forever()
    except KeyboardInterrupt:
        print('ended; the labels are in', options.labels)
    finally:
        server.server_close()
        application.close()
    return 0


def _rejections_file(options: Namespace) -> Path:
    name = fingerprint({'labels': str(options.labels.resolve())})
    return _cache(options) / 'rejected' / f'{name}.json'


def _cache(options: Namespace) -> Path:
    return Path(options.cache or Path('.cache') / 'label')


def _proposer(options: Namespace, store: LabelStore, topics: Mapping[str, str]) -> Proposer:
    from karmma_ros.labelling.proposals import Proposer  # it loads PyTorch

    return Proposer(
        open_model(options.model, '--model'), store.heads, _cache(options), topics)


def _server(application: LabelApplication, port: int) -> PageServer:
    if not 0 <= port <= 65535:
        raise InvalidSettingError('--port', port, 'a number from 0 to 65535')
    try:
        return PageServer(application, port)
    except OSError as error:
        raise InvalidSettingError('--port', port, 'a free port, or 0 for any', str(
            error.strerror)) from None
