"""How `migrate` shows a plan, the controller's decisions and the pages of a migration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import click

from xiatb.cli.output import print_table
from xiatb.migration.controller import words

_COLUMNS = ("zero", "normal", "xbzrle", "repeated", "resent", "unchanged")


def mib(size: float) -> str:
    """Bytes as "12.3 MiB"."""
    return f"{size / (1 << 20):.1f} MiB"


def predicted(result: Mapping[str, Any], key: str) -> str:
    """What was predicted, to stand behind what was measured; "" when nothing was."""
    told = result.get("predicted")
    return f" (predicted {1000 * told[key]:.0f} ms)" if told else ""


def decision(event: Mapping[str, Any]) -> str:
    """A line for a decision of the controller."""
    failed = f" (failed: {event['failed']})" if event.get("failed") else ""
    return f"controller: {words(event)}{failed}"


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
        ("total time", f"about {predicted['total_s']:.1f} s, {predicted['storage_s']:.1f} s of it storage"),
        ("downtime", f"about {1000 * predicted['downtime_s']:.0f} ms"),
        ("bytes", f"{mib(predicted['memory_bytes'])} of memory in {predicted['passes']} passes"),
    ]  # fmt: skip
    rows += [("decision", words(one)) for one in predicted["decisions"]]
    if not predicted["converges"]:
        rows.append(("warning", "pre-copy would not end: allow more downtime, throttle or post-copy"))
    return rows


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
