"""The command line: annotate files, save and apply models, list and fetch data sets, print versions.

Explained in book/10_your_data.md. Exit codes: 0 for success, 1 if data or files cannot be used (the message is one
paragraph, without a traceback), 2 if the command line is not valid.
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
    """Annotate cells from counts and a few labels, with scANVI.

    \b
    Examples:
      scanvi-tutorial annotate cells.h5ad --labels celltype --out named.h5ad --report report.html
      scanvi-tutorial predict new.h5ad --model model.safetensors --out new_named.h5ad
      scanvi-tutorial doctor

    Exit codes: 0 for success, 1 if data or files cannot be used, 2 if the command line is not valid.
    """  # noqa: D301 (\b tells click to leave the lines below as they are)
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")  # names that the terminal cannot show do not stop the command
