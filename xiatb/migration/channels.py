"""Bulk channels of one job: at the source accept libvirt's and QEMU's connections and open XIA streams for
them in the same order; at the destination connect what arrives to the local socket behind it."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.migration import frames, tokens
from xiatb.migration.messages import Channel
from xiatb.migration.meter import FLOOR
from xiatb.migration.relay import Gate, Observer, Relay, connect_unix, listen_unix
from xiatb.migration.wirestream import Wire

log = logging.getLogger("xiatb.migration")
Dial = Callable[[str], Awaitable[Wire]]
"""Opens a stream to the peer for a channel of the given kind."""
OPEN_S = 15.0
DRAIN_S = 3.0


class RelaySet:
    """The relays of one job, alive and ended, by channel kind."""

    def __init__(self) -> None:
        self.relays: list[tuple[str, Relay]] = []
        self._tasks: dict[asyncio.Task[None], str] = {}

    def run(self, kind: str, relay: Relay) -> asyncio.Task[None]:
        """Run a relay in a task of its own."""
        self.relays.append((kind, relay))
        task = asyncio.ensure_future(relay.run())
        self._tasks[task] = kind
        task.add_done_callback(lambda done: self._tasks.pop(done, None))
        return task

    def cut(self, kind: str) -> None:
        """Reset the channels of a kind, whatever they still carry."""
        for task, one in list(self._tasks.items()):
            if one == kind:
                task.cancel()

    def moved(self, *kinds: str) -> int:
        """Bytes carried from the source's side by channels of these kinds."""
        return sum(relay.up.total for kind, relay in self.relays if kind in kinds)

    def backlog(self) -> int:
        """Bytes waiting in all relays now."""
        return sum(relay.backlog() for _, relay in self.relays)

    def round_trip(self) -> float:
        """Smallest round-trip time of the memory channels in seconds, 0.0 when unknown."""
        known = [relay.round_trip() for kind, relay in self.relays if kind == "ram"]
        return min((one for one in known if one > 0), default=0.0)

    async def end(self, grace: float) -> None:
        """Wait up to `grace` seconds for the relays to end by themselves, then reset them."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=grace)
        for task in list(self._tasks):
            task.cancel()
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=5.0)

    def report(self) -> dict[str, Any]:
        """Bytes both ways, peak backlog and errors, by channel kind (as this side's local end saw them)."""
        report: dict[str, Any] = {}
        for kind, relay in self.relays:
            entry = report.setdefault(kind, {"sent": 0, "received": 0, "peak_backlog_bytes": 0, "errors": []})
            entry["sent"] += relay.up.total
            entry["received"] += relay.down.total
            entry["peak_backlog_bytes"] = max(entry["peak_backlog_bytes"], relay.up.peak_backlog)
            if (waited := relay.up.peak_backlog_ms()) is not None:
                entry["peak_backlog_ms"] = round(max(entry.get("peak_backlog_ms", 0.0), waited), 1)
            if relay.error:
                entry["errors"].append(relay.error)
        return report


class SourceChannels:
    """The source's three listening sockets. Channels of a kind are opened one after the other, in order."""

    def __init__(
        self,
        job: str,
        granted: tuple[Channel, ...],
        channel_key: bytes,
        dial: Dial,
        observers: Mapping[str, Callable[[], tuple[Observer, Observer]]],
        gates: dict[str, Gate],
        on_open: Callable[[str, int], None],
        relays: RelaySet | None = None,
    ) -> None:
        self.relays = RelaySet() if relays is None else relays
        self.on_end: Callable[[str], None] | None = None
        """Called with the kind of every channel that has ended."""
        self.floor = FLOOR
        """Least bound on what waits in a channel, bytes."""
        self._job = job
        self._key = channel_key
        self._dial = dial
        self._observers = observers
        self._gates = gates
        self._on_open = on_open
        self._granted = {kind: [c for c in granted if c.kind == kind] for kind in ("rpc", "ram", "nbd")}
        self._listeners: list[tuple[Path, socket.socket]] = []
        self._tasks: list[asyncio.Task[None]] = []

    def listen(self, kind: str, path: Path) -> None:
        """Listen at `path` for connections of `kind`; raises OSError."""
        listener = listen_unix(path)
        self._listeners.append((path, listener))
        self._tasks.append(asyncio.ensure_future(self._accept(kind, listener)))

    async def close(self, grace: float = DRAIN_S) -> None:
        """Stop listening, let the relays drain, remove the sockets."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for path, listener in self._listeners:
            listener.close()
            path.unlink(missing_ok=True)
        self._listeners.clear()
        await self.relays.end(grace)

    async def _accept(self, kind: str, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            local, _ = await loop.sock_accept(listener)
            try:
                if not self._granted[kind]:
                    raise XiatbError("the destination granted no further channel")
                channel = self._granted[kind].pop(0)
                wire = await self._open(channel)
            except (XiatbError, OSError, TimeoutError) as error:
                log.warning("job %s: channel %s: %s", self._job, kind, error or type(error).__name__)
                local.close()
                continue
            self._on_open(kind, time.monotonic_ns())
            watch = self._observers.get(kind)
            outward, inward = watch() if watch else (None, None)
            name, gate = f"{kind}/{channel.index}", self._gates.get(kind)
            relay = Relay(name, local, wire, outward, gate, inward)
            relay.up.floor = self.floor
            task = self.relays.run(kind, relay)
            if self.on_end is not None:
                task.add_done_callback(functools.partial(self._ended, kind))

    def _ended(self, kind: str, task: asyncio.Task[None]) -> None:
        if self.on_end is not None:
            self.on_end(kind)

    async def _open(self, channel: Channel) -> Wire:
        async with asyncio.timeout(OPEN_S):
            wire = await self._dial(channel.kind)
            try:
                await wire.write(tokens.pack_open(self._job, channel, self._key))
                kind, body = await read_frame(wire)
                if kind != frames.CHANNEL:
                    raise XiatbError("the destination answered a channel with something else")
                if refusal := tokens.parse_answer(body):
                    raise XiatbError(f"the destination refused the channel: {refusal}")
            except BaseException:
                wire.abort()
                raise
        return wire


async def read_frame(wire: Wire, first: bytes = b"") -> tuple[int, bytes]:
    """Exactly one frame from the wire, not a byte more; `first` was read already (at most 6 bytes).

    Raises WireError, ConnectionError or OSError.
    """
    reader = frames.FrameReader()
    reader.feed(first)
    wanted = 6
    taken = len(first)
    while True:
        data = await wire.read(min(wanted - taken, frames.MAX_FRAME + 4))
        if not data:
            raise ConnectionResetError("the peer closed the channel")
        reader.feed(data)
        taken += len(data)
        if taken < wanted:
            continue
        frame = reader.next()
        if frame is not None:
            return frame
        wanted = reader.missing() + taken


async def connect_local(
    wire: Wire, name: str, path: Path, watch: tuple[Observer, Observer] | None = None
) -> Relay:
    """The destination's end of a channel: connect to the local socket, answer, give the relay to run.

    `watch`: observers of what comes from the source, and of what goes back.

    Raises XiatbError when nothing listens at `path`; the peer has then been told.
    """
    try:
        local = await connect_unix(path)
    except OSError as error:
        await refuse(wire, f"{name}: nothing listens at {path.name}")
        raise XiatbError(f"{name}: {path}: {error}") from None
    await wire.write(tokens.pack_answer())
    forward, back = watch or (None, None)
    return Relay(name, local, wire, back, inward=forward)


async def refuse(wire: Wire, reason: str) -> None:
    """Answer a CHANNEL frame with a refusal and close the stream."""
    with contextlib.suppress(OSError, XiatbError, TimeoutError):
        await wire.write(tokens.pack_answer(reason or "refused"))
        await asyncio.wait_for(wire.close(), 5.0)
