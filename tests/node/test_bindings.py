from __future__ import annotations

import pytest

from xiatb.identity.keys import KeyPair
from xiatb.node.bindings import Bindings
from xiatb.node.control_protocol import BIND_PURPOSE, EPHEMERAL_PREFIX, ControlError
from xiatb.wire.xid import SID_XROUTE, XID, XidType

KEY = KeyPair.from_seed(bytes(32))
HID = KeyPair.from_seed(b"\1" * 32).xid(XidType.HID)
SID = KEY.xid(XidType.SID)
PROOF = KEY.sign(BIND_PURPOSE + HID.key + SID.key)


def make() -> tuple[Bindings, list[tuple[bytes, bool]]]:
    changes: list[tuple[bytes, bool]] = []
    return Bindings(HID, lambda key, bound: changes.append((key, bound)), max_sids=3), changes


def code(bindings: Bindings, sid: XID, public: bytes, proof: bytes, owner: str = "a") -> str:
    with pytest.raises(ControlError) as caught:
        bindings.bind(sid, public, proof, owner)
    return caught.value.code


def test_bind_release() -> None:
    bindings, changes = make()
    bindings.bind(SID, KEY.public, PROOF, "a")
    assert code(bindings, SID, KEY.public, PROOF, "b") == "EADDRINUSE"
    assert code(bindings, SID, KEY.public, PROOF, "a") == "EADDRINUSE"
    bindings.release("b")
    assert bindings.sids() == [SID.key]
    bindings.release("a")
    bindings.release("a")
    assert changes == [(SID.key, True), (SID.key, False)]
    bindings.bind(SID, KEY.public, PROOF, "b")


def test_proof_is_needed() -> None:
    bindings, changes = make()
    other = KeyPair.from_seed(b"\2" * 32)
    elsewhere = KEY.sign(BIND_PURPOSE + bytes(24) + SID.key)
    for public, proof in ((b"", b""), (KEY.public, b""), (KEY.public, elsewhere), (other.public, PROOF)):
        assert code(bindings, SID, public, proof) == "EACCES"
    assert code(bindings, SID_XROUTE, b"", b"") == "EACCES"
    assert code(bindings, HID, KEY.public, PROOF) == "EADDRNOTAVAIL"
    assert code(bindings, SID, b"short", PROOF) == "EACCES"
    assert not changes


def test_ephemeral_and_limit() -> None:
    bindings, _ = make()
    for number in range(3):
        bindings.bind(XID(XidType.SID, EPHEMERAL_PREFIX + number.to_bytes(4, "big")), b"", b"", "a")
    assert code(bindings, XID(XidType.SID, EPHEMERAL_PREFIX + b"\xff" * 4), b"", b"") == "ENOSPC"
    with pytest.raises(ControlError):
        bindings.unbind(SID, "a")
    bindings.unbind(XID(XidType.SID, EPHEMERAL_PREFIX + bytes(4)), "a")
    assert len(bindings) == 2
