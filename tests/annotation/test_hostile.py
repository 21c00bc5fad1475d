"""Whatever AnnData comes: an answer that keeps its promises, or an error of ours. Never one of somebody else's."""

import pytest
from hostile import annotated_or_refused, cells, mapped_or_refused, small_model
from hypothesis import HealthCheck, event, given, settings

ANYTHING = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
EVERYDAY = settings(ANYTHING, max_examples=25, derandomize=True)  # the same for everybody
MANY = settings(ANYTHING, max_examples=200)  # others each time; benchmarks/hostile.py draws thousands
in_number = pytest.mark.parametrize(
    "number", [pytest.param(EVERYDAY, id="25"), pytest.param(MANY, id="200", marks=pytest.mark.slow)]
)


@pytest.fixture(scope="module")
def model():
    return small_model()


@in_number
def test_any_cells_are_named_or_refused_by_us(number):
    outcomes = []

    @number
    @given(cells())
    def look(case):
        adata, options = case
        outcomes.append(annotated_or_refused(adata, dict(options)))
        event(outcomes[-1])

    look()
    assert sum(outcome.startswith("named") for outcome in outcomes) > 0.2 * len(outcomes), (
        "a package that refuses everything keeps every promise"
    )


@in_number
def test_any_cells_are_mapped_or_refused_by_us(model, number):
    @number
    @given(cells())
    def look(case):
        event(mapped_or_refused(model, case[0], coverage=case[1]["coverage"], reject=case[1]["reject"]))

    look()
