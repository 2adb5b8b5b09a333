"""Who gets the host's processors first when they do not suffice.

In the network that a lab emulates, links, routers, guests and clients have processors of their own; here they
share a few. So the emulated network comes first (delay lines run in real time anyway), then measuring
clients and guests, and bulk work of the hypervisors, such as a migration's, gets what is left.
Without the privilege nice(1) says so and runs the command all the same.
"""

from __future__ import annotations

from collections.abc import Sequence

NETWORK = -12
MEASUREMENT = -10
GUEST = -6


def prioritised(argv: Sequence[str], niceness: int) -> list[str]:
    """`argv` to be run at `niceness` (-20 first to 19 last, see setpriority(2)); the pid stays the same."""
    return ["nice", "-n", str(niceness), *argv]
