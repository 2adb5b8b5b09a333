import json
import os
from pathlib import Path

import pytest

import xiatb
from xiatb.errors import HostNotAbleError
from xiatb.guests import image, recipe, rootfs
from xiatb.guests.aptsources import host_sources

PACKAGE = Path(xiatb.__file__).parent


def test_the_guest_carries_the_stack_and_nothing_heavy():
    names = {name for name, _ in image.guest_files(PACKAGE)}
    assert "xiatb/guests/agent/main.py" in names
    assert "xiatb/wire/dag.py" in names
    assert "xiatb/wire/scapy_layers.py" not in names
    assert not any(name.startswith(("xiatb/lab/", "xiatb/guests/manager", "xiatb/cli/")) for name in names)


def test_what_the_guest_carries_imports_only_light_modules():
    heavy = ("pydantic", "scapy", "rich", "jinja2", "pyroute2", "matplotlib", "libvirt", "xiatb.lab", "click")
    for name, path in image.guest_files(PACKAGE):
        if path.suffix != ".py":
            continue
        for line in path.read_text().splitlines():
            words = line.split()
            if len(words) > 1 and words[0] in ("import", "from"):
                top = words[1].rstrip(",")
                assert not any(top == one or top.startswith(one + ".") for one in heavy), (name, line)


def test_the_id_follows_the_code(tmp_path):
    (tmp_path / "a.py").write_text("1")
    files = [("xiatb/a.py", tmp_path / "a.py")]
    first = image.image_id(files)
    assert image.image_id(files) == first
    (tmp_path / "a.py").write_text("2")
    assert image.image_id(files) != first
    assert image.image_id([("xiatb/b.py", tmp_path / "a.py")]) != image.image_id(files)


def test_the_mmdebstrap_command():
    argv = rootfs.mmdebstrap_argv(Path("/t"), Path("/s"), ['Acquire::http::Proxy "http://p/";'])
    assert argv[0] == "mmdebstrap"
    assert argv[-2:] == ["/t", "/s"]
    assert '--aptopt=Acquire::http::Proxy "http://p/";' in argv
    assert any(word.startswith("--include=") and "python3-cryptography" in word for word in argv)


def test_the_kernel_package_is_found_or_refused():
    text = "linux-image-cloud-amd64\n  Depends: linux-image-6.1.0-50-cloud-amd64\n"
    assert rootfs.kernel_package(text) == "linux-image-6.1.0-50-cloud-amd64"
    with pytest.raises(HostNotAbleError):
        rootfs.kernel_package("")


def test_the_initramfs_holds_the_modules_in_order(tmp_path):
    (tmp_path / "order").write_text("a.ko\n")
    (tmp_path / "a.ko").write_bytes(b"module")
    data = image.initrd(tmp_path)
    for part in (b"bin/busybox\0", b"modules/a.ko\0", b"modules/order\0", b"dev/console\0", b"init\0"):
        assert part in data
    order = [Path(module).stem for module in recipe.KERNEL_MODULES]
    assert order.index("virtio_ring") < order.index("virtio") < order.index("virtio_pci")
    assert order.index("failover") < order.index("net_failover") < order.index("virtio_net")


def test_an_image_without_manifest_does_not_count(tmp_path):
    (tmp_path / "x").mkdir()
    assert image._load(tmp_path / "x") is None
    (tmp_path / "x/manifest.json").write_text(json.dumps({"kernel": "k"}))
    found = image._load(tmp_path / "x")
    assert found is not None
    assert found.root == tmp_path / "x/root.qcow2"


def test_old_images_go_unless_a_lab_uses_them(tmp_path, monkeypatch):
    labs = tmp_path / "labs"
    (labs / "lab/guests/vm1").mkdir(parents=True)
    (labs / "lab/guests/vm1/guest.json").write_text(json.dumps({"image_id": "i0"}))
    monkeypatch.setattr(image, "LABS", labs)
    images = tmp_path / "images"
    for number in range(6):
        directory = images / f"i{number}"
        directory.mkdir(parents=True)
        (directory / "manifest.json").write_text("{}")
        os.utime(directory, (number, number))
    for name in ("base-old", "base-new", ".work-dead"):
        (images / name).mkdir()
    image._prune(images, "i5", "base-new")
    assert sorted(path.name for path in images.iterdir()) == ["base-new", "i0", "i3", "i4", "i5"]


def test_this_machine_has_sources_for_guests():
    if not Path("/etc/debian_version").exists():
        pytest.skip("not a Debian machine")
    assert all(" bookworm" in entry for entry in host_sources(recipe.SUITE))
