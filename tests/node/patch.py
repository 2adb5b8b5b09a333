"""A patch panel: `python -m tests.node.patch GUEST TAP TAP...` joins GUEST to one TAP at a time.

Each line on stdin is the number of the tap to join from now on. What a migration looks like to the
network: links stay up, a guest's frames are all at once at another tap. "hold N": the guest is stopped and
will run at tap N, where frames wait for it. "deaf N": joined to tap N, but no join message gets to the guest.
"""

from __future__ import annotations

import os
import select
import sys

from tests.node.impair import ALL
from xiatb.node.packet_socket import PacketSocket


def main() -> None:
    guest, *taps = [PacketSocket(name, ALL) for name in sys.argv[1:]]
    active, held, deaf = 0, False, False

    def to_guest(frame: memoryview) -> None:
        if not deaf or frame[12:14] != b"\x99\x91":
            guest.send(frame)

    sys.stdout.write('{"ready": true}\n')
    sys.stdout.flush()
    while True:
        waiting = [tap for tap in taps if not (held and tap is taps[active])]
        ready = select.select([0, *waiting, *([] if held else [guest])], [], [])[0]
        if 0 in ready:
            line = os.read(0, 100)
            if not line:
                return
            held, deaf = line.startswith(b"hold"), line.startswith(b"deaf")
            active = int(line.split()[-1])
        if guest in ready:
            guest.drain(taps[active].send)
        for tap in taps:
            if tap in ready:
                tap.drain(to_guest if tap is taps[active] else lambda frame: None)


if __name__ == "__main__":
    main()
