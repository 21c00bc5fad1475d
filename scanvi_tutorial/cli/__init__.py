"""The command line: annotate a file, keep the model, use it on other cells, look after data and machine.

Explained in book/10_your_data.md. Exit codes: 0 where all went well, 1 where data or files cannot be used (one
paragraph, no traceback), 2 where the command itself was not understood.
"""

from __future__ import annotations

import sys

import click

from scanvi_tutorial.cli.cells import annotate, predict, train
from scanvi_tutorial.cli.info import datasets, doctor

__all__ = ["main"]


@click.group(
    commands=[annotate, train, predict, datasets, doctor], context_settings={"help_option_names": ["-h", "--help"]}
)
@click.version_option(package_name="scanvi-tutorial")
def main() -> None:
    """Name cells from counts and a few labels, with scANVI.

    \b
    Examples:
      scanvi-tutorial annotate cells.h5ad --labels celltype --out named.h5ad --report report.html
      scanvi-tutorial predict new.h5ad --model model.safetensors --out new_named.h5ad
      scanvi-tutorial doctor

    Exit codes: 0, 1 where data or files cannot be used, 2 where the command is not understood.
    """  # noqa: D301 (\b tells click to leave the lines below as they are)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # a name that the terminal cannot show is no reason to stop
