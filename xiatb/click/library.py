"""Where `require(library f.click)` looks for files."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def library_path() -> list[Path]:
    """Directories in order: those of XIATB_CLICK_PATH (colon-separated), the source tree's `click_configs`,
    the installed one under `share/xiatb`."""
    named = [Path(part) for part in os.environ.get("XIATB_CLICK_PATH", "").split(":") if part]
    tree = Path(__file__).resolve().parent.parent.parent / "click_configs"
    installed = Path(sys.prefix) / "share" / "xiatb" / "click_configs"
    return [directory for directory in [*named, tree, installed] if directory.is_dir()]
