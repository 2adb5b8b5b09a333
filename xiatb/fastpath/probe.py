"""Can this host run the eBPF engine? Found out by doing it, in a network namespace that is thrown away."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path

from xiatb.fastpath.engine import OBJECT_PATH, Fastpath
from xiatb.fastpath.errors import FastpathError

_CLONE_NEWNET = 0x40000000
_LOOPBACK = 1
"""Interface number of `lo` in a new namespace."""


def available(path: Path = OBJECT_PATH) -> tuple[bool, str]:
    """(True, "") when the program loads and attaches here, else (False, why, in the kernel's words).

    Takes some 10 ms. The namespace belongs to a thread that ends here; the caller's is not touched.
    """
    reasons: list[str] = []
    thread = threading.Thread(target=_try, args=(path, reasons), name="fastpath-probe")
    thread.start()
    thread.join()
    why = reasons[0] if reasons else "the probe broke off"
    return why == "", why


def _try(path: Path, reasons: list[str]) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    try:
        engine = Fastpath.load(path)
    except FastpathError as error:
        reasons.append(error.message)
        return
    try:
        if libc.unshare(_CLONE_NEWNET):
            reasons.append(f"a new network namespace: {os.strerror(ctypes.get_errno())}")
            return
        engine.enable()
        engine.attach(_LOOPBACK, 0)
        reasons.append("")
    except FastpathError as error:
        reasons.append(error.message)
    finally:
        engine.close()
