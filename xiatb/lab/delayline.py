"""The delay-line process: a bump in a link, for kernels without netem.

`python -m xiatb.lab.delayline CONFIG.json`, inside a namespace of its own with the interfaces `p0` (towards
the link's first end) and `p1` (towards its second). Frames are taken from one and given to the other when
their time has come. SCHED_FIFO and a timerfd keep lateness near 50 us (measured, reference/dataplane.md
section 5).
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
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
from xiatb.lab.plan import Impairment

PORTS = ("p0", "p1")
_ETH_P_ALL = 0x0003
_SOL_PACKET, _PACKET_IGNORE_OUTGOING = 263, 23
_SO_RCVBUFFORCE = 33
_BURST = 64
_FRAME = 65600
_CLOCK_MONOTONIC, _TFD_ABSTIME = 1, 1


class _Timespec(ctypes.Structure):
    _fields_ = [("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long)]


class _Itimerspec(ctypes.Structure):
    _fields_ = [("interval", _Timespec), ("value", _Timespec)]


class Alarm:
    """A timerfd on the monotonic clock (os.timerfd_* came with Python 3.13)."""

    def __init__(self) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self.descriptor: int = self._libc.timerfd_create(_CLOCK_MONOTONIC, os.O_NONBLOCK | os.O_CLOEXEC)
        if self.descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._set_for: int | None = None

    def set(self, when: int | None) -> None:
        """Ring at `when` (monotonic ns); None: never."""
        if when == self._set_for:
            return
        self._set_for = when
        seconds, nanoseconds = divmod(when or 0, 10**9)
        spec = _Itimerspec(_Timespec(0, 0), _Timespec(seconds, nanoseconds))
        self._libc.timerfd_settime(self.descriptor, _TFD_ABSTIME, ctypes.byref(spec), None)

    def clear(self) -> None:
        """It rang; make the descriptor quiet again."""
        with contextlib.suppress(BlockingIOError):
            os.read(self.descriptor, 8)
        self._set_for = None


class Line:
    """Both directions between two packet sockets."""

    def __init__(self, config: dict[str, Any]) -> None:
        seed = config["seed"]
        directions = [Impairment(**config["forward"]), Impairment(**config["backward"])]
        self.queues = [DelayQueue(one, random.Random(seed * 2 + at)) for at, one in enumerate(directions)]
        self.sockets = [open_port(name) for name in PORTS]
        self.send_failures = [0, 0]
        self.running = True

    def run(self) -> None:
        """Until SIGTERM."""
        alarm = Alarm()
        poller = select.epoll()
        for sock in self.sockets:
            poller.register(sock.fileno(), select.EPOLLIN)
        poller.register(alarm.descriptor, select.EPOLLIN)
        while self.running:
            for descriptor, _ in poller.poll():
                if descriptor == alarm.descriptor:
                    alarm.clear()
                else:
                    self._take(0 if descriptor == self.sockets[0].fileno() else 1)
            alarm.set(self._give())

    def stop(self, _number: int, _frame: FrameType | None) -> None:
        """Signal handler."""
        self.running = False

    def counters(self) -> dict[str, Any]:
        """Per direction, for the log."""
        names = ("forward", "backward")
        return {
            name: {**queue.counters(), "send_failures": failures}
            for name, queue, failures in zip(names, self.queues, self.send_failures, strict=True)
        }

    def _take(self, side: int) -> None:
        receive, push, clock = self.sockets[side].recv, self.queues[side].push, time.monotonic_ns
        try:
            for _ in range(_BURST):
                push(receive(_FRAME), clock())
        except BlockingIOError:
            return
        except OSError as error:
            if error.errno != errno.ENETDOWN:
                raise

    def _give(self) -> int | None:
        """Send what is due; when to wake up next."""
        nexts = []
        for side, queue in enumerate(self.queues):
            send = self.sockets[1 - side].send
            for frame in queue.pop_due(time.monotonic_ns()):
                try:
                    send(frame)
                except OSError:
                    self.send_failures[side] += 1
            when = queue.next_time()
            if when is not None:
                nexts.append(when)
        return max(1, min(nexts)) if nexts else None


def open_port(name: str) -> socket.socket:
    """A non-blocking packet socket for all frames that arrive at an interface."""
    sock = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, 0)
    sock.setsockopt(_SOL_PACKET, _PACKET_IGNORE_OUTGOING, 1)
    sock.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, 16 * 2**20)
    sock.setblocking(False)
    sock.bind((name, _ETH_P_ALL))
    return sock


def main(path: str) -> int:
    """Run the line that the JSON file describes; says so on XIATB_READY_FD."""
    line = Line(json.loads(Path(path).read_text()))
    signal.signal(signal.SIGTERM, line.stop)
    try:
        os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(10))
        scheduler = "fifo"
    except PermissionError:
        scheduler = "normal"
    ready = os.environ.pop("XIATB_READY_FD", None)
    if ready is not None:
        os.write(int(ready), json.dumps({"ready": True, "scheduler": scheduler}).encode() + b"\n")
        os.close(int(ready))
    with contextlib.suppress(InterruptedError):
        line.run()
    sys.stderr.write(json.dumps(line.counters()) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1]))
