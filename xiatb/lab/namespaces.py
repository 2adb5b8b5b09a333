"""Network namespaces by name, and doing something inside one from this process.

A node's namespace is born with its Mininet shell; binding /proc/PID/ns/net on a file under /run/netns gives
it the name by which `ip netns exec` enters it (ip-netns(8)). Python 3.11 has no os.setns, hence ctypes.
"""

from __future__ import annotations

import ctypes
import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from xiatb.errors import LabStateError, XiatbError

CLONE_NEWNET = 0x40000000
_MS_BIND = 0x1000
_MNT_DETACH = 2

_libc = ctypes.CDLL(None, use_errno=True)


class NamespaceError(XiatbError):
    """A namespace could not be made, entered or removed."""


def require_free(path: Path) -> None:
    """Raises LabStateError when a namespace of this name is there already."""
    if path.exists():
        hint = f"if nothing uses it: ip netns delete {path.name}"
        raise LabStateError(f"{path} exists already and is not this lab's", hint=hint)


def bind_name(pid: int, path: Path) -> None:
    """Give the network namespace of `pid` a name, a file under /run/netns that does not exist yet."""
    path.parent.mkdir(parents=True, exist_ok=True)
    os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o444))
    source = f"/proc/{pid}/ns/net".encode()
    if _libc.mount(source, os.fsencode(path), b"none", _MS_BIND, None) != 0:
        number = ctypes.get_errno()
        path.unlink()
        raise NamespaceError(f"cannot bind {path}: {os.strerror(number)}")


def unbind_name(path: Path, inode: int) -> bool:
    """Undo `bind_name` of the namespace with this inode. False when something else has the name now; fine
    when it is gone already, or was only half made (an empty file, nothing mounted)."""
    try:
        there = os.stat(path)
    except FileNotFoundError:
        return True
    half_made = there.st_dev == os.stat(path.parent).st_dev and there.st_size == 0
    if there.st_ino != inode and not half_made:
        return False
    unmount(path)
    path.unlink(missing_ok=True)
    return True


def unmount(path: Path) -> None:
    """Take everything off a mount point in this mount namespace; fine when nothing is mounted there."""
    while _libc.umount2(os.fsencode(path), _MNT_DETACH) == 0:
        pass
    number = ctypes.get_errno()
    if number not in (errno.EINVAL, errno.ENOENT):
        raise NamespaceError(f"cannot unmount {path}: {os.strerror(number)}")


@contextmanager
def inside(path: Path) -> Iterator[None]:
    """Run the body with this *thread* in the network namespace of `path` (a name or /proc/PID/ns/net).

    Must not be held over an `await`. Raises NamespaceError when the namespace is not there."""
    home = os.open("/proc/thread-self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        _enter(path)
        try:
            yield
        finally:
            _setns(home, "home")
    finally:
        os.close(home)


def _enter(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise NamespaceError(f"no namespace {path}: {error.strerror}") from error
    try:
        _setns(descriptor, str(path))
    finally:
        os.close(descriptor)


def _setns(descriptor: int, what: str) -> None:
    if _libc.setns(descriptor, CLONE_NEWNET) != 0:
        raise NamespaceError(f"cannot enter namespace {what}: {os.strerror(ctypes.get_errno())}")
