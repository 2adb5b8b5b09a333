"""Ends of flows under a congestion control: `python -m xiatb.experiments.bench.flowapp MODE ...`.

Modes: sink xia|tcp FLOWS WARM SECONDS, source xia|tcp CONTROL WHERE FLOWS seconds:S|bytes:N. The sink tells
where it listens; the source tells when (monotonic seconds) it begins to connect. When all flows have ended
the sink tells {"rates", "last"} as JSON: bits a second of each flow in the SECONDS that begin WARM seconds
after all had begun, and when the last byte of all came. Sources keep to one core, sinks to another.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
import sys
import threading
import time

from xiatb.experiments.bench.streamapp import tell
from xiatb.identity.keys import KeyPair
from xiatb.node import aio, stack
from xiatb.transport.config import StreamConfig
from xiatb.wire.dag import DAG

CHUNK = 64 * 1024
READ = 256 * 1024


class FlowMeter:
    """Bytes of several flows over one common window of time."""

    def __init__(self, flows: int, warm: float, seconds: float) -> None:
        self._got = [0] * flows
        self._counted = [0] * flows
        self._waiting = flows
        self._warm, self._seconds = warm, seconds
        self._start = self._end = 0.0
        self.last = 0.0

    def add(self, flow: int, size: int, now: float) -> None:
        """`size` bytes of flow number `flow` have come by `now` (monotonic seconds)."""
        if not self._got[flow]:
            self._waiting -= 1
            if not self._waiting:
                self._start = now + self._warm
                self._end = self._start + self._seconds
        self._got[flow] += size
        self.last = now
        if self._start <= now < self._end:
            self._counted[flow] += size

    def report(self) -> str:
        """The line that the sink tells at the end."""
        seconds = min(self._end, self.last) - self._start
        rates = [counted * 8 / seconds if seconds > 0 else 0.0 for counted in self._counted]
        return json.dumps({"rates": rates, "last": self.last})


async def xia_sink(meter: FlowMeter, flows: int) -> None:
    """Takes so many streams."""
    left = flows
    ended = asyncio.Event()

    async def serve(reader: aio.XReader, writer: aio.XWriter) -> None:
        nonlocal left
        flow = flows - left
        left -= 1
        while data := await reader.read(READ):
            meter.add(flow, len(data), time.monotonic())
        writer.close()
        await writer.wait_closed()
        done.append(flow)
        if len(done) == flows:
            ended.set()

    done: list[int] = []
    async with await aio.start_server(serve, KeyPair.generate()) as server:
        tell(server.dag)
        await ended.wait()


async def xia_source(control: str, where: str, flows: int, amount: str) -> None:
    """Sends on so many streams at once."""
    config = StreamConfig(congestion=control, send_buffer=4 << 20, unsent_limit=256 << 10)
    await stack.default().locator()  # this process knows its node, as a TCP program knows its kernel
    tell(time.monotonic())

    async def one() -> None:
        reader, writer = await aio.open_connection(DAG.parse(where), config=config)
        block = bytes(CHUNK)
        left = Amount(amount)
        while size := left.next(CHUNK):
            writer.write(block[:size])
            await writer.drain()
        writer.write_eof()
        await reader.read()
        writer.close()
        await writer.wait_closed()

    await asyncio.gather(*(one() for _ in range(flows)))


def tcp_sink(meter: FlowMeter, flows: int) -> None:
    """Takes so many connections."""

    def serve(flow: int, peer: socket.socket) -> None:
        buffer = bytearray(READ)
        with peer:
            while size := peer.recv_into(buffer):
                meter.add(flow, size, time.monotonic())

    with socket.create_server(("0.0.0.0", 0)) as server:
        tell(server.getsockname()[1])
        threads = []
        for flow in range(flows):
            thread = threading.Thread(target=serve, args=(flow, server.accept()[0]))
            thread.start()
            threads.append(thread)
    for thread in threads:
        thread.join()


def tcp_source(control: str, where: str, flows: int, amount: str) -> None:
    """Sends on so many connections at once; `where` is ADDRESS:PORT."""
    address, port = where.split(":")
    tell(time.monotonic())

    def one() -> None:
        with socket.socket() as sock:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_CONGESTION, control.encode())
            sock.connect((address, int(port)))
            block = bytes(CHUNK)
            left = Amount(amount)
            while size := left.next(CHUNK):
                sock.sendall(memoryview(block)[:size])
            sock.shutdown(socket.SHUT_WR)
            with contextlib.suppress(ConnectionResetError):
                sock.recv(1)

    threads = [threading.Thread(target=one) for _ in range(flows)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


class Amount:
    """How much to send: "seconds:S" from now on, or "bytes:N"."""

    def __init__(self, text: str) -> None:
        kind, _, number = text.partition(":")
        self._left = int(number) if kind == "bytes" else 0
        self._until = time.monotonic() + float(number) if kind == "seconds" else 0.0

    def next(self, most: int) -> int:
        """The size of the next write; 0 at the end."""
        if self._until:
            return most if time.monotonic() < self._until else 0
        size = min(most, self._left)
        self._left -= size
        return size


def main(mode: str, kind: str, *arguments: str) -> None:
    """Runs one of the modes."""
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(cores) if mode == "sink" else min(cores)})
    if mode == "sink":
        flows, warm, seconds = int(arguments[0]), float(arguments[1]), float(arguments[2])
        meter = FlowMeter(flows, warm, seconds)
        if kind == "xia":
            asyncio.run(xia_sink(meter, flows))
        else:
            tcp_sink(meter, flows)
        tell(meter.report())
    else:
        control, where, flows, amount = arguments[0], arguments[1], int(arguments[2]), arguments[3]
        if kind == "xia":
            asyncio.run(xia_source(control, where, flows, amount))
        else:
            tcp_source(control, where, flows, amount)


if __name__ == "__main__":
    main(*sys.argv[1:])
