"""AnnData as nobody should make them, drawn by hypothesis; and what must hold whatever they are.

Used by tests/annotation/test_hostile.py and, at length, by benchmarks/hostile.py.
"""

import warnings
from contextlib import suppress
from copy import deepcopy
from pathlib import Path
from tempfile import TemporaryDirectory

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
from anndata import AnnData
from hypothesis import strategies as st
from scipy import sparse

from scanvi_tutorial.annotation.annotator import Annotator
from scanvi_tutorial.annotation.new_cells import predict
from scanvi_tutorial.annotation.pipeline import annotate
from scanvi_tutorial.cli.shared import write
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.data import load
from scanvi_tutorial.inputs import InputError, read_h5ad
from scanvi_tutorial.inputs.cells import WRITTEN, probabilities_of
from scanvi_tutorial.inputs.writing import refuse_unwritable
from scanvi_tutorial.model.persistence import PersistenceError
from scanvi_tutorial.plotting import figure6, probability_plot
from scanvi_tutorial.report import report_page

TINY = ModelConfig(n_latent=2, gene_hidden=(4,), label_hidden=(4,), classifier_hidden=(4,))
BRIEF = TrainConfig(max_epochs=1, batch_size=16)
OURS = (InputError, PersistenceError)

FORMS = {
    "dense": np.asarray,
    "Fortran": np.asfortranarray,
    "CSR": sparse.csr_matrix,
    "CSC": sparse.csc_matrix,
    "CSR array": sparse.csr_array,
    "CSC array": sparse.csc_array,
}
DTYPES = ["float32", "float64", "int32", "int64", "uint8", "bool", ">f4", "float16"]
VALUES = [0.5, -1.0, np.nan, np.inf, 2.0**24 + 2, 1e30, 16_777_216.0, 60_000.0]
NAMES = [
    "T",
    "B",
    "CD4/CD8",
    "",
    "-1",
    "Unknown",
    "nan",
    "γδ",
    "a b",
    "$x$",
    "<i>",
    ".",
    "1",
    "1.0",
    "_index",
    "x" * 80,
]
WORDS_FOR_NONE = [" ", "<NA>", "#N/A", "?", "-1.0", "not assigned", "unassigned ", "Unclassified", "doublet/unknown"]
SPELLINGS = [
    "T",
    "T ",
    "t",
    "T\xa0",
    b"T",
    "b'T'",
    "T.cell",
    "T cell",
    "T cells",
    "CD4+",
    "CD4-",
    "a/b",
    "a",
    "__x",
    "é–ñ",
]
VALUES_OF_LABELS = [*NAMES, *WORDS_FOR_NONE, *SPELLINGS, None, np.nan, pd.NA, 1, 1.0, -1, 0, 2.5, True, (1, 2)]
DTYPES_OF_LABELS = ["object", "object", "category", "category", "string", "Int64", "bytes", "category of numbers"]
FEATURE_TYPES = [
    "Gene Expression",
    "Gene Expression",
    "Antibody Capture",
    "CRISPR Guide Capture",
    "Peaks",
    None,
    b"Custom",
]


@st.composite
def cells(draw):
    """Draw an AnnData and the options to annotate it with; each fault is rare, or no two would ever be seen apart."""

    def rarely(one_in=12):
        return draw(st.integers(0, one_in - 1)) == 0

    n, g = draw(st.integers(0 if rarely() else 4, 14)), draw(st.integers(0 if rarely() else 2, 8))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    counts = rng.poisson(draw(st.sampled_from([0.3, 2.0, 2.0, 50.0])), (n, g)).astype(np.float64)
    if g and not rarely():
        counts[:, draw(st.integers(0, g - 1))] += 1  # no cell is empty
    if rarely():
        counts[:] = counts[:1]  # all cells alike
    if counts.size and rarely():
        counts.flat[draw(st.integers(0, counts.size - 1))] = draw(st.sampled_from(VALUES))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # NaN as an integer
        dense = counts.astype(draw(st.sampled_from(DTYPES)) if rarely(3) else "float32")
        form = draw(st.sampled_from(list(FORMS)))
        matrix = dense if dense.dtype in (np.float16, ">f4") else FORMS[form](dense)
        kinds = st.sampled_from(VALUES_OF_LABELS if rarely(3) else ["T", "B", "CD4/CD8", None])
        labels = pd.Series(draw(st.lists(kinds, min_size=n, max_size=n)), dtype=object)
        obs = pd.DataFrame({"kind": labels.to_numpy(dtype=object)}, index=_names(draw, "cell", n))
        obs["kind"] = _as_people_have_them(draw, labels)
        obs["run"] = [draw(st.sampled_from(["one", "two"])) for _ in range(n)]
        if rarely():
            obs.loc[obs.index[:1], "run"] = None
        var = pd.DataFrame(index=_names(draw, "gene", g))
        if rarely(4):
            var["feature_types"] = draw(st.lists(st.sampled_from(FEATURE_TYPES), min_size=g, max_size=g))
        adata = AnnData(matrix, obs=obs, var=var)
        if rarely(6):
            adata.raw = adata.copy()
            adata.raw.var["_index" if draw(st.booleans()) else "symbol"] = "x"  # the former as SeuratDisk leaves it
        if rarely(6):
            _named_by_a_column(draw, adata)
    layer = "no such layer" if rarely(20) else draw(st.sampled_from([None, None, None, "umi"]))
    if layer == "umi":
        adata.layers["umi"] = matrix
        adata.X = None if draw(st.booleans()) else np.log1p(counts.clip(0)).astype(np.float32)
    if rarely(6):
        adata.uns["markers"] = draw(st.sampled_from([{}, "text", {"T": {"positive": ["gene0"]}}, {"T": 3}, None]))
    options = {
        "layer": layer,
        "batch_key": draw(st.sampled_from(["run", "kind", "donor"])) if rarely(5) else None,
        "unlabeled_category": draw(st.sampled_from(["T", 1, "absent"])) if rarely() else "Unknown",
        "genes": draw(st.sampled_from([5, 1])) if rarely(6) else 2_000,
        "keep_labels": draw(st.booleans()),
        "coverage": draw(st.sampled_from([None, 0.5, 0.9])),
        "reject": draw(st.sampled_from([None, 0.3])),
        "seed": draw(st.integers(0, 3)),
    }
    return adata, options


def annotated_or_refused(adata, options) -> str:
    """Annotate; return "named", or the words with which it was refused; fail where an invariant does not hold."""
    column = options.pop("labels", "kind")
    settings = {"model_config": TINY, "train_config": BRIEF, "fits": 2, **options}
    return _named_or_refused(adata, lambda: annotate(adata, column, **settings))


def mapped_or_refused(model, adata, **asked) -> str:
    """Hand cells to what was learned before; the rest as above."""
    return _named_or_refused(adata, lambda: predict(model, adata, **asked))


def small_model() -> Annotator:
    """Return what was learned of cells with eight genes, whose names some of the drawn cells have."""
    adata = load("simulated", cells=60, genes=20)[:, :8].copy()
    adata = adata[adata.X.getnnz(axis=1) > 0].copy()
    adata.var_names = [f"gene{g}" for g in range(8)]
    with TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        annotate(adata, fits=2, model_config=TINY, train_config=BRIEF, model=Path(folder) / "model")
        return Annotator.load(Path(folder) / "model")


def _as_people_have_them(draw, labels):
    """Return a column of labels in a type that people's files have."""
    kind, values = draw(st.sampled_from(DTYPES_OF_LABELS)), labels.to_numpy(dtype=object)
    with suppress(TypeError, ValueError):  # what cannot be of that type stays as it is
        if kind == "bytes":
            return values.astype("S8")
        if kind == "category of numbers":
            return pd.Categorical(pd.factorize(labels.map(str))[0])
        return pd.array(values, dtype=kind)
    return values


def _named_by_a_column(draw, adata):
    """Let cells or genes be named by a column, as in `adata.var_names = adata.var["symbol"]`, in a type of its own."""
    table = draw(st.sampled_from([adata.obs, adata.var]))
    kind = draw(st.sampled_from(["object", "category", "string"]))
    table["symbol"] = pd.Series(table.index, table.index).astype(kind)
    if draw(st.booleans()):
        table.index = pd.Index(table["symbol"], name="symbol")
    else:
        table.index.name = "symbol"
    if len(table) and draw(st.integers(0, 3)) == 0:
        table["symbol"] = "another"


def _named_or_refused(adata, act) -> str:
    before = _everything(adata)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            refuse_unwritable(adata)
        except InputError as error:
            writable, reason = False, " ".join(str(error).split()[:6])
        else:
            writable = True
        try:
            act()
        except OURS as error:
            _same(before, _everything(adata))
            return " ".join(str(error).split()[:6])
        answer_holds(adata)
        _same(before, _everything(adata, without_answer=True))
        if not writable:
            return f"named, but: {reason}"
        _written_read_and_drawn(adata)
    return "named"


def _written_read_and_drawn(adata):
    """Assert that what was accepted can be written, read again and drawn."""
    with TemporaryDirectory() as folder:
        path = Path(folder) / "named.h5ad"
        write(adata, path)
        again = read_h5ad(path)
    answer_holds(again)
    assert list(again.obs["scanvi_label"].astype(str)) == list(adata.obs["scanvi_label"].astype(str))
    places = np.random.default_rng(0).normal(size=(adata.n_obs, 2))
    if len(adata.uns["scanvi"]["label_names"]) <= 30:
        plt.close(probability_plot(probabilities_of(again)))
        plt.close(figure6(again, labels_key="scanvi_label", coordinates=places))
    if "held_out" in again.uns["scanvi"] and adata.n_obs < 10:  # else a map of cells, which takes seconds
        report_page(again)


def answer_holds(adata):
    """Assert all that is promised of an answer."""
    table, states = adata.obsm["scanvi_probabilities"], adata.obsm["X_scanvi"]
    p = table.to_numpy()
    assert np.isfinite(p).all()
    assert np.isfinite(states).all()
    assert (p >= 0).all()
    np.testing.assert_allclose(p.sum(1), 1, atol=1e-6)
    assert table.index.equals(adata.obs_names)
    assert adata.obs["scanvi_label"].notna().all()
    names = pd.Index([str(name) for name in adata.uns["scanvi"]["label_names"]])
    codes = names.get_indexer(adata.obs["scanvi_label"].astype(str))
    refused = np.isnan(adata.obs["scanvi_probability"].to_numpy())
    assert ((codes >= 0) | refused).all()
    assert not refused.any() or "reject" in adata.uns["scanvi"]["guarantee"]
    own = np.where(refused, np.nan, p[np.arange(len(p)), codes])
    np.testing.assert_array_equal(own, adata.obs["scanvi_probability"])
    assert adata.obs["scanvi_p_known"].between(0, 1).all()
    if "scanvi_set" in adata.obs:
        sizes = adata.obs["scanvi_set_size"]
        assert sizes.between(1, len(names)).all()


def _names(draw, kind, number):
    names = [f"{kind}{i}" for i in range(number)]
    how = draw(st.integers(0, 11))
    if how == 0 and number > 1:
        names[1] = names[0]
    elif how == 1 and number:
        names[0] = draw(st.sampled_from(["", "γ", "a/b", "nan", " "]))
    return pd.Index(names, dtype=object)


def _everything(adata, without_answer=False):
    """Return a copy of all that a user has in an AnnData."""
    obs = adata.obs.copy()
    uns = deepcopy(dict(adata.uns))
    obsm = set(adata.obsm)
    if without_answer:
        obs, obsm = (
            obs.drop(columns=[name for name in WRITTEN if name in obs]),
            obsm - {"scanvi_probabilities", "X_scanvi"},
        )
        uns.pop("scanvi")
    matrices = [adata.X, *(adata.layers[name] for name in sorted(adata.layers))]
    parts = [
        None
        if matrix is None
        else (type(matrix), matrix.dtype, sparse.csr_matrix(matrix).toarray().copy())
        if sparse.issparse(matrix)
        else (type(matrix), matrix.dtype, np.array(matrix))
        for matrix in matrices
    ]
    return parts, obs, adata.var.copy(), uns, obsm


def _same(before, after):
    for left, right in zip(before[0], after[0], strict=True):
        if left is None or right is None:
            assert left is right
            continue
        assert left[:2] == right[:2]
        np.testing.assert_array_equal(left[2], right[2])
    pd.testing.assert_frame_equal(before[1], after[1])
    pd.testing.assert_frame_equal(before[2], after[2])
    assert before[3] == after[3]
    assert before[4] == after[4]
