"""Who in a guest gets its processor first: what serves clients, then the agent, then what makes load.

Nice values as of setpriority(2), from -20 (first) to 19. They count among all processes of a guest: its
kernel does not group them by session (`noautogroup`, `xiatb.guests.recipe`).
"""

from __future__ import annotations

import contextlib
import os

NODE = -10
"""The guest's node process: on it depends how soon a guest has its new address."""
SERVICES = {"responder": -19, "echo": -10, "ip_echo": -10}
"""By kind, LOAD for others. What answers single requests goes before streams, which have buffers to wait in,
and those before what only makes load. Under TCG a guest that has just been moved runs every piece of code for
the first time: some 50 ms for a datagram's way and again for a stream's, so its clients see the order."""
AGENT = -5
"""A delegation is to be signed in time, whatever load the guest has."""
LOAD = 0
"""Services that only make load, and commands of the user's."""


def take(niceness: int) -> None:
    """Gives this process the niceness; without the privilege it keeps its own."""
    with contextlib.suppress(PermissionError):  # only the tests' agent lacks the right
        os.setpriority(os.PRIO_PROCESS, 0, niceness)


def become_load() -> None:
    """In a new child, before it becomes a command of the user's: not the agent's niceness."""
    take(LOAD)
