"""Which engine forwards for a node, the eBPF program or the Click graph alone, and why.

`data_plane: auto` takes eBPF where it loads and says once why it does not; `ebpf` insists; `click` does
without. The Click graph is complete in any case: it gets every packet that the eBPF engine passes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xiatb.click.graph import Router, flatten_text
from xiatb.errors import HostNotAbleError, XiatbError
from xiatb.fastpath import batch
from xiatb.node.acceleration import Differences, differences
from xiatb.node.config import NodeConfig
from xiatb.node.context import write_log
from xiatb.node.control_protocol import Json
from xiatb.node.graph import composition
from xiatb.node.port import Port

if TYPE_CHECKING:
    from xiatb.node.accelerator import Accelerator


class DataPlane:
    """The choice of one node and what became of it."""

    def __init__(self, config: NodeConfig, ports: Sequence[Port], router: Router) -> None:
        self._config = config
        self._ports = ports
        self._router = router
        self._accelerator: Accelerator | None = None
        self._why = ""
        self._left_out: dict[int, str] = {}

    def start(self) -> None:
        """Chooses; the graph must be initialised. Raises HostNotAbleError when `ebpf` cannot be had."""
        if self._config.data_plane == "click":
            self._why = "data_plane is click"
            return
        if self._config.attach == "direct":
            self._why = "applications use the port directly"
            return
        found = self._differences()
        self._left_out = found.ports
        for port in self._ports:
            if port.role == "ip":
                self._left_out[port.index] = "XIP crosses an IP network there"
        for index, reason in sorted(found.ports.items()):
            write_log("info", f"port {index} is not accelerated: {reason}")
        if found.node:
            self._why = f"the Click file of its own: {found.node}"
            write_log("info", f"forwarding by Click: {self._why}")
            return
        self._load()

    def _differences(self) -> Differences:
        if self._config.click is None:
            return Differences("", {})
        usual, _ = flatten_text(composition(self._config, self._ports), "<usual>")
        return differences(self._router.flat, usual)

    def _load(self) -> None:
        # Imported here: nodes that do without, guests above all, should not load it.
        from xiatb.fastpath.errors import FastpathError
        from xiatb.node.accelerator import Accelerator

        try:
            self._accelerator = Accelerator(
                self._router,
                self._ports,
                transit=self._config.is_gateway,
                left_out=list(self._left_out),
                failed=self._failed,
            )
        except FastpathError as error:
            if self._config.data_plane == "ebpf":
                raise HostNotAbleError(
                    f"data_plane ebpf: {error.message}", hint=error.hint or "data_plane auto does without"
                ) from error
            self._why = error.message
            write_log("warning", f"forwarding by Click, as eBPF does not load: {error.message}")
            return
        self._router.refresh = self.refresh
        write_log("info", "forwarding by eBPF")

    def _failed(self, why: str) -> None:
        self._accelerator = None
        self._why = f"the eBPF engine was given up: {why}"
        write_log("error", f"forwarding by Click: {self._why}")

    def port_changed(self, port: Port) -> None:
        """An interface came, went or changed; `port` knows how it is now."""
        if self._accelerator is not None:
            self._accelerator.port_changed(port)

    def refresh(self) -> None:
        """Brings the counters of elements and ports up to date."""
        if self._accelerator is None:
            return
        try:
            self._accelerator.refresh()
        except XiatbError as error:
            write_log("warning", f"counters: {error.message}")

    def describe(self) -> Json:
        """{"data_plane": what was asked for, "engine": "ebpf" or "click", "engine_why": "" or the reason,
        "routes_left_out": routes that did not fit the eBPF map, "batch_io": "c" or "python", how packet
        sockets are read and written, "batch_io_why": "" or why not in C}."""
        accelerator = self._accelerator
        why = self._why if accelerator is None else accelerator.paused
        library, missing = batch.loaded()
        return {
            "data_plane": self._config.data_plane,
            "engine": "click" if why or accelerator is None else "ebpf",
            "engine_why": why,
            "routes_left_out": 0 if accelerator is None else accelerator.overflow,
            "batch_io": "python" if library is None else "c",
            "batch_io_why": missing,
        }

    def describe_port(self, port: Port) -> Json:
        """The same of one port, {"engine", "engine_why", "passed": packets that eBPF left to Click, by
        reason, "fastpath": what Click's fast path did}."""
        whole, accelerator = self.describe(), self._accelerator
        engine, why = whole["engine"], whole["engine_why"]
        if port.index in self._left_out:
            engine, why = "click", self._left_out[port.index]
        elif engine == "ebpf" and accelerator is not None and not accelerator.serves(port):
            engine, why = "click", "there is no such interface yet"
        passed = {} if accelerator is None else accelerator.passed(port)
        return {"engine": engine, "engine_why": why, "passed": passed, "fastpath": self._fast_path(port)}

    def _fast_path(self, port: Port) -> Json | None:
        """{"enabled", "hits", "passed": packets without and by the graph, "aside": flows that stay in the
        graph, by the element that must see them}; None where the graph has no lcN/fast."""
        fast: Any = self._router.elements.get(f"lc{port.index}/fast")
        if fast is None or fast.class_name != "XIAFastPath":
            return None
        return {
            "enabled": fast.enabled,
            "hits": fast.hits,
            "passed": fast.passed,
            "aside": dict(fast.aside),
        }

    def close(self) -> None:
        """Takes the engine away; what it counted is kept."""
        if self._accelerator is not None:
            self._accelerator.close()
            self._accelerator = None
            self._why = "the node process ends"
