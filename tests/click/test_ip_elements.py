"""The line card to an IP network, and the rendezvous element, in a manual world."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.click.support import ad, datagram, hid, mac, remote
from xiatb.click.compose import PortSpec, compose
from xiatb.click.context import ManualContext
from xiatb.click.graph import Router
from xiatb.click.packet import ETHER_LEN
from xiatb.wire import arp, ipencap, xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import behind
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import SID_RENDEZVOUS, XID

OWN, NEAR, GATE = bytes((192, 0, 2, 1)), bytes((192, 0, 2, 9)), bytes((192, 0, 2, 254))
FAR = bytes((198, 51, 100, 2))


class Dual:
    """A router with a port to XIA (eth0, HID 4 behind it) and one to IP (eth1)."""

    def __init__(self, gateway: str = "192.0.2.254") -> None:
        ports = [
            PortSpec("xia0r", "internal", 9000),
            PortSpec("eth0", "link", 1500),
            PortSpec("eth1", "ip", 1500, "192.0.2.1/24", gateway),
        ]
        self.router = Router.from_text(compose("router", ports), "node.click")
        self.ctx = ManualContext(hid=hid(1).key, dag=DAG.host(ad(1), hid(1)))
        self.xia0, self.eth0, self.eth1 = (
            self.ctx.add_device(port.name, mac(i + 1), port.mtu) for i, port in enumerate(ports)
        )
        self.router.initialize(self.ctx)
        for kind, key, entry in (
            ("AD", ad(1).key, Entry(SELF)),
            ("HID", hid(4).key, Entry(1, hid(4).key)),
            ("IP", XID.parse("IP:192.0.2.1").key, Entry(SELF)),
        ):
            self.router.elements[f"core/rt_{kind}"].set(key, entry)  # type: ignore[attr-defined]
        self.router.elements["core/rt_IP"].default = Entry(2)  # type: ignore[attr-defined]
        self.router.elements["lc1/xarpq"].insert(hid(4).key, mac(0x44))  # type: ignore[attr-defined]

    def arrive(self, frame: bytes) -> None:
        self.eth1.deliver(frame)

    def xip(self, packet: bytes) -> None:
        """An XIP packet comes from HID 4."""
        self.eth0.deliver(mac(2) + mac(0x44) + b"\xc0\xde" + packet)

    def out(self) -> list[bytes]:
        sent = list(self.eth1.sent)
        self.eth1.sent.clear()
        return sent

    def answer(self, who: bytes, at: bytes) -> None:
        message = arp.Arp(arp.REPLY, at, who, mac(3), OWN)
        self.arrive(mac(3) + at + b"\x08\x06" + message.pack())


def test_encapsulated_to_the_gateway_and_back() -> None:
    node = Dual()
    far = behind(XID.parse("IP:198.51.100.2"), DAG.host(ad(2), hid(5)))
    packet = datagram(far, b"payload")
    node.xip(packet)
    (question,) = node.out()
    asked = arp.parse(question, ETHER_LEN)
    assert (asked.op, asked.tpa) == (arp.REQUEST, GATE)
    node.answer(GATE, mac(0x66))
    (frame,) = node.out()
    inside = ipencap.parse(frame, ETHER_LEN)
    assert frame[:14] == mac(0x66) + mac(3) + b"\x08\x00" and (inside.src, inside.dst) == (OWN, FAR)
    inner = frame[inside.start : inside.end]
    assert inner[4] == packet[4] - 1 and inner[8:] == packet[8:]
    back = datagram(behind(XID.parse("IP:192.0.2.1"), DAG.host(ad(1), hid(4))), b"back")
    head = ipencap.headers(FAR, OWN, len(back), 1)
    node.arrive(mac(3) + mac(0x66) + b"\x08\x00" + head + back)
    arrived = xip.parse(bytes(node.eth0.sent[-1]), ETHER_LEN)
    assert bytes(arrived.payload) == b"back" and arrived.dst().intent == hid(4)


def test_too_big_and_silent_neighbours_are_told() -> None:
    node = Dual(gateway="")
    far = behind(XID.parse("IP:198.51.100.2"), DAG.host(ad(2), hid(5)))
    for size, code in ((1400, xcmp.CODE_TOO_BIG), (10, xcmp.CODE_HOST)):
        node.eth0.sent.clear()
        node.xip(datagram(far, bytes(size)))
        told = xip.parse(bytes(node.eth0.sent[-1]), ETHER_LEN)
        assert xcmp.parse(told.payload).code == code
    near = behind(XID.parse("IP:192.0.2.9"), DAG.host(ad(2), hid(5)))
    for _ in range(100):
        node.xip(datagram(near, b"x"))
    assert len(node.out()) == 1
    node.eth0.sent.clear()
    node.ctx.advance(5.0)
    assert 0 < len(node.eth0.sent) <= 64
    assert int(node.router.read("lc2/arpq.drops")) >= 64


def test_arp_requests_are_answered_and_others_words_teach_nothing() -> None:
    node = Dual()
    question = arp.Arp(arp.REQUEST, mac(0x77), NEAR, bytes(6), OWN)
    node.arrive(b"\xff" * 6 + mac(0x77) + b"\x08\x06" + question.pack() + bytes(18))
    (answer,) = node.out()
    told = arp.parse(answer, ETHER_LEN)
    assert (told.op, told.sha, told.spa, told.tha) == (arp.REPLY, mac(3), OWN, mac(0x77))
    node.answer(GATE, mac(0x66))
    table = node.router.read("lc2/arpq.table")
    assert "254" not in table and "192.0.2.9" in table


@settings(max_examples=25, deadline=None)
@given(st.lists(st.binary(max_size=200), max_size=40))
def test_hostile_frames_pass_nothing(frames: list[bytes]) -> None:
    node = Dual()
    for junk in frames:
        head = ipencap.headers(FAR, OWN, len(junk), 1)
        node.arrive(mac(3) + mac(0x66) + b"\x08\x00" + head + junk)
        node.arrive(mac(3) + mac(0x66) + b"\x08\x00" + junk)
        node.arrive(mac(3) + mac(0x66) + b"\x08\x06" + junk)
    assert node.eth0.sent == [] or all(len(frame) > 14 for frame in node.eth0.sent)
    assert int(node.router.read("lc2/decap.count")) <= len(frames)


def test_rendezvous_element_leaves_other_packets_alone() -> None:
    node = Dual()
    node.router.elements["core/rt_SID"].set(SID_RENDEZVOUS.key, Entry(SELF))  # type: ignore[attr-defined]
    element = node.router.elements["core/local/rendezvous"]
    element.locate = {hid(4).key: DAG.host(ad(1), hid(4))}.get  # type: ignore[attr-defined]
    address = DAG.chain(ad(1), hid(1), SID_RENDEZVOUS, hid(4))
    for target, count in ((address, "1"), (DAG.host(ad(1), hid(1)), "1")):
        node.xip(xip.build(xip.NXT_XDGRAM, target, remote(), b"x"))
        assert node.router.read("core/local/rendezvous.redirected") == count
    arrived = xip.parse(bytes(node.eth0.sent[-1]), ETHER_LEN)
    assert arrived.dst() == DAG.host(ad(1), hid(4))
    nobody = DAG.chain(ad(1), hid(1), SID_RENDEZVOUS, hid(9))
    node.xip(xip.build(xip.NXT_XDGRAM, nobody, remote(), b"x"))
    assert node.router.read("core/local/rendezvous.unknown") == "1"
    assert xcmp.parse(xip.parse(bytes(node.eth0.sent[-1]), ETHER_LEN).payload).is_error
