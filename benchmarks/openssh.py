"""An OpenSSH server of our own: Debian's ``sshd`` on a free port of 127.0.0.1, with keys and a configuration
in a folder that is thrown away. Nothing of the system's own SSH is read or changed."""

from __future__ import annotations

import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "scripts"))

from local_airflow.ports import free_port
from local_airflow.process import BackgroundProcess, StartupError

if TYPE_CHECKING:
    from typing_extensions import Self

STARTUP_TIMEOUT = 20.0
PRIVILEGE_SEPARATION = Path("/run/sshd")
"""Compiled into sshd, which as root insists on it. Debian's service makes it before it starts one. It stays:
another sshd may need it by then."""

_SERVER = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile none
AuthorizedKeysFile {folder}/user_key.pub
PubkeyAuthentication yes
PasswordAuthentication no
KbdInteractiveAuthentication no
PermitRootLogin prohibit-password
# The folder is a temporary one, whose parents others may write to.
StrictModes no
UsePAM no
UseDNS no
PrintMotd no
PrintLastLog no
LogLevel ERROR
# Else a bash that sshd starts reads the user's .bashrc, which may take longer than all the rest.
SetEnv SHLVL=1
# A thousand at once are let in: what is measured is the work, not the door.
MaxSessions 1000
MaxStartups 1000
"""

_CLIENT = """\
Host benchmark
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/user_key
  IdentitiesOnly yes
  IdentityAgent none
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile none
  StrictHostKeyChecking yes
  BatchMode yes
  LogLevel ERROR
  ControlPath {control}
"""


def missing() -> str:
    """Why there can be no OpenSSH here, in one line; empty where there can."""
    absent = [name for name in ("sshd", "ssh", "ssh-keygen") if program(name) is None]
    if absent:
        return f"not measured: no {', '.join(absent)} here (Debian: apt-get install openssh-server)"
    return ""


def program(name: str) -> str | None:
    """Where one of OpenSSH's programs is; ``sshd`` is not on an ordinary user's path."""
    return shutil.which(name, path=f"{os.environ.get('PATH', os.defpath)}:/usr/sbin:/usr/local/sbin")


class OpenSSH:
    """A running ``sshd``, and how to reach it. A context manager.

    Attributes:
        port: on 127.0.0.1.
        user: who logs in: whoever runs this.
        key: the private key file that is let in.
        known_hosts: the server's own key, for whoever checks it.
        config: for ``ssh -F``: the host ``benchmark``.
    """

    def __init__(self, folder: Path) -> None:
        """``folder``: an empty or missing directory. Its name must be short: a control socket lies in it."""
        self._folder = folder
        self.port = free_port()
        self.user = getpass.getuser()
        self.key = folder / "user_key"
        self.known_hosts = folder / "known_hosts"
        self.config = folder / "ssh_config"
        self._process: BackgroundProcess | None = None

    def ssh(self, *arguments: str) -> list[str]:
        """The command line of ``ssh`` to this server, with more options or a command."""
        return [program("ssh") or "ssh", "-F", str(self.config), *arguments]

    def start(self) -> None:
        """Make the keys and start; returns when it accepts connections.

        Raises:
            StartupError: it does not.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        for name in ("host_key", "user_key"):
            self._make_key(self._folder / name)
        host_key = (self._folder / "host_key.pub").read_text().strip()
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {host_key}\n")
        words = {
            "port": self.port,
            "folder": self._folder,
            "user": self.user,
            "control": self._folder / "control",
        }
        server = self._folder / "sshd_config"
        server.write_text(_SERVER.format(**words))
        self.config.write_text(_CLIENT.format(**words))
        if os.geteuid() == 0:
            PRIVILEGE_SEPARATION.mkdir(mode=0o755, exist_ok=True)
        sshd = program("sshd")
        if sshd is None:
            raise StartupError(missing())
        # In the foreground, and by its full path: it starts itself again for each connection.
        self._process = BackgroundProcess(
            "sshd",
            [sshd, "-D", "-e", "-f", server],
            env=os.environ,
            cwd=self._folder,
            log_path=self._folder / "sshd.log",
        )
        try:
            self._wait_until_it_listens()
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """End it and every session. Idempotent."""
        process, self._process = self._process, None
        if process is not None:
            process.stop()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.stop()

    def _make_key(self, path: Path) -> None:
        subprocess.run(
            [program("ssh-keygen") or "ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "", "-f", path],
            check=True,
            stdin=subprocess.DEVNULL,
        )

    def _wait_until_it_listens(self) -> None:
        assert self._process is not None
        deadline = time.monotonic() + STARTUP_TIMEOUT
        while True:
            self._process.check()
            try:
                with socket.create_connection(("127.0.0.1", self.port), timeout=5) as connection:
                    if connection.recv(4) == b"SSH-":
                        return
            except OSError:
                pass
            if time.monotonic() > deadline:
                raise StartupError(f"sshd does not listen on port {self.port}\n{self._process.log}")
            time.sleep(0.05)
