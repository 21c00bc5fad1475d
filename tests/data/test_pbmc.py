"""The T cells of Pyro's tutorial: the same cells, order and labels, from a file of the same form."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from scipy import sparse

from scanvi_tutorial.config import UNLABELED, RunConfig
from scanvi_tutorial.data import pbmc
from scanvi_tutorial.data.facs import load_facs_t
from scanvi_tutorial.data.pbmc import MARKERS, POPULATIONS, load_pbmc
from scanvi_tutorial.inputs import InputError

GENES = ["CD4", "FOXP3", "TNFRSF18", "IL2RA", "CTLA4", "CD44", "TCF7", "CD8B", "CCR7", "CD69", "PTPRC", "S100A4"]
TYPES = ["CD8 naive", "CD4 naive", "CD4 memory", "CD4 regulatory"]  # label codes 0-3
TRUTH = {"regulatory_t": 3, "naive_t": 1, "memory_t": 2, "naive_cytotoxic": 0}  # in the order of the rows
OTHERS = ["b_cells", "cd56_nk"]  # the real file holds these too
SIDES = {  # design of the source, written down once more: code -> (+, -)
    3: ("TNFRSF18 CTLA4 FOXP3 IL2RA", "S100A4 PTPRC CD8B"),
    0: ("CD8B CCR7", "CD4"),
    1: ("CCR7 CD4", "S100A4 PTPRC FOXP3 IL2RA CD69"),
    2: ("S100A4", "IL2RA FOXP3 TNFRSF18 CCR7"),
}


def source(
    cells: int = 150, genes: int = 30, depth: float = 400, seed: int = 0, *, mixed: bool = False, alike: int = 1
) -> AnnData:
    """Simulate the source's file: `cells` of each population, marker genes scattered among others.

    `alike` cells in a row have the same counts, so that their scores are equal.
    """
    rng = np.random.default_rng(seed)
    populations = np.repeat([OTHERS[0], *sorted(TRUTH), OTHERS[1]], cells)
    if mixed:
        rng.shuffle(populations)
    names = rng.permutation([*GENES, *(f"GENE{i}" for i in range(genes - len(GENES)))])
    rates = rng.dirichlet(np.full(genes, 2.0), size=len(TRUTH) + len(OTHERS))
    kinds = [*TRUTH, *OTHERS]
    rate = np.stack([rates[kinds.index(p)] for p in populations]) * depth * rng.lognormal(0, 0.4, (len(populations), 1))
    counts = rng.poisson(rate)
    counts[:, 0] += 1  # no cell is empty
    counts = counts[np.arange(len(counts)) // alike * alike]
    obs = pd.DataFrame({"cell_types": pd.Categorical(populations)}, index=[f"cell{i}" for i in range(len(populations))])
    return AnnData(sparse.csr_matrix(counts.astype(np.float32)), obs=obs, var=pd.DataFrame(index=names))


@pytest.fixture
def written(tmp_path: Path):
    def write(adata: AnnData) -> Path:
        adata.write_h5ad(tmp_path / "cells.h5ad")
        return tmp_path / "cells.h5ad"

    return write


def oracle(adata: AnnData, subset: int | None, per_label: int = 50) -> tuple[list[str], list[int]]:
    """Return names and label codes (-1 for none) by the protocol, with loops in place of arrays."""
    counts = adata.X.toarray().tolist()
    genes = list(adata.var_names)
    kind = list(adata.obs["cell_types"])
    rows = [i for population in TRUTH for i in range(len(kind)) if kind[i] == population]
    standard: dict[str, list[float]] = {}
    for gene in GENES:
        values = [math.log1p(1e4 * counts[i][genes.index(gene)] / sum(counts[i])) for i in rows]
        mean = math.fsum(values) / len(values)
        sd = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (len(values) - 1))
        standard[gene] = [(v - mean) / sd for v in values]
    codes = [-1] * len(rows)
    for code in range(4):  # a later type takes a cell from an earlier
        plus, minus = (side.split() for side in SIDES[code])
        score = [sum(standard[g][c] for g in plus) - sum(standard[g][c] for g in minus) for c in range(len(rows))]
        ascending = sorted(range(len(rows)), key=lambda c: (round(score[c], 9), c))  # of equals the later row wins
        for c in ascending[-per_label:]:
            codes[c] = code
    order = list(range(len(rows)))
    if subset is not None:
        seeds, others = [c for c in order if codes[c] >= 0], [c for c in order if codes[c] < 0]
        with torch.random.fork_rng():
            torch.manual_seed(0)
            permuted = [others[i] for i in torch.randperm(len(others)).tolist()]
        order = seeds + permuted[: subset - len(seeds)]
    return [adata.obs_names[rows[c]] for c in order], [codes[c] for c in order]


def codes_of(adata: AnnData) -> list[int]:
    return [-1 if label == UNLABELED else TYPES.index(label) for label in adata.obs["label"]]


# --- the protocol ---------------------------------------------------------------------------------

CASES = {
    "deep": {},
    "shallow": {"depth": 20, "cells": 200, "seed": 1},
    "cells in threes": {"alike": 3, "seed": 1},  # 50 is no multiple of 3: equals on both sides of the border
    "populations mixed up": {"mixed": True, "seed": 2},
    "shallow and mixed": {"depth": 25, "mixed": True, "seed": 3},
}


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
@pytest.mark.parametrize("subset", [None, 20_000, 300])
def test_cells_order_and_seeds_are_those_of_the_protocol_written_with_loops(written, case, subset):
    adata = source(**case)
    names, codes = oracle(adata, subset)
    found = load_pbmc(subset, written(adata))
    assert list(found.obs_names) == names
    assert codes_of(found) == codes


def test_another_number_of_seeds_is_drawn_in_the_same_way(written):
    adata = source()
    names, codes = oracle(adata, 300, per_label=7)
    found = load_pbmc(300, written(adata), per_label=7)
    assert list(found.obs_names) == names
    assert codes_of(found) == codes


def test_the_cases_hold_cells_that_two_types_claim_and_ties_where_it_matters():
    """Without them the test above would prove less than it says."""
    for case in CASES.values():
        assert 0 < sum(code >= 0 for code in oracle(source(**case), None)[1]) < 200
    borders = [s[-50:-52:-1] for s in map(np.sort, pyro_scores(source(**CASES["cells in threes"])).values())]
    assert all(last == next_best for last, next_best in borders)


def fake_scvi(adata: AnnData) -> ModuleType:
    """Stand in for scvi-tools, of which Pyro's loader uses this one function."""

    def purified_pbmc_dataset(subset_datasets: list[str]) -> AnnData:
        rows = [np.where(adata.obs["cell_types"] == population)[0] for population in subset_datasets]
        return adata[np.concatenate(rows)].copy()

    module = ModuleType("scvi")
    module.data = SimpleNamespace(purified_pbmc_dataset=purified_pbmc_dataset)
    return module


def pyro_scores(adata: AnnData) -> dict[int, np.ndarray]:
    """Return the scores by Pyro's own function, on values that scanpy normalized."""
    import scanpy
    from pyro.contrib.examples.scanvi_data import _get_score

    normal = fake_scvi(adata).data.purified_pbmc_dataset(list(TRUTH))
    scanpy.pp.normalize_total(normal, target_sum=1e4)
    scanpy.pp.log1p(normal)
    normal = normal[:, GENES].copy()
    normal.X = normal.X.toarray()
    scanpy.pp.scale(normal)
    return {
        code: _get_score(normal, {"positive": plus.split(), "negative": minus.split()})
        for code, (plus, minus) in SIDES.items()
    }


def pyro_data(adata: AnnData, monkeypatch: pytest.MonkeyPatch) -> tuple[list[str], list[int], torch.Tensor]:
    """Return names, label codes and counts from Pyro's own `get_data`, whole and unchanged."""
    from pyro.contrib.examples.scanvi_data import get_data

    monkeypatch.setitem(sys.modules, "scvi", fake_scvi(adata))
    with torch.random.fork_rng():
        loader, *_, cells = get_data("pbmc")
    return list(cells.obs_names), loader.data_y.tolist(), loader.data_x


def clear_cut(adata: AnnData) -> bool:
    """Tell whether the 50th cell of every type scores well above the 51st: Pyro leaves equals to NumPy's quicksort."""
    return all(s[-50] - s[-51] > 1e-4 for s in map(np.sort, pyro_scores(adata).values()))


pyro_warns = pytest.mark.filterwarnings("ignore:zero-centering a sparse", "ignore:.*view.*:UserWarning")


@pyro_warns
@pytest.mark.parametrize("case", [{"seed": 4}, {"seed": 5, "mixed": True}, {"seed": 6, "depth": 3000}])
def test_cells_order_labels_and_counts_are_those_of_pyros_own_loader(written, monkeypatch, case):
    adata = source(**case)
    assert clear_cut(adata)
    names, codes, counts = pyro_data(adata, monkeypatch)
    found = load_pbmc(path=written(adata))
    assert list(found.obs_names) == names
    assert codes_of(found) == codes
    assert torch.equal(torch.from_numpy(found.X.toarray()), counts)


@pyro_warns
def test_of_more_cells_pyros_loader_keeps_the_same_20_000(written, monkeypatch):
    adata = source(cells=5_100, genes=16, seed=7)
    assert clear_cut(adata)
    names, codes, _ = pyro_data(adata, monkeypatch)
    found = load_pbmc(path=written(adata))
    both = 19_800 + found.uns["seeds"]["per_label"] * 4 - (200 - sum(c >= 0 for c in codes))
    assert found.n_obs == 20_000
    assert len(names) == both  # where types claim the same cell Pyro keeps fewer; on the real file none do
    assert list(found.obs_names)[:both] == names
    assert codes_of(found)[:both] == codes


@pyro_warns
def test_where_scores_are_equal_the_seeds_score_as_high_as_pyros(written):
    adata = source(**CASES["cells in threes"])
    found, scores = codes_of(load_pbmc(None, written(adata))), pyro_scores(adata)
    for code, score in scores.items():
        mine = np.flatnonzero(np.array(found) == code)
        assert (score[mine] > np.sort(score)[-50] - 1e-5).all()


@pyro_warns
def test_on_real_t_cells_too_everything_is_as_in_pyros_own_loader(written, monkeypatch):
    folder = RunConfig.from_env().data_dir
    if folder is None or not (folder / "pbmc_facs.RData").exists():
        pytest.skip("SCANVI_DATA_DIR names no folder that holds pbmc_facs.RData")
    sorted_cells = load_facs_t()
    population = {ours: theirs for theirs, ours in POPULATIONS.items()}
    obs = pd.DataFrame({"cell_types": sorted_cells.obs["truth"].map(population).astype(str)})
    adata = AnnData(sorted_cells.X, obs=obs, var=pd.DataFrame(index=sorted_cells.var_names))
    names, codes, counts = pyro_data(adata, monkeypatch)
    found = load_pbmc(path=written(adata))
    assert list(found.obs_names) == names
    assert codes_of(found) == codes
    assert torch.equal(torch.from_numpy(found.X.toarray()), counts)


def test_a_larger_subset_begins_with_the_smaller(written):
    path = written(source())
    small, large = load_pbmc(250, path), load_pbmc(400, path)
    assert list(large.obs_names[:250]) == list(small.obs_names)


def test_marker_table_names_the_twelve_genes_of_the_source_but_for_those_it_never_scores():
    mine = {TYPES.index(name): (" ".join(t["positive"]), " ".join(t["negative"])) for name, t in MARKERS.items()}
    assert mine == SIDES
    assert list(MARKERS) == TYPES
    assert set(GENES) - {g for sides in SIDES.values() for side in sides for g in side.split()} == {"CD44", "TCF7"}


# --- what comes back ------------------------------------------------------------------------------


def test_what_comes_back_keeps_the_contract(written):
    adata = source(mixed=True)
    found = load_pbmc(300, written(adata))
    assert isinstance(found.X, sparse.csr_matrix)
    assert found.X.dtype == np.float32
    assert found.shape == (300, adata.n_vars)
    assert (found.X != adata[found.obs_names].X).nnz == 0
    assert list(found.var_names) == list(adata.var_names)
    assert [TRUTH[p] for p in adata.obs["cell_types"][found.obs_names]] == list(found.obs["truth"].cat.codes)
    assert list(found.obs["truth"].cat.categories) == TYPES
    assert list(found.obs["label"].cat.categories) == [*TYPES, UNLABELED]
    assert found.uns["dataset"] == "pbmc"
    assert list(found.uns["markers"]) == TYPES
    assert not found.is_view


def test_seeds_alone_still_know_the_unlabeled_category(written):
    path = written(source())
    seeds = sum(code >= 0 for code in codes_of(load_pbmc(None, path)))
    assert list(load_pbmc(seeds, path).obs["label"].cat.categories) == [*TYPES, UNLABELED]


def test_repeated_names_are_made_unique(written):
    adata = source()
    free = [g for g in adata.var_names if g not in GENES][:2]
    adata.var_names = [free[0] if g == free[1] else g for g in adata.var_names]
    adata.obs_names = ["barcode"] * adata.n_obs
    with pytest.warns(UserWarning, match="not unique"):
        path = written(adata[:, :].copy())
    found = load_pbmc(path=path)
    assert found.obs_names.is_unique
    assert found.var_names.is_unique
    assert set(GENES) < set(found.var_names)


def test_changing_what_comes_back_leaves_the_table_alone(written):
    found = load_pbmc(300, written(source()))
    found.uns["markers"]["CD8 naive"]["positive"].append("CD8A")
    assert MARKERS["CD8 naive"]["positive"] == ["CD8B", "CCR7"]


@pytest.mark.parametrize("form", ["csc", "dense", "zeros stored", "float64", "int64"])
def test_the_way_counts_are_stored_does_not_matter(written, form):
    adata = source(mixed=True)
    wanted = load_pbmc(path=written(adata))
    if form == "csc":
        adata.X = adata.X.tocsc()
    elif form == "zeros stored":
        rows, columns = np.indices(adata.shape)
        adata.X = sparse.csr_matrix((adata.X.toarray().ravel(), (rows.ravel(), columns.ravel())))
        assert adata.X.nnz == rows.size
    elif form in ("float64", "int64"):
        adata.X = adata.X.astype(form)
    elif form == "dense":
        adata.X = adata.X.toarray()
    found = load_pbmc(path=written(adata))
    pd.testing.assert_frame_equal(found.obs, wanted.obs)
    assert isinstance(found.X, sparse.csr_matrix)
    assert found.X.dtype == np.float32
    assert found.X.nnz == wanted.X.nnz
    assert (found.X != wanted.X).nnz == 0


# --- where the file comes from --------------------------------------------------------------------


def test_without_a_path_the_file_is_downloaded(written, tmp_path, monkeypatch):
    path = written(source())
    asked = []
    monkeypatch.setattr(pbmc, "fetch", lambda name, data_dir: asked.append((name, data_dir)) or path)
    pd.testing.assert_frame_equal(load_pbmc(300, data_dir=tmp_path).obs, load_pbmc(300, path).obs)
    assert asked == [("PurifiedPBMCDataset.h5ad", tmp_path)]


# --- files that will not do -----------------------------------------------------------------------


def without_column(adata: AnnData) -> AnnData:
    adata.obs = adata.obs.rename(columns={"cell_types": "celltype"})
    return adata


def without_population(adata: AnnData) -> AnnData:
    return adata[adata.obs["cell_types"] != "memory_t"].copy()


def without_markers(adata: AnnData) -> AnnData:
    return adata[:, [g for g in adata.var_names if g not in ("FOXP3", "CD8B")]].copy()


def normalized(adata: AnnData) -> AnnData:
    adata.X = adata.X * np.float32(0.3)
    return adata


@pytest.mark.parametrize(
    ("spoil", "told"),
    [
        (without_column, ["no column obs['cell_types']", "celltype"]),
        (without_population, ["no cell of memory_t", "b_cells"]),
        (without_markers, ["lacks marker genes: CD8B, FOXP3", "var_names"]),
        (normalized, ["does not hold raw counts"]),
    ],
)
def test_a_file_of_another_form_is_refused_in_one_paragraph(written, spoil, told):
    with pytest.raises(InputError) as caught:
        load_pbmc(path=written(spoil(source())))
    assert "\n" not in str(caught.value)
    assert all(words in str(caught.value) for words in told)


@pytest.mark.parametrize("subset", [-1, 0, 50])
def test_a_subset_without_room_for_the_seeds_is_refused(written, subset):
    with pytest.raises(InputError, match=r"no room for the \d+ seeds"):
        load_pbmc(subset, written(source()))
