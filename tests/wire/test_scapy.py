"""The Scapy layers against the golden frames and against the plain codec."""

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scapy.layers.l2 import Ether
from scapy.packet import Raw

from tests.wire.golden import FRAMES, XIP_FRAMES
from tests.wire.strategies import acks, dags, keys, macs, migrates, small_dags, stream_headers, u8, u16, u32
from xiatb.errors import WireError
from xiatb.wire import extension, migrate, xarp, xcmp, xdgram, xip, xstream
from xiatb.wire import scapy_layers as layers
from xiatb.wire.dag import DAG, ENTRY
from xiatb.wire.scapy_layers import FID, MIGRATE, MIGRATEACK, XARP, XCMP, XDGRAM, XIP, XSTREAM

AUTOMATIC = ("plen", "dnode", "snode", "chksum", "off", "ndag")
ETHER = b"\x02\0\0\0\0\1\x02\0\0\0\0\2"


def rebuilt(packet) -> bytes:
    """Return the packet made anew from its fields, with every computed field left to Scapy."""
    layer = packet
    while layer and not isinstance(layer, Raw):
        layer.raw_packet_cache = None
        if not isinstance(layer, layers.XIPerror):
            for name in AUTOMATIC:
                if name in layer.fields:
                    layer.fields[name] = None
        for options in [layer.fields.get("options", [])] if isinstance(layer, XSTREAM) else []:
            for option in options:
                option.raw_packet_cache = None
                if "words" in option.fields:
                    option.fields["words"] = None
        layer = layer.payload
    return bytes(packet)


@pytest.mark.parametrize("name", FRAMES)
def test_golden_frames_are_rebuilt_to_the_byte(name):
    assert bytes(Ether(FRAMES[name])) == FRAMES[name]
    assert rebuilt(Ether(FRAMES[name])) == FRAMES[name]


LAYERS = {
    "xarp_request": [XARP],
    "xroute_hello_fid": [XIP, FID, XDGRAM],
    "xcmp_echo_request_2ad": [XIP, XCMP],
    "xcmp_unreach_host": [XIP, XCMP, layers.XIPerror],
    "ns_query": [XIP, XDGRAM],
    "xdgram_100B": [XIP, XDGRAM],
    "xstream_syn": [XIP, XSTREAM],
    "xstream_migrate": [XIP, XSTREAM],
}


@pytest.mark.parametrize("name", LAYERS)
def test_golden_frames_have_the_layers(name):
    found = [layer for layer in Ether(FRAMES[name]).layers() if layer not in (Ether, Raw)]
    assert found == LAYERS[name]


@pytest.mark.parametrize("name", XIP_FRAMES)
def test_golden_addresses_are_those_of_the_codec(name):
    packet, header = Ether(FRAMES[name])[XIP], xip.parse(FRAMES[name], 14)
    assert layers.dag_of_nodes(packet.src) == header.src()
    assert layers.dag_of_nodes(packet.dst) == header.dst()
    assert (packet.nxt, packet.plen, packet.hlim, packet.last) == (
        header.nxt,
        header.plen,
        header.hlim,
        header.last,
    )
    assert str(header.src()) in packet.mysummary()


@given(dags, dags, u8, st.binary(max_size=40), st.binary(max_size=30), st.data())
def test_xip(dst, src, hlim, payload, padding, data):
    last = data.draw(st.sampled_from([ENTRY, *range(len(dst))]))
    ours = xip.build(xip.NXT_DATA, dst, src, payload, hlim=hlim, last=last)
    theirs = XIP(hlim=hlim, last=last, dst=layers.nodes_of(dst), src=layers.nodes_of(src)) / Raw(payload)
    assert bytes(theirs) == ours
    frame = Ether(ETHER + xip.ETH_P_XIP.to_bytes(2, "big") + ours + padding)
    assert layers.dag_of_nodes(frame[XIP].dst) == dst
    assert (frame[Raw].load if Raw in frame else b"") == payload
    assert rebuilt(frame)[: 14 + len(ours)] == ETHER + b"\xc0\xde" + ours


def carried(payload: bytes, nxt: int) -> XIP:
    """Return the Scapy view of an XIP packet with this payload."""
    dag = DAG.parse("RE AD:" + "1" * 40)
    return XIP(xip.build(nxt, dag, dag, payload))


@given(u16, u16, st.binary(max_size=50), small_dags, small_dags, u32)
def test_xcmp(ident, seq, data, dst, src, mtu):
    packet = xip.build(xip.NXT_XDGRAM, dst, src, xdgram.pack(data))
    quoted = xcmp.quote(packet)
    for ours, theirs in (
        (xcmp.echo(True, ident, seq, data), XCMP(type=8, ident=ident, seq=seq) / Raw(data)),
        (xcmp.echo(False, ident, seq, data), XCMP(type=0, ident=ident, seq=seq) / Raw(data)),
        (xcmp.unreachable(1, packet), XCMP(type=3, code=1) / layers.XIPerror(quoted)),
        (xcmp.time_exceeded(packet), XCMP(type=11) / layers.XIPerror(quoted)),
        (xcmp.too_big(mtu, packet), XCMP(type=3, code=4, mtu=mtu) / layers.XIPerror(quoted)),
    ):
        assert bytes(theirs) == ours
        seen = carried(ours, xip.NXT_XCMP)
        message = xcmp.parse(ours)
        assert seen[XCMP].type == message.type
        assert bytes(seen[XCMP]) == rebuilt(seen[XCMP]) == ours
        if message.is_error:
            assert layers.dag_of_nodes(seen[layers.XIPerror].dst) == dst


@given(st.sampled_from([1, 2]), macs, keys, macs, keys)
def test_xarp(op, sha, spa, tha, tpa):
    ours = xarp.pack(xarp.Xarp(op, sha, spa, tha, tpa))
    text = [":".join(f"{byte:02x}" for byte in mac) for mac in (sha, tha)]
    assert bytes(XARP(op=op, sha=text[0], spa=spa, tha=text[1], tpa=tpa)) == ours
    seen = Ether(ETHER + b"\x99\x90" + ours)[XARP]
    assert (seen.op, seen.sha, seen.spa, seen.tha, seen.tpa) == (op, text[0], spa, text[1], tpa)


@given(u32, u32, st.binary(max_size=40))
def test_fid_and_xdgram(seq, timestamp, data):
    ours = extension.pack_fid(xip.NXT_XDGRAM, seq, timestamp) + xdgram.pack(data)
    assert bytes(FID(seq=seq, timestamp=timestamp) / XDGRAM() / Raw(data)) == ours
    seen = carried(ours, xip.NXT_FID)
    assert (seen[FID].seq, seen[FID].timestamp) == (seq, timestamp)
    assert bytes(seen[XDGRAM].payload) == data


def options_of(header: xstream.Header) -> list[layers.XOption]:
    """Return the Scapy options that say the same as the codec's."""
    options = header.options
    made: list[layers.XOption] = []
    if options.mss is not None:
        made.append(layers.XOptionMSS(mss=options.mss))
    if options.wscale is not None:
        made.append(layers.XOptionWScale(shift=options.wscale))
    if options.sack_permitted:
        made.append(layers.XOptionSackPermitted())
    if options.timestamp is not None:
        made.append(layers.XOptionTimestamp(value=options.timestamp[0], echo=options.timestamp[1]))
    if options.sack:
        made.append(layers.XOptionSack(edges=[edge for block in options.sack for edge in block]))
    if options.migrate is not None:
        move = migrate.parse_migrate_option(options.migrate)
        made.append(layers.XOptionMigrate(**signed_part(move), dag=layers.nodes_of(move.dag)))
    if options.migrate_ack is not None:
        made.append(layers.XOptionMigrateAck(**signed_part(migrate.parse_ack_option(options.migrate_ack))))
    return made + [layers.XOption(kind=kind, value=value) for kind, value in options.other]


def signed_part(message: migrate.Migrate | migrate.MigrateAck) -> dict[str, object]:
    return {
        "flags": message.flags,
        "seq": message.seq,
        "key": message.public,
        "signature": message.signature,
    }


@given(stream_headers(), st.binary(max_size=40))
def test_xstream(header, data):
    ours = header.pack()
    theirs = XSTREAM(
        flags=header.flags, seq=header.seq, ack=header.ack, win=header.win, options=options_of(header)
    )
    assert bytes(theirs) == ours
    seen = carried(ours + data, xip.NXT_XSTREAM)
    assert [type(one) for one in seen[XSTREAM].options] == [type(one) for one in options_of(header)]
    assert bytes(seen[XSTREAM].payload) == data
    assert (seen[XSTREAM].seq, seen[XSTREAM].win) == (header.seq, header.win)
    assert rebuilt(seen[XSTREAM]) == ours + data


@given(migrates, acks, st.binary(max_size=20))
def test_moves_in_front_of_a_datagram(move, ack, data):
    ours = (
        migrate.pack_header(move, xip.NXT_MIGRATEACK)
        + migrate.pack_header(ack, xip.NXT_XDGRAM)
        + xdgram.pack(data)
    )
    theirs = MIGRATE(**signed_part(move), dag=layers.nodes_of(move.dag)) / MIGRATEACK(**signed_part(ack))
    assert bytes(theirs / XDGRAM() / Raw(data)) == ours
    seen = carried(ours, xip.NXT_MIGRATE)
    assert layers.dag_of_nodes(seen[MIGRATE].dag) == move.dag
    assert (seen[MIGRATE].seq, seen[MIGRATEACK].seq) == (move.seq, ack.seq)
    assert bytes(seen[XDGRAM].payload) == data


@given(st.binary(max_size=300))
def test_noise_is_dissected_and_written_back(noise):
    frame = ETHER + b"\xc0\xde" + noise
    assert bytes(Ether(frame)) == frame


def test_nodes_from_text_and_wire():
    dag = DAG.parse("RE ( AD:" + "1" * 40 + " HID:" + "2" * 40 + " ) SID:" + "3" * 40)
    for address in (dag, str(dag), dag.to_wire()):
        assert layers.dag_of_nodes(layers.nodes_of(address)) == dag
    with pytest.raises(WireError):
        layers.nodes_of("nonsense")
    assert "not 0" in XIP().mysummary()


def test_the_plain_codec_does_not_load_scapy():
    names = ["dag", "dagops", "dagtext", "xcmp", "xarp", "extension", "xdgram", "xstream", "migrate", "walk"]
    code = ";".join(f"import xiatb.wire.{name}" for name in names)
    code += ";import xiatb.identity.keys, sys; sys.exit('scapy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
