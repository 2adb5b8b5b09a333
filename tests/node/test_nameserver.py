"""The name server: ownership, signatures, sequence numbers, ageing, bounds, hostile bytes."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.node.netsim import key
from tests.wire.golden import FRAMES
from xiatb.errors import WireError
from xiatb.identity.keys import KeyPair, verify
from xiatb.node.nameserver import HOLD, NameServer
from xiatb.node.services import registration
from xiatb.wire import extension, xip
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import served
from xiatb.wire.nameservice import MAX_MESSAGE, Kind, NameMessage, parse
from xiatb.wire.xid import SID_NS, XID, XidType

SERVER = key("server")
NONCE = b"12345678"


def place(ad: str, host: str) -> DAG:
    return DAG.host(key(ad).xid(XidType.AD), key(host).xid(XidType.HID))


def server(statics: dict[str, DAG] | None = None, limit: int = 100) -> NameServer:
    return NameServer(SERVER, lambda: statics or {}, limit=limit)


def told(serving: NameServer, payload: bytes, now: float = 0.0) -> NameMessage:
    """The answer, whose signature must hold when there is one."""
    reply = serving.receive(payload, now)
    assert reply is not None
    answer = parse(reply)
    if answer.nonce:
        assert answer.public == SERVER.public
        assert verify(answer.public, answer.signature, answer.signed_bytes())
    return answer


def ask(serving: NameServer, name: str, now: float = 0.0) -> DAG | None:
    answer = told(serving, NameMessage(Kind.QUERY, (name,), NONCE).pack(), now)
    assert answer.nonce == NONCE
    return None if answer.kind is Kind.ERROR else answer.dag()


def test_register_and_ask() -> None:
    serving = server()
    record = registration("H1.lab.xia", place("ad1", "h1"), key("h1"), 5, ttl=60)
    assert told(serving, record).kind is Kind.RESP_REGISTER
    assert ask(serving, "h1.LAB.xia") == place("ad1", "h1")
    reverse = NameMessage(Kind.RQUERY, (place("ad9", "h1").dag_string(),), NONCE).pack()
    assert told(serving, reverse).strings == ("h1.lab.xia",)
    assert ask(serving, "h2.lab.xia") is None
    assert serving.listing(0.0)[0]["ttl"] == 60


def test_xia_core_questions_get_xia_core_answers() -> None:
    serving = server()
    told(serving, registration("a.xia", place("ad1", "h1"), key("h1"), 1))
    text = place("ad1", "h1").dag_string().encode()
    assert serving.receive(b"\x02\x00a.xia\0", 0.0) == b"\x05\x00" + text + b"\0"
    assert serving.receive(b"\x02\x00b.xia\0", 0.0)[:2] == b"\x07\x00"  # type: ignore[index]


def test_the_question_that_xia_core_asked() -> None:
    header = xip.parse(FRAMES["ns_query"], 14)
    kinds, start = extension.chain(header.nxt, header.buf, header.payload_off, header.end)
    assert [kind.kind for kind in kinds] == [xip.NXT_XDGRAM] and header.intent_key == SID_NS.key
    asked = parse(bytes(header.buf[start : header.end]))
    assert asked.kind is Kind.QUERY and not asked.nonce and asked.strings[0].endswith(".xia")
    assert asked._replace(raw=b"").pack() == asked.raw


def test_moves_need_a_higher_sequence() -> None:
    serving = server()
    first = registration("h1.xia", place("ad1", "h1"), key("h1"), 5)
    second = registration("h1.xia", place("ad2", "h1"), key("h1"), 6)
    for record in (first, second, second):
        assert told(serving, record).kind is Kind.RESP_REGISTER
    assert told(serving, first).strings[0].startswith("ESTALE") and told(serving, first).seq == 6
    assert ask(serving, "h1.xia") == place("ad2", "h1")
    assert serving.stats["repeated"] == 1 and serving.stats["stale"] == 2


def test_first_key_holds_a_name_until_it_has_long_run_out() -> None:
    serving = server()
    told(serving, registration("x.xia", place("ad1", "h1"), key("h1"), 1, ttl=60))
    other = registration("x.xia", place("ad1", "h2"), key("h2"), 99)
    assert told(serving, other).strings[0].startswith("EACCES")
    assert ask(serving, "x.xia", 61) is None
    assert told(serving, other, 61).strings[0].startswith("EACCES")
    assert told(serving, other, 60 + HOLD).kind is Kind.RESP_REGISTER
    assert ask(serving, "x.xia", 60 + HOLD) == place("ad1", "h2")


def test_hosts_file_gives_the_owner() -> None:
    serving = server({"h1.xia": place("ad1", "h1")})
    taken = registration("h1.xia", place("ad1", "h2"), key("h2"), 1)
    assert told(serving, taken).strings[0].startswith("EACCES")
    assert ask(serving, "h1.xia") == place("ad1", "h1")
    assert told(serving, registration("h1.xia", place("ad2", "h1"), key("h1"), 1)).kind is Kind.RESP_REGISTER
    assert ask(serving, "h1.xia") == place("ad2", "h1")


def test_static_service_is_found_where_its_host_is() -> None:
    sid = key("svc").xid(XidType.SID)
    serving = server({"svc.h1.xia": served(place("ad1", "h1"), sid)})
    told(serving, registration("h1.xia", place("ad2", "h1"), key("h1"), 1, ttl=60))
    assert ask(serving, "svc.h1.xia") == served(place("ad2", "h1"), sid)
    assert ask(serving, "svc.h1.xia", 61) == served(place("ad1", "h1"), sid)


@pytest.mark.parametrize("part", ["key", "signature", "intent", "name", "ttl"])
def test_forged_registrations_are_refused(part: str) -> None:
    serving = server()
    record = parse(registration("x.xia", place("ad1", "h1"), key("h1"), 1))
    forged = {
        "key": record._replace(public=key("h2").public),
        "signature": record._replace(signature=bytes(64)),
        "intent": record._replace(strings=("x.xia", place("ad1", "h2").dag_string())),
        "name": record._replace(strings=("y.xia", record.strings[1])),
        "ttl": record._replace(ttl=4000),
    }[part]
    assert told(serving, forged._replace(raw=b"").pack()).strings[0].startswith("EACCES")
    assert serving.stats["forged"] == 1 and serving.listing(0.0) == []


def test_unsigned_and_misshapen_registrations_are_refused() -> None:
    serving = server()
    text = place("ad1", "h1").dag_string()
    for message in (
        NameMessage(Kind.REGISTER, ("x.xia", text)),
        parse(registration("x.xia", place("ad1", "h1"), key("h1"), 1, ttl=5)),
        parse(registration("x y", place("ad1", "h1"), key("h1"), 1)),
        NameMessage(Kind.REGISTER, ("x.xia", "nonsense"), NONCE),
    ):
        assert told(serving, message._replace(raw=b"").pack()).strings[0].startswith("EINVAL")
    cid = XID(XidType.CID, bytes(20))
    of_content = registration("x.xia", DAG.chain(cid), key("h1"), 1)
    assert told(serving, of_content).kind is Kind.ERROR
    assert serving.listing(0.0) == []


def test_names_are_bounded() -> None:
    serving = server(limit=2)
    for number, at in enumerate((0.0, 5.0)):
        host = f"h{number}"
        told(serving, registration(f"{host}.xia", place("ad1", host), key(host), 1, ttl=10), at)
    more = registration("h9.xia", place("ad1", "h9"), key("h9"), 1)
    assert told(serving, more, 6).strings[0].startswith("ENOSPC")
    assert told(serving, more, 11).kind is Kind.RESP_REGISTER
    assert [row["name"] for row in serving.listing(11)] == ["h1.xia", "h9.xia"]


def test_too_long_a_message() -> None:
    with pytest.raises(WireError):
        NameMessage(Kind.RESP_QUERY, ("x" * MAX_MESSAGE,)).pack()
    assert server().receive(b"\x02\x00" + b"x" * 300 + b"\0", 0.0) is None


GOOD = registration("x.xia", place("ad1", "h1"), KeyPair.from_seed(bytes(32)), 1)


@given(st.binary(max_size=1100))
def test_any_bytes(payload: bytes) -> None:
    serving = server()
    reply = serving.receive(payload, 0.0)
    assert reply is None or len(reply) <= MAX_MESSAGE
    assert serving.listing(0.0) == []


@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_any_changed_byte(at: int, change: int) -> None:
    serving = server()
    changed = bytearray(GOOD)
    changed[at] ^= change
    serving.receive(bytes(changed), 0.0)
    assert serving.listing(0.0) == []
