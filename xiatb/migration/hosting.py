"""The destination's own checks and its disks: has it room, may the guest come, make and remove disk files."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
from pathlib import Path
from typing import Any

from xiatb.errors import XiatbError
from xiatb.guests import qcow2
from xiatb.guests.model import load_record
from xiatb.migration.driver import HostFacts
from xiatb.migration.failure import MigrationError
from xiatb.migration.messages import Capabilities, Disk, Request

GUEST_OVERHEAD = 64 << 20
"""What a QEMU process needs beyond its guest's memory, roughly (measured: 40 to 60 MiB under TCG)."""


class RefusedError(XiatbError):
    """The guest may not come; `code` is one of messages.REJECT_CODES."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def memory_free(reserve: int) -> int:
    """Bytes of memory that this host can give to guests (MemAvailable less the reserve)."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return max(0, int(line.split()[1]) * 1024 - reserve)
    return 0


def disk_free(directory: Path) -> int:
    """Free bytes of the file system that holds `directory` or its nearest existing parent."""
    while not directory.exists() and directory != directory.parent:
        directory = directory.parent
    stat = os.statvfs(directory)
    return stat.f_bavail * stat.f_frsize


def images_held(directory: Path) -> tuple[str, ...]:
    """Ids of the guest images below `directory` that are complete (have a manifest)."""
    with contextlib.suppress(OSError):
        return tuple(sorted(p.parent.name for p in directory.glob("*/manifest.json")))[:256]
    return ()


def admit(
    request: Request,
    peer: Capabilities,
    own: Capabilities,
    host: HostFacts,
    guest_state: str,
    disks: Path,
    shared: Path | None = None,
) -> None:
    """Raise RefusedError when this host cannot take the guest; the text says what is missing.

    `guest_state` is the driver's state of a guest of that name here; disks may lie only in directory
    `disks`, those that are not copied also in `shared`.
    """
    if guest_state != "absent":
        raise RefusedError(
            "guest-exists", f"{own.host} already has a guest named {request.guest} ({guest_state})"
        )
    if peer.qemu > own.qemu:
        raise RefusedError(
            "version-mismatch", f"{own.host} has QEMU {own.qemu}, older than the source's {peer.qemu}"
        )
    if request.machine and request.machine not in host.machines:
        raise RefusedError("version-mismatch", f"{own.host} has no machine type {request.machine}")
    if request.accel == "kvm" and own.accel == "tcg":
        raise RefusedError("version-mismatch", f"{own.host} has no KVM, the guest runs under it")
    needed = request.memory + GUEST_OVERHEAD
    if needed > own.memory_free:
        raise RefusedError(
            "no-room",
            f"the guest needs {needed >> 20} MiB of memory, {own.host} has {own.memory_free >> 20} MiB",
        )
    _admit_disks(request, own, disks, shared)


def admit_record(request: Request, host: str, guests: Path | None) -> None:
    """Raise RefusedError unless the guest is the one of that name in the lab's own records, which this host
    reads in directory `guests`. Without a record the source's word has to do."""
    path = guests / request.guest / "guest.json" if guests is not None else None
    if path is None or not path.exists():
        return
    try:
        record = load_record(path)
    except XiatbError as error:
        raise RefusedError("failed", error.message) from None
    other = [
        what
        for what, differs in {
            "UUID": request.uuid != record.uuid,
            "HID": request.hid != record.hid,
            "services": set(request.services) != {one.sid for one in record.services if one.sid},
            "image": request.image != record.image_id,
            "port": request.port != record.tap,
            "memory": request.memory > record.memory_mib << 20,
            "processors": request.vcpus > record.vcpus,
            "disk": not {disk.path for disk in request.disks} <= {record.disk_path},
            "files": not set(request.files) <= {record.kernel, record.initrd},
        }.items()
        if differs
    ]
    if other:
        raise RefusedError(
            "policy", f"{host}: not the guest {request.guest} of the lab's records: other {', '.join(other)}"
        )


def _admit_disks(request: Request, own: Capabilities, directory: Path, shared: Path | None) -> None:
    for disk in request.disks:
        place = Path(disk.path).parent
        if place == shared and request.storage:
            raise RefusedError(
                "unsupported", f"{disk.path} is reached by all hosts: migrate with --storage none"
            )
        if place not in (directory, shared):
            raise RefusedError("unsupported", f"{own.host} takes disks only in {directory}, not {disk.path}")
        there = Path(disk.path).exists()
        if request.storage and there:
            raise RefusedError("disk-missing", f"{own.host} already has a file {disk.path}: remove it first")
        if not request.storage and not there:
            raise RefusedError(
                "disk-missing", f"{own.host} does not have {disk.path}: migrate --with-storage"
            )
    wanted = sum(disk.allocated for disk in request.disks) if request.storage else 0
    if wanted > own.disk_free:
        raise RefusedError(
            "no-room", f"the disks need {wanted >> 20} MiB, {own.host} has {own.disk_free >> 20} MiB free"
        )


def _backing(disk: Disk) -> tuple[str, ...]:
    return ("-b", disk.backing, "-F", disk.backing_format) if disk.backing else ()


async def create_disk(disk: Disk) -> None:
    """Make an empty image of the disk's format and virtual size, on its backing file if it has one; raises
    RefusedError."""
    Path(disk.path).parent.mkdir(parents=True, exist_ok=True)
    process = await asyncio.create_subprocess_exec(
        "qemu-img", "create", "-q", "-f", disk.format, *_backing(disk), disk.path, str(disk.size),
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.DEVNULL, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, complaint = await process.communicate()
    if process.returncode != 0:
        raise RefusedError(
            "no-room", f"qemu-img create {disk.path}: {complaint.decode(errors='replace').strip()}"
        )


async def image_info(path: str, form: str) -> dict[str, Any]:
    """What `qemu-img info --output=json` says of an image of that format, not of one that its content would
    pass for, which a guest may be using; raises XiatbError."""
    process = await asyncio.create_subprocess_exec(
        "qemu-img", "info", "--force-share", "--output=json", "-f", form, path,
        stdin=asyncio.subprocess.DEVNULL, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    output, complaint = await process.communicate()
    if process.returncode != 0:
        raise XiatbError(f"qemu-img info {path}: {complaint.decode(errors='replace').strip()}")
    info: dict[str, Any] = json.loads(output)
    return info


async def inspect_disk(target: str, path: str, form: str) -> Disk:
    """Virtual and allocated size of a disk that a running guest uses; raises XiatbError, MigrationError for
    one that keeps its data in another file."""
    try:
        qcow2.check(Path(path), form, backing=True)
    except qcow2.ImageError as error:
        raise MigrationError("wrong-image", error.message) from None
    info = await image_info(path, form)
    return Disk(target=target, path=path, size=int(info["virtual-size"]), format=form,
                allocated=int(info.get("actual-size", 0)))  # fmt: skip


def remove_disks(disks: tuple[Disk, ...]) -> tuple[str, ...]:
    """Remove disk files; gives those that could not be removed, with the reason."""
    leftover = []
    for disk in disks:
        try:
            Path(disk.path).unlink(missing_ok=True)
        except OSError as error:
            leftover.append(f"{disk.path}: {error.strerror}")
    return tuple(leftover)
