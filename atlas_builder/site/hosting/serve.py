"""A local server of a built site, for this machine only."""

from __future__ import annotations

import functools
import http.server
from collections.abc import Callable
from http import HTTPStatus
from pathlib import Path
from typing import Any

from atlas_builder.errors import ConfigurationError


class _Handler(http.server.SimpleHTTPRequestHandler):
    """Files of the site, and its own page for missing ones."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer a missing page as a static host does, with `404.html`."""
        page = Path(self.directory) / "404.html"
        if code != HTTPStatus.NOT_FOUND or not page.is_file():
            super().send_error(code, message, explain)
            return
        body = page.read_bytes()
        self.send_response(HTTPStatus.NOT_FOUND)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Log nothing."""


def server(folder: Path, port: int) -> http.server.ThreadingHTTPServer:
    """A server of a built site on the loopback address.

    Raises `ConfigurationError` where there is no site or the port cannot be used.
    """
    if not (folder / "index.html").is_file():
        raise ConfigurationError(f"{folder} holds no built site: name the folder of one.")
    try:
        return http.server.ThreadingHTTPServer(("127.0.0.1", port), functools.partial(_Handler, directory=str(folder)))
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
