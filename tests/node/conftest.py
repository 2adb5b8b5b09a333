from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.minilab import MiniLab
from tests.node.namespaces import Namespaces


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    made = Namespaces()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def lab(namespaces: Namespaces, tmp_path: Path) -> Iterator[MiniLab]:
    made = MiniLab(namespaces, tmp_path)
    try:
        yield made
    finally:
        made.close()
