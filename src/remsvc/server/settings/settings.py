"""Single values out of the configuration file and the flags, each checked, each mistake kept."""

from __future__ import annotations

import os
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from remsvc.server.identity.token_file import is_hash, parse_hash
from remsvc.server.identity.tokens import Credential, digest_of
from remsvc.server.policy.patterns import PatternError, Rule, compile_pattern
from remsvc.server.settings.file_signature import Signature, signature_of
from remsvc.server.settings.ini import NAMED_SECTIONS, IniEntry, parse_ini, section_key, section_names
from remsvc.server.settings.misplaced_secrets import NOT_SHOWN, in_known_key, in_path, in_unknown_key
from remsvc.token_text import token_as_meant

_KEYS: dict[str, tuple[str, ...]] = {
    "server": (
        "host",
        "port",
        "transport",
        "cmd_timeout_ms",
        "max_output_bytes",
        "shutdown_grace_ms",
        "state_dir",
        "allow_plaintext_tokens",
        "token_file",
        "authentication",
        "peer_uid",
    ),
    "tls": ("enabled", "cert", "key", "ca", "client_certificates"),
    "log": ("file", "level", "debug_level"),
    "jobs": (
        "enabled",
        "max_running",
        "max_queued",
        "max_text_bytes",
        "time_limit_ms",
        "kill_grace_ms",
        "output_limit_bytes",
        "max_output_limit_bytes",
        "retention_hours",
        "retention_count",
        "retention_bytes",
        "admins",
        "cgroup",
        "output_wait_ms",
    ),
    "limits": (
        "max_connections",
        "max_streams",
        "max_calls",
        "max_metadata_bytes",
        "max_headers",
        "max_message_bytes",
        "max_request_bytes",
        "call_rate",
        "max_unread_bytes",
        "max_unsent_bytes",
        "max_unsent_bytes_total",
        "handshake_timeout_ms",
        "header_timeout_ms",
        "request_timeout_ms",
        "connection_idle_ms",
        "stream_idle_ms",
        "answer_timeout_ms",
        "failed_authentications",
        "nofile",
        "nproc",
        "memory_bytes",
        "cpu_seconds",
        "umask",
        "no_new_privs",
    ),
    "audit": ("file", "key_file", "syslog", "redact", "on_failure"),
}
# Keys that may be given more than once, as KEY.NAME.
_REPEATABLE = {("audit", "redact")}
# Those whose values are paths, names or patterns; those of the others are numbers, or one of some words.
_TEXTS = {("server", key) for key in ("host", "state_dir", "token_file", "peer_uid")}
_TEXTS |= {("tls", key) for key in ("cert", "key", "ca")} | {("jobs", key) for key in ("admins", "cgroup")}
_TEXTS |= {("log", "file")} | {("audit", key) for key in ("file", "key_file", "syslog", "redact")}
_FREE_SECTIONS = ("auth", "denylist", "allowlist", "certificates")
_FLAGS = {
    "host": ("server", "host"),
    "port": ("server", "port"),
    "cmd_timeout_ms": ("server", "cmd_timeout_ms"),
    "transport": ("server", "transport"),
    "peer_uid": ("server", "peer_uid"),
    "state_dir": ("server", "state_dir"),
    "tls": ("tls", "enabled"),
    "cert": ("tls", "cert"),
    "key": ("tls", "key"),
    "ca_cert": ("tls", "ca"),
    "log_level": ("log", "level"),
    "log_file": ("log", "file"),
}
TRUTH = {"true": True, "yes": True, "on": True, "1": True}
TRUTH |= {"false": False, "no": False, "off": False, "0": False}
"""How a yes and a no are written, in lower case."""
# Written for a reader of INI files that unescapes: here such a pattern hardly ever matches.
_DOUBLED = re.compile(r"\\\\[sSdDwWbB.]")
_VARIABLE = re.compile(r"\$(?:(\w+)|\{(\w+)\})")


@dataclass(frozen=True, slots=True)
class Value:
    """One setting: its text, and where it came from as a problem's line begins."""

    text: str
    where: str
    line: int = 0

    @property
    def is_flag(self) -> bool:
        """Whether it was given on the command line."""
        return self.where.startswith("--")


class Settings:
    """What the file and the flags say. Getters note problems and go on with the default.

    Attributes:
        warnings: a line for each thing that is permitted but probably not meant.
        files: the files that were read, with their signatures before they were.
    """

    def __init__(self, path: Path | None, overrides: Mapping[str, object]) -> None:
        self._problems: list[tuple[int, str]] = []
        self.warnings: list[str] = []
        self.files: dict[Path, Signature] = {}
        self._sections: set[str] = set()
        self._values: dict[tuple[str, str], Value] = {}
        self._free: dict[str, list[IniEntry]] = {section: [] for section in _FREE_SECTIONS}
        self._named: dict[str, list[IniEntry]] = {}
        self._path = path
        if path is not None:
            self._read_file(path)
        self._lists: dict[str, tuple[str, ...]] = {}
        for name in ("deny", "allow"):
            patterns = overrides.get(name)
            if isinstance(patterns, tuple) and patterns:
                self._lists[name] = tuple(map(str, patterns))
        for flag, setting in _FLAGS.items():
            if (given := overrides.get(flag)) is not None:
                text = str(given).lower() if isinstance(given, bool) else str(given)
                self._values[setting] = Value(text, f"--{flag.replace('_', '-')} {text}")

    @property
    def problems(self) -> list[str]:
        """A line for each mistake (file, section, key, value, what was expected), in the file's order."""
        return [text for _, text in sorted(self._problems, key=lambda problem: problem[0])]

    def given(self, section: str, key: str) -> Value | None:
        """The value, or None where it is not given or empty."""
        value = self._values.get((section, key))
        return value if value is not None and value.text else None

    @property
    def texts(self) -> dict[tuple[str, str], str]:
        """The text of each setting that was given, by section and key; not those whose keys are free."""
        return {setting: value.text for setting, value in self._values.items()}

    def report(self, value: Value | None, otherwise: str, expected: str) -> None:
        """Note a problem with ``value``, or with ``otherwise`` where nothing was given."""
        self._note(value.line if value else 0, f"{value.where if value else otherwise}: {expected}")

    def text(self, section: str, key: str) -> str | None:
        """The text as written."""
        value = self.given(section, key)
        return value.text if value else None

    def path(self, section: str, key: str) -> Path | None:
        """A path, with its variables and a leading ``~`` expanded."""
        value = self.given(section, key)
        if value is None:
            return None
        text = _expand(value.text)
        if "\0" in text:
            self.report(value, "", "expected a path without a NUL character")
            return None
        try:
            return Path(text).expanduser()
        except RuntimeError:
            self.report(value, "", "expected a path; ~ could not be resolved to a home directory")
            return None

    def integer(self, section: str, key: str, default: int, low: int, high: int, hint: str = "") -> int:
        """A whole number from ``low`` to ``high``."""
        value = self._values.get((section, key))
        if value is None:
            return default
        if re.fullmatch(r"[+-]?[0-9]{1,20}", value.text) and low <= int(value.text) <= high:
            return int(value.text)
        hint = f" ({hint})" if hint else ""
        self.report(value, "", f"expected a whole number from {low} to {high}{hint}")
        return default

    def boolean(self, section: str, key: str, default: bool, otherwise: str = "") -> bool:
        """``true`` or ``false`` (or yes/no, on/off, 1/0); ``otherwise`` names what else may be given."""
        value = self._values.get((section, key))
        if value is None:
            return default
        if value.text.lower() not in TRUTH:
            self.report(value, "", f"expected true or false{otherwise}")
        return TRUTH.get(value.text.lower(), default)

    def choice(self, section: str, key: str, default: str, choices: Collection[str]) -> str:
        """One of ``choices``, in any case."""
        value = self._values.get((section, key))
        if value is None:
            return default
        if value.text.lower() in choices:
            return value.text.lower()
        self.report(value, "", f"expected one of {', '.join(choices)}")
        return default

    def note_file(self, path: Path) -> None:
        """Note that ``path`` is about to be read."""
        self.files.setdefault(path, signature_of(path))

    def has_section(self, name: str) -> bool:
        """Whether the file has the section, with or without entries."""
        return name in self._sections

    def entries(self, section: str) -> list[IniEntry]:
        """All of a section whose keys are free."""
        return self._free[section]

    def value_of(self, entry: IniEntry) -> Value:
        """For :meth:`report`."""
        return self._value(entry)

    def unknown_key(self, entry: IniEntry, known: Iterable[str]) -> None:
        """Note that an entry means nothing, without what may be a token; ``known``: the keys that do."""
        shown = entry.value
        if in_unknown_key(entry.key, entry.value):
            shown = NOT_SHOWN
        where = f"{self._path}:{entry.line}: [{entry.section}] {entry.key} = {shown}"
        self._note(entry.line, f"{where}: unknown key, expected one of {', '.join(known)}")

    def credentials(self) -> list[Credential]:
        """The entries of ``[auth]``: a token, or its hash. No message ever shows one."""
        found: dict[bytes, Credential] = {}
        credentials: list[Credential] = []
        tokens = [token_as_meant(_expand(entry.value)) for entry in self._free["auth"]]
        # Without any token every caller would be permitted: not what naming identities means.
        fatal = not any(tokens)
        for entry, token in zip(self._free["auth"], tokens, strict=True):
            where = f"{self._path}:{entry.line}: [auth] {entry.key}"
            digest = parse_hash(token)
            if variables := [match[1] or match[2] for match in _VARIABLE.finditer(entry.value)]:
                where += f" (by the variable {', '.join(variables)})"
            if not token and fatal:
                self._note(entry.line, f"{where}: expected a token")
            elif not token:
                self.warnings.append(f"{where}: not used, because its token is empty")
            elif not token.isascii() or not token.isprintable():
                self._note(entry.line, f"{where}: expected printable ASCII characters {NOT_SHOWN}")
            elif is_hash(token) and digest is None:
                self._note(entry.line, f"{where}: expected sha256: and 64 hex digits {NOT_SHOWN}")
            else:
                credential = Credential(entry.key, digest or digest_of(token))
                if credential.digest in found:
                    self.warnings.append(f"{where}: the same token as an identity before it")
                if _VARIABLE.fullmatch(token):
                    self.warnings.append(f"{where}: the variable is not set, so its name itself is the token")
                found[credential.digest] = credential
                credentials.append(credential)
        return credentials

    def named_sections(self, kind: str) -> dict[str, list[IniEntry]]:
        """The entries of each ``[kind NAME]``, by name."""
        return {
            section.removeprefix(f"{kind} "): entries
            for section, entries in self._named.items()
            if section.startswith(f"{kind} ")
        }

    def patterns(self, section: str, key: str) -> tuple[Rule, ...]:
        """The patterns of ``key`` and of each ``key.NAME``, in the order of the names."""
        rules = []
        for (in_section, name), value in sorted(self._values.items()):
            if in_section != section or name.partition(".")[0] != key:
                continue
            if not value.text:
                self.warnings.append(f"{value.where}: not used, because it is empty")
                continue
            try:
                compile_pattern(value.text)
            except PatternError as error:
                self.report(value, "", f"expected an RE2 regular expression: {error}")
            rules.append(Rule(name, value.text))
        return tuple(rules)

    def rules(self, section: str, flag: str) -> tuple[Rule, ...]:
        """The patterns of a list, in the order of their keys. A flag's list replaces the file's."""
        if flag in self._lists:
            given = [
                (Rule(f"--{flag} #{number}", pattern), Value(pattern, f"--{flag} {pattern}"))
                for number, pattern in enumerate(self._lists[flag], 1)
            ]
        else:
            entries = sorted(self._free[section], key=lambda entry: entry.key)
            given = [
                (Rule(entry.key, entry.value, f"[{section}]"), self._value(entry))
                for entry in entries
                if entry.value
            ]
            for entry in entries:
                if _DOUBLED.search(entry.value):
                    self.warnings.append(
                        f"{self._where(entry)}: \\\\ matches a backslash; write \\s and the like with one"
                    )
                if not entry.value:
                    self.warnings.append(f"{self._where(entry)}: not used, because it is empty")
                if entry.comment and section == "allowlist":  # shorter, it permits more
                    self.warnings.append(
                        f"{self._where(entry)}: what follows ' ;' is a comment; write [;] to match one"
                    )
        for rule, value in given:
            try:
                compile_pattern(rule.pattern)
            except PatternError as error:
                self.report(value, "", f"expected an RE2 regular expression: {error}")
        return tuple(rule for rule, _ in given)

    def _note(self, line: int, problem: str) -> None:
        self._problems.append((line, problem))

    def _read_file(self, path: Path) -> None:
        self.note_file(path)
        try:
            text = path.read_bytes().decode("utf-8")
        except OSError as error:
            self._note(0, f"{path}: cannot be read: {error.strerror}")
            return
        except UnicodeDecodeError as error:
            self._note(0, f"{path}: expected UTF-8 text: byte {error.start} is not")
            return
        if os.name == "posix" and path.stat().st_mode & 0o002:
            self.warnings.append(f"{path}: everybody can write to it, and so permit anything (chmod o-w)")
        self._sections = section_names(text)
        entries, mistakes = parse_ini(text)
        for mistake in mistakes:
            self._note(mistake.line, f"{path}:{mistake.line}: {mistake.message}")
        unknown: set[str] = set()
        for entry in entries:
            section, key = entry.section.lower(), entry.key.lower()
            if section in self._free:
                self._free[section].append(entry)
            elif section.split()[0] in NAMED_SECTIONS and section_key(entry.section) not in NAMED_SECTIONS:
                self._named.setdefault(section_key(entry.section), []).append(entry)
            elif section not in _KEYS:
                if section not in unknown:
                    known = ", ".join(f"[{name}]" for name in (*_KEYS, *_FREE_SECTIONS))
                    known += "".join(f", [{kind} NAME]" for kind in NAMED_SECTIONS)
                    text = f"{path}:{entry.line}: [{entry.section}]: unknown section, expected one of {known}"
                    self._note(entry.line, text)
                unknown.add(section)
            elif key not in _KEYS[section] and (section, key.partition(".")[0]) not in _REPEATABLE:
                self.unknown_key(entry, _KEYS[section])
            else:
                self._values[section, key] = self._value(entry)

    def _value(self, entry: IniEntry) -> Value:
        return Value(entry.value, self._where(entry), entry.line)

    def _where(self, entry: IniEntry) -> str:
        section, key = entry.section.lower(), entry.key.lower().partition(".")[0]
        shown = entry.value
        if section in _KEYS and (section, key) not in _TEXTS:
            shown = NOT_SHOWN if in_known_key(shown) else shown
        elif (section, key) == ("server", "token_file") and in_path(shown):
            shown = NOT_SHOWN
        return f"{self._path}:{entry.line}: [{entry.section}] {entry.key} = {shown}"


def _expand(text: str) -> str:
    """``$VAR`` and ``${VAR}`` from the environment; an unknown one stays as written."""
    return _VARIABLE.sub(lambda match: os.environ.get(match[1] or match[2], match[0]), text)
