"""The keys of `xiatb migrate -o json` are those that its page promises."""

from __future__ import annotations

from pathlib import Path

from tests.migration.simulated import Host, Plan
from tests.migration.test_simulated import migrate, play

PAGE = Path(__file__).parents[2] / "docs" / "cli" / "migrate.md"


def test_the_page_names_every_key_of_a_result_and_no_other() -> None:
    text = PAGE.read_text()
    rows = text[text.index("| key | meaning |") : text.index("| exit code | meaning |")].splitlines()[2:]
    promised = {key.strip(" `") for row in rows if row for key in row.split("|")[1].split(",")}

    async def scenario(one: Host, two: Host, plan: Plan) -> None:
        one.start_guest("g")
        result = await migrate(one, "g", two)
        assert set(result) | {"transport"} == promised  # which the lab's side adds

    play(scenario)
