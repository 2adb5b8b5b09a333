"""The handshake: who may talk, and that nothing forged, replayed or misdirected gets through."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.migration.samples import CAPABILITIES, JOB, KEYS, SIDS
from xiatb.errors import IdentityError, WireError
from xiatb.migration import frames, tokens
from xiatb.migration.handshake import Session
from xiatb.migration.messages import Channel, Commit

A, B, C = KEYS[:3]


def sessions() -> tuple[Session, Session]:
    one = Session(A, [SIDS[1]], initiator=True)
    one.start()
    return one, Session(B, [SIDS[0], SIDS[2]], initiator=False)


def join(one: Session, other: Session) -> None:
    for _ in range(4):
        other.feed(one.take_output())
        one.feed(other.take_output())


def test_both_sides_know_each_other_and_share_keys() -> None:
    one, other = sessions()
    join(one, other)
    assert one.established
    assert other.established
    assert (one.peer_sid, other.peer_sid) == (SIDS[1], SIDS[0])
    assert one.channel_key == other.channel_key != b""
    one.send(CAPABILITIES)
    other.send(Commit(job=JOB))
    assert other.feed(one.take_output()) == [CAPABILITIES]
    assert one.feed(other.take_output()) == [Commit(job=JOB)]


def test_keys_are_fresh_each_time() -> None:
    pairs = [sessions(), sessions()]
    for one, other in pairs:
        join(one, other)
    assert pairs[0][0].channel_key != pairs[1][0].channel_key


def test_a_stranger_is_refused_on_either_side() -> None:
    stranger = Session(C, [SIDS[1]], initiator=True)
    stranger.start()
    with pytest.raises(IdentityError, match="not a configured peer"):
        Session(B, [SIDS[0]], initiator=False).feed(stranger.take_output())
    one, _ = sessions()
    wrong = Session(C, [SIDS[0]], initiator=False)
    wrong.feed(one.take_output())
    with pytest.raises(IdentityError, match="not a configured peer"):
        one.feed(wrong.take_output())


def test_nobody_talks_to_themselves() -> None:
    mirror = Session(A, [SIDS[0]], initiator=True)
    mirror.start()
    with pytest.raises(IdentityError):
        Session(A, [SIDS[0]], initiator=False).feed(mirror.take_output())


@pytest.mark.parametrize("field", ["public", "nonce", "share", "sig", "sid"])
def test_a_reply_bent_in_the_middle_is_refused(field: str) -> None:
    one, other = sessions()
    other.feed(one.take_output())
    value = json.loads(other.take_output()[6:])
    value[field] = (
        str(SIDS[2]) if field == "sid" else f"{int(value[field][:2], 16) ^ 1:02x}{value[field][2:]}"
    )
    with pytest.raises((IdentityError, WireError)):
        one.feed(frames.pack_json(frames.CLEAR, value))
    assert not one.established


def test_a_replayed_hello_proves_nothing() -> None:
    one, other = sessions()
    hello = one.take_output()
    other.feed(hello)
    one.feed(other.take_output())
    proof = one.take_output()
    again = Session(B, [SIDS[0]], initiator=False)
    again.feed(hello)
    again.take_output()
    with pytest.raises(IdentityError):
        again.feed(proof)


def test_sealed_before_and_clear_after_the_handshake_are_refused() -> None:
    one, other = sessions()
    with pytest.raises(WireError, match="before the handshake"):
        Session(B, [SIDS[0]], initiator=False).feed(frames.Sealer(bytes(32)).seal(b"{}"))
    join(one, other)
    with pytest.raises(WireError, match="clear frame"):
        other.feed(frames.pack_json(frames.CLEAR, {"t": "hello"}))
    with pytest.raises(WireError):
        Session(A, [SIDS[1]], initiator=True).send(CAPABILITIES)


def test_a_message_cannot_be_reflected() -> None:
    one, other = sessions()
    join(one, other)
    one.send(CAPABILITIES)
    with pytest.raises(WireError, match="authentication"):
        one.feed(one.take_output())


@settings(max_examples=100, deadline=None)
@given(st.integers(0, 2), st.integers(0, 10_000), st.integers(1, 255))
def test_any_bent_byte_of_the_handshake_ends_it(step: int, at: int, mask: int) -> None:
    """However bytes are changed on the way, no side ends up established with keys that the other lacks."""
    one, other = sessions()
    try:
        for n in range(3):
            sender, receiver = (one, other) if n % 2 == 0 else (other, one)
            data = bytearray(sender.take_output())
            if n == step:
                data[at % len(data)] ^= mask
            receiver.feed(bytes(data))
    except (WireError, IdentityError):
        return
    assert not (one.established and other.established) or one.channel_key == other.channel_key


def test_tokens_open_one_channel_once() -> None:
    key = b"s" * 32
    book = tokens.TokenBook(JOB, key)
    rpc, ram = book.grant("rpc", 1)[0], book.grant("ram", 1)[0]

    def opened(job: str, channel: Channel, with_key: bytes) -> tokens.ChannelOpen:
        return tokens.parse_open(tokens.pack_open(job, channel, with_key)[6:])

    for bad in (
        opened("ffffffff", rpc, key),
        opened(JOB, rpc, b"x" * 32),
        opened(JOB, Channel(kind="rpc", index=0, token=ram.token), key),
        opened(JOB, Channel(kind="rpc", index=1, token=rpc.token), key),
        opened(JOB, Channel(kind="nbd", index=0, token=rpc.token), key),
    ):
        with pytest.raises(IdentityError):
            book.redeem(bad)
    book.redeem(opened(JOB, rpc, key))
    with pytest.raises(IdentityError):
        book.redeem(opened(JOB, rpc, key))
    book.revoke()
    with pytest.raises(IdentityError):
        book.redeem(opened(JOB, ram, key))


def test_channel_answers() -> None:
    assert tokens.parse_answer(tokens.pack_answer()[6:]) == ""
    assert tokens.parse_answer(tokens.pack_answer("no")[6:]) == "no"
    for body in (b"{}", b'{"t":"channel_reply"}', b'{"t":"channel_reply","ok":1}'):
        with pytest.raises(WireError):
            tokens.parse_answer(body)
    with pytest.raises(WireError):
        tokens.parse_open(b'{"t":"channel","job":"x"}')
