"""Minibatches: every unlabelled cell once, labels beside each, no cell alone, nothing dense before its turn."""

import numpy as np
import pytest
import torch

from scanvi_tutorial.batching import Cells, chunks, dense, paired_minibatches
from scanvi_tutorial.checks import InputError

NAMES = {"labels": ["B", "NK", "T"], "label_key": "label"}


def read(adata, **names):
    return Cells.from_anndata(adata, genes=list(adata.var_names), **(NAMES | names))


def epoch(cells, *, seed=0, size=8, labelled_size=100, balanced=False):
    rows = np.flatnonzero(cells.codes < 0), np.flatnonzero(cells.codes >= 0)
    rng = np.random.default_rng(seed)
    return list(paired_minibatches(cells, *rows, size=size, labelled_size=labelled_size, balanced=balanced, rng=rng))


@pytest.mark.parametrize("number", [2, 7, 8, 9, 16, 17, 63, 64, 65])
def test_no_chunk_holds_one_cell_and_none_is_lost(number):
    pieces = chunks(np.arange(number), 8)
    assert sorted(np.concatenate(pieces)) == list(range(number))
    assert min(map(len, pieces)) >= min(number, 8)
    assert max(map(len, pieces)) < 16


def test_an_epoch_shows_every_unlabelled_cell_once(tiny):
    adata = tiny(cells=50)
    minibatches = epoch(read(adata))
    seen = torch.cat([m.x for m in minibatches])
    unlabelled = adata.X[(adata.obs["label"] == "Unknown").to_numpy()].toarray()
    assert sorted(map(tuple, seen.numpy())) == sorted(map(tuple, unlabelled))


def test_every_minibatch_has_all_labelled_cells_while_they_are_few(tiny):
    adata = tiny(cells=50)
    labelled = (adata.obs["label"] != "Unknown").to_numpy()
    for minibatch in epoch(read(adata)):
        np.testing.assert_array_equal(minibatch.x_labelled, adata.X[labelled].toarray())
        names = np.array(NAMES["labels"])[minibatch.y.argmax(-1)]
        assert list(names) == list(adata.obs["label"][labelled])
        assert torch.equal(minibatch.y.sum(-1), torch.ones(labelled.sum()))


def test_many_labelled_cells_are_sampled_without_replacement(tiny):
    cells = read(tiny(cells=60, labelled=2))
    for minibatch in epoch(cells, labelled_size=10):
        assert len(minibatch.y) == 10


def test_balanced_sampling_evens_out_the_classes(tiny):
    cells = read(tiny(cells=300, labelled=2))
    rare = np.flatnonzero(cells.codes == 0)[2:]
    cells.codes[rare] = -1  # two cells of class 0 are left among about a hundred
    drawn = torch.cat([m.y for m in epoch(cells, balanced=True)]).mean(0)
    plain = torch.cat([m.y for m in epoch(cells)]).mean(0)
    assert plain[0] < 0.05
    torch.testing.assert_close(drawn, torch.full((3,), 1 / 3), atol=0.08, rtol=0)


def test_order_follows_the_generator(tiny):
    cells = read(tiny(cells=50))
    first, again, other = (epoch(cells, seed=seed) for seed in (1, 1, 2))
    assert all(torch.equal(a.x, b.x) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a.x, b.x) for a, b in zip(first, other, strict=True))


def test_all_cells_labelled_leaves_one_minibatch_of_labels(tiny):
    (minibatch,) = epoch(read(tiny(labelled=1)))
    assert minibatch.x is None
    assert len(minibatch.y) == 30


def test_a_single_unlabelled_cell_stands_twice(tiny):
    cells = read(tiny(labelled=1))
    cells.codes[4] = -1
    (minibatch,) = epoch(cells)
    assert minibatch.x.shape == (2, 9)
    assert torch.equal(minibatch.x[0], minibatch.x[1])


def test_rows_come_dense_and_in_order(tiny):
    adata = tiny()
    rows = np.array([7, 0, 7])
    np.testing.assert_array_equal(dense(adata.X, rows), adata.X.toarray()[rows])


def test_genes_in_another_order_are_put_right(tiny):
    adata = tiny()
    shuffled = adata[:, ::-1].copy()
    cells = Cells.from_anndata(shuffled, genes=list(adata.var_names), **NAMES)
    np.testing.assert_array_equal(cells.counts.toarray(), adata.X.toarray())


def test_codes_follow_the_models_labels_not_the_datas(tiny):
    adata = tiny()
    cells = read(adata, labels=["T", "B", "NK"])
    row = int(np.flatnonzero(adata.obs["label"] == "T")[0])
    assert cells.codes[row] == 0
    assert (cells.codes == -1).sum() == (adata.obs["label"] == "Unknown").sum()


def test_a_label_the_model_does_not_know_is_named(tiny):
    with pytest.raises(InputError, match=r"NK.*does not know"):
        read(tiny(), labels=["B", "T"])
