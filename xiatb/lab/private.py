"""What a hypervisor has for itself: /run, and libvirt's directories.

Mounts are made inside the node's own mount namespace, so they go with it and leave no mount points behind.
The private /run holds empty libvirt/ and xtb/ and, bound into it, the host's /run/xiatb and /run/netns,
which the lab's own files need. All of it can be seen from outside: `LabPaths.private` and
`LabPaths.private_disk`.
"""

from __future__ import annotations

import os
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.lab.context import Context
from xiatb.lab.paths import NETNS_ROOT, RUN_ROOT

_LIBVIRT = {
    "cache-libvirt": Path("/var/cache/libvirt"),
    "log-libvirt": Path("/var/log/libvirt"),
    "etc-libvirt": Path("/etc/libvirt"),
}
_LIBVIRT_STATE = Path("/var/lib/libvirt")
_RUN_DIRECTORIES = ("libvirt", "xtb", "lock")


def make_directories(context: Context, node: str) -> None:
    """The directories behind the mounts; the disk-backed one is journalled, the others lie in the state
    directory."""
    paths = context.paths
    base = paths.private(node)
    for name in (*(f"run/{one}" for one in _RUN_DIRECTORIES), *_LIBVIRT):
        (base / name).mkdir(parents=True, mode=0o755)
    for root in (RUN_ROOT, NETNS_ROOT):
        (base / "run" / root.relative_to("/run")).mkdir()
    context.owner.path(paths.disk, what="guest disks")
    paths.private_disk(node).mkdir(parents=True)


def mount_directories(context: Context, node: str) -> None:
    """The mounts, /run last because the others' sources lie in it. Raises XiatbError when the node shares our
    mount namespace: they would be the whole host's then."""
    paths = context.paths
    if os.stat(f"/proc/{context.node_pid(node)}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino:
        raise XiatbError(f"{node}: Mininet gave it no mount namespace of its own")
    context.runner.run(context.in_node(node, ["mount", "--make-rprivate", "/"]))
    base = paths.private(node)
    for root in (RUN_ROOT, NETNS_ROOT):
        _bind(context, node, root, base / "run" / root.relative_to("/run"))
    for name, place in _LIBVIRT.items():
        if place.is_dir():
            _bind(context, node, base / name, place)
    if _LIBVIRT_STATE.is_dir():
        _bind(context, node, paths.private_disk(node), _LIBVIRT_STATE)
    _bind(context, node, base / "run", Path("/run"))


def _bind(context: Context, node: str, source: Path, place: Path) -> None:
    context.runner.run(context.in_node(node, ["mount", "--rbind", str(source), str(place)]))
