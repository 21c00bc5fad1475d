"""The label model: what it maximizes is the Pyro program; shares, wrong and coarse labels on cells of a known truth."""

import numpy as np
import pytest
import torch
from pyro.infer import TraceEnum_ELBO
from refused import refused
from sklearn.metrics import roc_auc_score

from scanvi_tutorial.annotation.label_model import LabelModel
from scanvi_tutorial.teaching import label_priors, label_program


def states(cells=600, shares=(0.5, 0.3, 0.2), distance=3.0, seed=0, dimensions=3):
    """Return states about a center a type, and the types."""
    rng = np.random.default_rng(seed)
    types = np.sort(rng.choice(len(shares), size=cells, p=shares))
    centers = distance * np.eye(len(shares), dimensions)
    return centers[types] + rng.standard_normal((cells, dimensions)), types


def said_by(model, codes, coarse=()):
    """Return what a model says, given exact labels, and rows that may be of types 0 and 1 alone."""
    allowed = np.ones((len(codes), 3), dtype=bool)
    allowed[list(coarse), 2] = False
    return model.fit(codes, allowed)


def seeds(types, each=10, seed=0):
    """Return labels of some cells of each type, -1 for the others."""
    rng, codes = np.random.default_rng(seed), np.full(len(types), -1)
    for kind in range(types.max() + 1):
        codes[rng.choice(np.flatnonzero(types == kind), each, replace=False)] = kind
    return codes


@pytest.fixture(scope="module")
def fitted():
    """Return two views, labels, a model, what it says, and the arguments of the program at its parameters."""
    z, types = states()
    other = z @ np.random.default_rng(1).standard_normal((3, 2)) + 1
    codes = seeds(types)
    model = LabelModel([z, other], [1.0, 3.0], unlabeled_weight=0.2, label_noise=0.1)
    named = said_by(model, codes)

    def tensors(arrays):
        return [torch.tensor(array, requires_grad=True) for array in arrays]

    found = named.parameters
    at = {
        "shares": torch.tensor(found.shares, requires_grad=True),
        "means": tensors(found.means),
        "covariances": tensors(found.covariances),
        "weights": [0.25, 0.75],
    }
    confusion = torch.full((3, 3), 0.05, dtype=torch.float64) + 0.85 * torch.eye(3, dtype=torch.float64)
    common = [torch.tensor(array) for array in found.common]
    return model, codes, named, at, confusion, common


def halves(model, codes, at, confusion):
    """Yield the arguments of the program for labeled and for unlabeled cells, and which rows they are."""
    for rows in (codes >= 0, codes < 0):
        labeled = bool((codes[rows] >= 0).all())
        views = [torch.tensor(view[rows]) for view in model.views]
        labels = torch.tensor(codes[rows]) if labeled else None
        shares = torch.full((3,), 1 / 3, dtype=torch.float64) if labeled else at["shares"]
        yield rows, (views, labels), at | {"confusion": confusion, "shares": shares}


def no_guide(*_, **__):
    """Leave every site to be summed over."""


def test_probabilities_are_those_of_the_pyro_program(fitted):
    model, codes, named, at, confusion, _ = fitted
    for rows, data, arguments in halves(model, codes, at, confusion):
        with torch.no_grad():
            marginals = TraceEnum_ELBO(max_plate_nesting=1).compute_marginals(
                label_program, no_guide, *data, **arguments
            )
        np.testing.assert_allclose(marginals["y"].logits.softmax(-1), named.of_labels[rows], atol=1e-9)


def test_what_is_found_is_a_maximum_of_the_pyro_program(fitted):
    model, codes, _, at, confusion, common = fitted

    def loss(at):
        total = -label_priors(
            weights=at["weights"], shares=at["shares"], covariances=at["covariances"], common=common, cells_of_type=2.0
        )
        for _, data, arguments in halves(model, codes, at, confusion):
            counts = 1.0 if data[1] is not None else 0.2
            elbo = TraceEnum_ELBO(max_plate_nesting=1)
            total = total + counts * elbo.differentiable_loss(label_program, no_guide, *data, **arguments)
        return total

    parameters = [at["shares"], *at["means"], *at["covariances"]]
    found = loss(at)
    gradients = torch.autograd.grad(found, parameters)
    assert (gradients[0] - (gradients[0] * at["shares"]).sum()).abs().max() < 0.05  # shares sum to one
    for gradient in gradients[1:]:
        assert gradient.abs().max() < 0.05
    for name in ("means", "covariances"):
        for factor in (0.9, 1.1):
            assert loss(at | {name: [factor * value for value in at[name]]}) > found


def test_shares_are_those_of_the_cells_and_not_of_the_labels():
    z, types = states(cells=2_000, shares=(0.7, 0.2, 0.1), distance=4.0)
    named = said_by(LabelModel([z]), seeds(types))
    np.testing.assert_allclose(named.parameters.shares, [0.7, 0.2, 0.1], atol=0.04)


def test_unlabeled_cells_mend_what_few_labels_get_wrong():
    """With two labels a type the shape of the clusters is worth more than the labels alone."""
    right = []
    for seed in range(5):
        z, types = states(distance=3.5, seed=seed)
        codes = seeds(types, each=2, seed=seed)
        free = codes < 0
        answers = [said_by(LabelModel([z], unlabeled_weight=weight), codes) for weight in (1e-9, 0.3)]
        right.append([(answer.probabilities.argmax(1) == types)[free].mean() for answer in answers])
    alone, with_all = np.mean(right, axis=0)
    assert with_all > alone + 0.02


def test_wrong_labels_are_the_doubtful_ones():
    z, types = states(distance=4.0)
    codes = seeds(types, each=25)
    rng, labeled = np.random.default_rng(3), np.flatnonzero(codes >= 0)
    wrong = rng.choice(labeled, 15, replace=False)
    codes[wrong] = (codes[wrong] + 1) % 3
    named = said_by(LabelModel([z], label_noise=0.1), codes)
    given = named.of_labels[labeled, codes[labeled]]
    assert roc_auc_score(np.isin(labeled, wrong), -given) > 0.95
    assert (named.probabilities.argmax(1) == types).mean() > 0.95


def test_coarse_labels_name_their_own_cells_better_and_do_others_no_harm():
    """Cells of types 0 and 1 are labeled as "0 or 1"."""
    own, others = [], []
    for seed in range(5):
        z, types = states(distance=2.0, seed=seed)
        codes = seeds(types, each=5, seed=seed)
        more = np.setdiff1d(np.flatnonzero(types < 2), np.flatnonzero(codes >= 0))[::2]
        free = np.setdiff1d(np.arange(len(types)), [*more, *np.flatnonzero(codes >= 0)])
        model = LabelModel([z])
        answers = said_by(model, codes), said_by(model, codes, more)
        right = [(answer.of_labels.argmax(1) == types) for answer in answers]
        own.append([one[more].mean() for one in right])
        others.append([one[free].mean() for one in right])
    without, coarse = np.mean(own, axis=0)
    assert coarse > without + 0.02
    without, coarse = np.mean(others, axis=0)
    assert coarse > without - 0.02


def test_one_label_a_type_is_enough_and_types_stay_where_their_labels_are():
    right = []
    for seed in range(10):
        z, types = states(distance=4.5, seed=seed)
        named = said_by(LabelModel([z]), seeds(types, each=1, seed=seed))
        right.append((named.probabilities.argmax(1) == types).mean())
    assert min(right) > 0.8


def test_it_is_deterministic_and_rows_are_probabilities():
    z, types = states()
    answers = [said_by(LabelModel([z]), seeds(types)) for _ in range(2)]
    np.testing.assert_array_equal(answers[0].probabilities, answers[1].probabilities)
    np.testing.assert_allclose(answers[0].probabilities.sum(1), 1)


def test_a_type_without_a_label_and_a_label_that_allows_nothing_are_refused():
    z, types = states(cells=60)
    codes = seeds(types, each=2)
    codes[codes == 2] = -1
    every = np.ones((60, 3), dtype=bool)
    assert "type 2" in refused(LabelModel([z]).fit, codes, every)
    every[7] = False
    assert "cell 7" in refused(LabelModel([z]).fit, seeds(types, each=2), every)


def test_coarse_labels_do_not_move_shares_to_those_of_exact_labels():
    """Every cell has a coarse label; exact ones are as many of each type, and the types are not."""
    z, types = states(cells=2_000, shares=(0.7, 0.2, 0.1), distance=4.0)
    named = said_by(LabelModel([z]), seeds(types), np.flatnonzero(types < 2))
    np.testing.assert_allclose(named.parameters.shares, [0.7, 0.2, 0.1], atol=0.05)
    assert named.of_labels[(types < 2), 2].max() < 0.5
