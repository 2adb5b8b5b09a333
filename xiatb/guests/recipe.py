"""What a guest image is made of: packages, kernel modules, what is left out, and start-up text.

Everything here goes into the cache keys of `xiatb.guests.image`: change a line and the right
stage is built again. Module order from design.md section 5 (virtio modules of
Debian's cloud kernel have dependencies that a bare `insmod` does not resolve).
"""

from __future__ import annotations

SUITE = "bookworm"
KERNEL_PACKAGE = "linux-image-cloud-amd64"

PACKAGES = (
    "mount",
    "netbase",
    "iproute2",
    "procps",
    "python3-minimal",
    "python3-cryptography",
)

DPKG_EXCLUDES = (
    "/usr/share/doc/*",
    "/usr/share/man/*",
    "/usr/share/locale/*",
    "/usr/share/info/*",
    "/usr/share/lintian/*",
    "/usr/share/bash-completion/*",
    "/usr/share/perl/*",
    "/usr/share/zoneinfo/*",
    "/usr/lib/x86_64-linux-gnu/perl/*",
    "/usr/lib/x86_64-linux-gnu/gconv/*",
)

TRIM = (
    "usr/bin/perl*",
    "usr/bin/localedef",
    "usr/lib/x86_64-linux-gnu/libperl.so*",
    "usr/lib/x86_64-linux-gnu/perl-base",
    "usr/lib/x86_64-linux-gnu/perl",
    "usr/lib/x86_64-linux-gnu/libmvec.so*",
    "usr/share/perl5",
    "usr/share/common-licenses",
    "usr/lib/python3.11/test",
    "usr/lib/python3.11/pydoc_data",
    "usr/lib/python3.11/lib2to3",
    "usr/lib/python3.11/turtle.py",
    "usr/lib/python3.11/idlelib",
    "usr/lib/python3.11/unittest",
    "usr/lib/python3.11/xmlrpc",
    "usr/lib/python3.11/wsgiref",
    "usr/lib/python3.11/venv",
    "usr/lib/python3.11/distutils",
    "usr/lib/python3.11/**/__pycache__",
    "usr/lib/python3/**/__pycache__",
    "var/cache/debconf/*",
    "var/cache/ldconfig/*",
    "var/lib/apt/lists/*",
    "var/lib/dpkg/info/*.md5sums",
    "var/lib/dpkg/*-old",
    "var/log/*",
    "boot/*",
)
"""Removed from the tree after the packages are configured (glob patterns below the root)."""

KERNEL_MODULES = (
    "drivers/virtio/virtio_ring.ko",
    "drivers/virtio/virtio.ko",
    "drivers/virtio/virtio_pci_legacy_dev.ko",
    "drivers/virtio/virtio_pci_modern_dev.ko",
    "drivers/virtio/virtio_pci.ko",
    "drivers/block/virtio_blk.ko",
    "net/core/failover.ko",
    "drivers/net/net_failover.ko",
    "drivers/net/virtio_net.ko",
)
"""In load order. ext4, jbd2, crc32c, af_packet and 8250 are built into Debian's cloud kernel."""

KERNEL_CMDLINE = (
    "console=ttyS0 quiet loglevel=4 panic=5 nokaslr mitigations=off tsc=reliable "
    "no_timer_check random.trust_cpu=on ipv6.disable=1 net.ifnames=0 rcupdate.rcu_expedited=1 "
    "init_on_free=1 noautogroup"
)

XIATB_PARTS = (
    "__init__.py",
    "errors.py",
    "wire",
    "identity",
    "transport",
    "click",
    "fastpath",
    "node",
    "guests/__init__.py",
    "guests/agent",
)
"""Files and folders of the xiatb package that a guest carries."""

XIATB_LEFT_OUT = ("scapy_*.py",)
"""File name patterns: Scapy is too slow to import in a guest."""

DISK_BYTES = 1 << 30
JOURNAL_MIB = 4
INODES = 16384

CONFIG_DIR = "/run/xiatb"
"""Where the guest finds its configuration (tmpfs, filled from the appended cpio)."""

INITRD_INIT = """#!/bin/busybox sh
# First process of a xiatb guest: load the virtio drivers, mount the root disk, hand over.
B=/bin/busybox
fail() { $B echo "xiatb-guest: $1"; $B sync; $B poweroff -f; }
$B mount -t devtmpfs dev /dev
for m in $($B cat /modules/order); do
  $B insmod /modules/$m || fail "cannot load $m"
done
n=0
until [ -b /dev/vda ]; do
  n=$((n + 1)); [ $n -gt 200 ] && fail "no root disk /dev/vda"
  $B usleep 20000
done
$B mount -t ext4 -o noatime,noinit_itable /dev/vda /root || fail "cannot mount the root disk"
$B mount -t tmpfs -o mode=0755,size=16m run /root/run
$B mkdir -m 0700 /root/run/xiatb
[ -d /xiatb-config ] && $B cp -a /xiatb-config/. /root/run/xiatb/
$B mount -o move /dev /root/dev
$B mount -t proc proc /root/proc
$B mount -t sysfs sysfs /root/sys
$B mkdir -p /root/dev/pts /root/dev/shm
$B mount -t devpts devpts /root/dev/pts
$B mount -t tmpfs -o mode=1777,size=16m shm /root/dev/shm
exec $B switch_root /root /usr/lib/xiatb/init
"""

ROOT_INIT = """#!/bin/sh
# Init of a xiatb guest: runs the agent and starts it again if it ever dies.
# Process 1 is this shell, so orphans are reaped by its wait.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
export HOME=/root LANG=C.UTF-8 PYTHONDONTWRITEBYTECODE=1
exec </dev/null >/dev/console 2>&1
cd /root
while :; do
  /usr/bin/python3 -S -E -c 'import sys
sys.path[:0] = ["/usr/lib/xiatb"]
sys.path.append("/usr/lib/python3/dist-packages")
from xiatb.guests.agent.main import main
sys.exit(main())' &
  wait $!
  echo "xiatb-guest: agent ended with status $?"
  sleep 1
done
"""
