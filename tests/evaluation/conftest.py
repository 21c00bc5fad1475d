"""What tests of methods and of scores share."""

import pytest
from three_types import three_types


@pytest.fixture
def cells():
    """Return 90 cells of three types that any method should tell apart."""
    return three_types()
