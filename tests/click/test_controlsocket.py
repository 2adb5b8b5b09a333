"""ControlSocket/1.3, as clients of Click speak it."""

from __future__ import annotations

import pytest

from xiatb.click.context import ManualContext
from xiatb.click.controlsocket import ControlSession
from xiatb.click.graph import Router
from xiatb.wire.xid import XID

CONFIG = """n :: Counter; Idle -> n -> p :: Paint(3) -> Discard;
t :: XIAXIDRouteTable(AD, - FALLBACK); Idle -> t -> Discard; t[1] -> Discard; t[2] -> Discard;"""


def session() -> ControlSession:
    router = Router.from_text(CONFIG)
    router.initialize(ManualContext())
    return ControlSession(router)


def test_greeting_and_read() -> None:
    control = session()
    assert control.greeting() == b"Click::ControlSocket/1.3\r\n"
    assert control.feed(b"READ n.count\r\n") == b"200 Read handler 'n.count' OK\r\nDATA 1\r\n0"
    assert control.feed(b"read p.color\n") == b"200 Read handler 'p.color' OK\r\nDATA 1\r\n3"
    assert control.feed(b"READ version\r\n").startswith(b"200 ")


def test_write_and_its_data_forms() -> None:
    control = session()
    assert control.feed(b"WRITE p.color 7\r\n") == b"200 Write handler 'p.color' OK\r\n"
    assert control.router.read("p.color") == "7"
    assert control.feed(b"WRITEDATA p.color 2\r\n1") == b""
    assert control.feed(b"2READ p.color\r\n") == (
        b"200 Write handler 'p.color' OK\r\n200 Read handler 'p.color' OK\r\nDATA 2\r\n12"
    )
    assert control.feed(b"WRITEUNTIL p.color END\r\n99\r\nEND\r\n") == b"200 Write handler 'p.color' OK\r\n"
    assert control.router.read("p.color") == "99"


def test_routes_as_xroute_writes_them() -> None:
    control = session()
    xid = XID.parse("AD:" + "12" * 20)
    reply = control.feed(f"WRITE t.set4 {xid},3,,65535\r\nREAD t.list\r\n".encode())
    assert f"{xid},3,,65535\n-,-7,,0\n".encode() in reply


@pytest.mark.parametrize(
    ("line", "code"),
    [
        (b"READ", b"500"),
        (b"READ m.count", b"510"),
        (b"READ n.nothing", b"511"),
        (b"READ nothing", b"511"),
        (b"WRITE n.count 3", b"511"),
        (b"WRITE p.color red", b"520"),
        (b"DANCE n", b"501"),
        (b"WRITEDATA p.color many", b"500"),
        (b"WRITEDATA p.color 99999999999", b"500"),
        (b"CHECKREAD n.count", b"200"),
        (b"CHECKWRITE n.count", b"511"),
        (b"CHECKWRITE n.reset", b"200"),
        (b"CHECKREAD m.count", b"510"),
        (b"HELP", b"200"),
    ],
)
def test_reply_codes(line: bytes, code: bytes) -> None:
    reply = session().feed(line + b"\r\n")
    assert reply.splitlines()[-1].startswith(code + b" "), reply


def test_quit_and_pipelining() -> None:
    control = session()
    reply = control.feed(b"\r\nREAD n.count\r\nQUIT\r\nREAD n.count\r\n")
    assert reply.endswith(b"200 Goodbye!\r\n")
    assert control.closed
    assert control.feed(b"READ n.count\r\n") == b""


def test_endless_lines_close_the_session() -> None:
    control = session()
    assert control.feed(b"x" * 100_000).startswith(b"500 ")
    assert control.closed


def test_octets_that_are_no_text() -> None:
    control = session()
    assert control.feed(b"READ \xff\xfe.count\r\n").startswith(b"510 ")
    assert control.feed(b"WRITE p.color \xff\r\n").startswith(b"520 ")
