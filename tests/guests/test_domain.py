import dataclasses
import shutil
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest

from tests.guests.samples import RECORD
from xiatb.guests import domain
from xiatb.guests.model import load_record

GOLDEN = Path(__file__).with_name("vm1.xml")


def test_the_xml_is_the_golden_one():
    assert domain.domain_xml(RECORD) == GOLDEN.read_text()


def test_libvirt_schema_accepts_it(tmp_path):
    if shutil.which("virt-xml-validate") is None or shutil.which("xmllint") is None:
        pytest.skip("needs virt-xml-validate and xmllint")
    (tmp_path / "x.xml").write_text(domain.domain_xml(RECORD))
    subprocess.run(["virt-xml-validate", str(tmp_path / "x.xml"), "domain"], check=True)


def test_kvm_guests_get_another_type_and_cpu():
    tree = ElementTree.fromstring(domain.domain_xml(dataclasses.replace(RECORD, accel="kvm")))
    assert tree.get("type") == "kvm"
    cpu = tree.find("cpu")
    assert cpu is not None
    assert cpu.get("mode") == "host-passthrough"


def test_the_mark_of_ownership():
    assert domain.owner_of(domain.domain_xml(RECORD)) == "lab"
    assert domain.owner_of("<domain><name>x</name></domain>") is None


def test_values_are_escaped():
    text = domain.domain_xml(dataclasses.replace(RECORD, console_log="/tmp/<a>&'b"))
    assert "<a>" not in text
    ElementTree.fromstring(text)


def test_a_record_survives_its_file(tmp_path):
    RECORD.save(tmp_path / "guest.json")
    assert load_record(tmp_path / "guest.json") == RECORD
    assert (tmp_path / "guest.json").stat().st_mode & 0o777 == 0o600
