"""A real supervisor of another version: what it says and hears is changed on its way.

Arguments: the descriptor of its first connection, state directory, version of its messages, and
``fewer`` (it says no more than any version must) or ``more`` (it says and hears what this version
does not know, and says some of what it knows in another shape).
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from typing import Any

from remsvc.execution.supervisor import frames, protocol

Header = dict[str, Any]

NEEDED = {
    "hello": {"event", "version", "instance", "jobs"},
    "started": {"event", "id", "pid", "started"},
    "output": {"event", "id"},
    "ended": {"event", "id", "record"},
}
NEEDED_OF_A_RECORD = {"exit_code", "signal", "error", "ended"}
UNKNOWN = {"weather": {"sun": [1, 2]}, "mood": None}
OTHER_SHAPES: list[Header] = [
    {"event": "started", "id": "nobody"},
    {"event": "output", "id": "nobody", "totals": {"stdout": 1, "stderr": 2}},
    {"event": "output", "id": "nobody", "totals": [1, 2, 3]},
    {"event": "output"},
    {"event": "ended", "record": {}},
    {"event": "ended", "id": "nobody"},
    {"event": "ended", "id": -1, "record": {"exit_code": "none"}},
]


def fewer(message: Header) -> list[Header]:
    said = {key: value for key, value in message.items() if key in NEEDED[message["event"]] | {"blobs"}}
    if isinstance(message.get("id"), str) and "record" in message:
        record = message["record"]
        said["record"] = {key: value for key, value in record.items() if key in NEEDED_OF_A_RECORD}
    return [said]


def more(message: Header) -> list[Header]:
    said = {**message, **UNKNOWN}
    if "record" in message:
        said["record"] = {**message["record"], **UNKNOWN}
    if message["event"] == "hello":
        return [{**said, "jobs": [{**job, **UNKNOWN} for job in message["jobs"]]}]
    unknown = {"event": "weather", **UNKNOWN}
    of_it = [{**unknown, "id": message["id"]}, {**UNKNOWN, "id": message["id"]}]
    return [unknown, *of_it, UNKNOWN, *OTHER_SHAPES, said]


class OtherFrames(frames.FrameReader):
    """Hears as if a newer server had spoken."""

    def feed(self, data: bytes) -> Iterator[tuple[Header, list[bytes]]]:
        for message, blobs in super().feed(data):
            yield {"op": "forecast", **UNKNOWN}, []
            yield {"op": "forecast", "id": message["id"], **UNKNOWN}, []
            yield UNKNOWN, []
            job = message.get("job")
            yield {**message, **UNKNOWN, **({"job": {**job, **UNKNOWN}} if job else {})}, blobs


def main(fd: str, state_dir: str, version: str, said: str) -> None:
    encode_frame = frames.encode_frame
    change = {"fewer": fewer, "more": more}[said]

    def encode_changed(header: Header, blobs: Sequence[bytes] = ()) -> bytes:
        *others, last = change(header)
        return b"".join(map(encode_frame, others)) + encode_frame(last, blobs)

    protocol.VERSION = int(version)
    protocol.encode_frame = encode_changed  # type: ignore[attr-defined]
    if said == "more":
        frames.FrameReader = OtherFrames  # type: ignore[misc]
    from remsvc.execution.supervisor.main import main as run  # which takes them from there

    run(int(fd), state_dir, "")


if __name__ == "__main__":
    main(*sys.argv[1:])
