import random

from xiatb.guests.agent.services import fastecho
from xiatb.guests.agent.services.fastecho import LIFETIME, FlowCache
from xiatb.identity.keys import KeyPair
from xiatb.transport.config import StreamConfig
from xiatb.transport.endpoint import Endpoint
from xiatb.wire import xdgram, xip
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

AD, AD2, HID = (
    XID(kind, bytes([n]) * 20) for kind, n in ((XidType.AD, 1), (XidType.AD, 2), (XidType.HID, 3))
)


def endpoint_at(ad):
    key = KeyPair.from_seed(b"e" * 32)
    local = DAG.service(ad, HID, key.xid(XidType.SID))
    return Endpoint(key, local.intent, local, StreamConfig(), random.Random(1))


def peer_dag(ad=AD, n=9):
    return DAG.service(ad, XID(XidType.HID, bytes([n]) * 20), XID(XidType.SID, bytes([n]) * 20))


def frame_of(to, source, payload, padding=b""):
    packet = xip.build(xip.NXT_XDGRAM, to, source, xdgram.HEADER + payload)
    return memoryview(bytes(14) + packet + padding)


def test_a_known_flow_gets_its_header_and_payload_back():
    endpoint = endpoint_at(AD)
    cache = FlowCache(endpoint)
    frame = frame_of(endpoint.local, peer_dag(), b"first---")
    assert cache.find(frame, 0.0) is None
    cache.learn(frame, 0.0)
    again = frame_of(endpoint.local, peer_dag(), b"second--", padding=b"PAD")
    header, start, end = cache.find(again, 0.1)
    packet = xip.parse(header + bytes(again[start:end]))
    assert (packet.dst(), packet.src(), packet.nxt) == (peer_dag(), endpoint.local, xip.NXT_XDGRAM)
    assert bytes(again[start:end]) == b"second--"
    assert header.endswith(xdgram.HEADER)


def test_a_request_that_was_sent_on_gets_the_same_answer():
    """After a migration requests come by the rewritten address, through one node more."""
    endpoint = endpoint_at(AD)
    cache = FlowCache(endpoint)
    cache.learn(frame_of(endpoint.local, peer_dag(), b"12345678"), 0.0)
    moved = DAG.chain(AD2, XID(XidType.HID, bytes([4]) * 20), HID, endpoint.local.intent)
    frame = frame_of(moved, peer_dag(), b"abcdefgh")
    header, start, end = cache.find(frame, 0.1)
    assert xip.parse(header + bytes(frame[start:end])).src() == endpoint.local
    assert bytes(frame[start:end]) == b"abcdefgh"
    for length in range(len(frame)):
        assert cache.find(frame[:length], 0.1) is None


def test_other_flows_sizes_and_later_times_are_unknown():
    endpoint = endpoint_at(AD)
    cache = FlowCache(endpoint)
    cache.learn(frame_of(endpoint.local, peer_dag(), b"12345678"), 0.0)
    assert cache.find(frame_of(endpoint.local, peer_dag(), b"123"), 0.0) is None
    assert cache.find(frame_of(endpoint.local, peer_dag(n=8), b"12345678"), 0.0) is None
    assert cache.find(frame_of(endpoint.local, peer_dag(), b"12345678"), LIFETIME + 0.01) is None


def test_a_move_of_this_end_empties_it():
    endpoint = endpoint_at(AD)
    cache = FlowCache(endpoint)
    frame = frame_of(endpoint.local, peer_dag(), b"12345678")
    cache.learn(frame, 0.0)
    endpoint.move(DAG.service(AD2, HID, endpoint.local.intent), 0.1)
    assert cache.find(frame, 0.1) is None
    cache.learn(frame, 0.1)
    answer = cache.find(frame, 0.1)
    assert answer is not None
    assert xip.parse(answer[0] + b"12345678").src() == endpoint.local


def test_anything_but_a_plain_datagram_empties_it():
    endpoint = endpoint_at(AD)
    cache = FlowCache(endpoint)
    frame = frame_of(endpoint.local, peer_dag(), b"12345678")
    cache.learn(frame, 0.0)
    other = xip.build(xip.NXT_MIGRATE, endpoint.local, peer_dag(), bytes(40))
    cache.learn(memoryview(bytes(14) + other), 0.0)
    assert cache.find(frame, 0.0) is None


def test_a_peer_that_has_moved_is_not_answered_at_its_old_address(monkeypatch):
    endpoint = endpoint_at(AD)
    cache = FlowCache(endpoint)
    frame = frame_of(endpoint.local, peer_dag(), b"12345678")
    monkeypatch.setattr(endpoint.datagram, "peer_dag", lambda sid: peer_dag(AD2))
    cache.learn(frame, 0.0)
    assert cache.find(frame, 0.0) is None


def test_hostile_frames_and_bounds():
    endpoint = endpoint_at(AD)
    cache = FlowCache(endpoint)
    rng = random.Random(5)
    for size in range(80):
        frame = memoryview(rng.randbytes(size))
        assert cache.find(frame, 0.0) is None
        cache.learn(frame, 0.0)
    for number in range(3 * fastecho.MAX_FLOWS):
        cache.learn(frame_of(endpoint.local, peer_dag(), bytes(number)), 0.0)
    assert len(cache._answers) <= fastecho.MAX_FLOWS
