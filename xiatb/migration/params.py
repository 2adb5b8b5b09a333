"""Parameters and flags of libvirt's migration call, and the UNIX socket names that both hosts use.

The same path means QEMU's own socket on the destination and the daemon's on the source: every hypervisor
has a private /run (reference/migration.md 3.1). Names hold the job, so that jobs cannot meet.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import libvirt

from xiatb.migration.messages import Request

XBZRLE_CACHE = 64 << 20
"""Bytes of memory at the source for page contents to make differences with; a power of two."""


def ram_socket(directory: Path, job: str) -> Path:
    """The socket of the memory stream."""
    return directory / f"m-{job}.sock"


def disk_socket(directory: Path, job: str) -> Path:
    """The socket of the block mirror (NBD)."""
    return directory / f"d-{job}.sock"


def rpc_socket(directory: Path, job: str) -> Path:
    """Source only: the socket that stands for the destination's libvirtd."""
    return directory / f"peer-{job}.sock"


def all_sockets(directory: Path, job: str) -> tuple[Path, Path, Path]:
    """Every socket that a job may make in this directory."""
    return rpc_socket(directory, job), ram_socket(directory, job), disk_socket(directory, job)


def destination_uri(directory: Path, job: str) -> str:
    """The destination URI for peer-to-peer migration; the scheme must say +unix (reference/migration.md
    fact 6)."""
    return f"qemu+unix:///system?socket={rpc_socket(directory, job)}"


def migration_flags(request: Request) -> int:
    """libvirt's flags for this request."""
    flags: int = (
        libvirt.VIR_MIGRATE_LIVE
        | libvirt.VIR_MIGRATE_PEER2PEER
        | libvirt.VIR_MIGRATE_PERSIST_DEST
        | libvirt.VIR_MIGRATE_UNDEFINE_SOURCE
        | libvirt.VIR_MIGRATE_ABORT_ON_ERROR
        | libvirt.VIR_MIGRATE_COMPRESSED
    )
    if request.storage:
        flags |= libvirt.VIR_MIGRATE_NON_SHARED_DISK
    return flags


def migration_parameters(request: Request, directory: Path, bandwidth: int = 0) -> dict[str, Any]:
    """libvirt's typed parameters for this request; `bandwidth` in MiB/s, 0 for no cap."""
    parameters: dict[str, Any] = {
        libvirt.VIR_MIGRATE_PARAM_URI: f"unix://{ram_socket(directory, request.job)}"
    }
    # Pages of the hot set go as differences to what the destination has: downtime is mostly made of them.
    parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION] = "xbzrle"
    parameters[libvirt.VIR_MIGRATE_PARAM_COMPRESSION_XBZRLE_CACHE] = XBZRLE_CACHE
    if request.storage:
        parameters[libvirt.VIR_MIGRATE_PARAM_DISKS_URI] = f"unix://{disk_socket(directory, request.job)}"
        parameters[libvirt.VIR_MIGRATE_PARAM_MIGRATE_DISKS] = [disk.target for disk in request.disks]
    if bandwidth:
        parameters[libvirt.VIR_MIGRATE_PARAM_BANDWIDTH] = bandwidth
    return parameters
