"""`xiatb supervise` (hidden): the supervisor process of one lab; its plan comes on standard input.

Here the rooms above `lab` are given to it: guests and the migration daemons.
"""

from __future__ import annotations

import json
import sys

import click

from xiatb.lab.extensions import GuestManager, NodeService
from xiatb.lab.plan import Plan
from xiatb.lab.supervisor import Supervisor


def extensions(plan: Plan) -> tuple[GuestManager | None, list[NodeService]]:
    """Guest manager and further services of a plan; nothing is imported for a lab without guests."""
    if not plan.guests:
        return None, []
    from xiatb.guests.manager import LibvirtGuestManager
    from xiatb.migration.manager import MigrationManager

    return LibvirtGuestManager(), [MigrationManager()]


@click.command(hidden=True)
def command() -> int:
    """Hold a lab (started by `xiatb up`)."""
    plan = Plan.from_json(json.load(sys.stdin))
    guests, services = extensions(plan)
    return Supervisor(plan, guests, services).run()
