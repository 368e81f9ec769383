"""Several ranks that train."""

import pytest


@pytest.fixture
def in_ranks(in_ranks):
    """Call a function in so many ranks."""
    import torch._dynamo  # noqa: F401  (DDP imports it: once here, rather than in each fork)

    return in_ranks
