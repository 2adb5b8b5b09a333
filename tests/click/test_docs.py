"""The pages in docs/elements are those of the classes; every element says what it is."""

from __future__ import annotations

from pathlib import Path

import pytest

from xiatb.click import docs
from xiatb.click.element import Element
from xiatb.click.registry import all_classes

PAGES = Path(__file__).resolve().parents[2] / "docs" / "elements"
CLASSES = all_classes(registered=False)


def test_pages_are_up_to_date() -> None:
    wanted = docs.pages(CLASSES)
    there = {path.name: path.read_text(encoding="utf-8") for path in PAGES.glob("*.md")}
    assert there.keys() == wanted.keys(), "run scripts/gen-element-docs"
    stale = [name for name, text in wanted.items() if there[name] != text]
    assert not stale, "run scripts/gen-element-docs"


@pytest.mark.parametrize("cls", CLASSES.values(), ids=list(CLASSES))
def test_every_element_is_described(cls: type[Element]) -> None:
    assert cls.__doc__
    assert docs.summary(cls).endswith((".", "."))
    assert cls.__name__ in docs.text(cls)
    assert all(arg.doc for arg in cls.ARGS)
    assert all(doc for _, _, doc in docs.handlers(cls))
    assert docs.data(cls)["ports"].count("/") == 1
    assert "__slots__" in vars(cls)


REQUIRED = """
FromDevice ToDevice Queue Classifier Tee Discard Idle Counter Print Paint PaintSwitch CheckXIAHeader
XIAXIDTypeClassifier XIASelectPath XIAXIDRouteTable XIANextHop XIACheckDest XIADecHLIM XCMP XARPQuerier
XARPResponder ToDump FromDump RandomSample DelayUnqueue BandwidthRatedUnqueue LinkUnqueue
"""


def test_required_elements_are_there() -> None:
    assert set(REQUIRED.split()) <= set(CLASSES)
