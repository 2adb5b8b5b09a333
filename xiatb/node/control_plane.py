"""Join and routing of a router or hypervisor host as one machine, which is what its process runs.

It carries attachments from the join service to routing, and newer attachments elsewhere in the AD
back, so that the process only has frames to deliver and effects to carry out.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from random import Random
from typing import NamedTuple

from xiatb.identity.keys import KeyPair
from xiatb.node.effects import Effect, HostJoined, HostLeft, HostMoved, RouterAt
from xiatb.node.join import Caps, JoinConfig, RouterJoin
from xiatb.node.join_messages import Join
from xiatb.node.routing import LinkState, RoutingConfig, RoutingPort
from xiatb.wire.xid import XID


class ControlPort(NamedTuple):
    """A port of a router: its MTU (XIP bytes), routing cost, and whether guests alone are behind it."""

    port: int
    mtu: int = 1500
    cost: int = 1
    guest: bool = False


class ControlPlane:
    """`RouterJoin` and `LinkState` of one node. Ports are down until `link_up`."""

    def __init__(
        self,
        hid_key: KeyPair,
        ad: XID,
        ad_public: bytes,
        cert: bytes,
        ports: Iterable[ControlPort],
        rng: Random,
        *,
        hypervisor: bool = False,
        gateway_ip: bytes = bytes(4),
        join_config: JoinConfig | None = None,
        routing_config: RoutingConfig | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        entropy: Callable[[int], bytes] = os.urandom,
    ) -> None:
        """See `LinkState`, `RouterJoin` for arguments; IdentityError when the certificate does not hold."""
        given = list(ports)
        caps = Caps.ACCEPTS_HOSTS | (Caps.HYPERVISOR if hypervisor else Caps(0))
        self._mtu = {p.port: p.mtu for p in given}
        self._effects: list[Effect] = []
        self.routing = LinkState(
            hid_key,
            ad,
            ad_public,
            cert,
            [RoutingPort(p.port, p.cost, p.guest) for p in given],
            rng,
            config=routing_config,
            clock_ns=clock_ns,
            entropy=entropy,
        )
        self.join = RouterJoin(
            hid_key,
            ad,
            ad_public,
            cert,
            rng,
            ports=self._mtu,
            caps=caps,
            config=join_config,
            gateway_ip=gateway_ip,
            entropy=entropy,
        )

    def effects(self) -> list[Effect]:
        """Return what to do since the last call, in order."""
        out, self._effects = self._effects, []
        return out

    def link_up(self, port: int, now: float, *, mtu: int | None = None) -> None:
        """The link of `port` is up (with a new `mtu`, if given): HELLO and beacon at once.

        Call for each port at start.
        """
        if mtu is not None:
            self._mtu[port] = mtu
        self.routing.link_up(port, now)
        self.join.link_up(port, now, mtu=self._mtu.get(port))
        self._settle(now)

    def link_down(self, port: int, now: float) -> None:
        """The link of `port` is down."""
        self.routing.link_down(port, now)
        self.join.link_down(port, now)
        self._settle(now)

    def receive_join(
        self, port: int, src_mac: bytes, payload: bytes | bytearray | memoryview, now: float
    ) -> None:
        """Take the payload of a 0x9991 frame. Never raises."""
        self.join.receive(port, src_mac, payload, now)
        self._settle(now)

    def receive_routing(self, port: int, payload: bytes | bytearray | memoryview, now: float) -> None:
        """Take the payload of an XDGRAM to SID_XROUTE. Never raises."""
        self.routing.receive(port, payload, now)
        self._settle(now)

    def expect(self, hid: XID, port: int, now: float) -> None:
        """Invite the host `hid` at `port` until it joins; HostJoined tells of that."""
        self.join.expect(hid, port, now)
        self._settle(now)

    def invitation(self, hid: XID, port: int, now: float) -> bytes:
        """An INVITE for `hid` at `port`, to be handed to it before it comes here."""
        return self.join.invitation(hid, port, now)

    def arrival(self, port: int, join: Join, now: float, silent_until: float) -> None:
        """Attach a host by a JOIN that came before it; `accept_again` tells it when it runs."""
        self.join.arrival(port, join, now, silent_until)
        self._settle(now)

    def accept_again(self, hid: XID, now: float) -> bool:
        """Repeat the ACCEPT of a host; False when it is not attached here."""
        known = self.join.accept_again(hid)
        self._settle(now)
        return known

    def gone(self, hid: XID, now: float) -> None:
        """`hid` has moved away; it may be expected back."""
        self.join.gone(hid)
        self._settle(now)

    def detach(self, hid: XID, now: float, *, tell: bool = False) -> None:
        """Forget the host `hid`; with `tell` it is sent a LEAVE."""
        self.join.detach(hid, now, tell=tell)
        self._settle(now)

    def close(self, now: float) -> None:
        """The node shuts down: hosts and neighbours are told."""
        self.join.close(now)
        self.routing.close(now)
        self._settle(now)

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        self.join.tick(now)
        self.routing.tick(now)
        self._settle(now)

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, or None."""
        due = [d for d in (self.join.next_deadline(), self.routing.next_deadline()) if d is not None]
        return min(due, default=None)

    def _settle(self, now: float) -> None:
        """Carry events between the two machines until neither has any more for the other."""
        while True:
            from_join, from_routing = self.join.effects(), self.routing.effects()
            if not from_join and not from_routing:
                return
            for effect in from_join:
                self._effects.append(effect)
                if isinstance(effect, HostJoined):
                    self.routing.attach(effect.hid, effect.port, effect.record, now)
                elif isinstance(effect, HostLeft):
                    self.routing.detach(effect.hid, now)
            for effect in from_routing:
                if isinstance(effect, HostMoved):
                    self.join.moved(effect.hid, effect.seq)
                elif isinstance(effect, RouterAt):
                    self.join.router_at(effect.port, effect.present, now)
                else:
                    self._effects.append(effect)
