"""What all jobs of one daemon share: its configuration, libvirt, the node, the journal, and who is being
moved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from xiatb.errors import IdentityError
from xiatb.migration import hosting
from xiatb.migration.config import DaemonConfig
from xiatb.migration.consent import ConsentBook
from xiatb.migration.driver import Driver, HostFacts
from xiatb.migration.hosting import RefusedError
from xiatb.migration.journal import Journal
from xiatb.migration.messages import Capabilities, Request
from xiatb.migration.nodeaccess import NodeAccess
from xiatb.migration.tlswire import TlsIdentity
from xiatb.wire.xid import XID


@dataclass
class Station:
    """One hypervisor host. `busy` holds the names of guests that are moving from or to it."""

    config: DaemonConfig
    driver: Driver
    node: NodeAccess
    journal: Journal
    facts: HostFacts
    busy: set[str] = field(default_factory=set)
    sid: XID | None = None
    tls: TlsIdentity = field(default_factory=TlsIdentity)

    def permit(self, request: Request, source: str, destination: str) -> None:
        """Raise RefusedError unless the policy here lets the guest move; at the destination (which `sid`
        names) a consent that comes with the request is used up."""
        host = self.config.host
        if request.consent is not None and destination == host:
            book = ConsentBook(self.config.state_dir / "consents.json")
            try:
                if self.sid is None:
                    raise IdentityError("this daemon does not know its SID")
                book.take(request.consent, request.hid, self.sid)
            except IdentityError as error:
                raise RefusedError("consent", f"{host}: {error.message}") from None
        self.allow(request, source, destination, consent=request.consent is not None)

    def allow(self, request: Request, source: str, destination: str, *, consent: bool) -> None:
        """Raise RefusedError unless the policy here lets the guest move; `consent`: with the guest's own."""
        refusal = self.config.policy.refusal(
            request.guest, source, destination, encrypted=bool(request.tls), consent=consent
        )
        if refusal:
            raise RefusedError("policy", f"{self.config.host}: {refusal}")

    async def capabilities(self, accel: str = "") -> Capabilities:
        """What this host tells peers about itself; `accel` is that of the guest at hand, at a source."""
        config = self.config
        return Capabilities(
            host=config.host,
            qemu=self.facts.qemu,
            libvirt=self.facts.libvirt,
            machines=self.facts.machines[:512],
            accel=accel or config.accel,
            memory_free=hosting.memory_free(config.memory_reserve),
            disk_free=await asyncio.to_thread(hosting.disk_free, config.disks),
            images=hosting.images_held(config.images),
        )
