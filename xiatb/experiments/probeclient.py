"""The measuring client of an experiment: a process on a host node of the lab.

It keeps one stream open to the guest's echo service, sends a checkable byte stream at a fixed rate and
verifies what comes back, and sends datagram probes to the guest's responder on an open-loop schedule
(a request is sent when it is due, whether or not earlier ones were answered).

Run as `python -m xiatb.experiments.probeclient` with XIA_CONTROL set. It writes JSON lines to its standard
output: `ready` when both connections work, `check` in answer to a line `check` on its standard input once
all stream bytes sent until then came back, `done` when it ends, which it does when its standard input
ends. The probe log goes to `--out`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import struct
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from xiatb.experiments.pattern import PatternChecker, pattern
from xiatb.experiments.probelog import ProbeLog
from xiatb.node import aio
from xiatb.wire.dag import DAG

REQUEST = struct.Struct(">QQ")
"""Sequence number and the time of sending in nanoseconds, big-endian."""
_CHUNKS_PER_SECOND = 20
_DRAIN_DEADLINE_S = 20.0
_LAST_ANSWERS_S = 1.0


P = TypeVar("P")
"""A place to probe: a DAG, or an address and port."""


@dataclass(frozen=True)
class ProbeOptions(Generic[P]):
    """What to probe: places of the services, probes per second, stream bytes per second, pattern seed."""

    responder: P
    echo: P
    rate: float
    stream_rate: int
    seed: int
    out: Path


class StreamProbe(Generic[P]):
    """One stream to an echo service that carries a checkable pattern in both directions; `open` makes the
    reader and the writer."""

    reader: Any
    writer: Any

    def __init__(self, options: ProbeOptions[P]) -> None:
        self.options = options
        self.sent = 0
        self.checker = PatternChecker(options.seed)
        self.error = ""
        self.ended_cleanly = False

    async def open(self) -> None:
        """Connect; raises OSError, XiatbError."""
        raise NotImplementedError

    async def send(self, stop: asyncio.Event) -> None:
        """Send the pattern at the set rate until `stop`, then end the sending direction."""
        size = max(1, self.options.stream_rate // _CHUNKS_PER_SECOND)
        started, chunk = time.monotonic(), 0
        try:
            while not stop.is_set():
                self.writer.write(pattern(self.options.seed, self.sent, size))
                self.sent += size
                await self.writer.drain()
                chunk += 1
                pause = started + chunk / _CHUNKS_PER_SECOND - time.monotonic()
                if pause > 0:
                    await _wait(stop, pause)
            self.writer.write_eof()
        except (OSError, EOFError) as exc:
            self.error = f"sending: {exc}"

    async def receive(self) -> None:
        """Check what comes back until the peer ends the stream."""
        try:
            while data := await self.reader.read(65536):
                self.checker.feed(data)
            self.ended_cleanly = True
        except (OSError, EOFError) as exc:
            self.error = self.error or f"receiving: {exc}"

    async def check(self, timeout: float) -> dict[str, Any]:
        """Wait until what was sent so far came back, `timeout` seconds at most; then say whether it did."""
        target, deadline = self.sent, time.monotonic() + timeout
        while self.checker.received < target and not self.error and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        return self._report(target, complete=self.checker.received >= target)

    def report(self) -> dict[str, Any]:
        """Bytes sent and echoed, whether every byte came back once and in order, and what went wrong."""
        return self._report(self.sent, complete=self.ended_cleanly and self.checker.received == self.sent)

    def _report(self, sent: int, *, complete: bool) -> dict[str, Any]:
        intact = complete and not self.error and self.checker.first_bad is None
        return {
            "stream_bytes": sent,
            "stream_echoed": self.checker.received,
            "stream_intact": intact,
            "stream_first_bad": self.checker.first_bad,
            "stream_error": self.error,
        }


class DatagramProbe(Generic[P]):
    """Open-loop datagram requests to a responder; the log is `self.log`."""

    def __init__(self, options: ProbeOptions[P]) -> None:
        self.options = options
        self.log = ProbeLog()

    async def open(self) -> None:
        """Open a socket whose datagrams go to `take`; raises OSError, XiatbError."""
        raise NotImplementedError

    def take(self, payload: bytes) -> None:
        """An answer, stamped now; anything else is passed over."""
        if len(payload) >= REQUEST.size:
            seq, sent = REQUEST.unpack_from(payload)
            if seq < len(self.log.sent) and self.log.sent[seq] == sent:
                self.log.answer(seq, time.monotonic_ns())

    def _request(self) -> None:
        """Send the next request."""
        raise NotImplementedError

    async def run(self, stop: asyncio.Event) -> None:
        """Send requests on schedule until `stop`, then give the last answers a moment to arrive."""
        period = 1.0 / self.options.rate
        loop = asyncio.get_running_loop()
        due = loop.time()
        while not stop.is_set():
            self._request()
            due += period
            pause = due - loop.time()
            if pause > 0:
                await asyncio.sleep(pause)
            else:
                await asyncio.sleep(0)
        await self._last_answers()

    async def _last_answers(self) -> None:
        deadline = time.monotonic() + _LAST_ANSWERS_S
        while time.monotonic() < deadline and not self.log.answered[-1]:
            await asyncio.sleep(0.01)

    async def first_answer(self, timeout: float) -> bool:
        """Send requests until one is answered; False when none was within `timeout` seconds."""
        deadline = time.monotonic() + timeout
        while time.monotonic() < deadline:
            self._request()
            pause = time.monotonic() + 0.05
            while time.monotonic() < pause:
                if any(self.log.answered):
                    return True
                await asyncio.sleep(0.005)
        return False


class XiaStreamProbe(StreamProbe[DAG]):
    """The stream over XIA."""

    async def open(self) -> None:
        """Connect; raises what `open_connection` raises."""
        self.reader, self.writer = await aio.open_connection(self.options.echo)


class XiaDatagramProbe(DatagramProbe[DAG]):
    """The requests over XIA."""

    async def open(self) -> None:
        """Bind a socket; answers are stamped as they arrive."""
        self.socket = await aio.open_datagram()
        self.socket.on_receive(lambda payload, _source: self.take(payload))

    def _request(self) -> None:
        now = time.monotonic_ns()
        self.socket.send(REQUEST.pack(self.log.request(now), now), self.options.responder)


async def _wait(event: asyncio.Event, timeout: float) -> None:
    try:
        await asyncio.wait_for(event.wait(), timeout)
    except TimeoutError:
        return


async def _obey(stream: StreamProbe[P], patience: float) -> None:
    """Answer the lines on standard input until it ends."""
    reader = asyncio.StreamReader()
    loop = asyncio.get_running_loop()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        if line.strip() == b"check":
            _say({"event": "check", **await stream.check(patience)})


def _say(value: dict[str, Any]) -> None:
    sys.stdout.write(json.dumps(value) + "\n")
    sys.stdout.flush()


async def probe(
    options: ProbeOptions[P], stream: StreamProbe[P], datagrams: DatagramProbe[P], patience: float
) -> int:
    """Run both probes until standard input ends; returns the exit code, 0 when the stream was intact.

    `patience`: seconds to wait for the rest of the echo."""
    stop = asyncio.Event()
    await stream.open()
    await datagrams.open()
    if not await datagrams.first_answer(timeout=10.0):
        _say({"event": "failed", "error": f"no answer from the responder {options.responder}"})
        return 1
    _say({"event": "ready"})
    receiving = asyncio.create_task(stream.receive())
    running = [asyncio.create_task(stream.send(stop)), asyncio.create_task(datagrams.run(stop))]
    await _obey(stream, patience)
    stop.set()
    try:
        await asyncio.wait_for(asyncio.gather(*running), patience)
        await asyncio.wait_for(receiving, patience)
    except TimeoutError:
        stream.error = stream.error or f"the echo did not end within {patience:.0f} s"
    stream.writer.close()
    datagrams.log.save(options.out)
    report = stream.report()
    _say({"event": "done", **report})
    return 0 if report["stream_intact"] else 1


def main() -> int:
    """Parse the arguments and run the probes."""
    parser = argparse.ArgumentParser(description="Probe a guest's services over XIA")
    add_arguments(parser, DAG.parse)
    options = ProbeOptions[DAG](**vars(parser.parse_args()))
    return asyncio.run(
        probe(options, XiaStreamProbe(options), XiaDatagramProbe(options), _DRAIN_DEADLINE_S)
    )


def add_arguments(parser: argparse.ArgumentParser, place: Callable[[str], P]) -> None:
    """The arguments that are the fields of ProbeOptions; `place` reads a place."""
    parser.add_argument("--responder", required=True, type=place, help="place of the datagram responder")
    parser.add_argument("--echo", required=True, type=place, help="place of the stream echo")
    parser.add_argument("--rate", type=float, default=1000.0, help="probes per second")
    parser.add_argument("--stream-rate", type=int, default=100_000, help="stream bytes per second")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--out", required=True, type=Path, help="file for the probe log")


if __name__ == "__main__":
    raise SystemExit(main())
