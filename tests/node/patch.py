"""A patch panel: `python -m tests.node.patch GUEST TAP TAP...` joins GUEST to one TAP at a time.

Each line on stdin is the number of the tap to join from now on. What a migration looks like to the
network: links stay up, a guest's frames are all at once at another tap.
"""

from __future__ import annotations

import os
import select
import sys

from tests.node.impair import ALL
from xiatb.node.packet_socket import PacketSocket


def main() -> None:
    guest, *taps = [PacketSocket(name, ALL) for name in sys.argv[1:]]
    active = 0
    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    while True:
        ready = select.select([0, guest, *taps], [], [])[0]
        if 0 in ready:
            line = os.read(0, 100)
            if not line:
                return
            active = int(line)
        if guest in ready:
            guest.drain(taps[active].send)
        for tap in taps:
            if tap in ready:
                tap.drain(guest.send if tap is taps[active] else lambda frame: None)


if __name__ == "__main__":
    main()
