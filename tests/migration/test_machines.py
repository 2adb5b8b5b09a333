"""The two state machines, step by step."""

from __future__ import annotations

from typing import Any

import pytest

from tests.migration.samples import CAPABILITIES, CHANNELS, HID, JOB, REQUEST
from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.machine import Machine
from xiatb.migration.source import SourceMachine


def kinds(machine: Machine) -> list[str]:
    """Names of the waiting actions; messages by their type."""
    names = []
    for action in machine.take_actions():
        if isinstance(action, a.Send):
            names.append(action.message.TYPE)
        elif not isinstance(action, a.Phase):
            names.append(type(action).__name__)
    return names


def finish(machine: Machine) -> a.Finish:
    return next(action for action in machine.take_actions() if isinstance(action, a.Finish))


def source(state: str = "transfer") -> SourceMachine:
    machine = SourceMachine(REQUEST)
    machine.on_established(CAPABILITIES, 0.0)
    if state != "capabilities":
        machine.on_message(CAPABILITIES, 0.1)
    if state not in ("capabilities", "admission"):
        machine.on_message(m.Accept(job=JOB, channels=CHANNELS), 0.2)
    if state in ("switchover", "handover", "commit"):
        machine.on_stopped(1_000, 1.0)
    if state in ("handover", "commit"):
        machine.on_finish(False, 1.0)
        assert machine.may_start
    if state == "commit":
        machine.on_message(m.Resumed(job=JOB, t_resume=2_000), 1.1)
        machine.on_transfer_done(True, "", 1.2)
    assert machine.state == state
    machine.take_actions()
    return machine


def destination(state: str = "transfer") -> DestinationMachine:
    machine = DestinationMachine()
    machine.on_established(CAPABILITIES, 0.0)
    if state != "request":
        machine.on_message(CAPABILITIES, 0.0)
        machine.on_message(REQUEST, 0.1)
    if state not in ("request", "preparing"):
        machine.on_prepared(CHANNELS, "", "", 0.2)
    if state in ("switchover", "running", "committed"):
        machine.on_message(m.Switchover(job=JOB, t_stop=1_000), 1.0)
    if state in ("running", "committed"):
        machine.on_resumed(2_000, 1.1)
    if state == "committed":
        machine.on_message(m.Commit(job=JOB), 1.2)
    assert machine.state == state
    machine.take_actions()
    return machine


def test_source_goes_the_whole_way() -> None:
    machine = SourceMachine(REQUEST)
    machine.on_established(CAPABILITIES, 0.0)
    assert kinds(machine) == ["capabilities"]
    machine.on_message(CAPABILITIES, 0.1)
    assert kinds(machine) == ["request"]
    machine.on_message(m.Accept(job=JOB, channels=CHANNELS), 0.2)
    assert kinds(machine) == ["Record", "StartTransfer", "AskDelegation"]
    machine.on_stopped(1_000, 1.0)
    assert kinds(machine) == ["DetachGuest", "switchover"]
    machine.on_finish(False, 1.05)
    assert kinds(machine) == ["Record", "Freeze"]
    machine.on_message(m.Resumed(job=JOB, t_resume=2_000), 1.1)
    machine.on_finish_answer(True, 1.15)
    assert kinds(machine) == ["Record", "Thaw"]
    machine.on_transfer_done(True, "", 1.2)
    assert kinds(machine) == ["commit"]
    machine.on_message(m.Committed(job=JOB, t_commit=3_000), 1.3)
    assert kinds(machine) == ["RemoveDisks"]
    machine.on_message(m.Attached(job=JOB, locator="RE x", t_attached=4_000), 1.4)
    assert kinds(machine) == ["release", "Forget", "Finish"]
    assert (machine.t_stop, machine.t_resume, machine.t_attached, machine.t_commit) == (
        1_000,
        2_000,
        4_000,
        3_000,
    )
    assert machine.state == "done"


def test_destination_goes_the_whole_way() -> None:
    machine = DestinationMachine()
    machine.on_established(CAPABILITIES, 0.0)
    assert kinds(machine) == ["capabilities"]
    machine.on_message(CAPABILITIES, 0.0)
    machine.on_message(REQUEST, 0.1)
    assert kinds(machine) == ["Prepare"]
    machine.on_prepared(CHANNELS, "", "", 0.2)
    assert kinds(machine) == ["accept"]
    machine.on_message(m.Switchover(job=JOB, t_stop=1_000), 1.0)
    assert kinds(machine) == ["ExpectGuest"]
    machine.on_resumed(2_000, 1.1)
    assert kinds(machine) == ["ExpectGuest", "resumed", "Record"]
    machine.on_joined("RE x", 3_000, 1.2)
    assert kinds(machine) == ["attached"]
    machine.on_message(m.Commit(job=JOB), 1.3)
    assert kinds(machine) == ["Record", "committed"]
    machine.on_message(m.Release(job=JOB), 1.4)
    assert kinds(machine) == ["Forget", "Finish"]


def test_commit_may_overtake_the_resume_event() -> None:
    machine = destination("switchover")
    machine.on_message(m.Commit(job=JOB), 1.0)
    assert kinds(machine) == ["Record", "committed"]
    machine.on_resumed(2_000, 1.1)
    assert kinds(machine) == ["ExpectGuest", "resumed"]


def test_rejection_names_the_reason() -> None:
    machine = source("admission")
    machine.on_message(m.Reject(job=JOB, code="no-room", reason="full up"), 1.0)
    assert finish(machine) == a.Finish(False, "no-room", "full up")
    other = destination("preparing")
    other.on_prepared((), "no-room", "full up", 1.0)
    assert kinds(other) == ["reject", "Forget", "Finish"]


@pytest.mark.parametrize("state", ["transfer", "switchover"])
def test_cancel_waits_for_libvirt(state: str) -> None:
    machine = source(state)
    assert machine.cancel("by the user", 2.0)
    assert kinds(machine) == ["CancelTransfer"]
    machine.on_transfer_done(False, "aborted", 2.1)
    assert kinds(machine) == (["ReattachGuest"] if state == "switchover" else []) + ["abort"]
    machine.on_message(m.Aborted(job=JOB), 2.2)
    assert finish(machine) == a.Finish(False, "cancelled", "by the user")


def test_cancel_that_comes_too_late_commits() -> None:
    machine = source("switchover")
    machine.cancel("by the user", 2.0)
    machine.on_transfer_done(True, "", 2.1)
    assert kinds(machine) == ["CancelTransfer", "Record", "commit"]
    assert not machine.cancel("again", 2.2)


def test_lost_control_stream_cancels_and_keeps_the_guest() -> None:
    machine = source("transfer")
    machine.on_lost("cut", 1.0)
    assert kinds(machine) == ["CancelTransfer"]
    machine.on_transfer_done(False, "aborted", 1.1)
    outcome = finish(machine)
    assert (outcome.ok, outcome.code) == (False, "lost")


def test_without_committed_the_disks_stay() -> None:
    for loss in ("lost", "timeout"):
        machine = source("commit")
        if loss == "lost":
            machine.on_lost("cut", 5.0)
        else:
            machine.tick(1000.0)
        assert machine.state == "asking"
        names = kinds(machine)
        for n in range(40):
            machine.tick(4000.0 + 2 * n)
            machine.on_dial_failed("no way", 4000.5 + 2 * n)
        names += kinds(machine)
        assert "RemoveDisks" not in names
        assert "Forget" not in names, "the next daemon asks again"
        assert names[-1] == "Finish"


def test_resumed_there_overrules_libvirts_failure() -> None:
    machine = source("handover")
    machine.on_message(m.Resumed(job=JOB, t_resume=9), 1.0)
    machine.on_transfer_done(False, "connection lost", 1.1)
    assert kinds(machine) == ["EndCopy", "Record", "Thaw", "commit"]


def test_a_guest_that_does_not_join_ends_the_wait_not_the_migration() -> None:
    machine = source("commit")
    machine.on_message(m.Committed(job=JOB, t_commit=1), 2.0)
    assert machine.missing == "the guest's join at the destination"
    machine.tick(1000.0)
    assert finish(machine).ok


def test_timeouts_name_what_is_missing() -> None:
    machine = source("admission")
    machine.tick(1000.0)
    assert "the destination's answer to the request did not come in time" in finish(machine).reason


def test_destination_keeps_a_running_guest_when_the_stream_is_lost() -> None:
    machine = destination("running")
    machine.on_lost("cut", 2.0)
    assert machine.take_actions()[-1] == a.Clean()
    machine.on_cleaned("here", (), 2.1)
    assert finish(machine).ok


def test_destination_cleans_on_abort_and_says_so() -> None:
    machine = destination("transfer")
    machine.on_message(m.Abort(job=JOB, code="cancelled", reason="user"), 2.0)
    assert machine.take_actions()[-1] == a.Clean()
    machine.on_cleaned("none", ("x",), 2.1)
    sent = [action.message for action in machine.take_actions() if isinstance(action, a.Send)]
    assert sent == [m.Aborted(job=JOB, leftover=("x",))]


def test_after_commit_nothing_is_cleaned() -> None:
    for event in ("abort", "lost", "nonsense"):
        machine = destination("committed")
        if event == "abort":
            machine.on_message(m.Abort(job=JOB, code="failed", reason=""), 2.0)
        elif event == "lost":
            machine.on_lost("cut", 2.0)
        else:
            machine.on_message(REQUEST, 2.0)
        assert "Clean" not in kinds(machine)
        assert machine.state == ("committed" if event == "abort" else "done")


def test_a_request_lost_while_preparing_is_cleaned_up() -> None:
    machine = destination("preparing")
    machine.on_lost("cut", 2.0)
    machine.on_prepared(CHANNELS, "", "", 2.1)
    assert kinds(machine) == ["Clean"]


@pytest.mark.parametrize("state", ["capabilities", "admission", "transfer", "switchover", "commit"])
@pytest.mark.parametrize("message", [REQUEST, m.Release(job=JOB), m.Commit(job="ffffffff")])
def test_nonsense_to_the_source_never_raises(state: str, message: m.Message) -> None:
    machine = source(state)
    machine.on_message(message, 2.0)
    assert machine.finished or machine.state in ("cancelling", "asking")


@pytest.mark.parametrize("state", ["request", "preparing", "transfer", "switchover", "running"])
@pytest.mark.parametrize("message", [m.Resumed(job=JOB, t_resume=1), m.Accept(job=JOB, channels=()), REQUEST])
def test_nonsense_to_the_destination_never_raises(state: str, message: m.Message) -> None:
    machine = destination(state)
    machine.on_message(message, 2.0)
    assert machine.finished or machine.state in ("cleaning", "cancelled-early", "request")


def test_without_a_hid_nothing_waits_for_a_join() -> None:
    request: Any = m.decode({**m.encode(REQUEST), "hid": ""})
    machine = SourceMachine(request)
    machine.on_established(CAPABILITIES, 0.0)
    machine.on_message(CAPABILITIES, 0.0)
    machine.on_message(m.Accept(job=JOB, channels=CHANNELS), 0.0)
    machine.on_stopped(1, 0.0)
    machine.on_transfer_done(True, "", 0.0)
    machine.on_message(m.Committed(job=JOB, t_commit=1), 0.0)
    assert machine.finished
    assert HID != ""


def test_no_hand_over_once_the_migration_was_given_up() -> None:
    for event in ("cancel", "lost"):
        machine = source("switchover")
        if event == "cancel":
            machine.cancel("by the user", 1.0)
        else:
            machine.on_lost("cut", 1.0)
        machine.on_finish(False, 1.1)
        assert not machine.may_start
        assert "Freeze" not in kinds(machine)


def test_a_guest_that_cannot_be_fenced_is_not_handed_over() -> None:
    machine = source("switchover")
    machine.on_finish(False, 1.0)
    machine.on_not_frozen("no such process", 1.0)
    assert not machine.may_start
    assert machine.record == "transfer"
    assert kinds(machine) == ["Record", "Freeze", "Record", "CancelTransfer"]


def test_after_the_hand_over_the_destination_decides() -> None:
    for fate, wanted in (
        ("here", ["Record", "EndCopy", "RemoveDisks", "release", "Forget", "Finish"]),
        ("none", ["Record", "Thaw", "RunHere", "release", "Forget", "Finish"]),
    ):
        machine = source("handover")
        assert not machine.cancel("by the user", 1.1)
        machine.on_lost("cut", 1.2)
        machine.on_transfer_done(False, "connection lost", 1.2)
        assert kinds(machine)[0] == "Redial"
        machine.on_established(CAPABILITIES, 2.0)
        machine.on_message(CAPABILITIES, 2.1)
        assert kinds(machine) == ["capabilities", "inquire"]
        machine.on_message(m.Outcome(job=JOB, fate=fate), 2.2)
        assert kinds(machine) == wanted
        assert (machine.state == "done") == (fate == "here")


def test_a_restored_source_asks_until_it_knows() -> None:
    machine = SourceMachine.restore(REQUEST, "handover", 0.0)
    assert kinds(machine) == ["Redial"]
    for n in range(100):
        machine.on_dial_failed("no way", float(n))
        assert machine.deadline is not None
        machine.tick(machine.deadline)
        assert kinds(machine) == ["Redial"]
    assert not machine.finished


def test_postcopy_is_recovered_in_a_new_session() -> None:
    request: Any = m.decode({**m.encode(REQUEST), "mode": "postcopy"})
    machine = SourceMachine(request)
    machine.on_established(CAPABILITIES, 0.0)
    machine.on_message(CAPABILITIES, 0.1)
    machine.on_message(m.Accept(job=JOB, channels=CHANNELS), 0.2)
    assert machine.switch(0.3)
    machine.on_switched(7, 0.4)
    machine.on_finish(True, 0.5)
    assert machine.may_start
    assert "Freeze" not in kinds(machine)
    machine.on_transfer_done(False, "cut", 1.0)
    machine.tick(10.0)
    assert kinds(machine)[-1] == "inquire"
    machine.on_message(m.Outcome(job=JOB, fate="postcopy"), 10.1)
    machine.on_message(m.Accept(job=JOB, channels=CHANNELS), 10.2)
    assert kinds(machine) == ["recover", "RecoverTransfer"]
    machine.on_transfer_done(True, "", 11.0)
    assert kinds(machine) == ["Record", "commit"]


def test_destination_answers_a_new_session_about_an_old_job() -> None:
    machine = DestinationMachine()
    machine.on_established(CAPABILITIES, 0.0)
    machine.on_message(CAPABILITIES, 0.0)
    machine.on_message(m.Inquire(job=JOB, guest="vm1", uuid=REQUEST.uuid), 0.1)
    assert kinds(machine) == ["capabilities", "Consult"]
    machine.on_consulted("here", 5, "RE x", 0.2)
    sent = [action.message for action in machine.take_actions() if isinstance(action, a.Send)]
    assert sent == [m.Outcome(job=JOB, fate="here", t_resume=5, locator="RE x")]
    machine.on_message(m.Release(job=JOB), 0.3)
    assert kinds(machine) == ["Forget", "Finish"]
