"""Lets libvirt probe QEMU once, ahead of the first lab.

The probe takes seconds under TCG; its result is kept (`libvirtd.keep_capabilities`) and given to
every later daemon. Here a daemon runs for that moment in namespaces and directories of its own.
"""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import uuid
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.guests import libvirtd
from xiatb.lab.process import identify, stop_all

_PLACES = ("run", "var/lib/libvirt", "var/cache/libvirt", "var/log/libvirt", "etc/libvirt")
_ENTER = """set -e
mount --make-rprivate /
for place in {places}; do mount --bind "$1/$place" "/$place"; done
shift
exec "$@"
"""


def needed(capabilities: Path = libvirtd.CAPABILITIES) -> bool:
    """True when nothing is known yet about the QEMU and libvirt that are installed now."""
    return not (capabilities / libvirtd.capability_key()).is_dir()


def probe_capabilities(capabilities: Path = libvirtd.CAPABILITIES) -> None:
    """Runs the probe and keeps its result. Needs root. Raises XiatbError."""
    base = Path(tempfile.mkdtemp(prefix="xiatb-probe-", dir="/var/tmp"))
    try:
        for place in _PLACES:
            (base / place).mkdir(parents=True)
        libvirtd.prepare(base, str(uuid.uuid4()), capabilities)
        script = _ENTER.format(places=" ".join(_PLACES))
        command = ["unshare", "--net", "--mount", "sh", "-c", script, "sh", str(base), *libvirtd.argv()]
        with (base / "output").open("wb") as output:
            daemon = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output)
        try:
            libvirtd.wait_ready(base, daemon).close()
            libvirtd.keep_capabilities(base, capabilities)
        finally:
            stop_all([one for one in [identify(daemon.pid)] if one is not None])
            daemon.wait()
    finally:
        shutil.rmtree(base, ignore_errors=True)
    if needed(capabilities):
        raise XiatbError("libvirt left no capability cache")
