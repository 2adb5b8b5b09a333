"""Several sessions at one destination: for the same guest, and under the same id of a job."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.migration.samples import CAPABILITIES, JOB, REQUEST
from xiatb.errors import XiatbError
from xiatb.migration import admission, config, destjob, hosting, tokens
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.destjob import DestinationJob
from xiatb.migration.journal import Journal
from xiatb.migration.messages import Channel
from xiatb.migration.service import MigrationService


def test_one_of_two_sessions_gets_the_guest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both ask while libvirtd is still being asked for the first: the second one's clean-up would remove the
    disk of the first one's guest."""
    asked, answer = asyncio.Event(), asyncio.Event()

    async def state(guest: str) -> str:
        asked.set()
        await answer.wait()
        return "absent"

    async def nothing(*_: Any) -> None: ...

    monkeypatch.setattr(admission, "admit", lambda *_: None)
    monkeypatch.setattr(admission, "admit_storage", nothing)
    monkeypatch.setattr(destjob, "create_disk", nothing)
    station: Any = SimpleNamespace(
        journal=Journal(tmp_path), driver=SimpleNamespace(state=state), node=None, busy=set(), facts=None,
        config=config.DaemonConfig("lab", "hv2", tmp_path, tmp_path, tmp_path / "s", runtime=tmp_path),
        permit=lambda *request: None,
    )  # fmt: skip

    def session(job: str) -> Any:
        link: Any = SimpleNamespace(session=SimpleNamespace(channel_key=b"k" * 32))
        consult: Any = None
        one = DestinationJob(DestinationMachine(), link, station, CAPABILITIES, consult, "hv1")
        one.machine.peer = CAPABILITIES
        return one._make_room(dataclasses.replace(REQUEST, job=job))

    async def body() -> None:
        first = asyncio.ensure_future(session("0" * 8))
        await asked.wait()
        with pytest.raises(hosting.RefusedError, match="already being moved"):
            await session("1" * 8)
        answer.set()
        assert len(await first) == 3

    asyncio.run(asyncio.wait_for(body(), 20))


def test_any_error_of_an_admission_is_an_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without one the source waits in vain, and the guest's name is taken for as long as the daemon lives."""

    async def state(guest: str) -> str:
        return "absent"

    async def fails(*_: Any) -> None:
        raise XiatbError("qemu-img says no")

    monkeypatch.setattr(admission, "admit", lambda *_: None)
    monkeypatch.setattr(admission, "admit_storage", fails)

    async def ask(*_: Any, **__: Any) -> None: ...

    station: Any = SimpleNamespace(
        journal=Journal(tmp_path), driver=SimpleNamespace(state=state), busy=set(), facts=None,
        node=SimpleNamespace(ask=ask), permit=lambda *request: None,
        config=config.DaemonConfig("lab", "hv2", tmp_path, tmp_path, tmp_path / "s", runtime=tmp_path),
    )  # fmt: skip
    sent: list[Any] = []
    link: Any = SimpleNamespace(send=sent.append)
    consult: Any = None
    job = DestinationJob(DestinationMachine(), link, station, CAPABILITIES, consult, "hv1")
    job.machine.on_established(CAPABILITIES, 0.0)
    job.machine.on_message(CAPABILITIES, 0.0)
    job.machine.on_message(REQUEST, 0.0)
    job.machine.take_actions()
    asyncio.run(job._prepare(dataclasses.replace(REQUEST, tls="")))
    assert [(one.code, one.reason) for one in sent] == [("failed", "qemu-img says no")]
    assert job.outcome is not None and not station.busy


def test_another_s_job_of_the_same_id_takes_no_channel(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A peer has overheard the id and made jobs of its own with it: the channel is its who granted it."""
    taken: list[Any] = []

    async def on_channel(job: DestinationJob, *_: Any) -> None:
        taken.append(job)

    monkeypatch.setattr(DestinationJob, "on_channel", on_channel)
    station: Any = SimpleNamespace(
        driver=None, node=None, config=config.DaemonConfig("lab", "hv2", tmp_path, tmp_path, tmp_path / "s")
    )
    consult: Any = None

    def job(key: bytes) -> tuple[DestinationJob, Channel]:
        one = DestinationJob(DestinationMachine(), None, station, CAPABILITIES, consult, "hv1")
        one.machine.job, one._book = JOB, tokens.TokenBook(JOB, key)
        return one, one._book.grant("rpc", 1)[0]

    others = [job(b"a" * 32)[0] for _ in range(4)]
    others[0]._book = None  # not admitted
    own, channel = job(b"s" * 32)
    at: Any = SimpleNamespace(_incoming=[*others, own])
    wire: Any = None
    body = tokens.pack_open(JOB, channel, b"s" * 32)[6:]
    asyncio.run(MigrationService.on_channel(at, wire, body, "", lambda: None))
    assert taken == [own]
