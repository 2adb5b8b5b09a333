"""One guest record that several tests use."""

from __future__ import annotations

from xiatb.guests.model import GuestRecord, ServiceRecord

RECORD = GuestRecord(
    name="vm1",
    uuid="5f0b1c9e-5f5e-4b8e-9d2a-0c7a4a1b2c3d",
    hid="HID:" + "1" * 40,
    mac="52:54:00:aa:00:01",
    mtu=9000,
    memory_mib=192,
    vcpus=1,
    tap="tap0",
    disk_path="/var/lib/libvirt/images/vm1.qcow2",
    disk_bytes=1 << 30,
    image_id="abc",
    kernel="/run/xiatb/lab/guests/vm1/vmlinuz",
    initrd="/run/xiatb/lab/guests/vm1/initrd",
    agent_socket="/run/xtb/agent-vm1.sock",
    console_log="/var/log/libvirt/console-vm1.log",
    home="hv1",
    accel="tcg",
    lab="lab",
    services=(ServiceRecord("echo", "echo", "SID:" + "2" * 40, "/k/echo.pem", {"x": 1}),),
)
