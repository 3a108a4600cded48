"""Taking in a changed configuration while the server runs: all of it, or nothing."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import logging
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path

from remsvc.errors import ConfigurationError
from remsvc.server.config import SCHEMA, ServerConfig, read_config
from remsvc.server.settings.files import Signature, signature_of
from remsvc.time_limit import TimeLimit

_logger = logging.getLogger("remsvc.reload")

_POLL_SECONDS = 1.0
_LATER = "a change takes effect at the next start only"

Prepare = Callable[[ServerConfig], Callable[[], None]]
"""Makes what a part of the server needs of a configuration, in another thread, and returns what puts it
to use, in the event loop: first by assignments alone, which cannot fail. Raises ConfigurationError where the
configuration cannot be used."""


class Reloader:
    """Reads the configuration again on demand and when its files have changed.

    Every part prepares itself first; only when all could, all change, in one step of the event loop.
    What is wrong with a new configuration is logged as an error, and the old one stays, whole.

    Args:
        config: what the server was started with.
    """

    def __init__(self, config: ServerConfig) -> None:
        self._config = config
        self._prepares: list[Prepare] = []
        self._asked = asyncio.Event()
        self._known = config.source.files
        self._started_with = config.source.values

    def add(self, prepare: Prepare) -> None:
        """Let a part of the server follow the configuration."""
        self._prepares.append(prepare)

    def ask(self) -> None:
        """Have the configuration read again at once, changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Work until cancelled.

        A change of a file is taken in when the files have then stayed the same for a second: what is
        being written is not read half.
        """
        unsettled: Mapping[Path, Signature] | None = None
        while True:
            with contextlib.suppress(TimeoutError), TimeLimit(_POLL_SECONDS):
                await self._asked.wait()
            if self._asked.is_set():
                self._asked.clear()
                await self._reload("asked to")
                continue
            current = await asyncio.to_thread(_signatures, self._known)
            if current == self._known:
                unsettled = None
            elif current == unsettled:
                await self._reload("files have changed")
            else:
                unsettled = current

    async def _reload(self, why: str) -> None:
        try:
            config, commits = await asyncio.to_thread(self._read)
        except ConfigurationError as error:
            for problem in error.problems:
                _logger.error("%s", problem)
            _logger.error("configuration NOT reloaded, the old one stays in force (%s)", why)
        except Exception:  # a defect in reading must not end the server, nor this task
            _logger.exception("configuration NOT reloaded, the old one stays in force (%s)", why)
        else:
            self._commit(commits)
            for warning in config.warnings:
                if warning not in self._config.warnings:
                    _logger.warning("%s", warning)
            self._config = config
            _logger.info("configuration reloaded (%s)", why)

    def _commit(self, commits: Iterable[Callable[[], None]]) -> None:
        """Let every part change, whatever becomes of what another one does in consequence."""
        for commit in commits:
            try:
                commit()
            except Exception:
                _logger.exception("the configuration is in force, but not all that follows from it was done")

    def _tell_of_later(self, config: ServerConfig) -> None:
        """Tell of each setting that has changed since the last reading, and counts from the next start."""
        new, last = config.source.values, self._config.source.values
        for setting in sorted({*new, *last}):
            section, key = setting
            declared = SCHEMA.key(section, key)
            if declared is not None and declared.reloads:
                continue
            if new.get(setting) != last.get(setting) and new.get(setting) != self._started_with.get(setting):
                _logger.warning("[%s] %s: %s", section, key, _LATER)

    def _read(self) -> tuple[ServerConfig, list[Callable[[], None]]]:
        running = self._config
        source = running.source
        config, problems = read_config(source.path, source.overrides)
        # Of one that cannot be used as well: it is not read again until something has changed.
        self._known = config.source.files
        if problems:
            raise ConfigurationError(problems)
        if running.authenticates and not config.authenticates:
            raise ConfigurationError(
                ["[auth], [tls] ca: authentication cannot be switched off while the server runs"]
            )
        if (config.host, config.port) != (running.host, running.port):
            # What is safe depends on where the server listens, which is where it was started.
            address = {"host": running.host, "port": running.port}
            moved, problems = read_config(source.path, {**source.overrides, **address})
            if problems:
                raise ConfigurationError(problems)
            config = dataclasses.replace(moved, source=config.source)
            _logger.warning("[server] host, port: %s", _LATER)
        commits = [prepare(config) for prepare in self._prepares]
        self._tell_of_later(config)
        return config, commits


def _signatures(files: Mapping[Path, Signature]) -> dict[Path, Signature]:
    return {path: signature_of(path) for path in files}
