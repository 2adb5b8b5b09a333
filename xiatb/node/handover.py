"""A router's part in the move of a guest: made ready before it comes, redirected after it has gone.

At the destination: `prepare` gives the INVITE that the guest answers in advance, `delegate` keeps the
answer, `arrive` uses it, as soon as the guest has stopped at its source: from then on its packets wait in
front of it. At the source: `redirect` sends what still comes for the guest on to where it goes, for some
seconds, while its old attachment stands; `stay` takes that back when it runs on here.
"""

from __future__ import annotations

import asyncio
import time
from typing import TYPE_CHECKING, Any

from xiatb.click.packet import Packet
from xiatb.errors import WireError, XiatbError
from xiatb.node.context import write_log
from xiatb.node.control_protocol import ControlError
from xiatb.node.delegation import delegation
from xiatb.node.effects import HostJoined
from xiatb.node.join_messages import Join
from xiatb.node.routes import host_entry
from xiatb.wire import xarp
from xiatb.wire.dag import DAG
from xiatb.wire.dagops import append
from xiatb.wire.xid import XID, XidType

if TYPE_CHECKING:
    from xiatb.node.control_plane import ControlPlane
    from xiatb.node.gateway_cores import GatewayCores

MAX_HELD = 256
TELL_S = 0.15
"""From RESUME until the guest is told where it is. Until then it answers the requests that waited for it, by
its old address; to believe a new one and to tell its peers costs a TCG guest some 80 ms of its processor,
which would add to the downtime if it came first."""
UNRESUMED_S = 2.0
"""The same from the attachment, for a RESUME that nobody reports."""
MAX_REDIRECT = 60.0
"""Longest redirection in seconds; who has not heard of the move by then asks the rendezvous service."""
_ETH_P_XARP = b"\x99\x90"


class Handover:
    """Guests that are about to come to this router or have just left it."""

    def __init__(self, cores: GatewayCores, plane: ControlPlane, ad: XID) -> None:
        self._cores = cores
        self._node = cores.node
        self._plane = plane
        self._ad = ad
        self._held: dict[bytes, tuple[int, Join]] = {}
        self._away: dict[bytes, tuple[asyncio.TimerHandle, int]] = {}
        self._untold: dict[bytes, asyncio.TimerHandle] = {}
        self.stats = {"delegations": 0, "delegations_used": 0, "redirects": 0}

    # Destination

    def prepare(self, hid: XID, port: int) -> bytes:
        """The INVITE for a guest that will come to `port`; the guest answers it by a JOIN for `delegate`."""
        self._held.pop(hid.id, None)
        message = self._plane.invitation(hid, port, time.monotonic())
        self._cores.run()
        return message

    def delegate(self, hid: XID, port: int, raw: bytes) -> None:
        """Keep a guest's JOIN until `arrive`. Raises ControlError EACCES when it is not the guest's or not
        for here, ENOBUFS when too many are kept."""
        try:
            join = delegation(raw, hid, self._node.hid, self._ad)
        except XiatbError as error:
            raise ControlError("EACCES", error.message) from error
        if len(self._held) >= MAX_HELD and hid.id not in self._held:
            raise ControlError("ENOBUFS", f"{MAX_HELD} guests are awaited already")
        self._held[hid.id] = (port, join)
        self.stats["delegations"] += 1

    def arrive(self, hid: XID, port: int) -> bool:
        """The guest has stopped elsewhere, or runs here: attach it by its delegation and say so.

        True when it is attached by one; called again, it runs and will be told so after TELL_S. Otherwise it
        must be invited.
        """
        self.stay(hid)
        held = self._held.get(hid.id)
        if held is None or held[0] != port:
            return False
        join, now = held[1], time.monotonic()
        here = self._plane.join.hosts.get(hid.id)
        if here is not None and here.seq == join.seq:
            del self._held[hid.id]
            self._tell_after(TELL_S, hid)
            self._announce(hid)  # again: the first may have met a network that was not ready
            self._node.host_joined(HostJoined(hid, port, here.mac, here.seq, here.record))
            return True
        self._plane.arrival(port, join, now, now + UNRESUMED_S)
        self._cores.run()
        here = self._plane.join.hosts.get(hid.id)
        if here is None or here.seq != join.seq:
            write_log("warning", f"the delegation of {hid} is no longer good")
            del self._held[hid.id]
            return False
        self.stats["delegations_used"] += 1
        self._tell_after(UNRESUMED_S, hid)
        return True

    def joined(self, hid: XID, port: int) -> None:
        """A host has joined at `port`. A guest, by itself or by delegation, is announced to the links; other
        hosts are on a link themselves."""
        if self._node.ports[port].role == "guest":
            self._announce(hid)

    def _tell_after(self, seconds: float, hid: XID) -> None:
        self._forget_telling(hid)
        self._untold[hid.id] = self._node.loop.call_later(seconds, self._tell, hid)

    def _forget_telling(self, hid: XID) -> None:
        waiting = self._untold.pop(hid.id, None)
        if waiting is not None:
            waiting.cancel()

    def _tell(self, hid: XID) -> None:
        """Its ACCEPT makes the guest move its sessions to this router."""
        del self._untold[hid.id]
        self._plane.accept_again(hid, time.monotonic())
        self._cores.run()

    def _announce(self, hid: XID) -> None:
        """Tell all links by XARP that the guest is behind this router now."""
        for port in self._node.ports[1:]:
            if port.role == "link" and port.up:
                message = xarp.unsolicited(port.mac, hid.key)
                frame = bytearray(xarp.BROADCAST_MAC + port.mac + _ETH_P_XARP + message)
                self._node.inject(f"lc{port.index}/inject", Packet(frame, port=port.index))

    # Source

    def redirect(self, hid: XID, to: DAG, seconds: float) -> None:
        """The guest goes to the router with locator `to`: send packets for it there, for `seconds`; then it
        is detached here.

        Raises ControlError ENOENT when it is not attached here, ENOTSUP when the graph cannot redirect,
        EINVAL for an address that is no locator.
        """
        element = self._element()
        if hid.id not in self._plane.join.hosts:
            raise ControlError("ENOENT", f"{hid} is not attached here")
        if element is None:
            raise ControlError("ENOTSUP", "this node's graph has no core/local/moved")
        self._end_redirection(hid)
        element.moved[hid.key] = behind_router(to, hid, self._ad)
        self._node.tables.remove(hid.key)
        timer = self._node.loop.call_later(min(seconds, MAX_REDIRECT), self._gone, hid)
        self._away[hid.id] = (timer, self._plane.join.hosts[hid.id].seq)
        self.stats["redirects"] += 1

    def away(self, hid: XID) -> bool:
        """Whether the guest, still attached here, has gone: its packets are sent on."""
        return hid.id in self._away

    def stay(self, hid: XID) -> None:
        """The guest runs on here, or is back: no redirection any more."""
        if not self._end_redirection(hid):
            return
        here = self._plane.join.hosts.get(hid.id)
        if here is not None:
            self._node.tables.set(hid.key, host_entry(here.port, hid.id))

    def heard(self) -> None:
        """A join message was taken: a guest that has joined here anew is not away, whoever said so."""
        for hid, (_, seq) in list(self._away.items()):
            here = self._plane.join.hosts.get(hid)
            if here is not None and here.seq > seq:
                self.stay(here.hid)

    def drop(self, hid: XID) -> None:
        """Forget all about the guest; what may stand of its attachment is not touched."""
        self._held.pop(hid.id, None)
        self._forget_telling(hid)
        self._end_redirection(hid)

    def close(self) -> None:
        """Ends the timers."""
        for timer in (*(timer for timer, _ in self._away.values()), *self._untold.values()):
            timer.cancel()
        self._away.clear()
        self._untold.clear()

    def _gone(self, hid: XID) -> None:
        """The time is up; the guest may be on its way back already."""
        self._end_redirection(hid)
        self._plane.gone(hid, time.monotonic())
        self._cores.run()

    def _end_redirection(self, hid: XID) -> bool:
        """Whether there was one."""
        element = self._element()
        if element is not None:
            element.moved.pop(hid.key, None)
        away = self._away.pop(hid.id, None)
        if away is not None:
            away[0].cancel()
        return away is not None

    def _element(self) -> Any:
        return self._node.router.elements.get("core/local/moved")


def behind_router(to: DAG, hid: XID, own_ad: XID) -> DAG:
    """The address of guest `hid` at the router with locator `to`.

    In another AD that is the locator with the router's HID replaced, no longer than what the sender wrote,
    so that packets of full size pass; in one's own it leads through the router, since routes for the guest
    may not have changed yet. Raises ControlError EINVAL.
    """
    try:
        if to.intent.type != XidType.HID or not any(node.type == XidType.AD for node in to.nodes):
            raise ControlError("EINVAL", f"{to} is not the locator of a router")
        if own_ad in to.nodes:
            return append(to, DAG.chain(hid))
        return DAG((*to.nodes[:-1], hid), to.edges, to.entry)
    except WireError as error:
        raise ControlError("EINVAL", error.message) from error
