"""The outputs of commands that the supervisor's loop reads, and when each of them is closed."""

from __future__ import annotations

import os
import selectors
from collections import OrderedDict
from collections.abc import Callable

from remsvc.execution.supervisor.command import Pump

_MAX_LEFT_OPEN = 1024


class OpenOutputs:
    """Reads outputs as they come, those of commands that have ended as well.

    Args:
        selector: of the supervisor's loop.
    """

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._read: set[int] = set()  # the pipes that the selector looks at
        self._left_open: OrderedDict[int, Pump] = OrderedDict()

    def read(self, output: Pump, on_read: Callable[[], None]) -> None:
        """Read an output from now on, if it is not read yet; call ``on_read`` after each piece of it."""
        if output.open and output.fd not in self._read:
            self._look_at(output, on_read)

    def leave(self, output: Pump) -> None:
        """Read on and drop: closing would kill a background process that still writes."""
        self._left_open[output.fd] = output
        self._look_at(output, lambda: None)
        if len(self._left_open) > _MAX_LEFT_OPEN:
            self.close(next(iter(self._left_open.values())))

    def close(self, output: Pump) -> None:
        """Close an output, once: afterwards its number may be another's."""
        if output.fd < 0:
            return
        self._left_open.pop(output.fd, None)
        if output.fd in self._read:
            self._read.discard(output.fd)
            self._selector.unregister(output.fd)
        os.close(output.fd)
        output.fd = -1
        output.open = False

    def _look_at(self, output: Pump, on_read: Callable[[], None]) -> None:
        def read(_: int) -> None:
            if output.fd < 0:
                return  # closed by an earlier event of the same round
            output.read()
            if not output.open:
                self.close(output)
            on_read()

        if output.fd in self._read:
            self._selector.modify(output.fd, selectors.EVENT_READ, read)
        else:
            self._selector.register(output.fd, selectors.EVENT_READ, read)
            self._read.add(output.fd)
