"""Applications for the ring tests: `python -m tests.node.apps MODE NAME ...`; JSON lines on stdout."""

from __future__ import annotations

import asyncio
import hashlib
import json
import random
import sys
import time
from typing import Any

from tests.node.minilab import key_of
from xiatb.node import aio
from xiatb.transport.config import StreamConfig
from xiatb.wire.dag import DAG

CHUNK = 256 * 1024


def tell(**fields: Any) -> None:
    sys.stdout.write(json.dumps(fields) + "\n")
    sys.stdout.flush()


def payload(total: int, seed: int) -> Any:
    rng = random.Random(seed)
    block = rng.randbytes(CHUNK)
    sent = 0
    while sent < total:
        size = min(CHUNK, total - sent)
        # Each chunk starts differently, so that swapped or repeated chunks change the digest.
        yield (sent.to_bytes(8, "big") + block)[:size]
        sent += size


async def echo(name: str) -> None:
    """A stream service that gives every byte back."""

    async def serve(reader: aio.XReader, writer: aio.XWriter) -> None:
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
        writer.close()
        await writer.wait_closed()

    server = await aio.start_server(serve, key_of(name))
    tell(ready=True, dag=str(server.dag))
    await server.serve_forever()


async def sink(name: str) -> None:
    """A stream service that digests what it gets and tells when the stream has ended."""

    async def serve(reader: aio.XReader, writer: aio.XWriter) -> None:
        digest, size, start = hashlib.sha256(), 0, time.monotonic()
        while data := await reader.read(CHUNK):
            digest.update(data)
            size += len(data)
        writer.close()
        await writer.wait_closed()
        tell(size=size, digest=digest.hexdigest(), seconds=time.monotonic() - start,
             stats=writer.get_extra_info("stats"))  # fmt: skip

    server = await aio.start_server(serve, key_of(name))
    tell(ready=True, dag=str(server.dag))
    await server.serve_forever()


async def source(dag: str, total: str, seed: str, rate: str = "0") -> None:
    """Sends `total` bytes (at `rate` bytes a second, if that is not 0) and tells their digest."""
    reader, writer = await aio.open_connection(DAG.parse(dag), config=StreamConfig())
    tell(connected=True, local=str(writer.get_extra_info("local_dag")))
    digest, start, sent = hashlib.sha256(), time.monotonic(), 0
    for piece in payload(int(total), int(seed)):
        digest.update(piece)
        writer.write(piece)
        sent += len(piece)
        await writer.drain()
        if float(rate):
            await asyncio.sleep(max(0.0, start + sent / float(rate) - time.monotonic()))
    writer.write_eof()
    assert await reader.read() == b""
    seconds = time.monotonic() - start
    writer.close()
    await writer.wait_closed()
    tell(size=int(total), digest=digest.hexdigest(), seconds=seconds, stats=writer.get_extra_info("stats"))


async def ask(dag: str, *lines: str) -> None:
    """Sends lines to an echo service and tells what came back."""
    reader, writer = await aio.open_connection(dag)
    answers = []
    for line in lines:
        writer.write(line.encode() + b"\n")
        answers.append((await reader.readuntil()).decode().rstrip())
    writer.close()
    await writer.wait_closed()
    tell(answers=answers)


async def datagram_echo(name: str) -> None:
    """A datagram service that sends everything back."""
    socket = await aio.open_datagram(key_of(name))
    socket.on_receive(lambda payload, source: (socket.send(payload, source), None)[1])
    tell(ready=True, dag=str(socket.local_dag))
    await asyncio.Event().wait()


async def datagrams(dag: str, count: str) -> None:
    """Sends datagrams one after the other; tells how many came back."""
    socket = await aio.open_datagram()
    destination = DAG.parse(dag)
    socket.connect(destination)
    got = 0
    for number in range(int(count)):
        socket.send(number.to_bytes(4, "big"))
        payload_, source_ = await asyncio.wait_for(socket.recv(), 2)
        got += payload_ == number.to_bytes(4, "big") and source_ == destination
    tell(got=got)


async def probe(dag: str, seconds: str) -> None:
    """Sends a datagram each millisecond; tells how many got lost and the longest time without an answer."""
    socket = await aio.open_datagram(key_of("probe"))
    answers: list[float] = []
    socket.on_receive(lambda payload, source: answers.append(time.monotonic()))
    destination = DAG.parse(dag)
    socket.connect(destination)
    start, sent = time.monotonic(), 0
    tell(ready=True)
    while (now := time.monotonic()) < start + float(seconds):
        while sent < (now - start) * 1000:
            socket.send(b"%016d" % sent)
            sent += 1
        await asyncio.sleep(0.001)
    await asyncio.sleep(0.2)
    gaps = [after - before for before, after in zip(answers, answers[1:], strict=False)]
    tell(sent=sent, lost=sent - len(answers), longest_gap_ms=max(gaps) * 1000)


async def hold(name: str) -> None:
    """Binds a SID and keeps it."""
    try:
        socket = await aio.open_datagram(key_of(name))
    except OSError as error:
        tell(errno=error.errno)
        return
    tell(ready=True, dag=str(socket.local_dag))
    try:
        await socket.recv()
    except OSError as error:
        tell(errno=error.errno)


async def failing(dag: str) -> None:
    """Tells with which errno a connect fails."""
    start = time.monotonic()
    try:
        await aio.open_connection(dag)
    except OSError as error:
        tell(errno=error.errno, seconds=time.monotonic() - start)


if __name__ == "__main__":
    asyncio.run(globals()[sys.argv[1]](*sys.argv[2:]))
