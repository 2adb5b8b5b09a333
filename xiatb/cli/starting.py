"""Starting a lab from a verb: what `up` and `demo` have in common."""

from __future__ import annotations

from xiatb.cli.labs import require_root
from xiatb.cli.progress import UpProgress
from xiatb.cli.supervise import extensions
from xiatb.lab import doctor, launch
from xiatb.lab.plan import Plan


def start_lab(plan: Plan, *, quiet: bool) -> None:
    """Check that this host can serve `plan`, bring its lab up and return when it is ready.

    Raises HostNotAbleError, LabStateError, or what the supervisor failed with; an interruption rolls back.
    """
    require_root()
    doctor.require(plan, extensions(plan)[0])
    with UpProgress(f"up {plan.lab}", quiet=quiet) as progress:
        launch.start(plan, launch.supervise_command(), progress.event)
