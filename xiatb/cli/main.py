"""The command `xiatb`: finds its verbs by listing the modules beside this one.

A verb is a module with a module-level `command` (a click.Command). It turns flags into one call and formats
what comes back. Errors leave as `XiatbError` and are printed here, on standard error, with their exit code.
"""

from __future__ import annotations

import importlib
import os
import pkgutil
import signal
import sys
from types import FrameType

import click

import xiatb.cli
from xiatb.errors import InterruptedByUserError, InvalidFileError, XiatbError
from xiatb.lab.source import did_you_mean

_EPILOG = "Exit codes: 0 ok, 1 failed, 2 usage or invalid file, 3 a check failed, 4 host not able, 5 no such lab or already up, 124 timeout, 130 interrupted."  # noqa: E501


class Verbs(click.Group):
    """Loads a verb's module when it is asked for."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        """Names of all verbs that can be loaded, sorted."""
        names = [module.name for module in pkgutil.iter_modules(xiatb.cli.__path__)]
        return sorted(_verb(name) for name in names if _load(name) is not None)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The verb, or None; dashes and a trailing underscore in module names are bridged."""
        plain = cmd_name.replace("-", "_")
        known = {module.name for module in pkgutil.iter_modules(xiatb.cli.__path__)}
        for name in (plain, f"{plain}_", f"{plain}_verb"):
            if name in known:
                found = _load(name)
                if found is not None:
                    return found
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Adds the nearest verb to the refusal of an unknown one."""
        try:
            return super().resolve_command(ctx, args)
        except click.UsageError as error:
            hint = did_you_mean(args[0], self.list_commands(ctx))
            more = f" {hint[0].upper()}{hint[1:]}" if hint.startswith("did you") else ""
            raise click.UsageError(f"no verb {args[0]!r}.{more}", ctx) from error


def _verb(module: str) -> str:
    return module.removesuffix("_verb").rstrip("_").replace("_", "-")


def _load(module: str) -> click.Command | None:
    found = getattr(importlib.import_module(f"xiatb.cli.{module}"), "command", None)
    return found if isinstance(found, click.Command) else None


@click.command(cls=Verbs, epilog=_EPILOG, context_settings={"help_option_names": ["-h", "--help"]})
@click.option("--debug", is_flag=True, help="Show tracebacks.")
@click.version_option(package_name="xiatb", prog_name="xiatb")
def cli(debug: bool) -> None:
    """Emulation testbed for XIA, with live migration of guests over XIA."""


def main(argv: list[str] | None = None) -> int:
    """Run a command line (default: sys.argv); the exit code. The console script's entry."""
    arguments = sys.argv[1:] if argv is None else argv
    debug = "--debug" in arguments[:1]
    signal.signal(signal.SIGTERM, _terminate)
    try:
        result = cli.main(arguments, prog_name="xiatb", standalone_mode=False)
    except click.exceptions.Exit as error:
        return error.exit_code
    except click.ClickException as error:
        error.show()
        return error.exit_code
    except (click.Abort, KeyboardInterrupt):
        return _show(InterruptedByUserError("interrupted"))
    except XiatbError as error:
        if debug:
            raise
        return _show(error)
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except PermissionError as error:
        if debug:
            raise
        return _show(XiatbError(str(error), hint="run it as root: sudo xiatb ..."))
    except Exception as error:  # noqa: BLE001  a fault of ours: the user gets its name, --debug the traceback
        if debug:
            raise
        hint = "this is a bug of xiatb; xiatb --debug ... shows where"
        return _show(XiatbError(f"internal error: {type(error).__name__}: {error}", hint=hint))
    return result if isinstance(result, int) else 0


def _terminate(_number: int, _frame: FrameType | None) -> None:
    raise KeyboardInterrupt


def _show(error: XiatbError) -> int:
    if isinstance(error, InvalidFileError):
        for problem in error.problems:
            click.echo(problem, err=True)
    click.echo(f"xiatb: {error.message}", err=True)
    if error.hint:
        click.echo(f"  hint: {error.hint}", err=True)
    return error.exit_code


if __name__ == "__main__":
    sys.exit(main())
