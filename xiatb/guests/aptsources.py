"""Which package archives this machine uses, as one-line entries for mmdebstrap.

Only entries of the guest's own suite are taken (bookworm, -updates, -security), from
/etc/apt/sources.list and sources.list.d in both formats of sources.list(5); repositories of other
vendors stay out of the guest. Nothing here names an archive host.
"""

from __future__ import annotations

import re
from pathlib import Path

_POCKETS = ("", "-updates", "-security", "/updates")
_ONE_LINE = re.compile(
    r"^deb\s+(?:\[(?P<options>[^\]]*)\]\s+)?(?P<uri>\S+)\s+(?P<suite>\S+)\s+(?P<components>.+)$"
)


def _wanted(suite: str, codename: str) -> bool:
    return suite in {codename + pocket for pocket in _POCKETS}


def _usable(uri: str) -> bool:
    return not uri.startswith("cdrom:")


def _signed_by(value: str) -> str:
    return f"[signed-by={value}] " if value.startswith("/") else ""


def from_one_line(text: str, codename: str) -> list[str]:
    """Entries of a `.list` file that serve `codename`, component `main` only."""
    found = []
    for raw in text.splitlines():
        match = _ONE_LINE.match(raw.split("#", 1)[0].strip())
        if match is None or not _wanted(match["suite"], codename) or not _usable(match["uri"]):
            continue
        if "main" not in match["components"].split():
            continue
        options = dict(part.split("=", 1) for part in (match["options"] or "").split() if "=" in part)
        found.append(f"deb {_signed_by(options.get('signed-by', ''))}{match['uri']} {match['suite']} main")
    return found


def _stanzas(text: str) -> list[dict[str, str]]:
    stanzas: list[dict[str, str]] = [{}]
    key = ""
    for line in text.splitlines():
        if line.startswith("#"):
            continue
        if not line.strip():
            stanzas.append({})
            key = ""
        elif line[0] in " \t" and key:
            stanzas[-1][key] += " " + line.strip()
        elif ":" in line:
            name, value = line.split(":", 1)
            key = name.strip().lower()
            stanzas[-1][key] = value.strip()
    return [stanza for stanza in stanzas if stanza]


def from_deb822(text: str, codename: str) -> list[str]:
    """Entries of a `.sources` file that serve `codename`, component `main` only."""
    found = []
    for stanza in _stanzas(text):
        enabled = stanza.get("enabled", "yes").lower() not in ("no", "false", "0")
        if not enabled or "deb" not in stanza.get("types", "").split():
            continue
        if "main" not in stanza.get("components", "").split():
            continue
        for uri in filter(_usable, stanza.get("uris", "").split()):
            for suite in stanza.get("suites", "").split():
                if _wanted(suite, codename):
                    found.append(f"deb {_signed_by(stanza.get('signed-by', ''))}{uri} {suite} main")
    return found


def host_sources(codename: str, etc_apt: Path = Path("/etc/apt")) -> list[str]:
    """All entries of this machine that serve `codename`, in file order, each once."""
    found: list[str] = []
    single = etc_apt / "sources.list"
    if single.is_file():
        found += from_one_line(single.read_text(encoding="utf-8", errors="replace"), codename)
    for path in sorted((etc_apt / "sources.list.d").glob("*")):
        text = path.read_text(encoding="utf-8", errors="replace")
        if path.suffix == ".list":
            found += from_one_line(text, codename)
        elif path.suffix == ".sources":
            found += from_deb822(text, codename)
    return list(dict.fromkeys(found))


def proxy_options(apt_config_dump: str) -> list[str]:
    """Of `apt-config dump`, the lines that say how to reach archives (proxies, retries, date checks)."""
    kept = re.compile(
        r"^Acquire::(http|https|Retries|ForceIPv4|ForceIPv6|Check-Valid-Until|Check-Date)\b", re.I
    )
    return [line for line in apt_config_dump.splitlines() if kept.match(line) and not line.endswith('"";')]
