"""The one exception tree of xiatb.

Every error that a user can meet derives from `XiatbError`; it carries the process exit
code that the command line returns and, where one helps, a hint on what to do next.
Exit codes: 0 ok, 1 failed, 2 usage or invalid file, 3 a check failed, 4 host not able,
5 no such lab or already up, 124 timeout, 130 interrupted.
"""

from __future__ import annotations


class XiatbError(Exception):
    """An operation failed.

    `message` says what and where; `hint` (may be empty) says what to do about it.
    """

    exit_code: int = 1

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class WireError(XiatbError, ValueError):
    """Bytes or text that are not a valid XIA object (packet, DAG, XID, option)."""


class IdentityError(XiatbError):
    """A key file, signature or key-to-XID binding is not acceptable."""


class TransportError(XiatbError):
    """A transport connection failed or was used wrongly."""


class InvalidFileError(XiatbError):
    """A file given by the user has errors; `problems` lists all of them, one a line."""

    exit_code = 2

    def __init__(self, message: str, problems: list[str] | None = None, *, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.problems = problems or []


class UsageError(XiatbError):
    """The command line asks for something that makes no sense."""

    exit_code = 2


class CheckFailedError(XiatbError):
    """A check, assertion or verification did not hold."""

    exit_code = 3


class HostNotAbleError(XiatbError):
    """This host lacks something that the operation needs."""

    exit_code = 4


class LabStateError(XiatbError):
    """There is no such lab, or it is already up."""

    exit_code = 5


class DeadlineError(XiatbError):
    """A condition did not come true in time; the message names what is missing."""

    exit_code = 124


class InterruptedByUserError(XiatbError):
    """The user interrupted the operation; what it had made was rolled back."""

    exit_code = 130
