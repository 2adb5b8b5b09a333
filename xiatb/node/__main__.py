"""`python -m xiatb.node NODE.json`: runs one node process in the present network namespace.

When the node works, a JSON line `{"ready": true, ...}` goes to the descriptor in the environment
variable XIATB_READY_FD, if that is set; when it cannot start, `{"ready": false, "error": "..."}`.
SIGTERM and SIGINT end it in good order. Exit codes as in xiatb.errors.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from xiatb.errors import XiatbError
from xiatb.node.config import NodeConfig, load_config
from xiatb.node.process import NodeProcess

READY_FD = "XIATB_READY_FD"
log = logging.getLogger("xiatb.node")


def _start_log(config: NodeConfig) -> None:
    handler = logging.FileHandler(config.log_path, encoding="utf-8")
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.addHandler(handler)
    log.propagate = False
    log.setLevel(os.environ.get("XIATB_LOG", "INFO"))
    logging.getLogger("asyncio").addHandler(handler)


def _report(message: dict[str, object]) -> None:
    """Tells whoever started us; a descriptor that is not there is no reason to fail."""
    text = os.environ.pop(READY_FD, "")
    if not text.isdigit():
        return
    try:
        with os.fdopen(int(text), "wb") as stream:
            stream.write(json.dumps(message).encode() + b"\n")
    except OSError as error:
        log.warning("%s=%s: %s", READY_FD, text, error)


async def _run(config: NodeConfig) -> None:
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, ended.set)
    node = NodeProcess(config, loop)
    try:
        await node.start()
        _report({"ready": True, "name": config.name, "hid": str(node.hid), "pid": os.getpid()})
        await ended.wait()
    finally:
        node.close()


def main(argv: list[str]) -> int:
    """Runs the node of the configuration file that `argv` names; returns the exit code."""
    if len(argv) != 2:
        sys.stderr.write("usage: python -m xiatb.node NODE.json\n")
        return 2
    return run_file(Path(argv[1]))


def run_file(path: Path) -> int:
    """Runs the node of a configuration file until it is told to end; returns the exit code."""
    try:
        config = load_config(path)
        config.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        _start_log(config)
        asyncio.run(_run(config))
    except XiatbError as error:
        for line in [error.message, *getattr(error, "problems", [])]:
            log.error("%s", line)
        _report({"ready": False, "error": error.message})
        sys.stderr.write(f"xiatb.node: {error.message}\n")
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv))
