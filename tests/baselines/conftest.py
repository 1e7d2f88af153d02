"""What all tests of methods have in common."""

import pytest


@pytest.fixture(scope="module", autouse=True)
def convolutions(own_convolutions):
    """Thousands of calls of tiny U-Nets."""
