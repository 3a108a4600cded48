"""Commands of a supervisor that wait, ready to start, each for another one to end."""

from __future__ import annotations

from remsvc.execution.supervisor.command import Prepared

Name = int | str


class Lanes:
    """One at most waits for each command. Whoever puts one in starts or withdraws it."""

    def __init__(self) -> None:
        self._by_before: dict[Name, Prepared] = {}
        self._befores: dict[Name, Name] = {}

    def __contains__(self, name: object) -> bool:
        return name in self._befores

    def waiting_for(self, before: Name) -> Name | None:
        """Which command waits for this one."""
        prepared = self._by_before.get(before)
        return None if prepared is None else prepared.header["id"]

    def put(self, prepared: Prepared, before: Name) -> None:
        """Let a command wait for ``before``."""
        self._by_before[before] = prepared
        self._befores[prepared.header["id"]] = before

    def take(self, before: Name) -> Prepared | None:
        """The command that waited for ``before``, if there is one; it waits no longer."""
        prepared = self._by_before.pop(before, None)
        if prepared is not None:
            del self._befores[prepared.header["id"]]
        return prepared

    def withdraw(self, name: Name) -> bool:
        """Let a command not start after all; False where it does not wait."""
        if name not in self._befores:
            return False
        self._by_before.pop(self._befores.pop(name)).close()
        return True

    def withdraw_all(self) -> None:
        """Let none of them start."""
        for name in list(self._befores):
            self.withdraw(name)
