"""Durable jobs against a bare ``posix_spawn`` loop, and what watching them costs.

    python benchmarks/durable_jobs.py [--jobs 300] [--rounds 5]

Prints, measured in one run: jobs from create to result per second, one after another and 32 at
once, as ratios to the bare loop; how long after it was written a watcher sees the first byte; the
rate of one job's 1 GB through a watch, with the memory of server and supervisor; the memory and time
of 1,000 running jobs with 1,000 watches.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path

import grpc.aio

from remsvc_proto.remsvc.jobs.v1 import jobs_pb2, jobs_pb2_grpc


def bare(count: int) -> float:
    """Commands per second of a loop that only spawns and reaps ``/bin/sh -c true``."""
    started = time.perf_counter()
    for _ in range(count):
        os.waitpid(os.posix_spawn("/bin/sh", ["/bin/sh", "-c", "true"], os.environ), 0)
    return count / (time.perf_counter() - started)


class Server:
    """A real server in a directory of its own."""

    def __init__(self, folder: str) -> None:
        config = Path(folder, "server.ini")
        config.write_text("[jobs]\nmax_running = 2000\n[server]\nport = 0\n[log]\nlevel = warning\n")
        command = [sys.executable, "-m", "remsvc", "serve", "--config", str(config), "--state-dir", folder]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        assert self.process.stdout is not None
        self.target = self.process.stdout.readline().removeprefix("listening on ").strip()

    def memory(self) -> tuple[int, int]:
        """Resident kilobytes of the server and of its supervisor."""
        supervisor = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()[0]
        return tuple(
            int(Path(f"/proc/{pid}/status").read_text().split("VmRSS:")[1].split()[0])
            for pid in (self.process.pid, supervisor)
        )  # type: ignore[return-value]

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Jobs:
    """The job service of a server."""

    def __init__(self, channel: grpc.aio.Channel) -> None:
        self.stub = jobs_pb2_grpc.JobServiceStub(channel)

    async def create(self, text: str, **spec: object) -> str:
        request = jobs_pb2.CreateJobRequest(
            request_id=uuid.uuid4().hex, spec=jobs_pb2.JobSpec(shell_command=text, **spec)
        )
        return (await self.stub.CreateJob(request)).id

    async def run(self, text: str) -> None:
        """Create a job and watch it to its end, which must be success."""
        request = jobs_pb2.WatchJobRequest(id=await self.create(text))
        events = [event async for event in self.stub.WatchJob(request)]
        assert events[-1].job.state == jobs_pb2.SUCCEEDED, events[-1]

    async def one_after_another(self, count: int) -> float:
        started = time.perf_counter()
        for _ in range(count):
            await self.run("true")
        return count / (time.perf_counter() - started)

    async def at_once(self, count: int, width: int) -> float:
        room = asyncio.Semaphore(width)

        async def one() -> None:
            async with room:
                await self.run("true")

        started = time.perf_counter()
        await asyncio.gather(*(one() for _ in range(count)))
        return count / (time.perf_counter() - started)

    async def first_bytes(self, count: int) -> list[float]:
        """Seconds from a write to its arrival at a watcher that was there before."""
        delays = []
        text = f"for i in $(seq {count}); do sleep 0.02; date +%s.%N; done"
        async for event in self.stub.WatchJob(jobs_pb2.WatchJobRequest(id=await self.create(text))):
            now = time.time()
            if event.WhichOneof("event") == "stdout":
                delays.append(now - float(event.stdout.data.split()[-1]))
        return delays

    async def gigabyte(self) -> float:
        """MB per second of one job's 1 GB."""
        job = await self.create("head -c 1000000000 /dev/zero", output_limit=1 << 30)
        started, size = time.perf_counter(), 0
        async for event in self.stub.WatchJob(jobs_pb2.WatchJobRequest(id=job)):
            size += len(event.stdout.data)
        assert size == 1_000_000_000
        return size / 1e6 / (time.perf_counter() - started)

    async def crowd(self, count: int, server: Server) -> None:
        """Many running jobs, each watched."""
        before = server.memory()
        started = time.perf_counter()
        jobs = await asyncio.gather(*(self.create("echo up; sleep 600") for _ in range(count)))
        up = 0

        async def watch(job: str) -> None:
            nonlocal up
            async for event in self.stub.WatchJob(jobs_pb2.WatchJobRequest(id=job)):
                up += event.WhichOneof("event") == "stdout"

        watches = [asyncio.ensure_future(watch(job)) for job in jobs]
        while up < count:  # noqa: ASYNC110  a hundredth of a second does not matter here
            await asyncio.sleep(0.01)
        seconds = time.perf_counter() - started
        after = server.memory()
        grown = [(b - a) / count for a, b in zip(before, after, strict=True)]
        print(
            f"{count} running and watched after {seconds:.1f} s: "
            f"{grown[0]:.1f} kB each in the server, {grown[1]:.1f} kB in the supervisor"
        )
        await asyncio.gather(
            *(self.stub.CancelJob(jobs_pb2.CancelJobRequest(id=job, kill=True)) for job in jobs)
        )
        await asyncio.gather(*watches)


async def measure(server: Server, arguments: argparse.Namespace) -> None:
    options = [("grpc.max_receive_message_length", -1)]
    async with grpc.aio.insecure_channel(server.target, options=options) as channel:
        jobs = Jobs(channel)
        await jobs.run("true")
        ratios: dict[str, list[float]] = {"one after another": [], "32 at once": []}
        for _ in range(arguments.rounds):
            reference = bare(arguments.jobs)
            one = await jobs.one_after_another(arguments.jobs)
            many = await jobs.at_once(arguments.jobs, 32)
            print(f"bare {reference:6.0f}/s  one after another {one:5.0f}/s  32 at once {many:5.0f}/s")
            ratios["one after another"].append(one / reference)
            ratios["32 at once"].append(many / reference)
        for name, values in ratios.items():
            print(f"{name}: median ratio to the bare loop {statistics.median(values):.2f}")
        delays = sorted(await jobs.first_bytes(300))
        print(
            f"first byte seen after {statistics.median(delays) * 1000:.1f} ms (median), "
            f"{delays[int(len(delays) * 0.99)] * 1000:.1f} ms (99 %)"
        )
        rate = await jobs.gigabyte()
        memory = server.memory()
        print(
            f"1 GB through a watch: {rate:.0f} MB/s; server {memory[0] / 1000:.0f} MB, "
            f"supervisor {memory[1] / 1000:.0f} MB"
        )
        await jobs.crowd(1000, server)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--jobs", type=int, default=300)
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(folder)
        try:
            asyncio.run(measure(server, arguments))
        finally:
            server.stop()


if __name__ == "__main__":
    main()
