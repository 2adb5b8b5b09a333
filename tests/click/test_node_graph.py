"""Whole nodes as composed: forwarding, local delivery, control messages, neighbours."""

from __future__ import annotations

import pytest

from tests.wire.golden import FRAMES
from xiatb.click.packet import Packet
from xiatb.click.waiting import PER_NEIGHBOUR
from xiatb.wire import xarp, xcmp, xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import SELF, Entry
from xiatb.wire.xid import BROADCAST_FID, SID_XROUTE

from .support import Node, ad, datagram, frame, hid, is_query, mac, remote, sid, xcmp_in


def test_forwarding_changes_the_hop_limit_only() -> None:
    node = Node()
    node.know_neighbours()
    packet = datagram(DAG.service(ad(2), hid(2), sid(2)), b"x" * 100)
    node.eth0.deliver(frame(packet) + b"\0" * 20)  # Ethernet padding is cut off
    (sent,) = node.at(node.eth1)
    assert sent[:14] == mac(0x55) + mac(3) + b"\xc0\xde"
    assert sent[14:] == packet[:4] + bytes([249]) + packet[5:]
    assert not node.eth0.sent
    assert not node.xia0.sent


def test_own_ad_then_own_host_then_bound_service() -> None:
    node = Node()
    node.table("SID").set(sid(7).key, Entry(SELF, None, 0, 0))
    node.eth0.deliver(frame(datagram(DAG.service(ad(1), hid(1), sid(7)))))
    (sent,) = node.at(node.xia0)
    assert sent[:6] == b"\xff" * 6
    header = xip.parse(sent, 14)
    assert header.last == 2  # straight to the SID, by the edge of highest priority
    assert header.hlim == 250  # not forwarded
    assert header.dst_wire[2 * 28 + 24] == 0x82


def test_service_by_fallback_through_ad_and_host() -> None:
    node = Node()
    node.table("SID").set(sid(7).key, Entry(SELF, None, 0, 0))
    node.table("SID").enabled = True
    dst = DAG((ad(1), hid(1), sid(7)), ((1,), (2,), ()), (0,))
    node.eth0.deliver(frame(datagram(dst)))
    (sent,) = node.at(node.xia0)
    header = xip.parse(sent, 14)
    assert header.last == 2
    assert [header.dst_wire[28 * i + 24] for i in range(3)] == [0x81, 0x82, 0x80]


def test_applications_enter_at_the_same_place() -> None:
    node = Node("host")
    node.table("AD").default = Entry(1, hid(9).key)
    node["lc1/xarpq"].insert(hid(9).key, mac(9))
    node.xia0.deliver(frame(datagram(DAG.service(ad(3), hid(3), sid(3)))))
    (sent,) = node.at(node.eth0)
    assert sent[:6] == mac(9)
    assert xip.parse(sent, 14).hlim == 249


def test_host_forwards_nothing_for_others() -> None:
    node = Node("host")
    node.know_neighbours()
    node.eth0.deliver(frame(datagram(DAG.service(ad(2), hid(2), sid(2)))))
    assert not node.at(node.eth1)
    _, message = xcmp_in(node.at(node.eth0)[0])
    assert (message.type, message.code) == (xcmp.UNREACHABLE, xcmp.CODE_INTENT)


@pytest.mark.parametrize("dst", [DAG.host(ad(1), hid(1)), DAG.chain(hid(1)), DAG.chain(ad(1))])
def test_echo_is_answered_in_the_graph(dst: DAG) -> None:
    node = Node()
    node.know_neighbours()
    request = xcmp.echo(True, 7, 9, b"hello")
    node.eth0.deliver(frame(xip.build(xip.NXT_XCMP, dst, remote(), request)))
    (sent,) = node.at(node.eth0)
    header, message = xcmp_in(sent)
    assert (message.type, message.ident, message.seq, message.data) == (xcmp.ECHO_REPLY, 7, 9, b"hello")
    assert header.dst() == remote()
    assert header.src() == dst
    assert header.src_wire == dst.to_wire()  # nothing marked visited
    assert header.hlim == 249
    assert not node.ctx.host


def test_replies_and_errors_for_the_node_go_to_it() -> None:
    node = Node()
    for body in (xcmp.echo(False, 1, 2), xcmp.time_exceeded(datagram(remote()))):
        node.eth0.deliver(frame(xip.build(xip.NXT_XCMP, DAG.host(ad(1), hid(1)), remote(), body)))
    assert [channel for channel, _ in node.ctx.host] == ["xcmp", "xcmp"]
    broken = bytearray(xcmp.echo(True, 1, 2))
    broken[2] ^= 1
    node.eth0.deliver(frame(xip.build(xip.NXT_XCMP, DAG.host(ad(1), hid(1)), remote(), broken)))
    assert node["core/local/xcmp"].malformed == 1


def test_routing_messages_and_joins_go_to_the_node() -> None:
    node = Node()
    dst = DAG.chain(BROADCAST_FID, SID_XROUTE)
    node.eth0.deliver(frame(datagram(dst)))
    node.eth1.deliver(frame(datagram(DAG.chain(BROADCAST_FID))))
    join = b"\xff" * 6 + mac(0x66) + b"\x99\x91" + b"join"
    node.eth1.deliver(join)
    assert [channel for channel, _ in node.ctx.host] == ["routing", "routing", "join"]
    packet = node.ctx.host[0][1]
    assert packet.port == 1
    assert xip.parse(packet.data, packet.net).last == 1
    assert node.ctx.host[2][1].port == 2
    assert bytes(node.ctx.host[2][1].data) == join


def test_measured_hello_of_xia_core_is_understood() -> None:
    node = Node()
    node.eth0.deliver(FRAMES["xroute_hello_fid"])
    assert [channel for channel, _ in node.ctx.host] == ["routing"]


def test_node_injects_packets_and_frames() -> None:
    node = Node()
    node.know_neighbours()
    node.router.inject("xip", Packet.from_xip(datagram(remote())))
    node.router.inject("core/from_host", Packet.from_xip(datagram(remote())))
    assert [xip.parse(sent, 14).hlim for sent in node.at(node.eth0)] == [249, 249]
    node.router.inject("lc2/inject", Packet(bytearray(b"\xff" * 6 + mac(3) + b"\x99\x91whole frame")))
    assert node.at(node.eth1) == [b"\xff" * 6 + mac(3) + b"\x99\x91whole frame"]


def test_no_route_is_unreachable() -> None:
    node = Node()
    node.know_neighbours()
    for dst, code in (
        (DAG.host(ad(9), hid(9)), xcmp.CODE_NET),
        (DAG.host(ad(1), hid(9)), xcmp.CODE_HOST),
        (DAG.service(ad(1), hid(1), sid(9)), xcmp.CODE_INTENT),
    ):
        packet = datagram(dst, b"0123456789")
        node.eth0.deliver(frame(packet))
        header, message = xcmp_in(node.at(node.eth0)[0])
        assert (message.type, message.code) == (xcmp.UNREACHABLE, code)
        assert header.src() == DAG.host(ad(1), hid(1))
        assert header.dst() == remote()
        assert bytes(message.original().payload) == b"01234567"


def test_hop_limit_used_up() -> None:
    node = Node()
    node.know_neighbours()
    dst = DAG.service(ad(2), hid(2), sid(2))
    for hlim in (0, 1):
        node.eth0.deliver(frame(datagram(dst, hlim=hlim)))
        _, message = xcmp_in(node.at(node.eth0)[0])
        assert message.type == xcmp.TIME_EXCEEDED
    node.eth0.deliver(frame(datagram(dst, hlim=2)))
    assert xip.parse(node.at(node.eth1)[0], 14).hlim == 1


def test_too_big_for_a_port() -> None:
    node = Node(mtu=1000)
    node.know_neighbours()
    dst = DAG.service(ad(2), hid(2), sid(2))
    fits = 1000 - len(datagram(dst, b""))
    node.eth0.deliver(frame(datagram(dst, b"x" * fits)))
    assert len(node.at(node.eth1)[0]) == 1014
    node.eth0.deliver(frame(datagram(dst, b"x" * (fits + 1))))
    assert not node.at(node.eth1)
    _, message = xcmp_in(node.at(node.eth0)[0])
    assert message.mtu == 1000
    node.router.write("lc2/mtu.mtu", "1001")
    node.eth0.deliver(frame(datagram(dst, b"x" * (fits + 1))))
    assert len(node.at(node.eth1)) == 1


def test_no_error_about_errors_or_broadcasts() -> None:
    node = Node()
    node.know_neighbours()
    nowhere = DAG.host(ad(9), hid(9))
    error = xcmp.unreachable(0, datagram(nowhere))
    node.eth0.deliver(frame(xip.build(xip.NXT_XCMP, nowhere, remote(), error)))
    node.eth0.deliver(frame(datagram(DAG.chain(BROADCAST_FID, sid(9)))))
    assert node["core/local/xcmp"].suppressed == 2
    assert not node.at(node.eth0)
    node.eth0.deliver(frame(xip.build(xip.NXT_XCMP, nowhere, remote(), xcmp.echo(True, 1, 1))))
    assert len(node.at(node.eth0)) == 1  # an echo request is not an error


def test_errors_are_limited_in_rate() -> None:
    node = Node()
    node.know_neighbours()
    for _ in range(500):
        node.eth0.deliver(frame(datagram(DAG.host(ad(9), hid(9)))))
    assert len(node.at(node.eth0)) == 50
    node.ctx.advance(0.1)
    for _ in range(500):
        node.eth0.deliver(frame(datagram(DAG.host(ad(9), hid(9)))))
    assert len(node.at(node.eth0)) == 20


def test_errors_come_from_the_present_locator() -> None:
    node = Node()
    node.know_neighbours()
    node.ctx.dag = None
    node.eth0.deliver(frame(datagram(DAG.host(ad(9), hid(9)))))
    assert xcmp_in(node.at(node.eth0)[0])[0].src() == DAG.chain(hid(1))
    node.ctx.dag = DAG.host(ad(7), hid(1))
    node.eth0.deliver(frame(datagram(DAG.host(ad(9), hid(9)))))
    assert xcmp_in(node.at(node.eth0)[0])[0].src() == DAG.host(ad(7), hid(1))


def test_circles_end() -> None:
    node = Node()
    node.table("HID").set(hid(6).key, Entry(SELF))
    nodes = hid(1).key + b"\1\x7f\x7f\x7f" + hid(6).key + b"\0\x7f\x7f\x7f" + sid(9).key + b"\0\x7f\x7f\x7f"
    node.eth0.deliver(frame(xip.build(2, nodes, remote(), b"")))
    assert node["core/unreachable"].count == 1


def test_xarp_asks_waits_and_sends() -> None:
    node = Node()
    dst = DAG.service(ad(2), hid(2), sid(2))
    for payload in (b"a", b"b"):
        node.eth0.deliver(frame(datagram(dst, payload)))
    (query,) = node.at(node.eth1)
    assert query[:14] == b"\xff" * 6 + mac(3) + b"\x99\x90"
    assert is_query(query, hid(5))
    reply = mac(3) + mac(0x55) + b"\x99\x90" + xarp.reply(mac(0x55), hid(5).key, mac(3), hid(1).key)
    node.eth1.deliver(reply + bytes(10))
    sent = node.at(node.eth1)
    assert [packet[-1:] for packet in sent] == [b"a", b"b"]
    assert all(packet[:6] == mac(0x55) for packet in sent)
    assert node.ctx.pending() == 1  # the sweep of the table


def test_xarp_gives_up_after_three_requests() -> None:
    node = Node()
    node["lc1/xarpq"].insert(hid(4).key, mac(0x44))
    node.eth0.deliver(frame(datagram(DAG.service(ad(2), hid(2), sid(2)))))
    node.ctx.advance(0.89)
    assert len(node.at(node.eth1)) == 3
    assert not node.at(node.eth0)
    node.ctx.advance(0.02)
    _, message = xcmp_in(node.at(node.eth0)[0])
    assert (message.type, message.code) == (xcmp.UNREACHABLE, xcmp.CODE_HOST)
    assert node["lc2/xarpq"].waiting.packets == 0
    node.eth0.deliver(frame(datagram(DAG.service(ad(2), hid(2), sid(2)))))
    assert len(node.at(node.eth1)) == 1  # the next packet asks anew


def test_xarp_queue_is_bounded() -> None:
    node = Node()
    querier = node["lc2/xarpq"]
    for number in range(200):
        node.eth0.deliver(frame(datagram(DAG.service(ad(2), hid(2), sid(2)), bytes([number]))))
    assert querier.waiting.packets == PER_NEIGHBOUR
    assert querier.drops == 200 - PER_NEIGHBOUR
    for number in range(3000):
        key = b"\0\0\0\x11" + number.to_bytes(20, "big")
        packet = Packet.from_xip(datagram(remote()))
        packet.nexthop = key
        querier.receive(packet)
    assert querier.waiting.packets == querier.capacity


def test_xarp_unsolicited_replies_and_moves() -> None:
    node = Node()
    node.know_neighbours()
    announcement = b"\xff" * 6 + mac(0x77) + b"\x99\x90" + xarp.unsolicited(mac(0x77), hid(5).key)
    node.eth1.deliver(announcement)
    node.eth0.deliver(frame(datagram(DAG.service(ad(2), hid(2), sid(2)))))
    assert node.at(node.eth1)[0][:6] == mac(0x77)
    node["lc2/xarpq"].forget(hid(5).key)
    node.eth0.deliver(frame(datagram(DAG.service(ad(2), hid(2), sid(2)))))
    assert is_query(node.at(node.eth1)[0], hid(5))


def test_xarp_does_not_believe_nonsense() -> None:
    node = Node()
    node.know_neighbours()
    for claim in (
        xarp.unsolicited(b"\xff" * 6, hid(5).key),  # a group address
        xarp.unsolicited(mac(0x77), hid(1).key),  # our own HID
        xarp.unsolicited(mac(0x77), ad(2).key),  # not a HID
        xarp.unsolicited(mac(0x77), hid(5).key)[:40],  # cut short
    ):
        node.eth1.deliver(b"\xff" * 6 + mac(0x77) + b"\x99\x90" + claim)
    assert node["lc2/xarpq"].malformed == 4
    node.eth0.deliver(frame(datagram(DAG.service(ad(2), hid(2), sid(2)))))
    assert node.at(node.eth1)[0][:6] == mac(0x55)


def test_xarp_entries_are_polled_and_expire() -> None:
    node = Node()
    node["lc2/xarpq"].insert(hid(5).key, mac(0x55))
    node.ctx.advance(59)
    assert not node.at(node.eth1)
    node.ctx.advance(2)
    (poll,) = node.at(node.eth1)
    assert poll[:6] == mac(0x55)  # by unicast
    reply = mac(3) + mac(0x55) + b"\x99\x90" + xarp.reply(mac(0x55), hid(5).key, mac(3), hid(1).key)
    node.eth1.deliver(reply)
    node.ctx.advance(290)
    assert node["lc2/xarpq"].read_handlers()["count"]("") == "1"
    node.ctx.advance(30)
    assert node["lc2/xarpq"].read_handlers()["count"]("") == "0"
    assert node.ctx.pending() == 0  # nothing to do, no timer


def test_xarp_requests_are_answered_for_our_hid_only() -> None:
    node = Node()
    for wanted in (hid(1), hid(2)):
        body = xarp.request(mac(0x88), hid(8).key, wanted.key)
        node.eth1.deliver(b"\xff" * 6 + mac(0x88) + b"\x99\x90" + body)
    (answer,) = node.at(node.eth1)
    assert answer[:14] == mac(0x88) + mac(3) + b"\x99\x90"
    assert xarp.parse(answer, 14) == (xarp.REPLY, mac(3), hid(1).key, mac(0x88), hid(8).key)
    assert hid(8).key in node["lc2/xarpq"].headers  # who asks us is a neighbour


def test_xarp_vectors() -> None:
    node = Node()
    node.ctx.hid = xarp.parse(FRAMES["xarp_request"], 14).tpa
    node.eth0.deliver(FRAMES["xarp_request"])
    (answer,) = node.at(node.eth0)
    assert xarp.parse(answer, 14).tpa == xarp.parse(FRAMES["xarp_request"], 14).spa


def test_malformed_frames_are_counted() -> None:
    node = Node()
    good = datagram(DAG.host(ad(2), hid(2)))
    for bad, reason in (
        (good[:-1], "truncated"),
        (good[:5], "truncated"),
        (b"\2" + good[1:], "version"),
        (good[:5] + b"\0" + good[6:], "nodes"),
        (good[:6] + bytes([21]) + good[7:], "nodes"),
        (good[:7] + b"\2" + good[8:], "last"),
        (good[:7] + b"\x7f" + good[8:], "last"),
    ):
        before = node["lc1/check"].reasons[reason]
        node.eth0.deliver(frame(bad))
        assert node["lc1/check"].reasons[reason] == before + 1, reason
    node.eth0.deliver(b"short")
    assert node["lc1/in"].malformed == 1
    node.eth0.deliver(frame(b"")[:12] + b"\x08\x00" + bytes(50))
    assert node["lc1/other"].count == 1
    assert "truncated\t2" in node.router.read("lc1/check.drop_details")


def test_full_port_drops() -> None:
    node = Node()
    node.know_neighbours()
    node.eth1.full = True
    for _ in range(3):
        node.eth0.deliver(frame(datagram(DAG.host(ad(2), hid(2)))))
    assert node.router.read("lc2/device.drops") == "3"
