"""Relays over loopback: bytes intact both ways, half-close, bounded buffers, faults."""

from __future__ import annotations

import asyncio
import os
import random
import socket
from typing import Any

import pytest

from xiatb.migration import meter
from xiatb.migration.meter import Meter
from xiatb.migration.relay import CHUNK, Relay, listen_unix
from xiatb.migration.wirestream import AsyncioWire


class PipeWire:
    """A wire in memory that takes bytes no faster than `rate` a second and honours its bound exactly."""

    def __init__(self, rate: float = float("inf")) -> None:
        self.other: PipeWire
        self._rate = rate
        self._bound = 1 << 30
        self._queue: asyncio.Queue[bytes] = asyncio.Queue()
        self._waiting = 0
        self._taken = asyncio.Event()
        self.peak = 0
        self.aborted = False

    async def read(self, limit: int) -> bytes:
        data = await self._queue.get()
        if self.aborted:
            raise ConnectionResetError("aborted")
        self.other._waiting -= len(data)
        self.other._taken.set()
        if data and self._rate != float("inf"):
            await asyncio.sleep(len(data) / self._rate)
        return data

    async def write(self, data: bytes) -> None:
        if self.aborted:
            raise ConnectionResetError("aborted")
        self._waiting += len(data)
        self.peak = max(self.peak, self._waiting)
        self.other._queue.put_nowait(data)
        while self._waiting > self._bound:
            self._taken.clear()
            await self._taken.wait()

    def write_eof(self) -> None:
        self.other._queue.put_nowait(b"")

    def set_bound(self, limit: int) -> None:
        self._bound = limit

    def backlog(self) -> int:
        return self._waiting

    def round_trip(self) -> float:
        return 0.0

    def origin(self) -> str:
        return ""

    def abort(self) -> None:
        for end in (self, self.other):
            end.aborted = True
            end._queue.put_nowait(b"")

    async def close(self) -> None:
        return None


def wires(rate: float = float("inf")) -> tuple[PipeWire, PipeWire]:
    one, other = PipeWire(), PipeWire(rate)
    one.other, other.other = other, one
    return one, other


async def ends(rate: float = float("inf")) -> Any:
    """(application, source relay task, source relay, destination relay task, far application, wire)."""
    near, near_inside = socket.socketpair()
    far_inside, far = socket.socketpair()
    for sock in (near, far):
        sock.setblocking(False)
    one, other = wires(rate)
    source, destination = Relay("s", near_inside, one), Relay("d", far_inside, other)
    tasks = [asyncio.ensure_future(source.run()), asyncio.ensure_future(destination.run())]
    return near, far, source, destination, tasks, one


async def read_all(sock: socket.socket) -> bytes:
    loop, parts = asyncio.get_running_loop(), []
    while data := await loop.sock_recv(sock, 1 << 20):
        parts.append(data)
    return b"".join(parts)


def test_bytes_and_half_close_both_ways() -> None:
    async def scenario() -> None:
        near, far, source, destination, tasks, _ = await ends()
        loop = asyncio.get_running_loop()
        there, back = os.urandom(3_000_000), os.urandom(500_000)

        async def client() -> bytes:
            await loop.sock_sendall(near, there)
            near.shutdown(socket.SHUT_WR)
            return await read_all(near)

        async def server() -> bytes:
            got = await read_all(far)
            await loop.sock_sendall(far, back)  # after the other direction has ended
            far.shutdown(socket.SHUT_WR)
            return got

        answer, got = await asyncio.wait_for(asyncio.gather(client(), server()), 20)
        assert got == there
        assert answer == back
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        assert (source.error, destination.error) == ("", "")
        assert (source.up.total, source.down.total) == (len(there), len(back))
        near.close()
        far.close()

    asyncio.run(scenario())


def test_the_buffer_stays_bounded_on_a_slow_wire() -> None:
    async def scenario() -> None:
        rate = 20e6
        near, far, source, _, tasks, wire = await ends(rate)
        loop = asyncio.get_running_loop()
        data = os.urandom(12_000_000)

        async def client() -> None:
            await loop.sock_sendall(near, data)
            near.shutdown(socket.SHUT_WR)

        got: Any
        _, got = await asyncio.wait_for(asyncio.gather(client(), read_all(far)), 30)
        assert got == data
        allowed = max(meter.FLOOR, 2 * rate * meter.SLACK_S) + CHUNK
        assert wire.peak <= allowed, f"{wire.peak} bytes waited, {allowed:.0f} allowed"
        assert source.up.peak_backlog > 0
        far.close()
        near.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())


@pytest.mark.parametrize("who", ["wire", "near", "far"])
def test_a_broken_end_resets_everything(who: str) -> None:
    async def scenario() -> None:
        near, far, source, destination, tasks, wire = await ends()
        loop = asyncio.get_running_loop()
        await loop.sock_sendall(near, b"x" * 1000)
        assert await loop.sock_recv(far, 1000)
        if who == "wire":
            wire.abort()
        else:
            sock = near if who == "near" else far
            sock.close()
            other = far if who == "near" else near
            # The other side sees the end of one direction, ends its own, and all is over in order.
            assert await asyncio.wait_for(read_all(other), 5) == b""
            other.close()
        await asyncio.wait_for(asyncio.gather(*tasks), 5)
        if who == "wire":
            assert source.error
            assert destination.error
        for sock in (near, far):
            sock.close()

    asyncio.run(scenario())


def test_observer_sees_every_byte_in_order() -> None:
    async def scenario() -> None:
        near, inside = socket.socketpair()
        seen = bytearray()
        one, other = wires()
        relay = Relay("s", inside, one, seen.extend)
        task = asyncio.ensure_future(relay.run())
        data = os.urandom(400_000)
        near.setblocking(False)
        await asyncio.get_running_loop().sock_sendall(near, data)
        near.shutdown(socket.SHUT_WR)
        got = bytearray()
        while part := await other.read(1 << 20):
            got += part
        assert bytes(got) == bytes(seen) == data
        other.write_eof()
        await asyncio.wait_for(task, 5)
        near.close()

    asyncio.run(scenario())


def test_asyncio_wire_over_loopback(tmp_path: Any) -> None:
    async def scenario() -> None:
        path = tmp_path / "s"
        accepted: asyncio.Future[AsyncioWire] = asyncio.get_running_loop().create_future()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            accepted.set_result(AsyncioWire(reader, writer))

        server = await asyncio.start_unix_server(serve, str(path))
        one = AsyncioWire(*await asyncio.open_unix_connection(str(path)))
        other = await accepted
        await one.write(b"hello")
        one.write_eof()
        assert await other.read(10) == b"hello"
        assert await other.read(10) == b""
        await other.write(b"still open")
        assert await one.read(20) == b"still open"
        other.abort()
        await one.close()
        server.close()

    asyncio.run(scenario())


def test_listen_replaces_a_stale_socket(tmp_path: Any) -> None:
    path = tmp_path / "deep" / "x.sock"
    listen_unix(path).close()
    again = listen_unix(path)
    assert path.stat().st_mode & 0o777 == 0o600
    again.close()


def test_meter_bound_follows_rate_and_round_trip() -> None:
    one = Meter(0.0)
    assert one.bound(1.0) == meter.FLOOR
    rng = random.Random(1)
    now = 0.0
    for _ in range(200):
        now += 0.01
        one.count(125_000 + rng.randrange(100), now)
    assert one.rate == pytest.approx(12.5e6, rel=0.02)
    assert one.bound(0.010) == pytest.approx(12.5e6 * (0.010 + meter.SLACK_S), rel=0.02)
    assert one.bound(100.0) == meter.CEILING
    one.saw_backlog(500_000)
    assert one.peak_backlog_ms() == pytest.approx(40, rel=0.02)
    assert Meter(0.0).peak_backlog_ms() is None
