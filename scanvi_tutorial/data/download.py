"""Downloads of data sets to one folder, with a check of SHA-256 and alternative addresses."""

from __future__ import annotations

from os import PathLike
from pathlib import Path

import pooch

from scanvi_tutorial.config import RunConfig

RETRIES = 2  # further attempts at one address before the next is asked

_FASTTOPICS = "8406f5f4de379e7ff8b43ecfee93cca42a8e7a57"  # the commit, so that the file never changes under its address


class DownloadError(OSError):
    """No address gave the file; the text says which were asked, and how to put the file in place by hand."""


FILES: dict[str, tuple[str, list[str]]] = {  # SHA-256 of the file, hexadecimal, and addresses in the order of asking
    "PurifiedPBMCDataset.h5ad": (
        "a12d04b1c36d285a9f039cefe027788bc9c9db88c7858ef49579e2bf7f04381c",
        [
            "https://exampledata.scverse.org/scvi-tools/PurifiedPBMCDataset.h5ad",
            "https://github.com/YosefLab/scVI-data/raw/master/PurifiedPBMCDataset.h5ad",
        ],
    ),
    "pbmc_facs.RData": (
        "90ae0879b8c7ba4d456f9a0d1be964213b0dda6788a7b05b48d867b9f76f2946",
        [
            f"https://github.com/stephenslab/fastTopics/raw/{_FASTTOPICS}/data/pbmc_facs.RData",
            f"https://raw.githubusercontent.com/stephenslab/fastTopics/{_FASTTOPICS}/data/pbmc_facs.RData",
        ],
    ),
}


def data_folder(data_dir: str | PathLike[str] | None = None) -> Path:
    """Return the folder of downloads: `data_dir`, else `SCANVI_DATA_DIR`, else a cache of this user."""
    folder = data_dir or RunConfig.from_env().data_dir or pooch.os_cache("scanvi_tutorial")
    return Path(folder).expanduser().absolute()


def fetch(name: str, *, data_dir: str | PathLike[str] | None = None) -> Path:
    """Return the path of a file of `FILES` in `data_folder(data_dir)`, downloaded unless an intact copy lies there.

    A folder that holds an intact copy may be read-only.

    Raises:
        DownloadError: When no address gave the file, or the folder cannot be written to.
    """
    sha256, urls = FILES[name]
    folder, quiet = data_folder(data_dir), RunConfig.from_env().quiet
    pooch.get_logger().disabled = quiet  # it says "Downloading file ..." on the way
    close_refusal = {"response": lambda page, **_: None if page.ok else page.close()}  # pooch does not
    downloader = pooch.HTTPDownloader(progressbar=not quiet, hooks=close_refusal)
    failures: list[Exception] = []
    for url in urls:
        source = pooch.create(folder, "", registry={name: sha256}, urls={name: url}, retry_if_failed=RETRIES)
        try:
            return Path(source.fetch(name, downloader=downloader))
        except (OSError, ValueError) as error:
            failures.append(error)
    tried = [f"{url} ({_reason(error)})" for url, error in zip(urls, failures, strict=True)]
    raise DownloadError(
        f"{folder} holds no intact copy of {name}, and none could be downloaded: {', '.join(tried)}. Try again later, "
        f"or download it from one of these addresses with a browser and save it as {folder / name} "
        f"(SHA-256 {sha256}). SCANVI_DATA_DIR chooses another folder."
    ) from failures[-1]


def _reason(error: Exception) -> str:
    if isinstance(error, ValueError):  # pooch's, for a wrong digest
        return "the file there has another SHA-256"
    if isinstance(error, PermissionError):
        return "the folder cannot be written to"
    if getattr(error, "response", None) is not None:
        return f"the server answered {error.response.status_code}"
    return error.strerror or f"no complete answer: {type(error).__name__}"
