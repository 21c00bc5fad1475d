"""Minibatches: every unlabeled cell once, labels beside each, no cell alone, nothing dense before its turn."""

import numpy as np
import pytest
import scipy.stats
import torch
from scipy.sparse import csr_matrix

from scanvi_tutorial.inputs import InputError
from scanvi_tutorial.inputs.arrays import Cells, chunks, dense
from scanvi_tutorial.inputs.cells import Columns
from scanvi_tutorial.training.minibatches import downsample_counts, paired_minibatches

NAMES = ["B", "NK", "T"]


def read(adata, label_names=NAMES):
    return Cells.from_anndata(adata, genes=[f"gene{g}" for g in range(9)], columns=Columns(), label_names=label_names)


def epoch(cells, *, seed=0, labeled_batch_size=100, **settings):
    rows = np.flatnonzero(cells.codes < 0), np.flatnonzero(cells.codes >= 0)
    settings |= {"batch_size": 8, "labeled_batch_size": labeled_batch_size}
    return list(paired_minibatches(cells, *rows, rng=np.random.default_rng(seed), **settings))


@pytest.mark.parametrize("number", [2, 7, 8, 9, 16, 17, 63, 64, 65])
def test_no_chunk_holds_one_cell_and_none_is_lost(number):
    pieces = chunks(np.arange(number), 8)
    assert sorted(np.concatenate(pieces)) == list(range(number))
    assert min(map(len, pieces)) >= min(number, 8)
    assert max(map(len, pieces)) < 16


def test_an_epoch_shows_every_unlabeled_cell_once(tiny):
    adata = tiny(cells=50)
    minibatches = epoch(read(adata))
    seen = torch.cat([m.unlabeled.x for m in minibatches])
    unlabeled = adata.X[(adata.obs["label"] == "Unknown").to_numpy()].toarray()
    assert sorted(map(tuple, seen.numpy())) == sorted(map(tuple, unlabeled))


def test_every_minibatch_has_all_labeled_cells_while_they_are_few(tiny):
    adata = tiny(cells=50)
    labeled = (adata.obs["label"] != "Unknown").to_numpy()
    for minibatch in epoch(read(adata)):
        np.testing.assert_array_equal(minibatch.labeled.x, adata.X[labeled].toarray())
        names = np.array(NAMES)[minibatch.labeled.y.argmax(-1)]
        assert list(names) == list(adata.obs["label"][labeled])
        assert torch.equal(minibatch.labeled.y.sum(-1), torch.ones(labeled.sum()))


def test_many_labeled_cells_are_sampled_without_replacement(tiny):
    cells = read(tiny(cells=60, labeled=2))
    for minibatch in epoch(cells, labeled_batch_size=10):
        assert len(minibatch.labeled.x) == len(minibatch.labeled.x.unique(dim=0)) == 10


def test_order_follows_the_generator(tiny):
    cells = read(tiny(cells=50))
    first, again, other = (epoch(cells, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a.unlabeled.x, b.unlabeled.x) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.unlabeled.x, b.unlabeled.x) for a, b in zip(first, other, strict=True))


def test_all_cells_labeled_leaves_one_minibatch_of_labels(tiny):
    (minibatch,) = epoch(read(tiny(labeled=1)))
    assert minibatch.unlabeled is None
    assert len(minibatch.labeled.y) == 30


def test_a_single_unlabeled_cell_stands_twice(tiny):
    cells = read(tiny(labeled=1))
    cells.codes[4] = -1
    (minibatch,) = epoch(cells)
    assert minibatch.unlabeled.x.shape == (2, 9)
    assert torch.equal(*minibatch.unlabeled.x)


def test_rows_come_dense_and_in_order(tiny):
    adata = tiny()
    rows = np.array([7, 0, 7])
    np.testing.assert_array_equal(dense(adata.X, rows), adata.X.toarray()[rows])


def test_genes_in_another_order_are_put_right(tiny):
    adata = tiny()
    cells = read(adata[:, ::-1].copy())
    np.testing.assert_array_equal(cells.counts.toarray(), adata.X.toarray())


def test_codes_follow_the_models_labels_not_the_datas(tiny):
    adata = tiny()
    cells = read(adata, label_names=["T", "B", "NK"])
    row = int(np.flatnonzero(adata.obs["label"] == "T")[0])
    assert cells.codes[row] == 0
    assert (cells.codes == -1).sum() == (adata.obs["label"] == "Unknown").sum()


def test_a_label_the_model_does_not_know_is_named(tiny):
    with pytest.raises(InputError, match=r"NK.*does not know"):
        read(tiny(), label_names=["B", "T"])


def test_every_molecule_of_a_cell_is_kept_with_the_depth_of_its_cell():
    counts = csr_matrix(np.full((400, 50), 40, dtype=np.float32))
    kept, depth = downsample_counts(counts, 0.2, np.random.default_rng(0))
    kept = kept.toarray()
    assert (kept <= 40).all()
    assert scipy.stats.kstest(depth[:, 0], scipy.stats.uniform(0.2, 0.8).cdf).pvalue > 0.01
    np.testing.assert_allclose(kept.mean(1), 40 * depth[:, 0], atol=5 * np.sqrt(40 / 4 / 50))
    standard = (kept - 40 * depth) / np.sqrt(40 * depth * (1 - depth) + 1e-9)
    assert standard[depth[:, 0] < 0.95].std() == pytest.approx(1, abs=0.02)


def test_counts_of_one_are_kept_with_the_depth_of_their_cell_and_zeros_stay_zero():
    counts = csr_matrix(np.ones((300, 2_000), dtype=np.float32))
    counts.data[::2] = 0  # stored, and no molecule
    kept, depth = downsample_counts(counts, 0.2, np.random.default_rng(0))
    kept = kept.toarray()
    assert set(np.unique(kept)) == {0, 1}
    assert not kept[:, ::2].any()
    standard = (kept.sum(1) - 1_000 * depth[:, 0]) / np.sqrt(1_000 * depth[:, 0] * (1 - depth[:, 0]) + 1e-9)
    assert scipy.stats.kstest(standard[depth[:, 0] < 0.95], scipy.stats.norm.cdf).pvalue > 0.01


def test_thinning_makes_no_count_from_nothing_and_leaves_the_counts_as_they_were(tiny):
    counts = csr_matrix(tiny().X)
    before = counts.copy()
    kept, _ = downsample_counts(counts, 0.1, np.random.default_rng(0))
    kept.eliminate_zeros()  # which would spoil the counts, were their indices shared
    assert (kept.toarray() <= counts.toarray()).all()
    assert (counts != before).nnz == 0
    assert kept.dtype == counts.dtype


def test_minibatches_are_downsampled_where_asked_and_know_the_depth(tiny):
    cells = read(tiny(cells=50))
    whole, less = epoch(cells), epoch(cells, min_depth=0.3)
    assert all(half.depth is None for m in whole for half in (m.unlabeled, m.labeled))
    assert sum(m.unlabeled.x.sum() for m in less) < sum(m.unlabeled.x.sum() for m in whole)
    for half in (half for m in less for half in (m.unlabeled, m.labeled)):
        assert half.depth.shape == (len(half.x), 1)
        assert 0.3 <= half.depth.min() <= half.depth.max() <= 1
    assert not torch.equal(less[0].labeled.x, less[1].labeled.x)  # no seed is shown twice alike
