"""Memory-only migrations of a real guest system in a lab, one after the other, in every mode: its boot,
memory and disk are checked after each as the demo does."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.lab.labs import TestLab, leftovers, needs_root
from xiatb.errors import LabStateError
from xiatb.experiments.guestcheck import GuestCheck
from xiatb.lab.client import LabClient

pytestmark = [pytest.mark.guest, needs_root]

# 25 ms from hypervisor to hypervisor and back. The disk of vm1 is reached from both, that of vm2 lies on the
# image.
TEXT = """
name: x
defaults:
  link: {mtu: 9000}
nodes:
  hv1: {kind: hypervisor, ad: ad1}
  hv2: {kind: hypervisor, ad: ad2}
guests:
  vm1: {on: hv1, memory: 160M, disk: shared, services: [responder, writer]}
  vm2: {on: hv1, memory: 160M, disk: overlay, services: [responder, writer]}
links:
  - {endpoints: [hv1, hv2], rate: 400mbit, delay: 12.5ms}
"""
MODES = {
    "precopy": (),
    "postcopy": ("--mode", "postcopy"),
    "hybrid": ("--mode", "hybrid", "--after-passes", "1"),
    "multifd": ("--streams", "3"),
}
STOP_TO_RESUME_MS = 400
"""Far above what is measured on a machine at rest (docs/modes.md): this one is not."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TestLab]:
    made = TestLab(tmp_path_factory.mktemp("modes"), TEXT)
    lab_id = "none"
    try:
        lab_id = made.up().id
        yield made
    finally:
        with contextlib.suppress(LabStateError):
            made.down()
    assert leftovers(made.name, lab_id) == []


def moved(lab: TestLab, guest: str, *words: str) -> dict[str, Any]:
    """Migrate to the other host while the guest writes; its contents hold afterwards."""
    with LabClient(lab.name, timeout=120.0) as client:
        at = next(one["on"] for one in client.request("status")["guests"] if one["name"] == guest)
        to = "hv2" if at == "hv1" else "hv1"

        def ask(request: dict[str, Any]) -> dict[str, Any]:
            return client.request("agent", guest=guest, request=request, timeout=120.0)

        check = GuestCheck(ask, len(words))
        check.before()
        check.start_writer(1 << 19, 1 << 17, 4 << 20, 1 << 20)
        done = lab.cli("migrate", guest, "--to", to, "-l", lab.name, "-o", "json", *words, timeout=120)
        assert done.returncode == 0, done.stderr
        check.stop_writer()
        held = check.contents()
        assert all(held.values()), held
        assert check.uptime_monotonic()
    result: dict[str, Any] = json.loads(done.stdout)
    assert result["pages"]["verified"] is True, result["pages"]
    return result


@pytest.mark.parametrize("mode", MODES)
def test_memory_moves_in_every_mode(lab: TestLab, mode: str) -> None:
    result = moved(lab, "vm1", *MODES[mode])
    assert result["storage"] is False
    assert result["bytes_qemu"]["nbd"] == 0
    assert result["bytes_qemu"]["ram"] > 20 << 20
    seen = [one["status"] for one in result["qemu_states"]]
    assert ("postcopy-active" in seen) == (mode in ("postcopy", "hybrid"))
    if mode == "postcopy":
        assert result["downtime_ms"] < STOP_TO_RESUME_MS
    assert result["streams"] == (3 if mode == "multifd" else 1)


def test_options_that_do_not_go_together_are_refused_with_a_hint(lab: TestLab) -> None:
    for words in (("--mode", "postcopy", "--streams", "2"), ("--after-passes", "2")):
        done = lab.cli("migrate", "vm1", "--to", "hv2", "-l", lab.name, *words)
        assert done.returncode == 2
        assert "hint: " in done.stderr
    done = lab.cli("migration", "set", "vm1", "-l", lab.name, "--bandwidth", "3")
    assert done.returncode == 2
    assert "not being migrated" in done.stderr


def test_only_the_overlay_moves_when_the_image_is_there(lab: TestLab) -> None:
    result = moved(lab, "vm2", "--storage", "backing")
    assert result["incremental"] is True
    assert result["bytes_qemu"]["nbd"] < 32 << 20, "the image has some 90 MiB"
