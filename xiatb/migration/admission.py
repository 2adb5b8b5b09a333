"""May a guest come to this host? One row of checks, for a guest that comes and for `migrate --plan`."""

from __future__ import annotations

from collections.abc import Callable

from xiatb.migration.hosting import RefusedError, admit, admit_record
from xiatb.migration.messages import Capabilities, Request
from xiatb.migration.station import Station
from xiatb.migration.storage import admit_storage


def refuse_busy(station: Station, guest: str) -> None:
    """Raise RefusedError when a guest of this name is being moved to or from this host."""
    if guest in station.busy:
        raise RefusedError("busy", f"{guest} is already being moved to or from {station.config.host}")


async def admit_guest(
    station: Station,
    request: Request,
    peer: Capabilities,
    own: Capabilities,
    permit: Callable[[], None],
) -> None:
    """Raise RefusedError unless the guest of `request` may come from the host that `peer` describes to this
    one, which `own` describes; DriverError or OSError when that cannot be found out.

    `permit` raises RefusedError when the policy forbids it. Nothing is made or kept.
    """
    config = station.config
    state = await station.driver.state(request.guest)
    admit_record(request, config.host, config.guests)
    permit()
    admit(request, peer, own, station.facts, state, config.disks, config.shared)
    await admit_storage(request, config)
