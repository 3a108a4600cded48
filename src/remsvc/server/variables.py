"""Which environment variables a caller may set.

Some decide what code a program runs, whatever the program: those of the loader and of the shells.
Where the policy bounds what may run, those that lead programs to other code matter, too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")
"""A name as the configuration may write it: with a ``*`` at its end for any that begins so."""

_LOADER_AND_SHELLS = (
    *("LD_*", "DYLD_*", "GLIBC_TUNABLES", "GCONV_PATH", "GETCONF_DIR", "LOCPATH", "NLSPATH", "TZDIR"),
    *("MALLOC_TRACE", "NIS_PATH", "HOSTALIASES", "LOCALDOMAIN", "RESOLV_HOST_CONF", "RES_OPTIONS"),
    *("BASH_*", "ENV", "IFS", "CDPATH", "GLOBIGNORE", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND"),
    *("ZDOTDIR", "FPATH", "__PSLockdownPolicy"),
)
_PROGRAMS = (
    *("PATH", "HOME", "SHELL", "PYTHON*", "PERL*", "RUBY*", "GEM_*", "BUNDLE_*", "NODE_*", "NPM_CONFIG_*"),
    *("npm_config_*", "JAVA_*", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "LUA_*", "PHP*", "R_*"),
    *("TCLLIBPATH", "AWKPATH", "AWKLIBPATH", "GIT_*", "SSH_*", "RSYNC_*", "SUDO_*", "SYSTEMD_*", "MAKE*"),
    *("TAR_OPTIONS", "EDITOR", "VISUAL", "PAGER", "MANPAGER", "BROWSER", "LESS*", "DOTNET_*", "CORECLR_*"),
    *("COR_*", "PSModulePath", "XDG_*", "TERMINFO*", "TERMCAP", "GNUPGHOME", "OPENSSL_*", "SSL*", "CURL_*"),
    *("WGETRC", "DOCKER_*", "KUBECONFIG", "GTK_*", "QT_*", "GIO_*", "GCC_*", "COMPILER_PATH", "MAN*"),
)


def _matches(name: str, patterns: Iterable[str]) -> bool:
    return any(
        name.startswith(pattern[:-1]) if pattern.endswith("*") else name == pattern for pattern in patterns
    )


def is_reserved(name: str, *, bounded: bool) -> bool:
    """Whether a variable can be set only where it is named in full.

    Args:
        bounded: whether the policy bounds what may run, by patterns or by programs.
    """
    return _matches(name, _LOADER_AND_SHELLS) or (bounded and _matches(name, _PROGRAMS))


def permits(patterns: Iterable[str], name: str, *, bounded: bool) -> bool:
    """Whether a list of variables permits to set this one."""
    patterns = tuple(patterns)
    return name in patterns or (_matches(name, patterns) and not is_reserved(name, bounded=bounded))
