"""A migration under way as its user sees it who asks from another terminal (`xiatb migration show`)."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import Any

from xiatb.migration.controller import Controller
from xiatb.migration.messages import Request

MIB = 1 << 20


def overview(
    request: Request, to: str, phases: Sequence[Mapping[str, Any]], progress: Mapping[str, Any],
    controller: Controller, decisions: Sequence[Mapping[str, Any]], recoveries: int,
) -> dict[str, Any]:  # fmt: skip
    """Plain data; keys are stable.

    phases: names with the monotonic nanoseconds of their beginning; progress: the last event of the
    ProgressBoard, {} before there was one; decisions: see Decision.as_dict. Amounts are bytes, rates bytes a
    second; `limits` has what binds the controller now: ms, MiB/s (0: no cap) and percent.
    """
    now = time.monotonic_ns()
    bounds = controller.bounds
    return {
        "guest": request.guest,
        "to": to,
        "job": request.job,
        "mode": request.mode,
        "storage": request.storage,
        "streams": request.streams,
        "phase": phases[-1]["name"] if phases else "hello",
        "elapsed_s": round((now - phases[0]["start_ns"]) / 1e9, 3) if phases else 0.0,
        "pass": int(progress.get("pass", 0)),
        "rate": int(progress.get("rate", 0)),
        "dirty_rate": int(progress.get("dirty_rate", 0)),
        "remaining": int(progress.get("remaining", 0)),
        "total": int(progress.get("total", 0)),
        "limits": {
            "downtime": controller.limit_ms or None,
            "downtime_most": bounds.downtime_ms,
            "bandwidth": controller.bandwidth // MIB,
            "bandwidth_most": bounds.bandwidth_most // MIB,
            "throttle": controller.throttle,
            "throttle_most": bounds.throttle,
        },
        "recoveries": recoveries,
        "decisions": [dict(one) for one in decisions],
    }
