"""Settings of every test run: the smoke profile, one thread a process, figures drawn to memory.

Kernels that nbmake starts and workers of pytest-xdist inherit them. Whoever wants a full run of the chapters says
`SCANVI_SMOKE=0`.
"""

import os
from pathlib import Path

SHARED_DATA = Path(__file__).resolve().parent.parent / "shared" / "data"

for name, value in {
    "SCANVI_SMOKE": "1",
    "OMP_NUM_THREADS": "1",  # two tests or chapters at once are faster than two threads each
    "MPLBACKEND": "Agg",
    "TQDM_DISABLE": "1",
    "PYDEVD_DISABLE_FILE_VALIDATION": "1",  # a debugger's warning at the start of each kernel
}.items():
    os.environ.setdefault(name, value)
if SHARED_DATA.is_dir():
    os.environ.setdefault("SCANVI_DATA_DIR", str(SHARED_DATA))
