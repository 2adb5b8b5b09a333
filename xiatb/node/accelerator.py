"""Keeps a node's eBPF engine in step with its Click graph: routes, neighbours, ports in, counters out."""

from __future__ import annotations

import contextlib
import errno
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from xiatb.click.graph import Router
from xiatb.fastpath.engine import Fastpath, object_path
from xiatb.fastpath.errors import FastpathError
from xiatb.fastpath.mirror import Mirror, PortInfo
from xiatb.fastpath.routes import Counters, Reason
from xiatb.node.port import Port
from xiatb.wire.walk import Entry

GATEWAY_ROUTES = 65536
HOST_ROUTES = 4096
_REASONS = {
    Reason.BAD_VERSION: "version",
    Reason.BAD_NODES: "nodes",
    Reason.BAD_LENGTH: "truncated",
    Reason.BAD_LAST: "last",
}
"""What CheckXIAHeader calls the packets that the engine drops."""
_GONE = (errno.ENODEV, errno.ENOENT, errno.EINVAL)


class Accelerator:
    """A loaded engine for one graph.

    transit: False on an end host, which forwards for its own applications only; `left_out`: numbers of ports
    that Click must serve; `failed` is called with the kernel's words when the engine had to be given up.
    """

    def __init__(
        self,
        router: Router,
        ports: Sequence[Port],
        *,
        transit: bool,
        left_out: Sequence[int],
        failed: Callable[[str], None],
    ) -> None:
        """Loads and fills the engine and attaches it to the ports that are there. Raises FastpathError."""
        self._router = router
        self._ports = [port for port in ports if port.index not in left_out]
        self._transit = transit
        self._tell_failure = failed
        self._attached: dict[int, int] = {}
        self._seen: dict[int, Counters] = {}
        self._discarded: dict[int, int] = {}
        self._tables: list[Any] = [
            element for element in router.elements.values() if element.class_name == "XIAXIDRouteTable"
        ]
        self._engine = Fastpath.load(object_path(), max_routes=GATEWAY_ROUTES if transit else HOST_ROUTES)
        self._mirror = Mirror(self._engine)
        self._live = True
        self._starting = True
        try:
            self._fill()
        except FastpathError:
            self._engine.close()
            raise
        self._starting = False

    def _fill(self) -> None:
        for port in self._ports:
            self._mirror.set_port(port.index, self._info(port))
            querier: Any = self._element(port, "xarpq")
            if querier is not None:
                querier.watch(partial(self._neighbour, port.index))
            limit: Any = self._element(port, "mtu")
            if limit is not None:
                limit.changed = partial(self.port_changed, port)
        for table in self._tables:
            table.watch(self._route, self._switched)
        self._switched()
        for port in self._ports:
            self._attach(port)

    def _element(self, port: Port, name: str) -> Any:
        return self._router.elements.get(f"lc{port.index}/{name}")

    # Changes

    def _change(self, action: Callable[[], None]) -> None:
        """A change of the tables. One that the kernel refuses leaves them wrong: then Click takes over."""
        if not self._live:
            return
        try:
            action()
        except FastpathError as error:
            if self._starting:
                raise
            self.close()
            self._tell_failure(error.message)

    def _route(self, target: bytes | int, entry: Entry | None) -> None:
        if isinstance(target, int):
            self._change(partial(self._mirror.set_default, target, entry))
        elif entry is None:
            self._change(partial(self._mirror.remove, target))
        else:
            self._change(partial(self._mirror.set, target, entry))

    def _neighbour(self, port: int, key: bytes, mac: bytes | None) -> None:
        if mac is None:
            self._change(partial(self._mirror.forget_neighbour, port, key))
        else:
            self._change(partial(self._mirror.set_neighbour, port, key, mac))

    def _switched(self) -> None:
        """The engine's maps do not know of tables: while one is switched off, none is used."""
        self._change(self._engine.disable if self.paused else self._engine.enable)

    @property
    def paused(self) -> str:
        """Why nothing is forwarded by the engine at present, "" when it is."""
        off = [table.name for table in self._tables if not table.enabled]
        return f"route table {off[0]} is switched off" if off else ""

    # Ports

    def port_changed(self, port: Port) -> None:
        """The kernel told of an interface, or the MTU of its line card was set."""
        if port in self._ports:
            self._change(partial(self._follow, port))

    def _follow(self, port: Port) -> None:
        old = self._attached.get(port.index, 0)
        if old and old != port.ifindex:
            del self._attached[port.index]
            self._engine.detach(old)
        self._mirror.set_port(port.index, self._info(port))
        self._attach(port)

    def _attach(self, port: Port) -> None:
        if not port.ifindex or port.index in self._attached:
            return
        try:
            self._engine.attach(port.ifindex, port.index, transit=self._transit or port.role == "internal")
        except FastpathError as error:
            if error.errno not in _GONE:
                raise
            return
        self._attached[port.index] = port.ifindex

    def _info(self, port: Port) -> PortInfo | None:
        if not port.ifindex:
            return None
        limit: Any = self._element(port, "mtu")
        mtu = min(limit.mtu or port.mtu, port.mtu) if limit is not None else port.mtu
        return PortInfo(port.ifindex, port.mac, mtu, port.role == "internal", port.up)

    def serves(self, port: Port) -> bool:
        """Whether what comes in by a port meets the engine first."""
        return self._live and port.index in self._attached

    # Counters

    def refresh(self) -> None:
        """Adds what the engine has done since the last time to the counters of elements and ports."""
        if not self._live:
            return
        for port in self._ports:
            now = self._engine.counters(port.index)
            before = self._seen.get(port.index)
            self._seen[port.index] = now
            self._count(port, now if before is None else now.since(before))
        discards = self._engine.discards()
        for table in self._tables:
            table.drops += discards.get(table.type, 0) - self._discarded.get(table.type, 0)
        self._discarded = discards

    def _count(self, port: Port, new: Counters) -> None:
        bad = {name: new.reasons[reason] for reason, name in _REASONS.items()}
        dropped = sum(bad.values())
        came, went = self._element(port, "in"), self._element(port, "device")
        check = self._element(port, "check")
        received = new.rx_packets + dropped + new.reasons[Reason.DISCARDED]
        port.add(rx=received, tx=new.tx_packets)
        if came is not None:
            came.count += received
            came.bytes += new.rx_bytes + new.dropped_bytes
        if check is not None:
            check.count += received
            check.drops += dropped
            for name, count in bad.items():
                check.reasons[name] += count
        if went is not None:
            went.count += new.tx_packets
            went.bytes += new.tx_bytes

    def passed(self, port: Port) -> dict[str, int]:
        """How many packets of a port were left to Click up to the last `refresh`, by reason."""
        seen = self._seen.get(port.index)
        if seen is None:
            return {}
        return {
            reason.name.lower(): count
            for reason, count in seen.reasons.items()
            if count and not reason.dropped
        }

    @property
    def overflow(self) -> int:
        """Routes that the map has no room for: Click serves them."""
        return self._mirror.overflow

    def close(self) -> None:
        """Everything goes to Click again; may be called twice."""
        if self._live:
            with contextlib.suppress(FastpathError):
                self.refresh()
            self._live = False
            with contextlib.suppress(FastpathError):
                self._engine.close()
