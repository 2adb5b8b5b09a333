"""The policy file, what it decides, and a guest's consent."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest

from tests.migration.samples import HID, KEYS, REQUEST, SIDS
from xiatb.errors import IdentityError, InvalidFileError
from xiatb.migration import consent, policyfile
from xiatb.migration import messages as m
from xiatb.migration.config import DaemonConfig
from xiatb.migration.hosting import RefusedError
from xiatb.migration.hostpolicy import Policy, from_json
from xiatb.migration.station import Station
from xiatb.wire.xid import XidType

DOCS = Path(__file__).parents[2] / "docs" / "migration-policy.md"


def refusal(policy: Policy, guest: str, source: str, to: str, **more: bool) -> str:
    return policy.refusal(guest, source, to, **{"encrypted": True, "consent": False, **more})


def test_the_example_in_the_documentation_decides_as_it_says() -> None:
    text = DOCS.read_text().split("```yaml\n")[1].split("```")[0]
    policy = policyfile.loads(text, "p.yaml")
    assert from_json(policy.to_json()) == policy
    assert refusal(policy, "vm1", "hv1", "hv2") == ""
    assert refusal(policy, "web7", "hv1", "hv3") == ""
    assert "rule 1 of the policy forbids db1" in refusal(policy, "db1", "hv2", "hv1")
    assert refusal(policy, "vm9", "hv2", "hv1") == ""
    assert "no rule of the policy allows vm9" in refusal(policy, "vm9", "hv1", "hv2")
    assert "encrypted" in refusal(policy, "vm1", "hv1", "hv2", encrypted=False)


def test_without_a_file_everything_is_allowed_and_consent_can_be_asked_for() -> None:
    assert refusal(Policy(), "vm1", "a", "b", encrypted=False) == ""
    asks = Policy(require=("consent",))
    assert "consent" in refusal(asks, "vm1", "a", "b")
    assert refusal(asks, "vm1", "a", "b", consent=True) == ""


def test_every_problem_has_its_place() -> None:
    text = (
        "default: maybe\nrequire: [magic]\ncolour: 1\nrules:\n  - {guests: vm9, to: hv1}\n"
        "  - {form: hv1}\n  - {allow: 3}\n  - 7\n  - {guests: []}\n"
    )
    with pytest.raises(InvalidFileError) as caught:
        policyfile.loads(text, "p.yaml", ["vm1"], ["hv1", "hv2"])
    problems = "\n".join(caught.value.problems)
    for place, word in (
        ("p.yaml:1:10", "maybe"), ("p.yaml:2:11", "magic"), ("p.yaml:3:1", "colour"), ("p.yaml:5:14", "vm9"),
        ("p.yaml:6:6", "form"), ("p.yaml:7:13", "3"), ("p.yaml:8:5", "expected a rule"),
    ):  # fmt: skip
        assert any(place in line and word in line for line in problems.splitlines()), (place, problems)
    assert "did you mean 'from'" in problems


@pytest.mark.parametrize("text", ["", "default: allow", "rules:", "rules: []"])
def test_brief_files(text: str) -> None:
    assert policyfile.loads(text, "p.yaml") == Policy()


@pytest.mark.parametrize("text", ["- a", "7", "rules: {}"])
def test_what_is_no_policy(text: str) -> None:
    with pytest.raises(InvalidFileError):
        policyfile.loads(text, "p.yaml")


def test_a_consent_is_for_one_host_one_guest_and_once(tmp_path: Path) -> None:
    book = consent.ConsentBook(tmp_path / "c" / "consents.json")
    given = consent.sign(KEYS[3], SIDS[1], 5)
    with pytest.raises(IdentityError):
        book.take(given, HID, SIDS[0])
    with pytest.raises(IdentityError):
        book.take(given, str(KEYS[2].xid(SIDS[0].type)).replace("SID", "HID"), SIDS[1])
    with pytest.raises(IdentityError):
        book.take(m.Consent(public=given.public, sequence=6, signature=given.signature), HID, SIDS[1])
    with pytest.raises(IdentityError, match="without HID"):
        book.take(given, "", SIDS[1])
    book.take(given, HID, SIDS[1])
    again = consent.ConsentBook(tmp_path / "c" / "consents.json")
    for used in (given, consent.sign(KEYS[3], SIDS[1], 4)):
        with pytest.raises(IdentityError, match="used already"):
            again.take(used, HID, SIDS[1])
    again.take(consent.sign(KEYS[3], SIDS[1], 6), HID, SIDS[1])
    assert (tmp_path / "c" / "consents.json").stat().st_mode & 0o777 == 0o600
    (tmp_path / "c" / "consents.json").write_text("[")
    with pytest.raises(IdentityError):
        again.take(consent.sign(KEYS[3], SIDS[1], 7), HID, SIDS[1])


def station(tmp_path: Path, policy: Policy) -> Station:
    config = DaemonConfig("lab", "hv2", tmp_path, tmp_path, tmp_path / "s", policy=policy)
    unused: Any = None
    return Station(config, unused, unused, unused, unused, sid=SIDS[1])


def test_both_sides_are_asked_and_a_consent_is_used_at_the_destination_only(tmp_path: Path) -> None:
    here = station(tmp_path, Policy(require=("consent",)))
    with pytest.raises(RefusedError) as caught:
        here.permit(REQUEST, "hv1", "hv2")
    assert caught.value.code == "policy"
    given = consent.sign(KEYS[3], SIDS[1], 1)
    asked: Any = m.decode({**m.encode(REQUEST), "consent": vars(given)})
    assert asked.consent == given
    here.permit(asked, "hv2", "hv1")
    here.permit(asked, "hv1", "hv2")
    with pytest.raises(RefusedError) as caught:
        here.permit(asked, "hv1", "hv2")
    assert caught.value.code == "consent"


def test_a_consent_that_nobody_can_prove_is_none(tmp_path: Path) -> None:
    here = station(tmp_path, Policy(require=("consent",)))
    here.sid = None
    asked: Any = m.decode({**m.encode(REQUEST), "consent": vars(consent.sign(KEYS[3], SIDS[1], 1))})
    with pytest.raises(RefusedError) as caught:
        here.permit(asked, "hv1", "hv2")
    assert caught.value.code == "consent"


@pytest.mark.parametrize("wrong", ["signature", "key", "destination", "guest", "sequence", "no HID"])
def test_a_wrong_consent_is_refused_though_the_policy_asks_for_none(wrong: str, tmp_path: Path) -> None:
    """A guest's word counts when it is there; without one the policy decides."""
    here = station(tmp_path, Policy())
    here.permit(REQUEST, "hv1", "hv2")
    given = consent.sign(KEYS[3], SIDS[0] if wrong == "destination" else SIDS[1], 7)
    bent = {
        "signature": {"signature": ("1" if given.signature[0] == "0" else "0") + given.signature[1:]},
        "key": vars(consent.sign(KEYS[2], SIDS[1], 7)),
        "sequence": {"sequence": 8},
    }.get(wrong, {})
    asked: Any = dataclasses.replace(REQUEST, consent=dataclasses.replace(given, **bent))
    if wrong in ("guest", "no HID"):
        other = str(KEYS[2].xid(XidType.HID)) if wrong == "guest" else ""
        asked = dataclasses.replace(asked, hid=other)
    with pytest.raises(RefusedError) as caught:
        here.permit(asked, "hv1", "hv2")
    assert caught.value.code == "consent"
    right = dataclasses.replace(REQUEST, consent=consent.sign(KEYS[3], SIDS[1], 1))
    here.permit(right, "hv1", "hv2")
    with pytest.raises(RefusedError, match="used already"):
        here.permit(right, "hv1", "hv2")
