"""Two hypervisor hosts for all tests with boot-sector guests."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.migration.hypervisors import Hosts, pair, wait_for


@pytest.fixture(scope="package")
def both() -> Iterator[Hosts]:
    """Up until the last test of this directory."""
    place = Path("/tmp") / f"xm{os.getpid()}-{secrets.token_hex(3)}"  # short: UNIX socket paths
    with pair(place) as hosts:
        yield hosts


@pytest.fixture(scope="module")
def hosts(both: Hosts) -> Iterator[Hosts]:
    """The same two hosts for every module, which leaves them bare."""
    yield both
    for host in both:
        wait_for(lambda host=host: not host.litter(), 15, f"{host.name} bare: {host.litter()}")


@pytest.fixture
def guest(hosts: Hosts) -> Iterator[str]:
    """A fresh guest that counts, on the first host; both hosts are bare afterwards."""
    name = f"g{secrets.token_hex(3)}"
    one = hosts[0]
    one.start_guest(name)
    wait_for(lambda: len(one.serial()) > 1, 30, "the guest's first lines")
    yield name
    for host in hosts:
        host.forget(name)
