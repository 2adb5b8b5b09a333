"""Every page of a real guest is compared at both daemons, in every mode, and a page that changes on its way
stops the migration before the guest is handed over."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.migration.hypervisors import BOOT, Hosts, bare, counts_on, migrate

pytestmark = [pytest.mark.guest, pytest.mark.skipif(os.geteuid() != 0, reason="needs root")]
WHOLE, DAMAGED = BOOT[:24], b"\xfb" + BOOT[1:24]
"""The guest's own code as it lies in its memory, and with a bit changed."""


@pytest.mark.parametrize("options", [{}, {"streams": 2}, {"mode": "postcopy"}], ids=str)
def test_every_page_is_verified(hosts: Hosts, guest: str, options: dict[str, Any]) -> None:
    one, two = hosts
    answer = migrate(one, guest, two, **options)
    assert answer["ok"], answer
    pages = answer["result"]["pages"]
    assert (pages["verified"], pages["places"], pages["off"]) == (True, [], ""), pages
    assert 0 < pages["cost_us_per_page"]["destination"] < 1000
    counts_on(two)


def test_a_plan_moves_nothing_and_predicts(hosts: Hosts, guest: str) -> None:
    one, two = hosts
    plan = migrate(one, guest, two, op="plan")
    assert plan["ok"], plan
    told = plan["result"]
    assert told["admitted"]
    assert told["goodput"] > 1e6
    assert told["workload"]["nonzero"] > 0
    bare(two, guest)
    refused = migrate(one, guest, two, op="plan", storage=False)["result"]
    assert (refused["admitted"], refused["code"]) == (False, "disk-missing")
    result = migrate(one, guest, two)["result"]
    assert result["predicted"] == told["predicted"]
    counts_on(two)


class Tamper:
    """Stands between the daemons and changes the guest's code wherever it passes."""

    def __init__(self, path: Path, beyond: Path) -> None:
        self.changed = 0
        self._path, self._beyond = path, beyond
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Tamper:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(
            asyncio.start_unix_server(self._accept, str(self._path)), self._loop
        ).result(10)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        far_reader, far_writer = await asyncio.open_unix_connection(str(self._beyond))
        with contextlib.suppress(OSError):
            await asyncio.gather(self._pump(reader, far_writer), self._pump(far_reader, writer))

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while data := await reader.read(1 << 16):
                self.changed += data.count(WHOLE)
                writer.write(data.replace(WHOLE, DAMAGED))
                await writer.drain()
        finally:
            with contextlib.suppress(OSError, RuntimeError):
                writer.write_eof()


@pytest.fixture
def tampered(hosts: Hosts) -> Iterator[Tamper]:
    """The first host's daemon reaches the second one only through a `Tamper`."""
    one, two = hosts
    path = one.base / "tamper"
    peer: Any = SimpleNamespace(name=two.name, sid=two.sid, carrier=path)
    with Tamper(path, two.carrier) as tamper:
        one.stop_daemon()
        one.start_daemon([peer])
        yield tamper
        one.stop_daemon()
        one.start_daemon([two])


def test_a_page_that_changes_on_its_way_keeps_the_guest_at_the_source(
    hosts: Hosts, tampered: Tamper, guest: str
) -> None:
    one, two = hosts
    answer = migrate(one, guest, two, encrypt=False)
    assert tampered.changed > 0
    assert answer["error"]["code"] == "corrupted", answer
    assert "did not arrive as it was sent: pc.ram at 0x0" in answer["error"]["message"]
    pages = answer["error"]["result"]["pages"]
    assert pages["verified"] is False
    counts_on(one)
    bare(two, guest)
