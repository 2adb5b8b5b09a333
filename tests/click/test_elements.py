"""Single elements in small graphs."""
# ruff: noqa: E501

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

import pytest

from xiatb.click import registry
from xiatb.click.context import ManualContext
from xiatb.click.element import Element
from xiatb.click.errors import ClickFileError, HandlerError
from xiatb.click.graph import Router
from xiatb.click.packet import Packet
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import Entry

from .support import ad, datagram, hid, remote, sid


@registry.register
class Catch(Element):
    """Keeps what it gets, for tests; a pull makes it ask upstream."""

    __slots__ = ("got",)
    PORTS = "1/0"
    PROCESSING = "push"

    def configure(self, args: dict[str, Any]) -> None:
        """Nothing to take."""
        self.got: list[tuple[float, bytes]] = []

    def receive(self, p: Packet) -> None:
        """Keep."""
        self.got.append((self.ctx.now(), bytes(p.data)))


class Graph:
    """A configuration in a manual world; `in` is a FromHost, catches are named."""

    def __init__(self, text: str, ctx: ManualContext | None = None) -> None:
        self.router = Router.from_text(text)
        self.ctx = ctx or ManualContext()
        self.router.initialize(self.ctx)

    def send(self, data: bytes, where: str = "in", **annotations: Any) -> Packet:
        packet = Packet(bytearray(data))
        for name, value in annotations.items():
            setattr(packet, name, value)
        self.router.inject(where, packet)
        return packet

    def got(self, name: str = "c") -> list[bytes]:
        return [data for _, data in self.times(name)]

    def times(self, name: str = "c") -> list[tuple[float, bytes]]:
        found = list(self.router.elements[name].got)  # type: ignore[attr-defined]
        self.router.elements[name].got.clear()  # type: ignore[attr-defined]
        return found


def test_tee_copies() -> None:
    graph = Graph("in :: FromHost -> t :: Tee(2) -> s :: Strip(1) -> a :: Catch; t[1] -> b :: Catch;")
    graph.send(b"xy")
    assert (graph.got("a"), graph.got("b")) == ([b"y"], [b"xy"])


def test_queue_drops_when_full_and_wakes() -> None:
    graph = Graph("in :: FromHost -> q :: Queue(3) -> u :: DelayUnqueue(1s, LIMIT 2) -> c :: Catch;")
    for number in range(8):
        graph.send(bytes([number]))
    assert graph.router.read("q.length") == "3"
    assert graph.router.read("q.drops") == "3"
    graph.ctx.advance(1)
    assert graph.got() == [b"\0", b"\1"]
    graph.ctx.advance(1)
    assert graph.got() == [b"\2", b"\3"]
    graph.router.write("q.reset")
    graph.ctx.advance(5)
    assert graph.got() == [b"\4"]
    assert graph.ctx.pending() == 0


def test_classifier_patterns() -> None:
    graph = Graph(
        "in :: FromHost -> k :: Classifier(0/01 2/03, 0/1?, 0/80%80, !1/00, -);"
        "k[0] -> a :: Catch; k[1] -> b :: Catch; k[2] -> c :: Catch; k[3] -> d :: Catch; k[4] -> e :: Catch;"
    )
    for data in (b"\1\0\3", b"\1\0\4", b"\x1f", b"\x95\0", b"\2\7", b"\2\0", b""):
        graph.send(data)
    assert graph.got("a") == [b"\1\0\3"]
    assert graph.got("b") == [b"\x1f"]
    assert graph.got("c") == [b"\x95\0"]
    assert graph.got("d") == [b"\2\7", b""]  # what is not there is not 00
    assert graph.got("e") == [b"\1\0\4", b"\2\0"]


def test_classifier_by_ethertype_and_no_match() -> None:
    graph = Graph("in :: FromHost -> k :: Classifier(12/C0DE, 12/9990) -> a :: Catch; k[1] -> b :: Catch;")
    for kind in (b"\xc0\xde", b"\x99\x90", b"\x08\x00", b""):
        graph.send(bytes(12) + kind)
    assert len(graph.got("a")) == len(graph.got("b")) == 1
    assert graph.router.read("k.drops") == "2"


def test_switches_and_paints() -> None:
    graph = Graph(
        "in :: FromHost -> s :: Switch(1) -> a :: Catch; s[1] -> p :: Paint(1) -> w :: PaintSwitch -> b :: Catch;"
        "w[1] -> XIAPaint(0) -> x :: XIAPaintSwitch -> c :: Catch; x[1] -> Discard;"
    )
    graph.send(b"1")
    assert graph.got("c") == [b"1"]
    graph.router.write("p.color", "0")
    graph.send(b"2")
    assert graph.got("b") == [b"2"]
    graph.router.write("p.color", "7")
    graph.send(b"3")
    assert graph.router.read("w.drops") == "1"
    graph.router.write("s.switch", "0")
    graph.send(b"4")
    assert graph.got("a") == [b"4"]
    with pytest.raises(HandlerError):
        graph.router.write("s.switch", "left")


def test_counter_counts_and_rates() -> None:
    graph = Graph("in :: FromHost -> n :: Counter -> c :: Catch;")
    for _ in range(10):
        graph.send(b"1234")
    graph.ctx.advance(2)
    assert graph.router.read("n.count") == "10"
    assert graph.router.read("n.byte_count") == "40"
    assert graph.router.read("n.rate") == "5.00"
    graph.router.write("n.reset")
    assert graph.router.read("n.count") == "0"


def test_bandwidth_is_kept() -> None:
    graph = Graph("in :: FromHost -> Queue -> BandwidthRatedUnqueue(1000) -> c :: Catch;")
    for _ in range(10):
        graph.send(bytes(100))
    graph.ctx.advance(10)
    assert [round(moment, 6) for moment, _ in graph.times()] == [round(0.1 * n, 6) for n in range(10)]
    graph.send(bytes(100))
    assert len(graph.got()) == 1  # after a pause at once
    assert (
        Router.from_text("Idle -> Queue -> b :: BandwidthRatedUnqueue(8Mbps) -> Discard;").read("b.rate")
        == "1000000.0"
    )


def test_burst_goes_at_once() -> None:
    graph = Graph("in :: FromHost -> Queue -> BandwidthRatedUnqueue(1000, 300) -> c :: Catch;")
    graph.ctx.advance(1)
    for _ in range(6):
        graph.send(bytes(100))
    assert len(graph.got()) == 4
    graph.ctx.advance(0.1001)
    assert len(graph.got()) == 1


def test_link_serialises_and_delays() -> None:
    graph = Graph("in :: FromHost -> q :: Queue -> l :: LinkUnqueue(50ms, 1000) -> c :: Catch;")
    for _ in range(3):
        graph.send(bytes(100))
    graph.ctx.advance(1)
    assert [round(moment, 6) for moment, _ in graph.times()] == [0.15, 0.25, 0.35]
    graph.router.write("l.latency", "10ms")
    graph.router.write("l.bandwidth", "1MB/s")
    graph.send(bytes(100))
    graph.ctx.advance(1)
    assert [round(moment, 6) for moment, _ in graph.times()] == [1.0101]
    assert graph.ctx.pending() == 0


def test_random_sample_is_seeded() -> None:
    def run(config: str) -> tuple[list[bytes], list[bytes]]:
        graph = Graph(f"in :: FromHost -> r :: RandomSample({config}) -> c :: Catch; r[1] -> d :: Catch;")
        for number in range(1000):
            graph.send(number.to_bytes(2, "big"))
        return graph.got("c"), graph.got("d")

    kept, dropped = run("DROP 10%")
    assert len(kept) + len(dropped) == 1000
    assert 60 < len(dropped) < 140
    assert run("0.9") == (kept, dropped)
    assert len(run("1")[0]) == 1000
    assert len(run("0")[0]) == 0
    with pytest.raises(ClickFileError):
        Graph("Idle -> RandomSample -> Discard;")


def test_schedulers() -> None:
    text = "a :: FromHost -> [0] s; b :: FromHost -> [1] s; s -> u :: DelayUnqueue(0) -> c :: Catch;"
    queues = text.replace("-> [0]", "-> Queue -> [0]").replace("-> [1]", "-> Queue -> [1]")
    for scheduler, expected in (("RoundRobinSched", b"axbycz"), ("PrioSched", b"abcxyz")):
        graph = Graph(f"s :: {scheduler}; {queues}".replace("DelayUnqueue(0)", "BandwidthRatedUnqueue(1)"))
        graph.send(b"0", "a")
        for data in (b"a", b"b", b"c"):
            graph.send(data, "a")
        for data in (b"x", b"y", b"z"):
            graph.send(data, "b")
        graph.ctx.advance(30)
        order = b"".join(graph.got())[1:]
        assert sorted(order) == sorted(expected)
        if scheduler == "PrioSched":
            assert order == expected
        else:
            assert order in (b"xaybzc", b"axbycz")


def test_strip_and_unstrip() -> None:
    graph = Graph("in :: FromHost -> s :: Strip(4) -> Unstrip(2) -> c :: Catch;")
    packet = graph.send(b"0123456")
    assert graph.got() == [b"\0\0" + b"456"]
    assert packet.net == 14 - 4 + 2
    graph.send(b"012")
    assert graph.router.read("s.drops") == "1"


def test_sources() -> None:
    graph = Graph(
        "s :: RatedSource(abc, 10, 5) -> c :: Catch; i :: InfiniteSource(x, 2000) -> n :: Counter -> Discard;"
    )
    graph.ctx.advance(1)
    assert [round(moment, 6) for moment, _ in graph.times()] == [0.1, 0.2, 0.3, 0.4, 0.5]
    assert graph.router.read("n.count") == "2000"
    assert graph.router.read("s.count") == "5"


def test_encapsulation_and_printing() -> None:
    graph = Graph(
        f'in :: FromHost -> XIAEncap(2, "{remote()}", "{DAG.host(ad(2), hid(2))}", HLIM 9) -> XIAPrint(seen) -> c :: Catch;'
    )
    graph.send(b"payload")
    (sent,) = graph.got()
    header = xip.parse(sent, 14)
    assert (header.nxt, header.hlim, bytes(header.payload)) == (2, 9, b"payload")
    assert header.dst() == DAG.host(ad(2), hid(2))
    assert "seen: XDGRAM 7 octets, hlim 9, last entry" in graph.ctx.logged[0][1]
    graph = Graph("in :: FromHost -> XIAPrint -> p :: Print(raw, 2) -> c :: Catch;")
    graph.send(b"\1\2\3")
    assert graph.ctx.logged == [
        ("info", "XIAPrint@2: bad XIP packet of 3 octets: XIP header truncated in its fixed part"),
        ("info", "raw:    3 | 0102..."),
    ]
    graph.router.write("p.active", "false")
    graph.send(b"\1")
    assert len(graph.ctx.logged) == 3


def test_type_classifier_and_counter() -> None:
    xid = f"SID:{'04' * 20}"
    graph = Graph(
        f"in :: FromHost -> n :: XIAXIDTypeCounter(src SID, -) -> k :: XIAXIDTypeClassifier(dst 0x50, src {xid}, next HID, -);"
        "k[0] -> a :: Catch; k[1] -> b :: Catch; k[2] -> c :: Catch; k[3] -> d :: Catch;"
    )
    graph.send(bytes(14) + datagram(DAG.host(ad(1), hid(1))))
    graph.send(bytes(14) + xip.build(2, DAG.chain(hid(1)), DAG.chain(hid(2)), b""))
    graph.send(bytes(14) + xip.build(2, DAG.chain(sid(1)), DAG.chain(hid(2)), b""))
    assert [len(graph.got(name)) for name in "abcd"] == [0, 1, 1, 1]
    assert graph.router.read("n.count") == "src SID\t1\n-\t2\n"


def test_route_table_handlers(tmp_path: Path) -> None:
    graph = Graph(
        "in :: FromHost -> t :: XIAXIDRouteTable(AD, - FALLBACK) -> Discard; t[1] -> Discard; t[2] -> Discard;"
    )
    router, one, two = graph.router, str(ad(1)), str(ad(2))
    router.write("t.add", f"{one} 3")
    router.write("t.set4", f"{two},2,{hid(9)},65535")
    assert router.read("t.list").splitlines() == [f"{one},3,,0", f"{two},2,{hid(9)},65535", "-,-7,,0"]
    for handler, value in (
        ("add", f"{one} 4"),
        ("add", f"{hid(1)} 4"),
        ("set", "AD:12 4"),
        ("set", f"{one}"),
        ("set", f"{one} left"),
        ("remove", str(ad(3))),
        ("load", str(tmp_path / "none")),
        ("generate", "HID 5 0"),
        ("generate", "AD 99999999999 0"),
        ("enabled", "maybe"),
    ):
        with pytest.raises(HandlerError):
            router.write(f"t.{handler}", value)
    router.write("t.set", f"{one} SELF")
    table = router.elements["t"]
    assert table.table[ad(1).key] == Entry(-2)  # type: ignore[attr-defined]
    router.write("t.remove", one)
    router.write("t.remove", "-")
    assert router.read("t.count") == "1"
    routes = tmp_path / "routes"
    routes.write_text(f"# comment\n{one} 1\n\n{ad(3)},2,,0  # why\n")
    router.write("t.load", str(routes))
    router.write("t.generate", "AD 100 1")
    assert router.read("t.count") == "103"
    routes.write_text(f"{one} 1\nnonsense\n")
    with pytest.raises(HandlerError, match=":2: "):
        router.write("t.load", str(routes))


def test_dump_and_replay(tmp_path: Path) -> None:
    path = tmp_path / "x.pcap"
    graph = Graph(f"in :: FromHost -> d :: ToDump({path}, SNAPLEN 40) -> c :: Catch;")
    for number in range(3):
        graph.send(bytes([number]) * (30 + 10 * number))
        graph.ctx.advance(0.25)
    graph.router.cleanup()
    assert graph.router.read("d.count") == "3"
    magic, major, minor, _, _, snaplen, link = struct.unpack_from("<IHHiIII", path.read_bytes())
    assert (magic, major, minor, snaplen, link) == (0xA1B23C4D, 2, 4, 40, 1)
    graph = Graph(f"f :: FromDump({path}) -> c :: Catch;")
    graph.ctx.advance(0)
    assert [len(data) for data in graph.got()] == [30, 40, 40]
    graph = Graph(f"f :: FromDump({path}, TIMING true) -> c :: Catch;")
    graph.ctx.advance(1)
    assert [round(moment, 4) for moment, _ in graph.times()] == [0.0, 0.25, 0.5]
    assert graph.router.read("f.active") == "False"
    path.write_bytes(path.read_bytes()[:-5])
    graph = Graph(f"f :: FromDump({path}) -> c :: Catch;")
    graph.ctx.advance(0)
    assert len(graph.got()) == 2
    assert graph.router.read("f.malformed") == "1"


@pytest.mark.parametrize("content", [b"", b"not a capture file at all..", b"\xd4\xc3\xb2\xa1" + bytes(20)])
def test_bad_dump_files(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.pcap"
    path.write_bytes(content)
    with pytest.raises(ClickFileError) as caught:
        Graph(f"FromDump({path}) -> Discard;")
    assert str(path) in caught.value.problems[0]


def test_missing_devices_are_all_named() -> None:
    router = Router.from_text("FromDevice(eth7) -> Queue -> ToDevice(eth8);", "x.click")
    with pytest.raises(ClickFileError) as caught:
        router.initialize(ManualContext())
    assert len(caught.value.problems) == 2


def test_script_writes_handlers() -> None:
    graph = Graph(
        "n :: Counter; Idle -> n -> p :: Paint(3) -> Discard; s :: Script(write p.color 5, write no.where 1);"
    )
    graph.ctx.advance(0)
    assert graph.router.read("p.color") == "5"
    assert graph.router.read("s.failed") == "1"
    assert graph.ctx.logged[0][0] == "error"


def test_global_and_standard_handlers() -> None:
    graph = Graph("n :: Null; Idle -> n -> Discard;")
    router = graph.router
    assert router.read("list").splitlines() == ["3", "n", "Idle@2", "Discard@3"]
    assert router.read("n.class") == "Null"
    assert router.read("n.ports") == "input 0 push\noutput 0 push\n"
    assert "count\tr" in router.read("Discard@3.handlers")
    assert "n :: Null;" in router.read("flatconfig")
    assert "n :: Null; Idle" in router.read("config")
    assert "Queue" in router.read("classes").split()
    assert router.has_handler("Discard@3.reset", write=True)
    for path in ("m.count", "n.nothing", "nothing"):
        with pytest.raises(HandlerError):
            router.read(path)
    with pytest.raises(HandlerError):
        router.write("list", "x")


def test_local_topology_example() -> None:
    path = Path(__file__).resolve().parents[2] / "click_configs" / "examples" / "xia_local_topology.click"
    router = Router.from_file(path)
    ctx = ManualContext()
    router.initialize(ctx)
    ctx.advance(1.0)
    assert router.read("ping.received") == "10"
    assert abs(float(router.read("ping.rtt")) - 30.0) < 0.1


def test_many_routes_are_generated_little_by_little() -> None:
    graph = Graph("in :: FromHost -> t :: XIAXIDRouteTable(AD) -> Discard; t[1] -> Discard; t[2] -> Discard;")
    router = graph.router
    router.write("t.generate", "AD 10000 1")
    router.write("t.generate", "AD 10 2")
    assert router.read("t.count") == "1024" and router.read("t.generating") == "8986"
    graph.ctx.advance(0.0)
    assert router.read("t.count") == "10010" and router.read("t.generating") == "0"
    assert graph.ctx.pending() == 0
    router.write("t.generate", "AD 10000 1")
    router.cleanup()
    assert graph.ctx.pending() == 0
