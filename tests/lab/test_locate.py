"""At which of two hosts a guest is that both of them know."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from xiatb.errors import XiatbError
from xiatb.lab import locate
from xiatb.lab.paths import LabPaths

HID = "HID:" + "8" * 40
PLAN: Any = SimpleNamespace(
    guest=lambda name: SimpleNamespace(hid=HID),
    kind=lambda kind: [SimpleNamespace(name=name) for name in ("hv1", "hv2", "hv3")],
)


@pytest.mark.parametrize(
    ("told", "host"),
    [
        ({"hv1": (5, False)}, "hv1"),
        ({"hv1": (5, False), "hv2": (6, False)}, "hv2"),
        ({"hv1": (7, True), "hv2": (6, False)}, "hv2"),
        ({"hv1": (5, True)}, "hv1"),
        ({}, None),
    ],
    ids=["one", "newer", "refreshed after it had signed for its new place", "on its way", "nowhere"],
)
def test_where_a_guest_is(
    told: dict[str, tuple[int, bool]], host: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask(paths: LabPaths, node: str, op: str) -> dict[str, Any]:
        assert op == "joined"
        if node == "hv3":
            raise XiatbError("dead")
        seen = [{"hid": "HID:" + "9" * 40, "seq": 99, "away": False}]
        if node in told:
            seen.append({"hid": HID, "seq": told[node][0], "away": told[node][1]})
        return {"hosts": seen}

    monkeypatch.setattr(locate, "ask_node", ask)
    assert locate.guest_host(LabPaths("t"), PLAN, "vm1") == host
