"""What the commands share: options, errors as messages with an exit code, files written whole or not at all."""

from __future__ import annotations

import io
import re
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, redirect_stderr
from pathlib import Path
from typing import Any

import click
from anndata import AnnData

from scanvi_tutorial.config import UNLABELED, no_progress
from scanvi_tutorial.data.download import DownloadError
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.inputs.files import write_atomically
from scanvi_tutorial.model.persistence import PersistenceError

IN = click.argument("source", metavar="IN.h5ad", type=click.Path(path_type=Path))
FILE = click.Path(dir_okay=False, path_type=Path)
QUIET = click.option("--quiet", is_flag=True, help="Say errors only: no bars, summary or notes.")
SEED = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Of everything drawn."
)
LAYER = click.option("--layer", metavar="NAME", help="The layer with the raw counts, if they are not in X.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace files that exist already.")
CSV = click.option("--csv", type=FILE, metavar="OUT.csv", help="Labels and probabilities as a table, too.")
_LABELS = [
    click.option("--labels", "labels_key", required=True, metavar="COLUMN", help="The column of obs with the labels."),
    click.option(
        "--unlabeled",
        "unlabeled_category",
        default=UNLABELED,
        metavar="VALUE",
        help='The value of that column for cells without a label, beside "Unknown".',
    ),
    LAYER,
    click.option("--batch", "batch_key", metavar="COLUMN", help="A column of obs with runs or donors to correct for."),
    click.option("--genes", type=click.IntRange(1), default=2_000, show_default=True, help="Genes the model sees."),
]


def labeled(command: Any) -> Any:
    """Add the options that every command with labels takes."""
    for option in reversed(_LABELS):
        command = option(command)
    return command


@contextmanager
def errors_to_exit_code(quiet: bool, source: Path | None = None) -> Iterator[None]:
    """Turn errors about data and files into one paragraph, which names `source`, and exit code 1.

    Progress is silenced where asked, and where it would fill a file or a pipe.
    """
    with ExitStack() as stack:
        if quiet or not sys.stderr.isatty():
            stack.enter_context(no_progress())
        if quiet:
            stack.enter_context(redirect_stderr(io.StringIO()))
        try:
            yield
        except (InputError, PersistenceError, DownloadError, FloatingPointError, OSError) as error:
            text = in_shell(f"{error.filename}: {error.strerror}." if getattr(error, "filename", None) else str(error))
            of_cells = isinstance(error, InputError) and source is not None and str(source) not in text
            about = f"{source}: " if of_cells else ""
            raise click.ClickException(f"{about}{text}") from error


def in_shell(text: str) -> str:
    """Return advice of the package with options in place of Python's arguments."""
    return re.sub(r"pass (layer|unlabeled)(?:_category)?=", r"say --\1 ", text)


def refuse_to_overwrite(
    paths: list[Path | None], overwrite: bool, *, kept: Path | None = None, out: Path | None = None
) -> None:
    """Stop before anything is computed, if a result would replace a file or another one, or cannot be written.

    `kept`, the file that is read, can be replaced by `out` alone.
    """
    if out is not None and out.suffix.lower() != ".h5ad":
        raise click.ClickException(f"{out} is not an .h5ad file, by its name. Give it that ending.")
    taken = {} if kept is None else {kept.resolve(): "the file that is read"}
    for path in paths:
        if path is None:
            continue
        place = path.resolve()
        if place in taken and not (path == out and taken[place] == "the file that is read"):
            raise click.ClickException(f"{path} is {taken[place]} already. Give every result a name of its own.")
        taken[place] = "the name of another result"
        if path.exists() and not overwrite:
            raise click.ClickException(f"{path} exists already. Choose another name, or say --overwrite.")
        if not path.absolute().parent.is_dir():
            raise click.ClickException(f"There is no folder {path.absolute().parent} to write {path.name} to. Make it.")
        try:
            tempfile.TemporaryFile(dir=path.absolute().parent).close()
        except OSError as error:
            raise click.ClickException(
                f"{path} cannot be written ({error.strerror}). Choose another folder."
            ) from error


def write(adata: AnnData, out: Path, csv: Path | None) -> None:
    """Write the cells as `.h5ad`, and their labels and probabilities as a table: beside their places, then renamed.

    Slashes in names of labels, which HDF5 takes for folders, become "|" in the file; `uns["scanvi"]["label_names"]`
    keeps them as they are.
    """
    table = adata.obsm.get("scanvi_probabilities")
    try:
        if table is not None:
            adata.obsm["scanvi_probabilities"] = table.set_axis(_hdf5_names(list(table)), axis=1)
        with write_atomically(out) as part:
            adata.write_h5ad(part)
    except OSError as error:
        raise InputError(f"{out} could not be written ({error.strerror or error}). Choose another place.") from error
    except Exception as error:  # what anndata raises depends on what in the user's own tables it cannot write
        reason = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise InputError(
            f"{out} could not be written ({reason}). Look for columns of mixed kinds in adata.obs and adata.uns."
        ) from error
    finally:
        if table is not None:
            adata.obsm["scanvi_probabilities"] = table
    if csv is not None:
        answer = adata.obs[["scanvi_label", "scanvi_probability"]]
        clear = [f"label {name}" if name in ("cell", *answer) else name for name in table]
        answer = answer.join(table.set_axis(clear, axis=1))
        with write_atomically(csv) as part:
            answer.to_csv(part, index_label="cell")


def _hdf5_names(names: list[str]) -> list[str]:
    """Return names that HDF5 takes as they are, each once."""
    names_in_file: list[str] = []
    for name in names:
        base = name.replace("/", "|").replace("\0", "|")
        base = f"label {base}" if base in (".", "..", "_index") else base
        while base in names_in_file:
            base += "'"
        names_in_file.append(base)
    return names_in_file


def say_result(adata: AnnData, paths: list[Path | None], quiet: bool) -> None:
    """Say how many cells got which label, the warnings, and what was written."""
    if quiet:
        return
    for name, cells in adata.obs["scanvi_label"].value_counts().items():
        click.echo(f"{cells:>8,}  {name}")
    for text in adata.uns["scanvi"]["warnings"]:
        click.echo(f"Note: {in_shell(text)}", err=True)
    click.echo(f"Written: {', '.join(str(path) for path in paths if path is not None)}")
