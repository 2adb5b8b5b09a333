"""An application's view of its node: one control connection, the present locator, bound SIDs.

A `Stack` belongs to one asyncio event loop and connects on first use. Whoever opens sockets shares
it; `default()` gives the loop's own, for the path in the environment variable XIA_CONTROL.
When the node process goes away, everything on the stack fails with ENETDOWN: nothing hangs.
"""

from __future__ import annotations

import asyncio
import os
import random
import weakref
from collections.abc import Callable
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.identity.keys import KeyPair
from xiatb.node.control_protocol import BIND_PURPOSE, EPHEMERAL_PREFIX, ControlError, Json
from xiatb.node.locator import NodeLocator
from xiatb.node.rpc import RpcClient
from xiatb.wire.dag import DAG
from xiatb.wire.xid import XID, XidType

ENVIRONMENT = "XIA_CONTROL"
JOIN_TIMEOUT = 30.0
"""Seconds that opening a socket waits for a node that has not joined a network yet."""

OnLocator = Callable[[NodeLocator], None]
OnLost = Callable[[ControlError], None]


class _Connection(asyncio.Protocol):
    """Feeds what the node sends to the stack."""

    def __init__(self, stack: Stack) -> None:
        self._stack = stack

    def data_received(self, data: bytes) -> None:
        self._stack.data_received(data)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stack.connection_lost()


class Stack:
    """The node's stack as one event loop's applications use it."""

    def __init__(self, control_socket_path: str | Path | None = None) -> None:
        """control_socket_path: the node's control.sock; default: environment XIA_CONTROL."""
        path = control_socket_path or os.environ.get(ENVIRONMENT, "")
        if not path:
            raise ControlError(
                "ENOTCONN", "no XIA node here", hint=f"set {ENVIRONMENT} to a node's control.sock"
            )
        self.path = Path(path)
        self.current: NodeLocator | None = None
        self.hid: XID | None = None
        self._rpc = RpcClient(self._event)
        self._transport: asyncio.Transport | None = None
        self._starting: asyncio.Task[None] | None = None
        self._dead: ControlError | None = None
        self._located = asyncio.Event()
        self._users: dict[int, tuple[OnLocator, OnLost]] = {}
        self._listeners: dict[int, Callable[[Json], None]] = {}
        self._next_user = 0

    @property
    def dead(self) -> bool:
        """True once the control connection is gone; the stack is then of no more use."""
        return self._dead is not None

    async def start(self) -> Stack:
        """Connects and subscribes, once. Raises ControlError (ENETDOWN: there is no node process)."""
        if self._dead is not None:
            raise self._dead
        if self._starting is None:
            self._starting = asyncio.ensure_future(self._start())
        await asyncio.shield(self._starting)
        return self

    async def _start(self) -> None:
        loop = asyncio.get_running_loop()
        try:
            transport, _ = await loop.create_unix_connection(lambda: _Connection(self), str(self.path))
        except OSError as error:
            self._dead = ControlError("ENETDOWN", f"{self.path}: {error.strerror or error}")
            raise self._dead from error
        self._transport = transport
        node = await self._ask("subscribe", {})
        self.hid = XID.parse(str(node["hid"]))
        self._locate(node)

    def data_received(self, data: bytes) -> None:
        """Takes bytes of the node process (called by the connection)."""
        try:
            self._rpc.feed(data)
        except XiatbError as error:
            self._fail(ControlError("EPROTO", error.message))

    def connection_lost(self) -> None:
        """The node process closed the connection or died (called by the connection)."""
        self._fail(ControlError("ENETDOWN", f"{self.path}: the node process is gone"))

    def _fail(self, error: ControlError) -> None:
        if self._dead is not None:
            return
        self._dead = error
        if self._transport is not None:
            self._transport.abort()
        self._rpc.closed(error)
        self._located.set()
        for _, on_lost in list(self._users.values()):
            on_lost(error)

    def _event(self, event: Json) -> None:
        if event["event"] == "locator":
            self._locate(event)
        for listener in list(self._listeners.values()):
            listener(event)

    def _locate(self, data: Json) -> None:
        locator = NodeLocator.from_json(data)
        if locator is None:
            return
        self.current = locator
        self._located.set()
        for on_locator, _ in list(self._users.values()):
            on_locator(locator)

    async def _ask(self, op: str, fields: Json) -> Json:
        if self._transport is None or self._dead is not None:
            raise self._dead or ControlError("ENETDOWN", "not connected")
        answer: asyncio.Future[Json] = asyncio.get_running_loop().create_future()

        def done(result: Json | None, error: ControlError | None) -> None:
            if answer.cancelled():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(result or {})

        self._transport.write(self._rpc.request(op, fields, done))
        return await answer

    async def request(self, op: str, **fields: object) -> Json:
        """Asks the node process; returns the result. Raises ControlError."""
        await self.start()
        return await self._ask(op, fields)

    async def locator(self, timeout: float = JOIN_TIMEOUT) -> NodeLocator:
        """The present locator; waits for the node to join. Raises ControlError ENETUNREACH, ENETDOWN."""
        await self.start()
        if self.current is None:
            try:
                await asyncio.wait_for(self._located.wait(), timeout)
            except TimeoutError:
                raise ControlError(
                    "ENETUNREACH", f"this node has joined no network in {timeout:g} s"
                ) from None
        if self._dead is not None:
            raise self._dead
        if self.current is None:
            raise ControlError("ENETUNREACH", "this node has joined no network")
        return self.current

    async def resolve(self, name: str | DAG) -> DAG:
        """The address of a name, or of an address in text. Raises ControlError ENOENT, EINVAL."""
        if isinstance(name, DAG):
            return name
        return DAG.parse((await self.request("resolve", name=name))["dag"])

    async def bind(self, key: KeyPair | None) -> XID:
        """Binds the SID of `key`, or a fresh SID without a key (datagrams only); returns it.

        Raises ControlError EADDRINUSE, EACCES. The SID is free again when this process ends.
        """
        await self.start()
        if key is None:
            sid = XID(XidType.SID, EPHEMERAL_PREFIX + random.SystemRandom().randbytes(4))
            await self._ask("bind", {"sid": str(sid)})
            return sid
        if self.hid is None:
            raise ControlError("ENETDOWN", "not connected")
        sid = key.xid(XidType.SID)
        proof = key.sign(BIND_PURPOSE + self.hid.key + sid.key)
        await self._ask("bind", {"sid": str(sid), "public": key.public.hex(), "signature": proof.hex()})
        return sid

    def release(self, sid: XID) -> None:
        """Unbinds a SID without waiting for the answer; harmless when the node is gone."""
        if self._transport is not None and self._dead is None:
            self._transport.write(self._rpc.request("unbind", {"sid": str(sid)}, lambda result, error: None))

    def attach(self, on_locator: OnLocator, on_lost: OnLost) -> int:
        """Calls `on_locator` with every new locator and `on_lost` when the node is gone; returns a ticket."""
        self._next_user += 1
        self._users[self._next_user] = (on_locator, on_lost)
        return self._next_user

    def detach(self, ticket: int) -> None:
        """Ends what `attach` began."""
        self._users.pop(ticket, None)

    def listen(self, listener: Callable[[Json], None]) -> Callable[[], None]:
        """Calls `listener` with every event of the node; returns the function that ends it."""
        self._next_user += 1
        ticket = self._next_user
        self._listeners[ticket] = listener

        def stop() -> None:
            self._listeners.pop(ticket, None)

        return stop

    def close(self) -> None:
        """Closes the control connection, and with it all that was bound."""
        self._fail(ControlError("ENETDOWN", "the stack was closed"))


_defaults: weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, dict[Path, Stack]] = (
    weakref.WeakKeyDictionary()
)


def default(path: str | Path | None = None) -> Stack:
    """The running loop's shared stack for a control socket (default: XIA_CONTROL). Raises ControlError."""
    stacks = _defaults.setdefault(asyncio.get_running_loop(), {})
    where = Path(path or os.environ.get(ENVIRONMENT, ""))
    stack = stacks.get(where)
    if stack is None or stack.dead:
        stack = stacks[where] = Stack(path)
    return stack
