"""What a fault has left: where the guest runs, by four witnesses, if it is whole, and what lies about."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from xiatb.errors import XiatbError
from xiatb.experiments.faults.hostview import HostView
from xiatb.experiments.guestcheck import GuestCheck
from xiatb.lab.client import LabClient, ask_node
from xiatb.lab.locate import guest_address
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan

SETTLE_S = 120.0
REACH_S = 30.0
_STEP_S = 0.3
Json = dict[str, Any]


class Aftermath:
    """Looks at one lab and one guest after a migration. What it says are problems; none: as it should be."""

    def __init__(self, plan: Plan, guest: str, views: list[HostView]) -> None:
        self._plan = plan
        self._paths = LabPaths(plan.lab)
        self._guest = guest
        self._hid = plan.guest(guest).hid
        self._views = views

    def settle(self) -> list[str]:
        """Wait until no daemon has a job any more."""
        daemons: Json = {}
        deadline = time.monotonic() + SETTLE_S
        while time.monotonic() < deadline:
            with LabClient(self._plan.lab, timeout=60.0) as lab:
                daemons = lab.request("status")["daemons"]
            if all(
                one.get("migrated") == "running" and not one["outgoing"] and not one["incoming"]
                for one in daemons.values()
            ):
                return []
            time.sleep(_STEP_S)
        return [f"not settled: {daemons}"]

    def runs_on(self) -> list[str]:
        """Hosts whose libvirtd says that the guest runs there."""
        return [view.name for view in self._views if self.state(view).startswith("running")]

    def state(self, view: HostView) -> str:
        """libvirt's state of the guest on a host, "absent" when it does not know it."""
        return view.domains().get(self._guest, "absent")

    def once(self, host: str) -> list[str]:
        """The guest runs on `host` and nowhere else: domains, processes, attachments; it answers."""
        problems = []
        for view in self._views:
            here = view.name == host
            state, processes = self.state(view), view.qemus()
            if state.startswith("running") != here or (state != "absent") != here:
                problems.append(f"libvirtd of {view.name} says {state}")
            if len(processes) != here:
                problems.append(f"QEMU processes on {view.name}: {processes}")
            if not here and view.disk(self._guest).exists():
                problems.append(f"its disk is left on {view.name}")
        return problems + self._reachable(host)

    def _reachable(self, host: str) -> list[str]:
        """Attached to the node of `host` alone, and a packet from another node comes back."""

        def attached() -> bool:
            return [view.name for view in self._views if view.attached(self._hid)] == [host]

        if not _within(REACH_S, attached):
            where = [view.name for view in self._views if view.attached(self._hid)]
            return [f"attached to {where}"]
        return [] if _within(REACH_S, self._answers) else ["it does not answer a ping"]

    def _answers(self) -> bool:
        asker = self._plan.kind("host")[0].name
        dag = guest_address(self._paths, self._plan, self._guest)
        told = ask_node(self._paths, asker, "ping", timeout=10.0, dag=dag, count=1, interval=0.1, size=56)
        return int(told.get("received", 0)) > 0

    def whole(self, check: GuestCheck) -> list[str]:
        """File, disk and memory are what was written; the boot is the same."""
        check.stop_writer()
        problems = [f"{name} is damaged" for name, holds in check.contents().items() if not holds]
        if not check.uptime_monotonic():
            problems.append("it is another boot or its clock went back")
        return problems

    def nowhere(self, died_on: str) -> list[str]:
        """The guest runs nowhere, and its disk is on `died_on` alone."""
        problems = [f"a QEMU process is left on {view.name}" for view in self._views if view.qemus()]
        for view in self._views:
            if view.name != died_on and self.state(view) != "absent":
                problems.append(f"libvirtd of {view.name} says {self.state(view)}")
        with_disk = [view.name for view in self._views if view.disk(self._guest).exists()]
        return problems if with_disk == [died_on] else [*problems, f"its disk is on {with_disk}"]

    def litter(self) -> list[str]:
        """What is left of the migration on either host."""
        return [f"left on {view.name}: {name}" for view in self._views for name in view.litter()]

    def wait_full(self, view: HostView) -> list[str]:
        """Until the guest has stopped for want of room on `view`."""
        if _within(REACH_S, lambda: "I/O error" in self.state(view)):
            return []
        return [f"it does not wait for room on {view.name}: {self.state(view)}"]

    def wait_running(self, view: HostView) -> None:
        """Until it runs there; raises XiatbError."""
        if not _within(REACH_S, lambda: self.state(view).startswith("running")):
            raise XiatbError(f"{self._guest} does not run on {view.name}: {self.state(view)}")


def _within(seconds: float, holds: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            return False
        time.sleep(_STEP_S)
    return True
