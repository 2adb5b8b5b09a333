"""Reader and writer over two transport endpoints that a fake network joins; no root needed."""

from __future__ import annotations

import asyncio
import errno
import random
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from tests.node.minilab import key_of
from xiatb.node.control_protocol import ControlError
from xiatb.node.socket_errors import SocketError, socket_error
from xiatb.node.xstream import StreamEnd, XReader, XWriter
from xiatb.transport.config import StreamConfig
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.packets import lone_packets
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XidType


class FakeDriver:
    """Hands packets to the peer's endpoint in the next turn of the loop; `blocked` loses them."""

    def __init__(self, name: str, config: StreamConfig) -> None:
        key = key_of(name)
        sid = key.xid(XidType.SID)
        local = DAG.service(key_of("ad").xid(XidType.AD), key.xid(XidType.HID), sid)
        self.endpoint = Endpoint(key, sid, local, config, random.Random(name))
        self.endpoint.wake = self.poke
        self.users: dict[Any, StreamEnd] = {}
        self.closing: set[StreamEnd] = set()
        self.driver = self
        self.closed = self.blocked = False
        self.peer: FakeDriver
        self._timer: asyncio.TimerHandle | None = None

    def poke(self) -> None:
        asyncio.get_running_loop().call_soon(self.pump)

    def pump(self) -> None:
        for stream, event in self.endpoint.events():
            if stream in self.users:
                self.users[stream].handle(event)
        for end in list(self.closing):
            end.settle()
        now = time.monotonic()
        packets = [header + bytes(payload) for header, payload in lone_packets(self.endpoint.transmit(now))]
        if packets and not self.blocked:
            asyncio.get_running_loop().call_soon(self.peer.take, packets)
        deadline = self.endpoint.next_deadline()
        if self._timer is not None:
            self._timer.cancel()
        if deadline is not None:
            self._timer = asyncio.get_running_loop().call_at(deadline, self.tick)

    def tick(self) -> None:
        self.endpoint.tick(time.monotonic())
        self.pump()

    def take(self, packets: list[bytes]) -> None:
        for packet in packets:
            self.endpoint.receive(packet, time.monotonic())
        self.pump()

    def counters(self) -> dict[str, int]:
        return {}

    def close(self) -> None:
        self.closed = True
        if self._timer is not None:
            self._timer.cancel()


Pair = tuple[XReader, XWriter]
Body = Callable[[Pair, Pair, FakeDriver, FakeDriver], Awaitable[None]]


def connected(body: Body, config: StreamConfig | None = None) -> None:
    async def run() -> None:
        settings = config or StreamConfig(send_buffer=64 * 1024, recv_buffer=64 * 1024)
        client, server = FakeDriver("client", settings), FakeDriver("server", settings)
        client.peer, server.peer = server, client
        server.endpoint.listen()
        stream = client.endpoint.connect(server.endpoint.local, time.monotonic())
        end = StreamEnd(client, stream, owned=True)  # type: ignore[arg-type]
        await end.connected()
        while (accepted := server.endpoint.accept()) is None:
            await asyncio.sleep(0)
        other = StreamEnd(server, accepted, owned=False)  # type: ignore[arg-type]
        try:
            here, there = (XReader(end), XWriter(end)), (XReader(other), XWriter(other))
            await asyncio.wait_for(body(here, there, client, server), 10)
        finally:
            client.close()
            server.close()

    asyncio.run(run())


def test_lines_and_exact_reads() -> None:
    async def body(here: Pair, there: Pair, client: FakeDriver, server: FakeDriver) -> None:
        here[1].writelines([b"one\ntw", b"o\n", b"12345rest"])
        reader = there[0]
        assert await reader.readline() == b"one\n" and await reader.readuntil(b"o\n") == b"two\n"
        assert await reader.readexactly(5) == b"12345" and await reader.readexactly(0) == b""
        reader.unread(b"un")
        assert await reader.read(3) == b"unr"
        here[1].write_eof()
        assert await reader.read() == b"est" and reader.at_eof()
        assert await reader.read(1) == b"" and await reader.readline() == b""
        with pytest.raises(asyncio.IncompleteReadError) as caught:
            await reader.readexactly(2)
        assert caught.value.partial == b""
        with pytest.raises(BrokenPipeError):
            here[1].write(b"x")
        there[1].write(b"still")
        assert await here[0].readexactly(5) == b"still"

    connected(body)


def test_separator_too_far_away() -> None:
    async def body(here: Pair, there: Pair, client: FakeDriver, server: FakeDriver) -> None:
        here[1].write(b"x" * 2000)
        with pytest.raises(asyncio.LimitOverrunError):
            await there[0].readuntil(b"\n", limit=1000)

    connected(body)


def test_drain_bounds_what_waits() -> None:
    async def body(here: Pair, there: Pair, client: FakeDriver, server: FakeDriver) -> None:
        chunk, written = b"y" * 100_000, 0

        async def fill() -> None:
            nonlocal written
            while True:
                here[1].write(chunk)
                await here[1].drain()
                written += len(chunk)

        filling = asyncio.ensure_future(fill())
        await asyncio.sleep(0.1)
        # Send buffer, receive buffer, and one write that waits.
        assert written + here[1].get_extra_info("backlog") <= 64 * 1024 * 2 + 2 * len(chunk)
        filling.cancel()
        total = written + len(chunk)
        here[1].write_eof()
        assert len(await there[0].read()) == total

    connected(body)


def test_everything_is_delivered_before_closed() -> None:
    async def body(here: Pair, there: Pair, client: FakeDriver, server: FakeDriver) -> None:
        here[1].write(b"z" * 300_000)
        here[1].close()
        assert here[1].is_closing()
        closed = asyncio.ensure_future(here[1].wait_closed())
        await asyncio.sleep(0.01)
        assert not closed.done()
        assert len(await there[0].read()) == 300_000
        await closed
        there[1].close()
        await there[1].wait_closed()

    connected(body)


def test_abort_resets_the_peer() -> None:
    async def body(here: Pair, there: Pair, client: FakeDriver, server: FakeDriver) -> None:
        reading = asyncio.ensure_future(there[0].read(1))
        await asyncio.sleep(0)
        here[1].abort()
        with pytest.raises(ConnectionResetError):
            await reading
        with pytest.raises(ConnectionAbortedError):
            await here[1].drain()
        await here[1].wait_closed()
        assert client.closed

    connected(body)


def test_lost_node_wakes_everyone() -> None:
    async def body(here: Pair, there: Pair, client: FakeDriver, server: FakeDriver) -> None:
        here[1].write(b"q" * 1_000_000)
        works = (here[0].read(1), here[1].drain(), here[1].wait_closed())
        waits = [asyncio.ensure_future(work) for work in works]
        await asyncio.sleep(0)
        for end in list(client.users.values()):
            end.fail(ControlError("ENETDOWN", "gone"))
        results = await asyncio.gather(*waits, return_exceptions=True)
        numbers = [getattr(result, "errno", None) for result in results]
        assert numbers == [errno.ENETDOWN, errno.ENETDOWN, None]

    connected(body)


def test_cancelled_read_loses_nothing() -> None:
    async def body(here: Pair, there: Pair, client: FakeDriver, server: FakeDriver) -> None:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(there[0].read(10), 0.02)
        here[1].write(b"kept")
        assert await there[0].read(10) == b"kept"

    connected(body)


def test_errors_are_both_kinds() -> None:
    error = socket_error(errno.ECONNREFUSED, "no")
    assert isinstance(error, ConnectionRefusedError) and isinstance(error, SocketError)
    assert (error.errno, error.strerror, error.message) == (errno.ECONNREFUSED, "no", "no")
