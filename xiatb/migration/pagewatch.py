"""All memory channels of one migration, watched at one side: which parser sees which channel, when all pages
have passed, and whether the other side has seen the same.

The observers sit in the relays before encryption and after decryption, and never change a byte. Counts and
digests are in the ledger (`pageledger`); the destination's digests come in the message `pages`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from xiatb.migration.messages import Faults, Pages
from xiatb.migration.multifdstream import MultifdStream
from xiatb.migration.pageledger import PageLedger, differences
from xiatb.migration.qemustream import QemuStream
from xiatb.migration.relay import Observer
from xiatb.migration.returnpath import ReturnPath

Clock = Callable[[], int]


@dataclass(frozen=True)
class Verdict:
    """verified: True when every page arrived as it was sent, False when not (`places` says where), None when
    it cannot be told (`reason` says why)."""

    verified: bool | None
    reason: str = ""
    places: tuple[str, ...] = ()

    def as_dict(self) -> dict[str, Any]:
        """For the result file."""
        return {"verified": self.verified, "reason": self.reason, "places": list(self.places)}


UNTOLD = Verdict(None, "the destination has not told its digests")


class PageWatch:
    """Give each memory channel the observers of `channel`, in the order in which channels open.

    `on_settled` is called once: when all pages have passed, or when a parser has given up. `cpu` gives the
    nanoseconds of processor time that this thread has used.
    """

    def __init__(
        self,
        streams: int = 1,
        on_settled: Callable[[], None] = lambda: None,
        cpu: Clock = time.thread_time_ns,
    ) -> None:
        self.ledger = PageLedger()
        self.stream = QemuStream(ledger=self.ledger)
        self.returns = ReturnPath(self.ledger)
        self.recovered = False
        self.cpu_ns = 0
        self.theirs: Pages | None = None
        self._several = streams > 1
        self._channels: list[MultifdStream] = []
        self._opened = 0
        self._on_settled = on_settled
        self._told = False
        self._cpu = cpu

    def channel(self) -> tuple[Observer, Observer]:
        """Observers for the next memory channel: of what goes to the destination, and of what comes back."""
        self._opened += 1
        if self._opened == 1:
            return self._costed(self._main), self._costed(self.returns.feed)
        if self._several:
            channel = MultifdStream(self.ledger)
            self._channels.append(channel)
            return self._costed(channel.feed), lambda data: None
        self.recovered = True
        self._told = False
        self.stream.resumed()
        self.returns.resumed()
        return self._costed(self.stream.feed), self._costed(self.returns.feed)

    def _main(self, data: bytes) -> None:
        self.stream.feed(data)
        for channel in self._channels:
            if channel.waiting:
                channel.feed(b"")

    def _costed(self, feed: Observer) -> Observer:
        def observe(data: bytes) -> None:
            before = self._cpu()
            feed(data)
            self.cpu_ns += self._cpu() - before
            if not self._told and (self.complete or self.trouble):
                self._told = True
                self._on_settled()

        return observe

    def next_pass(self, t: int) -> None:
        """QEMU's own event: a pass after the first began at `t` (monotonic nanoseconds)."""
        self.ledger.begin_pass(t)

    @property
    def complete(self) -> bool:
        """All pages have passed, on all channels."""
        main = self.stream
        return main.off in ("tail", "end") and all(one.syncs >= main.ends for one in self._channels)

    @property
    def trouble(self) -> str:
        """Why counting stopped before the end; "" when it did not."""
        return next((off for off in (self.stream.trouble, *(c.off for c in self._channels)) if off), "")

    def pages(self, job: str) -> Pages:
        """The destination's message: its digests, or why it has none; fault latencies of a post-copy."""
        faults = self.ledger.fault_summary()
        return Pages(
            job=job,
            off=self.trouble[:200],
            final=self.recovered,
            digests={} if self.trouble else self.ledger.summary(self.recovered),
            cost=self.cost_ns(),
            faults=Faults(
                count=int(faults["count"]),
                p50_us=int(1000 * faults.get("p50_ms", 0)),
                p99_us=int(1000 * faults.get("p99_ms", 0)),
                max_us=int(1000 * faults.get("max_ms", 0)),
            ),
        )

    def verdict(self) -> Verdict:
        """Ours compared with what the destination has told (`theirs`)."""
        if self.trouble:
            return Verdict(None, self.trouble)
        if self.theirs is None:
            return UNTOLD
        if self.theirs.off:
            return Verdict(None, f"destination: {self.theirs.off}")
        if not self.complete:
            return Verdict(None, "the memory channels have not ended")
        ours = self.ledger.summary(self.theirs.final)
        places = tuple(differences(ours, self.theirs.digests, self.ledger.region))
        return Verdict(not places, f"{len(places)} places differ" if places else "", places)

    def cost_ns(self) -> int:
        """Processor time per page, in nanoseconds."""
        seen = self.ledger.totals
        return self.cpu_ns // max(1, seen.zero + seen.normal + seen.xbzrle)

    def report(self) -> dict[str, Any]:
        """Counts, passes, cost; and what the destination has told of the faults of a post-copy."""
        entry = self.stream.as_dict()
        entry["off"] = self.trouble
        entry["cost_us_per_page"] = {"source": round(self.cost_ns() / 1000, 2)}
        if self._channels:
            entry["multifd"] = [one.pages for one in self._channels]
        if self.theirs is not None:
            entry["cost_us_per_page"]["destination"] = round(self.theirs.cost / 1000, 2)
            # Seen at the source a fault has no journey; what the guest waited is told by the destination.
            entry.pop("faults", None)
            if self.theirs.faults.count:
                entry["faults"] = _milliseconds(self.theirs.faults)
        return entry


def _milliseconds(faults: Faults) -> Mapping[str, float | int]:
    return {
        "count": faults.count,
        "p50_ms": faults.p50_us / 1000,
        "p99_ms": faults.p99_us / 1000,
        "max_ms": faults.max_us / 1000,
    }
