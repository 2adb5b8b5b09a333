"""MIGRATE and MIGRATEACK: layout, both carriers, what the signature covers."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.wire.golden import FRAMES
from tests.wire.strategies import acks, dags, migrates
from xiatb.errors import WireError
from xiatb.identity import keys
from xiatb.wire import migrate, xip, xstream
from xiatb.wire.dag import DAG
from xiatb.wire.migrate import Migrate, MigrateAck
from xiatb.wire.xid import XID, XidType

MOVER, PEER = keys.KeyPair.from_seed(b"m" * 32), keys.KeyPair.from_seed(b"p" * 32)
MOVER_SID, PEER_SID = MOVER.xid(XidType.SID), PEER.xid(XidType.SID)
DAG1 = DAG.service(XID(XidType.AD, bytes(20)), XID(XidType.HID, bytes(20)), MOVER_SID)


@given(migrates)
def test_migrate_round_trips_in_both_carriers(message):
    body = message.pack()
    assert len(body) == 108 + 28 * len(message.dag)
    assert migrate.parse_migrate(body) == message
    assert migrate.parse_migrate_option(migrate.option_value(message)) == message
    header = migrate.pack_header(message, xip.NXT_XDGRAM)
    assert header[:4] == bytes((xip.NXT_XDGRAM, len(header) // 4, 0, 0))
    assert migrate.parse_header(xip.NXT_MIGRATE, b"xy" + header, 2, 2 + len(header)) == message


@given(acks)
def test_ack_round_trips_in_both_carriers(message):
    body = message.pack()
    assert len(body) == 108
    assert migrate.parse_ack(body) == message
    assert migrate.parse_ack_option(migrate.option_value(message)) == message
    header = migrate.pack_header(message, xip.NXT_DATA)
    assert migrate.parse_header(xip.NXT_MIGRATEACK, header, 0, len(header)) == message


def test_layout():
    message = Migrate(0x0102030405060708, DAG1, b"k" * 32, b"s" * 64, flags=9)
    assert message.pack() == (
        bytes((2, 9, 3, 0)) + bytes(range(1, 9)) + b"k" * 32 + b"s" * 64 + DAG1.to_wire()
    )
    ack = MigrateAck(0x0102030405060708, b"k" * 32, b"s" * 64, flags=9)
    assert ack.pack() == bytes((2, 9, 0, 0)) + bytes(range(1, 9)) + b"k" * 32 + b"s" * 64
    assert migrate.number_of(message) == 50
    assert migrate.number_of(ack) == 51


def test_largest_address_fits_an_option():
    dag = DAG.chain(*(XID(XidType.HID, bytes(19) + bytes((i,))) for i in range(20)))
    message = Migrate(1, dag, bytes(32))
    options = xstream.Options(timestamp=(1, 2), migrate=migrate.option_value(message))
    header = xstream.parse(xstream.pack(xstream.ACK, 1, 2, 3, options))
    assert migrate.parse_migrate_option(header.options.migrate) == message


def test_signatures_hold_after_the_trip_and_cover_everything():
    unsigned = Migrate(7, DAG1, MOVER.public)
    covered = unsigned.signed_bytes(MOVER_SID, PEER_SID)
    assert covered.startswith(b"xiatb-migrate\0" + MOVER_SID.key + PEER_SID.key)
    got = migrate.parse_migrate(unsigned.signed(MOVER.sign(covered)).pack())
    keys.check(MOVER_SID, got.public, got.signature, got.signed_bytes(MOVER_SID, PEER_SID))
    changed = [
        got._replace(seq=8).signed_bytes(MOVER_SID, PEER_SID),
        got._replace(flags=1).signed_bytes(MOVER_SID, PEER_SID),
        got._replace(public=PEER.public).signed_bytes(MOVER_SID, PEER_SID),
        got._replace(dag=DAG.host(DAG1.nodes[0], DAG1.nodes[1])).signed_bytes(MOVER_SID, PEER_SID),
        got.signed_bytes(PEER_SID, MOVER_SID),
    ]
    assert not any(keys.verify(MOVER.public, got.signature, data) for data in changed)
    ack = MigrateAck(7, PEER.public)
    signed = ack.signed(PEER.sign(ack.signed_bytes(PEER_SID, MOVER_SID)))
    back = migrate.parse_ack(signed.pack())
    keys.check(PEER_SID, back.public, back.signature, back.signed_bytes(PEER_SID, MOVER_SID))
    expected = b"xiatb-migrateack\0" + PEER_SID.key + MOVER_SID.key + (7).to_bytes(8, "big")
    assert back.signed_bytes(PEER_SID, MOVER_SID) == expected


@given(migrates, st.data())
def test_truncated_and_longer_bodies_are_refused(message, data):
    body = message.pack()
    with pytest.raises(WireError):
        migrate.parse_migrate(body[: data.draw(st.integers(0, len(body) - 1))])
    with pytest.raises(WireError):
        migrate.parse_migrate(body + b"\0")
    with pytest.raises(WireError):
        migrate.parse_ack(body)


@given(dags)
def test_a_marked_address_is_refused(dag):
    body = bytearray(Migrate(1, dag, bytes(32)).pack())
    body[108 + 24] |= 0x80
    with pytest.raises(WireError):
        migrate.parse_migrate(body)


def test_refusals():
    good = Migrate(1, DAG1, bytes(32)).pack()
    for at, value in ((0, 1), (2, 0), (2, 4), (2, 21), (3, 1)):
        bad = bytearray(good)
        bad[at] = value
        with pytest.raises(WireError):
            migrate.parse_migrate(bad)
    ack = MigrateAck(1, bytes(32)).pack()
    for at in (0, 2, 3):
        bad = bytearray(ack)
        bad[at] = 7
        with pytest.raises(WireError):
            migrate.parse_ack(bad)
    for broken in (
        lambda: Migrate(-1, DAG1, bytes(32)).pack(),
        lambda: Migrate(2**64, DAG1, bytes(32)).signed_bytes(MOVER_SID, PEER_SID),
        lambda: Migrate(1, DAG1, bytes(31)).pack(),
        lambda: Migrate(1, DAG1, bytes(32), bytes(63)).pack(),
        lambda: Migrate(1, DAG1, bytes(32), flags=256).pack(),
        lambda: MigrateAck(2**64, bytes(32)).pack(),
        lambda: MigrateAck(-1, bytes(32)).signed_bytes(PEER_SID, MOVER_SID),
        lambda: migrate.parse_header(3, migrate.pack_header(MigrateAck(1, bytes(32)), 0), 0, 112),
        lambda: migrate.parse_header(50, b"\0\0\0", 0, 3),
        lambda: migrate.parse_header(50, bytes(4), 0, 99),
        lambda: migrate.parse_header(50, b"\0\x01\x01\0", 0, 4),
    ):
        with pytest.raises(WireError):
            broken()


def test_the_rsa_form_of_xia_core_is_refused():
    header = xstream.parse(xip.parse(FRAMES["xstream_migrate"], 14).payload)
    with pytest.raises(WireError, match="RSA"):
        migrate.parse_migrate_option(header.options.migrate)
