from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.node.minilab import MiniLab
from tests.node.namespaces import Namespaces


@pytest.fixture(autouse=True, scope="package")
def teardown_when_terminated() -> Iterator[None]:
    """A run that is told to end (`timeout` does that) still removes what it made."""

    def interrupt(number: int, frame: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def lab(namespaces: Namespaces, tmp_path: Path) -> Iterator[MiniLab]:
    made = MiniLab(namespaces, tmp_path)
    try:
        yield made
    finally:
        made.close()
