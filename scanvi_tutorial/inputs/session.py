"""The session that we are called in: computations run under the usual settings, whatever the caller has set."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType

import sklearn
import torch


@contextmanager
def usual_settings() -> Iterator[None]:
    """Compute as in a new session, whatever the caller has set; `@usual_settings()` does so for a function.

    torch makes float32 on the CPU and gradients where asked, and scikit-learn returns arrays. The type and the device
    of torch are the process's: do not call from several threads at once.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    if device.type != "cpu":
        torch.set_default_device("cpu")
    try:
        with (
            sklearn.config_context(transform_output="default"),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
        if device.type != "cpu":
            torch.set_default_device(device)


@contextmanager
def one_thread() -> Iterator[None]:
    """Let torch compute on one thread: threads wait for each other at every small operation (book/11_speed.md)."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def scanpy_module() -> ModuleType:
    """Return scanpy, which takes seconds to import, and so is imported where it is needed.

    Its compiled functions are kept in a folder of its own or of the user; where neither can be written to, as in a
    container without a home, in a temporary one.
    """
    try:
        import scanpy
    except RuntimeError as error:
        if "no locator" not in str(error):
            raise
        import numba

        numba.config.CACHE_DIR = tempfile.mkdtemp(prefix="numba-")
        import scanpy
    return scanpy
