"""How long a good client's Ping takes while somebody abuses the server, as a ratio to when nobody does.

    python benchmarks/abuse.py [--seconds 5] [--transport http2|grpc] [--limit KEY=VALUE] [--json] [ABUSE ...]

The server, the hostile peer and the good client are processes of their own, and share the machine's
cores: part of each ratio is the attacker's own need of a core, which on a network it would not take.
All addresses are 127.0.0.1.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import grpc
import psutil

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from tests.attacks.abuses import ABUSES, INSIDE  # noqa: E402

from remsvc_proto import RemSvc_pb2, RemSvc_pb2_grpc  # noqa: E402

_TOKEN = "a-good-client-s-own-token-0123456789"
_CONFIG = f"[server]\nport = 0\n[auth]\ngood = {_TOKEN}\n[log]\nlevel = warning\n"
_METADATA = (("authorization", f"Bearer {_TOKEN}"),)
_ANSWER_SECONDS = 30.0


@contextmanager
def _server(limits: list[str], flags: list[str]) -> Iterator[tuple[psutil.Process, str]]:
    with tempfile.TemporaryDirectory() as directory:
        config = Path(directory, "server.ini")
        config.write_text("\n".join((_CONFIG, "[limits]", *limits)), encoding="utf-8")
        with Path(directory, "log").open("wb") as log:
            command = [sys.executable, "-m", "remsvc", "serve", "--config", str(config)]
            process = subprocess.Popen(
                [*command, "--state-dir", f"{directory}/s", *flags],
                stdout=subprocess.PIPE,
                stderr=log,
            )
        assert process.stdout is not None
        try:
            address = process.stdout.readline().decode().removeprefix("listening on ").strip()
            yield psutil.Process(process.pid), address
        finally:
            process.terminate()
            process.wait(60)
            process.stdout.close()


class GoodClient:
    """Pings with a token, one after another, over one connection that is made again where it broke."""

    def __init__(self, address: str) -> None:
        self._channel = grpc.insecure_channel(address, options=[("grpc.initial_reconnect_backoff_ms", 100)])
        self._stub = RemSvc_pb2_grpc.RemSvcStub(self._channel)

    def pings(self, seconds: float) -> tuple[list[float], int]:
        """How long each took in seconds, and how many failed."""
        took: list[float] = []
        failed = 0
        ends = time.perf_counter() + seconds
        while (began := time.perf_counter()) < ends:
            try:
                self._stub.Ping(RemSvc_pb2.PingMsg(), metadata=_METADATA, timeout=_ANSWER_SECONDS)
            except grpc.RpcError:
                failed += 1
            took.append(time.perf_counter() - began)
            time.sleep(0.002)
        return took, failed

    def close(self) -> None:
        self._channel.close()


def _p99(values: list[float]) -> float:
    return sorted(values)[int(len(values) * 0.99)]


def _measure(
    name: str, inside: bool, seconds: float, limits: list[str], flags: list[str]
) -> dict[str, object]:
    """An abuse of a fresh server, by someone without a token or (``inside``) with one."""
    with _server(limits, flags) as (process, address):
        client = GoodClient(address)
        client.pings(0.5)
        idle, _ = client.pings(seconds)
        memory_before = process.memory_info().rss
        host, _, port = address.rpartition(":")
        command = [sys.executable, "-m", "tests.attacks.abuses", name, host, port, str(seconds + 1)]
        attacker = subprocess.Popen(
            [*command, *([_TOKEN] if inside else [])], cwd=ROOT, stdout=subprocess.PIPE, text=True
        )
        time.sleep(1)
        under, failed = client.pings(seconds)
        memory = process.memory_info().rss
        output, _ = attacker.communicate(timeout=60)
        newcomer = GoodClient(address)
        _, after_failed = newcomer.pings(0.2)
        newcomer.close()
        client.close()
        return {
            "abuse": name + (" (with a token)" if inside else ""),
            "bad_inputs": int(output or 0),
            "idle_p99_ms": round(_p99(idle) * 1000, 2),
            "p99_ms": round(_p99(under) * 1000, 2),
            "longest_ms": round(max(under) * 1000, 2),
            "ratio": round(_p99(under) / _p99(idle), 1),
            "pings": len(under),
            "failed_pings": failed,
            "failed_after": after_failed,
            "crashed": not process.is_running(),
            "memory_growth_mb": round((memory - memory_before) / 1e6, 1),
        }


def main() -> None:
    """Measure, and print a table or JSON lines."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("abuse", nargs="*", choices=[[], *ABUSES], metavar="ABUSE", help=", ".join(ABUSES))
    parser.add_argument("--seconds", type=float, default=5.0, help="for how long each is measured")
    parser.add_argument("--limit", action="append", default=[], metavar="KEY=VALUE", help="for [limits]")
    parser.add_argument("--transport", help="of the server: http2 or grpc")
    parser.add_argument("--json", action="store_true", help="a JSON object a line")
    arguments = parser.parse_args()
    flags = ["--transport", arguments.transport] if arguments.transport else []
    names = arguments.abuse or list(ABUSES)
    for name in names:
        for inside in (False, True) if name in INSIDE else (False,):
            result = _measure(name, inside, arguments.seconds, arguments.limit, flags)
            if arguments.json:
                print(json.dumps(result), flush=True)
            else:
                print(
                    "{abuse:34} ratio {ratio:7}  p99 {p99_ms:8} ms  longest {longest_ms:8} ms"
                    "  idle {idle_p99_ms:6} ms  pings {pings:5}"
                    "  failed {failed_pings:3}+{failed_after}  memory +{memory_growth_mb} MB"
                    "  {bad_inputs} bad inputs".format(**result)
                    + "  CRASHED" * bool(result["crashed"]),
                    flush=True,
                )


if __name__ == "__main__":
    main()
