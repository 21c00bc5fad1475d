"""Settings of every test run: the smoke profile, one thread a process, figures drawn to memory.

Kernels that nbmake starts and workers of pytest-xdist inherit the environment. Whoever wants a full run of the chapters
says `SCANVI_SMOKE=0`.
"""

import os
from pathlib import Path

import matplotlib

SHARED_DATA = Path(__file__).resolve().parent.parent / "shared" / "data"

for name, value in {
    "SCANVI_SMOKE": "1",
    "OMP_NUM_THREADS": "1",  # two tests or chapters at once are faster than two threads each
    "TQDM_DISABLE": "1",
}.items():
    os.environ.setdefault(name, value)
if SHARED_DATA.is_dir():
    os.environ.setdefault("SCANVI_DATA_DIR", str(SHARED_DATA))

matplotlib.use("Agg")  # here, not through the environment: chapters draw into their notebooks
