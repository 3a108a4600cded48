"""Takes a changed configuration over while the server runs: all of it, or nothing."""

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
"""Lets one part of the server follow a configuration, in two steps.

Called in another thread, it prepares what the part needs, and raises ConfigurationError where that part
cannot use the configuration. What it returns is called in the event loop, once all parts are prepared, and
puts it to use; it begins with assignments, which cannot fail."""


class Reloader:
    """Reads the configuration again on demand and when its files have changed.

    First every part prepares itself. Only if all could, all of them change, in one step of the event loop.
    Where a new configuration has mistakes, they are logged as errors, and the old one stays in force,
    whole.

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
        """Read the configuration again at once, whether it has changed or not."""
        self._asked.set()

    async def run(self) -> None:
        """Work until cancelled.

        A changed file is read once all files have stayed the same for a second, so that none is read while
        it is half written.
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
        """Let every part change, even where what another one does then has failed."""
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
        # Also where it cannot be used: it is not read again before something has changed.
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
