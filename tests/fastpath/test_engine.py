"""The loaded program on single frames: the edges of its rules, deep DAGs, full tables, bad objects."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.fastpath.oracle import BROADCAST, REDIRECT, SHOT, UNSPEC
from xiatb.fastpath import build, libbpf, probe
from xiatb.fastpath.engine import Fastpath
from xiatb.fastpath.errors import FastpathError, TableFullError
from xiatb.fastpath.libbpf import ObjectFile
from xiatb.fastpath.mirror import Mirror, PortInfo
from xiatb.fastpath.routes import Kind, Reason, Route
from xiatb.wire import xip
from xiatb.wire.dag import DAG
from xiatb.wire.walk import Entry
from xiatb.wire.xid import XID, XidType

pytestmark = pytest.mark.netns
ROOT = Path(__file__).parents[2]
IN, IN_SLOT, OUT_SLOT = 700, 7, 8
SOURCE = DAG.host(XID(XidType.AD, bytes(20)), XID(XidType.HID, bytes(20)))
HERE = Route(Kind.SELF)
AWAY = Route(Kind.FORWARD, 9, OUT_SLOT, b"target", b"source", 1500)


def ad(number: int) -> XID:
    return XID(XidType.AD, number.to_bytes(20, "big"))


def frame(dst: DAG | bytes, payload: int = 4, *, hlim: int = 250, padding: int = 0) -> bytes:
    packet = xip.build(0, dst, SOURCE, bytes(payload), hlim=hlim)
    return BROADCAST + bytes(6) + b"\xc0\xde" + packet + bytes(padding)


@pytest.fixture
def engine(fastpath: Fastpath) -> Fastpath:
    fastpath.set_port(IN, IN_SLOT)
    return fastpath


def reasons(engine: Fastpath) -> dict[Reason, int]:
    return {reason: count for reason, count in engine.counters(IN_SLOT).reasons.items() if count}


def test_twenty_nodes(engine: Fastpath) -> None:
    """The longest DAG there is, all of it visited here."""
    chain = DAG.chain(*map(ad, range(20)))
    for number in range(19):
        engine.set_route(ad(number).key, HERE)
    engine.set_route(ad(19).key, AWAY)
    run = engine.test_run(frame(chain), IN)
    assert run.verdict == REDIRECT and run.frame[:12] == b"targetsource"
    assert run.frame[14 + 7] == 18 and run.frame[14 + 4] == 249
    edges = [run.frame[22 + 28 * node + 24] for node in range(20)]
    assert edges == [0x80 | (node + 1) for node in range(18)] + [19, 0x80]
    engine.set_route(ad(19).key, HERE)
    assert engine.test_run(frame(chain), IN).verdict == UNSPEC
    assert reasons(engine) == {Reason.LOCAL: 1}


def test_edges_in_a_circle(engine: Fastpath) -> None:
    ring = b"".join(ad(n).key + bytes([(n + 1) % 19, 0x7F, 0x7F, 0x7F]) for n in range(20))
    for number in range(20):
        engine.set_route(ad(number).key, HERE)
    sent = frame(ring)
    run = engine.test_run(sent, IN)
    assert (run.verdict, run.frame) == (UNSPEC, sent), "passed on as it came"
    assert reasons(engine) == {Reason.NO_ROUTE: 1}


@pytest.mark.parametrize(("size", "verdict"), [(0, REDIRECT), (1, UNSPEC)])
def test_mtu_counts_the_packet_without_padding(engine: Fastpath, size: int, verdict: int) -> None:
    dst = DAG.chain(ad(1))
    engine.set_route(ad(1).key, AWAY._replace(mtu=300))
    sent = frame(dst, 300 - len(frame(dst, 0)) + 14 + size, padding=60)
    run = engine.test_run(sent, IN)
    assert run.verdict == verdict
    assert len(run.frame) == (314 if verdict == REDIRECT else len(sent)), "padding is cut off"
    if verdict == REDIRECT:
        assert engine.counters(OUT_SLOT)[2:4] == (1, 314)
        assert engine.counters(IN_SLOT)[:2] == (1, 374), "octets as they came"
    else:
        assert reasons(engine) == {Reason.TOO_BIG: 1}


@pytest.mark.parametrize("hlim", [0, 1, 2])
def test_hop_limit_counts_for_forwarding_only(engine: Fastpath, hlim: int) -> None:
    dst = DAG.chain(ad(1))
    engine.set_route(ad(1).key, AWAY)
    run = engine.test_run(frame(dst, hlim=hlim), IN)
    assert run.verdict == (REDIRECT if hlim == 2 else UNSPEC) and run.frame[18] == (1 if hlim == 2 else hlim)
    engine.set_route(ad(1).key, AWAY._replace(kind=Kind.SELF))
    run = engine.test_run(frame(dst, hlim=hlim), IN)
    assert run.verdict == REDIRECT and run.frame[18] == hlim


def test_an_end_host_does_not_forward(engine: Fastpath) -> None:
    engine.set_port(IN, IN_SLOT, transit=False)
    engine.set_route(ad(1).key, AWAY)
    assert engine.test_run(frame(DAG.chain(ad(1))), IN).verdict == UNSPEC
    engine.set_route(ad(1).key, AWAY._replace(kind=Kind.SELF))
    assert engine.test_run(frame(DAG.chain(ad(1))), IN).verdict == REDIRECT
    assert reasons(engine) == {Reason.TRANSIT: 1}


def test_defaults_come_and_go(engine: Fastpath) -> None:
    sent = frame(DAG.chain(ad(1)))
    assert engine.test_run(sent, IN).verdict == UNSPEC
    engine.set_default(XidType.AD, AWAY)
    assert engine.test_run(sent, IN).verdict == REDIRECT
    engine.set_route(ad(1).key, Route(Kind.DISCARD, slot=XidType.AD))
    assert engine.discards() == {XidType.AD: 0}
    assert engine.test_run(sent, IN).verdict == SHOT
    assert engine.discards() == {XidType.AD: 1}
    engine.delete_route(ad(1).key)
    engine.delete_route(ad(1).key)
    assert engine.test_run(sent, IN).verdict == REDIRECT
    engine.set_default(XidType.AD, None)
    assert engine.test_run(sent, IN).verdict == UNSPEC
    assert reasons(engine) == {Reason.NO_ROUTE: 2, Reason.DISCARDED: 1}
    with pytest.raises(FastpathError, match="0x100"):
        engine.set_default(0x100, AWAY)


def test_a_full_table_is_an_error_and_harms_nothing(object_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = Fastpath.load(object_path, max_routes=3)
    try:
        engine.set_port(IN, IN_SLOT)
        for number in range(3):
            engine.set_route(ad(number).key, AWAY)
        with pytest.raises(TableFullError) as caught:
            engine.set_route(ad(3).key, AWAY)
        assert caught.value.errno == errno.E2BIG and engine.refused == 1
        engine.set_route(ad(2).key, HERE)
        engine.delete_route(ad(2).key)
        engine.set_route(ad(3).key, AWAY)
        assert engine.test_run(frame(DAG.chain(ad(3))), IN).verdict == REDIRECT
        assert engine.test_run(frame(DAG.chain(ad(2))), IN).verdict == UNSPEC
    finally:
        engine.close()


def test_values_that_do_not_fit_are_refused(engine: Fastpath, object_path: Path) -> None:
    with pytest.raises(FastpathError, match="256"):
        engine.set_port(IN, 256)
    with pytest.raises(FastpathError, match="65537"):
        Fastpath.load(object_path, max_routes=65537)
    with pytest.raises(FastpathError):
        engine.test_run(b"short", IN)
    with pytest.raises(FastpathError, match="No such device") as caught:
        engine.attach(0x7FFFFFFF, 0)
    assert caught.value.errno == errno.ENODEV and not engine.attached
    engine.detach(0x7FFFFFFF)


def test_what_cannot_be_loaded_says_why(tmp_path: Path, object_path: Path) -> None:
    with pytest.raises(FastpathError, match="missing") as caught:
        Fastpath.load(tmp_path / "none.o")
    assert "scripts/setup" in caught.value.hint
    broken = tmp_path / "broken.o"
    broken.write_bytes(b"\x7fELF" + bytes(100))
    with pytest.raises(FastpathError, match="no eBPF object"):
        Fastpath.load(broken)
    with pytest.raises(FastpathError, match="no map nothing"):
        ObjectFile(object_path, (), {}).map("nothing")


def test_the_verifier_is_quoted(tmp_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root")
    source = tmp_path / "careless.bpf.c"
    check = "p + size <= (__u8 *)(long)skb->data_end"
    text = build.SOURCE_PATH.read_text(encoding="utf-8")
    assert check in text
    source.write_text(text.replace(check, "1"), encoding="utf-8")
    target = tmp_path / "careless.o"
    build.compile_object(target, source)
    with pytest.raises(FastpathError, match="verifier on xip_forward: .*invalid access to packet") as caught:
        Fastpath.load(target)
    assert caught.value.errno == errno.EACCES
    able, reason = probe.available(target)
    assert not able and "invalid access to packet" in reason


def test_without_privilege_the_kernels_words_are_told(object_path: Path) -> None:
    if os.geteuid() != 0:
        pytest.skip("needs root, to give it up")
    program = (
        "import sys; from pathlib import Path; from xiatb.fastpath import probe\n"
        "print(*probe.available(Path(sys.argv[1])))"
    )
    capabilities = ["--bounding-set=-sys_admin,-bpf,-perfmon", "--inh-caps=-all"]
    done = subprocess.run(
        ["setpriv", *capabilities, sys.executable, "-c", program, str(object_path)],
        capture_output=True, text=True, check=False, cwd=ROOT,
    )  # fmt: skip
    assert done.stdout.startswith("False ") and "not permitted" in done.stdout, done.stderr


def test_without_libbpf_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch, object_path: Path) -> None:
    real = libbpf.ctypes.CDLL

    def missing(name: str | None, **options: bool) -> object:
        if name == "libbpf.so.1":
            raise OSError(f"{name}: cannot open shared object file")
        return real(name, **options)

    libbpf._library.cache_clear()
    monkeypatch.setattr(libbpf.ctypes, "CDLL", missing)
    try:
        with pytest.raises(FastpathError, match="no libbpf: libbpf.so.1: cannot open") as caught:
            Fastpath.load(object_path)
        assert "libbpf1" in caught.value.hint
        able, reason = probe.available(object_path)
        assert not able and "no libbpf" in reason
    finally:
        libbpf._library.cache_clear()


def test_what_does_not_fit_the_map_goes_the_slow_way_and_not_a_wrong_one(object_path: Path) -> None:
    """The default of a type is no way for those of its routes that the map has no room for."""
    if os.geteuid() != 0:
        pytest.skip("needs root")
    engine = Fastpath.load(object_path, max_routes=3)
    try:
        engine.set_port(IN, IN_SLOT)
        mirror = Mirror(engine)
        for port in (1, 2):
            mirror.set_port(port, PortInfo(800 + port, b"\2" * 6, 1500))
            mirror.set_neighbour(port, ad(100 + port).key, b"\4" * 6)
        mirror.set_default(XidType.AD, Entry(1, ad(101).key))
        for number in range(5):
            mirror.set(ad(number).key, Entry(2, ad(102).key))
        assert mirror.overflow == 2 and engine.refused == 2

        def verdicts() -> list[int]:
            return [engine.test_run(frame(DAG.chain(ad(number))), IN).verdict for number in range(6)]

        assert verdicts() == [REDIRECT] * 3 + [UNSPEC] * 3, "those without a route of their own wait, too"
        assert reasons(engine) == {Reason.EXCEPTED: 3}
        assert engine.counters(2).tx_packets == 3 and engine.counters(1).tx_packets == 0
        for number in (0, 1):
            mirror.remove(ad(number).key)
        assert mirror.overflow == 0
        assert verdicts() == [REDIRECT] * 6
        assert (engine.counters(2).tx_packets, engine.counters(1).tx_packets) == (6, 3)
    finally:
        engine.close()


def test_the_probe(object_path: Path, tmp_path: Path) -> None:
    if os.geteuid() == 0:
        assert probe.available(object_path) == (True, "")
    able, reason = probe.available(tmp_path / "none.o")
    assert not able and "missing" in reason
