"""A model of two hosts, their daemons' machines, libvirt's peer-to-peer migration and a network that cuts,
small enough that every interleaving can be walked.

`World` is a value: moves make a copy, change it and check it. The hypervisors are modelled as libvirt 9.0
behaves (reference/migration.md 3.6, 3.7): the destination runs the guest only on Finish; an incoming guest
whose connection closes is destroyed; a source whose connection closes lets the guest run on, unless its
process is frozen; after the switch to post-copy the source's copy never runs.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import Any

from tests.migration.samples import CAPABILITIES, CHANNELS, JOB, REQUEST
from xiatb.migration import actions as a
from xiatb.migration import messages as m
from xiatb.migration.destination import DestinationMachine
from xiatb.migration.source import SourceMachine

_UNSEEN = ("deadline", "_asked_at", "_wait", "_reason", "missing", "t_commit", "peer", "request")


class Violation(AssertionError):
    """An invariant does not hold; the message is the path that led there."""


class World:
    """Budgets say how often each kind of trouble may come: `cuts` (streams break), `crashes` (a daemon dies
    and is started again), `cancels`, `faults` (libvirt fails by itself), `timers` (a deadline passes early).

    `deaths`: the source's stopped copy dies in post-copy; `falls`: the guest dies at the destination, where
    it runs; `hurries`: the user asks to resume at once.

    `deaf`: libvirt overhears a cancellation once the guest is stopped: it is about to call Finish.

    `heals` False: once cut, the network stays cut.
    """

    def __init__(
        self, source: type[SourceMachine] = SourceMachine,
        destination: type[DestinationMachine] = DestinationMachine, *, mode: str = "precopy",
        heals: bool = True, cuts: int = 0, crashes: int = 0, cancels: int = 0, faults: int = 0,
        timers: int = 0, deaths: int = 0, falls: int = 0, hurries: int = 0, delegates: bool = False,
        deaf: bool = False,
    ) -> None:  # fmt: skip
        self.make_source, self.make_destination = source, destination
        self.request: m.Request = m.decode({**m.encode(REQUEST), "mode": mode})  # type: ignore[assignment]
        self.heals, self.cuts, self.crashes, self.cancels = heals, cuts, crashes, cancels
        self.faults, self.timers, self.deaths, self.hurries = faults, timers, deaths, hurries
        self.falls, self.deaf, self.ran_there = falls, deaf, False
        self.delegates = delegates
        self.held = self.placed = self.redirecting = False
        """The destination's node holds the guest's delegation, has attached the guest by it; the source's
        node sends the guest's packets on."""
        self.now = 0.0
        self.network = True
        self.src: SourceMachine | None = source(self.request)
        self.dst: DestinationMachine | None = destination()
        self.con: DestinationMachine | None = None
        """A later session's machine, which asks about the job of `dst`."""
        self.peer = "dst"
        """Which machine the control session reaches, "" when there is none."""
        self.out: tuple[m.Message, ...] = ()
        self.back: tuple[m.Message, ...] = ()
        self.events: tuple[str, ...] = ()
        """For the daemons, as "s:..." or "d:...", each side's in order."""
        self.src_record = self.dst_record = ""
        # The source's hypervisor.
        self.libvirt, self.called = "idle", False
        self.alive, self.wants, self.frozen, self.switched = True, True, False, False
        # Finish and its answer on the RPC channel, and both ends of that.
        self.finish = ""
        self.rpc_src = self.rpc_dst = False
        # The destination's hypervisor: none, incoming, running.
        self.copy = "none"
        self.serving = self.packaged = self.complete = self.doomed = False
        """Post-copy: the RAM channel works, the destination has the device state, and all pages; `doomed`
        when the channel broke after the switch and before the device state was there (QEMU's own window)."""
        self.src_disk, self.dst_disk = True, False
        self.path: tuple[str, ...] = ()
        self.src.on_established(CAPABILITIES, 0.0)
        self.dst.on_established(CAPABILITIES, 0.0)
        perform(self)

    @property
    def src_runs(self) -> bool:
        return self.alive and self.wants and not self.frozen

    @property
    def dst_runs(self) -> bool:
        return self.copy == "running"

    def clone(self) -> World:
        """A copy; machines hold only immutable values between moves, so theirs may be shallow."""
        other = copy.copy(self)
        for name in ("src", "dst", "con"):
            machine = getattr(self, name)
            if machine is not None:
                twin = copy.copy(machine)
                twin._actions = []
                setattr(other, name, twin)
        return other

    def key(self) -> tuple[Any, ...]:
        """What tells this state from others; times and texts do not."""
        parts: list[Any] = []
        for name, value in vars(self).items():
            if name in ("src", "dst", "con"):
                seen = None if value is None else tuple(
                    (k, v) for k, v in vars(value).items() if k not in _UNSEEN and k != "_actions"
                )  # fmt: skip
                parts.append((seen, value is not None and value.deadline is not None))
            elif name not in ("now", "path", "request"):
                parts.append(value)
        return tuple(parts)


def perform(w: World) -> None:
    """Carry out what the machines ask for."""
    sides = ("src", "dst", "con")
    while any(m is not None and m._actions for m in map(w.__dict__.get, sides)):
        for side in sides:
            machine = getattr(w, side)
            for action in machine.take_actions() if machine is not None else ():
                (_source if side == "src" else _destination)(w, side, action)


def _source(w: World, side: str, action: a.Action) -> None:
    match action:
        case a.Send():
            if w.peer:
                w.out += (action.message,)
        case a.Record():
            w.src_record = action.state
        case a.Forget():
            w.src_record = ""
        case a.StartTransfer():
            w.libvirt, w.copy, w.rpc_src, w.rpc_dst = "copying", "incoming", True, True
            w.called = True
        case a.CancelTransfer():
            if w.libvirt == "copying" or (w.libvirt == "stopped" and not w.deaf):
                _close_source(w)
        case a.CloseChannels():
            _close_source(w)
        case a.Freeze():
            w.frozen = True
        case a.Thaw():
            w.frozen = False
        case a.EndCopy():
            w.alive = w.frozen = False
        case a.AskDelegation():
            if w.delegates:
                w.events += ("g:signed",)
        case a.DetachGuest():
            w.redirecting = True
        case a.ReattachGuest():
            w.redirecting = False
        case a.RunHere():
            w.wants, w.redirecting = True, False
        case a.RemoveDisks():
            w.src_disk = False
        case a.Hangup():
            _drop_session(w, tell="d")
        case a.Redial():
            w.events += ("t:dial",)
        case a.StartPostcopy():
            if w.libvirt == "copying":
                w.libvirt = "switching"
        case a.RecoverTransfer():
            w.events += ("t:recover",)


def _destination(w: World, side: str, action: a.Action) -> None:
    match action:
        case a.Send():
            if w.peer == side:
                w.back += (action.message,)
        case a.Record():
            w.dst_record = action.state
        case a.Forget():
            w.dst_record = ""
        case a.Prepare():
            w.dst_disk, w.dst_record = True, "prepared"
            w.events += ("d:prepared",)
        case a.HoldDelegation():
            w.held = True
        case a.ExpectGuest():
            w.placed = w.placed or w.held
        case a.Clean():
            w.held = w.placed = False
            w.rpc_dst = w.serving = False
            if w.rpc_src:
                _tell(w, "s:rpc")
            w.events += ("d:cleaned",)
        case a.Consult():
            if w.dst is not None and w.dst.state != "postcopy":
                w.dst.on_lost("superseded", w.now)
            w.events += ("c:consulted",)
        case a.EndIncoming():
            w.copy = "none"
        case a.Regrant():
            w.events += ("d:granted",)


def _tell(w: World, event: str) -> None:
    """The hypervisor or the network has news for a daemon; one that is not there misses it."""
    if event in ("s:ok", "s:failed") and not w.called:
        return  # the call's own daemon has died
    if (w.src if event[0] == "s" else w.dst) is not None:
        w.events += (event,)


def _close_source(w: World) -> None:
    """The source's libvirtd sees its connection end: it cancels, unless it has the answer already."""
    w.rpc_src = False
    if w.finish == "flying":
        w.finish = ""
    if w.libvirt in ("copying", "stopped", "waiting", "switching", "switched"):
        w.libvirt = "failing"


def _drop_session(w: World, tell: str) -> None:
    """The control stream ends; what is on its way is lost. `tell` names the sides that will notice."""
    if not w.peer:
        return
    w.out = w.back = ()
    if "s" in tell:
        _tell(w, "s:lost")
    if "d" in tell:
        _tell(w, f"d:lost:{w.peer}")
    w.peer = ""


Move = Callable[[World], None]


def moves(w: World) -> Iterator[tuple[str, Move, bool]]:
    """(name, move, trouble?) of all that can happen next."""
    if w.out and w.peer:
        yield f"->{w.out[0].TYPE}", _deliver_out, False
    if w.back and w.peer:
        yield f"<-{w.back[0].TYPE}", _deliver_back, False
    for side in "stdcg":
        first = next((e for e in w.events if e[0] == side), "")
        if first and _possible(w, first):
            yield first, lambda w, e=first: _event(w, e), False  # type: ignore[misc]
    for name, move in _hypervisors(w):
        yield name, move, False
    yield from _trouble(w)


def _hypervisors(w: World) -> Iterator[tuple[str, Move]]:
    if w.libvirt == "copying" and w.request.mode == "precopy":
        yield "stop", _stop
    if w.libvirt == "copying" and w.request.mode != "precopy" and w.src is not None:
        yield "switch", lambda w: _switch(w)
    if w.libvirt == "switching":
        yield "switched", _switched
    if w.libvirt in ("stopped", "switched") and w.src is not None and w.rpc_src:
        yield "finish", _finish
    if w.switched and w.serving and not w.packaged:
        yield "package", _package
    if w.switched and not w.serving and not w.packaged and w.copy == "incoming":
        yield "incoming-exits", _incoming_exits
    if w.finish == "flying" and w.rpc_dst and w.dst is not None and (w.packaged or not w.switched):
        yield "start", _start
    if w.dst_runs and w.switched and w.serving and not w.complete:
        yield "pages", _pages
    if w.finish == "answer" and w.rpc_src and w.rpc_dst and w.src is not None and w.dst is not None:
        yield "answer", _answer
    if w.libvirt == "answered":
        yield "confirm", _confirm
    if w.libvirt == "failing" and (not w.frozen or not w.alive):
        yield "give-up", _libvirt_gives_up
    if w.rpc_dst and not w.rpc_src:
        yield "rpc-closes", _rpc_closes
    if w.copy == "incoming" and not w.rpc_dst and not w.packaged:
        yield "autodestroy", _autodestroy


def _trouble(w: World) -> Iterator[tuple[str, Move, bool]]:
    over = w.src is not None and w.src.finished and (w.dst is None or w.dst.finished)
    if w.cuts and not over:
        if w.peer:
            yield "CUT-control", _cut_control, True
        if w.rpc_src and w.rpc_dst:
            yield "CUT-rpc", _cut_rpc, True
            yield "CUT", _cut, True
    if w.crashes and not over:
        if w.src is not None and not w.src.finished:
            yield "CRASH-source", _crash_source, True
        if w.dst is not None and not w.dst.finished:
            yield "CRASH-destination", _crash_destination, True
    if w.cancels and w.src is not None and not w.src.finished:
        yield "CANCEL", _cancel, True
    if w.faults and w.libvirt in ("copying", "stopped"):
        yield "FAULT", _fault, True
    if w.deaths and w.switched and w.alive and not w.complete:
        yield "DEATH", _death, True
    if w.falls and w.dst_runs and not w.switched:
        yield "FALL", _fall, True
    if w.hurries and w.src is not None and w.src.state == "asking":
        yield "HURRY", _hurry, True
    if w.timers:
        for side in ("src", "dst", "con"):
            if getattr(w, side) is not None and getattr(w, side).deadline is not None:
                yield f"TIMER-{side}", lambda w, s=side: _timer(w, s), True  # type: ignore[misc]
    if w.src is None:
        yield "restart-source", _restart_source, False
    if w.dst is None and (w.copy != "incoming" or w.packaged):
        yield "restart-destination", _restart_destination, False


def _deliver_out(w: World) -> None:
    message, w.out = w.out[0], w.out[1:]
    machine = getattr(w, w.peer)
    if machine is not None:
        machine.on_message(message, w.now)


def _deliver_back(w: World) -> None:
    message, w.back = w.back[0], w.back[1:]
    if w.src is not None:
        w.src.on_message(message, w.now)


def _possible(w: World, event: str) -> bool:
    if event[0] in "stg":
        return w.src is not None
    if event == "d:cleaned":
        return w.copy != "incoming" or w.packaged
    if event == "c:consulted":
        return w.dst is None or w.dst.finished or w.dst.state == "postcopy"
    return True


def _event(w: World, event: str) -> None:
    index = w.events.index(event)
    w.events = w.events[:index] + w.events[index + 1 :]
    kind, _, which = event.partition(":")[2].partition(":")
    if event[0] in "st" and w.src is not None:
        _source_event(w, w.src, kind)
    elif event[0] == "g" and w.src is not None:
        w.src.on_delegated("ab", w.now)
    elif event[0] in "dc":
        _destination_event(w, kind, which)


def _source_event(w: World, src: SourceMachine, kind: str) -> None:
    if kind == "stopped":
        src.on_stopped(1, w.now)
    elif kind == "switched":
        src.on_switched(1, w.now)
    elif kind == "running":
        src.on_resumed_here(w.now)
    elif kind in ("ok", "failed"):
        src.on_transfer_done(kind == "ok", "libvirt failed", w.now)
    elif kind == "answered":
        src.on_finish_answer(True, w.now)
    elif kind == "gone":
        src.on_copy_gone(w.now)
    elif kind == "rpc":
        _close_source(w)
        src.on_channel_lost(w.now)
    elif kind == "lost":
        src.on_lost("cut", w.now)
    elif kind == "recover":
        if not w.alive:
            src.on_copy_gone(w.now)
        if w.alive and w.packaged and w.network:
            w.serving, w.rpc_src, w.rpc_dst, w.copy = True, True, True, "running"
            w.libvirt, w.finish = "waiting", "answer" if w.complete else ""
            w.called = True
        else:
            src.on_transfer_done(False, "no way to recover", w.now)
    elif kind == "dial":
        _dial(w, src)


def _dial(w: World, src: SourceMachine) -> None:
    if not w.network or w.dst is None:
        src.on_dial_failed("no way there", w.now)
        return
    if w.con is not None and w.peer == "con":
        _drop_session(w, tell="")
    w.con, w.peer = w.make_destination(), "con"
    src.on_established(CAPABILITIES, w.now)
    w.con.on_established(CAPABILITIES, w.now)


def _destination_event(w: World, kind: str, which: str) -> None:
    if kind == "consulted":
        _consulted(w)
        return
    machine = getattr(w, which or "dst")
    if machine is None:
        return
    if kind == "prepared":
        machine.on_prepared(CHANNELS, "", "", w.now)
    elif kind == "resumed":
        machine.on_resumed(2, w.now)
        w.ran_there = True  # as its daemon knows: dying before both do is like never having run
        machine.on_joined("RE x", 3, w.now)
    elif kind == "complete":
        machine.on_pages_complete(w.now)
    elif kind == "fallen":
        machine.on_guest_gone(w.now)
    elif kind == "lost":
        machine.on_lost("cut", w.now)
    elif kind == "granted":
        machine.on_granted(CHANNELS, w.now)
    elif kind == "cleaned":
        machine.on_cleaned(_settled(w, keep=machine.t_resume > 0), (), w.now)


def _settled(w: World, *, keep: bool = False) -> str:
    """What the destination's shell finds once nothing can change any more; a disk without guest goes, but for
    one that a guest has run with (`keep`)."""
    if w.packaged and not w.complete:
        return "postcopy"
    if w.dst_runs:
        return "here"
    w.dst_disk = keep
    return "none"


def _consulted(w: World) -> None:
    if w.con is None or w.peer != "con":
        return
    if w.dst is not None and not w.dst.finished:  # post-copy: the job goes on in the new session
        w.con, w.peer = None, "dst"
        w.events = tuple(e for e in w.events if e != "d:lost:dst")  # of the session before
        w.dst.on_relinked(w.now)
        return
    fate = w.dst_record if w.dst_record in m.FATES else _settled(w)
    w.con.on_consulted(fate, 2, "", w.now)


def _stop(w: World) -> None:
    w.libvirt, w.wants = "stopped", False
    _tell(w, "s:stopped")


def _switch(w: World) -> None:
    if w.src is not None and not w.src.switch(w.now):
        w.libvirt = "failing"


def _switched(w: World) -> None:
    w.libvirt, w.wants, w.switched = "switched", False, True
    w.serving = w.rpc_src and w.rpc_dst
    w.doomed = w.copy == "none"
    _tell(w, "s:switched")


def _finish(w: World) -> None:
    """libvirt calls Finish; the daemon's gate lets it through or closes the connection."""
    assert w.src is not None
    w.src.on_finish(w.switched, w.now)
    allowed = w.src.may_start
    perform(w)
    if allowed:
        w.libvirt, w.finish = "waiting", "flying" if w.rpc_dst else ""
    else:
        _close_source(w)


def _start(w: World) -> None:
    w.copy = "running"
    w.finish = "" if w.switched else "answer"
    _tell(w, "d:resumed")


def _package(w: World) -> None:
    w.packaged = True


def _incoming_exits(w: World) -> None:
    w.copy, w.doomed = "none", True


def _pages(w: World) -> None:
    w.complete, w.finish = True, "answer"
    _tell(w, "d:complete")


def _answer(w: World) -> None:
    w.libvirt, w.finish = "answered", ""
    _tell(w, "s:answered")


def _confirm(w: World) -> None:
    w.libvirt, w.alive, w.frozen, w.rpc_src, w.rpc_dst = "over", False, False, False, False
    w.serving = False
    _tell(w, "s:ok")


def _libvirt_gives_up(w: World) -> None:
    w.libvirt = "over"
    if w.alive and not w.switched:
        w.wants = True
        _tell(w, "s:running")
    w.serving = False
    _tell(w, "s:failed")


def _rpc_closes(w: World) -> None:
    w.rpc_dst = False


def _autodestroy(w: World) -> None:
    w.copy, w.doomed = "none", w.switched


def _cut_control(w: World) -> None:
    w.cuts -= 1
    w.network = w.network and w.heals
    _drop_session(w, tell="sd")


def _cut_rpc(w: World) -> None:
    w.cuts -= 1
    w.finish = "" if w.finish in ("flying", "answer") else w.finish
    w.serving = False
    _tell(w, "s:rpc")
    w.rpc_dst = False


def _cut(w: World) -> None:
    _cut_rpc(w)
    w.network = w.network and w.heals
    _drop_session(w, tell="sd")


def _crash_source(w: World) -> None:
    w.crashes -= 1
    w.src, w.called = None, False
    w.events = tuple(e for e in w.events if e[0] not in "stg")
    w.redirecting = False  # the guest's next JOIN at the source ends it (xiatb.node.handover)
    w.rpc_dst = False
    w.serving = False
    _close_source(w)
    _drop_session(w, tell="d")


def _crash_destination(w: World) -> None:
    w.crashes -= 1
    w.dst = w.con = None
    w.held = w.placed = False  # an attachment that its guest does not refresh ages
    w.events = tuple(e for e in w.events if e[0] not in "dc")
    w.finish = "" if w.finish in ("flying", "answer") else w.finish
    w.serving = False
    if w.rpc_src:
        _tell(w, "s:rpc")
    w.rpc_dst = False
    _drop_session(w, tell="s")


def _restart_source(w: World) -> None:
    if w.src_record == "transfer" and w.switched:
        w.src_record = "postcopy"  # as QEMU says
    if w.src_record in ("handover", "postcopy", "moved"):
        w.src = w.make_source.restore(w.request, w.src_record, w.now)
        return
    w.src_record = ""
    w.src = w.make_source(w.request)
    w.src.finished, w.src.state = True, "failed"


def _restart_destination(w: World) -> None:
    if w.dst_record == "postcopy":
        w.dst = w.make_destination.restore(w.request)
        if w.complete:
            _tell(w, "d:complete")
        return
    if w.dst_record in ("prepared", "arrived"):
        ran = w.dst_record == "arrived"
        fate = _settled(w, keep=ran)
        w.dst_record = "lost" if ran and fate == "none" else fate
        if w.dst_record == "postcopy":
            w.dst = w.make_destination.restore(w.request)
            return
    w.dst = w.make_destination()
    w.dst.job, w.dst.finished, w.dst.state = JOB, True, "failed"


def _cancel(w: World) -> None:
    w.cancels -= 1
    if w.src is not None:
        w.src.cancel("by the user", w.now)


def _fault(w: World) -> None:
    w.faults -= 1
    w.rpc_dst = False
    _close_source(w)


def _death(w: World) -> None:
    """With the process pages are lost that only it had; libvirt there notices."""
    w.deaths -= 1
    w.alive = w.serving = False
    w.doomed = True
    _tell(w, "s:gone")
    _close_source(w)


def _fall(w: World) -> None:
    """QEMU at the destination ends; libvirt there notices."""
    w.falls -= 1
    w.copy, w.doomed = "none", True
    _tell(w, "d:fallen")


def _hurry(w: World) -> None:
    w.hurries -= 1
    if w.src is not None:
        w.src.hurry(w.now)


def _timer(w: World, side: str) -> None:
    w.timers -= 1
    fire(w, side)


def fire(w: World, side: str) -> None:
    """The machine's deadline passes."""
    machine = getattr(w, side)
    w.now = max(w.now, machine.deadline)
    machine.tick(w.now)
