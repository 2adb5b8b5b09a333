"""The programs at the ends of a stream: `python -m xiatb.experiments.bench.streamapp MODE ...`.

Modes: xia-sink, xia-source DAG SECONDS, tcp-sink, tcp-source ADDRESS PORT SECONDS. A sink tells where it
listens and, when its one stream has ended, the bits a second that it got. Sources keep to one core, sinks
to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
import time

from xiatb.identity.keys import KeyPair
from xiatb.node import aio
from xiatb.wire.dag import DAG

CHUNK = 256 * 1024
WARM_UP = 0.5
"""seconds after the first bytes that do not count"""


class Meter:
    """Goodput after the warm-up."""

    def __init__(self) -> None:
        self._counts_from = 0.0
        self._start = self._last = 0.0
        self._bytes = 0

    def add(self, size: int, now: float) -> None:
        """`size` bytes have come by `now` (monotonic seconds)."""
        if not self._counts_from:
            self._counts_from = now + WARM_UP
        elif self._start:
            self._bytes += size
            self._last = now
        elif now >= self._counts_from:
            self._start = now

    @property
    def rate(self) -> float:
        """Bits a second; 0 when the stream ended in its warm-up."""
        return self._bytes * 8 / (self._last - self._start) if self._last > self._start else 0.0


def tell(text: object) -> None:
    """One line to whoever started this program."""
    sys.stdout.write(f"{text}\n")
    sys.stdout.flush()


async def xia_sink() -> None:
    """Takes one stream."""
    ended = asyncio.Event()

    async def serve(reader: aio.XReader, writer: aio.XWriter) -> None:
        meter = Meter()
        while data := await reader.read(CHUNK):
            meter.add(len(data), time.monotonic())
        tell(meter.rate)
        writer.close()
        await writer.wait_closed()
        ended.set()

    async with await aio.start_server(serve, KeyPair.generate()) as server:
        tell(server.dag)
        await ended.wait()


async def xia_source(dag: str, seconds: str) -> None:
    """Sends for that long; tells the bytes of the addresses in every packet first."""
    reader, writer = await aio.open_connection(DAG.parse(dag))
    ends = [writer.get_extra_info(name) for name in ("local_dag", "peer_dag")]
    tell(sum(len(DAG.parse(str(end)).to_wire()) for end in ends))
    data = bytes(CHUNK)
    until = time.monotonic() + float(seconds)
    while time.monotonic() < until:
        writer.write(data)
        await writer.drain()
    writer.write_eof()
    await reader.read()
    writer.close()
    await writer.wait_closed()


def tcp_sink() -> None:
    """Takes one connection."""
    meter = Meter()
    with socket.create_server(("0.0.0.0", 0)) as server:
        tell(server.getsockname()[1])
        peer, _ = server.accept()
    buffer = bytearray(CHUNK)
    with peer:
        while size := peer.recv_into(buffer):
            meter.add(size, time.monotonic())
    tell(meter.rate)


def tcp_source(address: str, port: str, seconds: str) -> None:
    """Sends for that long."""
    data = bytes(CHUNK)
    with socket.create_connection((address, int(port)), timeout=10) as sock:
        tell("connected")
        sock.settimeout(None)
        until = time.monotonic() + float(seconds)
        while time.monotonic() < until:
            sock.sendall(data)
        sock.shutdown(socket.SHUT_WR)
        with contextlib.suppress(ConnectionResetError):
            sock.recv(1)


def main(mode: str, *arguments: str) -> None:
    """Runs one of the modes."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores) if mode.endswith("sink") else min(cores)})
    if mode == "xia-sink":
        asyncio.run(xia_sink())
    elif mode == "xia-source":
        asyncio.run(xia_source(*arguments))
    elif mode == "tcp-sink":
        tcp_sink()
    else:
        tcp_source(*arguments)


if __name__ == "__main__":
    main(*sys.argv[1:])
