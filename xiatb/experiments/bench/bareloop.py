"""The floor of forwarding in Python: `python -m xiatb.experiments.bench.bareloop IN OUT`.

Receives XIP frames on one interface and sends them out of another as they are, on the core that the
generator does not use, until it is told to end.
"""

from __future__ import annotations

import os
import socket
import sys

_ETH_P_XIP = 0xC0DE


def main() -> None:
    """Says "ready" and forwards for ever."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    left, right = (socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0) for _ in range(2))
    left.bind((sys.argv[1], _ETH_P_XIP))
    right.bind((sys.argv[2], 0))
    sys.stdout.write("ready\n")
    sys.stdout.flush()
    buffer = bytearray(2048)
    view = memoryview(buffer)
    while True:
        right.send(view[: left.recv_into(buffer)])


if __name__ == "__main__":
    main()
