from collections.abc import Iterator

import pytest

from app.sandbox.processes import Sandbox


@pytest.fixture(scope="module")
def sandbox() -> Iterator[Sandbox]:
    """One sandbox for all cases of a subject, as in a worker."""
    found = Sandbox()
    yield found
    found.close()
