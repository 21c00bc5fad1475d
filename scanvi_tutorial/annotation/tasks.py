"""Fits as joblib tasks, in parallel on this machine or on a cluster that the caller has set (book/14_scale.md).

Inside `joblib.parallel_config(backend="dask")`, or Ray's, tasks go to its workers; otherwise to processes of this
machine. A task whose process is killed runs again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import joblib
from joblib.externals.loky.process_executor import TerminatedWorkerError

_TRIES = 3  # dask's own workers may also die three times on a task


def run_tasks(work: Callable[..., Any], tasks: Sequence[tuple[Any, ...]], jobs: int) -> Iterator[tuple[int, Any]]:
    """Call `work` with the arguments of each task; yield the number of a task and its result as soon as it is there.

    Each task is sent with its arguments, so that it can go to another worker where one dies.

    Args:
        work: A function of a module, since it runs in other processes.
        tasks: Arguments of each call.
        jobs: How many processes of this machine work at once; a cluster works with all it has.

    Raises:
        ChildProcessError: Where processes of this machine were killed three times, before the rest was done.
    """
    left = dict(enumerate(tasks))
    for _ in range(_TRIES):
        # nothing is mapped into memory: SciPy cannot sort a sparse matrix in place that lies in a read-only map
        run = joblib.Parallel(jobs, return_as="generator_unordered", max_nbytes=None)
        try:
            for number, result in run(joblib.delayed(_numbered)(work, *task) for task in [*left.items()]):
                del left[number]
                yield number, result
        except TerminatedWorkerError as error:
            killed = error
        else:
            return
    raise ChildProcessError(
        f"Processes were killed {_TRIES} times, and {len(left)} of {len(tasks)} fits are not done. Most often memory "
        f"was short: say jobs={max(1, jobs // 2)} (--jobs) for fewer of them at once."
    ) from killed


def _numbered(work: Callable[..., Any], number: int, arguments: tuple[Any, ...]) -> tuple[int, Any]:
    return number, work(*arguments)
