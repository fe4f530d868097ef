"""
What the page requests: recordings, their frames and labels. Nothing here knows HTTP.

Each request has a path and parameters as texts; each response is JSON-ready or bytes.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
import json
from math import inf
from pathlib import Path
from threading import Lock
import traceback
from typing import Any, TYPE_CHECKING
from urllib.parse import quote

from karmma_ros.data.labels.label_export import SUFFIXES, WRITERS
from karmma_ros.errors import DISK_FULL, InvalidSettingError, KarmmaError
from karmma_ros.labelling.bag_view import AT, BagView
from karmma_ros.labelling.label_store import ConflictError, EditedLabel, LabelStore
from karmma_ros.labelling.rejections import Rejection, Rejections
from karmma_ros.labelling.signals import MOST_COLUMNS
from karmma_ros.modality import Modality, registered_types
from karmma_ros.stream.settings import node_parameters

if TYPE_CHECKING:  # it loads PyTorch
    from karmma_ros.labelling.proposals import Proposer

JSON_TYPE, JPEG_TYPE = 'application/json', 'image/jpeg'
BACKGROUND = 'nothing'
"""Class that stands for no action, as `data.recordings` and `data.manifest` read it."""

EXPORT_SUFFIXES = {name: suffix for suffix, name in SUFFIXES.items()}
"""Format → suffix; others are JSON."""
_MOST_OPEN = 6
"""Bags that are open at once."""
_MOST_AUDIO_S = 30.0


@dataclass(frozen=True)
class Response:
    """A response: its content is JSON-ready, or bytes of the type given."""

    content: Any
    status: HTTPStatus = HTTPStatus.OK
    type: str = JSON_TYPE
    headers: Mapping[str, str] = field(default_factory=dict)

    def body(self) -> bytes:
        """Return the bytes."""
        if isinstance(self.content, bytes):
            return self.content
        return json.dumps(self.content, ensure_ascii=False, separators=(',', ':')).encode()


class UnknownNameError(KarmmaError):
    """There is no such page or recording."""


@dataclass(frozen=True)
class LabelSettings:
    """What the page labels, and how."""

    topics: Mapping[str, str] = field(default_factory=dict)
    """Role → topic, where the user names it."""
    background: str = BACKGROUND
    values: Mapping[str, Any] = field(default_factory=lambda: node_parameters(
        None, map(Modality, registered_types())))
    """The node's parameters by name."""


class LabelApplication:
    """The recordings and their label file, for any number of pages."""

    def __init__(
        self, recordings: Mapping[str, Path], store: LabelStore,
        settings: LabelSettings | None = None, proposer: Proposer | None = None,
        rejections: Rejections | None = None,
    ) -> None:
        """
        Take the recordings, without opening them.

        :param recordings: name → bag.
        :param proposer: proposes labels; None for no model.
        :param rejections: of proposals; None: they are kept until the command ends.
        """
        self._paths, self._store, self._proposer = dict(recordings), store, proposer
        self._rejections = rejections or Rejections()
        self._settings = LabelSettings() if settings is None else settings
        self._views: OrderedDict[str, BagView] = OrderedDict()
        self._lock = Lock()
        self._get: dict[str, Callable[[Mapping[str, str]], Response]] = {
            'state': self._state, 'recording': self._recording, 'frame': self._frame,
            'labels': self._labels, 'signals': self._signals, 'spectrogram': self._spectrogram,
            'audio': self._audio, 'proposals': self._proposals, 'export': self._export}

    def get(self, name: str, parameters: Mapping[str, str]) -> Response:
        """Return the response to a request that changes nothing."""
        return _guarded(lambda: self._handler(name)(parameters))

    def post(self, name: str, given: Any) -> Response:
        """Return the response to a request that changes the label file."""
        save = {'labels': self._save, 'rejections': self._reject}.get(name)
        return _guarded(lambda: _none(name) if save is None else save(given))

    def close(self) -> None:
        """Close the bags, and end what is computed."""
        if self._proposer is not None:
            self._proposer.stop()
        with self._lock:
            for view in self._views.values():
                view.close()
            self._views.clear()

    def _handler(self, name: str) -> Callable[[Mapping[str, str]], Response]:
        return self._get[name] if name in self._get else lambda parameters: _none(name)

    def _view(self, name: str) -> BagView:
        if name not in self._paths:
            raise UnknownNameError(f'there is no recording {name!r}; expected '
                                + ', '.join(list(self._paths)[:8]))
        with self._lock:
            if name not in self._views:
                self._views[name] = BagView(
                    self._paths[name], self._settings.values, self._settings.topics,
                    tuple(self._paths.values()))
                if len(self._views) > _MOST_OPEN:
                    self._views.popitem(last=False)[1].close()
            self._views.move_to_end(name)
            return self._views[name]

    def _length_s(self, name: str) -> float:
        try:
            return self._view(name).length_s
        except KarmmaError:  # of a bag that cannot be read it is not known
            return inf

    def _state(self, parameters: Mapping[str, str]) -> Response:
        counts = self._store.counts()
        return Response({
            'file': self._store.path.name, 'heads': list(self._store.heads),
            'background': self._settings.background, 'model': self._proposer is not None,
            'recordings': [{'name': name} for name in self._paths],
            'classes': [{'names': list(names), 'counts': dict(each)}
                        for names, each in counts.items()]})

    def _recording(self, parameters: Mapping[str, str]) -> Response:
        name = _given(parameters, 'name')
        view = self._view(name)
        return Response({'name': name, 'length': view.length_s, 'cameras': list(view.cameras),
                         'audio': view.has_audio, 'notes': list(view.notes),
                         **self._store.load(name).to_dict()})

    def _labels(self, parameters: Mapping[str, str]) -> Response:
        return Response(self._store.load(_given(parameters, 'name')).to_dict())

    def _frame(self, parameters: Mapping[str, str]) -> Response:
        view = self._view(_given(parameters, 'name'))
        frame = view.frame(_given(parameters, 'camera'), _number(parameters, 'time'),
                           parameters.get('which', AT))
        if frame is None:
            raise UnknownNameError('there is no frame near this time')
        return Response(frame.jpeg, HTTPStatus.OK, JPEG_TYPE,
                        {'X-Frame-Time': repr(frame.time_s)})

    def _signals(self, parameters: Mapping[str, str]) -> Response:
        view, interval = self._view(_given(parameters, 'name')), _interval(parameters)
        view.signals.start()
        return Response(view.signals.to_dict(*interval))

    def _spectrogram(self, parameters: Mapping[str, str]) -> Response:
        view = self._view(_given(parameters, 'name'))
        image = view.signals.spectrogram(*_interval(parameters))
        return Response(image, type='image/png')

    def _audio(self, parameters: Mapping[str, str]) -> Response:
        view = self._view(_given(parameters, 'name'))
        start_s, stop_s = _number(parameters, 'start'), _number(parameters, 'stop')
        if not start_s < stop_s <= start_s + _MOST_AUDIO_S:
            raise InvalidSettingError('stop', stop_s, f'up to {_MOST_AUDIO_S:g} s after start')
        wav = view.wav(start_s, stop_s)
        if wav is None:
            raise UnknownNameError('there is no audio at this time')
        return Response(wav, type='audio/wav')

    def _proposals(self, parameters: Mapping[str, str]) -> Response:
        name = _given(parameters, 'name')
        if self._proposer is None or name not in self._paths:
            raise UnknownNameError('there are no proposals without --model')
        state = self._proposer.of(self._paths[name]).to_dict()
        return Response({**state, 'proposals': self._rejections.left(name, state['proposals'])})

    def _reject(self, given: Any) -> Response:
        """Keep that a proposal was rejected."""
        if not isinstance(given, dict) or given.get('name') not in self._paths:
            raise InvalidSettingError('request', type(given).__name__,
                                      'an object with the name of a recording and a proposal')
        self._rejections.add(given['name'], Rejection.parse(given.get('proposal')))
        return Response({})

    def _export(self, parameters: Mapping[str, str]) -> Response:
        format_name, name = _given(parameters, 'format'), parameters.get('name', '')
        if format_name not in WRITERS:
            raise InvalidSettingError('format', format_name, ', '.join(WRITERS))
        labels = [x for x in self._store.labels() if name in ('', x.recording)]
        if not labels:
            raise UnknownNameError(f'there are no labels to export of {name or "any recording"}')
        stem = name or self._store.path.stem
        quoted = quote(f'{stem}{EXPORT_SUFFIXES.get(format_name, ".json")}')
        return Response(
            WRITERS[format_name](labels).encode(), type='application/octet-stream',
            headers={'Content-Disposition': f"attachment; filename*=UTF-8''{quoted}"})

    def _save(self, given: Any) -> Response:
        if not isinstance(given, dict) or not isinstance(given.get('labels'), list):
            raise InvalidSettingError('request', type(given).__name__,
                                      'an object with name, revision and labels')
        name, revision = str(given.get('name')), str(given.get('revision'))
        if name not in self._paths:
            raise UnknownNameError(f'there is no recording {name!r}')
        labels = [EditedLabel.parse(each, self._store.heads) for each in given['labels']]
        self._store.check_ends(labels, self._length_s(name))
        try:
            return Response(self._store.save(name, revision, labels).to_dict())
        except ConflictError as error:
            return Response({'error': str(error), **self._store.load(name).to_dict()},
                            HTTPStatus.CONFLICT)


def _guarded(respond: Callable[[], Response]) -> Response:
    """Return the response, or one that states what is wrong."""
    try:
        return respond()
    except UnknownNameError as error:
        return Response({'error': str(error)}, HTTPStatus.NOT_FOUND)
    except KarmmaError as error:
        return Response({'error': str(error)}, HTTPStatus.BAD_REQUEST)
    except OSError as error:
        if error.errno in DISK_FULL:
            return Response({'error': 'the disk is full: free some space; the changes stay in '
                             'this page and are written then'}, HTTPStatus.INSUFFICIENT_STORAGE)
        return Response({'error': f'{error.filename or "a file"}: {error.strerror or error}'},
                        HTTPStatus.INTERNAL_SERVER_ERROR)
    except Exception as error:  # one bad request must not end all others
        traceback.print_exc()
        return Response({'error': f'{type(error).__name__}: {error}'},
                        HTTPStatus.INTERNAL_SERVER_ERROR)


def _none(name: str) -> Response:
    raise UnknownNameError(f'there is nothing named {name!r}')


def _given(parameters: Mapping[str, str], name: str) -> str:
    if name not in parameters:
        raise InvalidSettingError(name, None, 'a parameter of the request')
    return parameters[name]


def _interval(parameters: Mapping[str, str]) -> tuple[float, float, int]:
    start_s, stop_s = _number(parameters, 'start'), _number(parameters, 'stop')
    if not start_s < stop_s:
        raise InvalidSettingError('stop', stop_s, f'a time after start, {start_s:g} s')
    return start_s, stop_s, max(1, int(_number(parameters, 'columns', MOST_COLUMNS)))


def _number(parameters: Mapping[str, str], name: str, most: float = 1e9) -> float:
    text = _given(parameters, name)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise InvalidSettingError(name, text, f'a number from 0 to {most:g}')
    return value


