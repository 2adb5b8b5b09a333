"""The accelerator on a kernel that refuses: pure, with an engine that is none."""

from __future__ import annotations

import errno
from typing import Any, cast

import pytest

from tests.click.support import Node, ad, hid, mac
from xiatb.fastpath.engine import Fastpath
from xiatb.fastpath.errors import FastpathError
from xiatb.fastpath.routes import Counters, Kind, Reason, Route
from xiatb.node.accelerator import Accelerator
from xiatb.node.port import Port
from xiatb.wire.walk import Entry
from xiatb.wire.xid import XidType


class Kernel:
    """Stands for Fastpath; `refuse` is the call that fails, with that error number."""

    def __init__(self) -> None:
        self.routes: dict[bytes, Route] = {}
        self.attached: dict[int, bool] = {}
        self.enabled = self.closed = False
        self.refuse = ("", 0)
        self.totals = {slot: Counters(0, 0, 0, 0, 0, dict.fromkeys(Reason, 0)) for slot in range(3)}
        self.dropped: dict[int, int] = {}

    def _asked(self, what: str) -> None:
        assert not self.closed, what
        if self.refuse[0] == what:
            raise FastpathError(f"no {what}", self.refuse[1])

    def set_route(self, key: bytes, route: Route) -> None:
        self._asked("route")
        self.routes[key] = route

    def delete_route(self, key: bytes) -> None:
        self.routes.pop(key, None)

    def set_default(self, kind: int, route: Route | None) -> None:
        self._asked("default")

    def attach(self, ifindex: int, slot: int, *, transit: bool = True) -> None:
        self._asked("attach")
        self.attached[ifindex] = transit

    def detach(self, ifindex: int) -> None:
        self._asked("detach")
        self.attached.pop(ifindex, None)

    def enable(self) -> None:
        self.enabled = True

    def disable(self) -> None:
        self.enabled = False

    def counters(self, slot: int) -> Counters:
        self._asked("counters")
        return self.totals[slot]

    def discards(self) -> dict[int, int]:
        return dict(self.dropped)

    def close(self) -> None:
        self.closed = True
        self.attached.clear()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Kernel:
    made = Kernel()
    monkeypatch.setattr(Fastpath, "load", lambda path, max_routes: made)
    return made


class Setting:
    """A node's graph, three ports that are up, and an accelerator for them."""

    def __init__(self, *, transit: bool = True, left_out: tuple[int, ...] = ()) -> None:
        self.node = Node()
        self.failures: list[str] = []
        self.ports = [
            Port(index, name, "link" if index else "internal", 1500, cast(Any, None))
            for index, name in enumerate(("xia0r", "eth0", "eth1"))
        ]
        for port in self.ports:
            port.ifindex, port.mac, port.up = 10 + port.index, mac(port.index + 1), True
        self.made = Accelerator(
            self.node.router, self.ports, transit=transit, left_out=left_out, failed=self.failures.append
        )


def test_what_is_there_is_mirrored_and_attached(kernel: Kernel) -> None:
    setting = Setting(transit=False)
    assert kernel.enabled and kernel.attached == {10: True, 11: False, 12: False}
    assert kernel.routes[ad(2).key] == Route(Kind.PASS), "the neighbour is not known yet"
    setting.node["lc2/xarpq"].insert(hid(5).key, mac(0x55))
    assert kernel.routes[ad(2).key] == Route(Kind.FORWARD, 12, 2, mac(0x55), mac(3), 1500)
    setting.node.router.write("lc2/mtu.mtu", "1400")
    assert kernel.routes[ad(2).key].mtu == 1400
    setting.ports[2].up = False
    setting.made.port_changed(setting.ports[2])
    assert kernel.routes[ad(2).key].kind == Kind.PASS


def test_a_port_left_out_is_neither_way_in_nor_way_out(kernel: Kernel) -> None:
    setting = Setting(left_out=(2,))
    setting.node["lc2/xarpq"].insert(hid(5).key, mac(0x55))
    assert kernel.routes[ad(2).key] == Route(Kind.PASS) and set(kernel.attached) == {10, 11}
    setting.made.port_changed(setting.ports[2])
    assert set(kernel.attached) == {10, 11} and not setting.made.serves(setting.ports[2])


def test_an_interface_that_is_made_again_is_attached_again(kernel: Kernel) -> None:
    setting = Setting()
    port = setting.ports[1]
    port.ifindex = 0
    setting.made.port_changed(port)
    assert set(kernel.attached) == {10, 12} and not setting.made.serves(port)
    port.ifindex = 20
    kernel.refuse = ("attach", errno.ENODEV)
    setting.made.port_changed(port)
    assert not setting.failures, "it was gone again"
    kernel.refuse = ("", 0)
    setting.made.port_changed(port)
    assert set(kernel.attached) == {10, 12, 20} and setting.made.serves(port)


@pytest.mark.parametrize("what", ["route", "default", "attach"])
def test_a_refusal_at_the_start_is_told_and_leaves_nothing(kernel: Kernel, what: str) -> None:
    kernel.refuse = (what, errno.EPERM)
    with pytest.raises(FastpathError, match=f"no {what}"):
        Setting()
    assert kernel.closed and not kernel.attached


def test_a_refusal_later_leaves_everything_to_click(kernel: Kernel) -> None:
    setting = Setting()
    kernel.refuse = ("route", errno.ENOMEM)
    table = setting.node.table("AD")
    table.set(ad(9).key, Entry(1, hid(4).key))
    assert setting.failures == ["no route"] and kernel.closed
    assert table.table[ad(9).key] == Entry(1, hid(4).key), "Click has the route"
    table.remove(ad(9).key)
    setting.node["lc1/xarpq"].insert(hid(4).key, mac(4))
    setting.made.port_changed(setting.ports[1])
    setting.made.refresh()
    setting.made.close()
    assert setting.failures == ["no route"] and not setting.made.serves(setting.ports[1])


def test_counters_are_added_once(kernel: Kernel) -> None:
    setting = Setting()
    reasons = {**dict.fromkeys(Reason, 0), Reason.BAD_LENGTH: 3, Reason.DISCARDED: 2, Reason.LOCAL: 50}
    kernel.totals[1] = Counters(10, 1000, 4, 400, 70, reasons)
    kernel.dropped = {XidType.AD: 2}
    node = setting.node
    for _ in range(2):
        setting.made.refresh()
    assert (node["lc1/in"].count, node["lc1/in"].bytes) == (15, 1070)
    assert (node["lc1/check"].count, node["lc1/check"].drops) == (15, 3)
    assert node["lc1/check"].reasons["truncated"] == 3
    assert (node["lc1/device"].count, node["lc1/device"].bytes) == (4, 400)
    assert setting.made.passed(setting.ports[1]) == {"local": 50}
    assert node.table("AD").drops == 2 and node.table("HID").drops == 0
    assert setting.ports[1].counters()["rx"] == 15 and setting.ports[1].counters()["tx"] == 4


def test_a_table_switched_off_pauses_the_engine(kernel: Kernel) -> None:
    setting = Setting()
    setting.node.router.write("core/rt_SID.enabled", "0")
    assert not kernel.enabled and setting.made.paused == "route table core/rt_SID is switched off"
    setting.node.router.write("core/rt_SID.enabled", "1")
    assert kernel.enabled and not setting.made.paused
