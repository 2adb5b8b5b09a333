"""The migration daemon's process: `python -m xiatb.migration.daemon CONFIG.json`, run in a hypervisor's
namespaces.

When it is ready it writes one JSON line `{"ready": true, "sid": ...}` to the file descriptor named by the
environment variable XIATB_READY_FD, if set. It ends in order on SIGTERM and SIGINT.
"""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import sys
from pathlib import Path

from xiatb.errors import UsageError, XiatbError
from xiatb.identity.keys import KeyPair
from xiatb.migration.carrier import carrier_for
from xiatb.migration.config import DaemonConfig, load
from xiatb.migration.controlsocket import DaemonSocket
from xiatb.migration.service import MigrationService
from xiatb.wire.xid import XidType

READY = "XIATB_READY_FD"
log = logging.getLogger("xiatb.migration")


async def serve(config: DaemonConfig) -> None:
    """Run the daemon until a signal ends it; raises XiatbError when it cannot start."""
    key = KeyPair.from_pem_file(config.key)
    service = MigrationService(config, key, carrier_for(config, key))
    control = DaemonSocket(config.socket, service)
    over = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, over.set)
    await service.start()
    await control.start()
    _tell_ready({"ready": True, "sid": str(key.xid(XidType.SID)), "pid": os.getpid()})
    log.info("%s: ready", config.host)
    await over.wait()
    log.info("%s: ending", config.host)
    await service.stop()
    await control.stop()


def _tell_ready(message: dict[str, object]) -> None:
    descriptor = os.environ.get(READY)
    if descriptor is None:
        return
    with os.fdopen(int(descriptor), "wb") as ready:
        ready.write(json.dumps(message).encode() + b"\n")


def main(arguments: list[str]) -> int:
    """Start from the command line; the exit code is 0 after an orderly end."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s.%(msecs)03d %(levelname)s %(message)s",
                        datefmt="%H:%M:%S", stream=sys.stderr)  # fmt: skip
    try:
        if len(arguments) != 1:
            raise UsageError("usage: python -m xiatb.migration.daemon CONFIG.json")
        asyncio.run(serve(load(Path(arguments[0]))))
    except XiatbError as error:
        log.error("%s", error.message)
        _tell_ready({"ready": False, "message": error.message, "hint": error.hint})
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
