"""Annotate files that together are larger than memory (book/14_scale.md).

The counts of the chosen genes are written to disk (`open_cells`). Fits and rules are trained on a random part of the
cells, because more than some ten thousand cells take time and improve little. Then all cells are annotated as `predict`
annotates new ones.
"""

from __future__ import annotations

import shutil
from contextlib import nullcontext
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import h5py
import numpy as np
import pandas as pd
import zarr
from anndata import AnnData
from anndata.io import read_elem, write_elem
from numpy.typing import NDArray

from scanvi_tutorial.annotation.annotator import Annotator
from scanvi_tutorial.annotation.answer import check_asked, write_answer
from scanvi_tutorial.annotation.new_cells import answer_for
from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.config import UNLABELED
from scanvi_tutorial.data.streaming import Paths, files_of, open_cells
from scanvi_tutorial.inputs.cells import check_cells
from scanvi_tutorial.inputs.errors import InputError, whole_number
from scanvi_tutorial.inputs.files import home_path, opened
from scanvi_tutorial.inputs.labels import check_labels
from scanvi_tutorial.inputs.writing import make_writable, nullable_strings_too

_LABELS_OF_A_TYPE = 100  # the first labels of each type, which are chosen before further ones


def annotate_files(
    paths: Paths,
    out: str | Path,
    labels_key: str = "label",
    *,
    learn_from: int = 100_000,
    layer: str | None = None,
    genes: int = 2_000,
    unlabeled_category: object = UNLABELED,
    coverage: float | None = None,
    reject: float | None = None,
    keep_labels: bool = True,
    model: str | Path | None = None,
    seed: int = 0,
    **settings: Any,
) -> tuple[AnnData, AnnData]:
    """Annotate every cell of several files, and write a copy of each file with the annotation to a folder.

    The copies have the names of the files and everything that `annotate` writes to `obs`, `obsm` and `uns["scanvi"]`.
    Hidden labels, shares and doubtful labels in `uns["scanvi"]` refer to the training cells. Cells without an exact
    label are annotated as `predict` does, which ignores coarse labels. Memory holds the counts of the training cells
    and, for all cells, `obs` and the annotation.

    Args:
        paths: `.h5ad` files or `.zarr` folders, or a folder of them.
        out: A folder, made where there is none, with room for the copies and, while this runs, for 8 bytes a count of
            the chosen genes.
        labels_key: Column of `obs` with the labels, in one of the files at least.
        learn_from: Largest number of training cells; half of them are labeled cells if there are enough, chosen evenly
            over types up to a hundred of each.
        layer: Where the counts are, if not in `X`.
        genes: Number of genes in the model.
        unlabeled_category: A further name for "without a label".
        coverage: As in `annotate`.
        reject: As in `annotate`.
        keep_labels: Whether labeled cells keep their label, whatever the probabilities are.
        model: File for the trained annotator, for `predict`; "annotation.safetensors" in `out` where it is None. It is
            saved before the copies are written, so it can be used if a copy fails.
        seed: Draws the training cells, and everything that `annotate` draws.
        **settings: Further arguments of `annotate`. Its `batch_key` may be "file".

    Returns:
        All cells with the annotation but without counts, and the training cells with both, for `write_report`.

    Raises:
        InputError: As `annotate` and `open_cells`, and where a copy would replace a file.
    """
    learn_from, files, out = whole_number(learn_from, "learn_from", 2), files_of(paths), home_path(out)
    copies = [out / file.name for file in files]
    if len({copy.name for copy in copies}) < len(copies):
        raise InputError("Two files have the same name, and their copies would go to one folder. Rename one.")
    kept_in = out / "annotation.safetensors" if model is None else home_path(model)
    if there := [copy for copy in (*copies, *([kept_in] if model is None else [])) if copy.exists()]:
        raise InputError(f"{there[0]} exists already. Name another folder, or remove it.")
    for file in files:
        make_writable(AnnData(obs=_obs_of(file)))  # raises an error now for what could not be written at the end
    out.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(prefix="counts-", dir=out, ignore_cleanup_errors=True) as scratch:
        cells = open_cells(files, genes, layer=layer, folder=scratch)
        check_cells(cells)
        if len(silent := np.flatnonzero(np.diff(cells.X.indptr) == 0)):
            raise InputError(
                f"{len(silent)} of {cells.n_obs} cells have no count in the {cells.n_vars} genes that were chosen, the "
                f"first is {cells.obs_names[silent[0]]!r}. Choose more genes, or remove cells with very few counts."
            )
        names, codes = check_labels(cells, labels_key, unlabeled_category=unlabeled_category)
        check_asked(coverage, reject, names)
        if learn_from < 2 * len(names):
            raise InputError(f"learn_from is {learn_from}, too few for {len(names)} types. Learn from more cells.")
        chosen = _learned_from(codes, learn_from, seed)
        some = cells[chosen].to_memory()
        asked = {"coverage": coverage, "reject": reject}
        of_labels = {"unlabeled_category": unlabeled_category, "keep_labels": keep_labels}
        annotate(some, labels_key, genes=genes, model=kept_in, seed=seed, **of_labels, **settings)
        annotator = Annotator.load(kept_in)
        types = list(annotator.label_names)
        ours = np.array([*(types.index(name) if name in types else -1 for name in names), -1])  # the last keeps -1
        kept = ours[codes] if keep_labels else np.full(len(codes), -1)
        table, said, about, columns, refused = answer_for(annotator, cells, **asked, kept=kept)
        note = f"Learned from {some.n_obs:,} of the {cells.n_obs:,} cells in {len(files)} files."
        of_some = some.uns["scanvi"]
        about = {**of_some, **about, "warnings": [note, *about["warnings"], *of_some["warnings"]]}

        def write(adata: AnnData, rows: slice | NDArray[np.integer]) -> AnnData:
            answer = table.iloc[rows], said.states[rows]
            of_cells = {"columns": columns.iloc[rows], "kept": kept[rows], "refused": refused[rows]}
            write_answer(adata, *answer, about=about, **of_cells)
            return adata

        first = 0
        for file, copy in zip(files, copies, strict=True):
            own = AnnData(obs=_obs_of(file))
            make_writable(own)
            _write_copy(file, Path(scratch) / file.name, write(own, slice(first, first + own.n_obs)))
            (Path(scratch) / file.name).rename(copy)
            first += own.n_obs
        return write(AnnData(obs=cells.obs), slice(None)), write(some, chosen)


def _learned_from(codes: NDArray[np.integer], most: int, seed: int) -> NDArray[np.int64]:
    """Return the training cells, ascending: at most half of `most` are labeled, from every type."""
    if len(codes) <= most:
        return np.arange(len(codes))
    order = np.random.default_rng(seed).permutation(len(codes))
    labeled, others = order[codes[order] >= 0], order[codes[order] < 0]
    place_in_type = pd.Series(codes[labeled]).groupby(codes[labeled]).cumcount().to_numpy()
    labeled = labeled[np.argsort(np.minimum(place_in_type, _LABELS_OF_A_TYPE), kind="stable")]
    labeled = labeled[: max(most // 2, most - len(others))]
    return np.sort(np.concatenate([labeled, others[: most - len(labeled)]]))


def _obs_of(file: Path) -> pd.DataFrame:
    with opened(file) as store:
        if isinstance(store["obs"], h5py.Dataset):
            raise InputError(
                f"{file} was written by anndata before 0.7, and nothing can be added to it. Write it anew: "
                "anndata.read_h5ad(path).write_h5ad(path)."
            )
        return read_elem(store["obs"])


def _write_copy(file: Path, copy: Path, answer: AnnData) -> None:
    """Copy a file without reading its counts, and put `obs`, and what is in `obsm` and `uns` of `answer`, into it."""
    (shutil.copytree if file.is_dir() else shutil.copyfile)(file, copy)
    # without consolidated metadata, which would lack what is added
    of_zarr = file.is_dir() and nullcontext(zarr.open_group(copy, mode="a", use_consolidated=False))
    with of_zarr or h5py.File(copy, "a") as store, nullable_strings_too():
        write_elem(store, "obs", answer.obs)
        for part in ("obsm", "uns"):
            if part not in store:
                write_elem(store, part, {})
            for name, value in getattr(answer, part).items():
                write_elem(store[part], name, value)
        if of_zarr:
            zarr.consolidate_metadata(copy)
