"""TLS around bulk channels: what goes in comes out, and nothing bent, cut, misdirected or unasked does."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from xiatb.errors import IdentityError, UsageError, WireError
from xiatb.migration.options import Options, parse
from xiatb.migration.tlswire import TlsIdentity, TlsWire
from xiatb.migration.wirestream import AsyncioWire


class Tap(AsyncioWire):
    """A wire that bends or cuts what is written to it, once."""

    def __init__(self, inner: AsyncioWire) -> None:
        self._reader, self._writer = inner._reader, inner._writer
        self.seen = b""
        self.bend = False

    async def write(self, data: bytes) -> None:
        if self.bend:
            data = data[:-1] + bytes([data[-1] ^ 1])
        self.seen += data
        await super().write(data)


async def linked(path: Path) -> tuple[Tap, AsyncioWire]:
    """Two ends of a UNIX socket as wires."""
    accepted: asyncio.Queue[AsyncioWire] = asyncio.Queue()

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await accepted.put(AsyncioWire(reader, writer))

    server = await asyncio.start_unix_server(accept, str(path))
    one = Tap(AsyncioWire(*await asyncio.open_unix_connection(str(path))))
    other = await asyncio.wait_for(accepted.get(), 5)
    server.close()
    return one, other


async def secured(path: Path, a: TlsIdentity, b: TlsIdentity) -> tuple[Tap, AsyncioWire, TlsWire, TlsWire]:
    one, other = await linked(path)
    client, server = await asyncio.gather(a.connect(one, b.pin), b.accept(other, b""))
    return one, other, client, server


def test_both_directions_half_close_and_pins(tmp_path: Path) -> None:
    async def scenario() -> None:
        a, b = TlsIdentity(), TlsIdentity()
        tap, _, client, server = await secured(tmp_path / "s", a, b)
        assert (client.pin, server.pin) == (b.pin, a.pin)
        sent = os.urandom(300_000)
        writing = asyncio.ensure_future(client.write(sent))
        got = b""
        while len(got) < len(sent):
            got += await server.read(65536)
        await writing
        assert got == sent
        assert sent[:64] not in tap.seen
        client.write_eof()
        assert await server.read(10) == b""
        await server.write(b"still open this way")
        assert await client.read(100) == b"still open this way"
        server.write_eof()
        assert await client.read(10) == b""
        await asyncio.gather(client.close(), server.close())

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_bent_record_ends_the_channel(tmp_path: Path) -> None:
    async def scenario() -> None:
        tap, _, client, server = await secured(tmp_path / "s", TlsIdentity(), TlsIdentity())
        tap.bend = True
        await client.write(b"x" * 100)
        with pytest.raises(WireError, match="record"):
            await server.read(100)
        tap.abort()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_an_end_without_authentication_is_no_end(tmp_path: Path) -> None:
    async def scenario() -> None:
        tap, _, client, server = await secured(tmp_path / "s", TlsIdentity(), TlsIdentity())
        await client.write(b"whole")
        AsyncioWire.write_eof(tap)  # as an attacker, or a crash, would: below TLS
        assert await server.read(100) == b"whole"
        with pytest.raises(ConnectionResetError):
            await server.read(100)
        tap.abort()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_records_cannot_be_replayed(tmp_path: Path) -> None:
    async def scenario() -> None:
        tap, _, client, server = await secured(tmp_path / "s", TlsIdentity(), TlsIdentity())
        before = len(tap.seen)
        await client.write(b"pay once")
        assert await server.read(100) == b"pay once"
        await AsyncioWire.write(tap, tap.seen[before:])
        with pytest.raises(WireError):
            await server.read(100)
        tap.abort()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_a_channel_to_somebody_else_is_refused(tmp_path: Path) -> None:
    async def scenario() -> None:
        one, other = await linked(tmp_path / "s")
        expected, stranger = TlsIdentity(), TlsIdentity()
        done = await asyncio.gather(
            TlsIdentity().connect(one, expected.pin), stranger.accept(other, b""), return_exceptions=True
        )
        assert isinstance(done[0], IdentityError)
        one.abort()
        other.abort()

    asyncio.run(asyncio.wait_for(scenario(), 20))


@pytest.mark.parametrize("junk", [b"\x16" + b"\xff" * 200, b"\x16\x03\x01\x00\x05hello", b"GET / HTTP\r\n"])
def test_junk_instead_of_a_handshake(tmp_path: Path, junk: bytes) -> None:
    async def scenario() -> None:
        one, other = await linked(tmp_path / "s")
        await one.write(junk)
        one.write_eof()
        with pytest.raises((WireError, ConnectionResetError)):
            await TlsIdentity().accept(other, b"")
        one.abort()

    asyncio.run(asyncio.wait_for(scenario(), 20))


def test_options_are_checked_once_and_named() -> None:
    assert parse({}) == Options()
    wanted = Options(bandwidth=7, congestion={"ram": "bbr"}, encrypt=False)
    assert parse(wanted.to_json()) == wanted
    for bad in ({"bandwidth": -1}, {"bandwidth": True}, {"encrypt": 1}, {"colour": 1}, {"congestion": []}):
        with pytest.raises(UsageError, match=next(iter(bad))):
            parse(bad)
