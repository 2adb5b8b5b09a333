"""Running a scenario in a lab that is up: steps when they are due, events on record, checks at the end.

The record: events.jsonl (one JSON object a line, `t` seconds since the steps began and `monotonic_ns`, the
clock that all nodes share), result.json (steps, checks, what failed), manifest.json (what is needed to repeat
it), copies of scenario and topology, captures and programs' output under their steps' names.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from xiatb.errors import CheckFailedError, DeadlineError, XiatbError
from xiatb.experiments.rundir import RunDirectory, versions
from xiatb.experiments.scenario.actions import Actions
from xiatb.experiments.scenario.checks import Check, result_at
from xiatb.experiments.scenario.reading import END, START, Scenario
from xiatb.experiments.scenario.schema import Step
from xiatb.lab.client import LabClient
from xiatb.lab.plan import Plan
from xiatb.lab.runner import Runner

Json = dict[str, Any]
_LAST = 10.0
"""seconds for steps to end once the run is over"""


@dataclass
class Outcome:
    """How a run ended: results of the steps in order, checks that do not hold, the error that ended it."""

    lab: str
    seed: int
    steps: list[Json] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    error: XiatbError | None = None

    @property
    def passed(self) -> bool:
        """Whether everything was done and is as expected."""
        return self.error is None and not self.failures

    def to_json(self) -> Json:
        """For result.json."""
        error = None if self.error is None else self.error.message
        return {
            "lab": self.lab, "seed": self.seed, "passed": self.passed, "error": error,
            "failures": self.failures, "steps": self.steps,
        }  # fmt: skip


class Run:
    """One run of a scenario. `say` gets a line for people whenever a step ends."""

    def __init__(
        self, scenario: Scenario, plan: Plan, directory: RunDirectory, say: Callable[[str], None]
    ) -> None:
        self._scenario = scenario
        self._plan = plan
        self._directory = directory
        self._say = say
        self._actions = Actions(plan, directory.path)
        self._changed = threading.Condition()
        self._happened: dict[tuple[str, str], int] = {}
        self._results: dict[str, Json] = {}
        self._error: XiatbError | None = None
        self._over = False
        self._begin = 0

    def run(self, runner: Runner) -> Outcome:
        """Do all steps and write the record. A step that fails ends the run; a check that fails does not."""
        outcome = Outcome(self._plan.lab, self._plan.seed)
        self._begin = time.monotonic_ns()
        self._record = open(self._directory.path / "events.jsonl", "w", buffering=1)  # noqa: SIM115  closed below
        try:
            self._all_steps()
        finally:
            self._give_up(None)
            self._actions.finish()
            with self._changed:  # a step that does not end may still want to write
                self._record.close()
            outcome.error = self._error
            self._judge(outcome)
            self._write(outcome, runner)
        return outcome

    # Steps

    def _all_steps(self) -> None:
        names, steps = self._scenario.names, self._scenario.file.steps
        threads = [
            threading.Thread(target=self._step, args=(number,), name=name, daemon=True)
            for number, name in enumerate(names)
        ]
        for thread in threads:
            thread.start()
        end = self._begin + self._scenario.file.deadline
        ahead = [name for name, step in zip(names, steps, strict=True) if not _in_background(step)]
        with self._changed:
            done = self._changed.wait_for(
                lambda: self._over or all(name in self._results for name in ahead),
                (end - time.monotonic_ns()) / 1e9,
            )
            late = [name for name in ahead if name not in self._results]
        if not done:
            limit = self._scenario.file.deadline / 1e9
            self._give_up(DeadlineError(f"after {limit:g} s these steps were not done: {', '.join(late)}"))
        self._actions.finish()
        for thread in threads:
            thread.join(_LAST)

    def _step(self, number: int) -> None:
        name, step = self._scenario.names[number], self._scenario.file.steps[number]
        if not self._await(number):
            return
        begin = time.monotonic_ns()
        try:
            results = self._actions.perform(name, step, lambda event, **more: self._emit(name, event, more))
        except XiatbError as error:
            results = {"error": error.message}
            if not self._over:
                self._give_up(type_of(error, f"{name}: {error.message}"))
        except Exception as error:  # noqa: BLE001  a fault of ours: the run ends and says so
            results = {"error": repr(error)}
            self._give_up(XiatbError(f"{name}: internal error: {error!r}"))
        results["seconds"] = round((time.monotonic_ns() - begin) / 1e9, 6)
        self._emit(name, END, {"error": results["error"]} if "error" in results else {})
        with self._changed:
            self._results[name] = results
            self._changed.notify_all()
        self._say(f"{(time.monotonic_ns() - self._begin) / 1e9:8.3f} s  {name} ({step.action}) done")

    def _await(self, number: int) -> bool:
        """Until a step is due; False when it never will be."""
        step = self._scenario.file.steps[number]
        trigger = self._trigger(number)
        with self._changed:
            if trigger is not None:
                ended = (trigger[0], END)
                self._changed.wait_for(
                    lambda: self._over or trigger in self._happened or ended in self._happened
                )
                if trigger not in self._happened:
                    self._skip(number, trigger)
                    return False
            due = (self._begin if trigger is None else self._happened[trigger]) + (step.at or 0) + step.plus
            self._changed.wait_for(lambda: self._over, max(0, due - time.monotonic_ns()) / 1e9)
            return not self._over

    def _trigger(self, number: int) -> tuple[str, str] | None:
        """The event that a step waits for; None: the beginning."""
        names, steps = self._scenario.names, self._scenario.file.steps
        step = steps[number]
        if step.after is not None:
            name, _, event = step.after.partition("/")
            return name, event or END
        if step.at is not None or number == 0:
            return None
        return names[number - 1], START if _in_background(steps[number - 1]) else END

    def _skip(self, number: int, trigger: tuple[str, str]) -> None:
        if not self._over:
            name = self._scenario.names[number]
            self._give_up(XiatbError(f"{name}: {trigger[0]} ended without the event {trigger[1]!r}"))

    def _emit(self, step: str, event: str, fields: Json) -> None:
        now = time.monotonic_ns()
        stamp = {"t": round((now - self._begin) / 1e9, 6), "monotonic_ns": now, "step": step, "event": event}
        with self._changed:
            if not self._record.closed:
                self._record.write(json.dumps({**fields, **stamp}) + "\n")
            self._happened.setdefault((step, event), now)
            self._changed.notify_all()

    def _give_up(self, error: XiatbError | None) -> None:
        with self._changed:
            self._over = True
            self._error = self._error or error
            self._changed.notify_all()

    # The end

    def _judge(self, outcome: Outcome) -> None:
        for name, step in zip(self._scenario.names, self._scenario.file.steps, strict=True):
            results = self._results.get(name)
            shown: Json = {"name": name, "action": step.action, "results": results, "checks": []}
            outcome.steps.append(shown)
            if results is None or "error" in results:
                continue
            for key, check in expectations(step).items():
                got = result_at(results, key)
                holds = check.holds(got)
                shown["checks"].append({"of": key, "expected": check.text, "got": got, "holds": holds})
                if not holds:
                    outcome.failures.append(f"{name}: {key} is {got!r}, not {check.text}")

    def _write(self, outcome: Outcome, runner: Runner) -> None:
        scenario, directory = self._scenario, self._directory
        directory.write_json("result.json", outcome.to_json())
        status: Json | None = None
        with contextlib.suppress(XiatbError), LabClient(self._plan.lab) as client:
            status = client.request("status")
        directory.write_json(
            "manifest.json",
            {
                "scenario": str(scenario.path),
                "name": scenario.name,
                "topology": self._plan.topology,
                "variables": scenario.variables,
                "seed": self._plan.seed,
                "begin_monotonic_ns": self._begin,
                "begin_unix_ns": time.time_ns() - (time.monotonic_ns() - self._begin),
                "versions": versions(runner),
                "status": status,
            },
        )
        for source in (scenario.path, scenario.topology.path):
            shutil.copy(source, directory.path / source.name)


def _in_background(step: Step) -> bool:
    return step.exec is not None and step.exec.background


def expectations(step: Step) -> dict[str, Check]:
    """What is checked of a step: what it says, and of a program that it ends with 0 unless it says otherwise
    (or is ended with the scenario)."""
    if step.exec is None or step.exec.background or "returncode" in step.expect:
        return dict(step.expect)
    return {"returncode": Check.parse(0), **step.expect}


def type_of(error: XiatbError, message: str) -> XiatbError:
    """The same kind of error, so with its exit code, with a message that names the step."""
    kind = DeadlineError if isinstance(error, DeadlineError) else XiatbError
    return kind(message, hint=error.hint)


def verdict(outcomes: list[Outcome]) -> XiatbError | None:
    """What the process ends with after all runs: an error of a step first, then checks that failed."""
    for outcome in outcomes:
        if outcome.error is not None:
            return outcome.error
    failures = [failure for outcome in outcomes for failure in outcome.failures]
    return CheckFailedError("checks failed: " + "; ".join(failures[:20])) if failures else None
