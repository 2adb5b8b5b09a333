"""The times of a migration as its source knows them, for the result."""

from __future__ import annotations

from typing import Any

from xiatb.migration.source import SourceMachine


def stamps(machine: SourceMachine, t_request: int) -> dict[str, Any]:
    """Total time and downtime in milliseconds (None when an end is not known) and the stamps that they are
    made of, monotonic nanoseconds, 0 when unknown. `t_request`: when the request was sent."""
    total = (machine.t_commit - t_request) / 1e6 if machine.t_commit and t_request else None
    downtime = (machine.t_resume - machine.t_stop) / 1e6 if machine.t_resume and machine.t_stop else None
    return {
        "total_ms": round(total, 3) if total is not None else None,
        "downtime_ms": round(downtime, 3) if downtime is not None else None,
        "t_request_ns": t_request,
        "t_stop_ns": machine.t_stop,
        "t_resume_ns": machine.t_resume,
        "t_attached_ns": machine.t_attached,
        "t_commit_ns": machine.t_commit,
    }
