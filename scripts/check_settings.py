"""Say in one paragraph what is wrong with the settings of a run, before any chapter starts.

Reads the environment as the book does, and fetches the data set where it must be downloaded.
"""

from __future__ import annotations

import sys

from scanvi_tutorial.config import RunConfig


def main() -> None:
    """Exit with the message of whatever would stop the first chapter."""
    try:
        run = RunConfig.from_env()
        from scanvi_tutorial.data import load
        from scanvi_tutorial.data.registry import REGISTRY

        if REGISTRY[run.dataset].download:
            load(run.dataset)
    except (ValueError, OSError) as error:
        sys.exit(str(error))
    print(f"Data set {run.dataset}, {'short' if run.smoke else 'full'} profile.")


if __name__ == "__main__":
    main()
