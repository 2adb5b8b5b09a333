"""Makes this machine ready for guests: image built, libvirt's QEMU probe kept, accelerator known.

Imports nothing from outside Debian's own Python packages, so that scripts/setup can run it with
/usr/bin/python3 while the virtual environment is still being made.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from xiatb.errors import XiatbError
from xiatb.guests import image


def probe(progress: Callable[[str], None]) -> None:
    """Lets libvirt probe QEMU if it never did, finds out whether KVM works; says so."""
    from xiatb.guests import accel, warmup

    if warmup.needed():
        progress("letting libvirt probe QEMU")
        warmup.probe_capabilities()
    chosen = accel.probe_kvm()
    progress("accelerator: kvm" if chosen.kvm else f"accelerator: tcg ({chosen.reason})")


def main(arguments: Sequence[str]) -> int:
    """`python3 -m xiatb.guests.ready image|probe`: one of the two steps; progress on stdout. Exit code."""
    started = time.monotonic()

    def progress(message: str) -> None:
        sys.stdout.write(f"  {time.monotonic() - started:5.1f} s  {message}\n")
        sys.stdout.flush()

    try:
        if list(arguments) == ["image"]:
            built = image.build(progress)
            progress(f"guest image {built.id}: {built.manifest['allocated_bytes'] / 1e6:.0f} MB")
        elif list(arguments) == ["probe"]:
            probe(progress)
        else:
            sys.stderr.write("usage: python3 -m xiatb.guests.ready image|probe\n")
            return 2
    except XiatbError as error:
        sys.stderr.write(f"{error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
