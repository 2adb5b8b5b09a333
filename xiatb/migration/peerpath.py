"""How a source reaches one peer's daemon."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from xiatb.migration.channels import Dial
from xiatb.migration.control_link import ControlLink
from xiatb.migration.tlswire import TlsIdentity
from xiatb.migration.wirestream import Wire


@dataclass(frozen=True)
class PeerPath:
    """New control sessions with a peer, and streams for channels of a kind."""

    peer: str
    control: Callable[[], Awaitable[ControlLink]]
    channel: Dial

    async def secured(self, tls: TlsIdentity, pin: str, kind: str) -> Wire:
        """A stream for a channel of this kind, encrypted unless `pin` is empty; raises as `channel` does, and
        IdentityError."""
        wire = await self.channel(kind)
        if not pin:
            return wire
        try:
            return await tls.connect(wire, pin)
        except BaseException:
            wire.abort()
            raise
