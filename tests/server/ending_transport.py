"""``remsvc`` whose gRPC server ends on SIGUSR1, without the server having been asked to stop.

Put before a server's command line: ``python ending_transport.py python -m remsvc serve ...``.
"""

from __future__ import annotations

import asyncio
import signal
import sys
from typing import Any

import grpc.aio

from remsvc.__main__ import main

create_server = grpc.aio.server


def create_ending_server(*arguments: Any, **options: Any) -> grpc.aio.Server:
    loop = asyncio.get_running_loop()
    server = create_server(*arguments, **options)
    loop.add_signal_handler(signal.SIGUSR1, lambda: asyncio.ensure_future(server.stop(None)))
    return server


if __name__ == "__main__":
    grpc.aio.server = create_ending_server
    sys.argv = ["remsvc", *sys.argv[sys.argv.index("serve") :]]
    main()
