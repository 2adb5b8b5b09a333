"""What the steps of a scenario do, each by the means of the verb of the same name."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from xiatb.errors import DeadlineError, XiatbError
from xiatb.experiments.scenario.schema import CaptureStart, Exec, Link, Ping, Step, Wait
from xiatb.lab.client import ControlClient, LabClient
from xiatb.lab.convergence import asker, wait_for
from xiatb.lab.enter import entry
from xiatb.lab.linkparams import PARAMETERS
from xiatb.lab.locate import address_of
from xiatb.lab.paths import LabPaths
from xiatb.lab.plan import Plan
from xiatb.lab.state import read_state

Json = dict[str, Any]
Tell = Callable[..., None]
"""(event, **fields): something has happened in this step."""

START = "start"
_LINK_S, _CAPTURE_S = 60.0, 30.0
_KILL_S = 3.0
_KEPT = 65536
"""characters of a program's output in the results; all of it is in the files"""


class Actions:
    """Performs steps in one lab, each in a thread of its own; files go to `directory`."""

    def __init__(self, plan: Plan, directory: Path) -> None:
        self._plan = plan
        self._paths = LabPaths(plan.lab)
        self._directory = directory
        self._lock = threading.Lock()
        self._programs: list[subprocess.Popen[bytes]] = []
        self._captures: dict[str, str] = {}
        self._over = threading.Event()

    def perform(self, name: str, step: Step, tell: Tell) -> Json:
        """Do what a step says and return its results, see schema.RESULTS; tells "start" when it is under way.

        Raises XiatbError."""
        action = getattr(step, step.action)
        result: Json = getattr(self, f"_{step.action}")(name, action, tell)
        return result

    def finish(self) -> None:
        """End programs that still run and captures that nobody stopped. May be called twice."""
        self._over.set()
        with self._lock:
            programs, self._programs = self._programs, []
            captures, self._captures = self._captures, {}
        for program in programs:
            _signal(program, signal.SIGTERM)
        for program in programs:
            try:
                program.wait(_KILL_S)
            except subprocess.TimeoutExpired:
                _signal(program, signal.SIGKILL)
                program.wait()
        for number in captures.values():
            self._ask("capture_stop", _CAPTURE_S, capture=number)

    def _ask(self, op: str, timeout: float, **params: Any) -> Json:
        with LabClient(self._plan.lab, timeout=timeout) as client:
            return client.request(op, params=params)

    def _link_set(self, _name: str, change: Any, tell: Tell) -> Json:
        written = change.model_dump(exclude_none=True)
        values = {name: written[name] for name in PARAMETERS if name in written}
        a, b = change.link
        where = {"from": change.source} if change.source else {}
        asked = {"a": a, "b": b, "set": values, "replace": change.replace, **where}
        tell(START)
        return _shown(self._ask("link_set", _LINK_S, **asked))

    def _link_down(self, _name: str, link: Link, tell: Tell) -> Json:
        tell(START)
        return _shown(self._ask("link_state", _LINK_S, a=link[0], b=link[1], up=False))

    def _link_up(self, _name: str, link: Link, tell: Tell) -> Json:
        tell(START)
        return _shown(self._ask("link_state", _LINK_S, a=link[0], b=link[1], up=True))

    def _ping(self, _name: str, ping: Ping, tell: Tell) -> Json:
        dag = address_of(self._paths, self._plan, ping.to)
        params = {
            "dag": dag, "count": ping.count, "interval": ping.interval / 1e9, "timeout": ping.timeout / 1e9,
            "size": ping.size,
        }  # fmt: skip
        silence = (ping.interval + ping.timeout) / 1e9 + 5
        summary: Json = {"sent": 0, "received": 0}
        tell(START)
        with ControlClient(self._paths.control(ping.source)) as client:
            for event in client.stream("ping", timeout=silence, params=params):
                fields = {key: value for key, value in event.items() if key not in ("event", "id")}
                if event["event"] == "result":
                    summary = fields
                else:
                    tell(event["event"], **fields)
        sent, lost = summary["sent"], summary["sent"] - summary["received"]
        return {**summary, "lost": lost, "lost_percent": 100 * lost / sent if sent else 0}

    def _exec(self, name: str, program: Exec, tell: Tell) -> Json:
        if program.on in {guest.name for guest in self._plan.guests}:
            return self._exec_in_guest(name, program, tell)
        argv, environment = entry(self._paths, read_state(self._paths), program.on, program.command)
        environment["XIATB_RUN"] = str(self._directory)
        files = [self._directory / f"{name}.{stream}" for stream in ("stdout", "stderr")]
        with open(files[0], "wb") as out, open(files[1], "wb") as err, self._lock:
            if self._over.is_set():
                raise XiatbError("the scenario is over")
            child = subprocess.Popen(
                argv,
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=environment,
                start_new_session=True,
            )
            self._programs.append(child)
        tell(START, pid=child.pid)
        limit = None if program.timeout is None else program.timeout / 1e9
        try:
            code = child.wait(limit)
        except subprocess.TimeoutExpired as error:
            _signal(child, signal.SIGKILL)
            child.wait()
            what = f"{program.command[0]} on {program.on}"
            raise DeadlineError(f"{what}: not done after {limit:g} s") from error
        return _program_results(code, files)

    def _exec_in_guest(self, name: str, program: Exec, tell: Tell) -> Json:
        files = {stream: self._directory / f"{name}.{stream}" for stream in ("stdout", "stderr")}
        limit = {} if program.timeout is None else {"limit": program.timeout / 1e9}
        params = {"guest": program.on, "argv": program.command, **limit}
        code = 1
        tell(START)
        client = LabClient(self._plan.lab)
        with client, open(files["stdout"], "wb") as out, open(files["stderr"], "wb") as err:
            for event in client.stream("guest_exec", params=params):
                if event["event"] == "output":
                    target = err if event["stream"] == "stderr" else out
                    target.write(event["data"].encode("latin-1"))
                elif event["event"] == "result":
                    code = int(event["returncode"])
        return _program_results(code, list(files.values()))

    def _capture(self, name: str, capture: CaptureStart, tell: Tell) -> Json:
        file = self._directory / f"{name}.pcapng"
        params: Json = {"node": capture.on, "file": str(file), "snaplen": capture.snaplen or 0}
        if capture.port is not None:
            params["port"] = f"eth{capture.port}" if capture.port.isdigit() else capture.port
        started = self._ask("capture_start", _CAPTURE_S, **params)
        with self._lock:
            self._captures[name] = started["capture"]
        tell(START)
        return {"file": str(file)}

    def _capture_stop(self, _name: str, capture: str, tell: Tell) -> Json:
        with self._lock:
            number = self._captures.pop(capture, None)
        if number is None:
            raise XiatbError(f"capture {capture} does not run")
        tell(START)
        return self._ask("capture_stop", _CAPTURE_S, capture=number)

    def _migrate(self, _name: str, parameters: Json, tell: Tell) -> Json:
        tell(START)
        result: Json = {}
        with LabClient(self._plan.lab) as client:
            for event in client.stream("migrate", params=parameters):
                fields = {key: value for key, value in event.items() if key not in ("event", "id")}
                if event["event"] == "result":
                    result = fields
                elif event["event"] == "phase":
                    tell(str(fields.pop("phase")), **fields)
        return result

    def _wait(self, _name: str, wait: Wait, tell: Tell) -> Json:
        def pause(seconds: float) -> None:
            if self._over.wait(seconds):
                raise XiatbError("the scenario is over")

        tell(START)
        wait_for(self._plan, asker(self._paths), wait.condition, timeout=wait.timeout / 1e9, pause=pause)
        return {}


def _signal(program: subprocess.Popen[bytes], number: int) -> None:
    """To a program and all that it started; nothing when it has been waited for."""
    if program.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, number)


def _shown(link: Json) -> Json:
    return {"state": link["state"], "backend": link["backend"], "link": link}


def _program_results(code: int, files: list[Path]) -> Json:
    """Exit code (128 + n after signal n) and the beginning of what it wrote."""
    out, err = (file.read_bytes()[:_KEPT].decode(errors="replace") for file in files)
    return {"returncode": code if code >= 0 else 128 - code, "stdout": out, "stderr": err}

