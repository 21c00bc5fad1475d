"""The commands that inform: which data sets there are, and which versions, device and folders are in use."""

from __future__ import annotations

from pathlib import Path

import click
import joblib
import torch

from scanvi_tutorial.cli.shared import FILE, OVERWRITE, QUIET, errors_to_exit_code, refuse_to_overwrite, write
from scanvi_tutorial.data.download import data_folder
from scanvi_tutorial.data.registry import REGISTRY, load
from scanvi_tutorial.model.persistence import versions
from scanvi_tutorial.training.cache import cache_folder
from scanvi_tutorial.training.loop import choose_device


@click.group(short_help="The data sets of the book: list, fetch, where.", invoke_without_command=True)
@click.pass_context
def datasets(context: click.Context) -> None:
    """List the data sets of the book, fetch one, or print their folder."""
    if context.invoked_subcommand is None:
        context.invoke(list_datasets)


@datasets.command("list")
def list_datasets() -> None:
    """List the data sets."""
    for name, source in REGISTRY.items():
        click.echo(f"{name:<10} {source.title}{'; ' + source.download if source.download else ''}")


@datasets.command("fetch")
@click.argument("name")
@click.option("--out", type=FILE, metavar="OUT.h5ad", help="Also write it to this file.")
@OVERWRITE
@QUIET
def fetch_dataset(name: str, out: Path | None, overwrite: bool, quiet: bool) -> None:
    """Download a data set and check it.

    \b
    Example:
      scanvi-tutorial datasets fetch facs --out facs.h5ad
    """  # noqa: D301 (\b tells click to leave the lines below as they are)
    with errors_to_exit_code(quiet):
        refuse_to_overwrite([out], overwrite, out=out)
        adata = load(name)
        if out is not None:
            write(adata, out)
        if not quiet:
            click.echo(f"{name}: {adata.n_obs:,} cells × {adata.n_vars:,} genes.")


@datasets.command("where")
def where_datasets() -> None:
    """Print the folder of downloads."""
    try:
        click.echo(data_folder())
    except ValueError as error:  # an invalid setting of the book
        raise click.ClickException(str(error)) from error


@click.command(short_help="Print versions and device.")
def doctor() -> None:
    """Print versions, the device and the folder of fits."""
    for name, number in versions().items():
        click.echo(f"{name:<16} {number}")
    threads, cores = torch.get_num_threads(), joblib.cpu_count()
    click.echo(f"{'device':<16} {choose_device('auto')}")
    click.echo(
        f"{'threads':<16} {threads}; one where a fit has small minibatches, and fits side by side on {cores} cores"
    )
    click.echo(f"{'fits of the book':<16} {cache_folder()}")
