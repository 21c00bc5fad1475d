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


@ANYTHING
@given(cells())
def test_any_cells_are_named_or_refused_by_us(case):
    adata, options = case
    event(annotated_or_refused(adata, dict(options)))


@ANYTHING
@given(case=cells())
def test_any_cells_are_mapped_or_refused_by_us(model, case):
    event(mapped_or_refused(model, case[0]))
