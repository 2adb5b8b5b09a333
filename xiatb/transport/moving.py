"""Moves of either end as the stream sees them: MIGRATE and MIGRATEACK options, and starting over."""

from __future__ import annotations

from xiatb.errors import WireError
from xiatb.transport.config import MIN_MTU
from xiatb.transport.connection import INFINITY, fits
from xiatb.transport.events import EventKind
from xiatb.transport.mobility import Verdict
from xiatb.transport.packets import HeaderTemplate
from xiatb.transport.timers import TimerSide
from xiatb.wire import migrate, xstream
from xiatb.wire.dag import DAG


class MovingSide(TimerSide):
    """What a move changes."""

    def _set_remote(self, remote: DAG) -> None:
        """Send to `remote` from now on."""
        self.remote = remote
        self._template = HeaderTemplate(self.local, remote)
        self._update_mss()

    def _mobility(self, options: xstream.Options, now: float) -> None:
        """MIGRATE and MIGRATEACK options; the only way in which a peer's address ever changes."""
        counters = self.counters
        try:
            if options.migrate_ack is not None and self._mover is not None:
                ack = migrate.parse_ack_option(options.migrate_ack)
                if self._mover.accept(ack):
                    self._event(EventKind.MOVED, now - self._mover.started_at)
                else:
                    counters["migrate_stale"] += 1
            if options.migrate is not None:
                self._peer_move(migrate.parse_migrate_option(options.migrate), options.mss, now)
        except WireError:
            counters["malformed"] += 1

    def _peer_move(self, message: migrate.Migrate, mtu: int | None, now: float) -> None:
        """Check a MIGRATE; when it is new and genuine, go on at the new address at once."""
        if not fits(self.local, message.dag, self.mtu):
            raise WireError("the peer's new address leaves no room in a packet")
        verdict = self._peer_moves.judge(message)
        if verdict is Verdict.FORGED:
            self.counters["migrate_refused"] += 1
        elif verdict is Verdict.STALE:
            self.counters["migrate_stale"] += 1
        elif verdict is Verdict.REPEAT:
            self._acknowledge_move(now)
        else:
            self.counters["migrate_accepted"] += 1
            if mtu is not None and mtu >= MIN_MTU:
                self.peer_mtu = mtu
            self.path_mtu = self.mtu
            self._set_remote(message.dag)
            self._acknowledge_move(now)
            self._restart_path(now)
            if self._mover is not None:
                self._mover.hurry(now)
            self._event(EventKind.PEER_MOVED, message.dag)

    def _restart_path(self, now: float) -> None:
        """One end moved: send what is outstanding again at once, on timers without history."""
        self._recovery.on_path_change(self._snd_next, self.config.initial_rto)
        self._pacer.grant(self._control.cwnd)
        self._rto_at = now + self._rtt.rto if len(self._board) else INFINITY
        self._probe_at = INFINITY
        self._progress_at = self._heard = self._path_since = now
        self._keep_count = 0
        self._persist_count = 0
        if self._persist_at != INFINITY:
            self._persist_at = now
