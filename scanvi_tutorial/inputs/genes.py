"""Genes: those among the features measured, and those of a fitted model among the genes of other cells."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

import numpy as np
import pandas as pd
from anndata import AnnData
from scipy import sparse

from scanvi_tutorial.inputs.errors import InputError, listed, refuse_repeated
from scanvi_tutorial.inputs.labels import label_name, means_no_label

LEAST_OVERLAP = 0.5  # share of the model's genes that other cells must have
_ENSEMBL = re.compile(r"(?:.*\W|.*_)?(ENS[A-Z]*G\d{11})(?:\.\d+)?(?:[\W_].*)?", re.IGNORECASE)
_KIND_COLUMNS = {"featuretypes", "featuretype", "modality", "featurebiotype"}  # 10x, CellBender, MuData, CELLxGENE
_OF_GENES = {"geneexpression", "gene", "genes", "rna", "mrna", "gex"}
_OF_OTHERS = {
    *("antibodycapture", "antigencapture", "crisprguidecapture", "multiplexingcapture", "custom", "peaks", "abseq"),
    *("antibody", "protein", "prot", "adt", "hto", "hashtag", "crispr", "guide", "grna", "atac", "peak", "spikein"),
}


def gene_features(var: pd.DataFrame) -> np.ndarray:
    """Return which features are genes, (features,) of bool, by the column of `var` that says what they are.

    10x files mix genes with antibodies, guides, hashtags or peaks and say so in `feature_types`. Without such a column
    all features are genes, as are those of which it says nothing.
    """
    return np.logical_and.reduce([np.ones(len(var), dtype=bool), *(~others for others in _others(var).values())])


def _others(var: pd.DataFrame) -> dict[str, np.ndarray]:
    """Return, for each column that says so of any, which features are no genes."""
    found = {}
    for column, values in var.items():
        if _letters(column) in _KIND_COLUMNS:
            kinds = values.map(label_name).astype(object).map(_letters)
            others = kinds.isin(_OF_OTHERS)
            if (kinds == "geneexpression").any():  # 10x: of a kind that we do not know, it is no gene either
                others |= ~kinds.isin(_OF_GENES) & values.notna() & ~kinds.map(means_no_label).astype(bool)
            if others.any():
                found[column] = others.to_numpy()
    return found


def _letters(text: object) -> str:
    """Return a name without blanks, points and lines, in small letters: Gene.Expression is Gene Expression."""
    return re.sub(r"[\W_]+", "", str(text)).casefold()


def only_genes(adata: AnnData) -> tuple[AnnData, list[str]]:
    """Return `adata` without features that are no genes (itself where there are none), and a sentence that says so.

    Raises `InputError` where no feature is a gene.
    """
    genes = gene_features(adata.var)
    if genes.all():
        return adata, []
    others = _others(adata.var)
    kinds = listed(
        dict.fromkeys(
            label_name(kind) for name, of in others.items() for kind in adata.var.loc[of, [name]].to_numpy().ravel()
        )
    )
    where = " or ".join(f"adata.var[{column!r}]" for column in others)
    if not genes.any():
        raise InputError(
            f"None of the {len(genes)} features is a gene by {where} ({kinds}), and the model needs genes. "
            "Take the file with gene expression; if these are genes, delete that column."
        )
    return adata[:, genes], [f"{(~genes).sum()} of {len(genes)} features are no genes by {where} ({kinds}): left out."]


def check_genes(adata: AnnData, genes: Sequence[str]) -> AnnData:
    """Return `adata` with exactly `genes`, in that order: itself where they agree already, else a view.

    Genes that `adata` has beyond those are left out.

    Raises:
        InputError: Where some of `genes` are missing, or where gene names repeat.
    """
    wanted = pd.Index(genes)
    if adata.var_names.equals(wanted):
        return adata
    refuse_repeated(adata, "var")
    missing = wanted.difference(adata.var_names, sort=False)
    if len(missing):
        raise InputError(
            f"{len(missing)} of the {len(wanted)} genes that the model was fitted on are not among the "
            f"{adata.n_vars} genes of these cells: {listed(missing)}. Check that both name genes in the same way "
            f"(these cells: {listed(adata.var_names, 3)}), or fit a model on the genes that both have."
        )
    return adata[:, wanted]


def align_genes(
    counts: sparse.csr_matrix, var: pd.DataFrame, genes: Sequence[str]
) -> tuple[sparse.csr_matrix, float, list[str]]:
    """Return counts (cells, genes) of `genes`, in that order, the share of them that is there, and what to say of it.

    An Ensembl id that is missing is taken from the one gene with that id in another form, such as another version. A
    gene that is missing counts zero in every cell. The encoder reads each gene's share of the cell's counts, so the
    shares of the others rise by what is missing: a few percent are harmless, and below half we refuse.

    Args:
        counts: (cells, their own genes), as `check_counts` returns them.
        var: Their genes by name; an error looks in its columns for the names that the model uses.
        genes: Those that the model was fitted on.

    Raises:
        InputError: Where the share is less than `LEAST_OVERLAP`.
    """
    names, wanted = var.index, pd.Index(genes)
    exact = names.get_indexer(wanted)
    place = np.where(exact >= 0, exact, _other_forms(names, wanted))
    found = place >= 0
    share = float(found.mean())
    if share < LEAST_OVERLAP:
        raise InputError(
            f"Only {found.sum()} of the {len(found)} genes that the model was fitted on are among the {len(names)} "
            f"genes of these cells ({share:.0%}; at least {LEAST_OVERLAP:.0%} are needed). The model knows "
            f"{listed(genes, 3)}; these cells have {listed(names, 3)}. {_remedy(var, genes)}"
        )
    notes = []
    if renamed := int((found & (exact < 0)).sum()):
        notes.append(f"{renamed} of the model's {len(found)} genes were found under another form of their Ensembl id.")
    if not found.all():
        notes.append(
            f"{1 - share:.1%} of the model's genes are missing here and were taken as zero: {listed(wanted[~found])}."
        )
    # a matrix product picks and pads in one step, without a dense intermediate
    pick = sparse.csr_matrix(
        (np.ones(found.sum(), dtype=np.float32), (place[found], np.flatnonzero(found))), (len(names), len(found))
    )
    return (counts @ pick).tocsr().astype(np.float32), share, notes


def _other_forms(names: pd.Index, wanted: pd.Index) -> np.ndarray:
    """Return where in `names` each of `wanted` has its Ensembl id in another form, -1 for nowhere or twice."""
    ours, theirs = (pd.Index([_ensembl_id(name) for name in index], dtype=object) for index in (wanted, names))
    once = ~theirs.duplicated(keep=False) & theirs.notna()
    place = pd.Series(np.flatnonzero(once), theirs[once]).reindex(ours).fillna(-1).to_numpy(dtype=np.int64)
    return np.where(ours.duplicated(keep=False) | ours.isna(), -1, place)


def _remedy(var: pd.DataFrame, genes: Sequence[str]) -> str:
    """Guess why the names differ."""
    names, wanted, ids = var.index, set(genes), set(filter(None, map(_ensembl_id, genes)))
    for column in var.columns:
        values = var[column].astype(str)
        if max(_share(values, wanted), _share(map(_ensembl_id, values), ids) if ids else 0) >= LEAST_OVERLAP:
            return (
                f"adata.var[{column!r}] holds the model's names: set adata.var_names = adata.var[{column!r}].astype("
                "str), then adata.var_names_make_unique()."
            )
    if len(wanted.intersection(names)) >= LEAST_OVERLAP * len(names):
        return (
            f"These cells keep {len(names)} genes alone: take all that were measured, which adata.raw.to_adata() has "
            "where adata.raw was kept."
        )
    ours, theirs = 2 * len(ids) > len(wanted), 2 * sum(_ensembl_id(name) is not None for name in names) > len(names)
    if ours != theirs:
        by_id, by_symbol = ("The model names", "these cells") if ours else ("These cells name", "the model")
        return (
            f"{by_id} genes by Ensembl ids, and {by_symbol} by symbols: translate them, for example with "
            "scanpy.queries.biomart_annotations, and put the result into adata.var_names."
        )
    if _share((name.upper() for name in names), {name.upper() for name in wanted}) >= LEAST_OVERLAP:
        return "They agree but for capitals, as genes of mouse and human do: fit a model on cells of this species."
    return "Check species and reference, or fit a model on the genes that both have."


def _share(names: Iterable[str], wanted: set[str]) -> float:
    return len(wanted.intersection(names)) / len(wanted)


def _ensembl_id(name: object) -> str | None:
    """Return the Ensembl id in a name, without version, prefix of a genome or symbol beside it, or None."""
    found = _ENSEMBL.fullmatch(str(name))
    return found[1].upper() if found else None
