"""
What the page requests: recordings, their frames and labels. Nothing here knows HTTP.

Each request has a path and parameters as texts; each response is JSON-ready or bytes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from http import HTTPStatus
import json
from pathlib import Path
from threading import Lock
from typing import Any

from karmma_ros.errors import DISK_FULL, InvalidSettingError, KarmmaError
from karmma_ros.labelling.bag_view import AT, BagView
from karmma_ros.labelling.label_store import ConflictError, EditedLabel, LabelStore

JSON_TYPE, JPEG_TYPE = 'application/json', 'image/jpeg'
BACKGROUND = 'nothing'
"""Class that stands for no action, as `data.recordings` and `data.manifest` read it."""


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


class LabelApplication:
    """The recordings and their label file, for any number of pages."""

    def __init__(
        self, recordings: Mapping[str, Path], store: LabelStore,
        settings: LabelSettings | None = None,
    ) -> None:
        """
        Take the recordings, without opening them.

        :param recordings: name → bag.
        """
        self._paths, self._store = dict(recordings), store
        self._settings = LabelSettings() if settings is None else settings
        self._views: dict[str, BagView] = {}
        self._lock = Lock()
        self._get: dict[str, Callable[[Mapping[str, str]], Response]] = {
            'state': self._state, 'recording': self._recording, 'frame': self._frame,
            'labels': self._labels}

    def get(self, name: str, parameters: Mapping[str, str]) -> Response:
        """Return the response to a request that changes nothing."""
        return _guarded(lambda: self._handler(name)(parameters))

    def post(self, name: str, given: Any) -> Response:
        """Return the response to a request that changes the label file."""
        return _guarded(lambda: self._save(given) if name == 'labels' else _none(name))

    def close(self) -> None:
        """Close the bags."""
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
                self._views[name] = BagView(self._paths[name], self._settings.topics)
            return self._views[name]

    def _state(self, parameters: Mapping[str, str]) -> Response:
        counts = self._store.counts()
        return Response({
            'file': self._store.path.name, 'heads': list(self._store.heads),
            'background': self._settings.background,
            'recordings': [{'name': name} for name in self._paths],
            'classes': [{'names': list(names), 'counts': dict(each)}
                        for names, each in counts.items()]})

    def _recording(self, parameters: Mapping[str, str]) -> Response:
        name = _given(parameters, 'name')
        view = self._view(name)
        return Response({'name': name, 'length': view.length_s, 'cameras': list(view.cameras),
                         'notes': list(view.notes), **self._store.load(name).to_dict()})

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

    def _save(self, given: Any) -> Response:
        if not isinstance(given, dict) or not isinstance(given.get('labels'), list):
            raise InvalidSettingError('request', type(given).__name__,
                                      'an object with name, revision and labels')
        name, revision = str(given.get('name')), str(given.get('revision'))
        if name not in self._paths:
            raise UnknownNameError(f'there is no recording {name!r}')
        labels = [EditedLabel.parse(each, self._store.heads) for each in given['labels']]
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
        return Response({'error': f'the file cannot be written: {error.strerror or error}'},
                        HTTPStatus.INTERNAL_SERVER_ERROR)


def _none(name: str) -> Response:
    raise UnknownNameError(f'there is nothing named {name!r}')


def _given(parameters: Mapping[str, str], name: str) -> str:
    if name not in parameters:
        raise InvalidSettingError(name, None, 'a parameter of the request')
    return parameters[name]


def _number(parameters: Mapping[str, str], name: str, most: float = 1e9) -> float:
    text = _given(parameters, name)
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value <= most:
        raise InvalidSettingError(name, text, f'a number from 0 to {most:g}')
    return value


