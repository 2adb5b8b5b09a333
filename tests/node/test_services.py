"""The node's part of names and rendezvous, without a node: hostile packets, silence, forgery."""

from __future__ import annotations

import asyncio
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.node.netsim import key
from xiatb.click.packet import Packet
from xiatb.node import requests
from xiatb.node.control_protocol import ControlError
from xiatb.node.names import Names
from xiatb.node.nameserver import NameServer
from xiatb.node.requests import Requests
from xiatb.node.services import Services, registration, rendezvous_answer
from xiatb.wire import xdgram, xip
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.nameservice import Kind, NameMessage, parse
from xiatb.wire.rendezvous import Control, Verb
from xiatb.wire.xid import SID_NS, SID_RENDEZVOUS, SID_RENDEZVOUS_CONTROL, XidType

SERVER, HOST = key("server"), key("h1")
AD = key("ad1").xid(XidType.AD)
SERVER_AT, HOST_AT = (DAG.host(AD, one.xid(XidType.HID)) for one in (SERVER, HOST))


class Stub:
    """What `Services` needs of a node; sent packets are kept, or answered by `reply`."""

    def __init__(self, tmp: Path, keys: Any, at: DAG, *, gateway: bool) -> None:
        hosts = tmp / "hosts.xia"
        hosts.write_text(
            f"ns.lab.xia {served(SERVER_AT, SID_NS).url()}\n"
            f"rendezvous.lab.xia {served(SERVER_AT, SID_RENDEZVOUS).url()}\nr1.lab.xia {SERVER_AT.url()}\n"
        )
        self.key, self.hid = keys, keys.xid(XidType.HID)
        self.names = Names(hosts)
        self.config = SimpleNamespace(lab="lab", name="h1", is_gateway=gateway, attach="xia0")
        self.locator = SimpleNamespace(dag=at)
        self.context = SimpleNamespace(serve=lambda channel, fn: None)
        self.routes: dict[bytes, Any] = {}
        self.tables = SimpleNamespace(set=self.routes.__setitem__)
        self.router = SimpleNamespace(elements={"core/local/rendezvous": SimpleNamespace()})
        self.events: list[dict[str, Any]] = []
        self.control = SimpleNamespace(publish=self.events.append)
        self.sent: list[bytes] = []
        self.reply: Any = None
        self.loop: Any = None
        self.services = Services(self)  # type: ignore[arg-type]
        self.services.start()

    def inject(self, where: str, packet: Packet) -> None:
        self.sent.append(packet.xip)
        if self.reply is not None:
            self.reply(packet.xip)

    def take(self, packet: bytes) -> None:
        self.services._receive(Packet.from_xip(packet))


def datagram(to: DAG, payload: bytes, source: DAG = HOST_AT) -> bytes:
    return xip.build(xip.NXT_XDGRAM, to, source, xdgram.pack(payload))


@pytest.fixture
def server(tmp_path: Path) -> Stub:
    return Stub(tmp_path, SERVER, SERVER_AT, gateway=True)


@pytest.fixture
def host(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stub:
    monkeypatch.setattr(requests, "INTERVALS", (0.01, 0.01))
    return Stub(tmp_path, HOST, HOST_AT, gateway=False)


def payload_of(packet: bytes) -> bytes:
    header = xip.parse(packet)
    return packet[header.payload_off + 4 : header.end]


def test_questions_are_answered_from_the_services_address(server: Stub) -> None:
    assert set(server.routes) == {SID_NS.key, SID_RENDEZVOUS.key, SID_RENDEZVOUS_CONTROL.key}
    server.take(datagram(served(SERVER_AT, SID_NS), b"\x02\x00r1.lab.xia\0"))
    (answer,) = server.sent
    header = xip.parse(answer)
    assert header.src() == served(SERVER_AT, SID_NS) and header.dst() == HOST_AT
    assert parse(payload_of(answer)).dag() == SERVER_AT


def test_host_and_server_together(server: Stub, host: Stub) -> None:
    host.reply, server.reply = server.take, host.take

    async def run() -> None:
        host.loop = asyncio.get_running_loop()
        host.services.located()
        async with asyncio.timeout(30):
            while len(host.events) < 2:
                await asyncio.sleep(0)
        assert {event["with"] for event in host.events} == {"name", "rendezvous"}
        assert await host.services.resolve("h1.lab.xia") == HOST_AT
        assert await host.services.name_of(HOST_AT) == "h1.lab.xia"
        with pytest.raises(ControlError) as caught:
            await host.services.register(registration("h1.lab.xia", HOST_AT, HOST, 5))
        assert caught.value.code == "ESTALE"
        assert host.services._next_seq() > 5
        host.services.close()

    asyncio.run(run())
    told = server.services.directory()
    assert [row["hid"] for row in told["hosts"]] == [str(HOST.xid(XidType.HID))]
    assert server.services.stats()["names"]["stale"] == 1


def test_silence_ends_in_the_hosts_file_or_an_error(host: Stub) -> None:
    assert asyncio.run(host.services.resolve("r1.lab.xia")) == SERVER_AT
    assert len(host.sent) == 2
    for work in (host.services.name_of(HOST_AT), host.services.register(registration("x", HOST_AT, HOST, 1))):
        with pytest.raises(ControlError) as caught:
            asyncio.run(work)
        assert caught.value.code == "ETIMEDOUT"
    for record in (b"", b"junk", NameMessage(Kind.QUERY, ("x",), bytes(8)).pack()):
        with pytest.raises(ControlError) as caught:
            asyncio.run(host.services.register(record))
        assert caught.value.code == "EINVAL"


def test_only_the_servers_own_answer_to_this_question_counts(host: Stub) -> None:
    forger, real = NameServer(HOST, lambda: {"r1.lab.xia": HOST_AT}), NameServer(SERVER, dict)
    old = real.receive(NameMessage(Kind.QUERY, ("r1.lab.xia",), b"old nonc").pack(), 0.0)
    assert old is not None

    def reply(packet: bytes) -> None:
        forged = forger.receive(payload_of(packet), 0.0)
        assert forged is not None
        for answer in (forged, old, payload_of(packet), b"\x05\x00" + HOST_AT.dag_string().encode() + b"\0"):
            host.take(datagram(HOST_AT, answer, SERVER_AT))

    host.reply = reply
    assert asyncio.run(host.services.resolve("r1.lab.xia")) == SERVER_AT
    assert host.services.stats()["datagrams"]["stray"] == 8


def test_rendezvous_answers_are_checked() -> None:
    hid = HOST.xid(XidType.HID)
    accept = rendezvous_answer(SERVER.xid(XidType.HID), hid)
    bare = Control(Verb.ACK, hid, "", 7, SERVER.public)
    good = bare.signed(SERVER.sign(bare.signed_bytes()))
    assert accept(good.pack()) == good
    foreign = bare._replace(public=HOST.public)
    other = bare._replace(hid=SERVER.xid(XidType.HID))
    for bad in (
        bare, good._replace(seq=8), good._replace(verb=Verb.REGISTER),
        foreign.signed(HOST.sign(foreign.signed_bytes())), other.signed(SERVER.sign(other.signed_bytes())),
    ):  # fmt: skip
        assert accept(bad.pack()) is None
    assert accept(b"junk") is None


def test_questions_under_way_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "INTERVALS", (0.05,))

    async def run() -> list[str]:
        asking = Requests()
        work = [asking.ask(lambda: None, lambda data: None) for _ in range(requests.MAX_PENDING + 1)]
        results = await asyncio.gather(*work, return_exceptions=True)
        return [result.code for result in results if isinstance(result, ControlError)]

    codes = asyncio.run(run())
    assert codes.count("EAGAIN") == 1 and codes.count("ETIMEDOUT") == requests.MAX_PENDING


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from([SID_NS, SID_RENDEZVOUS_CONTROL, SID_RENDEZVOUS, SERVER.xid(XidType.HID)]),
    st.binary(max_size=300), st.integers(0, 255), st.integers(0, 200),
)  # fmt: skip
def test_hostile_packets(
    tmp_path_factory: pytest.TempPathFactory, to: Any, data: bytes, nxt: int, at: int
) -> None:
    server = Stub(tmp_path_factory.mktemp("s"), SERVER, SERVER_AT, gateway=True)
    target = SERVER_AT if to.type == XidType.HID else served(SERVER_AT, to)
    server.take(datagram(target, data))
    server.take(xip.build(nxt, target, HOST_AT, data))
    broken = bytearray(datagram(target, data))
    broken[at % len(broken)] ^= 0xFF
    server.take(bytes(broken))
    assert len(server.sent) <= 3
