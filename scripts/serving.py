"""A folder of pages served on this machine, and the browser that opens them: for `make pdf` and `make browser`."""

from __future__ import annotations

import functools
import http.server
import os
import shutil
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

FLAGS = [
    "--no-sandbox",  # a container's root has no other sandbox than the container
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]


def chromium() -> str | None:
    """Return the path of the browser that CHROMIUM names, or else of the one that is installed."""
    found = (shutil.which(os.environ.get(name, name)) for name in ("CHROMIUM", "chromium", "chromium-browser"))
    return next((path for path in (*found, shutil.which("google-chrome")) if path), None)


class Handler(http.server.SimpleHTTPRequestHandler):
    """Serves files as GitHub Pages does: in silence, and with 404.html where there is none."""

    protocol_version = "HTTP/1.1"  # one connection for all that a page needs

    def log_message(self, *args: Any) -> None:
        """Say nothing."""

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """Answer with the page for lost readers."""
        lost = Path(self.directory) / "404.html"
        body = lost.read_bytes() if code == 404 and lost.is_file() else b"not here"
        self.send_response(code, message)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)


class Server(http.server.ThreadingHTTPServer):
    """A server whose threads end with the test run."""

    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Let a page be left before all its files have come."""


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """Serve a folder on a free port of this machine and yield its address."""
    with Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()
