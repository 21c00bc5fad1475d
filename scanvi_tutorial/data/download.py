"""Bring a data set's file to this computer, and be sure that it is the right one.

Used by the loaders of book/01_data.md; a reader meets it only when a download fails. Every file is known by its
SHA-256, so a copy is as good as another wherever it was found: in the reader's own folder (`SCANVI_DATA_DIR`), which
may be read-only, in the cache of this user, or at one of several addresses. `pooch` downloads, retries, checks and
moves into place.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pooch
import requests
from filelock import FileLock

from scanvi_tutorial.config import RunConfig

__all__ = ["FILES", "DownloadError", "RemoteFile", "fetch"]

RETRIES = 2  # further attempts at one address, one and two seconds apart, before the next is asked
CHUNK = 2**20  # bytes written at a time; pooch's own 1 KiB flushes 150,000 times on the largest file


class DownloadError(OSError):
    """No source gave the file; the text says which were asked, where the file belongs and how to put it there."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file elsewhere: what it must be, and where to ask for it."""

    sha256: str  # hexadecimal digest of the whole file
    size: int  # bytes
    urls: tuple[str, ...]  # asked in this order


_FASTTOPICS = "8406f5f4de379e7ff8b43ecfee93cca42a8e7a57"  # the commit, so that the file never changes under its address

FILES: dict[str, RemoteFile] = {
    "PurifiedPBMCDataset.h5ad": RemoteFile(
        sha256="a12d04b1c36d285a9f039cefe027788bc9c9db88c7858ef49579e2bf7f04381c",
        size=157_053_262,
        urls=(
            "https://exampledata.scverse.org/scvi-tools/PurifiedPBMCDataset.h5ad",
            "https://github.com/YosefLab/scVI-data/raw/master/PurifiedPBMCDataset.h5ad",
        ),
    ),
    "pbmc_facs.RData": RemoteFile(
        sha256="90ae0879b8c7ba4d456f9a0d1be964213b0dda6788a7b05b48d867b9f76f2946",
        size=3_726_660,
        urls=(
            f"https://github.com/stephenslab/fastTopics/raw/{_FASTTOPICS}/data/pbmc_facs.RData",
            f"https://raw.githubusercontent.com/stephenslab/fastTopics/{_FASTTOPICS}/data/pbmc_facs.RData",
        ),
    ),
}


def fetch(name: str, *, data_dir: str | os.PathLike[str] | None = None) -> Path:
    """Return the path of a file of `FILES`, downloaded if no intact copy is at hand.

    Copies are looked for in `data_dir`, then in the cache of this user, and their SHA-256 is checked on every call. A
    download goes to the first of the two that may be written to, through a temporary file, so that what bears the final
    name is always whole; a lock lets one process download while others wait.

    Args:
        name: A name in `FILES`.
        data_dir: A folder to prefer to the cache; None means `SCANVI_DATA_DIR`, if that is set.

    Raises:
        ValueError: For a name that is not in `FILES`.
        DownloadError: When no source gave the file, or there is nowhere to put it.
    """
    if name not in FILES:
        raise ValueError(f"No file of the data sets is called {name!r}. Choose one of {', '.join(FILES)}.")
    file, folders = FILES[name], _folders(data_dir)
    for folder in folders:
        if _intact(folder / name, file):
            return folder / name
    folder = next((f for f in folders if _writable(f)), None)
    if folder is None:
        raise DownloadError(
            f"{name} is not at hand and there is no place to keep it: {_listed(folders)} cannot be written to. Set "
            f"SCANVI_DATA_DIR to a folder that can; or do it by hand: download {' or '.join(file.urls)} with a browser "
            f"and save it as {folders[0] / name} (SHA-256 {file.sha256})."
        )
    folder.mkdir(parents=True, exist_ok=True)
    with FileLock(folder / f".{name}.lock"):
        return _download(name, file, folder)


def _folders(data_dir: str | os.PathLike[str] | None) -> list[Path]:
    """Return the folders a file may lie in, the chosen one first."""
    chosen = RunConfig.from_env().data_dir if data_dir is None else Path(data_dir)
    return [f.expanduser().absolute() for f in (chosen, pooch.os_cache("scanvi_tutorial")) if f is not None]


def _intact(path: Path, file: RemoteFile) -> bool:
    """Tell whether `path` holds exactly `file`; a copy that may not be read counts as none."""
    try:
        return path.stat().st_size == file.size and pooch.file_hash(path) == file.sha256
    except OSError:
        return False


def _writable(folder: Path) -> bool:
    """Tell whether files may be made in `folder`, which need not exist yet."""
    nearest = next((f for f in (folder, *folder.parents) if f.exists()), folder)
    # root passes os.access() on a folder that its owner has marked read-only: respect the mark
    return nearest.is_dir() and bool(nearest.stat().st_mode & 0o222) and os.access(nearest, os.W_OK | os.X_OK)


def _download(name: str, file: RemoteFile, folder: Path) -> Path:
    """Ask one address after the other, but nobody if another process was faster; the caller holds the lock."""
    quiet, failures = RunConfig.from_env().quiet, []
    downloader = pooch.HTTPDownloader(progressbar=not quiet, chunk_size=CHUNK, hooks={"response": _close_refusal})
    for url in file.urls:
        keeper = pooch.Pooch(folder, "", registry={name: file.sha256}, urls={name: url}, retry_if_failed=RETRIES)
        try:
            with _silence_if(quiet):
                return Path(keeper.fetch(name, downloader=downloader, processor=_let_others_read))
        except (OSError, ValueError) as error:  # requests' own errors are among the former, a wrong checksum the latter
            failures.append(error)
    tried = [f"{url} ({_reason(error)})" for url, error in zip(file.urls, failures, strict=True)]
    damaged = " The file that lies there now is another or damaged." if (folder / name).exists() else ""
    raise DownloadError(
        f"{name} ({file.size / 1e6:.3g} MB) could not be downloaded, though every address was tried "
        f"{RETRIES + 1} times: {_listed(tried)}. Look at the network connection and run this again; or do it by hand: "
        f"download one of these addresses with a browser and save it as {folder / name} "
        f"(SHA-256 {file.sha256}).{damaged}"
    ) from failures[-1]


def _let_others_read(path: str, action: str, _keeper: pooch.Pooch) -> str:
    """Open a new file to others: pooch's temporary file is its owner's alone, but a folder of data may be shared."""
    if action != "fetch":
        Path(path).chmod(0o644)
    return path


def _close_refusal(response: requests.Response, **_: object) -> None:
    """Close the connection of an error page, which pooch leaves open for the garbage collector to warn about."""
    if not response.ok:
        response.close()


@contextmanager
def _silence_if(quiet: bool) -> Iterator[None]:
    """Keep pooch's line "Downloading file ..." off the page where bars are off too."""
    logger = pooch.get_logger()  # stands outside logging's hierarchy, where setLevel() does not reset what was cached
    was, logger.disabled = logger.disabled, quiet or logger.disabled
    try:
        yield
    finally:
        logger.disabled = was


def _reason(error: Exception) -> str:
    """Say in a few words why a source failed; the chained error holds the rest."""
    match error:
        case requests.HTTPError():
            return f"the server answered {error.response.status_code}"
        case requests.Timeout():
            return "no answer in time"
        case requests.ConnectionError():
            return "no connection"
        case requests.RequestException():
            return "the transfer broke off"
        case ValueError():
            return "what came has another checksum"
    return str(error)


def _listed(items: list[Path] | list[str]) -> str:
    return " and ".join(map(str, items))
