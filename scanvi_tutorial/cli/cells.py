"""The commands about cells: annotate, train, predict."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import click
from anndata import AnnData

from scanvi_tutorial.annotation.files import annotate_files
from scanvi_tutorial.annotation.new_cells import predict as predict_cells
from scanvi_tutorial.annotation.pipeline import annotate as annotate_cells
from scanvi_tutorial.cli.shared import (
    COARSE,
    CSV,
    FILE,
    FILES,
    FOLDER_OR_FILE,
    IN,
    LAYER,
    OVERWRITE,
    QUIET,
    SEED,
    answer_kept,
    compression_of,
    errors_to_exit_code,
    labeled,
    notes_at_once,
    one_file,
    promised,
    read_coarse,
    refuse_to_overwrite,
    say_result,
    write_answer_to,
    write_table,
)
from scanvi_tutorial.config import TrainConfig
from scanvi_tutorial.data.selection import chosen_genes
from scanvi_tutorial.data.streaming import files_of, open_cells
from scanvi_tutorial.inputs.cells import Columns, strip_to_inputs
from scanvi_tutorial.inputs.errors import warn_of
from scanvi_tutorial.inputs.files import read_h5ad
from scanvi_tutorial.inputs.writing import make_writable
from scanvi_tutorial.model.persistence import is_saved
from scanvi_tutorial.model.scanvi import SCANVI
from scanvi_tutorial.report import write_report
from scanvi_tutorial.training.loop import fit
from scanvi_tutorial.training.processes import launch

if TYPE_CHECKING:
    from lightning_fabric import Fabric


@click.command(short_help="Annotate all cells, using the labeled ones.")
@FILES
@labeled
@click.option(
    "--out", required=True, type=FOLDER_OR_FILE, metavar="OUT", help="The file or folder for the annotated cells."
)
@CSV
@COARSE
@promised
@click.option("--doubtful", type=FILE, metavar="OUT.csv", help="Write a table of labels that may be wrong.")
@click.option("--report", type=FILE, metavar="OUT.html", help="Write an HTML report with figures and warnings.")
@click.option("--model", type=FILE, metavar="FILE", help="Save the trained annotator to this file, for predict.")
@click.option("--keep/--rename", default=True, show_default=True, help="Whether labeled cells keep their label.")
@click.option("--fits", type=click.IntRange(1), help="Number of fits to pool; fewer are faster and less accurate.")
@click.option(
    "--learn-from",
    type=click.IntRange(2),
    default=100_000,
    show_default=True,
    help="With several files, the largest number of cells to train on.",
)
@click.option(
    "--jobs",
    type=click.IntRange(1),
    help="Number of fits to run in parallel; by default one per core, except for small data.",
)
@SEED
@OVERWRITE
@QUIET
def annotate(
    sources: tuple[Path, ...],
    out: Path,
    csv: Path | None,
    coarse: str | None,
    doubtful: Path | None,
    report: Path | None,
    model: Path | None,
    overwrite: bool,
    quiet: bool,
    keep: bool,
    learn_from: int,
    **options: Any,
) -> None:
    """Annotate all cells of IN.h5ad, using those that have a label.

    If several files or a folder of files are given, OUT is a folder for annotated copies of them. Memory holds only the
    counts of the cells to train on; OUT needs disk space for the counts of all cells.

    OUT.h5ad is IN.h5ad with obs["scanvi_label"], obs["scanvi_probability"], obsm["scanvi_probabilities"],
    obs["scanvi_p_known"], obsm["X_scanvi"] and uns["scanvi"] added, and prediction sets in obs["scanvi_set"] with
    --coverage. Several fits are pooled; --model saves them for predict.

    \b
    Example:
      scanvi-tutorial annotate cells.h5ad --labels celltype --unlabeled "not sorted" \\
          --layer counts --out named.h5ad --csv named.csv --report report.html --model model.safetensors
    """  # noqa: D301 (\b tells click to leave the lines below as they are)
    source = one_file(sources)
    with errors_to_exit_code(quiet, source):
        table = read_coarse(coarse)
        if source is None:
            if csv is not None:
                raise click.ClickException(
                    "--csv works with one file only. Leave it out; the copies in OUT hold the annotation."
                )
            for file in files_of(sources):
                refuse_to_overwrite([doubtful, report, model], overwrite, kept=file)
            with notes_at_once() as said:
                adata, learned_from = annotate_files(
                    sources, out, learn_from=learn_from, keep_labels=keep, model=model, coarse=table, **options
                )
            results, title = [out, doubtful, report, model], f"{out.name} ({len(files_of(sources))} files)"
            write_tables(learned_from, doubtful, report, title)
        else:
            results = [out, csv, doubtful, report, model]
            refuse_to_overwrite(results, overwrite, kept=source, out=out)
            adata, compression = read_h5ad(source), compression_of(source)
            with answer_kept(adata, out) as written, notes_at_once() as said:
                make_writable(adata)
                annotate_cells(adata, keep_labels=keep, model=model, coarse=table, **options)
                write_answer_to(adata, out, csv, compression=compression, written=written)
                write_tables(adata, doubtful, report, source.name)
        say_result(adata, results, quiet, said)


def write_tables(adata: AnnData, doubtful: Path | None, report: Path | None, title: str) -> None:
    """Write the table of doubtful labels, and the report, where they are asked for."""
    if doubtful is not None:
        write_table(adata.uns["scanvi"]["doubtful_labels"], doubtful, index=False)
    if report is not None:
        write_report(adata, report, title=title)


@click.command(short_help="Fit one model and save it.")
@FILES
@labeled
@click.option("--model", required=True, type=FILE, metavar="FILE", help="The file for the model.")
@click.option(
    "--processes",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Number of processes that share the fit, each on a GPU or a core.",
)
@SEED
@OVERWRITE
@QUIET
def train(sources: tuple[Path, ...], model: Path, overwrite: bool, quiet: bool, processes: int, **options: Any) -> None:
    """Fit one model to IN.h5ad, or to several files, and save it, without annotating cells.

    The model is a single fit with labels, as in chapters 4 to 6; load it with SCANVI.load. It is faster and less
    accurate than annotate, and predict does not accept it; to annotate cells, use annotate. The counts of several files
    stay on disk, in a temporary folder beside the model.

    \b
    Example:
      scanvi-tutorial train cells.h5ad --labels celltype --model model.safetensors
    """  # noqa: D301 (\b tells click to leave the lines below as they are)
    source = one_file(sources)
    with errors_to_exit_code(quiet, source):
        refuse_to_overwrite([model], overwrite, kept=source)
        is_saved(model)  # refuses what must not be replaced before anything is computed
        with TemporaryDirectory(prefix="counts-", dir=model.absolute().parent, ignore_cleanup_errors=True) as scratch:
            work = partial(_fit_and_save, sources, model, Path(scratch), **options)
            if processes > 1:
                _cells_to_fit(sources, Path(scratch), **options)  # so that errors about the files are reported once
            epochs, best = work() if processes == 1 else launch(work, processes)
        if not quiet:
            click.echo(f"{epochs} epochs, held-out bound {best:.1f} nats per cell; saved to {model}.")


def _cells_to_fit(
    sources: tuple[Path, ...],
    folder: Path,
    *,
    labels_key: str,
    unlabeled_category: str,
    layer: str | None,
    batch_key: str | None,
    genes: int,
    seed: int,
) -> tuple[AnnData, dict[str, Any]]:
    """Return cells with the chosen genes, and the columns of labels and batches."""
    source = one_file(sources)
    adata = read_h5ad(source) if source is not None else open_cells(sources, genes, layer=layer, folder=folder)
    layer = layer if source is not None else None
    with notes_at_once():
        plain, notes = strip_to_inputs(adata, Columns(labels_key, unlabeled_category, layer, batch_key))
        cells, of_genes = chosen_genes(plain, adata.uns.get("markers"), genes)
        warn_of([*notes, *of_genes])
    return cells, {"labels_key": labels_key, "batch_key": batch_key if batch_key in cells.obs else None, "seed": seed}


def _fit_and_save(
    sources: tuple[Path, ...], model: Path, folder: Path, fabric: Fabric | None = None, **options: Any
) -> tuple[int, float]:
    """Fit a model, alone or beside other processes, and save it; return how many epochs it took, and the best bound."""
    cells, columns = _cells_to_fit(sources, folder, **options)
    with notes_at_once():
        fitted = SCANVI.from_anndata(cells, **columns)
    history = fit(fitted, cells, TrainConfig(seed=options["seed"]), fabric=fabric)
    if fabric is None or fabric.is_global_zero:
        fitted.save(model)
    return len(history), history.frame["bound_held_out"].max()


@click.command(short_help="Annotate new cells with a saved model.")
@IN
@click.option("--model", required=True, type=FILE, metavar="FILE", help="The file that annotate --model saved.")
@click.option("--out", required=True, type=FILE, metavar="OUT.h5ad", help="The file for the annotated cells.")
@CSV
@LAYER
@promised
@OVERWRITE
@QUIET
def predict(
    source: Path, model: Path, out: Path, csv: Path | None, overwrite: bool, quiet: bool, **options: Any
) -> None:
    """Annotate the cells of IN.h5ad with a model that annotate saved, without further training.

    The cells need no labels, but at least half of the genes that annotate chose. Labels, probabilities, sets and
    p-values are nearly those that annotate would give to unlabeled cells. Sets need --coverage, and rejection needs
    --reject.

    \b
    Example:
      scanvi-tutorial predict new.h5ad --model model.safetensors --out new_named.h5ad --coverage 0.9 --reject 0.05
    """  # noqa: D301 (\b tells click to leave the lines below as they are)
    with errors_to_exit_code(quiet, source):
        refuse_to_overwrite([out, csv], overwrite, kept=source, out=out, model=model)
        adata, compression = read_h5ad(source), compression_of(source)
        with answer_kept(adata, out) as written, notes_at_once() as said:
            make_writable(adata)
            predict_cells(model, adata, **options)
            write_answer_to(adata, out, csv, compression=compression, written=written)
        say_result(adata, [out, csv], quiet, said)
