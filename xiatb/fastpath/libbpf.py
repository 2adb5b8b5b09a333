"""Loads an eBPF object file through libbpf.so.1 (Debian package libbpf1), without a compiler at run time."""

from __future__ import annotations

import ctypes
import errno
import os
from functools import cache
from pathlib import Path
from typing import Any

from xiatb.fastpath.errors import FastpathError

_LOG_SIZE = 1 << 16
_LOG_LINES = 4


@cache
def _library() -> Any:
    try:
        lib = ctypes.CDLL("libbpf.so.1", use_errno=True)
    except OSError as error:
        raise FastpathError(f"no libbpf: {error}", hint="install Debian's package libbpf1") from error
    pointer, text = ctypes.c_void_p, ctypes.c_char_p
    for name, result, arguments in (
        ("bpf_object__open_file", pointer, [text, pointer]),
        ("bpf_object__load", ctypes.c_int, [pointer]),
        ("bpf_object__close", None, [pointer]),
        ("bpf_object__find_map_by_name", pointer, [pointer, text]),
        ("bpf_object__find_program_by_name", pointer, [pointer, text]),
        ("bpf_program__fd", ctypes.c_int, [pointer]),
        ("bpf_program__set_log_buf", ctypes.c_int, [pointer, ctypes.c_char_p, ctypes.c_size_t]),
        ("bpf_map__fd", ctypes.c_int, [pointer]),
        ("bpf_map__key_size", ctypes.c_uint32, [pointer]),
        ("bpf_map__value_size", ctypes.c_uint32, [pointer]),
        ("bpf_map__set_max_entries", ctypes.c_int, [pointer, ctypes.c_uint32]),
        ("libbpf_num_possible_cpus", ctypes.c_int, []),
        ("libbpf_set_print", pointer, [pointer]),
    ):
        function = getattr(lib, name)
        function.restype, function.argtypes = result, arguments
    # libbpf would write to stderr; what matters comes back as errno and as the verifier's log.
    lib.libbpf_set_print(None)
    return lib


def possible_cpus() -> int:
    """How many values an entry of a per-CPU map has. Raises FastpathError."""
    count = int(_library().libbpf_num_possible_cpus())
    if count < 1:
        raise FastpathError(f"cannot count the CPUs: {os.strerror(-count)}", -count)
    return count


class ObjectFile:
    """One object file in the kernel. Closing it closes the descriptors of its maps and programs."""

    def __init__(self, path: Path, programs: tuple[str, ...], sizes: dict[str, int]) -> None:
        """Opens and loads. `sizes` overrides max_entries of maps by name.

        Raises FastpathError with the verifier's last lines, or the kernel's reason.
        """
        self._lib = _library()
        self._logs = {name: ctypes.create_string_buffer(_LOG_SIZE) for name in programs}
        if not path.is_file():
            raise FastpathError(f"{path} is missing", hint="scripts/setup compiles it")
        self._object: int | None = self._lib.bpf_object__open_file(os.fsencode(path), None)
        if not self._object:
            number = ctypes.get_errno()
            raise FastpathError(f"{path.name} is no eBPF object: {os.strerror(number)}", number)
        try:
            self._load(path, sizes)
        except FastpathError:
            self.close()
            raise

    def _load(self, path: Path, sizes: dict[str, int]) -> None:
        for name, size in sizes.items():
            if self._lib.bpf_map__set_max_entries(self._map(name), size):
                raise FastpathError(f"map {name} cannot have {size} entries", errno.EINVAL)
        for name, log in self._logs.items():
            self._lib.bpf_program__set_log_buf(self._program(name), log, _LOG_SIZE)
        result = self._lib.bpf_object__load(self._object)
        if result:
            raise FastpathError(self._complaint(path, -result), -result)

    def _complaint(self, path: Path, number: int) -> str:
        text = f"the kernel refused {path.name}: {os.strerror(number)}"
        for name, log in self._logs.items():
            lines = log.value.decode("utf-8", "replace").strip().splitlines()
            if lines:
                text += f"; verifier on {name}: " + " | ".join(lines[-_LOG_LINES:])
        return text

    def _find(self, what: str, name: str) -> int:
        found = getattr(self._lib, f"bpf_object__find_{what}_by_name")(self._object, name.encode())
        if not found:
            raise FastpathError(f"the eBPF object has no {what} {name}", errno.ENOENT)
        return int(found)

    def _map(self, name: str) -> int:
        return self._find("map", name)

    def _program(self, name: str) -> int:
        return self._find("program", name)

    def program(self, name: str) -> int:
        """Descriptor of a loaded program."""
        return int(self._lib.bpf_program__fd(self._program(name)))

    def map(self, name: str) -> tuple[int, int, int]:
        """(descriptor, key size, value size) of a map; the value size of one CPU for per-CPU maps."""
        handle = self._map(name)
        return (
            int(self._lib.bpf_map__fd(handle)),
            int(self._lib.bpf_map__key_size(handle)),
            int(self._lib.bpf_map__value_size(handle)),
        )

    def close(self) -> None:
        """Lets go of everything; may be called twice."""
        if self._object:
            self._lib.bpf_object__close(self._object)
            self._object = None
