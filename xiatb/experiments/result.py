"""`result.json` of a migration experiment: what is measured for each migration and what must hold.

Definitions: `total_ms` request to commit; `downtime_ms` STOP at the source to RESUME at the destination
(QEMU events, one clock); `client_gap_ms` the longest time without an answer to the client's probe;
`client_outage_ms` the longest time in which no request was sent that got an answer;
`mode` how memory moved ("precopy", "hybrid": post-copy after passes of pre-copy, "postcopy");
`bytes_on_wire` all frames of the inter-AD link between request and commit; `bytes_qemu` what QEMU and
libvirt wrote into the migration's sockets; `non_xia_bytes` frames on that link that are not XIA.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

MAX_CLIENT_GAP_MS = 1000.0


@dataclass
class MigrationResult:
    """What one migration did to its guest, its connections and the link; see the module's definitions."""

    guest: str
    source: str
    destination: str
    total_ms: float
    downtime_ms: float
    client_gap_ms: float
    client_outage_ms: float
    probes_sent: int
    probes_lost: int
    probe_rtt_ms: float
    stream_bytes: int
    stream_intact: bool
    guest_uptime_monotonic: bool
    disk_intact: bool
    bytes_on_wire: int
    bytes_qemu: int
    passes: int
    non_xia_bytes: int
    accel: str
    shaping_backend: str
    versions: dict[str, str]
    seed: int
    mode: str = "precopy"
    timestamps_ns: dict[str, int | None] = field(default_factory=dict)
    details: dict[str, Any] = field(default_factory=dict)

    def failures(self) -> list[str]:
        """What the verification found wrong, in words; empty when all holds."""
        problems: list[str] = []
        if not self.stream_intact:
            problems.append("the client's stream is not intact")
        if not self.guest_uptime_monotonic:
            problems.append("the guest's uptime went back or it booted again")
        if not self.disk_intact:
            problems.append("a file on the guest's disk has the wrong checksum")
        if self.non_xia_bytes:
            problems.append(f"{self.non_xia_bytes} bytes on the inter-AD link are not XIA")
        if not self.client_gap_ms <= MAX_CLIENT_GAP_MS:
            problems.append(f"client gap of {self.client_gap_ms:.0f} ms is over {MAX_CLIENT_GAP_MS:.0f} ms")
        return [f"{self.source} -> {self.destination}: {problem}" for problem in problems]

    def to_json(self) -> dict[str, Any]:
        """The object that goes into `result.json`; keys are stable."""
        return asdict(self)
