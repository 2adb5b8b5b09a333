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

from tests.migration.libvirtcalls import description, finish, opaque, packet, parameters, prepare
from tests.migration.samples import JOB, REQUEST, UUID
from tests.migration.test_relay import wires
from xiatb.errors import WireError
from xiatb.migration.peercalls import KEEPALIVE, MAX_CALL, SYSTEM, CallGate, GatedWire
from xiatb.migration.rpcgate import PROGRAM

KERNEL = "/var/lib/xiatb/images/vmlinuz"
GUEST = dataclasses.replace(REQUEST, files=(KERNEL,))
DISK = f"<disk type='file'><source file='{REQUEST.disks[0].path}'/><target dev='vda'/></disk>"
COOKIE = f"<qemu-migration><name>vm1</name><uuid>{UUID}</uuid>{{}}</qemu-migration>"
URI = f"unix:///run/xtb/m-{JOB}.sock"
TYPED: tuple[tuple[str, str | int], ...] = (
    ("migrate_uri", URI), ("migrate_disks", "vda"), ("migrate_disks", "vdb"),
    ("disks_uri", f"unix:///run/xtb/d-{JOB}.sock"), ("compression", "xbzrle"),
    ("compression.xbzrle.cache", 1 << 26),
)  # fmt: skip
XML = description("vm1", kib=65536, devices=DISK).replace("</type>", f"</type><kernel>{KERNEL}</kernel>")
WHOLE = COOKIE.format(XML).encode() + b"\0"
CALLS = [
    packet(66), packet(60, bytes(4)), packet(1, SYSTEM), packet(60, bytes(4)), packet(360),
    packet(1, program=KEEPALIVE, kind=2, serial=0), packet(303, prepare(XML, *TYPED, cookie=WHOLE)),
    packet(2, program=KEEPALIVE, kind=2, serial=0), packet(306, finish("vm1", *TYPED, cookie=WHOLE)),
    packet(306, finish("vm1", cancelled=1)), packet(361), packet(2),
]  # fmt: skip
"""As libvirt 9.0 makes them; a call's procedure decides, not their order: libvirtd sees to that."""


def gate() -> CallGate:
    return CallGate(GUEST, Path("/run/xtb"))


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
        for body in (b"", bytes(4), opaque(XML.encode()) + bytes(4)):
            with pytest.raises(WireError, match=f"procedure {procedure} "):
                gate().admit(packet(procedure, body))


FOREIGN = description("vm2")
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
    (packet(303, prepare(FOREIGN)), "'vm2' .* is not the guest that was"),
    (packet(303, prepare(description("vm1", uuid=UUID.replace("1", "9")))), "is not the guest"),
    (packet(303, prepare(description("vm1", kib=65537))), "bytes of memory"),
    (packet(303, prepare(description("vm1", devices=DISK.replace("vm1", "etc")))), "etc.* not admitted"),
    (packet(303, prepare(XML.replace("vmlinuz", "other"))), "other.* not admitted"),
    (packet(303, prepare(XML, ("destination_name", "vm2"))), "destination_name 'vm2'"),
    (packet(303, prepare(XML, ("migrate_uri", "tcp:0.0.0.0:1"))), "migrate_uri"),
    (packet(303, prepare(XML, ("persistent_xml", XML))), "persistent_xml"),
    (packet(303, prepare(XML, ("destination_xml", FOREIGN))), "twice"),
    (packet(303, prepare(XML, cookie=WHOLE.replace(b"vm1", b"vm2"))), "cookie of guest 'vm2'"),
    (packet(303, prepare(XML, cookie=COOKIE.format(FOREIGN).encode())), "cookie of guest 'vm2'"),
    (packet(303, prepare(XML, cookie=b"x")), "no plain"),
    (packet(303, prepare("<!DOCTYPE domain [<!ENTITY a 'b'>]>" + XML)), "no plain"),
    (packet(303, prepare("<?xml version='1.0' encoding='UTF-7'?>" + XML)), "no plain"),
    (packet(303, prepare(XML + "\0")), "no plain"),
    (packet(303, prepare("<domain>" * 100_000)), "cannot be read"),
    (packet(303, prepare("<domain><memory unit='x'>1</memory><os><type/></os></domain>")), "procedure 303"),
    (packet(303, prepare("<domain><memory>x</memory><os><type/></os></domain>")), "procedure 303"),
    (packet(303, prepare(XML) + bytes(4)), "arguments of this call"),
    (packet(303, prepare(XML)[:-5]), "end too early"),
    (packet(303, parameters() + opaque(b"") + bytes(4)), "no destination_xml"),
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
        await far.write(CALLS[1][9:] + packet(10, opaque(XML.encode()) + bytes(4)))
        with pytest.raises(WireError):
            await gated.read(65536)

    with caplog.at_level(logging.WARNING, "xiatb.migration"):
        asyncio.run(asyncio.wait_for(body(), 5))
    assert "job 7 (vm1 in): refused on the rpc channel: program 0x20008086 procedure 10 " in caplog.text
