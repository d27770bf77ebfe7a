"""A local server of a built site, for this machine only."""

from __future__ import annotations

import functools
import http.server
import ipaddress
import re
import sys
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

from atlas_builder.errors import ConfigurationError

_HALF_ENCODED = re.compile(r"%(?![0-9A-Fa-f]{2})")
_SECONDS = 60
"""How long a connection may be silent."""


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the site, and its own page for missing ones."""

    server_version = "atlas-builder"
    sys_version = ""
    timeout = _SECONDS
    # Those of a site, whatever the machine's own table says of them.
    extensions_map = {  # noqa: RUF012 - as the base class has it
        ".css": "text/css; charset=utf-8",
        ".html": "text/html; charset=utf-8",
        ".js": "text/javascript; charset=utf-8",
        ".json": "application/json",
        ".parquet": "application/x-parquet",
        ".svg": "image/svg+xml",
        ".xml": "application/xml",
        **http.server.SimpleHTTPRequestHandler.extensions_map,
    }

    def send_head(self) -> Any:
        """Answer what is asked of this machine, for a file in the folder."""
        hosts = self.headers.get_all("Host", [])
        if len(hosts) != 1 or not is_here(hosts[0]):
            # A page elsewhere can have its own name resolve to this machine, and read what that serves.
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, explain="This server is for its own machine only.")
            return None
        place = path_of(self.path)
        if place is None:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return None
        if not self._is_published(place):
            self.send_error(HTTPStatus.NOT_FOUND)
            return None
        return super().send_head()

    def list_directory(self, path: Any) -> None:
        """No folder is listed; one without a page is missing."""
        self.send_error(HTTPStatus.NOT_FOUND)

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a missing page as a static host does, with `404.html`."""
        page = Path(self.directory) / "404.html"
        if code != HTTPStatus.NOT_FOUND or not self._is_published(page.name):
            super().send_error(code, message, explain)
            return
        body = page.read_bytes()
        self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def end_headers(self) -> None:
        """A file is what its type says."""
        self.send_header("X-Content-Type-Options", "nosniff")
        super().end_headers()

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""

    def _is_published(self, place: str) -> bool:
        """Whether a path is a file in the folder, or a folder in it with a page, and no link out of it."""
        root = Path(self.directory)
        try:
            found = (root / place).resolve(strict=True)
            if found.is_dir():
                found = (found / "index.html").resolve(strict=True)
            return found.is_relative_to(root) and found.is_file()
        except (OSError, RuntimeError):  # too long a name, a circle of links
            return False


class _Server(http.server.ThreadingHTTPServer):
    """A server that says nothing of connections that broke."""

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exc_info()[1], ConnectionError | TimeoutError):
            super().handle_error(request, client_address)


def is_here(host: str) -> bool:
    """Whether the `Host` of a request names this machine: `localhost` or a loopback address, with or without port."""
    try:
        parts = urlsplit(f"//{host}")
        name = parts.hostname or ""
        if parts.port == 0 or parts.netloc != host or "@" in host:
            return False
        return name == "localhost" or ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


def path_of(target: str) -> str | None:
    """The path in the site that a request's target names; None where it is not one.

    That is: it begins with a slash, its percent-encodings are UTF-8, and no part of it, decoded, is `..`, is empty or
    holds a control character, a slash or a backslash.
    """
    encoded = re.split("[?#]", target, maxsplit=1)[0]
    if not encoded.startswith("/") or _HALF_ENCODED.search(encoded):
        return None
    try:
        parts = [unquote(part, errors="strict") for part in encoded[1:].split("/")]
    except UnicodeDecodeError:
        return None
    for number, part in enumerate(parts, start=1):
        is_last = number == len(parts)
        if part in (".", "..") or (not part and not is_last) or re.search(r"[\x00-\x1f\x7f/\\\ud800-\udfff]", part):
            return None
    return "/".join(parts)


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of a built site on the loopback address.

    Raises `ConfigurationError` where there is no site or the port cannot be used.
    """
    if not (folder / "index.html").is_file():
        raise ConfigurationError(f"{folder} holds no built site: name the folder of one.")
    try:
        return _Server(("127.0.0.1", port), functools.partial(_Handler, directory=str(folder.resolve())))
    except OSError as error:
        raise ConfigurationError(f"--port: {port} cannot be used ({error.strerror}): choose another.") from None


def serve(folder: Path, port: int, say: Callable[[str], None]) -> None:
    """Serve until interrupted."""
    with server(folder, port) as running:
        say(f"http://127.0.0.1:{running.server_port}/  (Ctrl-C stops it)")
        try:
            running.serve_forever()
        except KeyboardInterrupt:
            say("")
