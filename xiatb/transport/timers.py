"""The timers of a stream: what happens when each runs out."""

from __future__ import annotations

from xiatb.transport.connection import INFINITY, State
from xiatb.transport.errors import TimedOutError
from xiatb.transport.output import OutputSide
from xiatb.transport.packets import Out
from xiatb.transport.recovery import Phase


class TimerSide(OutputSide):
    """Acknowledgement, pacing, loss, probe, time-out, window probe, keep-alive and state timers."""

    def tick(self, now: float) -> None:
        """Act on every timer that has run out; call `transmit` afterwards."""
        if now >= self._ack_at:
            self._ack_now = True
            self._ack_at = INFINITY
        if now >= self._pace_at:
            self._pace_at = INFINITY
        if now >= self._recovery.reorder_at:
            self._recovery.look_for_losses(now, self._snd_next)
        if now >= self._probe_at:
            self._tail_probe(now)
        if now >= self._rto_at:
            self._timeout(now)
        if now >= self._persist_at:
            self._persist(now)
        if now >= self._keep_at:
            self._keep_alive(now)
        if now >= self._state_at:
            self._state_timeout(now)

    def _tail_probe(self, now: float) -> None:
        """Nothing was acknowledged for two round trips: send new data or the last segment again."""
        self._probe_at = INFINITY
        board, recovery = self._board, self._recovery
        if recovery.phase is not Phase.OPEN or not len(board):
            return
        out: list[Out] = []
        resent = False
        self.burst = 0
        if recovery.sampler is not None:
            recovery.sampler.mark(now, board)
        if not self._send_new(now, 1, self.mss, out):
            last = board.last(self.mss)
            if last is None:
                return
            self._resend(last, now, out)
            resent = True
        self._urgent += out
        recovery.probing(now, self._snd_next, resent)
        self._rto_at = now + self._rtt.rto

    def _timeout(self, now: float) -> None:
        """RFC 6298 5.4 to 5.7, and giving up."""
        self._rto_at = self._probe_at = INFINITY
        if not len(self._board):
            return
        if now - self._progress_at >= self.config.give_up:
            self._finish(
                TimedOutError(f"{self.remote_sid} acknowledged nothing for {self.config.give_up:g} s")
            )
            return
        self._recovery.on_timeout(now, self._snd_next)
        self._rto_at = now + self._rtt.rto

    def _persist(self, now: float) -> None:
        """Probe a closed window, ever more slowly; a peer that is gone for good is noticed as well."""
        config = self.config
        if now - self._heard >= max(config.give_up, config.persist_max * 3):
            self._finish(TimedOutError(f"{self.remote_sid} left its window closed and fell silent"))
            return
        self._persist_count += 1
        self._urgent.append(self._window_probe(now))
        wait = self._rtt.base_rto * (1 << min(self._persist_count, 10))
        self._persist_at = now + min(wait, config.persist_max)

    def _keep_alive(self, now: float) -> None:
        """Probe a peer that has been silent; end the connection when it stays so."""
        config = self.config
        silent = now - self._heard
        if silent < config.keepalive_idle:
            self._keep_count = 0
            self._keep_at = self._heard + config.keepalive_idle
            return
        if self._keep_count >= config.keepalive_probes:
            self._urgent.append(self._reset())
            self._finish(TimedOutError(f"{self.remote_sid} has been silent for {silent:.1f} s"))
            return
        self._keep_count += 1
        self._keep_at = now + config.keepalive_interval
        self._urgent.append(self._window_probe(now))

    def _state_timeout(self, now: float) -> None:
        """Connect retransmission, the end of TIME_WAIT, or a peer that never closes its side."""
        self._state_at = INFINITY
        if self.state in (State.SYN_SENT, State.SYN_RCVD):
            if now - self.opened_at >= self.config.connect_timeout:
                self._finish(TimedOutError(f"{self.remote_sid} did not answer the connect"))
                return
            self._rtt.back_off()
            self._urgent.append(self._syn(now))
            self._state_at = min(now + self._rtt.rto, self.opened_at + self.config.connect_timeout)
        elif self.state is State.TIME_WAIT:
            self._finish(None)
        else:
            self._urgent.append(self._reset())
            self._finish(TimedOutError(f"{self.remote_sid} did not close its side"))
