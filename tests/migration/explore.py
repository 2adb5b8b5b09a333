"""Walks every interleaving of a `World` and checks the invariants of design.md section 6 in each state."""

from __future__ import annotations

from tests.migration.model import Violation, World, fire, moves, perform


def check_always(w: World) -> None:
    """What must hold at every instant."""
    if w.src_runs and w.dst_runs:
        raise Violation(f"two copies run: {w.path}")
    if w.switched and w.src_runs:
        raise Violation(f"the source runs after the switch to post-copy: {w.path}")
    if w.ran_there and w.src_runs:
        raise Violation(f"an older state than that which ran there runs: {w.path}")
    if not w.src_disk and not (w.dst_disk and (w.dst_runs or w.doomed)):
        raise Violation(f"the source's disk went too early: {w.path}")
    if w.dst_runs and not w.dst_disk:
        raise Violation(f"the running guest lost its disk: {w.path}")


def check_end(w: World) -> None:
    """What must hold once nothing more happens. With a network that stays cut the guest may stand still, but
    only while the source asks for it, and one copy that can run is there."""
    if w.doomed:
        if w.network and not (w.src is not None and w.src.finished):
            raise Violation(f"nobody learns that the guest is lost: {w.path}")
        return
    asking = w.src is not None and w.src.state == "asking"
    if not (w.src_runs or w.dst_runs) and (w.network or not asking):
        raise Violation(f"no copy runs: {w.path}")
    if not w.network:
        return
    for name, machine in (("source", w.src), ("destination", w.dst)):
        if machine is None or not machine.finished:
            state = None if machine is None else machine.state
            raise Violation(f"the {name} hangs in {state}: {w.path}")
    if w.src_runs and (w.placed or w.redirecting):
        raise Violation(f"packets go to the destination, the guest is at the source: {w.path}")
    if w.src_runs and (w.dst_disk or w.copy != "none" or w.dst_record not in ("", "none")):
        raise Violation(f"something is left at the destination: {w.path}")
    if w.dst_runs and (w.alive or w.frozen or (w.src_disk and w.src_record != "moved")):
        raise Violation(f"something is left at the source: {w.path}")
    if w.frozen or w.switched and not w.complete:
        raise Violation(f"not settled: {w.path}")


def explore(world: World, limit: int = 400_000) -> int:
    """Breadth first, so that a violation has a short path. Timers pass when nothing else can happen, or early
    within the budget. Gives the number of distinct states; raises Violation, or RuntimeError beyond
    `limit`."""
    seen = {world.key()}
    todo = [world]
    check_always(world)
    while todo:
        following: list[World] = []
        for w in todo:
            steps = list(moves(w))
            quiet = not any(not trouble for _, _, trouble in steps)
            if quiet:
                timers = [s for s in ("src", "dst", "con") if _waits(w, s)]
                if not timers or not w.network and w.src is not None and w.src.state == "asking":
                    check_end(w)
                steps += [(f"timer-{s}", lambda x, s=s: fire(x, s), False) for s in timers]  # type: ignore[misc]
            for name, move, _ in steps:
                after = w.clone()
                after.path = (*w.path, name)
                move(after)
                perform(after)
                check_always(after)
                if (key := after.key()) not in seen:
                    seen.add(key)
                    following.append(after)
        if len(seen) > limit:
            raise RuntimeError(f"more than {limit} states")
        todo = following
    return len(seen)


def _waits(w: World, side: str) -> bool:
    machine = getattr(w, side)
    return machine is not None and machine.deadline is not None
