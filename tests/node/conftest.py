from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.node.namespaces import Namespaces


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    made = Namespaces()
    try:
        yield made
    finally:
        made.close()
