"""CPU cost of the transport per packet, no path and no sockets in between.

python -m tests.transport.cost
"""

from __future__ import annotations

import random
import sys
import time

from tests.transport.simpath import host_dag
from xiatb.identity.keys import KeyPair
from xiatb.transport.config import StreamConfig
from xiatb.transport.endpoint import Endpoint
from xiatb.transport.packets import lone_packets
from xiatb.wire.xid import XidType


def _endpoint(number: int, mtu: int) -> Endpoint:
    key = KeyPair.from_seed(bytes([number]) * 32)
    sid = key.xid(XidType.SID)
    return Endpoint(key, sid, host_dag(f"h{number}", sid), StreamConfig(mtu=mtu), random.Random(number))


def stream_cost(mtu: int, size: int, *, trains: bool) -> str:
    """Send `size` bytes from one endpoint to another; return a line of microseconds per data packet.

    `trains`: the receiver gets them as they were sent, as if the I/O had joined their packets again.
    """
    a, b = _endpoint(1, mtu), _endpoint(2, mtu)
    b.listen()
    now = 100.0
    stream = a.connect(b.local, now)
    peer = None
    block = bytes(256 * 1024)
    left, got = size, 0
    send = receive = acknowledge = 0.0
    packets = acks = 0
    clock = time.process_time
    while got < size:
        now += 0.0002
        if left:
            left -= stream.write(block[:left])
        start = clock()
        out = a.transmit(now, 256)
        send += clock() - start
        packets += sum(-(-len(one[1]) // one[2]) if len(one) == 3 else 1 for one in out)
        if not trains:
            wire = [header + bytes(payload) for header, payload in lone_packets(out)]
            start = clock()
            for packet in wire:
                b.receive(packet, now)
        else:
            joined = [(header, bytes(payload), rest[0] if rest else 0) for header, payload, *rest in out]
            start = clock()
            for header, payload, mss in joined:
                if mss:
                    b.receive_train(header, payload, -(-len(payload) // mss), now)
                else:
                    b.receive(header + payload, now)
        replies = b.transmit(now, 64)
        peer = peer or b.accept()
        if peer is not None:
            got += len(peer.read())
        receive += clock() - start
        acks += len(replies)
        wire = [header + bytes(payload) for header, payload in lone_packets(replies)]
        start = clock()
        for packet in wire:
            a.receive(packet, now)
        a.next_deadline()
        a.tick(now)
        b.tick(now)
        acknowledge += clock() - start
    how = "trains" if trains else "packets"
    return (
        f"stream, MTU {mtu:5d}, {how:7} in: send {send / packets * 1e6:5.2f}, "
        f"receive {receive / packets * 1e6:5.2f}, "
        f"ACKs in {acknowledge / packets * 1e6:5.2f} us a data packet ({packets} packets, {acks} ACKs)"
    )


def datagram_cost(count: int) -> str:
    """Send `count` datagrams of 64 bytes; return a line of microseconds each."""
    a, b = _endpoint(1, 1500), _endpoint(2, 1500)
    send = receive = 0.0
    clock = time.process_time
    for i in range(count):
        now = i * 0.001
        start = clock()
        a.send_datagram(b"x" * 64, b.local, now)
        header, payload = next(lone_packets(a.transmit(now)))
        send += clock() - start
        packet = header + bytes(payload)
        start = clock()
        b.receive(packet, now)
        b.receive_datagrams()
        receive += clock() - start
    return f"datagram: send {send / count * 1e6:.2f}, receive {receive / count * 1e6:.2f} us"


def main() -> None:
    """Print the table."""
    sizes = {1500: 40 << 20, 9000: 200 << 20, 65535: 600 << 20}
    lines = [stream_cost(mtu, size, trains=trains) for mtu, size in sizes.items() for trains in (False, True)]
    sys.stdout.write("\n".join([*lines, datagram_cost(20_000)]) + "\n")


if __name__ == "__main__":
    main()
