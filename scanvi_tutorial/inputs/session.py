"""The caller's settings of torch, NumPy and scikit-learn: computations run under the usual ones, and put them back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import sklearn
import torch

_AS_NUMPY_COMES = {"divide": "warn", "over": "warn", "under": "ignore", "invalid": "warn"}


@contextmanager
def usual_settings() -> Iterator[None]:
    """Compute as in a new session, whatever the caller has set; `@usual_settings()` does so for a function.

    torch makes float32 on the CPU and gradients where asked, NumPy goes on after an underflow, and scikit-learn returns
    arrays.
    """
    dtype, device = torch.get_default_dtype(), torch.get_default_device()
    torch.set_default_dtype(torch.float32)
    if device.type != "cpu":
        torch.set_default_device("cpu")
    try:
        with (
            sklearn.config_context(transform_output="default"),
            np.errstate(**_AS_NUMPY_COMES),
            torch.inference_mode(False),
            torch.enable_grad(),
        ):
            yield
    finally:
        torch.set_default_dtype(dtype)
        if device.type != "cpu":
            torch.set_default_device(device)
