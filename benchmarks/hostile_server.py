"""What a good client, and its event loop, notice of a hostile server that another client has called.

    python benchmarks/hostile_server.py [--transport http2] [--seconds 2] [--json] [KIND ...]

The good server and the hostile one are processes of their own, and share the machine's cores with the
clients. All addresses are 127.0.0.1. Times are in milliseconds: the longest that one of the good client's
calls took, and the longest by which a timer of the event loop was late.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.client.hostile.answers import KINDS  # noqa: E402
from tests.client.hostile.neighbours import beside, hostile_servers  # noqa: E402

from remsvc.client import ConnectionOptions  # noqa: E402


@contextmanager
def _good_server() -> Iterator[str]:
    with tempfile.TemporaryDirectory() as directory:
        command = [sys.executable, "-m", "remsvc", "serve", "--port", "0", "--state-dir", directory]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        assert process.stdout is not None
        try:
            yield process.stdout.readline().decode().removeprefix("listening on ").strip()
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()


def main() -> None:
    """Measure, and print a line for each kind."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("kind", nargs="*", metavar="KIND", help=", ".join(KINDS))
    parser.add_argument("--transport", default="http2", choices=("http2", "grpc"))
    parser.add_argument("--seconds", type=float, default=2.0, help="the time limit of each hostile call")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    arguments = parser.parse_args()
    with _good_server() as good, hostile_servers() as hostile:
        for kind in arguments.kind or KINDS:
            noticed = asyncio.run(
                beside(
                    ConnectionOptions(hostile[kind], transport=arguments.transport, keepalive=5.0),
                    ConnectionOptions(good, transport=arguments.transport),
                    arguments.seconds,
                )
            )
            result = {
                "kind": kind,
                "longest_wait_ms": round(noticed.longest_wait * 1000, 1),
                "lag_ms": round(noticed.lag * 1000, 1),
                "calls": noticed.calls,
                "hostile_calls_took_s": round(noticed.took, 2),
            }
            if arguments.json:
                print(json.dumps(result), flush=True)
            else:
                print(
                    "{kind:30} wait {longest_wait_ms:6} ms  lag {lag_ms:6} ms  calls {calls:5}"
                    "  over after {hostile_calls_took_s} s".format(**result),
                    flush=True,
                )


if __name__ == "__main__":
    main()
