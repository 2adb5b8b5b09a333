"""The eBPF engine of one node: its program in the kernel, its tables, its counters.

The tables are the program's own form (`Route`): interface numbers and MAC addresses. `mirror.py` makes them
from a node's route tables.
"""

from __future__ import annotations

import errno
import os
import struct
from pathlib import Path

from xiatb.fastpath import bpf, tc
from xiatb.fastpath.errors import FastpathError, TableFullError
from xiatb.fastpath.libbpf import ObjectFile, possible_cpus
from xiatb.fastpath.routes import COUNTERS_LEN, Counters, Kind, Route, pack_port, sum_counters

OBJECT_PATH = Path(__file__).with_name("xip.bpf.o")
OBJECT_VARIABLE = "XIATB_EBPF_OBJECT"
"""Environment: another compiled program than the one in the tree."""
MAX_ROUTES = 65536
MAX_PORTS = 256
MAX_TYPE = 255
"""Greatest principal type that can have a default route."""

_PROGRAMS = ("xip_forward", "xip_entry")
_ENGINE_KEY = struct.pack("=I", 0)


def object_path() -> Path:
    """The compiled program that nodes load."""
    return Path(os.environ.get(OBJECT_VARIABLE) or OBJECT_PATH)


class Fastpath:
    """One loaded engine. Ports pass everything until `enable`; all of it ends with the process.

    The process's descriptor of the map `engine` is what keeps the program forwarding (docs/fastpath.md): a
    child that is forked afterwards, without exec, would keep it going.
    """

    def __init__(self, object_file: ObjectFile) -> None:
        self._object = object_file
        self._forward = object_file.program("xip_forward")
        self._entry = object_file.program("xip_entry")
        self._routes = self._map("routes")
        self._defaults = self._map("defaults")
        self._ports = self._map("ports")
        self._engine = self._map("engine")
        fd, key_size, size = object_file.map("counters")
        if size != COUNTERS_LEN:
            raise FastpathError(f"{OBJECT_PATH.name} is out of date", hint="scripts/setup compiles it")
        self._counters = bpf.Map(fd, key_size, size * possible_cpus())
        fd, key_size, size = object_file.map("discards")
        self._discards = bpf.Map(fd, key_size, size * possible_cpus())
        self._attached: dict[int, int] = {}
        self._discarding: set[int] = set()
        self.refused = 0
        """Routes that did not fit the map."""

    @classmethod
    def load(cls, path: Path = OBJECT_PATH, *, max_routes: int = MAX_ROUTES) -> Fastpath:
        """Loads the program. Raises FastpathError with the verifier's or the kernel's words.

        max_routes: 1 to MAX_ROUTES; a route costs memory only when it is there, a bucket of the table (16
        octets) always.
        """
        if not 1 <= max_routes <= MAX_ROUTES:
            raise FastpathError(f"a table of {max_routes} routes: 1 to {MAX_ROUTES} are possible")
        object_file = ObjectFile(path, _PROGRAMS, {"routes": max_routes})
        try:
            return cls(object_file)
        except FastpathError:
            object_file.close()
            raise

    def _map(self, name: str) -> bpf.Map:
        return bpf.Map(*self._object.map(name))

    # Ports

    def enable(self) -> None:
        """From now on the attached ports forward. Raises FastpathError."""
        try:
            self._engine.update(_ENGINE_KEY, struct.pack("=I", self._forward))
        except OSError as error:
            raise _failure("switching the engine on", error) from error

    def disable(self) -> None:
        """From now on the attached ports pass everything to the slow path; the tables stay."""
        try:
            self._engine.delete(_ENGINE_KEY)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise _failure("switching the engine off", error) from error

    def attach(self, ifindex: int, slot: int, *, transit: bool = True) -> None:
        """Accelerates what comes in by an interface of the present network namespace.

        slot: number to count under (the node's port number), below MAX_PORTS; transit: False for the link of
        an end host, whose packets are delivered or passed, never forwarded. Raises FastpathError.
        """
        self.set_port(ifindex, slot, transit=transit)
        try:
            tc.attach(ifindex, self._entry)
        except FastpathError:
            self._drop_port(ifindex)
            raise
        self._attached[ifindex] = slot

    def set_port(self, ifindex: int, slot: int, *, transit: bool = True) -> None:
        """Enters an interface in the table of ports without attaching to it (for test runs)."""
        if not 0 <= slot < MAX_PORTS:
            raise FastpathError(f"port number {slot}: 0 to {MAX_PORTS - 1} are possible")
        try:
            self._ports.update(struct.pack("=I", ifindex), pack_port(slot, transit))
        except OSError as error:
            raise _failure(f"port {slot}", error) from error

    def detach(self, ifindex: int) -> None:
        """What comes in by this interface goes to the slow path again; harmless when it is gone."""
        self._attached.pop(ifindex, None)
        self._drop_port(ifindex)
        tc.detach(ifindex)

    def _drop_port(self, ifindex: int) -> None:
        try:
            self._ports.delete(struct.pack("=I", ifindex))
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise _failure(f"interface {ifindex}", error) from error

    @property
    def attached(self) -> dict[int, int]:
        """Port number by interface number of the accelerated interfaces."""
        return dict(self._attached)

    # Tables

    def set_route(self, key: bytes, route: Route) -> None:
        """Routes the XID with this 24-byte key, in place of any earlier route. Raises TableFullError."""
        if route.kind == Kind.DISCARD:
            self._discarding.add(route.slot)
        try:
            self._routes.update(key, route.pack())
        except OSError as error:
            if error.errno == errno.E2BIG:
                self.refused += 1
                raise TableFullError("the route map of the eBPF engine is full", errno.E2BIG) from error
            raise _failure(f"route for {key.hex()}", error) from error

    def delete_route(self, key: bytes) -> None:
        """Forgets the route of an XID; harmless when there is none."""
        try:
            self._routes.delete(key)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise _failure(f"route for {key.hex()}", error) from error

    def set_default(self, kind: int, route: Route | None) -> None:
        """Routes every XID of a principal type (up to MAX_TYPE) that has no route of its own; None: nowhere.

        The kernel does not replace such an entry in one go, so for a moment these packets are passed.
        Raises FastpathError.
        """
        if not 0 <= kind <= MAX_TYPE:
            raise FastpathError(f"principal type 0x{kind:x} cannot have a default: above 0x{MAX_TYPE:x}")
        wanted = route or Route(Kind.NONE)
        slot = struct.pack("=I", kind)
        if wanted.kind == Kind.DISCARD:
            self._discarding.add(wanted.slot)
        try:
            self._defaults.update(slot, wanted._replace(kind=Kind.PASS).pack())
            self._defaults.update(slot, wanted.pack())
        except OSError as error:
            raise _failure(f"default route of type 0x{kind:x}", error) from error

    # What it did

    def counters(self, slot: int) -> Counters:
        """Totals of the port with this number since the engine was loaded. Raises FastpathError."""
        try:
            return sum_counters(self._counters.lookup(struct.pack("=I", slot)))
        except OSError as error:
            raise _failure(f"counters of port {slot}", error) from error

    def discards(self) -> dict[int, int]:
        """Packets dropped for a route to DISCARD, by the principal type of what was looked up; types without
        any are left out. Only types that have had such a route are asked for. Raises FastpathError.
        """
        found = {}
        for kind in self._discarding:
            try:
                values = self._discards.lookup(struct.pack("=I", kind))
            except OSError as error:
                raise _failure(f"discards of type 0x{kind:x}", error) from error
            found[kind] = sum(struct.unpack(f"={len(values) // 8}Q", values))
        return found

    def test_run(self, frame: bytes, ingress: int, repeat: int = 1) -> bpf.Run:
        """Runs the forwarder on a frame as if it came in by interface `ingress`; see `bpf.test_run`.

        The verdict is one of tc's: 7 redirected, 2 dropped, -1 passed. Raises FastpathError.
        """
        try:
            return bpf.test_run(self._forward, frame, ingress, repeat)
        except OSError as error:
            raise _failure("test run", error) from error

    def close(self) -> None:
        """Detaches from all ports and lets go of program and maps; may be called twice.

        To be called in the network namespace in which the ports were attached.
        """
        try:
            for ifindex in list(self._attached):
                self.detach(ifindex)
        finally:
            self._object.close()


def _failure(what: str, error: OSError) -> FastpathError:
    return FastpathError(f"{what}: {error.strerror}", error.errno or 0)
