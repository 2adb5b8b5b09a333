"""The destination's side of `migrate --plan`: the checks of an admission, and the end of a probe of the path.
Nothing is made or kept for the guest."""

from __future__ import annotations

import hmac
from functools import partial

from xiatb.errors import IdentityError, XiatbError
from xiatb.migration import probe, tokens
from xiatb.migration.admission import admit_guest, refuse_busy
from xiatb.migration.channels import refuse
from xiatb.migration.hosting import RefusedError
from xiatb.migration.messages import Capabilities, Channel, Request
from xiatb.migration.station import Station
from xiatb.migration.tokens import ChannelOpen, TokenBook
from xiatb.migration.wirestream import Wire


class Examiner:
    """Of one control session; `channel_key` is the session's, `source` the peer's name."""

    def __init__(self, station: Station, request: Request, source: str, channel_key: bytes) -> None:
        self._station = station
        self._request = request
        self._source = source
        self.book = TokenBook(request.job, channel_key)

    async def verdict(self, peer: Capabilities, own: Capabilities) -> tuple[str, str]:
        """("", "") when the guest may come, else code and reason of the reject that a request would get. A
        guest that can sign is taken to consent."""
        try:
            await self._check(peer, own)
        except RefusedError as error:
            return error.code, error.message
        except (XiatbError, OSError) as error:
            return "failed", str(error)
        return "", ""

    async def _check(self, peer: Capabilities, own: Capabilities) -> None:
        request, station = self._request, self._station
        refuse_busy(station, request.guest)
        allow = partial(station.allow, request, self._source, own.host, consent=bool(request.hid))
        await admit_guest(station, request, peer, own, allow)

    def grant(self) -> tuple[Channel, ...]:
        """A channel for the probe."""
        return self.book.grant("probe", 1)

    async def take(self, opening: ChannelOpen, wire: Wire, pin: str) -> None:
        """A stream that asks to be the probe; `pin` is the hash of the certificate that it has shown."""
        try:
            if not hmac.compare_digest(pin, self._request.tls):
                raise IdentityError("the probe is not encrypted as was said")
            self.book.redeem(opening)
        except IdentityError as error:
            await refuse(wire, error.message)
            return
        await wire.write(tokens.pack_answer())
        await probe.receive(wire)
        await wire.close()
