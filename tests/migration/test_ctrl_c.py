"""Ctrl-C in `xiatb migrate`: the lab hears of it as soon as it can, and the user what became of it."""

from __future__ import annotations

import contextlib
from typing import Any

import pytest

from xiatb.cli import migrate as verb
from xiatb.errors import XiatbError
from xiatb.node.control_protocol import ControlError


class Answers:
    """Stands for the lab's client: each `migrate_cancel` gets the next of these answers."""

    def __init__(self, *answers: Any) -> None:
        self.answers = list(answers)

    def __call__(self, lab: str) -> Any:
        return contextlib.nullcontext(self)

    def request(self, op: str, guest: str) -> Any:
        answer = self.answers.pop(0)
        if isinstance(answer, Exception):
            raise answer
        return {"cancelled": answer}


@pytest.mark.parametrize(
    ("answers", "words"),
    [
        ((True,), ""),
        ((ControlError("EUSAGE", "vm1 is not being migrated"), True), ""),
        ((False,), "too late: vm1 has been handed over already"),
        ((XiatbError("the lab is gone"),), "cancel: the lab is gone"),
        ((ControlError("EIO", "no"),), "cancel: no"),
    ],
)
def test_ctrl_c_is_heard_by_a_migration_that_is_not_there_yet(
    answers: tuple[Any, ...], words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lab = Answers(*answers)
    monkeypatch.setattr(verb, "LabClient", lab)
    monkeypatch.setattr(verb, "_AGAIN_S", 0.001)
    with verb._Cancel("t", "vm1") as cancel:
        cancel._ask()
    assert lab.answers == []
    assert capsys.readouterr().err.strip() == words


def test_ctrl_c_is_not_asked_again_when_the_command_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    lab = Answers()
    monkeypatch.setattr(verb, "LabClient", lab)
    with verb._Cancel("t", "vm1") as cancel:
        pass
    cancel._ask()
