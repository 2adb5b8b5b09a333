"""The delay-line process: what netem does, for one link, on kernels without netem.

`python -m xiatb.lab.delayline CONFIG.json`, in the namespace of the link's middle (see `wire`). Frames are
taken from one end and given to the other when their time has come. SCHED_FIFO and a timerfd keep lateness
near 50 us (measured, reference/dataplane.md section 5).

CONFIG: {"ports": [towards the first endpoint, towards the second], "mtu", "seed", "forward", "backward",
"control": path of its control socket}. It starts on standby: frames that it sees are still forwarded by the
kernel. Control operations (JSON lines, `linecontrol`): `go`, `set`, `halt`, `stats`.
"""

from __future__ import annotations

import contextlib
import errno
import gc
import json
import os
import random
import select
import signal
import socket
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

from xiatb.lab.delayqueue import DelayQueue
from xiatb.lab.linecontrol import LineControl
from xiatb.lab.plan import Impairment
from xiatb.lab.timer import Alarm

_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_SO_RCVBUFFORCE = 33
_BURST = 64
_ETHERNET = 18
"""bytes of an Ethernet header with one VLAN tag"""
DIRECTIONS = ("forward", "backward")


class Line:
    """Both directions between two packet sockets."""

    def __init__(self, config: dict[str, Any]) -> None:
        seed = config["seed"]
        self._frame = config["mtu"] + _ETHERNET
        self.queues = [
            DelayQueue(Impairment(**config[name]), random.Random(seed * 2 + at))
            for at, name in enumerate(DIRECTIONS)
        ]
        self.sockets = [open_port(name) for name in config["ports"]]
        self.send_failures = [0, 0]
        self.latest = [0, 0]
        self.running = True
        self.taking = False
        self.control = LineControl(Path(config["control"]), self.answer)

    def run(self) -> None:
        """Until SIGTERM."""
        alarm = Alarm()
        poller = self.control.poller
        sides = {sock.fileno(): side for side, sock in enumerate(self.sockets)}
        for descriptor in (*sides, alarm.descriptor):
            poller.register(descriptor, select.EPOLLIN)
        while self.running:
            for descriptor, _ in poller.poll():
                if descriptor in sides:
                    self._take(sides[descriptor])
                elif descriptor == alarm.descriptor:
                    alarm.clear()
                else:
                    self.control.serve(descriptor)
            alarm.set(self._give())

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler."""
        self.running = False

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """One control operation; the counters are its answer. Raises ValueError on anything unknown."""
        op = request.get("op")
        if op == "set":
            new = [Impairment(**request[name]) for name in DIRECTIONS]
            for queue, impairment in zip(self.queues, new, strict=True):
                queue.configure(impairment)
        elif op == "go":
            for side in () if self.taking else (0, 1):
                while self._take(side):
                    pass
            self.taking = True
        elif op == "halt":
            self.taking = False
        elif op != "stats":
            raise ValueError(f"unknown op {str(op)[:40]!r}")
        return self.counters()

    def counters(self) -> dict[str, Any]:
        """Per direction, for `link show` and the log; `latest_us` is the worst lateness so far."""
        return {
            name: {
                **self.queues[side].counters(),
                "send_failures": self.send_failures[side],
                "latest_us": self.latest[side] // 1000,
            }
            for side, name in enumerate(DIRECTIONS)
        }

    def _take(self, side: int) -> bool:
        """Take up to a burst of frames in; False when there is no more."""
        receive, clock, size = self.sockets[side].recv, time.monotonic_ns, self._frame
        push = self.queues[side].push if self.taking else _ignore
        try:
            for _ in range(_BURST):
                push(receive(size), clock())
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno != errno.ENETDOWN:
                raise
        return True

    def _give(self) -> int | None:
        """Send what is due; when to wake up next."""
        nexts = []
        for side, queue in enumerate(self.queues):
            when = queue.next_time()
            if when is None:
                continue
            now = time.monotonic_ns()
            if when <= now:
                self.latest[side] = max(self.latest[side], now - when)
                send = self.sockets[1 - side].send
                for frame in queue.pop_due(now):
                    try:
                        send(frame)
                    except OSError:
                        self.send_failures[side] += 1
                when = queue.next_time()
            if when is not None:
                nexts.append(when)
        return max(1, min(nexts)) if nexts else None


def _ignore(_frame: bytes, _now: int) -> None:
    """On standby: the kernel forwards it."""


def open_port(name: str) -> socket.socket:
    """A non-blocking packet socket for all frames that arrive at an interface."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 * 2**20)
    sock.setblocking(False)
    sock.bind((name, _ETH_P_ALL))
    return sock


def be_prompt() -> str:
    """Real-time scheduling, no pauses for cycles that this program does not make; "fifo" or "normal"."""
    gc.disable()
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
    except PermissionError:
        return "normal"
    return "fifo"


def main(path: str) -> int:
    """Run the line that the JSON file describes; says so on XIATB_READY_FD."""
    line = Line(json.loads(Path(path).read_text()))
    signal.signal(signal.SIGTERM, line.stop)
    scheduler = be_prompt()
    ready = os.environ.pop("XIATB_READY_FD", None)
    if ready is not None:
        os.write(int(ready), json.dumps({"ready": True, "scheduler": scheduler}).encode() + b"\n")
        os.close(int(ready))
    with contextlib.suppress(InterruptedError):
        line.run()
    line.control.close()
    sys.stderr.write(json.dumps(line.counters()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
