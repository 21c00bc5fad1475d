"""Downloads, against servers on loopback: which address is asked, what is kept, what an error tells."""

from __future__ import annotations

import functools
import hashlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pooch
import pytest
from tqdm import tqdm

from scanvi_tutorial.config import RunConfig
from scanvi_tutorial.data import download
from scanvi_tutorial.data.download import FILES, DownloadError, fetch

NAME = "small.bin"
BODY = bytes(range(256)) * 100
OTHER = bytes(len(BODY))
SHA256 = hashlib.sha256(BODY).hexdigest()
DATA_DIR = RunConfig.from_env().data_dir  # read before the fixture below replaces it


@pytest.fixture
def serve() -> Iterator[Callable[..., tuple[str, list[str]]]]:
    """Start a server that gives one answer to all; return its address and a list that its requests are added to."""
    with ExitStack() as stack:

        def start(body: bytes = BODY, status: int = 200) -> tuple[str, list[str]]:
            requests: list[str] = []

            class Handler(BaseHTTPRequestHandler):
                def do_GET(self) -> None:
                    requests.append(self.path)
                    self.send_response(status)
                    self.send_header("Content-Length", str(len(body)))
                    self.end_headers()
                    self.wfile.write(body)

                def log_message(self, *_: object) -> None:
                    pass

            server = stack.enter_context(ThreadingHTTPServer(("127.0.0.1", 0), Handler))
            threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
            stack.callback(server.shutdown)
            return f"http://127.0.0.1:{server.server_port}/{NAME}", requests

        yield start


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Name a folder for downloads that does not exist yet, and have no second attempt, no bar and no proxy."""
    monkeypatch.setattr(download, "RETRIES", 0)
    for name, value in {"SCANVI_DATA_DIR": tmp_path / "data", "TQDM_DISABLE": 1, "no_proxy": "127.0.0.1"}.items():
        monkeypatch.setenv(name, str(value))
    return tmp_path / "data"


@pytest.fixture
def known(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Make BODY a known file, to be had at the given addresses."""
    return lambda *urls: monkeypatch.setitem(FILES, NAME, (SHA256, urls))


def test_a_download_is_kept_in_the_folder_of_the_environment(serve, known, folder):
    (first, asked), (second, asked_second) = serve(), serve()
    known(first, second)
    assert fetch(NAME) == fetch(NAME) == folder / NAME
    assert (folder / NAME).read_bytes() == BODY
    assert (len(asked), len(asked_second)) == (1, 0)


def test_without_a_chosen_folder_it_is_kept_in_a_cache_of_the_user(serve, known, tmp_path, monkeypatch):
    known(serve()[0])
    monkeypatch.delenv("SCANVI_DATA_DIR")
    monkeypatch.setattr(pooch, "os_cache", lambda project: tmp_path / "cache" / project)
    assert fetch(NAME) == tmp_path / "cache" / "scanvi_tutorial" / NAME


@pytest.mark.parametrize("answer", [(b"no such file", 404), (OTHER, 200)], ids=["404", "other bytes"])
def test_the_second_address_is_asked_when_the_first_fails(serve, known, answer):
    known(serve(*answer)[0], serve()[0])
    assert fetch(NAME).read_bytes() == BODY


def test_an_intact_copy_in_the_folder_given_is_used_without_a_request(serve, known, tmp_path, folder):
    url, requests = serve()
    known(url)
    (tmp_path / NAME).write_bytes(BODY)
    assert fetch(NAME, data_dir=tmp_path) == tmp_path / NAME
    assert not requests
    assert not folder.exists()


def test_a_damaged_copy_is_replaced(serve, known, folder):
    known(serve()[0])
    folder.mkdir()
    (folder / NAME).write_bytes(OTHER)
    assert fetch(NAME).read_bytes() == BODY


def test_the_error_says_why_every_address_failed_and_what_to_do(serve, known, folder):
    (missing, _), (other, _) = serve(b"no such file", 404), serve(OTHER)
    silent = f"http://127.0.0.1:1/{NAME}"  # nothing listens there
    known(missing, other, silent)
    with pytest.raises(DownloadError) as caught:
        fetch(NAME)
    text = str(caught.value)
    assert f"{missing} (the server answered 404)" in text
    assert f"{other} (the file there has another SHA-256)" in text
    assert f"{silent} (no complete answer: ConnectionError)" in text
    assert f"save it as {folder / NAME} (SHA-256 {SHA256})" in text
    (folder / NAME).write_bytes(BODY)  # what the error says to do
    assert fetch(NAME) == folder / NAME


def test_a_folder_that_cannot_be_made_gives_the_same_error(serve, known, tmp_path):
    known(serve()[0])
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(DownloadError, match=r"Not a directory.*SCANVI_DATA_DIR chooses another folder"):
        fetch(NAME, data_dir=tmp_path / "file" / "data")


def test_a_quiet_run_prints_nothing_and_another_shows_its_progress(serve, known, tmp_path, monkeypatch, capfd):
    monkeypatch.setattr(pooch.get_logger().handlers[0], "stream", sys.stderr)  # it keeps that of its import
    monkeypatch.setattr("pooch.downloaders.tqdm", functools.partial(tqdm, disable=False))  # whatever was set at import
    known(serve()[0])
    fetch(NAME)
    assert capfd.readouterr() == ("", "")
    monkeypatch.setenv("TQDM_DISABLE", "0")
    fetch(NAME, data_dir=tmp_path / "elsewhere")
    shown = capfd.readouterr().err
    assert "Downloading file" in shown
    assert "100%" in shown


def test_the_sorted_cells_at_hand_are_the_known_ones():
    if DATA_DIR is None or not (DATA_DIR / "pbmc_facs.RData").exists():
        pytest.skip("SCANVI_DATA_DIR names no folder that holds pbmc_facs.RData")
    digest = hashlib.sha256((DATA_DIR / "pbmc_facs.RData").read_bytes()).hexdigest()  # fetch() would replace another
    assert digest == FILES["pbmc_facs.RData"][0]
