"""`xiatb migration switch` and `resume`: when a whole (simulated) migration takes them, when it refuses."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from tests.migration import simtime
from tests.migration.simdaemons import Scene, owned_task
from tests.migration.simguest import GUEST


def asked(
    base: Path, monkeypatch: pytest.MonkeyPatch, what: str, **options: Any
) -> tuple[dict[str, bool], Any]:
    """What the source's daemon answers to `what` at each point of a migration, and the migration's result."""
    answers: dict[str, bool] = {}

    async def scenario() -> Any:
        scene = Scene(base, monkeypatch)
        daemon = scene.daemons["hv1"]

        async def ask(point: str) -> None:
            answers[point] = getattr(daemon.service, what)(GUEST)

        async def reach(point: str) -> None:
            if point not in answers:
                await asyncio.shield(daemon.run(ask(point)))

        await scene.start(reach)
        await asyncio.sleep(1.0)
        result = await scene.migrate(**options)
        await scene.settle()
        assert scene.world.running() == ["hv2"]
        await scene.stop()
        return result

    return answers, simtime.run(scenario, monkeypatch, owned_task)


def test_no_switch_while_the_disk_is_being_copied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The memory of a guest in post-copy must not wait behind its disk."""
    answers, result = asked(tmp_path, monkeypatch, "switch", mode="hybrid")
    assert answers["storage"] is False
    assert answers["first"] is True
    states = [one["status"] for one in result["qemu_states"]]
    assert "postcopy-active" in states


def test_no_switch_without_a_mode_that_has_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, result = asked(tmp_path, monkeypatch, "switch", mode="precopy")
    assert set(answers) >= {"storage", "first", "later", "switchover"}
    assert not any(answers.values())
    assert "postcopy-active" not in [one["status"] for one in result["qemu_states"]]


def test_nothing_to_take_up_while_nothing_is_broken(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers, _ = asked(tmp_path, monkeypatch, "resume", mode="postcopy")
    assert "postcopy" in answers
    assert not any(answers.values())
