"""The agent's child processes: the node process and one process for each service.

All are forked after every import, before the agent's own event loop exists. The node process says
ready on a pipe (XIATB_READY_FD); a service says up on its socket pair.
"""

from __future__ import annotations

import asyncio
import functools
import gc
import importlib
import os
import socket
import sys
import traceback
from collections.abc import Callable
from typing import Any

from xiatb.guests.agent.niceness import LOAD, NODE, SERVICES, take
from xiatb.guests.agent.protocol import LineDecoder, Message, encode
from xiatb.guests.agent.services.base import Service, ServiceSpec, run
from xiatb.guests.agent.services.echo import Echo
from xiatb.guests.agent.services.ipecho import IpEcho
from xiatb.guests.agent.services.responder import Responder
from xiatb.guests.agent.services.writer import Writer

STACK_MODULES = ("xiatb.identity.keys", "xiatb.node.aio", "xiatb.node.__main__")
REQUEST_DEADLINE = 120.0


def preload() -> list[str]:
    """Imports the node stack so that every fork has it; gives the modules that could not be imported."""
    missing = []
    for module in STACK_MODULES:
        try:
            importlib.import_module(module)
        except ImportError as error:
            missing.append(f"{module}: {error}")
    gc.collect()
    gc.freeze()
    return missing


def build_service(spec: ServiceSpec, seed: int) -> Service:
    """The service object of `spec`; raises ValueError for an unknown kind."""
    if spec.kind == "echo":
        return Echo(spec)
    if spec.kind == "responder":
        return Responder(spec)
    if spec.kind == "ip_echo":
        return IpEcho(spec)
    if spec.kind == "writer":
        return Writer(spec, seed)
    raise ValueError(f"unknown service kind {spec.kind!r}")


def fork(what: str, body: Callable[[], object]) -> int:
    """Runs `body` in a forked child and never returns there; gives the child's pid."""
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        body()
        code = 0
    except SystemExit as end:
        code = end.code if isinstance(end.code, int) else 1
    except Exception:  # noqa: BLE001 -- the child must end here whatever happens, and say why
        sys.stderr.write(f"xiatb-guest: {what}: {traceback.format_exc()}\n")
    finally:
        sys.stderr.flush()
        os._exit(code)


class Channel(asyncio.Protocol):
    """The agent's end of one service's socket pair."""

    def __init__(self, spec: ServiceSpec) -> None:
        self.spec = spec
        self.state = "starting"
        self.message = ""
        self.settled = asyncio.Event()
        self._decoder = LineDecoder()
        self._waiting: dict[int, asyncio.Future[Message]] = {}
        self._transport: asyncio.WriteTransport | None = None
        self._next = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """asyncio: the pair is open."""
        assert isinstance(transport, asyncio.WriteTransport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """asyncio: answers and events of the service."""
        for message in self._decoder.feed(data):
            if message.get("event") == "service":
                self._set(str(message.get("state")), str(message.get("message", "")))
                continue
            future = self._waiting.pop(message.get("id", -1), None)
            if future is not None and not future.done():
                future.set_result(message)

    def connection_lost(self, exc: Exception | None) -> None:
        """asyncio: the service process ended."""
        self._set("failed", self.message or "the service process ended")
        for future in self._waiting.values():
            if not future.done():
                future.set_exception(ConnectionResetError(f"service {self.spec.name} ended"))
        self._waiting.clear()

    def _set(self, state: str, message: str) -> None:
        self.state, self.message = state, message
        self.settled.set()

    async def request(self, message: Message) -> Message:
        """The service's answer to `message` (its `id` is replaced); raises TimeoutError, ConnectionError."""
        if self._transport is None or self._transport.is_closing():
            raise ConnectionResetError(f"service {self.spec.name} is not running")
        self._next += 1
        ident = self._next
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._waiting[ident] = future
        self._transport.write(encode({**message, "id": ident}))
        try:
            return await asyncio.wait_for(future, REQUEST_DEADLINE)
        finally:
            self._waiting.pop(ident, None)


class Children:
    """Everything the agent has forked, by the guest configuration `config`."""

    def __init__(self, config: dict[str, Any]) -> None:
        self._node_file = config.get("node")
        self._seed = int(config.get("seed", 0))
        self._specs = [
            ServiceSpec(str(s["name"]), str(s["kind"]), str(s.get("key", "")), dict(s.get("options") or {}))
            for s in config.get("services", [])
        ]
        self._sockets: list[socket.socket] = []
        self._channels: dict[str, Channel] = {}
        self._ready_fd = -1
        self.node_state = "none"

    def start(self) -> None:
        """Imports the stack, forks the node process (if `node` is configured) and the services."""
        missing = preload()
        for line in missing:
            sys.stderr.write(f"xiatb-guest: {line}\n")
        if self._node_file:
            self._start_node(str(self._node_file), missing)
        for spec in self._specs:
            mine, theirs = socket.socketpair()
            body = functools.partial(self._service, spec, theirs, mine)
            fork(f"service {spec.name}", body)
            theirs.close()
            mine.setblocking(False)
            self._sockets.append(mine)

    def _start_node(self, path: str, missing: list[str]) -> None:
        if missing:
            self.node_state = "failed"
            return
        self._ready_fd, child_end = os.pipe()
        os.set_blocking(self._ready_fd, False)
        self.node_state = "starting"

        def body() -> object:
            os.close(self._ready_fd)
            os.environ["XIATB_READY_FD"] = str(child_end)
            take(NODE)
            return importlib.import_module("xiatb.node.__main__").main(["xiatb.node", path])

        fork("node", body)
        os.close(child_end)

    def _service(self, spec: ServiceSpec, control: socket.socket, other: socket.socket) -> None:
        other.close()
        for earlier in self._sockets:
            earlier.close()
        take(SERVICES.get(spec.kind, LOAD))
        run(spec.name, lambda: build_service(spec, self._seed), control)

    async def attach(self) -> None:
        """Connects the running loop to the children."""
        loop = asyncio.get_running_loop()
        if self._ready_fd >= 0:
            loop.add_reader(self._ready_fd, self._node_said)
        for spec, end in zip(self._specs, self._sockets, strict=True):
            channel = Channel(spec)
            await loop.create_connection(lambda channel=channel: channel, sock=end)  # type: ignore[misc]
            self._channels[spec.name] = channel

    def _node_said(self) -> None:
        data = os.read(self._ready_fd, 4096)
        if b"\n" in data:
            self.node_state = "ready"
        elif not data and self.node_state != "ready":
            self.node_state = "failed"
        if not data or self.node_state == "ready":
            asyncio.get_running_loop().remove_reader(self._ready_fd)

    @property
    def all_settled(self) -> bool:
        """True when every service is up or has failed."""
        return all(channel.settled.is_set() for channel in self._channels.values())

    async def settled(self) -> None:
        """Returns when every service is up or has failed."""
        for channel in self._channels.values():
            await channel.settled.wait()

    def states(self) -> dict[str, Message]:
        """service name -> kind, state ("starting", "up", "failed") and what it said about a failure."""
        return {
            name: {"kind": channel.spec.kind, "state": channel.state, "message": channel.message}
            for name, channel in self._channels.items()
        }

    async def counters(self) -> Message:
        """service name -> its counters; a service that does not answer has an `error` instead."""
        result: Message = {}
        for name, channel in self._channels.items():
            try:
                answer = await channel.request({"op": "counters"})
            except (OSError, TimeoutError) as error:
                result[name] = {"error": str(error)}
            else:
                result[name] = answer.get("result") or answer.get("error")
        return result

    async def request(self, message: Message) -> Message:
        """Passes {"service": name, "command": op, ...} on; raises KeyError for an unknown service."""
        name = str(message.get("service"))
        if name not in self._channels:
            raise KeyError(
                f"there is no service {name!r}; there are {', '.join(sorted(self._channels)) or 'none'}"
            )
        answer = await self._channels[name].request({**message, "op": message.get("command")})
        if not answer.get("ok"):
            raise ValueError(str((answer.get("error") or {}).get("message", "failed")))
        return dict(answer["result"])
