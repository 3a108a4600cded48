"""Several machines on this one, as far as a program can tell: each has a network and a name of its own.

A machine is a network namespace. All are joined by a bridge, over which they reach this machine and one
another, and nothing else: no packet leaves it. What runs on one sees its own interfaces alone, so several can
listen on the same port, as Airflow's log servers do.
"""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from typing_extensions import Self

_NETWORKS = 512
"""198.18.0.0/15 is set aside for tests of networks: no host on any network has an address in it."""
_FIRST_HOST = 11


@dataclass(frozen=True)
class Machine:
    """One of them.

    Attributes:
        name: what it is called here.
        address: its address, which is also its host name: so everyone who hears the name can reach it,
            and no file of this machine has to be changed for that.
    """

    name: str
    address: str
    _namespace: str

    def command(self, argv: Sequence[str]) -> list[str]:
        """The command line that runs ``argv`` on it, in the process that it is started as."""
        named = ("unshare", "--uts", "sh", "-c", 'hostname "$0" && exec "$@"', self.address)
        return ["ip", "netns", "exec", self._namespace, *named, *argv]


class MachineNetwork:
    """A network of machines that this one makes, and removes again. A context manager.

    Attributes:
        address: that of this machine in it.
    """

    def __init__(self) -> None:
        self.address = ""
        self._number = 0
        self._machines: list[Machine] = []
        self._remove = ExitStack()

    @staticmethod
    def missing() -> str:
        """Why there can be none here, in one line; empty where there can."""
        if os.geteuid() != 0:
            return "only root makes network namespaces"
        if absent := [name for name in ("ip", "unshare", "hostname") if shutil.which(name) is None]:
            return f"{', '.join(absent)} not installed (Debian: iproute2, util-linux, hostname)"
        try:
            with MachineNetwork() as network:
                network.add("probe")
        except OSError as error:
            return str(error)
        return ""

    def add(self, name: str) -> Machine:
        """Add a machine.

        Raises:
            OSError: the system refuses it, with its reason.
        """
        host = _FIRST_HOST + len(self._machines)
        namespace, outside = f"{self._bridge}-{host}", f"rs{self._number}h{host}"
        machine = Machine(name, self._address(host), namespace)
        _ip("netns", "add", namespace)
        self._remove.callback(_ip, "netns", "delete", namespace)
        _ip("link", "add", outside, "type", "veth", "peer", "name", "eth0", "netns", namespace)
        # The namespace would take it along, but lives on for minutes where a killed process had connections.
        self._remove.callback(_ip, "link", "delete", outside)
        _ip("link", "set", outside, "master", self._bridge, "up")
        inside = ("-n", namespace)
        _ip(*inside, "address", "add", f"{machine.address}/24", "dev", "eth0")
        for interface in ("lo", "eth0"):
            _ip(*inside, "link", "set", interface, "up")
        self._machines.append(machine)
        return machine

    def __enter__(self) -> Self:
        """Make the network, without a machine in it.

        Raises:
            OSError: the system refuses it, with its reason.
        """
        try:
            self._make_bridge()
            self.address = self._address(1)
            _ip("address", "add", f"{self.address}/24", "dev", self._bridge)
            _ip("link", "set", self._bridge, "up")
        except BaseException:
            self._remove.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._machines.clear()
        self._remove.close()

    @property
    def _bridge(self) -> str:
        return f"remsvc-{self._number}"

    def _address(self, host: int) -> str:
        return f"198.{18 + self._number // 256}.{self._number % 256}.{host}"

    def _make_bridge(self) -> None:
        # There is one bridge of a name: who has made it has its addresses to itself.
        first = os.getpid() % _NETWORKS
        for self._number in (*range(first, _NETWORKS), *range(first)):
            try:
                _ip("link", "add", self._bridge, "type", "bridge")
            except OSError:
                if Path("/sys/class/net", self._bridge).exists():
                    continue
                raise
            self._remove.callback(_ip, "link", "delete", self._bridge)
            return
        raise OSError(f"all {_NETWORKS} networks are in use")


def _ip(*arguments: str) -> None:
    command = ["ip", *arguments]
    result = subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=30, check=False
    )
    if result.returncode != 0:
        raise OSError(f"{' '.join(command)}: {result.stderr.strip()}")
