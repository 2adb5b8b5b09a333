"""The faults as acts on a real lab, each undone by what it gives back."""

from __future__ import annotations

import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.errors import UsageError, XiatbError
from xiatb.experiments.demo import inter_ad_link
from xiatb.lab import process
from xiatb.lab.client import LabClient
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.process import ProcessId
from xiatb.lab.state import read_state

IMAGES = "var/lib/libvirt/images"
STALL_S = 10.0
CUT_S = 75.0
"""Longer than the transport keeps a stream without an answer (60 s)."""
LOSS_S = 20.0
_MARGIN = 16 << 20
"""Room beyond the disk's allocated bytes, so that admission takes the guest."""
Undo = Callable[[], None]


class Strikes:
    """Acts on one lab. `destination` is the hypervisor host that the guest is moving to."""

    def __init__(self, plan: Plan, guest: str, source: str, destination: str) -> None:
        self._plan = plan
        self._paths = LabPaths(plan.lab)
        self._guest = guest
        self._source = source
        self._destination = destination
        link = inter_ad_link(plan)
        self._ends = {"a": f"{link.a.node}:{link.a.port}", "b": f"{link.b.node}:{link.b.port}"}

    def strike(self, fault: str) -> Undo:
        """Do it; raises UsageError for a fault that cannot be done here (they are simulated)."""
        acts: dict[str, Callable[[], Undo]] = {
            "cut": lambda: self._link_down(CUT_S),
            "stall": lambda: self._link_down(STALL_S),
            "loss": self._loss,
            "destination-daemon": lambda: self._kill(f"migrated {self._destination}"),
            "source-daemon": lambda: self._kill(f"migrated {self._source}"),
            "destination-qemu": self._kill_qemu,
            "out-of-memory": self._kill_qemu,
            "destination-libvirtd": lambda: self._kill(f"libvirtd {self._destination}"),
            "cancel": self._cancel,
            "disk-full": self._fill,
        }
        if fault not in acts:
            raise UsageError(f"{fault} is only simulated", hint=f"real ones: {', '.join(acts)}")
        return acts[fault]()

    def prepare(self, fault: str) -> Undo:
        """What must be there before the migration begins: a small file system for the disk to fill."""
        if fault != "disk-full":
            return _nothing
        target = self._outside(IMAGES)
        holder = read_state(self._paths).nodes[self._destination].shell.pid
        enter = ["nsenter", "-t", str(holder), "-m", "--"]
        disk = self._outside(IMAGES, self._source) / f"{self._guest}.qcow2"
        size = disk.stat().st_blocks * 512 + _MARGIN
        _run([*enter, "mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", f"/{IMAGES}"])

        def undo() -> None:
            (target / "filler").unlink(missing_ok=True)
            _run([*enter, "umount", f"/{IMAGES}"])

        return undo

    def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        with LabClient(self._plan.lab, timeout=30.0) as client:
            return client.request(op, **fields)

    def _link_down(self, seconds: float) -> Undo:
        """Frames vanish without a word, as on a path that is broken far away."""
        self._ask("link_set", **self._ends, set={"loss": "100%"})
        return self._later(seconds, lambda: self._ask("link_set", **self._ends, set={"loss": "0%"}))

    def _loss(self) -> Undo:
        self._ask("link_set", **self._ends, set={"loss": "30%"})
        return self._later(LOSS_S, lambda: self._ask("link_set", **self._ends, set={"loss": "0%"}))

    def _later(self, seconds: float, act: Callable[[], Any]) -> Undo:
        """Do `act` after `seconds`, or at the latest when the undo is called; both wait for it."""
        timer = threading.Timer(seconds, act)
        timer.start()
        return timer.join

    def _kill(self, what: str) -> Undo:
        victim = read_state(self._paths).processes.get(what)
        if victim is None or not victim.signal(signal.SIGKILL):
            raise XiatbError(f"{what} does not run")
        return lambda: self._wait_replaced(what, victim)

    def _wait_replaced(self, what: str, victim: ProcessId) -> None:
        """Until the lab has another one."""
        deadline = time.monotonic() + 30.0
        while time.monotonic() < deadline:
            now = read_state(self._paths).processes[what]
            if now != victim and now.alive():
                return
            time.sleep(0.2)
        raise XiatbError(f"{what} was not started again")

    def _kill_qemu(self) -> Undo:
        pid = int(self._outside(f"run/libvirt/qemu/{self._guest}.pid").read_text())
        victim = process.identify(pid)
        if victim is None or not victim.signal(signal.SIGKILL):
            raise XiatbError(f"no QEMU of {self._guest} on {self._destination}")
        return _nothing

    def _cancel(self) -> Undo:
        self._ask("migrate_cancel", guest=self._guest)
        return _nothing

    def _fill(self) -> Undo:
        """Take all that is left of the small file system."""
        filler = self._outside(IMAGES) / "filler"
        with filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                return _nothing

    def _outside(self, path: str, host: str = "") -> Path:
        """A file of the destination (or of `host`), from outside its namespaces."""
        holder = read_state(self._paths).nodes[host or self._destination].shell.pid
        return Path(f"/proc/{holder}/root") / path


def _nothing() -> None:
    """Nothing to undo."""


def _run(argv: list[str]) -> None:
    done = subprocess.run(argv, capture_output=True, text=True, check=False, timeout=30)
    if done.returncode:
        raise XiatbError(f"{' '.join(argv)}: {done.stderr.strip()}")
