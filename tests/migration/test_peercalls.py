"""What a peer may ask of this host's libvirtd on an `rpc` channel: the migration that was admitted."""

from __future__ import annotations

import asyncio
import dataclasses
import logging
import struct
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.migration.libvirtcalls import finish, opaque, packet, parameters, prepare
from tests.migration.recordings import DESCRIPTION, FINISH_COOKIE, LAB, PREPARE_COOKIE, REQUEST
from tests.migration.samples import JOB
from tests.migration.test_relay import wires
from xiatb.errors import WireError
from xiatb.migration.peercalls import KEEPALIVE, MAX_CALL, SYSTEM, CallGate, GatedWire
from xiatb.migration.rpcgate import PROGRAM

URI, DISKS_URI = f"unix:///run/xtb/m-{JOB}.sock", f"unix:///run/xtb/d-{JOB}.sock"
TYPED: tuple[tuple[str, str | int], ...] = (
    ("migrate_uri", URI), ("migrate_disks", "vda"), ("disks_uri", DISKS_URI), ("compression", "xbzrle"),
    ("compression.xbzrle.cache", 1 << 26), ("bandwidth", 8),
)  # fmt: skip
GUEST = dataclasses.replace(REQUEST, storage=True)
COOKIE = PREPARE_COOKIE.encode() + b"\0"
FLAGS = 0x85B
CALLS = [
    packet(66), packet(60, bytes(4)), packet(1, SYSTEM), packet(60, bytes(4)), packet(360),
    packet(1, program=KEEPALIVE, kind=2, serial=0),
    packet(303, prepare(DESCRIPTION, *TYPED, cookie=COOKIE, flags=FLAGS)),
    packet(2, program=KEEPALIVE, kind=2, serial=0),
    packet(306, finish("vm1", *TYPED, cookie=FINISH_COOKIE.encode() + b"\0", flags=FLAGS)),
    packet(306, finish("vm1", cancelled=1, flags=FLAGS)), packet(361), packet(2),
]  # fmt: skip
"""As libvirt 9.0 makes them; a call's procedure decides, not their order: libvirtd sees to that."""


def gate() -> CallGate:
    return CallGate(GUEST, Path("/run/xtb"), LAB)


@given(st.lists(st.integers(1, 4000), max_size=60))
def test_a_migration_passes_unchanged_however_it_is_cut(cuts: list[int]) -> None:
    stream, through, one, at = b"".join(CALLS), b"", gate(), 0
    for size in [*cuts, len(stream)]:
        through += one.admit(stream[at : at + size])
        at += size
    assert through == stream


def test_a_call_is_held_until_it_is_whole() -> None:
    one, call = gate(), CALLS[6]
    assert one.admit(call[:-1]) == b""
    assert one.admit(call[-1:]) == call


def test_every_other_procedure_is_refused() -> None:
    """10 is domain_create_xml: it would start any guest."""
    for procedure in set(range(450)) - {1, 2, 60, 66, 303, 306, 360, 361}:
        for body in (b"", bytes(4), opaque(DESCRIPTION.encode()) + bytes(4)):
            with pytest.raises(WireError, match=f"procedure {procedure} "):
                gate().admit(packet(procedure, body))


def asks(xml: str = DESCRIPTION, *more: tuple[str, str | int], cookie: bytes = b"", flags: int = FLAGS,
         typed: tuple[tuple[str, str | int], ...] = TYPED) -> bytes:  # fmt: skip
    return packet(303, prepare(xml, *typed, *more, cookie=cookie, flags=flags))


def without(name: str) -> tuple[tuple[str, str | int], ...]:
    return tuple(one for one in TYPED if one[0] != name)


FOREIGN = DESCRIPTION.replace("vm1", "vm2")
REFUSED = [
    (packet(1, SYSTEM.replace(b"qemu:///system", b"qemu:///embed!")), "procedure 1 "),
    (packet(1, SYSTEM, program=PROGRAM + 1), "program 0x20008087"),
    (packet(60, bytes(4), version=2), "version 2"),
    (packet(66, kind=3), "type 3"),
    (packet(66, kind=4), "type 4"),
    (packet(66, status=1), "procedure 66"),
    (packet(2, bytes(4)), "procedure 2 "),
    (packet(3, program=KEEPALIVE, kind=2), "procedure 3 "),
    (packet(1, bytes(4), program=KEEPALIVE, kind=2), "procedure 1 "),
    (asks(FOREIGN), "<name>: 'vm2' is not what was admitted"),
    (asks(DESCRIPTION.replace("</devices>", "<hostdev/></devices>")), "<hostdev> is not allowed"),
    (asks(DESCRIPTION, ("destination_name", "vm2")), "destination_name 'vm2'"),
    (asks(typed=without("migrate_uri")), "no migrate_uri"),
    (asks(typed=without("disks_uri")), "no disks_uri"),
    (asks(DESCRIPTION, ("migrate_uri", "tcp:0.0.0.0:1"), typed=without("migrate_uri")), "migrate_uri 'tcp"),
    (asks(DESCRIPTION, ("migrate_uri", 5), typed=without("migrate_uri")), "migrate_uri '5'"),
    (asks(DESCRIPTION, ("disks_port", 49152)), "disks_port"),
    (asks(DESCRIPTION, ("listen_address", "0.0.0.0")), "listen_address"),
    (asks(DESCRIPTION, ("migrate_disks", "vdb")), "no disk 'vdb'"),
    (asks(DESCRIPTION, ("parallel.connections", 255)), "parallel.connections '255'"),
    (asks(DESCRIPTION, ("bandwidth.postcopy", "/etc/shadow")), "bandwidth.postcopy"),
    (asks(DESCRIPTION, ("tls.destination", "x")), "tls.destination"),
    (asks(DESCRIPTION, ("persistent_xml", DESCRIPTION)), "persistent_xml"),
    (asks(DESCRIPTION, ("destination_xml", FOREIGN)), "twice"),
    (asks(flags=FLAGS | 4), "flags 0x4 "),
    (asks(flags=FLAGS | 1 << 5), "flags 0x20 "),
    (packet(306, finish("vm1", flags=1 << 10)), "flags 0x400 "),
    (asks(cookie=FINISH_COOKIE.replace("vm1", "vm2").encode()), "<name>: 'vm2'"),
    (asks(cookie=b"x"), "no plain"),
    (asks("<!DOCTYPE domain [<!ENTITY a 'b'>]>" + DESCRIPTION), "no plain"),
    (asks("<domain>" * 100_000), "characters of XML"),
    (asks("<domain>" * 100), "12 levels"),
    (packet(303, parameters(("destination_xml", 1), *TYPED) + opaque(b"") + bytes(4)), "destination_xml '1'"),
    (packet(303, prepare(DESCRIPTION) + bytes(4)), "arguments of this call"),
    (packet(303, prepare(DESCRIPTION)[:-5]), "end too early"),
    (packet(303, parameters(*TYPED) + opaque(b"") + bytes(4)), "no destination_xml"),
    (packet(303, b"\xff" * 400), "4294967295 parameters"),
    (packet(303, struct.pack(">I", 1) + b"\xff" * 400), "end too early"),
    (packet(303, struct.pack(">I", 1) + opaque(b"a") + struct.pack(">I", 9)), "of type 9"),
    (packet(303, struct.pack(">I", 1) + opaque(b"\xff")), "procedure 303"),
    (packet(306, finish("vm2")), "destination_name 'vm2'"),
    (packet(306, parameters() + opaque(b"") + bytes(8)), "no destination_name"),
    (struct.pack(">I", MAX_CALL + 1) + packet(66)[4:], "no call of libvirt"),
    (struct.pack(">I", 27) + packet(66)[4:], "no call of libvirt"),
    (b"GET / HTTP/1.1\r\nHost: libvirtd\r\n\r\n", "no call of libvirt"),
]


@pytest.mark.parametrize(("data", "words"), REFUSED)
def test_what_is_not_this_guests_migration_is_refused(data: bytes, words: str) -> None:
    with pytest.raises(WireError, match=words):
        gate().admit(data)


@given(st.binary(max_size=300), st.sampled_from([1, 60, 303, 306]), st.integers(0, 5))
def test_hostile_bytes_are_refused_or_wait_for_their_end(data: bytes, procedure: int, kind: int) -> None:
    for stream in (data, packet(procedure, data, kind=kind), packet(303, struct.pack(">I", 1) + data)):
        one = gate()
        try:
            through = one.admit(stream)
        except WireError:
            continue
        assert len(through) + len(one._watch._head) + len(one._watch._body) == len(stream)


@given(st.data())
def test_a_bent_prepare_is_refused_or_says_the_same(data: st.DataObject) -> None:
    call = bytearray(CALLS[6])
    for _ in range(data.draw(st.integers(1, 4))):
        call[data.draw(st.integers(28, len(call) - 1))] = data.draw(st.integers(0, 255))
    try:
        through = gate().admit(bytes(call))
    except WireError:
        return
    assert through == call and b"<name>vm1</name>" in through


def test_the_channel_ends_with_a_line_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def body() -> None:
        near, far = wires()
        gated = GatedWire(near, gate(), "job 7 (vm1 in)")
        await far.write(CALLS[0] + CALLS[1][:9])
        assert await gated.read(65536) == CALLS[0]
        await far.write(CALLS[1][9:] + packet(10, opaque(DESCRIPTION.encode()) + bytes(4)))
        with pytest.raises(WireError):
            await gated.read(65536)

    with caplog.at_level(logging.WARNING, "xiatb.migration"):
        asyncio.run(asyncio.wait_for(body(), 5))
    assert "job 7 (vm1 in): refused on the rpc channel: program 0x20008086 procedure 10 " in caplog.text
