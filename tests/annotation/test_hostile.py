"""Whatever AnnData comes: an answer that keeps its promises, or an error of ours. Never one of somebody else's."""

import pytest
from hostile import annotated_or_refused, cells, mapped_or_refused, small_model
from hypothesis import HealthCheck, event, given, settings

ANYTHING = settings(
    max_examples=200,
    deadline=None,
    derandomize=True,  # the same examples for everybody; benchmarks/hostile.py draws others
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)


@pytest.fixture(scope="module")
def model():
    return small_model()


def test_any_cells_are_named_or_refused_by_us():
    outcomes = []

    @ANYTHING
    @given(cells())
    def look(case):
        adata, options = case
        outcomes.append(annotated_or_refused(adata, dict(options)))
        event(outcomes[-1])

    look()
    assert outcomes.count("named") > 0.2 * len(outcomes), "a package that refuses everything keeps every promise"


@ANYTHING
@given(case=cells())
def test_any_cells_are_mapped_or_refused_by_us(model, case):
    event(mapped_or_refused(model, case[0]))
