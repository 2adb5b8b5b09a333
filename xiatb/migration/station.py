"""What all jobs of one daemon share: its configuration, libvirt, the node, the journal, and who is being
moved."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field

from xiatb.migration import hosting
from xiatb.migration.config import DaemonConfig
from xiatb.migration.driver import Driver, HostFacts
from xiatb.migration.journal import Journal
from xiatb.migration.messages import Capabilities
from xiatb.migration.nodeaccess import NodeAccess


@dataclass
class Station:
    """One hypervisor host. `busy` holds the names of guests that are moving from or to it."""

    config: DaemonConfig
    driver: Driver
    node: NodeAccess
    journal: Journal
    facts: HostFacts
    busy: set[str] = field(default_factory=set)

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
