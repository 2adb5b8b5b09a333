"""Disks that need not be copied, or not wholly: files that both hosts reach, backing files that both have.

Nobody's word is taken for it. A disk that is left where it is must be the same file at both hosts (device and
inode); a backing file must have the same content (SHA-256 of the file), because the guest would read another
image's blocks for its own otherwise. Neither may name further files in its header: QEMU would open them.
"""

from __future__ import annotations

import asyncio
import errno
import functools
import hashlib
import stat
from dataclasses import replace
from pathlib import Path

from xiatb.errors import UsageError, XiatbError
from xiatb.guests import qcow2
from xiatb.migration.config import DaemonConfig
from xiatb.migration.hosting import RefusedError, image_info
from xiatb.migration.messages import Disk, Request

_PIECE = 1 << 20


def identity(path: Path) -> str:
    """Which file this is: device and inode; "" when it is not there."""
    try:
        found = path.stat()
    except OSError:
        return ""
    return f"{found.st_dev:x}:{found.st_ino:x}"


def content_id(path: Path) -> str:
    """SHA-256 of the file, in hexadecimal; computed again only when the file has changed. Raises OSError, for
    what is no regular file, too: a peer names the path, and some devices never end."""
    found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise OSError(errno.EINVAL, "is no regular file", str(path))
    return _digest(path, found.st_ino, found.st_size, found.st_mtime_ns)


@functools.lru_cache(maxsize=64)
def _digest(path: Path, _inode: int, size: int, _changed: int) -> str:
    """Of exactly `size` bytes: a file that grows meanwhile must not keep us reading."""
    digest, left = hashlib.sha256(), size
    with path.open("rb") as file:
        while left:
            piece = file.read(min(left, _PIECE))
            if not piece:
                raise OSError(errno.EIO, "has become shorter", str(path))
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


async def described(disks: tuple[Disk, ...], *, copied: bool, backing: bool) -> tuple[Disk, ...]:
    """The source's disks for a request: with the file's identity when they stay where they are, with their
    backing file when they are copied only down to it. Raises UsageError for one without, XiatbError."""
    if not copied:
        return tuple(replace(disk, file=identity(Path(disk.path))) for disk in disks)
    if not backing:
        return disks
    return tuple([await _above_backing(disk) for disk in disks])


async def _above_backing(disk: Disk) -> Disk:
    told = await image_info(disk.path, disk.format)
    path, kind = str(told.get("full-backing-filename", "")), str(told.get("backing-filename-format", ""))
    if not path or kind not in ("qcow2", "raw"):
        raise UsageError(
            f"{disk.path} has no backing file",
            hint="copy all of it (--storage mirror), or give the guest `disk: overlay` in the topology",
        )
    try:
        content = await asyncio.to_thread(content_id, Path(path))
    except OSError as error:
        raise XiatbError(f"{path}: {error.strerror}") from None
    return replace(disk, backing=path, backing_format=kind, content=content)


async def contents(files: tuple[str, ...]) -> tuple[str, ...]:
    """The content ids of the files; raises XiatbError."""
    try:
        return tuple([await asyncio.to_thread(content_id, Path(path)) for path in files])
    except OSError as error:
        raise XiatbError(f"{error.filename}: {error.strerror}") from None


async def admit_storage(request: Request, config: DaemonConfig) -> None:
    """Raise RefusedError unless this host has what the request does not copy."""
    if len(request.contents) != len(request.files):
        raise RefusedError("wrong-image", "the source does not say what the guest's files hold")
    for path, wanted in zip(request.files, request.contents, strict=True):
        content = await _content_here(Path(path), "file of a guest", config)
        if content != wanted:
            raise RefusedError(
                "wrong-image", f"{path} on {config.host} is another file than the guest was started with"
            )
    for disk in request.disks:
        if not request.storage and identity(Path(disk.path)) != disk.file:
            raise RefusedError(
                "wrong-image",
                f"{config.host} has another file at {disk.path} than the guest's: migrate --with-storage",
            )
        if not request.storage:
            _admit_image(Path(disk.path), disk.format, config)
        if disk.backing:
            await _admit_backing(disk, config)


def _admit_image(path: Path, form: str, config: DaemonConfig) -> None:
    """Raise RefusedError for an image that names other files: whoever wrote it, here or at a host that
    reaches it, too, could give the guest any file of this host, which QEMU opens as root."""
    try:
        qcow2.check(path, form)
    except qcow2.ImageError as error:
        raise RefusedError("wrong-image", f"{config.host}: {error.message}") from None


async def _admit_backing(disk: Disk, config: DaemonConfig) -> None:
    path = Path(disk.backing)
    content = await _content_here(path, "backing file", config)
    if content != disk.content:
        raise RefusedError(
            "wrong-image",
            f"{path} on {config.host} is another image (SHA-256 {content[:12]}..., "
            f"the guest's is {disk.content[:12]}...): migrate --with-storage",
        )
    _admit_image(path.resolve(), disk.backing_format, config)


async def _content_here(path: Path, what: str, config: DaemonConfig) -> str:
    """The content id of a file that a peer has named; raises RefusedError. Outside of the places where the
    lab keeps such files nothing is looked at: neither may a peer make a guest of any file of this host, nor
    learn which there are."""
    kept = (config.images, config.disks, config.guests, config.shared)
    places = [place.resolve() for place in kept if place is not None]
    real = path.resolve()
    if not any(real.is_relative_to(place) for place in places):
        raise RefusedError("unsupported", f"{config.host} takes no {what} at {path}")
    try:
        return await asyncio.to_thread(content_id, real)
    except OSError as error:
        raise RefusedError(
            "image-missing", f"{config.host} lacks the {what} {path}: {error.strerror}"
        ) from None
