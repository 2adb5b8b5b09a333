"""What a script reads of `xiatb migrate -o json` when the guest was not moved."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any, Self

import pytest
from click.testing import CliRunner

from xiatb.cli import migrate as verb
from xiatb.errors import XiatbError
from xiatb.node.control_protocol import ControlError


class Refusing:
    """Stands for the lab's client; every migration fails."""

    lab = "t"

    def __init__(self, lab: str) -> None:
        pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def stream(self, op: str, **fields: Any) -> Iterator[dict[str, Any]]:
        yield {"event": "phase", "phase": "storage"}
        raise ControlError("no-room", "vm1 runs on hv1 as before; hv2 is full", hint="free memory on hv2")


@pytest.mark.parametrize("words, told", [(("-o", "json"), True), ((), False)])
def test_the_reason_is_data_where_data_was_asked_for(
    words: tuple[str, ...], told: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(verb, "LabClient", Refusing)
    monkeypatch.setattr(verb, "choose_lab", Refusing)
    monkeypatch.setattr(verb, "require_root", lambda: None)
    done = CliRunner().invoke(verb.command, ["vm1", "--to", "hv2", *words])
    assert isinstance(done.exception, XiatbError)
    assert done.exception.message == "not migrated (no-room): vm1 runs on hv1 as before; hv2 is full"
    if told:
        assert json.loads(done.stdout) == {
            "error": {
                "code": "no-room",
                "message": "vm1 runs on hv1 as before; hv2 is full",
                "hint": "free memory on hv2",
            }
        }
    else:
        assert done.stdout == ""
