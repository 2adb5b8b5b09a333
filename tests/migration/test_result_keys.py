"""The keys of `xiatb migrate` and `xiatb migration show -o json` are those that their pages promise."""

from __future__ import annotations

import re
from pathlib import Path

from tests.migration.samples import REQUEST
from tests.migration.simulated import Host, Plan
from tests.migration.test_simulated import migrate, play
from xiatb.migration.controller import Bounds, Controller
from xiatb.migration.overview import overview

PAGES = Path(__file__).parents[2] / "docs" / "cli"


def test_the_page_names_every_key_of_a_result_and_no_other() -> None:
    text = (PAGES / "migrate.md").read_text()
    rows = text[text.index("| key | meaning |") : text.index("In place of these,")].splitlines()[2:]
    promised = {key.strip(" `") for row in rows if row for key in row.split("|")[1].split(",")}

    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        result = await migrate(one, "g", two)
        assert set(result) | {"transport"} == promised  # which the lab's side adds

    play(scenario)


def test_the_page_names_every_key_of_what_is_under_way_and_no_other() -> None:
    text = (PAGES / "migration.md").read_text()
    part = re.search(r"The keys of `show -o json` are stable: (.*?)\n\n", text, re.DOTALL)
    assert part is not None
    told = overview(REQUEST, "hv2", [], {}, Controller(Bounds()), [], 0)
    assert {*told, *told["limits"], "from"} == set(re.findall(r"`(\w+)`", part[1]))
