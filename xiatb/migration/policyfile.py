"""Reads a migration policy file (YAML, docs/migration-policy.md); every error with its line and column."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Any

from xiatb.lab.plan import Plan
from xiatb.lab.source import Place, Source, did_you_mean, parse, read
from xiatb.migration.hostpolicy import REQUIREMENTS, Policy, Rule

_TOP = ("default", "require", "rules")
_RULE = ("guests", "from", "to", "allow")


def load(path: Path, guests: Iterable[str] | None = None, hosts: Iterable[str] | None = None) -> Policy:
    """The policy in a file; names without wildcards must be among `guests` and `hosts`, if given.

    Raises InvalidFileError with all problems, each as file:line:col.
    """
    return _Reader(read(path), guests, hosts).policy()


def loads(text: str, name: str, guests: Iterable[str] | None = None,
          hosts: Iterable[str] | None = None) -> Policy:  # fmt: skip
    """The same of a text; `name` stands for the file in errors."""
    return _Reader(parse(text, name), guests, hosts).policy()


def of_plan(plan: Plan) -> Policy:
    """The policy that a lab's plan names, checked against its guests and hypervisor hosts; one that allows
    everything when it names none. Raises InvalidFileError."""
    if not plan.migration_policy:
        return Policy()
    hosts = [node.name for node in plan.kind("hypervisor")]
    return load(Path(plan.migration_policy), [guest.name for guest in plan.guests], hosts)


class _Reader:
    def __init__(self, source: Source, guests: Iterable[str] | None, hosts: Iterable[str] | None) -> None:
        self.source = source
        self.known = {"guests": guests, "from": hosts, "to": hosts}

    def policy(self) -> Policy:
        data = self.source.data if self.source.data is not None else {}
        if not isinstance(data, dict):
            self.source.add((), "expected default, require and rules")
            data = {}
        self._keys((), data, _TOP)
        default = data.get("default", "allow")
        if default not in ("allow", "deny"):
            self.source.add(("default",), f"{default!r}: allow or deny")
        require = self._names(("require",), data.get("require"), REQUIREMENTS)
        rules = self._rules(data.get("rules"))
        self.source.fail()
        return Policy(default == "allow", require or (), rules)

    def _rules(self, data: Any) -> tuple[Rule, ...]:
        if data is None:
            return ()
        if not isinstance(data, list):
            self.source.add(("rules",), "expected a list of rules")
            return ()
        return tuple(self._rule(("rules", index), rule) for index, rule in enumerate(data))

    def _rule(self, place: Place, data: Any) -> Rule:
        if not isinstance(data, dict):
            self.source.add(place, "expected a rule: guests, from, to, allow")
            return Rule(False)
        self._keys(place, data, _RULE)
        allow = data.get("allow", True)
        if not isinstance(allow, bool):
            self.source.add((*place, "allow"), f"{allow!r}: true or false")
        patterns = {
            key: self._names((*place, key), data.get(key), self.known[key], wild=True) or ("*",)
            for key in ("guests", "from", "to")
        }
        return Rule(allow is True, patterns["guests"], patterns["from"], patterns["to"])

    def _keys(self, place: Place, data: dict[str, Any], known: tuple[str, ...]) -> None:
        for key in data:
            if key not in known:
                self.source.add((*place, key), "no such key", did_you_mean(key, known), at_key=True)

    def _names(
        self, place: Place, data: Any, known: Iterable[str] | None, *, wild: bool = False
    ) -> tuple[str, ...] | None:
        """A name or a list of names; None when absent."""
        if data is None:
            return None
        values = data if isinstance(data, list) else [data]
        for index, value in enumerate(values):
            here = (*place, index) if isinstance(data, list) else place
            if not isinstance(value, str) or not value:
                self.source.add(here, f"{value!r}: expected a name")
            elif known is not None and not (wild and any(c in value for c in "*?[")):
                names = list(known)
                if value not in names:
                    self.source.add(here, f"no such name: {value}", did_you_mean(value, names))
        return tuple(str(value) for value in values)
