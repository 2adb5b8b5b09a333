"""What holds for all tests."""

import os
import signal
import tempfile
from collections.abc import Iterator

import pytest
from hypothesis import settings

from tests.node.namespaces import Namespaces

# Without a time limit for one example: on a busy machine any may miss it.
settings.register_profile("xiatb", deadline=None)
settings.load_profile("xiatb")

# Help texts and tables are broken to the width of the terminal that the tests happen to run in.
os.environ["COLUMNS"] = "80"

# The path of a UNIX socket has 107 octets at most, and many tests have theirs below tmp_path.
os.environ["TMPDIR"] = tempfile.tempdir = "/tmp"

# A shell runs background jobs with SIGINT ignored, and programs that tests start would inherit that: those
# that are interrupted by tests would never end.
signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def namespaces() -> Iterator[Namespaces]:
    """Network namespaces for one test."""
    made = Namespaces()
    try:
        yield made
    finally:
        made.close()
