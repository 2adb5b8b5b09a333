"""The faults as acts on a real lab, each undone by what it gives back."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from xiatb.errors import UsageError, XiatbError
from xiatb.experiments.demo import inter_ad_link
from xiatb.experiments.faults.hostview import HostView
from xiatb.experiments.faults.memorygroup import MemoryGroup
from xiatb.lab import process
from xiatb.lab.client import LabClient
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.process import ProcessId
from xiatb.lab.state import read_state
from xiatb.migration.manager import socket_path
from xiatb.node.control_protocol import encode

STALL_S = 10.0
CUT_S = 75.0
"""Longer than the transport keeps a stream without an answer (60 s)."""
LOSS_S = 20.0
_MARGIN = 16 << 20
"""Room beyond the disk's allocated bytes, so that admission takes the guest."""
Undo = Callable[[], None]


class Strikes:
    """Acts on one lab. `destination` is the hypervisor host that the guest is moving to; `write` lets the
    guest write to new blocks of its disk."""

    def __init__(
        self, plan: Plan, guest: str, source: str, destination: str, write: Callable[[], None]
    ) -> None:
        self._plan = plan
        self._paths = LabPaths(plan.lab)
        self._guest = guest
        self._source, self._destination = source, destination
        self._here, self._there = HostView(self._paths, source), HostView(self._paths, destination)
        self._write = write
        self._starved: tuple[MemoryGroup, ProcessId] | None = None
        link = inter_ad_link(plan)
        self._ends = {"a": f"{link.a.node}:{link.a.port}", "b": f"{link.b.node}:{link.b.port}"}

    def strike(self, fault: str, phase: str) -> Undo:
        """Do it, in `phase`."""
        acts: dict[str, Callable[[], Undo]] = {
            "cut": lambda: self._loss("100%", CUT_S),
            "stall": lambda: self._loss("100%", STALL_S),
            "loss": lambda: self._loss("30%", LOSS_S),
            "destination-daemon": lambda: self._kill(f"migrated {self._destination}"),
            "source-daemon": lambda: self._kill(f"migrated {self._source}"),
            "destination-qemu": self._kill_qemu,
            "out-of-memory": lambda: self._exhaust(now=phase == "handover"),
            "destination-libvirtd": lambda: self._kill(f"libvirtd {self._destination}"),
            "cancel": self._cancel,
            "disk-full": lambda: self._fill(running=phase in ("storage", "first", "later")),
            "wrong-image": self._replace_image,
        }
        return acts[fault]()

    def prepare(self, fault: str) -> Undo:
        """What must be there before the migration begins: a small file system for the disk to fill."""
        if fault != "disk-full":
            return _nothing
        there = self._there
        disk = self._here.disk(self._guest)
        size = disk.stat().st_blocks * 512 + _MARGIN
        there.enter(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", f"/{there.IMAGES}"])

        def undo() -> None:
            self.make_room()
            there.enter(["umount", f"/{there.IMAGES}"])

        return undo

    def make_room(self) -> None:
        """The destination's file system has room again."""
        self._filler.unlink(missing_ok=True)

    @property
    def _filler(self) -> Path:
        return self._there.path(self._there.IMAGES) / "filler"

    def _ask(self, op: str, **fields: Any) -> dict[str, Any]:
        with LabClient(self._plan.lab, timeout=30.0) as client:
            return client.request(op, **fields)

    def _loss(self, share: str, seconds: float) -> Undo:
        """Frames vanish without a word between the ADs, as on a path that is broken far away."""
        self._ask("link_set", **self._ends, set={"loss": share})
        return self._later(seconds, lambda: self._ask("link_set", **self._ends, set={"loss": "0%"}))

    def _later(self, seconds: float, act: Callable[[], Any]) -> Undo:
        """Do `act` after `seconds`; the undo waits for it."""
        timer = threading.Timer(seconds, act)
        timer.daemon = True
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

    def _qemu(self) -> ProcessId:
        victim = process.identify(self._there.qemu_pid(self._guest))
        if victim is None:
            raise XiatbError(f"no QEMU of {self._guest} on {self._destination}")
        return victim

    def _kill_qemu(self) -> Undo:
        self._qemu().signal(signal.SIGKILL)
        return _nothing

    def _exhaust(self, *, now: bool) -> Undo:
        """No page more for QEMU there: the kernel ends it at the next one that it asks for; `now`: that is
        waited for, so that it dies in this phase."""
        victim = self._qemu()
        group = MemoryGroup(f"xiatb-{self._plan.lab}-{victim.pid}")
        group.take(victim.pid)
        self._starved = (group, victim)
        if now:
            self._outlive()
        return _nothing if now else self._outlive

    def _outlive(self) -> None:
        if self._starved is not None:
            (group, victim), self._starved = self._starved, None
            group.end(victim)

    def abandon(self) -> None:
        """What an undo would remove and the lab's end does not, when none is called any more."""
        if self._starved is not None:
            self._starved[1].signal(signal.SIGKILL)
            with contextlib.suppress(XiatbError):  # the kernel had no need to end it
                self._outlive()

    def _replace_image(self) -> Undo:
        """At the destination another file lies under the name of the guest's kernel."""
        there = self._there
        kernel = _element(self._here.xml(self._guest), "kernel")
        there.enter(["mount", "--bind", _element(self._here.xml(self._guest), "initrd"), kernel])

        def undo() -> None:
            there.enter(["umount", kernel])

        return undo

    def _cancel(self) -> Undo:
        """As the supervisor does it, but without a question before: the daemon may be held."""
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
        connection.settimeout(30.0)
        connection.connect(str(socket_path(self._paths, self._source)))
        connection.sendall(encode({"id": 1, "op": "cancel", "guest": self._guest}))

        def answered() -> None:
            with connection:
                if not connection.recv(1 << 12):
                    raise XiatbError("the daemon did not answer to `cancel`")

        return answered

    def _fill(self, *, running: bool) -> Undo:
        """Take all that is left of the small file system; then the guest needs more, at once if it runs
        here."""
        with self._filler.open("wb") as file:
            try:
                while True:
                    file.write(bytes(1 << 16))
                    file.flush()
            except OSError:
                pass
        if not running:
            return _nothing
        writer = _Writer(self._write)
        writer.start()
        return writer.finish


class _Writer(threading.Thread):
    """Writes at the side; `finish` waits for it and raises what it has failed with."""

    def __init__(self, write: Callable[[], None]) -> None:
        super().__init__(daemon=True)
        self._write = write
        self._failed: XiatbError | None = None

    def run(self) -> None:
        """See threading.Thread."""
        try:
            self._write()
        except XiatbError as error:
            self._failed = error

    def finish(self) -> None:
        """Wait for its end."""
        self.join()
        if self._failed is not None:
            raise self._failed


@contextlib.contextmanager
def writing(write: Callable[[], None]) -> Iterator[None]:
    """`write` goes on while this is entered; leaving it waits for its end and raises what it raised."""
    writer = _Writer(write)
    writer.start()
    yield
    writer.finish()


def _element(xml: str, name: str) -> str:
    found = re.search(f"<{name}>([^<]+)</{name}>", xml)
    if found is None:
        raise UsageError(f"the guest has no {name}")
    return found[1]


def _nothing() -> None:
    """Nothing to undo."""
