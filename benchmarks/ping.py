"""Pings a server every 10 ms until its standard input ends, then prints how long each took, in ms.

A process of its own, so that it is held up neither by the benchmark's other work nor by its garbage
collector. The first line of its input says where the server is; see :class:`benchmarks.server.PingProbe`.
"""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path

from remsvc.client import Client, ConnectionOptions

_PAUSE = 0.01


def main() -> None:
    arguments = json.loads(sys.stdin.readline())
    if arguments["ca_cert"]:
        arguments["ca_cert"] = Path(arguments["ca_cert"])
    over = threading.Event()

    def wait_for_the_end() -> None:
        sys.stdin.read()
        over.set()

    threading.Thread(target=wait_for_the_end, daemon=True).start()
    taken = []
    with Client(ConnectionOptions(**arguments)) as client:
        client.ping()
        while not over.wait(_PAUSE):
            taken.append(client.ping().round_trip * 1000)
    print(json.dumps(taken))


if __name__ == "__main__":
    main()
