"""libvirtd's files, the accelerator probe."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from xiatb.errors import HostNotAbleError
from xiatb.guests import accel, libvirtd, sandbox

FILTERED = """
import ctypes, struct, sys
class Program(ctypes.Structure):
    _fields_ = [("length", ctypes.c_ushort), ("code", ctypes.c_char_p)]
allow = struct.pack("HBBI", 6, 0, 0, 0x7fff0000)
libc = ctypes.CDLL(None)
libc.prctl(38, 1, 0, 0, 0)
done = libc.prctl(22, 2, ctypes.byref(Program(1, allow)), 0, 0)
sys.stdout.write("1" if done == 0 else "0")
sys.stdout.flush()
sys.stdin.read()
"""
"""Takes a filter that allows everything (seccomp(2)), tells whether that was granted, waits."""


def test_libvirt_is_configured_as_the_recipe_says(tmp_path):
    libvirtd.prepare(tmp_path, "0f8fad5b-d9cb-469f-a165-70867728950e", tmp_path / "capabilities")
    daemon = (tmp_path / "etc/libvirt/libvirtd.conf").read_text()
    qemu = (tmp_path / "etc/libvirt/qemu.conf").read_text()
    for line in (
        'host_uuid = "0f8fad5b-d9cb-469f-a165-70867728950e"',
        'auth_unix_rw = "none"',
        'unix_sock_dir = "/run/libvirt"',
    ):
        assert line in daemon
    for line in ("cgroup_controllers = [ ]", "namespaces = [ ]", 'security_driver = "none"', "max_core = 0"):
        assert line in qemu
    assert "seccomp_sandbox = 0" in qemu
    assert "seccomp_sandbox = 1" in libvirtd.config_files("u", sandbox=True)["etc/libvirt/qemu.conf"]
    assert not list((tmp_path / "etc/libvirt/qemu/networks").iterdir())
    assert "--pid-file" in libvirtd.argv()


def test_capabilities_are_kept_and_given_on(tmp_path, monkeypatch):
    monkeypatch.setattr(libvirtd, "capability_key", lambda: "key")
    first, second, kept = tmp_path / "a", tmp_path / "b", tmp_path / "kept"
    libvirtd.prepare(first, "u", kept)
    libvirtd.keep_capabilities(first, kept)
    assert not kept.exists()
    (first / libvirtd.CAPABILITY_DIR).mkdir(parents=True)
    (first / libvirtd.CAPABILITY_DIR / "x.xml").write_text("<q/>")
    libvirtd.keep_capabilities(first, kept)
    libvirtd.keep_capabilities(first, kept)
    libvirtd.prepare(second, "u", kept)
    assert (second / libvirtd.CAPABILITY_DIR / "x.xml").read_text() == "<q/>"
    assert [path.name for path in kept.iterdir()] == ["key"]


def test_a_daemon_that_dies_is_reported_with_its_words(tmp_path):
    log = tmp_path / libvirtd.LOG
    log.parent.mkdir(parents=True)
    log.write_text("1: info : x\n2: error : f:1 : cannot do it\n3: info : y\n")
    process = subprocess.Popen([sys.executable, "-c", "raise SystemExit(3)"])
    with pytest.raises(libvirtd.LibvirtdError, match="ended with 3: .*cannot do it"):
        libvirtd.wait_ready(tmp_path, process, 10.0)


@pytest.mark.skipif(shutil.which(accel.QEMU) is None, reason="needs QEMU")
def test_the_boot_sector_runs_under_tcg():
    assert accel.boots("tcg", 20.0) == (True, "")


@pytest.mark.skipif(shutil.which(accel.QEMU) is None, reason="needs QEMU")
def test_whether_system_calls_can_be_filtered_is_found_out_by_doing_it(monkeypatch):
    sandbox.works.cache_clear()
    able, reason = sandbox.works()
    assert able is not bool(reason)
    monkeypatch.setattr(sandbox, "OPTIONS", "on,nonsense=deny")
    assert sandbox.works() == (able, reason), "once a process"
    sandbox.works.cache_clear()
    able, reason = sandbox.works()
    assert not able and "nonsense" in reason
    sandbox.works.cache_clear()


def test_a_filter_is_seen_at_the_process(tmp_path):
    assert not sandbox.filtered(2**22)
    argv = [sys.executable, "-c", FILTERED]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        told = process.stdout.read(1)
        assert sandbox.filtered(process.pid) is (told == b"1" or sandbox.filtered(os.getpid()))
        process.stdin.close()


def test_an_accelerator_that_hangs_is_found_out(monkeypatch):
    monkeypatch.setattr(
        accel, "probe_argv", lambda kind, image: [sys.executable, "-c", "import signal; signal.pause()"]
    )
    works, reason = accel.boots("kvm", 0.3)
    assert not works
    assert "no progress" in reason


def test_the_probe_is_kept_for_this_boot_only(tmp_path, monkeypatch):
    cache = tmp_path / "accel.json"
    calls = []
    monkeypatch.setattr(accel, "boots", lambda kind: (calls.append(kind), (False, "because"))[1])
    monkeypatch.setattr(accel.os, "access", lambda path, mode: True)
    assert accel.choose("auto", cache) == "tcg"
    assert accel.choose("auto", cache) == "tcg"
    assert calls == ["kvm"]
    cache.write_text(json.dumps({**json.loads(cache.read_text()), "boot_id": "another"}))
    accel.choose("auto", cache)
    assert calls == ["kvm", "kvm"]
    cache.write_text("nonsense")
    with pytest.raises(HostNotAbleError, match="because"):
        accel.choose("kvm", cache)
    assert accel.choose("tcg", cache) == "tcg"
