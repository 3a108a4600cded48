"""``remsvc jobs logs``: what a job has printed."""

from __future__ import annotations

import base64
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING

from remsvc.cli.job_output import ConnectionNotice, OutputWriter, binary, own_streams
from remsvc.cli.jobs.client import job_client
from remsvc.cli.options import Argument, Choice, Option, switch
from remsvc.cli.terminal import print_json
from remsvc.cli.verb import verb
from remsvc.client.jobs import Job, OutputChunk

if TYPE_CHECKING:
    from remsvc.client import ConnectionOptions

_STREAMS = {"out": "stdout", "err": "stderr"}


@verb(
    switch("follow", "-f", "--follow", help="Go on until the job has ended."),
    Option(
        "stream",
        ("--stream",),
        kind=Choice(_STREAMS),
        help="Only this one, to standard output. Else both, each to its own.",
    ),
    switch(
        "as_json",
        "--json",
        help="Print one JSON object for each piece: stream, offset, dropped (bytes missing before it), "
        "base64.",
    ),
    argument=Argument("job_id", metavar="ID"),
)
def logs(options: ConnectionOptions, follow: bool, stream: str | None, as_json: bool, job_id: str) -> None:
    """Print what a job has printed so far, as bytes, unchanged.

    Where the server does not have all of it, because the output was over its limit or a disk was full, a
    line on standard error says how much is missing. Exits 0 whatever became of the job; Ctrl-C leaves it
    running.

    \b
    Examples:
      remsvc jobs logs 5f3a9c0d1e
      remsvc jobs logs -f 5f3a9c0d1e
      remsvc jobs logs --stream err 5f3a9c0d1e > errors.txt
      remsvc jobs logs --json 5f3a9c0d1e | jq -r '.base64 | @base64d'
    """
    wanted = list(_STREAMS.values()) if stream is None else [_STREAMS[stream]]
    writer = OutputWriter(own_streams() if stream is None else {_STREAMS[stream]: binary(sys.stdout)})
    write: Callable[[OutputChunk], None] = _print_piece if as_json else writer
    notice = ConnectionNotice(options.target)
    with job_client(options) as client:
        rest = None if follow else _Rest(client.get_job(job_id), wanted)
        events = client.watch_job(
            job_id,
            stdout_offset=0 if "stdout" in wanted else -1,
            stderr_offset=0 if "stderr" in wanted else -1,
            on_disconnect=notice.lost,
        )
        ended: Job | None = None
        for event in events:
            notice.back()
            if isinstance(event, OutputChunk):
                write(event)
            elif event.job.ended:
                ended = event.job
            if rest is not None and rest.is_seen_with(event):
                break
        events.close()
    if not as_json:
        writer.finish(ended)


class _Rest:
    """The output that a job had at one moment, as far as it was not printed yet."""

    def __init__(self, job: Job, streams: list[str]) -> None:
        sizes = {"stdout": job.stdout.kept_end, "stderr": job.stderr.kept_end}
        self._ends = {stream: sizes[stream] for stream in streams if sizes[stream]}
        self._endless = job.ended  # the watch of an ended job ends by itself

    def is_seen_with(self, event: object) -> bool:
        if isinstance(event, OutputChunk):
            end = event.offset + len(event.data)
            if end >= self._ends.get(event.stream, end + 1):
                self._ends.pop(event.stream, None)
        return not self._ends and not self._endless


def _print_piece(chunk: OutputChunk) -> None:
    print_json(
        {
            "stream": chunk.stream,
            "offset": chunk.offset,
            "dropped": chunk.dropped,
            "base64": base64.b64encode(chunk.data).decode("ascii"),
        }
    )
