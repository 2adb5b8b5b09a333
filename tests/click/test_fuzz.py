"""Nothing that comes from outside makes the engine fall over: configurations, frames, control lines."""

from __future__ import annotations

import random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from xiatb.click.controlsocket import ControlSession
from xiatb.click.errors import ClickFileError
from xiatb.click.graph import Router
from xiatb.wire import xarp, xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import BROADCAST_FID, SID_XROUTE

from .support import Node, ad, datagram, frame, hid, mac, remote, sid

_WORDS = """
elementclass define require library A Queue Idle Discard Null Tee input output -> :: ; , [ ] { } | || ( )
$x ${x} " ' // /* */ 0 1 99 a b \\< \\ $ => # é
"""
PIECES = [*_WORDS.split(), "\n", " ", "\0"]


@given(st.lists(st.sampled_from(PIECES), max_size=60).map(" ".join) | st.text(max_size=80))
@settings(max_examples=400, deadline=None)
def test_any_text_is_a_configuration_or_an_error(text: str) -> None:
    try:
        router = Router.from_text(text, "f.click")
    except ClickFileError as error:
        assert error.problems
        assert all(line.startswith("f.click:") for line in error.problems)
    else:
        again = Router.from_text(router.flat.to_text(), "g.click")
        assert again.flat.to_text() == router.flat.to_text()


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join), st.integers(0, 2000))
@settings(max_examples=100, deadline=None)
def test_damaged_configurations(noise: str, at: int) -> None:
    good = "require(library router.click);\ncore :: XIARouterCore; core -> Discard; Idle -> core;\n"
    good += "Idle -> [1] core;\n"
    try:
        Router.from_text(good[:at] + noise + good[at:], "f.click")
    except ClickFileError as error:
        assert error.problems


@pytest.fixture(scope="module")
def node() -> Node:
    node = Node("hypervisor")
    node.know_neighbours()
    node.table("SID").set(sid(7).key, Entry(SELF, None, 0, 0))
    return node


def _samples() -> list[bytes]:
    here = DAG.service(ad(1), hid(1), sid(7))
    return [
        frame(datagram(here)),
        frame(datagram(DAG.service(ad(2), hid(2), sid(2)))),
        frame(datagram(DAG.host(ad(9), hid(9)))),
        frame(datagram(DAG.chain(BROADCAST_FID, SID_XROUTE))),
        frame(xip.build(1, DAG.host(ad(1), hid(1)), remote(), xcmp.echo(True, 1, 1, b"x" * 30))),
        frame(xip.build(1, DAG.host(ad(1), hid(1)), remote(), xcmp.unreachable(1, datagram(here)))),
        b"\xff" * 6 + mac(9) + b"\x99\x90" + xarp.request(mac(9), hid(9).key, hid(1).key),
        b"\xff" * 6 + mac(9) + b"\x99\x90" + xarp.unsolicited(mac(9), hid(9).key),
        b"\xff" * 6 + mac(9) + b"\x99\x91join",
    ]


@given(st.integers(0, 8), st.integers(0, 2**32), st.integers(0, 12), st.integers(0, 300))
@settings(max_examples=600, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_damaged_frames(node: Node, which: int, seed: int, flips: int, cut: int) -> None:
    rng = random.Random(seed)
    data = bytearray(_samples()[which])
    for _ in range(flips):
        data[rng.randrange(12, len(data))] = rng.choice([0, 1, 0x7E, 0x7F, 0x80, 0xFF, rng.randrange(256)])
    if cut < len(data):
        del data[cut:]
    for device in (node.eth0, node.eth1, node.xia0):
        device.deliver(bytes(data))
        device.sent.clear()
    node.ctx.host.clear()
    node.ctx.advance(0.01)


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_random_frames(node: Node, data: bytes) -> None:
    for kind in (b"", b"\xc0\xde", b"\x99\x90", b"\x99\x91"):
        node.eth0.deliver(bytes(12) + kind + data)
    node.ctx.host.clear()


@given(
    st.lists(st.binary(max_size=40) | st.sampled_from([b"READ ", b"WRITE ", b"core/rt_AD.", b"set", b"\r\n"]))
)
@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_control_lines(node: Node, pieces: list[bytes]) -> None:
    control = ControlSession(node.router)
    for piece in pieces:
        control.feed(piece)
