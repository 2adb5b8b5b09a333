"""How `migrate` and `migration` show phases, plans, the controller's decisions, results and pages."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from xiatb.cli.output import print_table
from xiatb.migration.controller import words

_PHASES = {
    "consent": "asking the guest for its consent",
    "capabilities": "greeting the destination",
    "admission": "asking for admission",
    "transfer": "preparing",
    "storage": "copying the disk",
    "precopy": "copying memory",
    "switchover": "switching over",
    "handover": "handing over",
    "postcopy": "fetching the rest of memory",
    "asking": "asking the destination what became of the guest",
    "cancelling": "cancelling",
    "commit": "committing",
    "attach": "waiting for the guest to join",
    "aborting": "cleaning up",
    "done": "done",
    "failed": "failed",
}
_COLUMNS = ("zero", "normal", "xbzrle", "repeated", "resent", "unchanged")


def mib(size: float) -> str:
    """Bytes as "12.3 MiB"."""
    return f"{size / (1 << 20):.1f} MiB"


def phase(name: str) -> str:
    """What a phase is, for people."""
    return _PHASES.get(name, name)


def channels(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A row on what was not as usual with the channels of a migration, if anything was."""
    chosen: dict[str, list[str]] = {}
    for kind, control in result.get("congestion", {}).items():
        chosen.setdefault(control, []).append(kind)
    words = [f"{control} on {', '.join(kinds)}" for control, kinds in chosen.items()]
    if result.get("encrypted") is False:
        words.insert(0, "in the clear")
    return [("channels", "; ".join(words))] if words else []


def disk(result: Mapping[str, Any]) -> list[tuple[str, str]]:
    """A row on what was sent of the disk, if it was."""
    if not result.get("storage"):
        return []
    above = ", what lies above its backing file" if result.get("incremental") else ""
    return [("disk sent", f"{mib(int(result.get('bytes_qemu', {}).get('nbd', 0)))}{above}")]


def predicted(result: Mapping[str, Any], key: str) -> str:
    """What was predicted, to stand behind what was measured; "" when nothing was."""
    told = result.get("predicted")
    if told and not told.get("converges", True):
        return " (predicted: it would not end by itself)" if key == "total_s" else ""
    return f" (predicted {1000 * told[key]:.0f} ms)" if told else ""


def decision(event: Mapping[str, Any]) -> str:
    """A line for a decision of the controller, or of whoever else it was."""
    failed = f" (failed: {event['failed']})" if event.get("failed") else ""
    return f"{event.get('by', 'controller')}: {words(event)}{failed}"


def tell_running(told: Mapping[str, Any]) -> None:
    """A migration under way (migration/overview.py)."""
    limits = told["limits"]
    click.echo(f"{told['guest']} is being moved from {told['from']} to {told['to']}")
    rows = [
        ("mode", told["mode"] + (f", {told['streams']} streams" if told["streams"] > 1 else "")),
        ("phase", f"{phase(told['phase'])}, {told['elapsed_s']:.1f} s after the beginning"),
        ("progress", _progress(told)),
        ("downtime", f"limit {limits['downtime'] or '-'} ms of {limits['downtime_most']} ms"),
        ("bandwidth", _cap(limits)),
    ]
    if limits["throttle_most"]:
        rows.append(("throttle", f"{limits['throttle']} % of {limits['throttle_most']} %"))
    if told["recoveries"]:
        rows.append(("taken up", f"{told['recoveries']} times"))
    rows += [("decision", decision(one)) for one in told["decisions"]]
    for label, value in rows:
        click.echo(f"  {label:<12} {value}")


def _progress(told: Mapping[str, Any]) -> str:
    done = f"pass {told['pass']}, " if told["pass"] else ""
    dirties = f", the guest dirties {mib(told['dirty_rate'])}/s" if told["dirty_rate"] else ""
    left = f"{mib(told['remaining'])} of {mib(told['total'])} left"
    return f"{done}{mib(told['rate'])}/s, {left}{dirties}"


def _cap(limits: Mapping[str, Any]) -> str:
    if not limits["bandwidth"]:
        return "no cap"
    most = f", may rise to {limits['bandwidth_most']} MiB/s" if limits["bandwidth_most"] else ""
    return f"{limits['bandwidth']} MiB/s{most}"


def tell_plan(plan: Mapping[str, Any]) -> None:
    """All that `--plan` found out."""
    click.echo(f"{plan.get('guest', 'the guest')} would move from {plan['from']} to {plan['to']}")
    rows = _refusal(plan) if not plan["admitted"] else [("admitted", "yes"), *_plan_rows(plan)]
    for label, value in rows:
        click.echo(f"  {label:<12} {value}")


def _refusal(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [("admitted", f"no ({plan['code']}): {plan['reason']}")]


def _plan_rows(plan: Mapping[str, Any]) -> list[tuple[str, str]]:
    predicted, workload, policy = plan["predicted"], plan["workload"], plan["policy"]
    kinds = ", ".join(f"{count} {kind}" for kind, count in plan["channels"].items() if count)
    storage = f", with {mib(plan['storage_bytes'])} of disk" if plan["storage"] else ""
    written = f"{mib(workload['dirty_rate'])}/s written to, within {mib(workload['working_set'])}"
    rows = [
        ("mode", f"{plan['mode']}{storage}"),
        ("channels", f"{kinds}, {'encrypted' if plan['encrypted'] else 'in the clear'}"),
        ("policy", _policy(policy)),
        ("path", f"{plan['goodput'] * 8 / 1e6:.1f} Mbit/s (by {plan['rate_from']}), "
                 f"round trip {plan['round_trip_ms']:.1f} ms"),
        ("memory", f"{mib(workload['ram'])}, {mib(workload['nonzero'])} not zero, {written}"),
        ("total time", _total(predicted)),
        ("downtime", f"about {1000 * predicted['downtime_s']:.0f} ms"),
        ("bytes", f"{mib(predicted['memory_bytes'])} of memory in {predicted['passes']} passes"),
    ]  # fmt: skip
    rows += [("decision", words(one)) for one in predicted["decisions"]]
    if not predicted["converges"]:
        rows.append(("warning", "pre-copy would not end: allow more downtime, throttle or post-copy"))
    return rows


def _total(predicted: Mapping[str, Any]) -> str:
    if not predicted["converges"]:
        return "it would not end by itself"
    return f"about {predicted['total_s']:.1f} s, {predicted['storage_s']:.1f} s of it storage"


def _policy(policy: Mapping[str, Any]) -> str:
    allowed = [f"downtime at most {policy['downtime_ms']} ms"]
    if policy["bandwidth"]:
        most = f" to {mib(policy['bandwidth_most'])}/s" if policy["bandwidth_most"] else ""
        allowed.append(f"bandwidth {mib(policy['bandwidth'])}/s{most}")
    if policy["throttle"]:
        allowed.append(f"processors throttled by up to {policy['throttle']} %")
    if policy["postcopy"]:
        allowed.append("post-copy")
    if policy["deadline_s"]:
        allowed.append(f"deadline {policy['deadline_s']:g} s")
    return ", ".join(allowed)


def tell_pages(pages: Mapping[str, Any]) -> None:
    """Pages of each pass, and whether all arrived as they were sent."""
    if pages.get("passes"):
        rows = [[number, *(one[name] for name in _COLUMNS)] for number, one in enumerate(pages["passes"], 1)]
        print_table(["pass", *_COLUMNS], rows)
    faults = pages.get("faults")
    if faults:
        shares = f"median {faults['p50_ms']:.1f} ms, 99 % {faults['p99_ms']:.1f} ms"
        click.echo(f"  page faults  {faults['count']}: {shares}, longest {faults['max_ms']:.1f} ms")
    click.echo(f"  pages        {verified(pages)}")


def verified(pages: Mapping[str, Any]) -> str:
    """What is known of the pages' way, in words."""
    if pages.get("verified"):
        return "every page arrived as it was sent"
    if pages.get("verified") is False:
        return f"NOT as they were sent: {', '.join(pages['places'])}"
    return f"not verified: {pages.get('reason') or 'not counted'}"
