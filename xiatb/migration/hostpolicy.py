"""Which hosts may send and receive which guests. Both daemons ask before a migration begins.

Names of hosts are those that their SIDs stand for in the lab, never what a peer says of itself.
"""

from __future__ import annotations

import fnmatch
from dataclasses import dataclass
from typing import Any

from xiatb.errors import InvalidFileError

REQUIREMENTS = ("encryption", "consent")


@dataclass(frozen=True)
class Rule:
    """Fits a migration when all three patterns (shell wildcards; none given: any) do."""

    allow: bool
    guests: tuple[str, ...] = ("*",)
    sources: tuple[str, ...] = ("*",)
    destinations: tuple[str, ...] = ("*",)

    def fits(self, guest: str, source: str, destination: str) -> bool:
        """Whether the rule speaks of this migration."""
        wanted = ((guest, self.guests), (source, self.sources), (destination, self.destinations))
        return all(any(fnmatch.fnmatchcase(name, p) for p in patterns) for name, patterns in wanted)


@dataclass(frozen=True)
class Policy:
    """The first rule that fits decides, `allow` if none does. `require`: what any migration must have."""

    allow: bool = True
    require: tuple[str, ...] = ()
    rules: tuple[Rule, ...] = ()

    def refusal(self, guest: str, source: str, destination: str, *, encrypted: bool, consent: bool) -> str:
        """Why the guest may not move from `source` to `destination`; "" when it may."""
        for number, rule in enumerate(self.rules, 1):
            if rule.fits(guest, source, destination):
                if not rule.allow:
                    return f"rule {number} of the policy forbids {guest} from {source} to {destination}"
                break
        else:
            if not self.allow:
                return f"no rule of the policy allows {guest} from {source} to {destination}"
        if "encryption" in self.require and not encrypted:
            return "the policy asks for encrypted channels"
        if "consent" in self.require and not consent:
            return f"the policy asks for the consent of {guest}, signed by the key of its HID"
        return ""

    def to_json(self) -> dict[str, Any]:
        """Plain data; `from_json` is its inverse."""
        rules = [
            {"allow": r.allow, "guests": list(r.guests), "from": list(r.sources), "to": list(r.destinations)}
            for r in self.rules
        ]
        return {"allow": self.allow, "require": list(self.require), "rules": rules}


def from_json(data: Any) -> Policy:
    """The policy in a daemon's configuration; raises InvalidFileError."""
    try:
        rules = tuple(
            Rule(bool(r["allow"]), tuple(r["guests"]), tuple(r["from"]), tuple(r["to"]))
            for r in data["rules"]
        )
        return Policy(bool(data["allow"]), tuple(data["require"]), rules)
    except (KeyError, TypeError) as error:
        raise InvalidFileError(f"migration policy: {error!r}") from None
