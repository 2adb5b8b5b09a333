"""Name look-ups in a lab's `hosts.xia`: one `name dag` a line, as xia-core's etc/hosts.xia.

The DAG is in RE or URL form, or in DAG form with its newlines left out; `#` starts a comment.
The file is read again when it has changed, so names may be added to a running lab.
"""

from __future__ import annotations

import re
from pathlib import Path

from xiatb.errors import WireError
from xiatb.node.control_protocol import ControlError
from xiatb.wire.dag import DAG

MAX_NAME = 255
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]*")


def is_name(text: str) -> bool:
    """Whether `text` may be a name: letters, digits, dots and dashes, at most 255."""
    return _NAME.fullmatch(text) is not None and len(text) <= MAX_NAME


def parse_hosts(text: str) -> dict[str, str]:
    """Names in lower case -> address text; lines without an address are passed over, the last one wins."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, _, address = line.partition("#")[0].strip().partition(" ")
        if address.strip():
            found[name.lower()] = address.strip()
    return found


class Names:
    """The names of one file; a missing file is an empty one."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._stamp: tuple[int, int, int] | None = None
        self._names: dict[str, str] = {}
        self._addresses: dict[str, DAG] | None = None

    def _refresh(self) -> None:
        if self._path is None:
            return
        try:
            status = self._path.stat()
            stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
            if stamp != self._stamp:
                self._names = parse_hosts(self._path.read_text(encoding="utf-8"))
                self._stamp = stamp
                self._addresses = None
        except FileNotFoundError:
            self._names, self._stamp, self._addresses = {}, None, None
        except (OSError, UnicodeDecodeError) as error:
            raise ControlError("EIO", f"{self._path}: {error}") from error

    def addresses(self) -> dict[str, DAG]:
        """All names with the addresses that can be read; the same object until the file changes.

        Raises ControlError EIO.
        """
        self._refresh()
        if self._addresses is None:
            self._addresses = {}
            for name, text in self._names.items():
                try:
                    self._addresses[name] = DAG.parse(text)
                except WireError:
                    continue
        return self._addresses

    def register(self, name: str, dag: DAG) -> None:
        """Gives `name` to an address, in place of any earlier one; the lab's other nodes see it too.

        Raises ControlError EINVAL for a name with other characters than letters, digits, dots and dashes,
        ENOTSUP without a names file, EIO.
        """
        if not is_name(name):
            raise ControlError("EINVAL", f"{name[:60]!r} is no name")
        if self._path is None:
            raise ControlError("ENOTSUP", "this lab has no names file")
        try:
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(f"{name.lower()} {dag.url()}\n")
        except OSError as error:
            raise ControlError("EIO", f"{self._path}: {error}") from error

    def resolve(self, name: str) -> DAG:
        """The address of a name (any case), or of an address given as text itself.

        Raises ControlError ENOENT for an unknown name, EINVAL for an address that is none.
        """
        self._refresh()
        text = self._names.get(name.lower())
        if text is None:
            if len(name) <= MAX_NAME and not name.startswith(("RE ", "DAG ", "http://")):
                raise ControlError("ENOENT", f"unknown name {name!r}")
            text = name
        try:
            return DAG.parse(text)
        except WireError as error:
            raise ControlError("EINVAL", f"{name[:60]!r}: {error.message}") from error
