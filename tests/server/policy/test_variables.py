"""Variables that decide what a program runs."""

from __future__ import annotations

import pytest

from remsvc.server.policy.variables import is_barred, is_reserved, permits, runs_code

ANYWHERE = [
    *("LD_PRELOAD", "LD_LIBRARY_PATH", "LD_AUDIT", "GCONV_PATH", "GLIBC_TUNABLES"),
    *("BASH_ENV", "ENV", "IFS", "BASH_FUNC_ls%%", "PS4", "SHELLOPTS"),
]
WHERE_BOUNDED = [
    *("PATH", "HOME", "PYTHONPATH", "PYTHONSTARTUP", "PERL5LIB", "PERL5OPT", "RUBYOPT", "NODE_OPTIONS"),
    *("GIT_SSH_COMMAND", "PSModulePath"),
]


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_the_loader_and_shells_obey_is_always_reserved(name: str) -> None:
    assert is_reserved(name, bounded=False)
    assert not permits(["*", "LD_*", "BASH_*"], name, bounded=False)
    assert permits([name], name, bounded=False)


@pytest.mark.parametrize("name", WHERE_BOUNDED)
def test_what_programs_obey_is_reserved_where_programs_are_bounded(name: str) -> None:
    assert is_reserved(name, bounded=True)
    assert not is_reserved(name, bounded=False)
    assert not permits(["*"], name, bounded=True)
    assert permits(["*"], name, bounded=False)


@pytest.mark.parametrize(
    "name", ["APT_CONFIG", "RIPGREP_CONFIG_PATH", "ANSIBLE_CONFIG", "GNUMAKEFLAGS", "https_proxy", "CC"]
)
def test_what_single_tools_obey_has_to_be_named_in_full(name: str) -> None:
    assert runs_code(name)
    assert is_reserved(name, bounded=True)
    assert not is_reserved(name, bounded=False)
    assert not permits(["*", name[:3] + "*"], name, bounded=True)
    assert permits([name], name, bounded=True)
    assert not is_barred(name)


@pytest.mark.parametrize("name", [*ANYWHERE, *WHERE_BOUNDED])
def test_what_every_program_obeys_is_barred_beside_programs(name: str) -> None:
    assert is_barred(name)
    assert runs_code(name)


@pytest.mark.parametrize(
    "name", ["TZ", "LANG", "LC_ALL", "ETL_DATE", "MY_PATH", "ld_preload", "USER", "PRELOAD"]
)
def test_others_are_not(name: str) -> None:
    assert not is_reserved(name, bounded=True)
    assert permits(["*"], name, bounded=True)


def test_names_are_taken_as_they_are() -> None:
    assert permits(["ETL_*"], "ETL_", bounded=True)
    assert not permits(["ETL_*"], "etl_x", bounded=True)
    assert not permits(["ETL_*"], "XETL_x", bounded=True)
    assert not permits(["TZ"], "TZ2", bounded=True)
    assert not permits([], "TZ", bounded=False)
