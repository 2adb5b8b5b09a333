"""The destination's book of granted bulk channels: each token opens one channel, once, with the session's
key."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass
from typing import Any

from xiatb.errors import IdentityError, WireError
from xiatb.migration import fields as f
from xiatb.migration import frames
from xiatb.migration.handshake import channel_proof
from xiatb.migration.messages import KINDS, Channel


@dataclass(frozen=True)
class ChannelOpen:
    """What the first frame on a bulk channel asks for."""

    job: str
    kind: str
    index: int
    token: str
    proof: str


def pack_open(job: str, channel: Channel, channel_key: bytes) -> bytes:
    """The CHANNEL frame that opens `channel` of `job`."""
    proof = channel_proof(channel_key, job, channel.kind, channel.index, channel.token)
    return frames.pack_json(
        frames.CHANNEL,
        {"t": "channel", "job": job, "kind": channel.kind, "index": channel.index,
         "token": channel.token, "proof": proof},
    )  # fmt: skip


def parse_open(body: bytes) -> ChannelOpen:
    """The request in a CHANNEL frame's body; raises `WireError` for anything else."""
    value = frames.load(body)
    if value.get("t") != "channel":
        raise WireError("first frame of a channel does not open one")
    checks: dict[str, f.Check] = {
        "job": f.JOB, "kind": f.choice(*KINDS), "index": f.number(0, 63),
        "token": f.hexadecimal(16), "proof": f.hexadecimal(32),
    }  # fmt: skip
    return ChannelOpen(**{name: check(value.get(name)) for name, check in checks.items()})


def pack_answer(error: str = "") -> bytes:
    """The answer to a CHANNEL frame: accepted when `error` is empty."""
    return frames.pack_json(frames.CHANNEL, {"t": "channel_reply", "ok": not error, "reason": error[:200]})


def parse_answer(body: bytes) -> str:
    """The reason for a refusal, or "" when the channel is open; raises `WireError` for anything else."""
    value: dict[str, Any] = frames.load(body)
    if value.get("t") != "channel_reply":
        raise WireError("channel answer expected")
    if f.flag(value.get("ok")):
        return ""
    return f.text(200)(value.get("reason")) or "refused"


class TokenBook:
    """Tokens of one job. `redeem` succeeds once for each granted channel and never for anything else."""

    def __init__(self, job: str, channel_key: bytes) -> None:
        self._job = job
        self._key = channel_key
        self._open: dict[tuple[str, int], str] = {}

    def grant(self, kind: str, count: int) -> tuple[Channel, ...]:
        """Grant `count` more channels of `kind`, numbered from 0, each with a fresh random token."""
        granted = tuple(Channel(kind=kind, index=i, token=secrets.token_hex(16)) for i in range(count))
        for channel in granted:
            self._open[(kind, channel.index)] = channel.token
        return granted

    def fits(self, request: ChannelOpen) -> bool:
        """Whether the channel is granted and job, token and proof are right."""
        expected = self._open.get((request.kind, request.index))
        proof = channel_proof(self._key, self._job, request.kind, request.index, expected or "")
        return (
            request.job == self._job
            and expected is not None
            and hmac.compare_digest(expected, request.token)
            and hmac.compare_digest(proof, request.proof)
        )

    def redeem(self, request: ChannelOpen) -> None:
        """Use the token up; raises `IdentityError` for a wrong job, token or proof or a second use."""
        if not self.fits(request):
            raise IdentityError(f"channel {request.kind}/{request.index} is not granted")
        del self._open[(request.kind, request.index)]

    def revoke(self) -> None:
        """Make every token that is left worthless."""
        self._open.clear()
