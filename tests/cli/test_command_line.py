"""Help, completion, usage errors; ``serve`` and ``check-config`` as far as the command line goes."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from .conftest import Remsvc, clean_environment

if TYPE_CHECKING:
    from tests.conftest import Serve

VERBS = ["serve", "check-config", "ping", "status", "run", "jobs", "init"]
VERBS += ["token", "policy", "audit", "completion"]
JOB_VERBS = ["list", "show", "wait", "cancel", "logs"]


@pytest.mark.parametrize(
    "verb",
    [[], *([verb] for verb in VERBS), *(["jobs", verb] for verb in JOB_VERBS)],
    ids=lambda words: " ".join(words) or "remsvc",
)
def test_help_has_examples_and_fits_the_screen(remsvc: Remsvc, verb: list[str]) -> None:
    run = remsvc(*verb, "--help", env={"COLUMNS": "80"})
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.startswith(f"Usage: {' '.join(['remsvc', *verb])} ")
    assert "Examples:\n" in run.stdout
    assert max(map(len, run.stdout.splitlines())) <= 100


def test_the_group_lists_every_verb_in_order(remsvc: Remsvc) -> None:
    for group, verbs in (([], VERBS), (["jobs"], JOB_VERBS)):
        lines = remsvc(*group, "--help").stdout.split("Commands:\n")[1].splitlines()
        assert [line.split()[0] for line in lines if line[2] != " "] == verbs


def test_version(remsvc: Remsvc) -> None:
    assert remsvc("--version").stdout == f"remsvc, version {version('airflow-provider-remsvc')}\n"


@pytest.mark.parametrize("arguments", [["nonsense"], ["--nonsense"], ["ping", "extra"], ["check-config"]])
def test_wrong_usage_exits_2(remsvc: Remsvc, arguments: list[str]) -> None:
    run = remsvc(*arguments)
    assert (run.returncode, run.stdout) == (2, "")
    assert "Usage: remsvc" in run.stderr


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_scripts_are_valid(remsvc: Remsvc, shell: str) -> None:
    run = remsvc("completion", shell)
    assert run.returncode == 0
    assert "_REMSVC_COMPLETE" in run.stdout
    if program := shutil.which(shell):
        subprocess.run([program, "-n"], input=run.stdout, text=True, check=True, timeout=50)


def test_completion_knows_verbs_and_options(remsvc: Remsvc) -> None:
    def complete(words: str, position: int) -> list[str]:
        environment = {
            "_REMSVC_COMPLETE": "bash_complete",
            "COMP_WORDS": words,
            "COMP_CWORD": str(position),
        }
        return remsvc(env=environment).stdout.split()

    assert complete("remsvc st", 1) == ["plain,status"]
    assert complete("remsvc run --sh", 2) == ["plain,--shell"]
    assert complete("remsvc run --shell p", 3) == ["plain,pwsh"]


def test_a_valid_configuration(remsvc: Remsvc, tmp_path: Path) -> None:
    config = tmp_path / "server.ini"
    config.write_text("[server]\nport = 50051\n")
    run = remsvc("check-config", config)
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{config}: valid\n", "")
    run = remsvc("check-config", "--json", config)
    assert json.loads(run.stdout) == {"valid": True, "problems": [], "warnings": []}


def test_every_problem_of_a_configuration_has_its_line(remsvc: Remsvc, tmp_path: Path) -> None:
    config = tmp_path / "server.ini"
    config.write_text("[server]\nport = 0x1\ncmd_timeout_ms = -1\nhost = 127.0.0.1\n[denylist]\n01 = (\n")
    run = remsvc("check-config", config)
    assert (run.returncode, run.stdout) == (2, "")
    problems = run.stderr.splitlines()
    assert len(problems) == 3
    for word in ("port", "cmd_timeout_ms", "denylist"):
        assert any(word in problem for problem in problems)
    report = remsvc("check-config", "--json", config)
    assert report.returncode == 2
    result = json.loads(report.stdout)
    assert result["valid"] is False
    assert [f"remsvc: {problem}" for problem in result["problems"]] == problems


def test_warnings_do_not_make_a_configuration_invalid(remsvc: Remsvc, tmp_path: Path) -> None:
    config = tmp_path / "server.ini"
    config.write_text("[server]\nhost = 0.0.0.0\n")
    run = remsvc("check-config", config)
    assert run.returncode == 0
    assert run.stderr.startswith("remsvc: warning: ")


def test_a_missing_configuration_is_told(remsvc: Remsvc) -> None:
    for verb in (["check-config", "missing.ini"], ["serve", "--config", "missing.ini"]):
        run = remsvc(*verb)
        assert (run.returncode, run.stdout) == (2, "")
        assert "missing.ini" in run.stderr
        assert len(run.stderr.splitlines()) == 1


def test_serve_refuses_what_is_wrong_all_at_once(remsvc: Remsvc) -> None:
    run = remsvc("serve", "--port", "65536", "--cmd-timeout-ms", "0", "--deny", "(", "--log-level", "loud")
    assert (run.returncode, run.stdout) == (2, "")
    problems = run.stderr.splitlines()
    assert len(problems) == 4
    for flag in ("--port", "--cmd-timeout-ms", "--deny", "--log-level"):
        assert any(flag in problem for problem in problems)


def test_flags_override_the_file(remsvc: Remsvc, serve: Serve, tmp_path: Path) -> None:
    server = serve(
        "[server]\nport = 1\ncmd_timeout_ms = 60000\n[jobs]\nenabled = false\n[allowlist]\n1 = nothing\n",
        *(
            "--port",
            "0",
            "--cmd-timeout-ms",
            "200",
            "--allow",
            "^sleep",
            "--allow",
            "^echo",
            "--deny",
            "secret",
        ),
    )
    run = remsvc("run", "-s", server.target, "--", "sleep 30")
    assert (run.returncode, run.stderr) == (1, "process timed out")
    assert remsvc("run", "-s", server.target, "--", "echo fine").stdout == "fine\n"
    refused = remsvc("run", "-s", server.target, "--", "echo secret")
    assert refused.returncode == 255
    assert refused.stderr.startswith(
        f"remsvc: {server.target}: PERMISSION_DENIED: command denied by denylist"
    )


def test_a_port_in_use_is_told(remsvc: Remsvc, serve: Serve) -> None:
    run = remsvc("serve", "--port", str(serve().port))
    assert (run.returncode, run.stdout) == (255, "")
    assert "remsvc: cannot listen on 127.0.0.1:" in run.stderr


def without(module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run remsvc as if a library were not installed."""
    script = f"import sys; sys.modules[{module!r}] = None; from remsvc.__main__ import main; main()"
    return subprocess.run(
        [sys.executable, "-c", script, *arguments],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )


@pytest.mark.parametrize(
    ("module", "arguments", "extra"),
    [
        ("re2", ["serve", "--deny", "rm"], "server"),
        ("grpc_health", ["serve"], "server"),
        ("google.rpc", ["serve"], "server"),
        ("cryptography", ["init", "nowhere"], "cli"),
        ("click", ["--help"], "cli"),
    ],
)
def test_a_missing_library_names_the_extra(module: str, arguments: list[str], extra: str) -> None:
    run = without(module, *arguments)
    assert (run.returncode, run.stdout) == (255, "")
    assert f"pip install 'airflow-provider-remsvc[{extra}]'" in run.stderr
    assert len(run.stderr.splitlines()) == 1


def test_a_server_does_without_grpc(tmp_path: Path) -> None:
    config = tmp_path / "server.ini"
    config.write_text("[server]\nport = 0\n", encoding="utf-8")
    assert without("grpc", "check-config", str(config)).returncode == 0
    script = "import sys; sys.modules['grpc'] = None; from remsvc.__main__ import main; main()"
    command = [sys.executable, "-c", script, "serve", "--config", str(config), "--state-dir", str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment()) as server:
        assert server.stdout is not None
        try:
            assert server.stdout.readline().startswith("listening on ")
        finally:
            server.terminate()
    assert server.returncode == 0


@pytest.mark.parametrize("verb", [["check-config", "FILE"], ["policy", "test", "--config", "FILE", "rm"]])
def test_only_patterns_need_the_library_for_patterns(verb: list[str], tmp_path: Path) -> None:
    config = tmp_path / "server.ini"
    config.write_text("[auth]\na = a-long-enough-token\n", encoding="utf-8")
    verb = [str(config) if word == "FILE" else word for word in verb]
    assert without("re2", *verb).returncode == 0
    config.write_text("[denylist]\n1 = rm\n", encoding="utf-8")
    run = without("re2", *verb)
    assert (run.returncode, run.stdout) == (255, "")
    assert "pip install 'airflow-provider-remsvc[server]'" in run.stderr


def test_a_defect_is_not_taken_for_a_commands_exit_code() -> None:
    script = (
        "import remsvc.cli.status as status\n"
        "status.open_client = None\n"
        "from remsvc.cli.main import main\n"
        "main()"
    )
    run = subprocess.run(
        [sys.executable, "-c", script, "status"],
        env=clean_environment(),
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert run.returncode == 255
    assert "TypeError" in run.stderr
