"""Decides which environment variables a caller may set.

Some decide what code any program runs: those of the loader and of the shells. Where the policy bounds what
may run, variables also matter by which certain programs are led to other code. No list of those is
complete, so there the policy accepts only variables that it lists. The ones known here are those that a
name with a ``*`` never stands for, and that ``check-config`` warns of.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*\*?|\*")
"""A name as the configuration may write it: with a ``*`` at its end for any that begins so."""


class _Names:
    """Names of variables, some with a ``*`` at the end."""

    def __init__(self, *names: str) -> None:
        self._whole = frozenset(name for name in names if not name.endswith("*"))
        self._beginnings = tuple(name[:-1] for name in names if name.endswith("*"))

    def __contains__(self, name: str) -> bool:
        return name in self._whole or name.startswith(self._beginnings)


_LOADER_AND_SHELLS = _Names(
    *("LD_*", "DYLD_*", "GLIBC_TUNABLES", "GCONV_PATH", "GETCONF_DIR", "LOCPATH", "NLSPATH", "TZDIR"),
    *("MALLOC_TRACE", "NIS_PATH", "HOSTALIASES", "LOCALDOMAIN", "RESOLV_HOST_CONF", "RES_OPTIONS"),
    *("BASH_*", "ENV", "IFS", "CDPATH", "GLOBIGNORE", "SHELLOPTS", "BASHOPTS", "PS4", "PROMPT_COMMAND"),
    *("ZDOTDIR", "FPATH", "__PSLockdownPolicy"),
)
_PROGRAMS = _Names(
    *("PATH", "HOME", "SHELL", "PYTHON*", "PERL*", "RUBY*", "GEM_*", "BUNDLE_*", "NODE_*", "NPM_CONFIG_*"),
    *("npm_config_*", "JAVA_*", "_JAVA_OPTIONS", "JDK_JAVA_OPTIONS", "CLASSPATH", "LUA_*", "PHP*", "R_*"),
    *("TCLLIBPATH", "AWKPATH", "AWKLIBPATH", "GIT_*", "SSH_*", "RSYNC_*", "SUDO_*", "SYSTEMD_*", "MAKE*"),
    *("TAR_OPTIONS", "EDITOR", "VISUAL", "PAGER", "MANPAGER", "BROWSER", "LESS*", "DOTNET_*", "CORECLR_*"),
    *("COR_*", "PSModulePath", "XDG_*", "TERMINFO*", "TERMCAP", "GNUPGHOME", "OPENSSL_*", "SSL*", "CURL_*"),
    *("WGETRC", "DOCKER_*", "KUBECONFIG", "GTK_*", "QT_*", "GIO_*", "GCC_*", "COMPILER_PATH", "MAN*"),
)
# Of single tools: their configuration, their plug-ins, the programs that they call.
_TOOLS = _Names(
    *("ACLOCAL_PATH", "ALL_PROXY", "ANSIBLE_*", "ANT_*", "APT_CONFIG", "AR", "AS", "ASAN_OPTIONS", "AWS_*"),
    *("AZURE_*", "BAT_*", "BORG_*", "BOTO_*", "BUN_*", "BZR*", "CARGO_*", "CATALINA_*", "CC", "CFLAGS"),
    *("CGO_*", "CHEF_*", "CLOUDSDK_*", "COMPOSER_*", "CONDA_*", "COREPACK_*", "CPP", "CPPFLAGS", "CVS*"),
    *("CXX", "CXXFLAGS", "DELTA_*", "DENO_*", "DPKG_*", "ELECTRON_*", "EMACS*", "EXINIT", "FACTER*"),
    *("FCEDIT", "FONTCONFIG_*", "FZF_*", "GDK_*", "GNUMAKEFLAGS", "GOENV", "GOFLAGS", "GOOGLE_*", "GOPATH"),
    *("GOROOT", "GOTOOLCHAIN", "GRADLE_*", "GREP_OPTIONS", "GROFF_*", "GROOVY*", "GST_*", "HADOOP_*"),
    *("HELM_*", "HG*", "HIVE_*", "HTTPS_PROXY", "HTTP_PROXY", "INPUTRC", "JRUBY*", "JVM_*", "KRB5*", "LD"),
    *("LDAP*", "LDFLAGS", "LIBGL_*", "LIBMYSQL_*", "LSAN_OPTIONS", "MAGICK_*", "MAIL*", "MAVEN_*", "MC_*"),
    *("MESA_*", "METAMAIL*", "MFLAGS", "MSAN_OPTIONS", "MVN*", "MYSQL*", "NIX_*", "NSS_*", "NVIM*"),
    *("OCL_*", "ODBC*", "OPENER", "ORACLE_*", "P11_KIT*", "P4*", "PACKER_*", "PG*", "PIP_*", "PKCS11*"),
    *("PKG_CONFIG*", "PNPM_*", "POETRY_*", "PSQL*", "PUPPET*", "RCLONE_*", "RESTIC_*"),
    *("RIPGREP_CONFIG_PATH", "RSH", "RUST*", "SALT_*", "SASL_*", "SBT_*", "SCALA*", "SCREEN*", "SPARK_*"),
    *("SQLITE_*", "SVN_*", "TERRAGRUNT_*", "TEXINPUTS", "TEXMF*", "TF_*", "TNS_ADMIN", "TSAN_OPTIONS"),
    *("UBSAN_OPTIONS", "UV_*", "VAGRANT_*", "VIM*", "VIRTUAL_ENV", "VK_*", "YARN_*", "all_proxy"),
    *("ftp_proxy", "http_proxy", "https_proxy"),
)


def runs_code(name: str) -> bool:
    """Whether a variable is known to decide what code some program runs."""
    return is_barred(name) or name in _TOOLS


def is_barred(name: str) -> bool:
    """Whether a variable cannot be set beside a list of programs, not even one that is named in full."""
    return name in _LOADER_AND_SHELLS or name in _PROGRAMS


def is_reserved(name: str, *, bounded: bool) -> bool:
    """Whether a variable can be set only where it is named in full.

    Args:
        bounded: whether the policy bounds what may run, by patterns or by programs.
    """
    return name in _LOADER_AND_SHELLS or (bounded and runs_code(name))


def permits(patterns: Iterable[str], name: str, *, bounded: bool) -> bool:
    """Whether a list of variables permits to set this one."""
    patterns = tuple(patterns)
    return name in patterns or (name in _Names(*patterns) and not is_reserved(name, bounded=bounded))
