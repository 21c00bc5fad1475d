"""One fit over several processes: the gradients and labels of one, the same state in all, no silent loss of one."""

import os
import signal
from dataclasses import replace
from functools import partial

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

import scanvi_tutorial as st
from scanvi_tutorial.config import ModelConfig, TrainConfig
from scanvi_tutorial.inputs.errors import InputError
from scanvi_tutorial.model.persistence import PersistenceError
from scanvi_tutorial.training.fast import FastEngine
from scanvi_tutorial.training.minibatches import Minibatch, read_half
from scanvi_tutorial.training.objective import loss_of
from scanvi_tutorial.training.processes import Processes, launch

CONFIG = ModelConfig(gene_hidden=(16,), dropout_rate=0.0)
SHORT = TrainConfig(max_epochs=12, batch_size=64, warmup=0.25)
ROWS = np.arange(40, 104), np.arange(16)  # without and with a label


@pytest.fixture(scope="module")
def adata():
    return st.load("simulated", cells=400, per_label=25)


class NoiseOf:
    """Noise of all cells of a minibatch, of which a process takes its own."""

    def __init__(self, rank, count):
        self.rank, self.count, self.generator = rank, count, torch.Generator().manual_seed(0)

    def __call__(self, like):
        *enum, cells, latent = like.shape
        whole = torch.randn(*enum, cells * self.count, latent, generator=self.generator)
        return whole[..., self.rank * cells : (self.rank + 1) * cells, :]


def gradients_of(model, halves, noise, processes):
    """Return the gradients of a minibatch, averaged over processes."""
    torch.randn_like, own = noise, torch.randn_like
    try:
        loss_of(FastEngine(model.train()), Minibatch(*halves)).backward()
    finally:
        torch.randn_like = own
    processes.average(p.grad for p in model.parameters())
    return {name: p.grad.contiguous() for name, p in model.named_parameters() if p.grad is not None}


def shared_gradients(adata, folder, norm, fabric):
    processes = Processes(fabric)
    model = st.SCANVI.from_anndata(adata, replace(CONFIG, norm=norm))
    cells = model.cells(adata)
    halves = [
        read_half(cells, processes.part(rows), labeled=labeled, sparse=True)
        for rows, labeled in zip(ROWS, (False, True), strict=True)
    ]
    found = gradients_of(model, halves, NoiseOf(fabric.global_rank, 2), processes)
    save_file(found, folder / f"{norm}{fabric.global_rank}")


def both_norms(adata, folder, fabric):
    for norm in ("layer", "batch"):
        shared_gradients(adata, folder, norm, fabric)


def fit_in(adata, folder, config, killed, fabric, seed_of=None):
    """Fit; leave model and history of every process, or be killed at a step."""
    steps = []

    def after_step():
        steps.append(1)
        if killed is not None and len(steps) == killed and fabric.global_rank == 1:
            os.kill(os.getpid(), signal.SIGKILL)

    seed = 0 if seed_of is None else seed_of * fabric.global_rank
    model = st.SCANVI.from_anndata(adata, CONFIG, seed=seed)
    history = st.fit(
        model, adata, config, fabric=fabric, checkpoint=folder / "kept", checkpoint_every=2, after_step=after_step
    )
    history.frame.to_csv(folder / f"history{fabric.global_rank}.csv")
    model.save(folder / f"model{fabric.global_rank}")
    return len(history)


def close(one, other, tolerance):
    return all(float((one[name] - other[name]).norm() / other[name].norm()) < tolerance for name in other)


@pytest.mark.slow
def test_two_processes_have_the_gradient_of_one(adata, tmp_path):
    """Of the whole minibatch with LayerNorm; with BatchNorm, which knows a process's cells alone, of its two parts."""
    adata = adata.copy()
    adata.obs["label"] = adata.obs["truth"].where(np.arange(adata.n_obs) < len(ROWS[1]))
    launch(partial(both_norms, adata, tmp_path), 2)
    for norm in ("layer", "batch"):
        found = [load_file(tmp_path / f"{norm}{rank}") for rank in (0, 1)]
        assert found[0].keys() == found[1].keys()
        assert all(torch.equal(found[0][name], found[1][name]) for name in found[0])
        model = st.SCANVI.from_anndata(adata, replace(CONFIG, norm=norm))
        cells = model.cells(adata)
        whole = [
            read_half(cells, rows, labeled=labeled, sparse=True)
            for rows, labeled in zip(ROWS, (False, True), strict=True)
        ]
        if norm == "layer":
            expected = gradients_of(model, whole, NoiseOf(0, 1), Processes())
        else:
            parts = []
            for rank in (0, 1):
                model.zero_grad()
                halves = [
                    read_half(cells, np.array_split(rows, 2)[rank], labeled=labeled, sparse=True)
                    for rows, labeled in zip(ROWS, (False, True), strict=True)
                ]
                parts.append(gradients_of(model, halves, NoiseOf(rank, 2), Processes()))
            expected = {name: (parts[0][name] + parts[1][name]) / 2 for name in parts[0]}
        assert close(found[0], expected, 1e-6)


@pytest.mark.slow
def test_two_processes_end_in_one_state_and_name_cells_as_one_does(adata, tmp_path):
    config = replace(SHORT, max_epochs=40)
    launch(partial(fit_in, adata, tmp_path, config, None), 2)
    assert (tmp_path / "history0.csv").read_text() == (tmp_path / "history1.csv").read_text()
    two, other = (st.SCANVI.load(tmp_path / f"model{rank}") for rank in (0, 1))
    assert all(torch.equal(two.state_dict()[name], other.state_dict()[name]) for name in two.state_dict())
    one = st.SCANVI.from_anndata(adata, CONFIG)
    st.fit(one, adata, config)
    truth, sure = adata.obs["truth"].astype(str), []
    for model in (one, two):
        p = st.label_probabilities(model, adata)
        sure.append((p.idxmax(axis=1) == truth).mean())
    assert abs(sure[0] - sure[1]) < 0.03
    assert min(sure) > 0.8
    assert not (tmp_path / "kept").exists()


@pytest.mark.slow
def test_a_killed_process_ends_the_fit_in_words_and_it_goes_on_to_the_bit(adata, tmp_path):
    (tmp_path / "whole").mkdir()
    launch(partial(fit_in, adata, tmp_path / "whole", SHORT, None), 2)
    with pytest.raises(ConnectionError, match=r"killed|has ended"):
        launch(partial(fit_in, adata, tmp_path, SHORT, 35), 2)
    assert (tmp_path / "kept").exists()
    launch(partial(fit_in, adata, tmp_path, SHORT, None), 2)
    whole, again = (st.SCANVI.load(folder / "model0").state_dict() for folder in (tmp_path / "whole", tmp_path))
    assert all(torch.equal(whole[name], again[name]) for name in whole)


@pytest.mark.slow
def test_processes_with_other_weights_are_refused(adata, tmp_path):
    with pytest.raises(ConnectionError, match="different cells, settings, initial weights"):
        launch(partial(fit_in, adata, tmp_path, SHORT, None, seed_of=1), 2)


class TwoProcesses:
    """What Fabric is to one of two processes, the other of which has `other` values or is gone."""

    world_size, global_rank, device = 2, 0, torch.device("cpu")

    def __init__(self, other=None):
        self.other = other

    def all_reduce(self, values, reduce_op):
        if self.other is None:
            raise RuntimeError("Connection closed by peer")
        return values.copy_((values + self.other) / 2)


class Agreeing(TwoProcesses):
    """The other process always has the same values."""

    def all_reduce(self, values, reduce_op):
        return values


def test_a_mean_over_processes_keeps_the_shape_and_the_layout_of_each_tensor():
    tensors = [torch.zeros(2, 3).t(), None, torch.zeros(4)]
    Processes(TwoProcesses(other=torch.arange(10.0))).average(tensors)
    assert torch.equal(tensors[0], torch.arange(6.0).view(3, 2) / 2)
    assert torch.equal(tensors[2], torch.arange(6.0, 10) / 2)


def test_a_lost_process_is_told_in_words_and_other_cells_are_refused():
    with pytest.raises(ConnectionError, match="Another of the 2 processes of this fit has ended"):
        Processes(TwoProcesses()).mean({"loss": 1.0})
    with pytest.raises(InputError, match="different cells"):
        Processes(TwoProcesses(other=1.0)).check_alike(["cells", 3])


@pytest.mark.parametrize(("rows", "count"), [(10, 2), (11, 3), (128, 8), (5, 4), (1, 2), (0, 2)])
def test_every_process_has_as_many_rows_and_none_are_shared_unless_there_are_too_few(rows, count):
    class One:
        world_size = count

        def __init__(self, rank):
            self.global_rank = rank

    parts = [Processes(One(rank)).part(np.arange(rows)) for rank in range(count)]
    assert len({len(part) for part in parts}) == 1
    if rows >= 2 * count:
        assert len(set(np.concatenate(parts))) == rows // count * count
    else:
        assert all(len(part) == rows for part in parts)


def test_a_checkpoint_of_one_process_is_refused_by_two(adata, tmp_path, monkeypatch):
    path, model = tmp_path / "kept", st.SCANVI.from_anndata(adata, CONFIG)

    class Stopped(Exception):
        pass

    def after_step():
        if path.exists():
            raise Stopped

    with pytest.raises(Stopped):
        st.fit(model, adata, SHORT, checkpoint=path, checkpoint_every=1, after_step=after_step)
    again = st.SCANVI.from_anndata(adata, CONFIG)
    with pytest.raises(PersistenceError, match="number of processes"):
        st.fit(again, adata, SHORT, checkpoint=path, fabric=Agreeing())


def test_a_fabric_of_one_process_changes_nothing(adata):
    from lightning_fabric import Fabric

    fabric = Fabric(accelerator="cpu", devices=1)
    fabric.launch()
    alone, with_fabric = (st.SCANVI.from_anndata(adata, CONFIG) for _ in range(2))
    st.fit(alone, adata, SHORT)
    st.fit(with_fabric, adata, SHORT, fabric=fabric)
    ours, theirs = alone.state_dict(), with_fabric.state_dict()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)
