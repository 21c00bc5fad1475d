"""Downloads, tried against a server on loopback that misbehaves in every way a server can."""

from __future__ import annotations

import hashlib
import logging
import multiprocessing
import socket
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pooch
import pytest

from scanvi_tutorial.config import RunConfig
from scanvi_tutorial.data.download import FILES, DownloadError, RemoteFile, fetch

module = sys.modules[fetch.__module__]  # whose name the function bears too
NAME = "small.bin"
BODY = np.random.default_rng(0).bytes(200_000)
WRONG = bytes(len(BODY))  # of the right size, so that only the checksum can tell
PATIENCE = 300  # seconds for a process that has to import everything on a busy machine
DATA_DIR = RunConfig.from_env().data_dir  # read before the fixture below hides it


@dataclass(frozen=True)
class Reply:
    """One answer of a server; fewer bytes than promised make a broken transfer."""

    body: bytes = BODY
    status: int = 200
    promised: int | None = None  # Content-Length; None tells the truth


class Source(ThreadingHTTPServer):
    """Gives the next of its replies to each request, the last one for ever, and counts the requests."""

    daemon_threads = True

    def __init__(self, *replies: Reply) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.replies, self.asked = list(replies), 0
        self.halfway: Callable[[], object] = lambda: None  # called when half the body is on its way
        self.url = f"http://127.0.0.1:{self.server_port}/{NAME}"


class _Handler(BaseHTTPRequestHandler):
    server: Source

    def do_GET(self) -> None:
        self.server.asked += 1
        reply = self.server.replies.pop(0) if len(self.server.replies) > 1 else self.server.replies[0]
        self.send_response(reply.status)
        self.send_header("Content-Length", str(len(reply.body) if reply.promised is None else reply.promised))
        self.end_headers()
        half = len(reply.body) // 2
        try:
            self.wfile.write(reply.body[:half])
            self.wfile.flush()
            self.server.halfway()
            self.wfile.write(reply.body[half:])
        except ConnectionError:  # the client was killed: what one test is about
            pass

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def serve() -> Iterator[Callable[..., Source]]:
    sources: list[Source] = []

    def start(*replies: Reply) -> Source:
        source = Source(*(replies or (Reply(),)))
        threading.Thread(target=source.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        sources.append(source)
        return source

    yield start
    for source in sources:
        source.shutdown()
        source.server_close()


@pytest.fixture
def no_server() -> str:
    """An address on which nothing listens."""
    with socket.socket() as s:
        s.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{s.getsockname()[1]}/{NAME}"


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache of this test alone; no waiting between attempts, no bar, no proxy."""
    folder = tmp_path / "cache"
    monkeypatch.setattr(module.pooch, "os_cache", lambda _: folder)
    monkeypatch.setattr("pooch.core.time", SimpleNamespace(sleep=lambda _: None))
    monkeypatch.setenv("TQDM_DISABLE", "1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    monkeypatch.delenv("SCANVI_DATA_DIR", raising=False)
    return folder


@pytest.fixture
def remote(monkeypatch: pytest.MonkeyPatch) -> Callable[..., RemoteFile]:
    """Make BODY a known file, to be had at the given addresses."""

    def register(*urls: str) -> RemoteFile:
        file = RemoteFile(hashlib.sha256(BODY).hexdigest(), len(BODY), urls)
        monkeypatch.setitem(FILES, NAME, file)
        return file

    return register


def contents(folder: Path) -> set[str]:
    """Names in a folder, the lock aside."""
    return {p.name for p in folder.iterdir()} - {f".{NAME}.lock"}


# --- where a file comes from ----------------------------------------------------------------------


def test_a_good_source_fills_the_cache_of_the_user(serve, remote, cache):
    remote(serve().url)
    path = fetch(NAME)
    assert path == cache / NAME
    assert path.read_bytes() == BODY
    assert contents(cache) == {NAME}


def test_a_second_call_asks_nobody(serve, remote):
    source = serve()
    remote(source.url)
    assert fetch(NAME) == fetch(NAME)
    assert source.asked == 1


def test_a_chosen_folder_that_can_be_written_overrides_the_cache(serve, remote, cache, tmp_path):
    remote(serve().url)
    assert fetch(NAME, data_dir=tmp_path / "made" / "for me").read_bytes() == BODY
    assert contents(tmp_path / "made" / "for me") == {NAME}
    assert not cache.exists()


def test_the_environment_chooses_the_folder(serve, remote, tmp_path, monkeypatch):
    remote(serve().url)
    monkeypatch.setenv("SCANVI_DATA_DIR", str(tmp_path / "mine"))
    assert fetch(NAME) == tmp_path / "mine" / NAME


def test_a_file_placed_by_hand_is_used_as_it_lies(remote, no_server, tmp_path, cache):
    remote(no_server)
    (tmp_path / NAME).write_bytes(BODY)
    assert fetch(NAME, data_dir=tmp_path) == tmp_path / NAME
    assert not cache.exists()


def test_an_intact_copy_in_the_cache_spares_a_download_into_the_chosen_folder(remote, no_server, tmp_path, cache):
    remote(no_server)
    cache.mkdir()
    (cache / NAME).write_bytes(BODY)
    assert fetch(NAME, data_dir=tmp_path / "empty") == cache / NAME


# --- folders that are read-only -------------------------------------------------------------------


@pytest.fixture
def read_only(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "read-only"
    folder.mkdir()
    yield folder
    folder.chmod(0o755)


def test_a_file_in_a_read_only_folder_is_used_and_nothing_is_written(remote, no_server, read_only):
    remote(no_server)
    (read_only / NAME).write_bytes(BODY)
    read_only.chmod(0o555)
    before = read_only.stat().st_mtime_ns
    assert fetch(NAME, data_dir=read_only) == read_only / NAME
    assert read_only.stat().st_mtime_ns == before
    assert {p.name for p in read_only.iterdir()} == {NAME}


@pytest.mark.parametrize("there", [None, WRONG], ids=["missing", "damaged"])
def test_what_a_read_only_folder_lacks_goes_to_the_cache(serve, remote, read_only, cache, there):
    remote(serve().url)
    if there:
        (read_only / NAME).write_bytes(there)
    read_only.chmod(0o555)
    before = read_only.stat().st_mtime_ns
    assert fetch(NAME, data_dir=read_only) == cache / NAME
    assert read_only.stat().st_mtime_ns == before


def test_without_any_folder_to_write_the_error_says_so(serve, remote, read_only, monkeypatch):
    source = serve()
    file = remote(source.url)
    read_only.chmod(0o555)
    monkeypatch.setattr(module.pooch, "os_cache", lambda _: read_only / "cache")
    with pytest.raises(DownloadError, match="cannot be written") as caught:
        fetch(NAME, data_dir=read_only)
    assert all(s in str(caught.value) for s in ("SCANVI_DATA_DIR", file.sha256, source.url, str(read_only / NAME)))
    assert source.asked == 0


# --- sources that misbehave -----------------------------------------------------------------------


def test_a_server_error_is_tried_again(serve, remote):
    source = serve(Reply(b"busy", 500), Reply(b"busy", 503), Reply())
    remote(source.url)
    assert fetch(NAME).read_bytes() == BODY
    assert source.asked == 3


def test_a_transfer_that_breaks_off_is_tried_again(serve, remote):
    source = serve(Reply(BODY[: len(BODY) // 3], promised=len(BODY)), Reply())
    remote(source.url)
    assert fetch(NAME).read_bytes() == BODY
    assert source.asked == 2


BAD = {
    "broken off": (Reply(BODY[:1000], promised=len(BODY)), "broke off"),
    "cut short": (Reply(BODY[:-1]), "checksum"),
    "wrong bytes": (Reply(WRONG), "checksum"),
    "server error": (Reply(b"no", 500), "500"),
    "not found": (Reply(b"no", 404), "404"),
}


@pytest.mark.parametrize(("reply", "reason"), BAD.values(), ids=BAD)
def test_a_bad_source_leaves_nothing_behind_and_is_named(serve, remote, cache, reply, reason):
    source = serve(reply)
    remote(source.url)
    with pytest.raises(DownloadError, match=reason) as caught:
        fetch(NAME)
    assert source.url in str(caught.value)
    assert contents(cache) == set()


@pytest.mark.parametrize(("reply", "_"), BAD.values(), ids=BAD)
def test_the_second_source_makes_up_for_a_bad_first(serve, remote, reply, _):
    first, second = serve(reply), serve()
    remote(first.url, second.url)
    assert fetch(NAME).read_bytes() == BODY
    assert (first.asked, second.asked) == (module.RETRIES + 1, 1)


def test_the_second_source_makes_up_for_one_that_is_down(serve, remote, no_server):
    second = serve()
    remote(no_server, second.url)
    assert fetch(NAME).read_bytes() == BODY
    assert second.asked == 1


def test_a_good_first_source_spares_the_second(serve, remote):
    first, second = serve(), serve()
    remote(first.url, second.url)
    fetch(NAME)
    assert (first.asked, second.asked) == (1, 0)


def test_without_a_network_one_paragraph_says_what_to_do(remote, no_server, cache):
    file = remote(no_server, no_server + "?again")
    with pytest.raises(DownloadError) as caught:
        fetch(NAME)
    text = str(caught.value)
    assert "\n" not in text
    assert all(f"{url} (no connection)" in text for url in file.urls)
    assert f"by hand: download one of these addresses with a browser and save it as {cache / NAME}" in text
    assert file.sha256 in text
    assert "lies there now" not in text


def test_what_the_error_says_to_do_by_hand_works(remote, no_server):
    remote(no_server)
    with pytest.raises(DownloadError) as caught:
        fetch(NAME)
    target = Path(str(caught.value).split("save it as ")[1].split(" (SHA-256")[0])
    target.write_bytes(BODY)
    assert fetch(NAME) == target


# --- copies that went bad -------------------------------------------------------------------------


@pytest.mark.parametrize("damaged", [b"", BODY[:-1], WRONG], ids=["empty", "truncated", "wrong bytes"])
def test_a_damaged_copy_is_fetched_again(serve, remote, cache, damaged):
    source = serve()
    remote(source.url)
    cache.mkdir()
    (cache / NAME).write_bytes(damaged)
    assert fetch(NAME).read_bytes() == BODY
    assert source.asked == 1


def test_a_damaged_copy_is_never_returned(remote, no_server, cache):
    remote(no_server)
    cache.mkdir()
    (cache / NAME).write_bytes(WRONG)
    with pytest.raises(DownloadError, match="lies there now is another or damaged"):
        fetch(NAME)


def test_the_final_name_never_holds_half_a_file(serve, remote, cache):
    source, seen = serve(), []
    source.halfway = lambda: seen.append((cache / NAME).exists())
    remote(source.url)
    fetch(NAME)
    assert seen == [False]


def test_others_may_read_what_was_downloaded(serve, remote):
    remote(serve().url)
    assert fetch(NAME).stat().st_mode & 0o777 == 0o644


# --- several processes ----------------------------------------------------------------------------


def _child(folder: Path, file: RemoteFile, start, digests) -> None:
    FILES[NAME] = file
    start.wait()
    digests.put(hashlib.sha256(fetch(NAME, data_dir=folder).read_bytes()).hexdigest())


def test_two_processes_at_once_share_one_download(serve, remote, tmp_path):
    spawn, source = multiprocessing.get_context("spawn"), serve()
    source.halfway = lambda: threading.Event().wait(0.5)  # long enough for the second to arrive in the middle
    file, start, digests = remote(source.url), spawn.Barrier(2), spawn.Queue()
    children = [spawn.Process(target=_child, args=(tmp_path, file, start, digests)) for _ in range(2)]
    for child in children:
        child.start()
    assert [digests.get(timeout=PATIENCE) for _ in children] == [file.sha256] * 2
    for child in children:
        child.join(PATIENCE)
    assert [child.exitcode for child in children] == [0, 0]
    assert source.asked == 1


@pytest.mark.slow
def test_a_process_killed_in_the_middle_does_no_harm(serve, remote, tmp_path):
    spawn, source = multiprocessing.get_context("spawn"), serve()
    half, go_on = threading.Event(), threading.Event()
    source.halfway = lambda: (half.set(), go_on.wait(PATIENCE))
    file, start, digests = remote(source.url), spawn.Barrier(1), spawn.Queue()
    child = spawn.Process(target=_child, args=(tmp_path, file, start, digests))
    child.start()
    assert half.wait(PATIENCE)
    child.kill()
    child.join(PATIENCE)
    go_on.set()
    assert not (tmp_path / NAME).exists()
    assert fetch(NAME, data_dir=tmp_path).read_bytes() == BODY


# --- what is shown --------------------------------------------------------------------------------


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """Keep the lines that pooch logs and the totals of the bars that it draws."""
    kept = SimpleNamespace(lines=[], totals=[])

    class Bar:
        def __init__(self, total: int, **_: object) -> None:
            kept.totals.append(total)

        def update(self, _: int) -> None: ...
        def reset(self) -> None: ...
        def close(self) -> None: ...

    handler = logging.Handler()
    handler.emit = lambda record: kept.lines.append(record.getMessage())
    monkeypatch.setattr("pooch.downloaders.tqdm", Bar)  # tqdm itself asks the environment once, when it is imported
    pooch.get_logger().addHandler(handler)
    yield kept
    pooch.get_logger().removeHandler(handler)


def test_a_quiet_run_shows_nothing(serve, remote, shown, capsys):
    remote(serve(Reply(b"busy", 500), Reply()).url)
    fetch(NAME)
    assert (shown.lines, shown.totals) == ([], [])
    assert capsys.readouterr() == ("", "")


def test_otherwise_a_line_says_what_is_fetched_and_a_bar_how_far_it_is(serve, remote, shown, monkeypatch):
    monkeypatch.setenv("TQDM_DISABLE", "0")
    source = serve()
    remote(source.url)
    fetch(NAME)
    assert source.url in shown.lines[0]
    assert shown.totals == [len(BODY)]


# --- what is known --------------------------------------------------------------------------------


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ValueError, match=r"'cells\.h5ad'.*PurifiedPBMCDataset.h5ad, pbmc_facs.RData"):
        fetch("cells.h5ad")


@pytest.mark.parametrize("name", ["PurifiedPBMCDataset.h5ad", "pbmc_facs.RData"])
def test_every_known_file_has_two_sources_that_encrypt(name):
    file = FILES[name]
    assert len(bytes.fromhex(file.sha256)) == 32
    assert len(set(file.urls)) >= 2
    assert all(url.startswith("https://") and url.endswith("/" + name) for url in file.urls)


def test_the_sorted_cells_at_hand_are_the_known_ones():
    if DATA_DIR is None or not (DATA_DIR / "pbmc_facs.RData").exists():
        pytest.skip("SCANVI_DATA_DIR names no folder that holds pbmc_facs.RData")
    assert fetch("pbmc_facs.RData", data_dir=DATA_DIR) == DATA_DIR.absolute() / "pbmc_facs.RData"
