"""Parameters and flags of libvirt's migration call, and the UNIX socket names that both hosts use.

The same path means QEMU's own socket on the destination and the daemon's on the source: every hypervisor
has a private /run (reference/migration.md 3.1). Names hold the job, so that jobs cannot meet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import libvirt

from xiatb.migration.messages import Request
from xiatb.migration.options import Options

STORAGE: Final = int(libvirt.VIR_MIGRATE_NON_SHARED_INC | libvirt.VIR_MIGRATE_NON_SHARED_DISK)
"""The flags with which libvirt mirrors disks."""
XBZRLE_CACHE = 64 << 20
"""Bytes of memory at the source for page contents to make differences with; a power of two."""

QUIET_MIB = 1
"""MiB/s that QEMU may send before it is switched to post-copy at once: all of it would be in the queues
before the device state."""
SWITCH_MIB = 4
"""MiB/s from the switch until the guest runs, for the same reason. QEMU 7.2 counts in slices of 100 ms and
holds back pages that are asked for, too, when it is used up: this is room for both."""


def ram_socket(directory: Path, job: str) -> Path:
    """The socket of the memory stream."""
    return directory / f"m-{job}.sock"


def disk_socket(directory: Path, job: str) -> Path:
    """The socket of the block mirror (NBD)."""
    return directory / f"d-{job}.sock"


def rpc_socket(directory: Path, job: str) -> Path:
    """Source only: the socket that stands for the destination's libvirtd."""
    return directory / f"peer-{job}.sock"


def monitor_pipes(directory: Path, guest: str) -> Path:
    """What the names of the pipes of the guest's second QEMU monitor begin with, the daemon's own; see
    monitor.py."""
    return directory / f"qmp-{guest}"


def all_sockets(directory: Path, job: str) -> tuple[Path, Path, Path]:
    """Every socket that a job may make in this directory."""
    return rpc_socket(directory, job), ram_socket(directory, job), disk_socket(directory, job)


def destination_uri(directory: Path, job: str) -> str:
    """The destination URI for peer-to-peer migration; the scheme must say +unix (reference/migration.md
    fact 6)."""
    return f"qemu+unix:///system?socket={rpc_socket(directory, job)}"


def migration_flags(request: Request, options: Options) -> int:
    """libvirt's flags for this request."""
    flags: int = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
    )
    chosen = {
        libvirt.VIR_MIGRATE_COMPRESSED: options.differences,
        libvirt.VIR_MIGRATE_PARALLEL: request.streams > 1,
        libvirt.VIR_MIGRATE_POSTCOPY: request.mode != "precopy",
        libvirt.VIR_MIGRATE_AUTO_CONVERGE: options.throttle > 0,
        # libvirt cannot know that both hosts reach the file; admission has compared it (storage.py).
        libvirt.VIR_MIGRATE_UNSAFE: bool(request.disks) and not request.storage,
        libvirt.VIR_MIGRATE_NON_SHARED_INC: request.storage and request.incremental,
        libvirt.VIR_MIGRATE_NON_SHARED_DISK: request.storage and not request.incremental,
    }
    return flags | sum(int(flag) for flag, wanted in chosen.items() if wanted)


def allowed_flags(request: Request) -> int:
    """All flags of libvirt that a source may ask a destination for with this request."""
    every = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
        | libvirt.VIR_MIGRATE_COMPRESSED
        | libvirt.VIR_MIGRATE_PARALLEL
        | libvirt.VIR_MIGRATE_POSTCOPY
        | libvirt.VIR_MIGRATE_POSTCOPY_RESUME
        | libvirt.VIR_MIGRATE_AUTO_CONVERGE
        | libvirt.VIR_MIGRATE_UNSAFE
    )
    return int(every | (STORAGE if request.storage else 0))


def recovery_flags(request: Request, options: Options) -> int:
    """libvirt's flags to go on with a post-copy that broke: as before, but it is all about memory now."""
    return (migration_flags(request, options) & ~STORAGE) | int(libvirt.VIR_MIGRATE_POSTCOPY_RESUME)


def recovery_parameters(request: Request, directory: Path) -> dict[str, Any]:
    """libvirt's typed parameters to go on with a post-copy that broke."""
    return {libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{ram_socket(directory, request.job)}"}


def migration_parameters(request: Request, directory: Path, options: Options) -> dict[str, Any]:
    """libvirt's typed parameters for this request."""
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{ram_socket(directory, request.job)}"
    }
    if options.differences:
        # Pages of the hot set go as differences to what the destination has: downtime is mostly made of them.
        parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = "xbzrle"
        parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION_XBZRLE_CACHE] = XBZRLE_CACHE
    if request.streams > 1:
        parameters[libvirt.VIR_MIGRATE_PARAM_PARALLEL_CONNECTIONS] = request.streams
    if options.throttle:
        # As little as QEMU takes: the controller decides how much, and says why (Driver.set_throttle).
        parameters[libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INITIAL] = 1
        parameters[libvirt.VIR_MIGRATE_PARAM_AUTO_CONVERGE_INCREMENT] = 1
    if request.storage:
        parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"unix://{disk_socket(directory, request.job)}"
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = [disk.target for disk in request.disks]
    cap = QUIET_MIB if request.mode == "postcopy" else options.bandwidth
    if cap and not request.storage:  # else FirstPages tells QEMU: this would cap the mirror, too (diskcap.py)
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = cap
    if request.mode != "precopy":
        after = min(options.bandwidth or SWITCH_MIB, SWITCH_MIB)
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH_POSTCOPY] = after
    return parameters


def memory_channels(request: Request) -> int:
    """Channels of kind "ram" that the request needs: the main one, and with multifd one for each stream."""
    return 1 if request.streams == 1 else request.streams + 1
