"""The options of `xiatb migrate` that say how a guest is moved, and their translation into the daemon's."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from xiatb.errors import UsageError
from xiatb.transport.config import CONTROLS

F = TypeVar("F", bound=Callable[..., Any])
_CHANNELS = ("rpc", "ram", "nbd")
_ALL = (
    click.option(
        "--mode", type=click.Choice(["precopy", "postcopy", "hybrid"]), default="precopy", show_default=True,
        help="precopy: memory first, then the guest. postcopy: the guest first, its pages follow when they "
        "are needed. hybrid: pre-copy that goes over to post-copy when it does not end by itself.",
    ),
    click.option(
        "--after-passes", type=click.IntRange(0, 1000), default=0, metavar="N",
        help="hybrid: go over after N passes over memory; 0 (the default): when pre-copy does not converge.",
    ),
    click.option(
        "--storage", type=click.Choice(["none", "mirror", "backing"]), default="none", show_default=True,
        help="The guest's disk. none: both hosts reach it. mirror: copy all of it. backing: copy what lies "
        "above a backing file (the image) that the destination has, too.",
    ),
    click.option("--with-storage", is_flag=True, help="The same as --storage mirror: full migration."),
    click.option(
        "--streams", type=click.IntRange(1, 16), default=1, metavar="N",
        help="Channels for memory pages; 2 and more: QEMU's multifd, pre-copy only.",
    ),
    click.option(
        "--downtime", type=click.IntRange(1, 2_000_000), default=500, show_default=True, metavar="MS",
        help="Longest planned stop of the guest; it is begun with less.",
    ),
    click.option(
        "--bandwidth", type=click.IntRange(0, 1 << 20), default=0, metavar="MIB/S",
        help="Cap of memory and disk transfer in MiB/s; 0 (the default) for none.",
    ),
    click.option(
        "--bandwidth-most", type=click.IntRange(0, 1 << 20), default=0, metavar="MIB/S",
        help="How far the cap may be raised while pre-copy does not converge; 0 (the default): not at all.",
    ),
    click.option(
        "--auto-converge", is_flag=True,
        help="Slow the guest's processors down while it dirties memory faster than it can be sent.",
    ),
    click.option(
        "--throttle", type=click.IntRange(1, 99), default=None, metavar="PERCENT",
        help="Most that auto-converge may take from the guest's processors (99); implies --auto-converge.",
    ),
    click.option(
        "--xbzrle/--no-xbzrle", default=None,
        help="Changed pages as differences or whole; differences by default where the mode has a use for "
        "them.",
    ),
    click.option(
        "--congestion", "controls", multiple=True, metavar="[CHANNEL=]CONTROL",
        help="Congestion control (cubic, reno, bbr) of all channels or of rpc, ram or nbd. Repeatable.",
    ),
    click.option(
        "--deadline", type=click.FloatRange(0, 1e6), default=0.0, metavar="SECONDS",
        help="Wished end: the controller raises its means in time; 0 (the default) for none.",
    ),
    click.option(
        "--timeout", type=click.FloatRange(0, 1e6), default=0.0, metavar="SECONDS",
        help="When the guest has not been handed over after so long, do --timeout-action; 0: never.",
    ),
    click.option(
        "--timeout-action", type=click.Choice(["abort", "postcopy", "force"]), default="abort",
        show_default=True,
        help="abort: the guest stays. postcopy: go over to post-copy. force: stop the guest and finish.",
    ),
    click.option(
        "--no-encrypt", is_flag=True,
        help="Bulk channels in the clear, to compare or to look at in Wireshark.",
    ),
    click.option(
        "--no-verify", is_flag=True, help="Do not compare every page at both ends; saves processor time."
    ),
    click.option(
        "--no-first-pages", is_flag=True,
        help="Post-copy: do not ask for the devices' ring pages in the destination's name at the switch; the "
        "stop gets longer by some round trips.",
    ),
)  # fmt: skip


def moving_options(command: F) -> F:
    """Decorator: all options of this module; the command gets their values as keywords for `collect`."""
    for option in reversed(_ALL):
        command = option(command)
    return command


def collect(chosen: dict[str, Any]) -> tuple[bool, dict[str, Any]]:
    """(is the disk moved?, fields of migration.options.Options) of the values that `moving_options` gave.
    Raises UsageError."""
    storage = "mirror" if chosen["with_storage"] and chosen["storage"] == "none" else chosen["storage"]
    throttle = chosen["throttle"] or (99 if chosen["auto_converge"] else 0)
    plain = ("mode", "after_passes", "streams", "downtime", "bandwidth", "bandwidth_most", "xbzrle",
             "deadline", "timeout", "timeout_action")  # fmt: skip
    options = {
        **{name: chosen[name] for name in plain},
        "backing": storage == "backing",
        "throttle": throttle,
        "congestion": channel_controls(chosen["controls"]),
        "encrypt": not chosen["no_encrypt"],
        "verify": not chosen["no_verify"],
        "first_pages": not chosen["no_first_pages"],
    }
    return storage != "none", options


def channel_controls(words: tuple[str, ...]) -> dict[str, str]:
    """Channel kind -> congestion control, of words "CONTROL" (all channels) or "CHANNEL=CONTROL"; a word for
    one channel goes before one for all. Raises UsageError."""
    chosen: dict[str, str] = {}
    for word in sorted(words, key=lambda text: "=" in text):
        kind, _, name = word.rpartition("=")
        if name not in CONTROLS or (kind and kind not in _CHANNELS) or word.startswith("="):
            raise UsageError(
                f"--congestion {word}: not a congestion control of a channel",
                hint=f"one of {', '.join(CONTROLS)}, or CHANNEL=CONTROL with {', '.join(_CHANNELS)}",
            )
        chosen.update(dict.fromkeys([kind] if kind else _CHANNELS, name))
    return chosen
