"""What all connections of a server share: their limits, their buffers, and what bounds them together."""

from __future__ import annotations

from dataclasses import dataclass, field

from remsvc.http2.input_turns import InputTurns
from remsvc.server.calls.config import LimitsConfig
from remsvc.server.calls.methods import Methods
from remsvc.server.http2.answering import Answering
from remsvc.server.http2.tls import ShownCertificates
from remsvc.server.http2.unread import Unread
from remsvc.server.http2.unsent import Unsent

_INPUT_BYTES = 32 * 1024


@dataclass(frozen=True, eq=False, slots=True)
class Shared:
    """What all connections of one server use together.

    Attributes:
        limits: on each connection and on all.
        methods: that can be called.
        answering: answers the calls.
        unread: counts what of long messages is here.
        unsent: counts what of answers waits.
        turns, strangers_turns: for what was received and not taken in; callers have theirs apart, so that no
            crowd of strangers makes them wait.
        shown_certificates: those of the clients.
        input_buffer: what was received last; of no use after it was taken in.
    """

    limits: LimitsConfig
    methods: Methods
    answering: Answering
    unread: Unread
    unsent: Unsent
    turns: InputTurns = field(default_factory=InputTurns)
    strangers_turns: InputTurns = field(default_factory=InputTurns)
    shown_certificates: ShownCertificates = field(default_factory=ShownCertificates)
    input_buffer: memoryview = field(default_factory=lambda: memoryview(bytearray(_INPUT_BYTES)))
