"""Link-state routing of one router: the machine that ties neighbours, flooding and paths together.

Sans-IO: payloads of XDGRAM to SID_XROUTE and `now` (monotonic seconds) in, effects out.
docs/protocol-routing.md tells the protocol and why a router believes what it hears.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable
from random import Random
from typing import Any, NamedTuple

from xiatb.errors import IdentityError, WireError
from xiatb.identity.keys import KeyPair
from xiatb.node import routing_messages as rm
from xiatb.node.adjacency import Adjacencies, Neighbour, RoutingPort
from xiatb.node.effects import DelRoute, Effect, HostMoved, Log, RouterAt, SetRoute
from xiatb.node.flooding import Flooding
from xiatb.node.join_messages import parse_record
from xiatb.node.lsa import Lsa, LsaType, LsaVerifier
from xiatb.node.lsdb import Lsdb
from xiatb.node.membership import Membership, MembershipCache, pack_credentials
from xiatb.node.origination import Origination
from xiatb.node.routes import Local, RouteComputer, host_entry, own_adlinks, own_links
from xiatb.wire.walk import Entry
from xiatb.wire.xid import XID, XidType

# Paths are computed 2 ms after the first change, and not more often than every 25 ms; in a large lab the
# pause doubles as long as changes keep coming, up to 25 ms times the square of its pace.
SPF_SETTLE = 0.002
SPF_HOLD = 0.025


class RoutingConfig(NamedTuple):
    """Times in seconds: HELLO interval and after which silence a neighbour is gone. `pace` stretches what
    else takes its time: acknowledgements, how often links are told and paths computed; lifetimes, as what
    refreshing costs grows with routers and with the links that an advertisement crosses, by its cube."""

    hello: float = 1.0
    dead: float = 3.5
    pace: int = 1

    def paced(self, pace: int) -> RoutingConfig:
        """For a lab with `pace` times as many routers as one that keeps the times above."""
        return RoutingConfig(self.hello * pace, self.dead * pace, pace)


class LinkState:
    """Routing of the router of `hid_key` in `ad`; ports are down until `link_up`."""

    def __init__(
        self,
        hid_key: KeyPair,
        ad: XID,
        ad_public: bytes,
        cert: bytes,
        ports: Iterable[RoutingPort],
        rng: Random,
        *,
        config: RoutingConfig | None = None,
        clock_ns: Callable[[], int] = time.time_ns,
        entropy: Callable[[int], bytes] = os.urandom,
        cache: MembershipCache | None = None,
    ) -> None:
        """`ad_public` (32) and `cert` (64 bytes, membership.issue) prove that we belong to `ad`.

        `clock_ns` gives the time-based sequence numbers, `entropy` our instance number, `rng`
        jitters timers. IdentityError when the certificate does not hold.
        """
        config = config or RoutingConfig()
        self._cache = cache or MembershipCache()
        credentials = pack_credentials(hid_key.public, ad_public, cert)
        self._me: Membership = self._cache.check(credentials)
        if self._me.ad != ad:
            raise IdentityError(f"the certificate is of {self._me.ad}, not of {ad}")
        me = self._me.hid.id
        self.lsdb = Lsdb()
        self.stats = {"malformed": 0, "forged": 0, "unknown": 0, "spf": 0, "accepted": 0}
        self._effects: list[Effect] = []
        self._routes: dict[bytes, Entry] = {}
        self._local: dict[bytes, Local] = {}
        self._spf_at: float | None = None
        self._spf_last = float("-inf")
        self._spf_hold = SPF_HOLD
        self._spf_longest = SPF_HOLD * config.pace**2
        self._flush_at: float | None = None
        self._verifier = LsaVerifier(ad, self._cache)
        self._flooding = Flooding(me, ad.id, self.lsdb, config.pace)
        self._adjacencies = Adjacencies(
            hid_key,
            me,
            credentials,
            rng,
            self._cache,
            hello=config.hello,
            dead=config.dead,
            clock_ns=clock_ns,
            entropy=entropy,
            digests=lambda: (self.lsdb.digest_ad, self.lsdb.digest_global),
            changed=self._neighbour_changed,
        )
        for port in ports:
            self._adjacencies.add_port(port)
        self._own = Origination(hid_key, me, credentials, rng, clock_ns, self._publish, pace=config.pace)
        self._computer = RouteComputer(self._me, self._adjacencies, self._cache)

    def effects(self) -> list[Effect]:
        """Return what to do since the last call, in order."""
        out, self._effects = self._effects, []
        return out

    # Events from the node

    def add_port(self, port: RoutingPort) -> None:
        """Make one more port known; it is down until `link_up`."""
        self._adjacencies.add_port(port)

    def link_up(self, port: int, now: float) -> None:
        """The link of `port` is up. Call for each port at start."""
        self._own.links_changed(now)
        self._adjacencies.link_up(port, now)
        self._finish(now)

    def link_down(self, port: int, now: float) -> None:
        """The link of `port` is down."""
        self._adjacencies.link_down(port, now)
        self._finish(now)

    def attach(self, hid: XID, port: int, record: bytes, now: float) -> None:
        """The host `hid` joined at `port`; `record` is its JOIN. Its route is set before this returns."""
        entry = host_entry(port, hid.id)
        self._local[hid.id] = Local(port, parse_record(record).seq)
        self._hosts_changed()
        if self._routes.get(hid.key) != entry:
            self._routes[hid.key] = entry
            self._effects.append(SetRoute(hid.key, entry))
        self._own.attach(hid.id, record, now)
        self._finish(now)

    def detach(self, hid: XID, now: float) -> None:
        """The host `hid` is no longer attached here; its route goes or follows it at once."""
        if self._local.pop(hid.id, None) is None:
            return
        self._hosts_changed()
        self._own.detach(hid.id, now)
        self._compute(now)
        self._finish(now)

    def _hosts_changed(self) -> None:
        self._adjacencies.hosts = {local.port for local in self._local.values()}

    def close(self, now: float) -> None:
        """The router shuts down: neighbours are told."""
        self._adjacencies.goodbye(now)
        self._finish(now)

    def receive(self, port: int, payload: bytes | bytearray | memoryview, now: float) -> None:
        """Take a routing message that came in at `port`. Never raises."""
        try:
            self._dispatch(port, rm.parse(payload), now)
        except WireError:
            self.stats["malformed"] += 1
        except IdentityError as error:
            self._forged(port, error)
        self._finish(now)

    def tick(self, now: float) -> None:
        """Do what is due at `now`."""
        self._adjacencies.tick(now)
        if self._own.links_due(now):
            links = own_links(self._adjacencies, self._me.ad)
            self._own.set_links(links, own_adlinks(self._adjacencies, self._me.ad), now)
        self._own.tick(now)
        self._flooding.tick(self._adjacencies.up(), now)
        if self.lsdb.expire(now):
            self._spf_soon(now)
        if self._spf_at is not None and self._spf_at <= now:
            self._compute(now)
        self._finish(now)
        self._effects += self._flooding.flush(now)
        self._flush_at = None

    def next_deadline(self) -> float | None:
        """Return when `tick` has something to do, or None."""
        if self._flush_at is not None:
            return self._flush_at
        due = min(self._adjacencies.next_deadline(), self._own.next_deadline())
        for neighbour in self._adjacencies.up():
            if neighbour.resend_at is not None:
                due = min(due, neighbour.resend_at)
        for moment in (self._spf_at, self.lsdb.next_expiry()):
            if moment is not None:
                due = min(due, moment)
        return None if due == float("inf") else due

    def status(self, now: float) -> dict[str, Any]:
        """Return neighbours, sizes and counters as JSON-able values."""
        neighbours = [
            {
                "hid": str(n.member.hid),
                "ad": str(n.member.ad),
                "port": n.port,
                "up": n.up,
                "heard_s": round(now - n.heard, 3),
                "unacknowledged": len(n.pending),
            }
            for n in self._adjacencies.neighbours()
        ]
        counters = {**self.stats, **self._adjacencies.stats, **self._flooding.stats}
        return {"neighbours": neighbours, "lsas": len(self.lsdb), "routes": len(self._routes), **counters}

    # Messages

    def _dispatch(self, port: int, message: rm.Message, now: float) -> None:
        if isinstance(message, rm.Hello):
            neighbour = self._adjacencies.receive(port, message, now)
            if neighbour is not None and self._flooding.differs(neighbour, now):
                self._effects += self._flooding.digest(neighbour, now)
            return
        neighbour = self._adjacencies.find(port, message.sender)
        if neighbour is None:
            self.stats["unknown"] += 1
            return
        if isinstance(message, rm.Update):
            self._on_update(neighbour, message, now)
        elif message.target not in (rm.EVERYONE, self._me.hid.id):
            return
        elif isinstance(message, rm.Ack):
            self._flooding.acknowledged(neighbour, message.ids)
        elif isinstance(message, rm.Digest):
            self._effects += self._flooding.compare(neighbour, message)
        else:
            for key in message.keys:
                lsa = self.lsdb.get(key)
                if lsa is not None:
                    self._flooding.queue(neighbour, lsa)

    def _on_update(self, neighbour: Neighbour, update: rm.Update, now: float) -> None:
        acks = []
        for age_ms, lsa in update.items:
            if not self._flooding.may_have(neighbour, lsa.key):
                self.stats["forged"] += 1
                continue
            try:
                self._on_lsa(neighbour, age_ms, lsa, now)
            except IdentityError as error:
                self._forged(neighbour.port, error)
                continue
            acks.append(lsa.ack)
        self._flooding.owe(neighbour, acks)

    def _on_lsa(self, neighbour: Neighbour, age_ms: int, lsa: Lsa, now: float) -> None:
        """Take one advertisement; IdentityError when it is not its origin's word."""
        if age_ms >= lsa.lifetime * 1000:
            return
        if not self.lsdb.wants(lsa.key, lsa.seq):
            self._flooding.superseded(neighbour, lsa)
            ours = self.lsdb.get(lsa.key)
            if ours is not None and ours.seq > lsa.seq:
                self._flooding.queue(neighbour, ours)
            return
        self._verifier.check(lsa)
        self._flooding.superseded(neighbour, lsa)
        if lsa.origin == self._me.hid.id:
            self._own.answer(lsa, now)
            return
        self._take(lsa, age_ms, now, neighbour)

    def _publish(self, lsa: Lsa, now: float) -> None:
        self._take(lsa, 0, now, None)

    def _take(self, lsa: Lsa, age_ms: int, now: float, source: Neighbour | None) -> None:
        """Store an advertisement, pass it on to all but where it came from, and act on it."""
        old = self.lsdb.insert(lsa, age_ms, now)
        self.stats["accepted"] += 1
        for neighbour in self._adjacencies.up():
            if neighbour is not source:
                self._flooding.queue(neighbour, lsa)
        if old is None or old.body != lsa.body or old.flags != lsa.flags:
            self._spf_soon(now)
        if lsa.type == LsaType.ATTACH and source is not None:
            self._host_elsewhere(lsa, now)

    def _host_elsewhere(self, lsa: Lsa, now: float) -> None:
        """A host joined another router of the AD: if that is later than here, it has left us."""
        join = lsa.attachment
        if join is None:
            return
        here = self._local.get(lsa.object)
        host, router = XID(XidType.HID, lsa.object), XID(XidType.HID, lsa.origin)
        if here is not None and here.seq < join.seq:
            del self._local[lsa.object]
            self._hosts_changed()
            self._own.detach(lsa.object, now)
            self._spf_at = now
        self._effects.append(HostMoved(host, join.seq, router))

    def _neighbour_changed(self, neighbour: Neighbour, now: float) -> None:
        self._own.links_changed(now)
        self._spf_soon(now)
        present = any(other.port == neighbour.port for other in self._adjacencies.up())
        self._effects.append(RouterAt(neighbour.port, present))
        if neighbour.up:
            self._effects += self._flooding.digest(neighbour, now)

    # Routes

    def _spf_soon(self, now: float) -> None:
        if self._spf_at is not None:
            return
        if now - self._spf_last < 2 * self._spf_hold:
            self._spf_at = max(now + SPF_SETTLE, self._spf_last + self._spf_hold)
            self._spf_hold = min(self._spf_longest, self._spf_hold * 2)
        else:
            self._spf_at = now + SPF_SETTLE
            self._spf_hold = SPF_HOLD

    def _compute(self, now: float) -> None:
        self._spf_at = None
        self._spf_last = now
        self.stats["spf"] += 1
        routes = self._computer.compute(self.lsdb, self._local)
        for key, entry in routes.items():
            if self._routes.get(key) != entry:
                self._effects.append(SetRoute(key, entry))
        self._effects += [DelRoute(key) for key in self._routes if key not in routes]
        self._routes = routes

    def _forged(self, port: int, error: IdentityError) -> None:
        self.stats["forged"] += 1
        self._effects.append(Log("warning", f"routing message at port {port} refused: {error}"))

    def _finish(self, now: float) -> None:
        """Collect what the parts want done, in the order in which it came about; flooding waits for `tick`,
        so that all that is there to be read is read first."""
        self._effects += self._adjacencies.effects
        self._adjacencies.effects = []
        if self._flush_at is None and self._flooding.waiting:
            self._flush_at = now
