"""Hostile bytes and text: a parser gives a result or raises WireError, nothing else."""

from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.wire.golden import FRAMES, corpus
from xiatb.errors import WireError
from xiatb.wire import extension, migrate, xarp, xcmp, xdgram, xip, xstream
from xiatb.wire.dag import DAG
from xiatb.wire.walk import SELF, Entry, walk
from xiatb.wire.xid import XID


def whole_packet(data: bytes) -> None:
    """Do with a packet what a node and a socket do, all the way in."""
    header = xip.parse(data)
    for read in (header.dst, header.src):
        attempt(lambda _, read=read: read(), b"")
    payload = header.payload
    if header.nxt == xip.NXT_XCMP:
        message = xcmp.parse(payload)
        if message.is_error:
            message.original().dst()
        return
    found, at = extension.chain(header.nxt, data, header.payload_off, header.end)
    assert header.payload_off <= at <= header.end
    for one in found:
        if one.kind == xip.NXT_XSTREAM:
            options = xstream.parse(data, one.start, one.end).options
            attempt(migrate.parse_migrate_option, options.migrate or b"")
            attempt(migrate.parse_ack_option, options.migrate_ack or b"")
        elif one.kind == xip.NXT_FID:
            attempt(lambda _, one=one: extension.parse_fid(data, one.start), b"")
        else:
            attempt(lambda _, one=one: migrate.parse_header(one.kind, data, one.start, one.end), b"")


def walked(data: bytes) -> None:
    """Walk a packet whose every node is here, which visits the most."""
    xip.parse_fast(data)
    keys = [data[at : at + 24] for at in range(8, len(data) - 24, 28)]
    walk(bytearray(data), 0, dict.fromkeys(keys, Entry(SELF)), {0x10: Entry(SELF)})


PARSERS: dict[str, Callable[[bytes], object]] = {
    "packet": whole_packet,
    "walk": walked,
    "xip": xip.parse,
    "xip_partial": lambda data: xip.parse_partial(data).payload,
    "dag": DAG.from_wire,
    "xid": XID.from_key,
    "xcmp": lambda data: xcmp.parse(data).original(),
    "xcmp_code": lambda data: xcmp.unreachable_code(data, 0) if whole_packet(data) is None else None,
    "xcmp_quote": xcmp.time_exceeded,
    "xarp": xarp.parse,
    "xdgram": xdgram.parse,
    "fid": extension.parse_fid,
    "xstream": xstream.parse,
    "options": xstream.parse_options,
    "migrate": migrate.parse_migrate,
    "migrate_option": migrate.parse_migrate_option,
    "ack": migrate.parse_ack,
    "ack_option": migrate.parse_ack_option,
    "migrate_header": lambda data: migrate.parse_header(xip.NXT_MIGRATE, data, 0, len(data)),
    "text": lambda data: DAG.parse(data.decode("latin-1")),
    "xid_text": lambda data: XID.parse(data.decode("latin-1")),
}


def attempt(parser: Callable[[bytes], object], data: bytes) -> None:
    """Run a parser; anything but a result or WireError fails the test."""
    try:
        parser(data)
    except WireError as error:
        assert str(error)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60)
@given(data=st.binary(max_size=400))
def test_noise(name, data):
    attempt(PARSERS[name], data)
    attempt(PARSERS[name], bytearray(data))


@st.composite
def damaged_frames(draw):
    """Return a golden packet (from its network header on) with some bytes changed, cut or added."""
    frame = bytearray(FRAMES[draw(st.sampled_from(sorted(FRAMES)))][14:])
    for _ in range(draw(st.integers(1, 6))):
        at = draw(st.integers(0, min(len(frame) - 1, 300)))
        frame[at] = draw(st.one_of(st.sampled_from([0, 1, 0x7E, 0x7F, 0x80, 0xFF]), st.integers(0, 255)))
    return bytes(frame[: draw(st.integers(1, len(frame)))] if draw(st.booleans()) else frame)


@pytest.mark.parametrize("name", PARSERS)
@settings(max_examples=60)
@given(data=damaged_frames())
def test_damaged_golden_frames(name, data):
    attempt(PARSERS[name], data)


WORDS = [
    "DAG",
    "RE",
    "http://",
    "0",
    "1",
    "-",
    "(",
    ")",
    "\n",
    ".",
    "$",
    ":",
    "AD",
    "SID:",
    "IP:1.2.3.4",
    "0x50:",
]
WORDS += ["AD:" + "1" * 40, "HID:" + "2" * 40, "AD$" + "1" * 40, "127", "99999999999", "é", "\0"]


@given(st.lists(st.sampled_from(WORDS), max_size=12), st.sampled_from(["", " ", "."]))
def test_text_noise(words, between):
    attempt(lambda _: DAG.parse(between.join(words)), b"")


@pytest.mark.parametrize("entry", corpus())
@pytest.mark.parametrize("name", PARSERS)
def test_corpus(name, entry):
    attempt(PARSERS[name], corpus()[entry])


def test_the_corpus_is_there_and_every_packet_of_it_is_refused_somewhere():
    assert len(corpus()) >= 10
    for name, data in corpus().items():
        with pytest.raises(WireError):
            strict(name, data)


def strict(name: str, data: bytes) -> None:
    """Parse everything that is in a corpus packet and let the first complaint out."""
    if name.startswith("xarp"):
        xarp.parse(data)
        return
    header = xip.parse(data)
    header.dst()
    header.src()
    if header.nxt == xip.NXT_XCMP:
        xcmp.parse(header.payload).original().dst()
    for one in extension.chain(header.nxt, data, header.payload_off, header.end)[0]:
        if one.kind == xip.NXT_XSTREAM:
            options = xstream.parse(data, one.start, one.end).options
            migrate.parse_migrate_option(options.migrate or b"")
        if one.kind in (xip.NXT_MIGRATE, xip.NXT_MIGRATEACK):
            migrate.parse_header(one.kind, data, one.start, one.end)
