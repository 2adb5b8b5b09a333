"""Where a lab keeps its files: one place that knows the layout of /run/xiatb/<lab>/."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

RUN_ROOT = Path("/run/xiatb")
DISK_ROOT = Path("/var/lib/xiatb/labs")
NETNS_ROOT = Path("/run/netns")


def netns_name(lab: str, node: str) -> str:
    """The name under /run/netns of a node, so that `ip netns exec NAME ...` enters it."""
    return f"xiatb-{lab}-{node}"


@dataclass(frozen=True)
class LabPaths:
    """Files of one lab. The directory is 0700, files with keys 0600."""

    lab: str
    run_root: Path = RUN_ROOT
    disk_root: Path = DISK_ROOT

    @property
    def root(self) -> Path:
        """The state directory."""
        return self.run_root / self.lab

    @property
    def disk(self) -> Path:
        """Big files that must not lie in memory: guest disks, one directory per hypervisor below."""
        return self.disk_root / self.lab

    @property
    def lock(self) -> Path:
        """flock'ed by the supervisor for as long as it lives."""
        return self.root / "lock"

    @property
    def journal(self) -> Path:
        """What was made, see `journal`."""
        return self.root / "journal.jsonl"

    @property
    def state(self) -> Path:
        """What is, see `state`."""
        return self.root / "state.json"

    @property
    def plan(self) -> Path:
        """What was to be made, see `plan`."""
        return self.root / "plan.json"

    @property
    def socket(self) -> Path:
        """Where the supervisor answers."""
        return self.root / "lab.sock"

    @property
    def supervisor_log(self) -> Path:
        """The supervisor's log."""
        return self.root / "supervisor.log"

    @property
    def names(self) -> Path:
        """hosts.xia: lines "name dag"."""
        return self.root / "names"

    @property
    def keys(self) -> Path:
        """Private keys, one PEM file each."""
        return self.root / "keys"

    def key(self, owner: str) -> Path:
        """Private key of a node, guest (`guest-NAME`), service (`guest-NAME-SERVICE`) or daemon
        (`migrated-NODE`)."""
        return self.keys / f"{owner}.pem"

    def node(self, node: str) -> Path:
        """A node's own directory."""
        return self.root / "nodes" / node

    def control(self, node: str) -> Path:
        """Where its node process answers."""
        return self.node(node) / "control.sock"

    def node_log(self, node: str) -> Path:
        """The node process's log."""
        return self.node(node) / "node.log"

    def home(self, node: str) -> Path:
        """HOME of what runs in the node."""
        return self.node(node) / "home"

    def private(self, node: str) -> Path:
        """What the hypervisor sees at its private places, seen from outside: run/ is its /run."""
        return self.node(node) / "private"

    def private_disk(self, node: str) -> Path:
        """What the hypervisor sees at /var/lib/libvirt, seen from outside; on disk."""
        return self.disk / node / "libvirt"

    @property
    def shared_disks(self) -> Path:
        """Disks that all hypervisors reach, under this path everywhere; on disk."""
        return self.disk / ".shared"

    def guest(self, guest: str) -> Path:
        """A guest's directory, seen by all hypervisors."""
        return self.root / "guests" / guest

    @property
    def links(self) -> Path:
        """Logs of the delay-line processes."""
        return self.root / "links"


def lab_names(run_root: Path = RUN_ROOT) -> list[str]:
    """Labs that have a state directory, sorted; whether they live is another question."""
    if not run_root.is_dir():
        return []
    return sorted(entry.name for entry in run_root.iterdir() if (entry / "journal.jsonl").exists())
