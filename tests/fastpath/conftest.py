"""The compiled program and a loaded engine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from xiatb.fastpath import build
from xiatb.fastpath.engine import OBJECT_PATH, Fastpath


@pytest.fixture(scope="session")
def object_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What scripts/setup compiled, or an object of our own when the source is newer."""
    if build.is_fresh():
        return OBJECT_PATH
    target = tmp_path_factory.mktemp("fastpath") / "xip.bpf.o"
    build.compile_object(target)
    return target


@pytest.fixture
def fastpath(object_path: Path) -> Iterator[Fastpath]:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = Fastpath.load(object_path)
    try:
        yield engine
    finally:
        engine.close()
