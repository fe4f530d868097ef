"""
The HTTP server of the page, for this machine only.

It listens on the loopback interface. Every address begins with a random token; a request without
it, or for another host (DNS rebinding), is refused. The page may load nothing from elsewhere.
"""

from __future__ import annotations

from collections.abc import Mapping
from hmac import compare_digest
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
import json
from pathlib import Path
from secrets import token_urlsafe
import sys
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from karmma_ros.labelling.application import JSON_TYPE, LabelApplication, Response

HOST = '127.0.0.1'
STATIC = Path(__file__).parent / 'static'
_TYPES = {'.html': 'text/html; charset=utf-8', '.css': 'text/css; charset=utf-8',
          '.js': 'text/javascript; charset=utf-8', '.svg': 'image/svg+xml'}
_HOST_NAMES = frozenset({'127.0.0.1', 'localhost', '[::1]'})
"""With any port: that of a tunnel is another one."""
_MAX_BODY = 32 << 20
_HEADERS = {
    'Content-Security-Policy': "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' blob:; connect-src 'self'; media-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    'Cache-Control': 'no-store', 'Referrer-Policy': 'no-referrer',
    'X-Content-Type-Options': 'nosniff', 'Cross-Origin-Resource-Policy': 'same-origin'}


class PageServer(ThreadingHTTPServer):
    """Serve the page and its requests until `shutdown`."""

    daemon_threads = True

    def __init__(self, application: LabelApplication, port: int = 0) -> None:
        """
        Bind the port; 0 for any that is free.

        :raises OSError: when the port is in use.
        """
        super().__init__((HOST, port), _Handler)
        self.application, self.token = application, token_urlsafe(24)
        self.static = {path.name: (path.read_bytes(), _TYPES[path.suffix])
                       for path in STATIC.iterdir() if path.suffix in _TYPES}

    @property
    def url(self) -> str:
        """Return the address of the page."""
        return f'http://{HOST}:{self.server_port}/{self.token}/'

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a browser that closes a connection; print anything else."""
        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    """One connection."""

    server: PageServer
    protocol_version = 'HTTP/1.1'
    server_version, sys_version = 'karmma', ''
    timeout = 60

    def do_GET(self) -> None:
        """Send a file of the page, or the response to a request that changes nothing."""
        path, parameters = self._path()
        if path is None:
            return
        if path.startswith('api/'):
            self._send(self.server.application.get(path[4:], parameters))
            return
        content = self.server.static.get(path or 'page.html')
        if content is None:
            self._refuse(HTTPStatus.NOT_FOUND, 'there is no such page')
            return
        self._send(Response(content[0], type=content[1]))

    def do_POST(self) -> None:
        """Pass on a request that changes the label file."""
        path, _ = self._path()
        if path is None:
            return
        length = self.headers.get('Content-Length', '')
        if not length.isdecimal() or int(length) > _MAX_BODY:
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, f'at most {_MAX_BODY} bytes')
            return
        if self.headers.get_content_type() != JSON_TYPE:
            self._refuse(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f'expected {JSON_TYPE}')
            return
        try:
            given = json.loads(self.rfile.read(int(length)))
        except (ValueError, RecursionError):  # the latter of deeply nested lists
            self._refuse(HTTPStatus.BAD_REQUEST, 'expected JSON')
            return
        self._send(self.server.application.post(path.removeprefix('api/'), given))

    def _path(self) -> tuple[str | None, Mapping[str, str]]:
        """Return the path after the token and the parameters; None after a refusal."""
        parts = urlsplit(self.path)
        token, _, path = parts.path.lstrip('/').partition('/')
        name = self.headers.get('Host', '').rsplit(':', 1)[0]
        if not compare_digest(token.encode(), self.server.token.encode()):
            self._refuse(HTTPStatus.FORBIDDEN, 'open the address that `karmma label` prints')
        elif name not in _HOST_NAMES:
            self._refuse(HTTPStatus.FORBIDDEN, 'the page is for this machine only')
        else:
            return path, dict(parse_qsl(parts.query))
        return None, {}

    def _refuse(self, status: HTTPStatus, reason: str) -> None:
        self.close_connection = True  # its body was not read
        self._send(Response({'error': reason}, status))

    def _send(self, response: Response) -> None:
        body = response.body()
        self.send_response(response.status)
        self.send_header('Content-Type', response.type)
        self.send_header('Content-Length', str(len(body)))
        for name, value in {**_HEADERS, **response.headers}.items():
            self.send_header(name, value)
        if self.close_connection:
            self.send_header('Connection', 'close')
        self.end_headers()
        if self.command != 'HEAD':
            self.wfile.write(body)

    def log_message(self, format: str, *arguments: Any) -> None:
        """Print nothing: the terminal shows the address."""
