"""A migration's options: defaults, what is refused, and what libvirt is told in the end."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import click
import libvirt
import pytest
from click.testing import CliRunner

from tests.migration.samples import DISK, REQUEST
from xiatb.cli.migrate_options import collect, moving_options
from xiatb.errors import UsageError
from xiatb.migration import params
from xiatb.migration.options import TUNABLE, Options, parse, parse_change

RUN = Path("/run/xtb")


def test_defaults_and_back() -> None:
    assert parse({}) == Options()
    full = {"mode": "hybrid", "after_passes": 3, "bandwidth": 4, "bandwidth_most": 9, "downtime": 100,
            "throttle": 50, "xbzrle": False, "congestion": {"ram": "bbr"}, "encrypt": False,
            "deadline": 9.5, "timeout": 60, "timeout_action": "force", "backing": True}  # fmt: skip
    options = parse(full)
    assert {name: getattr(options, name) for name in full} == full
    assert parse(options.to_json()) == options


@pytest.mark.parametrize(
    ("wanted", "told"),
    [
        ({"speed": 1}, "no such option of a migration: speed"),
        ({"mode": "fast"}, "mode: one of precopy, postcopy, hybrid"),
        ({"streams": 0}, "streams: a whole number from 1 to 16"),
        ({"streams": True}, "streams"),
        ({"deadline": -1}, "deadline: seconds"),
        ({"downtime": 0}, "downtime"),
        ({"timeout_action": "explode"}, "timeout_action: one of abort, postcopy, force"),
        ({"xbzrle": 1}, "xbzrle: true or false"),
        ({"congestion": {"ram": "vegas"}}, "congestion ram=vegas"),
        ({"streams": 4, "mode": "postcopy"}, "post-copy does not go over several streams"),
        ({"streams": 4, "mode": "hybrid"}, "post-copy does not go over several streams"),
        ({"streams": 4, "timeout": 5, "timeout_action": "postcopy"}, "post-copy does not go over several"),
        ({"streams": 2, "xbzrle": True}, "do not go over several streams"),
        ({"after_passes": 2}, "for the hybrid mode"),
        ({"mode": "postcopy", "throttle": 20}, "no use in post-copy"),
        ({"mode": "postcopy", "bandwidth": 4, "bandwidth_most": 8}, "no use in post-copy"),
        ({"mode": "postcopy", "deadline": 5}, "no use in post-copy"),
        ({"mode": "postcopy", "xbzrle": True}, "no use in post-copy"),
        ({"bandwidth": 8, "bandwidth_most": 4}, "below the first one"),
        ({"bandwidth_most": 4}, "needs a first one"),
        ({"timeout_action": "force"}, "needs that limit"),
    ],
)
def test_what_makes_no_sense_is_refused_with_a_hint(wanted: dict[str, Any], told: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse(wanted)
    assert told in caught.value.message
    assert caught.value.hint or ":" in caught.value.message


def test_changes_while_it_runs() -> None:
    assert parse_change({"bandwidth": 8, "downtime": 200}) == {"bandwidth": 8, "downtime": 200}
    assert TUNABLE == ("bandwidth", "downtime")
    for wrong in ({}, {"mode": "postcopy"}, {"bandwidth": -1}):
        with pytest.raises(UsageError):
            parse_change(wrong)


FLAGS = {
    "VIR_MIGRATE_COMPRESSED", "VIR_MIGRATE_PARALLEL", "VIR_MIGRATE_POSTCOPY", "VIR_MIGRATE_AUTO_CONVERGE",
    "VIR_MIGRATE_NON_SHARED_INC", "VIR_MIGRATE_NON_SHARED_DISK", "VIR_MIGRATE_UNSAFE",
}  # fmt: skip


@pytest.mark.parametrize(
    ("request_", "options", "flags"),
    [
        (REQUEST, Options(), {"COMPRESSED", "NON_SHARED_DISK"}),
        (REQUEST, Options(xbzrle=False), {"NON_SHARED_DISK"}),
        (replace(REQUEST, storage=False), Options(), {"COMPRESSED", "UNSAFE"}),
        (replace(REQUEST, disks=(), storage=False), Options(), {"COMPRESSED"}),
        (replace(REQUEST, disks=(replace(DISK, backing="/b"),)), Options(),
         {"COMPRESSED", "NON_SHARED_INC"}),
        (replace(REQUEST, mode="postcopy"), Options(mode="postcopy"), {"POSTCOPY", "NON_SHARED_DISK"}),
        (replace(REQUEST, mode="hybrid"), Options(mode="hybrid", throttle=30),
         {"POSTCOPY", "NON_SHARED_DISK", "COMPRESSED", "AUTO_CONVERGE"}),
        (replace(REQUEST, streams=4), Options(streams=4), {"PARALLEL", "NON_SHARED_DISK"}),
    ],
)  # fmt: skip
def test_flags_for_libvirt(request_: Any, options: Options, flags: set[str]) -> None:
    told = params.migration_flags(request_, options)
    assert {name for name in FLAGS if told & getattr(libvirt, name)} == {f"VIR_MIGRATE_{n}" for n in flags}
    assert told & libvirt.VIR_MIGRATE_PEER2PEER
    assert told & libvirt.VIR_MIGRATE_LIVE


def test_parameters_for_libvirt() -> None:
    request = replace(REQUEST, mode="hybrid")
    told = params.migration_parameters(request, RUN, Options(mode="hybrid", bandwidth=7, throttle=10))
    assert told["migrate_uri"] == f"unix:///run/xtb/m-{REQUEST.job}.sock"
    assert told["disks_uri"] == f"unix:///run/xtb/d-{REQUEST.job}.sock"
    assert told["bandwidth.postcopy"] == params.SWITCH_MIB, "lifted once it runs"
    assert "bandwidth" not in told, "it would cap the mirror"
    memory_alone = params.migration_parameters(
        replace(request, storage=False), RUN, Options(mode="hybrid", bandwidth=7)
    )
    assert memory_alone["bandwidth"] == 7
    assert told["auto_converge.initial"] == told["auto_converge.increment"] == 1, "the controller throttles"
    several = params.migration_parameters(replace(REQUEST, streams=3), RUN, Options(streams=3))
    assert several["parallel.connections"] == 3
    assert "compression" not in several
    assert params.memory_channels(replace(REQUEST, streams=3)) == 4
    assert params.memory_channels(REQUEST) == 1


def test_taking_up_a_broken_post_copy_is_about_memory_alone() -> None:
    request = replace(REQUEST, mode="postcopy")
    flags = params.recovery_flags(request, Options(mode="postcopy"))
    assert flags & libvirt.VIR_MIGRATE_POSTCOPY
    assert flags & libvirt.VIR_MIGRATE_POSTCOPY_RESUME
    assert not flags & (libvirt.VIR_MIGRATE_NON_SHARED_DISK | libvirt.VIR_MIGRATE_NON_SHARED_INC)
    assert set(params.recovery_parameters(request, RUN)) == {"migrate_uri"}


@click.command()
@moving_options
def probe(**chosen: Any) -> None:
    """Show what the command line gives."""
    storage, options = collect(chosen)
    click.echo(repr((storage, parse(options))))


@pytest.mark.parametrize(
    ("words", "storage", "options"),
    [
        ([], False, Options()),
        (["--with-storage"], True, Options()),
        (["--storage", "mirror", "--mode", "hybrid", "--after-passes", "2"], True,
         Options(mode="hybrid", after_passes=2)),
        (["--storage", "backing", "--with-storage"], True, Options(backing=True)),
        (["--streams", "4", "--no-xbzrle"], False, Options(streams=4, xbzrle=False)),
        (["--auto-converge"], False, Options(throttle=99)),
        (["--throttle", "40", "--deadline", "20"], False, Options(throttle=40, deadline=20.0)),
        (["--timeout", "9", "--timeout-action", "force", "--downtime", "80"], False,
         Options(timeout=9.0, timeout_action="force", downtime=80)),
        (["--bandwidth", "8", "--bandwidth-most", "16", "--no-encrypt", "--no-verify"], False,
         Options(bandwidth=8, bandwidth_most=16, encrypt=False, verify=False)),
        (["--mode", "postcopy", "--no-first-pages"], False, Options(mode="postcopy", first_pages=False)),
    ],
)  # fmt: skip
def test_command_line(words: list[str], storage: bool, options: Options) -> None:
    done = CliRunner().invoke(probe, words, catch_exceptions=False)
    assert done.output.strip() == repr((storage, options))
