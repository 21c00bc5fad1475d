"""Shared parts of the commands: options, errors as messages with an exit code, atomic writing of files."""

from __future__ import annotations

import io
import re
import secrets
import sys
import tempfile
import warnings
from collections.abc import Container, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, suppress
from csv import reader as csv_reader
from pathlib import Path
from typing import Any

import click
import h5py
import pandas as pd
from anndata import AnnData

from scanvi_tutorial.config import UNLABELED, no_progress
from scanvi_tutorial.data.download import DownloadError
from scanvi_tutorial.inputs.cells import WRITTEN, probabilities_of
from scanvi_tutorial.inputs.errors import InputError, InputWarning, first_line
from scanvi_tutorial.inputs.files import home_path
from scanvi_tutorial.inputs.writing import nullable_strings_too, write_atomically
from scanvi_tutorial.model.persistence import PersistenceError


class _Path(click.Path):
    """A path with ~ for the home, which shells leave in --out=~/named.h5ad."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        return super().convert(home_path(value), param, ctx)


IN = click.argument("source", metavar="IN.h5ad", type=_Path(path_type=Path))
FILES = click.argument("sources", metavar="IN.h5ad...", nargs=-1, required=True, type=_Path(path_type=Path))
FOLDER_OR_FILE = _Path(path_type=Path)
FILE = _Path(dir_okay=False, path_type=Path)
QUIET = click.option("--quiet", is_flag=True, help="Print errors only: no progress bars, summary or notes.")
SEED = click.option(
    "--seed", type=click.IntRange(0, 2**32 - 1), default=0, show_default=True, help="Seed of all random draws."
)
LAYER = click.option("--layer", metavar="NAME", help="The layer with the raw counts, if they are not in X.")
OVERWRITE = click.option("--overwrite", is_flag=True, help="Replace existing files.")
CSV = click.option("--csv", type=FILE, metavar="OUT.csv", help="Also write labels and probabilities as a table.")
_LABELS = [
    click.option("--labels", "labels_key", required=True, metavar="COLUMN", help="The column of obs with the labels."),
    click.option(
        "--unlabeled",
        "unlabeled_category",
        default=UNLABELED,
        metavar="VALUE",
        help='The value of that column for cells without a label, besides "Unknown", "NA" and similar ones.',
    ),
    LAYER,
    click.option("--batch", "batch_key", metavar="COLUMN", help="A column of obs with runs or donors to correct for."),
    click.option(
        "--genes", type=click.IntRange(1), default=2_000, show_default=True, help="Number of genes in the model."
    ),
]
COARSE = click.option(
    "--coarse",
    metavar="FILE.csv|COLUMN",
    help="Coarse labels: a table of coarse names and their types, or a column of obs with the parent of each cell.",
)

_SHARE = click.FloatRange(0, 1, min_open=True, max_open=True)
_PROMISES = [
    click.option(
        "--coverage",
        type=_SHARE,
        metavar="SHARE",
        help="Add prediction sets that contain the type this often, such as 0.9.",
    ),
    click.option(
        "--reject",
        type=_SHARE,
        metavar="SHARE",
        help='Label cells of unknown types "none of these"; the share of known cells that are rejected, such as 0.05.',
    ),
]


def promised(command: Any) -> Any:
    """Add the options of prediction sets and of rejection."""
    for option in reversed(_PROMISES):
        command = option(command)
    return command


def labeled(command: Any) -> Any:
    """Add the options that every command with labels takes."""
    for option in reversed(_LABELS):
        command = option(command)
    return command


def read_coarse(source: str | None) -> dict[str, list[str]] | str | None:
    """Return what coarse names stand for, from a CSV file without header, or the name of a column as it is."""
    if source is None or not source.lower().endswith(".csv"):
        return source
    path = home_path(source)
    with path.open(newline="", encoding="utf-8-sig") as file:
        rows = [row for row in csv_reader(file) if any(row)]
    table: dict[str, list[str]] = {}
    for row in rows:
        if len(row) != 2:
            raise InputError(f"{path} must have two columns, coarse name and type, and has the row {','.join(row)!r}.")
        table.setdefault(row[0].strip(), []).append(row[1].strip())
    return table


@contextmanager
def errors_to_exit_code(quiet: bool, source: Path | None = None) -> Iterator[None]:
    """Turn errors about data and files into a message that names `source`, with exit code 1.

    Progress bars are hidden with `quiet`, and if stderr is not a terminal.
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
    """Return a message of the package in which Python arguments are replaced by command-line options."""
    return re.sub(r"pass (layer|unlabeled)(?:_category)?=", r"say --\1 ", text)


def refuse_to_overwrite(
    paths: list[Path | None],
    overwrite: bool,
    *,
    kept: Path | None = None,
    out: Path | None = None,
    model: Path | None = None,
) -> None:
    """Stop before anything is computed, if a result would replace a file or another one, or cannot be written.

    `kept`, the file that is read, can be replaced by `out` alone, and `model` by nothing.
    """
    if out is not None and out.suffix.lower() != ".h5ad":
        raise click.ClickException(f"{out} is not an .h5ad file, by its name. Give it that ending.")
    taken = {} if kept is None else {kept.resolve(): "the file that is read"}
    if model is not None:
        taken[model.resolve()] = "the model that is read"
    for path in paths:
        if path is None:
            continue
        place = path.resolve()
        if place in taken and not (path == out and taken[place] == "the file that is read"):
            raise click.ClickException(f"{path} is {taken[place]} already. Give every result a name of its own.")
        taken[place] = "the name of another result"
        if path.exists() and not path.is_file():
            raise click.ClickException(f"{path} is no regular file. Choose another name.")
        if path.exists() and not overwrite:
            raise click.ClickException(f"{path} exists already. Choose another name, or use --overwrite.")
        if not path.absolute().parent.is_dir():
            raise click.ClickException(f"There is no folder {path.absolute().parent} to write {path.name} to. Make it.")
        try:
            tempfile.TemporaryFile(dir=path.absolute().parent).close()
        except OSError as error:
            raise click.ClickException(
                f"{path} cannot be written ({error.strerror}). Choose another folder."
            ) from error


def write(adata: AnnData, out: Path, compression: str | None = None) -> None:
    """Write the cells as `.h5ad`, beside its place and then renamed."""
    try:
        with write_atomically(out) as part, nullable_strings_too():
            adata.write_h5ad(part, compression=compression)
    except Exception as error:  # what anndata raises depends on what in the user's own tables it cannot write
        advice = " Choose another place." if isinstance(error, OSError) else ""
        raise InputError(f"{out} could not be written ({first_line(error)}).{advice}") from error


def one_file(sources: Sequence[Path]) -> Path | None:
    """Return the only file that is named, or None where several are, or a folder of them, or Zarr."""
    return None if len(sources) > 1 or sources[0].is_dir() else sources[0]


def compression_of(path: Path) -> str | None:
    """Return how an `.h5ad` file is compressed: as the first of its parts that is."""
    with h5py.File(path) as file:
        found = file.visititems(lambda _, part: getattr(part, "compression", None))
    return found if found in ("gzip", "lzf") else None


def write_answer_to(
    adata: AnnData, out: Path, csv: Path | None, *, compression: str | None, written: list[Path]
) -> None:
    """Write the table of labels, then the cells, and add what is written to `written`."""
    if csv is not None:
        write_csv(adata, csv)
        written.append(csv)
    write(adata, out, compression)
    written.append(out)


def write_csv(adata: AnnData, csv: Path) -> None:
    """Write labels and probabilities as a table, a row a cell, beside its place and then renamed."""
    answer, table = adata.obs[[name for name in WRITTEN if name in adata.obs]], probabilities_of(adata)
    clear = [f"label {name}" if name in ("cell", *answer) else name for name in table]
    write_table(answer.join(table.set_axis(clear, axis=1)), csv, index_label="cell")


def write_table(table: pd.DataFrame, path: Path, **options: Any) -> None:
    """Write a table as CSV, beside its place and then renamed."""
    with write_atomically(path) as part:
        table.to_csv(part, encoding="utf-8", errors="backslashreplace", **options)


@contextmanager
def answer_kept(adata: AnnData, out: Path) -> Iterator[list[Path]]:
    """If the block fails after the annotation but before a file is written, write the table of labels elsewhere.

    Yields a list, to which the block adds the files that it has written.
    """
    before, written = adata.uns.get("scanvi"), []
    try:
        yield written
    except BaseException as error:  # also on KeyboardInterrupt and MemoryError
        if adata.uns.get("scanvi") is before:
            raise
        place = written[-1] if written else _write_csv_somewhere(adata, out)
        kept = (
            f"The labels are kept in {place}."
            if place
            else "The table of labels could not be written to any folder, either."
        )
        if not isinstance(error, Exception):
            click.echo(kept, err=True)
            raise
        if isinstance(error, InputError | PersistenceError):
            raise type(error)(f"{error} {kept}") from error
        raise click.ClickException(f"{type(error).__name__}: {first_line(error)}. {kept}") from error


def _write_csv_somewhere(adata: AnnData, out: Path) -> Path | None:
    """Write the table of labels beside `out`, else to the current folder, else to that of temporary files."""
    for folder in (out.absolute().parent, Path.cwd(), Path(tempfile.gettempdir())):
        place = folder / f"{out.stem}_labels.csv"
        if place.exists():
            place = folder / f"{out.stem}_labels_{secrets.token_hex(4)}.csv"
        with suppress(Exception):  # the next folder may take it, and the first error is the one to report
            write_csv(adata, place)
            return place
    return None


@contextmanager
def notes_at_once() -> Iterator[set[str]]:
    """Print each `InputWarning` when it is given; yield the set of those printed so far.

    Other warnings are not printed.
    """
    said: set[str] = set()

    def say(message: Warning | str, category: type[Warning], *_: Any) -> None:
        if issubclass(category, InputWarning) and str(message) not in said:
            said.add(str(message))
            click.echo(f"Note: {in_shell(str(message))}", err=True)

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        warnings.showwarning = say
        yield said


def say_result(adata: AnnData, paths: list[Path | None], quiet: bool, said: Container[str]) -> None:
    """Print how many cells got which label, the warnings that are not among those `said`, and what was written."""
    if quiet:
        return
    for name, cells in adata.obs["scanvi_label"].value_counts().items():
        click.echo(f"{cells:>8,}  {name}")
    for text in adata.uns["scanvi"]["warnings"]:
        if text not in said:
            click.echo(f"Note: {in_shell(text)}", err=True)
    click.echo(f"Written: {', '.join(str(path) for path in paths if path is not None)}")
